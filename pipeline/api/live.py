"""The present, read from the store at most once a second by a thread of its own: for the page's feed and for status requests."""

import logging
import time
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.api.feed import Feed
from pipeline.api.questions import alerts_at_a_glance, sql
from pipeline.api.reader import ask_arrow, ask_rows, open_reader
from pipeline.api.snapshot import Snapshot, read_snapshot
from pipeline.api.view import Grid, View, iso, make_grid, make_view, top_rows
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.settings import Settings
from pipeline.store.writer import store_errors

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

log = logging.getLogger(__name__)

#: The present is read this often, in seconds; where reading takes long, it may take this share of the time, and the pause is
#: never longer than LONGEST_PAUSE, so that one slow reading does not stop the page.
READ_SECONDS: Final = 1.0
READ_SHARE: Final = 0.1
LONGEST_PAUSE: Final = 4.0
#: A sparkline: so many steps of so many seconds before the present.
SPARK_STEPS, SPARK_STEP = 36, 300
#: Alerts shown at most that last, and that have cleared; these are shown for so long, in ms. A store without the view is asked
#: this often whether it has one now, in seconds.
ALERTS_SHOWN: Final = 20
ALERTS_CLEARED_MS: Final = 86_400_000
ALERTS_AGAIN: Final = 30.0

#: Facts about this process's own work, beside what the store says: lag, delays, buffers. Empty where there is no worker.
Facts = Callable[[], Mapping[str, object]]


