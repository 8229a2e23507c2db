"""Every jar is the locked one, or the user hears in a sentence why it is not."""

import errno
import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import kafka_jars
from pipeline.errors import UserError

GOOD = b"the locked jar"


class Repository:
    """Stands for jgo and Maven Central: one artifact that `served` is fetched for, in turn."""

    def __init__(self, cache: Path, served: list[bytes | Exception]) -> None:
        self.context = SimpleNamespace(repo_cache=cache)
        self.cached_path = cache / "org" / "kafka-1.jar"
        self.filename = self.artifactId = "kafka-1.jar"
        self.served = served

    def resolve(self) -> Path:
        answer = self.served.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.cached_path.parent.mkdir(parents=True, exist_ok=True)
        self.cached_path.write_bytes(answer)
        return self.cached_path


def repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: list[bytes | Exception], cached: bytes | None = None
) -> Repository:
    made = Repository(tmp_path / "cache", served)
    if cached is not None:
        made.cached_path.parent.mkdir(parents=True)
        made.cached_path.write_bytes(cached)
    jar = kafka_jars._Jar(made, hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setattr(kafka_jars, "_locked_jars", lambda: [jar])
    return made


def test_a_jar_that_is_here_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = repository(tmp_path, monkeypatch, served=[], cached=GOOD)
    assert kafka_jars.kafka_jars() == [made.cached_path]


@pytest.mark.parametrize("cached", [None, GOOD[:5], b"an altered jar"])
def test_a_missing_cut_or_altered_jar_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bytes | None
) -> None:
    made = repository(tmp_path, monkeypatch, served=[GOOD], cached=cached)
    kafka_jars.kafka_jars()
    assert made.cached_path.read_bytes() == GOOD
    assert made.served == []


def test_a_wrong_jar_from_the_network_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = repository(tmp_path, monkeypatch, served=[b"still altered"], cached=b"an altered jar")
    with pytest.raises(UserError, match=r"kafka-1.jar .* is not the jar that .*jars.lock names"):
        kafka_jars.kafka_jars()
    assert not made.cached_path.exists()


# The errors of jgo's HTTP client are OSErrors without a number; "not found" is a RuntimeError.
@pytest.mark.parametrize("failure", [OSError("connection refused"), RuntimeError("not found")])
def test_without_a_network_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    repository(tmp_path, monkeypatch, served=[failure])
    with pytest.raises(UserError, match=r"cannot be fetched .* connect to the network once, or set PIPELINE_KAFKA"):
        kafka_jars.kafka_jars()


def test_a_full_disk_is_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path, monkeypatch, served=[OSError(errno.ENOSPC, "No space left on device")])
    with pytest.raises(UserError, match=r"the disk is full.*free 60 MB"):
        kafka_jars.kafka_jars()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = repository(tmp_path, monkeypatch, served=[])
    made.context.repo_cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be kept in .*cache: .*; make that folder writable"):
        kafka_jars.kafka_jars()


def test_the_lock_names_kafka_and_its_logging_once_each() -> None:
    names = [jar.artifact.artifactId for jar in kafka_jars._locked_jars()]
    assert len(names) == len(set(names))
    assert {"kafka_2.13", "log4j-core", "log4j-slf4j-impl"} <= set(names)


def test_an_install_without_a_checkout_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_jars, "INFRA", tmp_path)
    with pytest.raises(UserError, match=r"jars.lock is missing: the local broker needs a checkout"):
        kafka_jars.kafka_jars()
