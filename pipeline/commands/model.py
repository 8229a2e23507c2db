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
from schemas.fields import parse_instant

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from pipeline.store.models import StoredModel

_STORE = click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path), help="Embedded ClickHouse in this folder."
)


@click.group(epilog="Example: pipeline model fit --use")
def command() -> None:
    """Models of presence: fit one to the closed days, look at it, put it in force.

    A model in force fills the columns expected, low, high, check_out_share and model_version, in history too; the counted numbers
    never change. It holds for all event times from a certain one on: a later model leaves the days before as they are.
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
    from pipeline.store.models import save_model

    with _open(store) as client:
        from pipeline.progress import progress_bar

        with progress_bar("reading closed days", None) as advance:
            model = fit_model(client, days, lambda day: advance(1, str(day)))
        save_model(client, model)
        if at_once:
            _use(client, model.version, _since(client, model))
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


class _Hour(click.ParamType):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if value == "beginning":
            return datetime.fromtimestamp(0, UTC)
        try:
            at = parse_instant(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}; an example is 2021-09-19T00:00:00Z", param, ctx)
        if at % 3_600_000:
            self.fail(f"{value!r} is not on a full hour (UTC): an hour's estimate has one model", param, ctx)
        return datetime.fromtimestamp(at // 1000, UTC)


@command.command(epilog="Example: pipeline model use latest --since 2021-09-20T00:00:00Z")
@click.argument("version")
@click.option(
    "--since",
    type=_Hour(),
    metavar="TIME|beginning",
    help="First event time that it holds for (RFC 3339, a full hour).",
)
@_STORE
def use(version: str, since: datetime | None, store: Path | None) -> None:
    """Put VERSION, or `latest`, in force; `none` withdraws what is.

    Without --since it holds from the day (UTC) after the last one that it learned from; the first model ever, and `none`, hold
    for everything.
    """
    from pipeline.store.models import BEGINNING, stored_models

    with _open(store) as client:
        if version == "none":
            _use(client, "", since or BEGINNING)
        else:
            model = _chosen(stored_models(client), version)
            _use(client, model.version, since or _since(client, model))


@command.command(epilog="Example: pipeline model history")
@_STORE
def history(store: Path | None) -> None:
    """All models, and since when which is in force: of two for one time, the one below."""
    from pipeline.store.models import stored_models, used_models

    with _open(store) as client:
        models, used = stored_models(client), used_models(client)
    if not models:
        click.echo("there is no model yet: pipeline model fit")
    for model in models:
        click.echo(f"{model.version}  made {_time(model.made_at)}  from {_days(model)}")
    for each in used:
        click.echo(f"for event times {_from(each.since)}: {each.version or 'none'}  (said {_time(each.said_at)})")


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


def _since(client: "Client", model: "StoredModel") -> datetime:
    from pipeline.store.models import since_of, used_models

    since = since_of(model, used_models(client))
    if since is None:
        raise UserError(
            f"{model.version} learned from no day: say since when it holds, pipeline model use --since TIME"
        )
    return since


def _use(client: "Client", version: str, since: datetime) -> None:
    from pipeline.store.models import use_model

    use_model(client, version, since)
    click.echo(
        f"{version or 'no model'} is in force for event times {_from(since)}; a worker or replay takes it up when it starts"
    )


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


def _from(since: datetime) -> str:
    return f"from {_time(since)} on" if since.timestamp() > 0 else "from the beginning on"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
