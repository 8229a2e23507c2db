"""Retention by hand: what a worker does by itself, for a store that has none."""

import time
from contextlib import closing
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, cast

from pipeline.settings import Settings
from pipeline.store import retention
from pipeline.store.client import open_store
from pipeline.store.recovery import read_standing
from pipeline.store.writer import store_errors
from schemas.fields import format_instant

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


def clock_of(client: Client) -> int:
    """What a store's retention counts from, in ms: now, or in a store by event time its clock. Raises StoreUnavailableError."""
    mode, as_of = _clock(client)
    return as_of if mode == "events" else max(as_of, time.time_ns() // 1_000_000)


def apply_retention(settings: Settings, as_of: int | None = None) -> list[str]:
    """Drop what is older than the retention at `as_of` (ms; None: by the store's clock). Returns what was dropped, in sentences.

    An embedded store is corrected where that changes what stays; on a server the workers do so within minutes. Raises UserError,
    StoreUnavailableError.
    """
    with closing(open_store(settings)) as client:
        now = clock_of(client) if as_of is None else as_of
        bounds = retention.bounds_of(now, settings.retention // timedelta(milliseconds=1))
        found = retention.overdue(client, bounds)
        if not found:
            return [f"nothing is older than {format_instant(bounds.kept_from)}"]
        retention.cut(client, bounds)
    if settings.clickhouse_url is None:
        correct_embedded(settings)
        with closing(open_store(settings)) as client:
            retention.forget_repairs(client)  # those that were just made
    return [
        f"{each.table}: dropped what is from before {format_instant(bounds.kept_from)}, {each.rows:,} rows"
        for each in found
    ]


def correct_embedded(settings: Settings) -> None:
    """Make the corrections that are asked for, and trace again what may have changed. Raises UserError, StoreUnavailableError."""
    from pipeline.engine import open_engine  # these load the kernels
    from pipeline.tracing.replayed import trace_all

    with closing(open_store(settings)) as client:
        mode, _ = _clock(client)
        progress = read_standing(client).progress
        # A warning may be all that is left of a case: its interval is gone, and tracing takes it back.
        to_trace = client.query(
            "SELECT (SELECT count() FROM report_set) + (SELECT count() FROM warning_rows FINAL)"
        ).result_rows[0][0]
    if progress:
        engine = open_engine(settings, clock=cast(Literal["wall", "events"], mode))
        try:
            for topic, rows in groupby(progress, lambda row: row.topic):
                engine.assign(topic, [row.partition for row in rows])
            engine.settle()
        finally:
            engine.close()
    if to_trace:
        trace_all(settings, [])


def _clock(client: Client) -> tuple[str, int]:
    with store_errors():
        mode, as_of = client.query(
            "SELECT mode, toUnixTimestamp64Milli(toDateTime64(as_of, 3, 'UTC')) FROM clock"
        ).result_rows[0]
    return str(mode) or "events", int(as_of)
