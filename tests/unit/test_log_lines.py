"""Whatever is sent, the log stays a list of lines that we wrote: nobody forges one, hides one, or steers who reads it."""

import io
import json
import logging
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.audit import AuditLog
from pipeline.case_reports import Case, CaseJudge
from pipeline.cli import main
from pipeline.core.judge import Refusal, judge_scan
from pipeline.errors import UserError
from pipeline.gateway.admission import Admission
from pipeline.one_line import one_line
from pipeline.settings import Settings
from pipeline.streaming.logs import log_handler
from pipeline.venues import read_venues
from tests.api import FakeReader, make_api
from tests.gateway import make_ring, scan, site

FORGED = "2021-09-19 10:15:30,250 INFO pipeline.audit: all is well"
#: Line ends of every kind, escapes of a terminal (seven and eight bits), text turned round, a zero, half a pair.
HOSTILE = [
    f"x\r\n{FORGED}",
    f"x\n{FORGED}",
    f"x\r{FORGED}",
    f"x\x0b\x0c\x1c\x1d\x1e{FORGED}",
    f"x\x85{FORGED}",
    f"x\u2028{FORGED}",
    f"x\u2029{FORGED}",
    "x\x1b[2J\x1b[1;31mred\x1b]0;title\x07",
    "x\x9b2J\x9d0;title\x9c",
    "x\u202egnp.exe\u2066",
    "x\x00y\x7f\x08\x08",
    "x\ud800y",
]


def is_harmless(text: str) -> bool:
    """Whether nothing in a line ends it, steers a terminal or turns text round."""
    return not any(
        unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(each) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        for each in text
    )


