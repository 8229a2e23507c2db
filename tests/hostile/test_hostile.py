"""No record, however hostile, is read by the decoder otherwise than by the contract's model; none crashes it or keeps it long."""

import random
import time

from pipeline.core import decode
from pipeline.core.judge import Refusal, judge_scan
from schemas.scan import Scan
from tests.hostile.corpus import corpus
from tests.hostile.fuzz import PATIENCE, Fuzzer, differences


def test_the_corpus_is_read_as_the_judge_reads_it_one_by_one_and_in_a_batch() -> None:
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


def test_records_grown_and_broken_at_random_are_read_as_the_judge_reads_them() -> None:
    fuzzer = Fuzzer(random.randrange(1 << 32))
    fuzzer.run(5)
    assert not fuzzer.wrong, f"seed {fuzzer.seed}: {fuzzer.wrong[:3]}"


def test_the_fuzzer_catches_a_decoder_that_takes_too_much(monkeypatch) -> None:
    # Of the record's last member it does not see that something is wrong after it.
    plain = decode.judge_scan
    monkeypatch.setattr(decode, "judge_scan", lambda value: plain(value and value.rstrip(b"\0\x0b\x0c,")))
    fuzzer = Fuzzer(1)
    fuzzer.run(5)
    assert fuzzer.wrong
