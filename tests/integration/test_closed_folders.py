"""What is personal on this machine's disk is closed to its other users, whoever made the folder before."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.audit import AuditLog
from pipeline.broker import start_broker
from pipeline.demo import _only_demo
from pipeline.privacy.secret_files import close_folder, make_secret_folder
from pipeline.settings import Settings
from tests.isolated import run_isolated


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[Path]:
    """The files and folders from here on that other users of this machine can read."""
    if not folder.stat().st_mode & 0o077:
        return []
    inside = [each for path in folder.iterdir() for each in (open_to_others(path) if path.is_dir() else [path])]
    return [folder, *(path for path in inside if path.stat().st_mode & 0o077)]


def opened(home: Path) -> None:
    from pipeline.store.client import open_store

    os.umask(0o022)
    open_store(Settings(home=home)).close()


def test_a_store_is_closed_to_others_and_so_is_every_folder_made_for_it(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there"
    run_isolated(opened, home)
    assert (home / "store" / "clickhouse" / "store").is_dir()
    assert open_to_others(tmp_path / "not") == []


def test_a_store_that_was_made_open_to_others_is_closed_when_it_is_opened_again(tmp_path: Path) -> None:
    clickhouse = tmp_path / "store" / "clickhouse"
    clickhouse.mkdir(parents=True)
    tmp_path.chmod(0o755)
    run_isolated(opened, tmp_path)
    # The folders above stay as whoever made them wants them: there is nothing of ours in them that could be read.
    assert open_to_others(tmp_path) == [tmp_path, tmp_path / "store"]


@pytest.mark.kafka
def test_kafkas_logs_are_closed_to_others_also_where_they_were_not_before(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with start_broker(home, 0, tied_to_us=True):
        assert (home / "kafka" / "data").is_dir()
        assert open_to_others(home) == []
        for folder in (home, home / "kafka"):
            folder.chmod(0o755)
        start_broker(home, 0)
        assert open_to_others(home) == [home]


def test_a_demos_folder_is_its_owners(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "demo").mkdir(parents=True)
    with _only_demo(home / "demo"):
        (home / "demo" / "worker.out").touch()
        assert open_to_others(home / "demo") == []


def test_a_home_made_for_keys_or_the_audit_log_is_closed_too(tmp_path: Path) -> None:
    make_secret_folder(tmp_path / "one" / "keys")
    AuditLog(tmp_path / "other" / "audit.jsonl").append(
        "somebody", "query", purpose="test", case=None, persons=0, what=""
    )
    for home in ("one", "other"):
        assert open_to_others(tmp_path / home) == []


def test_what_is_closed_and_what_cannot_be_is_told_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    close_folder(tmp_path / "new")
    assert caplog.text == ""
    ours = tmp_path / "ours"
    ours.mkdir()
    close_folder(ours)
    assert f"closed {ours} to other users of this machine: its mode was 755" in caplog.text
    assert ours.stat().st_mode & 0o777 == 0o700
    caplog.clear()
    close_folder(ours)
    assert caplog.text == ""
    # A volume of another user's, and a file system that knows no rights.
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr("pipeline.privacy.secret_files.os.getuid", lambda: volume.stat().st_uid + 1)
    close_folder(volume)
    assert "have its owner run chmod 700" in caplog.text
    assert volume.stat().st_mode & 0o777 == 0o755
    monkeypatch.undo()
    caplog.clear()
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    close_folder(volume)
    assert f"may read what is in {volume}" in caplog.text
