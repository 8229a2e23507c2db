"""What a worker does for the model of presence at quiet moments: look where it stands and, nightly, check and renew it.

Everything is read with a connection of its own, beside the stream; what the stream notices is the last row alone, which puts the
new model in force.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

from pipeline.core.presence.check import Checked
from pipeline.errors import StoreUnavailableError, UserError
from pipeline.model_check import check_model
from pipeline.presence import fit_model
from pipeline.settings import Settings
from pipeline.store.client import connect_further
from pipeline.store.closed_days import clock_of, closed_days
from pipeline.store.model_checks import last_checks
from pipeline.store.models import model_at, newest_learned_day, save_model, use_model
from pipeline.store.writer import store_errors
from pipeline.streaming.ports import MOST_CATEGORIES, ModelFigures

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

_PEOPLE = """
SELECT category, sum(occupancy) AS counted, sumIf(occupancy, expected IS NOT NULL) AS estimated
FROM occupancy_now LEFT ANY JOIN venues USING (venue_id)
GROUP BY category
HAVING counted > 0
"""


class _StoppedError(Exception):
    """The worker is stopping."""


class StoreModelCare:
    """The model in a store, looked after from one thread. Its tables must be there already."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened before the first call."""
        self._settings = settings
        self._opened: Client | None = None
        self._stopping = Event()

    def figures(self) -> ModelFigures:
        """Where the model stands. Raises StoreUnavailableError."""
        client = self._client()
        now = clock_of(client)
        model = model_at(client, now)
        with store_errors():
            people = client.query(_PEOPLE).result_rows
        counted = sum(row[1] for row in people)
        checked = last_checks(client)
        return replace(
            checked_figures(checked[1] if checked else {}),
            age_seconds=None
            if model is None or model.last_day is None
            else (now - _end_of(model.last_day)).total_seconds(),
            categories_without_estimate=sum(row[2] < row[1] for row in people),
            covered=sum(row[2] for row in people) / counted if counted else None,
        )

    def refit(self) -> str | None:
        """If a day has closed that no model in use has learned: check, fit, put in force from the day after it on.

        Returns the version that is now in force, None if there is nothing to do. Raises StoreUnavailableError.
        """
        client = self._client()
        closed = closed_days(client)
        if not closed:
            return None
        learned = newest_learned_day(client)
        if learned is not None and learned >= closed[-1]:
            return None
        try:
            before = model_at(client, clock_of(client))
            if before is not None:
                # Before the new one: what a model says of a day that it has learned proves nothing.
                check_model(client, closed[-1])
            self._go_on(closed[-1])
            model = fit_model(client, told=self._go_on, counted=before)
        except _StoppedError:
            return None
        save_model(client, model)
        use_model(client, model.version, _end_of(closed[-1]))
        return model.version

    def stop(self) -> None:
        """End a `refit` that is under way at its next day; from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Give the store back."""
        if self._opened is not None:
            self._opened.close()

    def _go_on(self, _day: date) -> None:
        if self._stopping.is_set():
            raise _StoppedError

    def _client(self) -> Client:
        if self._opened is None:
            try:
                client = connect_further(self._settings)
            except UserError as error:
                raise StoreUnavailableError(str(error)) from None
            # The stream comes first: one core at most.
            client.set_client_setting("max_threads", "1")
            self._opened = client
        return self._opened


def checked_figures(checks: Mapping[str, Checked]) -> ModelFigures:
    """What a day's checks, by category, say of the model; the rest of the figures is left open."""
    cells = sum(one.cells for one in checks.values())
    there = sum(one.there for one in checks.values())
    order = sorted(checks, key=lambda name: (-checks[name].check_outs, name))
    most = {name: checks[name] for name in order[:MOST_CATEGORIES]}
    return ModelFigures(
        check_coverage=sum(one.held for one in checks.values()) / cells if cells else None,
        check_bias=sum(one.predicted for one in checks.values()) / there - 1 if there else None,
        drift={name: one.drift for name, one in most.items() if one.drift is not None},
        check_out_share={name: one.check_outs / one.visits for name, one in most.items() if one.visits},
    )


def _end_of(day: date) -> datetime:
    return datetime.combine(day + timedelta(1), time.min, UTC)
