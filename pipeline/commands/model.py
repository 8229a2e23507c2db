"""`pipeline model`: models of presence, which tell who is really there when most never check out."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import UserError
from pipeline.settings import load_settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from pipeline.store.models import StoredModel

_STORE = click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder."
)


@click.group(epilog="Example: pipeline model fit --use")
def command() -> None:
    """Models of presence: fit one to the closed days, look at it, put it in force.

    A model in force fills the columns expected, low, high, check_out_share and model_version; the counted numbers never change.
    An embedded store belongs to its worker while that runs: stop it first. A worker takes up another model when it starts.
    """


@command.command(epilog="Example: pipeline model fit --days 14 --use")
@click.option("--days", type=click.IntRange(1, 28), default=28, show_default=True, help="Closed days looked back on.")
@click.option("--use", "at_once", is_flag=True, help="Put it in force at once.")
@_STORE
def fit(days: int, at_once: bool, store: Path | None) -> None:
    """Fit a model to the last closed days (UTC) of the store.

    A category with fewer than 50 check-outs in them rests on an assumed stay, or has no estimate; both are said.
    """
    from pipeline.presence import fit_model
    from pipeline.store.models import save_model, use_model

    with _open(store) as client:
        from pipeline.progress import progress_bar

        with progress_bar("reading closed days", None) as advance:
            model = fit_model(client, days, lambda day: advance(1, str(day)))
        save_model(client, model)
        if at_once:
            use_model(client, model.version)
    _print(model)
    if not at_once:
        click.echo(f"not in force yet: pipeline model use {model.version}")


@command.command(epilog="Example: pipeline model show latest")
@click.argument("version", default="latest")
@_STORE
def show(version: str, store: Path | None) -> None:
    """What VERSION, or the latest model, was made from and what it found, by category."""
    from pipeline.store.models import stored_models

    with _open(store) as client:
        _print(_chosen(stored_models(client), version))


@command.command(epilog="Example: pipeline model use latest")
@click.argument("version")
@_STORE
def use(version: str, store: Path | None) -> None:
    """Put VERSION, or `latest`, in force from now on; `none` withdraws the one in force."""
    from pipeline.store.models import stored_models, use_model

    with _open(store) as client:
        chosen = "" if version == "none" else _chosen(stored_models(client), version).version
        use_model(client, chosen)
    click.echo(f"{chosen or 'no model'} is in force; a worker or replay takes it up when it starts")


@command.command(epilog="Example: pipeline model history")
@_STORE
def history(store: Path | None) -> None:
    """All models, and which was in force since when."""
    from pipeline.store.models import stored_models, used_models

    with _open(store) as client:
        models, used = stored_models(client), used_models(client)
    if not models:
        click.echo("there is no model yet: pipeline model fit")
    for model in models:
        click.echo(f"{model.version}  made {_time(model.made_at)}  from {_days(model)}")
    for version, since in used:
        click.echo(f"in force since {_time(since)}: {version or 'none'}")


@contextmanager
def _open(store: Path | None) -> "Iterator[Client]":
    settings = load_settings(store=store)
    if store is not None:
        settings = settings.model_copy(update={"clickhouse_url": None})
    from pipeline.errors import StoreUnavailableError
    from pipeline.store.client import open_store  # the embedded engine takes a second to load

    # Read-only first: a store that is not there is an error here, nothing to be made.
    with closing(open_store(settings, read_only=True)):
        pass
    with closing(open_store(settings)) as client:
        try:
            yield client
        except StoreUnavailableError as error:
            raise UserError(f"the store does not answer: {error}") from None


def _chosen(models: "Sequence[StoredModel]", version: str) -> "StoredModel":
    if not models:
        raise UserError("there is no model yet: make one with `pipeline model fit`")
    if version == "latest":
        return models[-1]
    for model in models:
        if model.version == version:
            return model
    raise UserError(f"there is no model {version}: `pipeline model history` lists them")


def _print(model: "StoredModel") -> None:
    click.echo(f"model {model.version}, made {_time(model.made_at)} from {_days(model)}")
    click.echo(f"{'category':<16} {'visits':>11} {'check-outs':>11} {'median stay':>12}  rests on")
    for row in json.loads(model.figures):
        click.echo(
            f"{row['category']:<16} {row['visits']:>11,} {row['check_outs']:>11,} {_minutes(row):>12}  {_source(row)}"
        )


def _minutes(row: dict[str, Any]) -> str:
    return "" if row["median_stay_minutes"] is None else f"{row['median_stay_minutes']:.0f} min"


def _source(row: dict[str, Any]) -> str:
    if row["source"] == "learned":
        return "what was seen"
    return row["reason"] if row["source"] == "assumed" else f"nothing: no estimate ({row['reason']})"


def _days(model: "StoredModel") -> str:
    return "no closed day" if model.last_day is None else f"{model.first_day} to {model.last_day}"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
