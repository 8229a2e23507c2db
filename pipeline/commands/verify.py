"""`pipeline verify`: recompute everything from the scans independently, and compare."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.errors import UserError
from pipeline.person_reads import note_cases, note_read
from pipeline.progress import progress_bar
from pipeline.query import reason
from pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from pipeline.store.verify import Check

#: Why it reads about persons: the command itself says so.
_PURPOSE: Final = "verification"


@click.command(epilog="Example: pipeline verify --store .pipeline/store")
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
def command(store: Path | None) -> None:
    """Recompute visits and occupancy in SQL from the stored scans alone, and compare every row with the views.

    Where a model was put in force, its estimates are computed again too, visit by visit: of every row, or, in a large store, of
    one venue in so many.

    Crowding alerts are recomputed where they go by the persons counted (`crowding_basis`), and said to be skipped where not.

    All venue warnings are recomputed, and, where cases were reported, their exposures pair by pair (of up to 20 cases).

    Exit status 0 when all is equal, 1 with where it differs. What is shown of a scan, visit, exposure or warning that differs is
    noted in the audit log first. Nothing may write to the store meanwhile.
    """
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    from pipeline.store.client import open_store  # the embedded engine takes a second to load
    from pipeline.store.verify import steps, verify
    from pipeline.tracing.verify import verify_tracing
    from pipeline.verify_estimates import check_estimates

    with closing(open_store(settings, read_only=True)) as client:
        try:
            with progress_bar("verifying", steps(client)) as advance:
                verdict = verify(client, settings, advance)
                checks = (*verdict.checks, *verify_tracing(client, settings))
            if estimates := check_estimates(client):
                checks += (estimates,)
        except ClickHouseError as error:
            raise UserError(f"the store cannot be verified: {reason(error)}") from None
    _note(settings, checks)
    for check in checks:
        outcome = check.skipped or ("equal" if check.ok else f"{check.differences:,} differ")
        click.echo(f"{check.name:<22} {check.rows:>15,} rows   {outcome}")
        for example in check.examples:
            click.echo(f"    {example}")
    if not all(check.ok for check in checks):
        raise UserError("the store differs from what its own scans say, as listed above")


def _note(settings: Settings, checks: Sequence["Check"]) -> None:
    """Note what the examples tell of persons: nothing, where all is equal."""
    if all(check.persons == 0 for check in checks):
        return
    counts = [check.persons for check in checks]
    persons = None if None in counts else sum(filter(None, counts))
    what = ", ".join(check.name for check in checks if check.persons != 0)
    note_read(settings, "verify", _PURPOSE, case=None, persons=persons, what=what)
    cases = sorted({case for check in checks for case in check.cases})
    note_cases(settings, _PURPOSE, [("told by verify", case) for case in cases])
