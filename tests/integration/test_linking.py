"""What is stored of two periods joins nobody, by no column, unless with the tracer's key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.gateway.admission import Admission
from pipeline.privacy.master import LocalMaster
from pipeline.privacy.pseudonyms import Linker, Pseudonymiser
from pipeline.settings import load_settings
from schemas.fields import parse_instant
from schemas.gateway_scan import GatewayScan
from tests.gateway import make_ring, scan
from tests.isolated import run_isolated
from tests.reference import HOUR

EDGE = parse_instant("2021-09-12T20:00:00Z")
PEOPLE = 300


def stored(folder: Path) -> None:
    """A store in the folder with a visit of each person on both sides of the edge, by the ring beside it, all else the same."""
    ring = make_ring(folder / "keys", EDGE)
    made = Pseudonymiser(ring, lambda: LocalMaster.from_file(ring / "master.key"))
    admission = Admission(load_settings(phone_country="62"), made, None, None)
    lines = []
    for number in range(PEOPLE):
        who = {"kind": "phone", "value": f"+62812{number:07}"}
        for began in (EDGE - 2 * HOUR, EDGE + 2 * HOUR):
            for kind, at in (("check_in", began), ("check_out", began + HOUR)):
                sent = scan(event_id=f"{number}-{kind}", event_type=kind, identifier=who, stay_began_at=began)
                lines.append(
                    admission.admit(GatewayScan.model_validate(sent | {"occurred_at": at}), "gate-7", at).value
                )
    (folder / "scans.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    command = [sys.executable, "-m", "pipeline", "replay", "scans.ndjson", "--store", "store"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    environment = inherited | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def joined(store: Path, table: str, at: str, keys: list[str]) -> tuple[list[int], list[int], set[tuple[str, str]]]:
    """Rows of each period; pairs of rows of the two, by each key; and the pseudonyms of both."""
    from pipeline.settings import Settings
    from pipeline.store.client import open_store

    client = open_store(Settings(store=store), read_only=True)
    edge = f"toDateTime64({EDGE} / 1000, 3, 'UTC')"
    before, after = (f"(SELECT * FROM {table} WHERE {at} {side} {edge})" for side in ("<", ">="))

    def count(sql: str) -> int:
        return int(client.query(f"SELECT count() FROM {sql}").result_rows[0][0])

    pairs = [
        count(f"(SELECT {key} AS k FROM {before}) AS b JOIN (SELECT {key} AS k FROM {after}) AS a USING k")
        for key in keys
    ]
    names = " UNION ALL ".join(
        f"SELECT DISTINCT '{side}', visitor_id FROM {rows}" for side, rows in {"before": before, "after": after}.items()
    )
    found = client.query(names)
    return [count(before), count(after)], pairs, {tuple(row) for row in found.result_rows}


@pytest.mark.long
def test_visits_and_scans_of_two_periods_are_joined_by_nothing_but_the_tracers_key(tmp_path: Path) -> None:
    stored(tmp_path)
    # The name, what of it is of no period, and half of that; beside them what people have in common, as a trial of the join.
    keys = [
        "visitor_id",
        "substring(visitor_id, 15)",
        "substring(visitor_id, 15, 11)",
        "substring(visitor_id, 26)",
        "venue_id",
    ]
    rows, pairs, visitors = run_isolated(joined, tmp_path / "store", "visits", "checked_in_at", keys)
    assert rows == [PEOPLE, PEOPLE]
    assert pairs == [0, 0, 0, 0, PEOPLE**2]
    rows, pairs, _ = run_isolated(joined, tmp_path / "store", "scans", "occurred_at", [*keys, "event_id"])
    assert rows == [2 * PEOPLE, 2 * PEOPLE]
    assert pairs == [0, 0, 0, 0, 4 * PEOPLE**2, 0]
    # The tracer finds all of them: so they were the same people, and the joins were empty for want of the key.
    linker = Linker(tmp_path / "keys", lambda: LocalMaster.from_file(tmp_path / "keys" / "master.key"))
    of = {side: {name for each, name in visitors if each == side} for side in ("before", "after")}
    linked = {tuple(linker.link(name, EDGE - HOUR, EDGE + HOUR)) for name in of["before"]}
    assert {name for name, _ in linked} == of["before"]
    assert {name for _, name in linked} == of["after"]
    assert len(linked) == PEOPLE
