"""The audit log: whatever is done to it afterwards shows, and nothing is answered that cannot be noted."""

import errno
import json
import multiprocessing
import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.audit import AuditLog, Head, ToldHead, operator, unaccounted
from pipeline.audit_heads import ToldHeads
from pipeline.commands.audit import command
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
        lambda lines: [*lines[:2], lines[2].replace(b'"who":', b'"who":"cli:other","who":'), *lines[3:]],
        lambda lines: [*lines[:2], lines[2].replace(b'"who":', b'"who": '), *lines[3:]],
        lambda lines: [*lines[:2], json.dumps(dict(sorted(json.loads(lines[2]).items()))).encode() + b"\n", *lines[3:]],
    ],
    ids=[
        "changed",
        "one missing",
        "beginning missing",
        "two exchanged",
        "one twice",
        "foreign line",
        "a key twice",
        "spelt otherwise",
        "in another order",
    ],
)
def test_a_log_that_was_touched_shows_it_by_itself(tmp_path: Path, tamper: Callable[[Lines], Lines]) -> None:
    log = filled(tmp_path / "audit.jsonl")
    assert log.faults() == (5, [])
    with (tmp_path / "audit.jsonl").open("rb") as file:
        lines = tamper(file.readlines())
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    with suppress(UserError):
        assert log.faults()[1]


def told(log: AuditLog, heads: list[Head], *elsewhere: str) -> list[str]:
    """What these heads in Kafka say of a log."""
    return unaccounted([log.reading()], [ToldHead(head, f"0/{place}") for place, head in enumerate(heads)], elsewhere)


def head_of(log: AuditLog) -> Head:
    head = log.head()
    assert head is not None
    return head


def test_a_cut_tail_and_a_log_written_anew_are_found_by_the_heads_that_were_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = filled(path)
    head = head_of(log)
    assert told(log, [head]) == []
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert log.faults() == (4, [])
    assert "not there" in told(log, [head])[0]
    path.unlink()
    assert told(log, [head])
    filled(path, 9)
    assert log.faults() == (9, [])
    assert "another one" in told(log, [head])[0]


def test_a_log_that_is_deleted_or_replaced_is_found_whatever_the_machine_is_called_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    head = head_of(filled(path))
    path.unlink()
    monkeypatch.setattr("pipeline.audit.gethostname", lambda: "renamed")
    (gone,) = told(AuditLog(path), [head])
    assert "deleted, replaced or renamed" in gone
    assert f"--elsewhere {head.log}" in gone
    new = filled(path)
    assert len(told(new, [head, head_of(new)])) == 1
    # One that somebody says is another machine's is theirs to verify.
    assert told(new, [head, head_of(new)], head.log) == []


def test_several_logs_with_one_topic_are_verified_each_by_itself_or_all_at_once(tmp_path: Path) -> None:
    logs = [filled(tmp_path / name, count) for name, count in (("worker.jsonl", 3), ("serve.jsonl", 5))]
    heads = [ToldHead(head_of(log), "0/0") for log in logs]
    readings = [log.reading() for log in logs]
    assert unaccounted(readings, heads) == []
    assert unaccounted(readings[:1], heads, [heads[1].head.log]) == []
    assert len(unaccounted(readings[:1], heads)) == 1
    (tmp_path / "serve.jsonl").write_bytes(b"")
    filled(tmp_path / "serve.jsonl", 4)
    (found,) = unaccounted([AuditLog(tmp_path / name).reading() for name in ("worker.jsonl", "serve.jsonl")], heads)
    assert found.startswith(str(tmp_path / "serve.jsonl"))


def test_a_log_of_which_kafka_has_heard_nothing_is_not_called_whole(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit.jsonl")
    assert "pipeline audit anchor" in told(log, [])[0]
    # What was noted since the last head, while Kafka was away, is no fault.
    head = head_of(log)
    filled(tmp_path / "audit.jsonl", 2)
    assert told(log, [head]) == []
    assert told(AuditLog(tmp_path / "none.jsonl"), []) == []


def test_an_entry_that_is_added_while_the_log_is_verified_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path / "audit.jsonl")

    def told_meanwhile(*_: object) -> ToldHeads:
        log.append("cli:x", "query", purpose="unstated")
        return ToldHeads([ToldHead(head_of(log), "0/0")])

    monkeypatch.setattr("pipeline.audit_heads.told_heads", told_meanwhile)
    done = CliRunner().invoke(command, ["verify"], env={"PIPELINE_HOME": str(tmp_path)})
    assert done.exit_code == 0, done.output
    assert done.output.startswith("6 entries of log ")


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
    with pytest.raises(UserError, match="without it nothing about persons is read"):
        AuditLog(tmp_path / "file" / "audit.jsonl").append("cli:x", "query", purpose="unstated")


def test_a_write_that_fails_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path / "audit.jsonl")
    before = (tmp_path / "audit.jsonl").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.audit.os.fsync", full)
        with pytest.raises(UserError, match="No space left"):
            log.append_cases("cli:x", [("reports", "c-1"), ("reports", "c-2")], purpose="unstated")
    assert (tmp_path / "audit.jsonl").read_bytes() == before
    assert log.append("cli:x", "query", purpose="unstated")["number"] == 6
    assert log.faults() == (6, [])


@pytest.mark.parametrize("written", [-3, 0], ids=["a part", "only its length"])
@pytest.mark.parametrize("whole", [5, 1, 0])
def test_a_line_that_was_broken_off_is_no_change_and_the_next_entry_takes_it_off_and_says_so(
    tmp_path: Path, whole: int, written: int
) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path, whole + 1)
    last = list(AuditLog(path).entries())[whole - 1] if whole else None
    lines = path.read_bytes().splitlines(keepends=True)
    # After a power cut a file may have grown by many entries, and none of their bytes be there.
    path.write_bytes(b"".join(lines[:whole]) + (lines[-1][:written] or b"\0" * 300_000))
    log = AuditLog(path)
    (said,) = log.faults()[1]
    assert "was broken off" in said
    assert "changed" not in said
    assert len(list(log.entries())) == whole
    assert (log.head() or Head("", 0, "")).hash == (last["hash"] if last else "")
    mine = log.append("cli:x", "query", purpose="unstated")
    assert (mine["action"], mine["number"]) == ("query", whole + 2)
    mended = list(log.entries())[whole]
    assert (mended["action"], mended["persons"]) == ("mends the log", 0)
    assert "bytes of an unfinished entry" in mended["what"]
    assert log.faults() == (whole + 2, [])


def test_who_calls_a_command_is_known_by_the_system_and_not_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.setenv("SUDO_UID", "0")
    monkeypatch.setattr("pipeline.audit.os.getuid", lambda: 4_000_000_001)
    assert operator() == "cli:4000000001"
    monkeypatch.setattr("pipeline.audit.os.getuid", lambda: 0)
    root = pwd.getpwuid(0).pw_name
    assert operator() == f"cli:{root} (sudo {root})"
    monkeypatch.setenv("SUDO_UID", "4000000001")
    assert operator() == f"cli:{root} (sudo 4000000001)"
    for nonsense in ("", "ann", "-1", "9" * 30):
        monkeypatch.setenv("SUDO_UID", nonsense)
        assert operator().startswith(f"cli:{root}")
    monkeypatch.undo()
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert operator() == f"cli:{me}"


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
        ("SELECT query FROM system.query_log_1", True),
        ("SELECT query FROM system.processes", True),
        ("SELECT command FROM system.mutations", True),
    ],
)
def test_a_question_about_persons_is_told_from_one_about_venues(statement: str, persons: bool) -> None:
    assert about_persons(statement) == persons
