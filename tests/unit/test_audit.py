"""The audit log: whatever is done to it afterwards shows, and nothing is answered that cannot be noted."""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.audit import AuditLog
from pipeline.errors import UserError
from pipeline.person_reads import about_persons

Lines = list[bytes]


def filled(path: Path, count: int = 5) -> AuditLog:
    log = AuditLog(path)
    for number in range(count):
        log.append("token:ann", "api exposures", purpose="contact-tracing", case=f"c-{number}", persons=number)
    return log


def changed(lines: Lines) -> Lines:
    entry = json.loads(lines[2])
    entry["persons"] = 0
    return [*lines[:2], json.dumps(entry).encode() + b"\n", *lines[3:]]


@pytest.mark.parametrize(
    "tamper",
    [
        changed,
        lambda lines: lines[:1] + lines[2:],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:2], b"not an entry\n", *lines[2:]],
    ],
    ids=["changed", "one missing", "beginning missing", "two exchanged", "one twice", "foreign line"],
)
def test_a_log_that_was_touched_shows_it_by_itself(tmp_path: Path, tamper: Callable[[Lines], Lines]) -> None:
    log = filled(tmp_path / "audit.jsonl")
    assert log.faults() == (5, [])
    with (tmp_path / "audit.jsonl").open("rb") as file:
        lines = tamper(file.readlines())
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    with suppress(UserError):
        assert log.faults()[1]


def test_a_cut_tail_and_a_log_written_anew_are_found_by_the_heads_that_were_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = filled(path)
    head = log.head()
    assert head is not None
    assert log.faults([head]) == (5, [])
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert log.faults() == (4, [])
    assert "not there" in log.faults([head])[1][0]
    path.unlink()
    assert log.faults([head])[1]
    filled(path, 9)
    assert log.faults() == (9, [])
    assert "another one" in log.faults([head])[1][0]


def _append(path: Path) -> None:
    filled(AuditLog(path)._path, 20)


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    processes = [multiprocessing.get_context("spawn").Process(target=_append, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert AuditLog(path).faults() == (60, [])


def test_what_cannot_be_noted_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="nothing about persons is read without it"):
        AuditLog(tmp_path / "file" / "audit.jsonl").append("cli:x", "query", purpose="unstated")
    half = tmp_path / "half.jsonl"
    filled(half)
    half.write_bytes(half.read_bytes()[:-3])
    with pytest.raises(UserError, match="cannot be written"):
        AuditLog(half).append("cli:x", "query", purpose="unstated")


@pytest.mark.parametrize(
    ("statement", "persons"),
    [
        ("SELECT * FROM occupancy_now", False),
        ("SELECT visits FROM (SELECT count() AS arrivals FROM occupancy_minutes)", True),
        ("SELECT * FROM `visits`", True),
        ("SELECT * FROM checkins.EXPOSURES", True),
        ("SELECT venue_id FROM visit_rows", True),
        ("SELECT * FROM merge('checkins', '^v')", True),
        ("SELECT * FROM mergeTreeIndex('checkins', 'x')", True),
        ("SELECT venue_id, warn_from FROM venue_warnings", True),
        ("SELECT case_count FROM checkins.warning_rows", True),
    ],
)
def test_a_question_about_persons_is_told_from_one_about_venues(statement: str, persons: bool) -> None:
    assert about_persons(statement) == persons
