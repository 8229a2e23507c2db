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

    from pipeline.core.presence.check import Checked
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

    A category with fewer than 50 check-outs in them rests on an assumed stay, or has no estimate; both are said. What head
    counts told (`calibrate`) is kept of the model in force.
    """
    from pipeline.presence import fit_model
    from pipeline.store.closed_days import clock_of
    from pipeline.store.models import model_at, save_model

    with _open(store) as client:
        from pipeline.progress import progress_bar

        with progress_bar("reading closed days", None) as advance:
            model = fit_model(
                client, days, lambda day: advance(1, str(day)), counted=model_at(client, clock_of(client))
            )
        save_model(client, model)
        if at_once:
            _use(client, model.version, _since(client, model))
    _print(model)
    if not at_once:
        click.echo(f"not in force yet: pipeline model use {model.version}")


@command.command(epilog="Example: pipeline model calibrate counts.csv --use")
@click.argument("counts", type=click.Path(path_type=Path))
@click.option("--model", "version", default="latest", show_default=True, help="The model to calibrate.")
@click.option("--use", "at_once", is_flag=True, help="Put it in force at once.")
@_STORE
def calibrate(counts: Path, version: str, at_once: bool, store: Path | None) -> None:
    """Correct a model for people whom nobody scanned, by head counts of gates or cameras: a new model.

    COUNTS is CSV with a header, or NDJSON, of venue_id, at (RFC 3339) and persons: everybody in the venue then, not those who
    came in. By category, 20 counts at 3 venues are needed where at least 5 people are expected. It is the only check that sees
    hidden people, and stays of those who never check out that differ from the others'; a counter that is wrong everywhere
    looks the same.
    """
    from pipeline.venues import read_head_counts

    rows = read_head_counts(counts)
    from pipeline.head_counts import calibrate_model
    from pipeline.store.models import save_model, stored_models

    with _open(store) as client:
        found = calibrate_model(client, _chosen(stored_models(client), version), rows)
        save_model(client, found.model)
        if at_once:
            _use(client, found.model.version, _since(client, found.model))
    for name, one in found.by_category.items():
        if one.hidden is not None:
            click.echo(
                f"{name}: {one.hidden.mean:.2f} people a named one, ± {one.hidden.spread:.0%} from venue to venue"
            )
        elif one.counts:
            click.echo(f"{name}: unchanged; {one.counts} counts at {one.venues} venues are too few")
    for why, count in found.left_out.items():
        click.echo(f"left out: {count:,} counts {why}")
    if not at_once:
        click.echo(f"not in force yet: pipeline model use {found.model.version}")


@command.command(epilog="Example: pipeline model check --day 2021-09-19")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="A closed day (UTC). Default: the last one.")
@_STORE
def check(day: datetime | None, store: Path | None) -> None:
    """Hide a closed day's known check-outs, predict who was there by the model of that day, and compare.

    coverage: share of venues and full hours whose 90 % interval held the truth; under 85 %, hours, venues or the day are unlike
    the model. bias: too many (+) or too few predicted. drift: largest distance between the shares of stays longer than any
    length, seen and modelled; from 0.10 on, stays have changed. out: visits with a check-out, and what the model expects.

    It can NOT find that those who never check out stay longer or shorter than those who do, nor people whom no scan names:
    only head counts do (pipeline model calibrate). What is found is kept in the view model_checks.
    """
    from pipeline.model_check import check_model

    with _open(store) as client:
        checked, model, found = check_model(client, day.date() if day else None)
    click.echo(f"{checked} against model {model.version}, fitted to {_days(model)}")
    if model.last_day is not None and model.last_day >= checked:
        click.echo("the model has learned that very day, which flatters it; nightly it is held against the day after")
    click.echo(
        f"{'category':<16} {'visits':>11} {'out':>6} {'expected':>8} {'cells':>7} {'coverage':>8} {'bias':>7} "
        f"{'drift':>6} {'stays':>7}"
    )
    for name, one in found.items():
        click.echo(f"{name:<16} {_figures(one)}")


@command.command(epilog="Example: pipeline model shift --use")
@click.option(
    "--use", "at_once", is_flag=True, help="Put it in force from the current hour until the end of the UTC day."
)
@_STORE
def shift(at_once: bool, store: Path | None) -> None:
    """Shift the model in force by today's stays so far, for a day unlike the learned ones: a new model.

    Today is that of each venue's clocks, until the store's clock. Run it each hour: it always begins with the unshifted model,
    which holds again from the next UTC day on.
    """
    from pipeline.shift import shift_model
    from pipeline.store.models import save_model, use_model

    with _open(store) as client:
        found = shift_model(client)
        save_model(client, found.model)
        if at_once:
            _use(client, found.model.version, found.since)
            use_model(client, found.base.version, found.until)
    for name, (factor, spread) in found.by_category.items():
        click.echo(f"{name}: stays × {factor:.2f} today (± {spread:.0%})")
    if not at_once:
        click.echo(f"not in force: pipeline model shift --use; it would hold until {_time(found.until)}")


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
        from pipeline.shift import is_shifted

        # A day's shift is no model to go on from; what it began with stands before it.
        return next((model for model in reversed(models) if not is_shifted(model)), models[-1])
    for model in models:
        if model.version == version:
            return model
    raise UserError(f"there is no model {version}: `pipeline model history` lists them")


def _print(model: "StoredModel") -> None:
    click.echo(f"model {model.version}, made {_time(model.made_at)} from {_days(model)}")
    click.echo(f"{'category':<16} {'visits':>11} {'check-outs':>11} {'median stay':>12} {'people':>7}  rests on")
    for row in json.loads(model.figures):
        click.echo(
            f"{row['category']:<16} {row['visits']:>11,} {row['check_outs']:>11,} {_minutes(row):>12} "
            f"{row['people_per_named']:>7.2f}  {_source(row)}"
        )
    click.echo("people: for each one whom scans name, from head counts; 1.00 without any (pipeline model calibrate)")


def _figures(one: "Checked") -> str:
    def shown(value: float | None, form: str, width: int) -> str:
        return f"{'–' if value is None else format(value, form):>{width}}"

    return (
        f"{one.visits:>11,} {shown(one.check_outs / one.visits if one.visits else None, '.0%', 6)} "
        f"{shown(one.expected_check_outs / one.visits if one.visits else None, '.0%', 8)} {one.cells:>7,} "
        f"{shown(one.held / one.cells if one.cells else None, '.0%', 8)} "
        f"{shown(one.predicted / one.there - 1 if one.there else None, '+.1%', 7)} {shown(one.drift, '.2f', 6)} "
        f"{'–' if one.stay_ratio is None else f'× {one.stay_ratio:.2f}':>7}"
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
