"""`pipeline verify`: recompute everything from the scans independently, and compare."""

from contextlib import closing
from pathlib import Path

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.errors import UserError
from pipeline.progress import progress_bar
from pipeline.query import reason
from pipeline.settings import load_settings


@click.command(epilog="Example: pipeline verify --store .pipeline/store")
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder.")
def command(store: Path | None) -> None:
    """Recompute visits and occupancy in SQL from the stored scans alone, and compare every row with the views.

    Where a model was put in force, its estimates are computed again too, visit by visit: of every row, or, in a large store, of
    one venue in so many.

    Crowding alerts are recomputed where they go by the persons counted (`crowding_basis`), and said to be skipped where not.

    All venue warnings are recomputed, and, where cases were reported, their exposures pair by pair (of up to 20 cases).

    Exit status 0 when all is equal, 1 with where it differs. Nothing may write to the store meanwhile.
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
    for check in checks:
        outcome = check.skipped or ("equal" if check.ok else f"{check.differences:,} differ")
        click.echo(f"{check.name:<22} {check.rows:>15,} rows   {outcome}")
        for example in check.examples:
            click.echo(f"    {example}")
    if not all(check.ok for check in checks):
        raise UserError("the store differs from what its own scans say, as listed above")
