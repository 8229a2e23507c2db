"""Cases traced on a real ClickHouse against the pairwise reference, whatever came first and wherever the process died."""

import io
import json
import logging
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import run_isolated


class Crash(BaseException):
    """The process ends here."""


def run_examples(folder: str, examples: int, seed: int | None) -> int:
    """In an interpreter of its own: play `examples` histories; AssertionError where the store differs from the reference."""
    from hypothesis import strategies as st

    from pipeline.case_reports import CaseJudge
    from pipeline.core.shard import Shard
    from pipeline.engine import Engine
    from pipeline.settings import Settings
    from pipeline.store.client import DATABASE, connect_further, open_store
    from pipeline.store.tracing import TraceStore
    from pipeline.store.writer import Writer
    from pipeline.tracing import found
    from pipeline.tracing.tracer import Tracer
    from pipeline.tracing.verify import verify_tracing
    from tests.examples import play_examples
    from tests.expected_tracing import expected_tracing, read_tracing, told
    from tests.reference import line_of
    from tests.strategies import VISITORS, histories, situations
    from tests.strategies_tracing import report_sets

    store = Settings(store=Path(folder), late_window=timedelta(hours=2))
    # What a pass finds is written in pieces; here each is of one case.
    found.PIECE_ROWS = 1  # type: ignore[misc]
    heard = io.StringIO()
    logging.basicConfig(stream=heard, level=logging.INFO)
    client = open_store(store)
    writing, tracing, behind = (connect_further(store) for _ in range(3))
    tables = [
        row[0] for row in client.query("SELECT name FROM system.tables WHERE engine LIKE '%MergeTree'").result_rows
    ]
    Shard.collect_due = lambda self, horizon: horizon > self.horizon  # type: ignore[method-assign]

    def play(data: st.DataObject) -> None:
        for table in tables:
            client.command(f"TRUNCATE TABLE {DATABASE}.{table}")
        situation = data.draw(situations(max_size=30))
        limits = situation.registry.max_stay
        zone = data.draw(st.sampled_from(["UTC", "Asia/Jakarta", "America/New_York"]))
        configured = store.model_copy(
            update={
                "timezone": zone,
                "max_stay_by_category": {f"stay-{limit}": timedelta(milliseconds=limit) for limit in limits.values()},
            }
        )
        category = st.sampled_from(["mall", "minimarket", "plain"])

        def registrations() -> dict[str, str]:
            named = {name: f"stay-{limit}" for name, limit in limits.items()}
            return named | {name: data.draw(category) for name in situation.registry.capacities if name not in limits}

        # The first one is wrong about some categories; rows of the second are the ones that hold.
        registered = [registrations(), registrations()]
        reports = data.draw(report_sets())
        history = data.draw(histories(situation.scans))
        logs: dict[int, list[bytes]] = {number: [] for number in range(history.partitions)}
        scans: list[tuple[str, Any]] = []
        for batch in history.batches:
            logs[batch.partition] += [line_of(scan) for scan in batch.scans]
            scans.append(("scans", (batch.partition, len(logs[batch.partition]))))
        plan = list(scans)
        for number, event in enumerate([("venues", registered[0]), ("venues", registered[1])]):
            after = plan.index(("venues", registered[0])) + 1 if number else 0
            plan.insert(data.draw(st.integers(after, len(plan))), event)
        report_log = list(reports)
        # A restart looks at every case again: only without one is it seen that later scans are matched.
        calm, early = data.draw(st.booleans()), data.draw(st.booleans())
        for until in range(1, len(report_log) + 1):
            before = [i for i, (kind, _) in enumerate(plan) if kind == "reports"]
            first = before[-1] + 1 if before else 0
            plan.insert(data.draw(st.integers(first, first if early else len(plan))), ("reports", until))

        crashes = [] if calm else data.draw(st.lists(st.integers(1, 14), max_size=4))
        inserts, next_crash = 0, crashes.pop() if crashes else None
        plain_insert = Writer.insert

        def insert(self: Writer, table: str, rows: Any) -> None:
            nonlocal inserts, next_crash
            inserts += 1
            if next_crash is not None and inserts >= next_crash:
                inserts, next_crash = 0, crashes.pop() if crashes else None
                raise Crash
            plain_insert(self, table, rows)

        published: list[tuple[str, dict[str, Any]]] = []

        def maybe_crash() -> None:
            if not calm and data.draw(st.sampled_from([False, False, False, True])):
                raise Crash

        def publish(tracer: Tracer) -> None:
            while (some := tracer.untold()) is not None:
                published.extend((some.topic, json.loads(message)) for message in some.messages)
                maybe_crash()
                # The worker goes on tracing while Kafka answers.
                maybe(tracer.trace_some)
                tracer.note_told(some)

        def maybe(action: Any, *arguments: Any) -> None:
            if data.draw(st.booleans()):
                action(*arguments)

        def feed(engine: Engine, partition: int, until: int) -> None:
            start = position[partition]
            if start < until:
                values = logs[partition][start:until]
                engine.process("check-ins", partition, range(start, until), [0] * len(values), values)
                position[partition] = until

        def load(tracer: Tracer, until: int) -> None:
            start = position[-1]
            if start < until:
                values = report_log[start:until]
                count = len(values)
                tracer.load("case-reports", 0, range(start, until), [0] * count, [None] * count, values)
                position[-1] = until

        def write(engine: Engine) -> None:
            some = engine.take(idle=data.draw(st.booleans()))
            if some is not None:
                engine.write(some)

        def register(engine: Engine, categories: dict[str, str]) -> None:
            records = []
            for name in sorted(limits.keys() | situation.registry.capacities.keys()):
                record: dict[str, Any] = {"venue_id": name, "name": name, "category": categories[name]}
                if name in situation.registry.capacities:
                    record["capacity"] = situation.registry.capacities[name]
                records.append(json.dumps(record).encode())
            assert not engine.load_venues(records, [None] * len(records))

        Writer.insert = insert  # type: ignore[method-assign]
        try:
            step, finished, engine, tracer = 0, False, None, None
            position: dict[int, int] = {}
            while not finished:
                try:
                    if engine is None or tracer is None:
                        engine = Engine(client, writing, configured, "events", situation.as_of)
                        tracer = Tracer(TraceStore(tracing, behind), CaseJudge(configured), configured)
                        engine.watch_visits(tracer.visits_stored)
                        starts = engine.assign("check-ins", range(history.partitions))
                        position = {number: start or 0 for number, start in starts.items()}
                        position[-1] = tracer.own([0], everything=True)[0] or 0
                    while step < len(plan):
                        kind, what = plan[step]
                        if kind == "venues":
                            register(engine, what)
                        elif kind == "reports":
                            load(tracer, what)
                        else:
                            feed(engine, *what)
                        step += 1
                        for action in (
                            partial(write, engine),
                            tracer.trace_due,
                            engine.settle,
                            partial(publish, tracer),
                        ):
                            maybe(action)
                        maybe_crash()
                    for number, log in logs.items():
                        feed(engine, number, len(log))
                    load(tracer, len(report_log))
                    engine.settle()
                    tracer.trace_due()
                    assert not tracer.due
                    publish(tracer)
                    tracer.trace_due()
                    publish(tracer)
                    finished = True
                except Crash:
                    engine = tracer = None
        finally:
            Writer.insert = plain_insert  # type: ignore[method-assign]

        expected = expected_tracing(situation, registered[1], reports, zone)
        assert read_tracing(client) == expected
        assert told(published) == expected
        # Pseudonyms that no other text holds by chance.
        said = heard.getvalue() + str([message for topic, message in published if topic != "exposures"])
        assert not [visitor for visitor in VISITORS if len(visitor) > 1 and visitor in said], said
        checks = verify_tracing(client, configured)
        assert all(check.ok for check in checks), checks

    return play_examples(play, examples, seed)


@pytest.mark.parametrize("examples", [5, pytest.param(15, marks=pytest.mark.long)])
def test_neither_order_nor_crashes_change_whom_a_case_exposed(tmp_path: Path, examples: int) -> None:
    assert run_isolated(run_examples, str(tmp_path), examples, None, timeout=1500) == examples
