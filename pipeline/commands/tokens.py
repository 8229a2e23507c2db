"""`pipeline tokens`: static tokens for the API, for set-ups without an identity provider."""

import click

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.access_changes import change_note
from pipeline.settings import load_settings


@click.group(epilog="Example: pipeline tokens create dashboard --role viewer")
def command() -> None:
    """Tokens that the API takes as `Authorization: Bearer TOKEN`. Only hashes are kept; who made one is in the audit log."""


@command.command(epilog="Example: pipeline tokens create district-7 --role tracer --days 30")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="May be given again.",
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="It expires after so many days."
)
def create(name: str, roles: tuple[str, ...], days: int) -> None:
    """Make a token and print it, for the only time. NAME is what the audit log calls its holder: give each person their own."""
    settings = load_settings()
    note = change_note(settings, "tokens create", f"{name}, {' '.join(roles)}, {days} days")
    click.echo(TokenFile(settings.tokens_path).create(name, tuple(map(Role, roles)), days, note))


@command.command(name="list", epilog="Example: pipeline tokens list")
def list_() -> None:
    """Show names, roles and expiry."""
    for each in TokenFile(load_settings().tokens_path).tokens():
        click.echo(f"{each.name:<24} {' '.join(each.roles):<24} until {each.expires_at}")


@command.command(epilog="Example: pipeline tokens revoke district-7")
@click.argument("name")
def revoke(name: str) -> None:
    """Make a token worthless, from the next request on; a live page that it opened is told no more within five minutes."""
    settings = load_settings()
    left = TokenFile(settings.tokens_path).revoke(name, change_note(settings, "tokens revoke", name))
    click.echo(f"{name} is revoked")
    if not left:
        click.echo(
            f"it was the last: nobody gets in by a token; to open aggregates to loopback again remove {settings.tokens_path}"
        )
