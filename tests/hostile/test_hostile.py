"""No record, however hostile, is read by the decoder otherwise than by the contract's model, nor than by the plain recount.

None crashes it or keeps it long. The corpus has no verdicts written beside it: each record's is the recount's.
"""

import ast
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import decode, judge
from pipeline.core.judge import Refusal, judge_scan
from schemas.scan import Scan
from tests.hostile import fuzz
from tests.hostile.corpus import corpus
from tests.hostile.fuzz import PATIENCE, Fuzzer, differences, run_apart

ROOT = Path(__file__).resolve().parents[2]


def test_the_corpus_is_read_as_the_judge_and_the_recount_read_it_one_by_one_and_in_a_batch() -> None:
    names, values = zip(*corpus(), strict=True)
    assert [names[i] for i, value in enumerate(values) if differences([value])] == []
    shuffled = random.Random(1).sample(values, len(values))
    assert [shuffled[i] for i in differences(shuffled)] == []


def test_the_corpus_holds_scans_and_every_kind_of_refusal() -> None:
    verdicts = [judge_scan(value) for _, value in corpus()]
    reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Refusal)]
    assert {"not_json", "not_utf8", "schema", "too_large"} <= set(reasons)
    assert 100 < sum(isinstance(verdict, Scan) for verdict in verdicts) < len(verdicts) / 2


def test_no_record_of_the_corpus_takes_long() -> None:
    for name, value in corpus():
        began = time.process_time()
        decode.decode_scans([value])
        assert time.process_time() - began < PATIENCE, name


def test_records_grown_and_broken_at_random_are_read_as_the_judge_reads_them(tmp_path: Path) -> None:
    fuzzer, _ = run_apart(Fuzzer(random.randrange(1 << 32), tmp_path), 5)
    assert not fuzzer.wrong, f"seed {fuzzer.seed}: {fuzzer.wrong[:3]}"
    assert [*tmp_path.iterdir()] == []


def _does_not_see_the_end(value: bytes | None) -> Scan | Refusal:
    # Of the record's last member it does not see that something is wrong after it.
    return judge_scan(value and value.rstrip(b"\0\x0b\x0c,"))


def _takes_null_for_absent(value: bytes | None) -> Scan | Refusal:
    return judge_scan(value and value.replace(b"null", b"1"))


def _takes_every_scan_for_one_person(value: bytes | None) -> Scan | Refusal:
    verdict = judge_scan(value)
    return verdict.model_copy(update={"party_size": 1}) if isinstance(verdict, Scan) else verdict


def _does_not_look_for_utf8(value: bytes | None) -> Scan | Refusal:
    verdict = judge_scan(value)
    return Refusal("not_json", "") if isinstance(verdict, Refusal) and verdict.reason == "not_utf8" else verdict


BUGS = (_does_not_see_the_end, _takes_null_for_absent, _takes_every_scan_for_one_person, _does_not_look_for_utf8)


@pytest.mark.parametrize("planted", BUGS)
@pytest.mark.parametrize("modules", [(decode,), (judge, decode, fuzz)], ids=["the decoder's", "everybody's"])
def test_the_fuzzer_catches_a_judge_that_is_wrong(
    monkeypatch, tmp_path: Path, modules: tuple[object, ...], planted: Callable[..., object]
) -> None:
    # Where everybody's judge is wrong, the decoder and what it is compared with first agree.
    for module in modules:
        monkeypatch.setattr(module, "judge_scan", planted)
    fuzzer = Fuzzer(1, tmp_path)
    fuzzer.run(60, enough=1)
    assert fuzzer.wrong


@pytest.mark.parametrize("step", [-1, 1])
def test_the_fuzzer_catches_a_decoder_that_is_a_millisecond_off_in_what_is_too_old(
    monkeypatch, tmp_path: Path, step: int
) -> None:
    plain = decode.judge_times
    monkeypatch.setattr(fuzz, "judge_times", lambda columns, at, retention: plain(columns, at, retention + step))
    fuzzer = Fuzzer(1, tmp_path)
    fuzzer.run(60, enough=1)
    assert fuzzer.wrong


_PLANTED = """
import os, signal
from pipeline.core import decode
plain = decode.judge_scan
def judge_scan(value):
    while value and b'"x"' in value:
        {does}
    return plain(value)
decode.judge_scan = judge_scan
if __name__ == "__main__":
    from tests.hostile.fuzz import command
    command()
"""


@pytest.mark.parametrize(
    "does",
    [
        pytest.param("pass", id="hangs", marks=pytest.mark.long),
        pytest.param("os.kill(os.getpid(), signal.SIGSEGV)", id="crashes"),
        pytest.param("raise IndexError", id="raises"),
    ],
)
def test_a_record_that_the_decoder_hangs_or_crashes_on_is_named(tmp_path: Path, does: str) -> None:
    script = tmp_path / "planted.py"
    script.write_text(_PLANTED.format(does=does))
    done = subprocess.run(
        [sys.executable, script, "--seconds", "60", "--seed", "1", "--patience", "5", "--folder", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    record = tmp_path / "fuzz-1.record"
    assert done.returncode == 1, done.stderr
    assert f"on this record: {record}" in done.stderr
    assert b'"x"' in ast.literal_eval(record.read_text())
    assert "planted.py" in done.stderr, "no trace of where it was"
