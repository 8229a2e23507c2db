"""Checks of models in the store: kept for ever, one row a day, model and category."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.core.presence.check import Checked
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any


def save_checks(client: Client, day: date, model_version: str, checks: Mapping[str, Checked]) -> None:
    """Keep what a day says of a model, by category, in place of what was said before. Raises StoreUnavailableError."""
    now = datetime.now(UTC)
    count, found = len(checks), list(checks.values())

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(one, name) for one in found], kind)

    rows = {
        "day": pa.array([day] * count, pa.date32()),
        "model_version": pa.array([model_version] * count, pa.string()),
        "category": pa.array(list(checks), pa.string()),
        **{name: column(name, pa.uint64()) for name in ("visits", "check_outs", "cells", "held")},
        **{
            name: column(name, pa.float64())
            for name in ("expected_check_outs", "predicted", "there", "drift", "stay_ratio")
        },
        "checked_at": pa.array([now] * count, pa.timestamp("ms", "UTC")),
        "version": pa.array([int(now.timestamp() * 1000)] * count, pa.uint64()),
    }
    with store_errors():
        client.insert_arrow("model_check_rows", pa.table(rows))


def last_checks(client: Client) -> tuple[date, dict[str, Checked]] | None:
    """The newest day that was checked, and what was found last of it, by category. Raises StoreUnavailableError."""
    names = tuple(Checked.__slots__)
    with store_errors():
        rows = client.query(
            f"SELECT day, category, {', '.join(names)} FROM model_check_rows FINAL "
            "WHERE (day, model_version) IN "
            "(SELECT day, model_version FROM model_check_rows ORDER BY day DESC, version DESC LIMIT 1) ORDER BY category"
        ).result_rows
    return (rows[0][0], {row[1]: Checked(*row[2:]) for row in rows}) if rows else None