def lines_of(text: str) -> list[str]:
    lines = text.split("\n")
    assert lines.pop() == ""
    assert all(map(is_harmless, lines)), text
    return lines


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the log would show on stderr."""
    handler, stream = log_handler(), io.StringIO()
    handler.setStream(stream)
    root, ours = logging.getLogger(), logging.getLogger("pipeline")
    before = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before[0])
    ours.setLevel(before[1])


def _not_to_pytest() -> None:
    # Its own copy of what is logged goes to the session's main process, which takes no lone surrogates.
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if type(handler).__module__ == "_pytest.logging"]:
        root.removeHandler(handler)


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
@pytest.mark.parametrize("logger", ["pipeline.gateway.app", "uvicorn.error", "faust"])
def test_a_message_is_one_line_whatever_it_holds(written: io.StringIO, logger: str, hostile: str) -> None:
    _not_to_pytest()
    logging.getLogger(logger).error("no %s", hostile)
    logging.getLogger(logger).error(hostile)
    first, second = lines_of(written.getvalue())
    assert f" ERROR {logger}: no x" in first
    assert f" ERROR {logger}: x" in second


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
@pytest.mark.parametrize("logger", ["pipeline.api.live", "aiokafka"])
def test_an_exceptions_text_passes_for_no_line_of_the_log(written: io.StringIO, logger: str, hostile: str) -> None:
    _not_to_pytest()
    try:
        raise ValueError(hostile)
    except ValueError:
        logging.getLogger(logger).exception("it failed")
    first, *rest = lines_of(written.getvalue())
    assert " it failed" in first
    assert all(line.startswith("  | ") for line in rest)
    assert bool(rest) == logger.startswith("pipeline"), "our own tracebacks are kept, for they mean a bug"


def test_harmless_text_stays_as_it_is() -> None:
    for text in ("Warung Bu Sri", "Плаза 1/2", "مقهى", "喫茶店 ☕", r"C:\temp\new", "👩‍👩‍👧"):
        assert one_line(text) == text


def test_no_request_to_the_gateway_writes_a_line_of_its_own(
    tmp_path: Path, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site(make_ring(tmp_path / "keys"))
    answers = []
    for hostile in HOSTILE:
        header = hostile.encode("latin-1", "ignore").decode("latin-1")
        answers += [
            here.ask(f"/v1/scans/{hostile}", scan()),
            here.ask("/v1/scans", scan(), {"x-request-id": header, "authorization": f"Bearer {header}"}),
            here.ask("/v1/scans", scan(), {"content-type": header}),
            here.send(scan(venue_id=hostile)),
            here.send(scan(event_id=hostile)),
            here.send(scan(identifier={"kind": "email", "value": hostile})),
            here.send({**scan(), hostile: 1}),
            here.ask("/v1/scans/batch", [{**scan(), hostile: hostile}, hostile]),
            here.ask("/v1/scans", b'{"event_id": "' + hostile.encode("utf-8", "surrogatepass")),
        ]
    assert lines_of(written.getvalue()) == [], "what senders do wrong is counted, not logged"
    for hostile in HOSTILE:

        def broken(*_: object, text: str = hostile) -> None:
            raise ValueError(text)

        monkeypatch.setattr(Admission, "admit", broken)
        answers.append(here.send(scan()))
    assert len(lines_of(written.getvalue())) == len(HOSTILE)
    assert FORGED not in written.getvalue()
    for answer in answers:
        assert is_harmless(answer.body.decode())
        assert all(is_harmless(f"{name}{value}") for name, value in answer.headers.items())


def test_no_request_to_the_api_writes_a_line_of_its_own(tmp_path: Path, written: io.StringIO) -> None:
    settings = Settings(home=tmp_path)
    token = TokenFile(settings.tokens_path).create("tracer", (Role.TRACER,), 1)
    api = make_api(settings, FakeReader(lambda _sql, _parameters: []))
    why = {"authorization": f"Bearer {token}", "x-purpose": "contact-tracing"}
    answers = []
    for hostile in HOSTILE:
        header = hostile.encode("latin-1", "ignore").decode("latin-1")
        answers += [
            api.ask(f"/{hostile}", why),
            api.ask(f"/static/{hostile}", why),
            api.ask(f"/api/v1/cases/{hostile}/exposures", why),
            api.ask(f"/api/v1/venues/{hostile}/now", why),
            api.ask("/api/v1/cases", {**why, "x-purpose": header}),
            api.ask("/api/v1/cases", {"authorization": f"Bearer {header}"}),
            api.ask("/api/v1/cases", why, query=b"cursor=" + hostile.encode("utf-8", "surrogatepass")),
            api.ask("/api/v1/case-reports", why, json.dumps({"case_id": hostile, hostile: hostile}).encode()),
        ]
    # That tokens were refused is said from time to time, and nothing of what was sent.
    assert all("tokens that do not hold were refused" in line for line in lines_of(written.getvalue()))
    assert len(lines_of(written.getvalue())) <= 1
    for answer in answers:
        assert 400 <= answer.status < 500
        assert all(is_harmless(f"{name}{value}") for name, value in answer.headers.items())
        assert is_harmless(answer.body.decode())


def bodies(good: dict[str, Any], hostile: str) -> Iterator[bytes]:
    """A good message with each of its fields hostile, with a hostile field, and no message at all."""
    for name in good:
        yield json.dumps({**good, name: hostile}).encode()
    yield json.dumps({**good, hostile: hostile}).encode()
    yield json.dumps(hostile).encode()
    yield hostile.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_a_dead_letters_detail_holds_nothing_of_the_record(tmp_path: Path, hostile: str) -> None:
    plain = {
        "event_id": "e",
        "event_type": "check_in",
        "venue_id": "v",
        "visitor_id": "p",
        "occurred_at": "2021-09-19T03:00:00Z",
        "source": "app",
    }
    report = {"case_id": "c", "visitor_id": "p", "status": "confirmed", "reported_at": "2021-09-19T03:00:00Z"}
    venue = {"venue_id": "v", "name": "V", "category": "mall", "timezone": "Asia/Jakarta"}
    details = []
    for body in bodies(plain, hostile):
        verdict = judge_scan(body)
        details += [verdict.detail] if isinstance(verdict, Refusal) else []
    judge = CaseJudge(Settings(home=tmp_path))
    for body in bodies(report | {"policy": "who", "onset_date": "2021-09-18"}, hostile):
        case = judge.judge(body)
        details += [] if isinstance(case, Case) else [case.detail]
    registry = tmp_path / "venues.ndjson"
    registry.write_bytes(b"\n".join(body.replace(b"\n", b" ") for body in bodies(venue, hostile)))
    details += [row.refusal for row in read_venues(registry) if row.refusal]
    assert len(details) > len(plain) + len(report)
    for detail in details:
        assert is_harmless(detail)
        assert FORGED not in detail
        assert "title" not in detail


def test_an_entry_of_the_audit_log_is_one_line_whoever_asked(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    whole = [hostile for hostile in HOSTILE if "\ud800" not in hostile]
    for hostile in whole:
        log.append(hostile, hostile, purpose=hostile, case=hostile, what=hostile)
    assert len(lines_of((tmp_path / "audit.jsonl").read_text())) == len(whole)
    assert [entry["who"] for entry in log.entries()] == whole
    assert log.faults() == (len(whole), [])


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_a_command_that_fails_says_one_line(
    hostile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise UserError(f"there is no {hostile}")

    monkeypatch.setattr("pipeline.cli.cli.main", fails)
    with pytest.raises(SystemExit):
        main()
    (line,) = lines_of(capsys.readouterr().err)
    assert line.startswith("pipeline: there is no x")
