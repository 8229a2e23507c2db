"""A gate with keys of its own takes and refuses what a gateway does, as long as it runs, and keeps stays whole."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.gateway import producer as library
from pipeline.gateway.problems import CODE, INVALID, REPLAYED, REUSED, Kind, ProblemError
from pipeline.gateway.producer import EdgeProducer
from pipeline.privacy.ring import KeyRing
from pipeline.settings import load_settings
from pipeline.venue_codes import CodeSigner, create_signing_key, retire_key
from schemas.gateway_scan import GatewayScan
from tests.gateway import make_ring, now_ms, scan

MINUTE = timedelta(minutes=1)
OTHER = {"kind": "phone", "value": "+628990000002"}


@dataclass
class Gate:
    """An own producer whose clock is set and whose Kafka takes everything."""

    folder: Path
    now: int
    producer: EdgeProducer = field(init=False)
    sent: list[dict[str, Any]] = field(default_factory=list)
    #: Seconds that went by.
    steady: float = 0.0

    def time_ns(self) -> int:
        return self.now * 1_000_000

    def monotonic(self) -> float:
        return self.steady

    def send(self, **changes: Any) -> dict[str, Any]:
        """What is in Kafka of a scan. Raises ProblemError."""
        made = scan(**{"occurred_at": None, **changes}) | {"occurred_at": self.now}
        self.producer.send(GatewayScan.model_validate(made))
        return self.sent[-1]

    def refused(self, **changes: Any) -> Kind:
        with pytest.raises(ProblemError) as told:
            self.send(**changes)
        return told.value.kind

    def code(self, venue: str = "mall-0042") -> dict[str, Any]:
        """What is scanned of a display now: its code is another each time."""
        return {"venue_id": None, "venue_code": CodeSigner(self.folder / "codes").code(venue, self.now, MINUTE)}


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate(tmp_path, now_ms())

    class Kafka:
        def __init__(self, *_: object) -> None:
            pass

        def send(self, key: bytes, value: bytes, _at: int) -> None:
            made.sent.append(json.loads(value))
            assert made.sent[-1]["venue_id"].encode() == key

    monkeypatch.setattr(library, "ScanProducer", Kafka)
    monkeypatch.setattr(library, "time", made)
    make_ring(tmp_path / "keys")
    create_signing_key(tmp_path / "codes")
    venues(tmp_path, "mall-0042")
    given = {"gateway_venues": tmp_path / "venues.csv", "venue_code_keys": tmp_path / "codes" / "venue-keys.json"}
    made.producer = EdgeProducer(load_settings(home=tmp_path, phone_country="62", **given), "gate-7")
    return made


def venues(folder: Path, *names: str) -> None:
    (folder / "venues.csv").write_text("venue_id,name,category\n" + "".join(f"{each},x,mall\n" for each in names))


def test_retired_signing_keys_and_changed_venues_are_taken_up_while_it_runs(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    assert gate.send(event_id="1")["venue_id"] == "mall-0042"
    assert gate.send(event_id="2", **gate.code())["venue_id"] == "mall-0042"
    assert gate.refused(event_id="3", venue_id="kiosk-7") is INVALID
    (kid,) = [each["kid"] for each in json.loads((gate.folder / "codes" / "venue-keys.json").read_text())["keys"]]
    retired = gate.code()
    create_signing_key(gate.folder / "codes")
    retire_key(gate.folder / "codes", kid)
    venues(gate.folder, "kiosk-7")
    gate.steady += library.REFRESH_SECONDS + 1
    assert gate.send(event_id="4", venue_id="kiosk-7")["venue_id"] == "kiosk-7"
    assert gate.refused(event_id="5") is INVALID
    assert gate.refused(event_id="6", **retired) is CODE
    assert gate.send(event_id="7", **gate.code("office-1"))["venue_id"] == "office-1"
    # What cannot be read is told, and stops nothing.
    (gate.folder / "venues.csv").unlink()
    gate.steady += library.REFRESH_SECONDS + 1
    assert gate.send(event_id="8", venue_id="kiosk-7")["venue_id"] == "kiosk-7"
    assert "going on with what was read before" in caplog.text


def test_a_displays_code_serves_each_person_once_and_an_event_id_one_scan(gate: Gate) -> None:
    shown = gate.code()
    first = gate.send(event_id="1", **shown)
    assert gate.send(event_id="1", **shown) == first, "sent again it is one scan"
    gate.now += 1
    assert gate.refused(event_id="2", **shown) is REPLAYED
    assert gate.refused(event_id="1") is REUSED
    assert gate.send(event_id="3", identifier=OTHER, **shown)["visitor_id"] != first["visitor_id"]
    assert gate.send(event_id="4", event_type="check_out", **shown)["visitor_id"] == first["visitor_id"]


def test_a_stay_over_a_change_of_keys_is_whole_by_whichever_code_its_display_shows(gate: Gate) -> None:
    ring = KeyRing.open(gate.folder / "keys")
    edge = next(each.ends_at for each in ring.periods if each.ends_at > gate.now)
    gate.now = edge - 60_000
    began = gate.send(event_id="1", **gate.code())
    gate.now = edge + 60_000
    # A scan that is refused ends no stay.
    assert gate.refused(event_id="2", event_type="check_out", **gate.code() | {"venue_code": "x.y.z"}) is CODE
    assert gate.refused(event_id="1", event_type="check_out", stay_began_at=edge - 60_000, **gate.code()) is REUSED
    ended = gate.send(event_id="3", event_type="check_out", **gate.code())
    assert ended["visitor_id"] == began["visitor_id"]
    # Another venue's display, and a stay that begins now, are no part of it.
    assert gate.send(event_id="4", **gate.code("office-1"))["visitor_id"] != began["visitor_id"]
