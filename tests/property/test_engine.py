"""The engine on a real ClickHouse against the reference: crashes between any two inserts, restarts, very late scans."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.isolated import run_isolated
from tests.reference import DEFAULT_MAX_STAY, HARD_LIMIT, HOUR, MINUTE, AlertRow, line_of

#: The limits that `tests.strategies.registries` draws from.
STAYS = (MINUTE, 45 * MINUTE, DEFAULT_MAX_STAY, HARD_LIMIT)

TABLES = (
    "scan_set",
    "visit_rows",
    "minute_rows",
    "hour_rows",
    "rolling_rows",
    "alert_rows",
    "now_rows",
    "estimate_rows",
    "model_use_rows",
    "model_applied_rows",
    "venue_rows",
    "registry_rows",
    "dead_letter_rows",
    "progress_rows",
    "repair_rows",
    "asked_rows",
)


class Crash(BaseException):
    """The process ends here."""


def run_examples(folder: str, examples: int, seed: int | None) -> int:
    """In an interpreter of its own: play `examples` histories; AssertionError where the store differs from the reference."""
    from hypothesis import strategies as st

    from pipeline.core.levels import BASES, LEVELS
    from pipeline.core.presence.model import Dwell, Kind, fit
    from pipeline.core.shard import Shard
    from pipeline.engine import Engine
    from pipeline.presence import _packed
    from pipeline.settings import Settings
    from pipeline.store.client import connect_further, open_store
    from pipeline.store.models import StoredModel, save_model, use_model
    from pipeline.store.writer import Writer
    from tests.examples import play_examples
    from tests.presence import venue_model
    from tests.reference import VenueModel, expected_views, fold, judged_alerts, stays, winning_scans
    from tests.strategies import SUNDAY, Situation, histories, situations
    from tests.views import differences, read_estimates, read_views, wrong_estimates

    store = Settings(
        store=Path(folder),
        late_window=timedelta(hours=2),
    )
    client = open_store(store)
    writing = connect_further(store)
    # Two models of other categories, stays and arrival bins each; of "plain" the second one knows nothing.
    categories = ["plain", *(f"stay-{limit}" for limit in STAYS), "unknown", ""]
    kinds = {
        "short": [Kind(1 + i % 2 * 3, Dwell(20 + 10 * i, 0.5)) for i in range(len(categories))],
        "long": [Kind(16, Dwell(200 + 50 * i, 0.3) if i else None) for i in range(len(categories))],
    }
    models = {name: fit({}, 1, np.arange(len(categories)), kind) for name, kind in kinds.items()}
    for name, model in models.items():
        body = _packed(model, categories, [])
        save_model(client, StoredModel(name, datetime.now(UTC), None, None, body, "[]"))

    Shard.collect_due = lambda self, horizon: horizon > self.horizon  # type: ignore[method-assign]

    def venue_records(situation: Situation) -> list[bytes]:
        registry = situation.registry
        names = sorted(registry.max_stay.keys() | registry.capacities.keys())
        records = []
        for name in names:
            record: dict[str, Any] = {"venue_id": name, "name": name, "category": "plain", "timezone": "Asia/Kolkata"}
            if name in registry.capacities:
                record["capacity"] = registry.capacities[name]
            if name in registry.max_stay:
                record["category"] = f"stay-{registry.max_stay[name]}"
            records.append(json.dumps(record).encode())
        return records

    def play(data: st.DataObject) -> None:
        for table in TABLES:
            client.command(f"TRUNCATE TABLE {table}")
        situation = data.draw(situations(max_size=30))
        basis = data.draw(st.sampled_from([BASES[0], *BASES]))
        settings_of_example = store.model_copy(
            update={
                "crowding_basis": basis,
                "max_stay_by_category": {
                    f"stay-{limit}": timedelta(milliseconds=limit) for limit in situation.registry.max_stay.values()
                },
            }
        )
        history = data.draw(histories(situation.scans))
        logs: dict[int, list[bytes]] = {number: [] for number in range(history.partitions)}
        plan: list[tuple[int, int]] = []
        for batch in history.batches:
            # What a restart reads again is up to the engine, which knows its position: each scan is in the log once.
            logs[batch.partition] += [line_of(scan) for scan in batch.scans]
            plan.append((batch.partition, len(logs[batch.partition])))
        if data.draw(st.booleans()):
            place = data.draw(st.integers(0, history.partitions - 1))
            logs[place].insert(data.draw(st.integers(0, len(logs[place]))), b'{"not": "a scan"}')
        registered_at = data.draw(st.integers(0, len(plan)))
        crashes = data.draw(st.lists(st.integers(1, 12), max_size=4))
        inserts = 0
        next_crash = crashes.pop() if crashes else None
        plain_insert = Writer.insert

        def insert(self: Writer, table: str, rows: Any) -> None:
            nonlocal inserts, next_crash
            inserts += 1
            if next_crash is not None and inserts >= next_crash:
                inserts, next_crash = 0, crashes.pop() if crashes else None
                raise Crash
            plain_insert(self, table, rows)

        # Models put in force at some step, for event times from an hour on (0: all of them).
        uses: list[tuple[int, str, int]] = sorted(
            data.draw(
                st.lists(
                    st.tuples(
                        st.integers(0, len(plan)),
                        st.sampled_from(["short", "long", ""]),
                        st.sampled_from([0, *(SUNDAY // HOUR + hour for hour in (-40, -3, 1, 2, 9, 11, 25))]),
                    ),
                    max_size=3,
                )
            ),
            key=lambda use: use[0],
        )
        said = 0

        def say_uses(step: int) -> None:
            nonlocal said
            while said < len(uses) and uses[said][0] <= step:
                _, version, since = uses[said]
                use_model(client, version, datetime.fromtimestamp(since * 3600, UTC))
                said += 1

        def model_of(venue: str, minute: int) -> VenueModel | None:
            holding = [version for _, version, since in uses if since * 60 <= minute]
            if not holding or not holding[-1]:
                return None
            registry = situation.registry
            category = f"stay-{registry.max_stay[venue]}" if venue in registry.max_stay else "plain"
            if venue not in registry.max_stay and venue not in registry.capacities:
                category = "unknown"
            place = categories.index(category)
            model = models[holding[-1]]
            # Half past five east of Greenwich, all year.
            offset = 0 if category == "unknown" else 330
            return venue_model(model, place, holding[-1], offset) if model.source[place] else None

        def alerts_by_estimate(clock: int) -> set[AlertRow]:
            registry, rows = situation.registry, set()
            there = stays(situation.scans, registry.max_stay)
            visits = fold(winning_scans(situation.scans), registry.max_stay, clock)
            for venue, capacity in registry.capacities.items():
                here = [visit for visit in visits if visit.venue_id == venue]

                @cache
                def at(minute: int, venue: str = venue) -> tuple[float, float, float] | None:
                    model = model_of(venue, minute)
                    return None if model is None else model.estimate(there[venue], [minute])

                for level in LEVELS if here else ():
                    rows |= set(judged_alerts(venue, here, capacity, level, clock, basis, at))
            return rows

        def register(engine: Engine) -> None:
            records = venue_records(situation)
            assert not engine.load_venues(records, [None] * len(records))

        Writer.insert = insert  # type: ignore[method-assign]
        try:
            step, registered, finished, engine = 0, False, False, None
            position: dict[int, int] = {}
            while not finished:
                try:
                    if engine is None:
                        engine = Engine(client, writing, settings_of_example, "events", situation.as_of)
                        starts = engine.assign("check-ins", range(history.partitions))
                        position = {number: start or 0 for number, start in starts.items()}
                    while step < len(plan):
                        say_uses(step)
                        if step >= registered_at and not registered:
                            register(engine)
                            registered = True
                        partition, until = plan[step]
                        _feed(engine, partition, logs[partition], position, until)
                        step += 1
                        if data.draw(st.booleans()):
                            write = engine.take(idle=data.draw(st.booleans()))
                            if write is not None:
                                engine.write(write)
                            if data.draw(st.booleans()):
                                engine.settle()
                        if data.draw(st.sampled_from([False, False, False, True])):
                            raise Crash
                    if not registered:
                        register(engine)
                        registered = True
                    say_uses(len(plan))
                    for number, log in logs.items():
                        _feed(engine, number, log, position, len(log))
                    engine.settle()
                    finished = True
                except Crash:
                    engine = None
        finally:
            Writer.insert = plain_insert  # type: ignore[method-assign]

        expected = expected_views(
            situation.scans, situation.registry.max_stay, situation.registry.capacities, situation.as_of
        )
        clock = max(scan.occurred_at_ms for scan in situation.scans) if situation.as_of is None else situation.as_of
        if basis != "counted":
            expected["crowding_alerts"] = alerts_by_estimate(clock)
        found = differences(read_views(client), expected)
        assert not found, found
        wrong = wrong_estimates(read_estimates(client), situation.scans, situation.registry.max_stay, clock, model_of)
        assert not wrong, "\n".join(wrong)
        consumed, accepted, stored, duplicates, dead = client.query(
            "SELECT sum(consumed), sum(accepted), sum(stored), sum(duplicates), sum(dead_lettered) FROM accounting"
        ).result_rows[0]
        assert consumed == sum(len(log) for log in logs.values())
        assert consumed == accepted + dead
        assert accepted == stored + duplicates
        assert stored == len(expected["scans"]), (
            f"{stored} stored, {len(expected['scans'])} expected, {duplicates} duplicates"
        )
        assert dead == client.query("SELECT count() FROM dead_letters").result_rows[0][0]

    def _feed(engine: Engine, partition: int, log: list[bytes], position: dict[int, int], until: int) -> None:
        start = position[partition]
        if start < until:
            values = log[start:until]
            engine.process("check-ins", partition, range(start, until), [0] * len(values), values)
            position[partition] = until

    return play_examples(play, examples, seed)


@pytest.mark.parametrize("examples", [8, pytest.param(25, marks=pytest.mark.long)])
def test_crashes_restarts_and_very_late_scans_change_no_row(tmp_path: Path, examples: int) -> None:
    assert run_isolated(run_examples, str(tmp_path), examples, None, timeout=1500) == examples
