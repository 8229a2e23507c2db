"""Days are dropped on a real ClickHouse: what stays is what a pipeline says that never had them; history stays as it was."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated
from tests.reference import DAY, HOUR, line_of


class Crash(BaseException):
    """The process ends here."""


def run_examples(folder: str, examples: int, seed: int | None) -> int:
    """In an interpreter of its own: play `examples` cuts; AssertionError where the store differs from the reference."""
    from hypothesis import strategies as st

    from pipeline.engine import Engine
    from pipeline.settings import Settings
    from pipeline.store import retention
    from pipeline.store.client import DATABASE, connect_further, open_store
    from pipeline.store.verify import verify
    from tests.examples import play_examples
    from tests.reference import expected_views
    from tests.strategies import situations
    from tests.views import differences, read_views

    store = Settings(store=Path(folder), late_window=timedelta(hours=2))
    client = open_store(store)
    writing = connect_further(store)
    tables = [
        row[0]
        for row in client.query(
            f"SELECT name FROM system.tables WHERE engine LIKE '%MergeTree' AND database = '{DATABASE}'"
        ).result_rows
    ]
    plain_do = retention._do

    def play(data: st.DataObject) -> None:
        for table in tables:
            client.command(f"TRUNCATE TABLE {table}")
        situation = data.draw(situations(max_size=30))
        scans = situation.scans
        as_of = max(scan.occurred_at_ms for scan in scans) + data.draw(st.sampled_from([0, HOUR, DAY, 3 * DAY]))
        kept = data.draw(st.sampled_from([2, 3, 4, 9])) * DAY + data.draw(st.sampled_from([0, 5 * HOUR]))
        example = store.model_copy(
            update={
                "retention": timedelta(milliseconds=kept),
                "max_stay_by_category": {
                    f"stay-{limit}": timedelta(milliseconds=limit) for limit in situation.registry.max_stay.values()
                },
            }
        )
        bounds = retention.bounds_of(as_of, kept)
        late = data.draw(st.sets(st.sampled_from(range(len(scans))), max_size=6))
        # Within the retention scans come as late as they like; older ones are refused.
        late = {i for i in late if scans[i].occurred_at_ms >= as_of - kept}
        log = [scan for i, scan in enumerate(scans) if i not in late]
        first = len(log)
        log += [scans[i] for i in sorted(late)]
        crash_at = data.draw(st.none() | st.integers(0, 4))

        def feed(engine: Engine, upto: int) -> None:
            start = (engine.assign("check-ins", [0])[0]) or 0
            if start < upto:
                values = [line_of(scan) for scan in log[start:upto]]
                stamps = [scan.occurred_at_ms for scan in log[start:upto]]
                engine.process("check-ins", 0, range(start, upto), stamps, values)
            engine.settle()

        def open_engine() -> Engine:
            return Engine(client, writing, example, "wall", as_of)

        registry = situation.registry
        records = [
            (
                f'{{"venue_id": "{name}", "name": "{name}", "timezone": "UTC", "category": "'
                + (f"stay-{registry.max_stay[name]}" if name in registry.max_stay else "plain")
                + '"'
                + (f', "capacity": {registry.capacities[name]}' if name in registry.capacities else "")
                + "}"
            ).encode()
            for name in sorted(registry.max_stay.keys() | registry.capacities.keys())
        ]
        engine = open_engine()
        engine.assign("check-ins", [0])
        assert not engine.load_venues(records, [None] * len(records))
        feed(engine, first)
        before = read_views(client)
        done = 0

        def do(client: Any, sql: str) -> None:
            nonlocal done
            done += 1
            if done - 1 == crash_at:
                raise Crash
            plain_do(client, sql)

        retention._do = do
        try:
            engine.retain(lead=True)
        except Crash:
            engine = open_engine()
            engine.assign("check-ins", [0])
        finally:
            retention._do = plain_do
        engine.retain(lead=True)
        engine.retain(lead=True)
        if data.draw(st.booleans()):
            engine = open_engine()
        feed(engine, len(log))
        assert not retention.overdue(client, bounds)

        remaining = [scan for scan in scans if scan.occurred_at_ms >= bounds.kept_from]
        expected = expected_views(remaining, registry.max_stay, registry.capacities, as_of)
        found = read_views(client)
        cut = retention.bounds_in_force(client)
        assert cut in (bounds, (0, 0))
        assert found["scans"] == expected["scans"]
        assert found["visits"] == expected["visits"]
        for view, time in (("occupancy_minutes", "minute"), ("occupancy_hours", "hour")):
            closed = cut.closed_before // 1000
            assert {row for row in found[view] if getattr(row, time) < closed} == {
                row for row in before[view] if getattr(row, time) < closed
            }
            for views in (found, expected):
                views[view] = {row for row in views[view] if getattr(row, time) >= closed}
        if cut.closed_before:
            found["crowding_alerts"] = expected["crowding_alerts"] = set()  # `verify` compares those that can be
        wrong = differences(found, expected)
        assert not wrong, wrong
        if data.draw(st.integers(0, 2)):
            return
        verdict = verify(client, example)
        assert verdict.ok, [(check.name, check.examples) for check in verdict.checks if not check.ok]

    return play_examples(play, examples, seed)


@pytest.mark.long
def test_what_a_cut_leaves_is_what_a_pipeline_says_that_never_had_the_rest(tmp_path: Path) -> None:
    assert run_isolated(run_examples, str(tmp_path), 8, None, timeout=600) == 8
