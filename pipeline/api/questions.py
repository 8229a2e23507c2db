"""The questions that the API asks of the store, as SQL from files, and their answers as plain rows."""

from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from pipeline.api.reader import ask_rows
from pipeline.store.closed_days import utc_offset

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

Row = dict[str, Any]


@cache
def sql(name: str) -> str:
    """A question by the name of its file; `{{name}}` within it stands for another."""
    text = resources.files("pipeline.store").joinpath("sql", "api", f"{name}.sql").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    before, found, rest = lines.partition("{{")
    if not found:
        return lines
    inner, _, after = rest.partition("}}")
    return before + sql(inner) + after


def alerts(client: Client, *, active: bool, venue: str, before: tuple[int, str] | None, limit: int) -> list[Row] | None:
    """Crowding alerts, newest first; None where the store has no such view. `before`: raised_at in ms, and alert_id."""
    if not ask_rows(client, sql("has_alerts"))[0]["there"]:
        return None
    moment, alert = before or (-1, "")
    return ask_rows(
        client,
        sql("alerts"),
        {"active": int(active), "venue": venue, "before": moment, "before_id": alert, "limit": limit},
    )


def alerts_at_a_glance(client: Client, since: int, limit: int) -> tuple[list[Row], Row]:
    """Crowding alerts that last, newest first, then those cleared from `since` (ms since the epoch) on, at most `limit` of each.

    With them `raised`, `critical` and `cleared`: how many there are of each, the critical among the raised.
    """
    shown = ask_rows(client, sql("alerts_at_a_glance"), {"since": since, "limit": limit})
    return shown, ask_rows(client, sql("alerts_counted"), {"since": since})[0]


def history(client: Client, venue: str, since: int, until: int, step: str, limit: int) -> tuple[list[Row], int]:
    """Rows of [since, until) (seconds since the epoch) by `step` (minute or hour), and the occupancy just before."""
    asked = {"venue": venue, "since": since, "until": until, "limit": limit}
    rows = ask_rows(client, sql(f"history_{step}s"), asked)
    before = ask_rows(client, sql("before"), {"venue": venue, "since": since})
    return rows, before[0]["occupancy"] if before else 0


def planning_parameters(client: Client, *, since: int, until: int, venue: str, area: str, category: str) -> Row:
    """What `planning_hours` asks for: the range in seconds since the epoch, filters ("" = all), zones' offsets at its end."""
    zones = [row["timezone"] for row in ask_rows(client, "SELECT DISTINCT timezone FROM venues WHERE timezone != ''")]
    end = datetime.fromtimestamp(until, UTC)
    return {
        "since": since,
        "until": until,
        "venue": venue,
        "area": area,
        "category": category,
        "zones": ["", *zones],
        "offsets": [0, *(utc_offset(zone, end) for zone in zones)],
    }
