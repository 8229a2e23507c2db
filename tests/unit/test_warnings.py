"""Warnings are brought up to their intervals, whatever else happens to the store."""

from unittest.mock import MagicMock

from pipeline.settings import Settings
from pipeline.store.tracing import Warn
from pipeline.tracing.tracer import Tracer


def test_a_warning_that_retention_deletes_meanwhile_is_taken_back_all_the_same() -> None:
    store, warned = MagicMock(), Warn("cafe", "who", 0, 1, 1)
    store.reports.return_value = store.intervals.return_value = []
    store.clock.return_value = 0
    # Between the two looks that this takes the row has gone, and with it the venue's versions.
    store.warnings.return_value = [warned], {}
    Tracer(store, MagicMock(), Settings()).own((), everything=True)
    store.write_warnings.assert_called_once_with([(warned, 1, True)])
