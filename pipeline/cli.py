"""The command line's root: finds the command's module, and turns what a user can mend into one sentence."""

import gc
import importlib
import sys
from typing import Final

import click

from pipeline import __version__
from pipeline.errors import UserError
from pipeline.no_pandas import leave_pandas_out
from pipeline.one_line import one_line

#: Command name → the module under `pipeline.commands` that holds it as `command`, and its one-line help.
#: Modules are imported when called, so that `pipeline --help` answers at once.
COMMANDS = {
    "demo": ("demo", "One simulated Sunday of a city through Kafka, Faust and ClickHouse."),
    "broker": ("broker", "Start, stop or look at a real local Apache Kafka."),
    "topics": ("topics", "Create the topics, or check them."),
    "worker": ("worker", "Consume check-ins, compute occupancy, store it."),
    "serve": ("serve", "The live page and the API, without a worker."),
    "simulate": ("simulate", "Make a believable day of check-ins: to a file, or to Kafka."),
    "produce": ("produce", "Send files of scans to Kafka."),
    "replay": ("replay", "Process files of scans without a broker: same decoding, same results."),
    "venues": ("venues", "Load the venue registry."),
    "gateway": ("gateway", "Take scans with raw identifiers over HTTP, pseudonymise them, send them to Kafka."),
    "keys": ("keys", "The keys of pseudonyms: create, list, rotate, destroy, link."),
    "case": ("case", "Report cases."),
    "trace": ("trace", "Whom a case exposed, where, and where it may come from."),
    "query": ("query", "Ask the store in SQL, read-only."),
    "export": ("export", "Views of the store as CSV, NDJSON or Parquet files."),
    "release": ("release", "Numbers that may leave: small ones hidden, or with noise that hides everyone."),
    "model": ("model", "Models of presence: who is really there when most never check out."),
    "verify": ("verify", "Recompute everything from the scans independently, and compare."),
    "audit": ("audit", "Who read what about persons: show the log, and prove it whole."),
    "tokens": ("tokens", "Static tokens for the API: make, list, revoke."),
    "erase": ("erase", "Take a visitor out of the store for good."),
    "retention": ("retention", "Drop what is older than the retention, or prove that nothing is."),
    "config": ("config", "Show the effective settings, secrets hidden."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pipeline.commands.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


#: How many new objects make Python look for cycles among them.
_NEW_OBJECTS: Final = 50_000


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pipeline demo --once",
)
@click.version_option(__version__, prog_name="pipeline")
def cli() -> None:
    """Streaming analytics for QR check-ins: exact occupancy and contact windows, from Kafka into ClickHouse."""


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage."""
    leave_pandas_out()
    # What a command handles is columns: looking for cycles after every 700 new objects took a twentieth of a replay.
    gc.set_threshold(_NEW_OBJECTS, 20, 50)
    try:
        # Without its standalone mode click returns the status of `ctx.exit`, and raises the rest.
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        click.echo(f"pipeline: {one_line(str(error))}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
