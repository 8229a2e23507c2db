"""`pipeline keys`: the ring of keys that pseudonyms are made with. No command prints a key."""

import os
import time
from datetime import timedelta
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from pipeline.access_changes import change_note
from pipeline.errors import UserError
from pipeline.settings import Settings, load_settings
from schemas.fields import Identifier, format_instant, parse_instant

_MS = timedelta(milliseconds=1)


class InstantOption(click.ParamType):
    """An RFC 3339 time with an offset, as ms since the epoch."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_instant(str(value))
        except ValueError as error:
            self.fail(f"{error}, such as 2021-09-19T20:00:00Z", param, ctx)


INSTANT = InstantOption()


def _case_id(_context: click.Context, _parameter: click.Parameter, case: str) -> str:
    try:
        return TypeAdapter[str](Identifier).validate_python(case)
    except ValidationError:
        raise click.BadParameter("an id has 1 to 64 of A-Za-z0-9._:-, such as c-17") from None


def _now() -> int:
    return time.time_ns() // 1_000_000


def _settings(folder: Path | None) -> Settings:
    return load_settings(keys=folder)


_FOLDER = click.option(
    "--keys",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The ring's folder. Default: the setting keys.",
)


@click.group(epilog="Example: pipeline keys create && pipeline keys list")
def command() -> None:
    """Make, look at and destroy the keys of pseudonyms: one for each period, wrapped by a master key. None is ever shown.

    What is changed is noted in the audit log first.
    """


@command.command(epilog="Example: pipeline keys create --keys /var/lib/check-in-keys --edge 2021-09-12T20:00:00Z")
@_FOLDER
@click.option(
    "--edge",
    type=INSTANT,
    help="Any instant at which a period begins. Default: 20:00 UTC (03:00 in Jakarta) on a Sunday.",
)
@click.option("--days", type=click.IntRange(1, 366), default=14, show_default=True, help="How long a period is.")
def create(folder: Path | None, edge: int | None, days: int) -> None:
    """Make a ring, and the master key in its folder unless the environment or a vault has one."""
    from pipeline.privacy.master import open_master
    from pipeline.privacy.ring import DEFAULT_EDGE, KeyRing
    from pipeline.privacy.secret_files import make_secret_folder

    settings = _settings(folder)
    make_secret_folder(settings.keys_path)
    master = open_master(settings, create=True)
    ring = KeyRing.create(
        settings.keys_path,
        master,
        _now(),
        settings.retention,
        timedelta(days=days),
        DEFAULT_EDGE if edge is None else edge,
        change_note(settings, "keys create", str(settings.keys_path)),
    )
    click.echo(f"made the ring {ring.ring} in {settings.keys_path} with keys of {len(ring.periods)} periods")
    if settings.vault_url is None and settings.master_key is None:
        click.echo("its master key lies beside it: keep their copies apart, or use a vault (docs/privacy.md)")


@command.command("list", epilog="Example: pipeline keys list")
@_FOLDER
def list_(folder: Path | None) -> None:
    """Show every period, and where its key stands; `over` means that its key is due to be destroyed."""
    from pipeline.privacy.ring import KeyRing

    settings = _settings(folder)
    ring = KeyRing.open(settings.keys_path)
    click.echo(f"ring {ring.ring}, a period lasts {ring.length // timedelta(days=1)} days")
    for each in ring.periods:
        state = each.state(_now(), settings.retention)
        gone = f" on {format_instant(each.destroyed_at)}" if each.destroyed_at is not None else ""
        click.echo(
            f"{each.id}  {format_instant(each.starts_at)}  {format_instant(each.ends_at)}  {each.fingerprint}  {state}{gone}"
        )


@command.command(epilog="Example: pipeline keys rotate --at 2021-09-15T20:00:00Z")
@_FOLDER
@click.option("--at", type=INSTANT, help="End the period in which this lies, and begin another then.")
@click.option("--master", is_flag=True, help="Wrap everything with a new master key instead, and forget the old one.")
def rotate(folder: Path | None, at: int | None, master: bool) -> None:
    """Draw the keys of the periods to come. Run it daily: it does nothing where they are there already.

    Gateways take up what changed within seconds. --at is for when a key may have leaked: pseudonyms change then, and stays
    that began before go on under the old ones.
    """
    from pipeline.privacy.master import open_master
    from pipeline.privacy.ring import KeyRing

    if master and at is not None:
        raise click.UsageError("give --at or --master, not both: they are two steps")
    settings = _settings(folder)
    what = "the master key" if master else f"at {format_instant(at)}" if at is not None else "periods to come"
    ring = KeyRing.open(settings.keys_path, change_note(settings, "keys rotate", what))
    key = open_master(settings)
    if master:
        ring.renew(key)
        if settings.vault_url is not None:
            click.echo("everything is wrapped with the newest keys of the vault: have it forget older versions of them")
        else:
            click.echo(
                "everything is wrapped with the new master key; make the tracer's linking key again, and delete the old one with "
                "its copy of the ring"
            )
    elif at is not None:
        new = ring.cut(key, at, _now())
        click.echo(f"the period {new.id} will begin at {format_instant(new.starts_at)}")
    else:
        new_ones = ring.extend(key, _now())
        names = ", ".join(each.id for each in new_ones)
        click.echo(f"new keys: {names}" if names else "every period to come has its key already")


@command.command(epilog="Example: pipeline keys destroy 202109052000")
@_FOLDER
@click.argument("period", required=False)
@click.option("--over", is_flag=True, help="Every period that is over, and every destruction broken off.")
@click.option("--early", is_flag=True, help="Also while its scans may still come, or be stored.")
def destroy(folder: Path | None, period: str | None, over: bool, early: bool) -> None:
    """Destroy a period's key, print the receipt, and keep it beside the ring.

    After that its pseudonyms cannot be made, tested or linked by anybody, wherever copies of them are, once what the
    receipt names under "how" is deleted: old copies of keys, the tracer's too. There is no way back. A destruction that was
    broken off has no receipt, and is gone on with.
    """
    from pipeline.privacy.master import open_master
    from pipeline.privacy.ring import KeyRing

    if (period is None) != over or (over and early):
        raise click.UsageError("give one PERIOD, or --over; --early goes with a PERIOD")
    settings = _settings(folder)
    now = _now()
    names = KeyRing.open(settings.keys_path).to_destroy(now, settings.retention) if over else [period]
    for name in names:
        assert name is not None, "checked above"
        note = change_note(settings, "keys destroy", f"{name}, early" if early else name)
        ring = KeyRing.open(settings.keys_path, note)
        click.echo(ring.destroy(open_master(settings), name, now, settings.retention, early).model_dump_json(indent=2))
    if not names:
        click.echo("no period is over", err=True)


@command.command(
    epilog="Example: pipeline keys link p202109052000.AbCdEfGhIjKlMnOpQrStUv --case c-17 --purpose contact-tracing"
)
@_FOLDER
@click.argument("pseudonym")
@click.option("--days", type=click.IntRange(1, 366), default=14, show_default=True, help="How far back, from now.")
@click.option("--case", required=True, callback=_case_id, help="The case, or the person's own request, that it is for.")
@click.option("--purpose", required=True, help="Why: one of the setting purposes.")
def link(folder: Path | None, pseudonym: str, days: int, case: str, purpose: str) -> None:
    """The tracer's question: a person's pseudonyms in the periods of the last days, one a line, without learning who it is.

    Only who has the periods' keys gets an answer: the tracer's linking key is enough, and can do nothing else. Case and purpose
    are noted in the audit log before it, and not held against the store: whoever holds the keys is trusted with them.
    """
    from pipeline.person_reads import checked_purpose, note_read
    from pipeline.privacy.master import open_master
    from pipeline.privacy.pseudonyms import Linker

    settings = _settings(folder)
    why = checked_purpose(settings, purpose)
    linker = Linker(settings.keys_path, lambda: open_master(settings))
    found = linker.link(pseudonym, _now() - timedelta(days=days) // _MS, _now())
    note_read(settings, "link", why, case=case, persons=1, what=f"{days} days")
    for each in found:
        click.echo(each)


@command.command("linking-key", epilog="Example: pipeline keys linking-key /run/secrets/tracer/master.key")
@_FOLDER
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def linking_key(folder: Path | None, file: Path) -> None:
    """Write to FILE, for its owner alone, what the tracer needs beside a copy of the ring to link pseudonyms.

    It cannot make a pseudonym. Renewing the master key (which destroying a period does) ends its use for the ring, not for the
    copies from before: delete it and them, with it they link destroyed periods still. Then write it again.
    """
    from pipeline.privacy.master import LocalMaster, open_master
    from pipeline.privacy.secret_files import write_secret_file

    settings = _settings(folder)
    master = open_master(settings)
    if not isinstance(master, LocalMaster):
        raise UserError("with a vault the tracer gets a token of its own, whose policy allows decrypt of periods alone")
    if os.path.lexists(file):
        raise UserError(f"{file} is there already; remove it first")
    change_note(settings, "keys linking-key", str(file))()
    write_secret_file(file, master.linking_text())
    click.echo(f"wrote the linking key to {file}")