class Live:
    """Reads, and tells the feed; `snapshot` is replaced whole, so that any thread may read it."""

    def __init__(self, settings: Settings, facts: Facts, on_snapshot: Callable[[Snapshot], None]) -> None:
        """`on_snapshot` hears of each reading, in this class's thread."""
        self.feed = Feed()
        self.snapshot: Snapshot | None = None
        self._settings = settings
        self._facts = facts
        self._stale_after = settings.stale_after.total_seconds()
        self._on_snapshot = on_snapshot
        self._stop = Event()
        self._thread = Thread(target=self._run, name="live", daemon=True)
        self._client: Client | None = None
        self._grid: Grid | None = None
        self._view: View | None = None
        self._sparks: dict[str, list[int]] = {}
        self._spark_key: tuple[object, ...] = ()
        self._alerts: dict[str, Any] = {"available": False, "items": []}
        self._alerts_key: tuple[object, ...] = ()
        self._ask_alerts_at = 0.0
        self._stored: tuple[int, float] = (0, time.monotonic())
        self._answered: float | None = None
        self._away: str | None = None
        self._took = 0.0
        self.health: dict[str, Any] = self._make_health()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and give the connection back; waits for a reading under way."""
        self._stop.set()
        self.feed.close()
        self._thread.join()
        if self._client is not None:
            self._client.close()

    def ready(self) -> tuple[bool, Mapping[str, object]]:
        """Whether the store answers, for a probe."""
        return self.snapshot is not None and self._away is None, {"store_answers": self._away is None}

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self._read()
                self._away = None
            except UserError as error:
                self._away = str(error)
            except StoreUnavailableError as error:
                if self._away is None:
                    log.warning("the live page cannot read the store (%s): trying again", error)
                self._away = str(error)
                self._drop_client()
            except Exception:
                # A bug must not leave a page that looks alive and never changes.
                if self._away is None:
                    log.exception("the live page cannot be brought up to date")
                self._away = "the present cannot be read: a bug of ours, see the log"
            self._took = time.monotonic() - begun
            self._tell()
            pause = max(READ_SECONDS - self._took, self._took / READ_SHARE - self._took)
            self._stop.wait(min(pause, LONGEST_PAUSE))

    def _read(self) -> None:
        if self._client is None:
            with store_errors():
                self._client = open_reader(self._settings)
        snapshot = read_snapshot(self._client, self.snapshot)
        if self._grid is None or self._grid.places is not snapshot.places:
            self._grid = make_grid(snapshot.places)
        if snapshot.standing.stored != self._stored[0]:
            self._stored = snapshot.standing.stored, time.monotonic()
        self._read_sparklines(self._client, snapshot)
        self._read_alerts(self._client, snapshot)
        self.snapshot = snapshot
        self._answered = time.monotonic()
        self._on_snapshot(snapshot)

    def _drop_client(self) -> None:
        if self._client is not None and self._settings.clickhouse_url is not None:
            self._client.close()
            self._client = None

    def _tell(self) -> None:
        self.health = self._make_health()
        view = make_view(self.snapshot, self._grid, self._sparks, self._alerts, self.health)
        delta = view.delta(self._view) if self._view is not None else None
        self._view = view
        self.feed.publish(delta, view.whole)

    def _read_sparklines(self, client: Client, snapshot: Snapshot) -> None:
        rows = sorted({row for rows in top_rows(snapshot).values() for row in rows})
        venues = [snapshot.places.ids[row].as_py() for row in rows]
        end = snapshot.standing.as_of // 1000 // SPARK_STEP * SPARK_STEP
        if self._spark_key == (end, venues):
            return
        start = end - SPARK_STEPS * SPARK_STEP
        # What holds at the start came with a change before it; three hours back find it for all but the sleepiest.
        table = ask_arrow(client, sql("sparklines"), {"venues": venues, "since": start - 10_800})
        venue = np.array(table["venue_id"].to_pylist(), np.object_)
        minute = np.asarray(table["minute"].to_numpy(), np.int64)
        people = np.asarray(table["occupancy"].to_numpy(), np.int64)
        steps = np.arange(start, end, SPARK_STEP)
        self._sparks = {}
        for name in venues:
            mine = venue == name
            # The occupancy at the end of a minute holds from the next one on.
            at = np.searchsorted(minute[mine] + 60, steps, "right") - 1
            self._sparks[name] = np.where(at >= 0, people[mine][np.maximum(at, 0)], 0).tolist() if mine.any() else []
        self._spark_key = (end, venues)

    def _read_alerts(self, client: Client, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if not self._alerts["available"]:
            if now < self._ask_alerts_at:
                return
            self._ask_alerts_at = now + ALERTS_AGAIN
            if not ask_rows(client, sql("has_alerts"))[0]["there"]:
                return
        version = ask_rows(client, sql("alerts_version"))[0]
        key = version["records"], version["newest"], snapshot.places.version
        if key == self._alerts_key:
            return
        shown, counted = alerts_at_a_glance(client, snapshot.standing.as_of - ALERTS_CLEARED_MS, ALERTS_SHOWN)
        self._alerts = {
            "available": True,
            "basis": self._settings.crowding_basis,
            **counted,
            "items": [alert_shown(alert, snapshot) for alert in shown],
        }
        self._alerts_key = key

    def _make_health(self) -> dict[str, Any]:
        now = time.monotonic()
        standing = self.snapshot.standing if self.snapshot else None
        age: float | None = None
        if standing is not None and standing.newest:
            # On the clock of events, "now" is a day long past: what ages is the time since another scan was stored. The newest
            # scan's own time would not do: a phone whose clock is ahead would hold it for as long.
            wall = standing.clock == "wall"
            age = max(0.0, time.time() - standing.newest / 1000) if wall else now - self._stored[1]
        return {
            "store_answers": self._away is None,
            "store_problem": self._away,
            "seconds_since_answer": None if self._answered is None else round(now - self._answered, 1),
            "read_seconds": round(self._took, 2),
            "data_age_seconds": None if age is None else round(age),
            "stale_after_seconds": self._stale_after,
            "stale": self._away is not None or (age is not None and age > self._stale_after),
            "clock": standing.clock if standing else None,
            "as_of": iso(standing.as_of) if standing else None,
            "newest_scan_at": iso(standing.newest) if standing and standing.newest else None,
            "scans": {
                name: getattr(standing, name)
                for name in ("consumed", "accepted", "stored", "duplicates", "dead_lettered")
            }
            if standing
            else None,
            "worker": dict(self._facts()) or None,
        }


def alert_shown(alert: Mapping[str, Any], snapshot: Snapshot | None) -> dict[str, Any]:
    """A row of `crowding_alerts` with instants as text and the venue's name."""
    row = snapshot.row(alert["venue_id"]) if snapshot is not None else None
    cleared = alert["cleared_at"]
    return {
        **alert,
        "name": snapshot.places.text("name", row) if snapshot is not None and row is not None else alert["venue_id"],
        "raised_at": iso(alert["raised_at"]),
        "cleared_at": None if cleared is None else iso(cleared),
    }
