"""`pipeline produce`: send files of scans to Kafka."""

import sys
from pathlib import Path

import click

from pipeline.errors import UserError
from pipeline.progress import progress_bar
from pipeline.settings import load_settings


@click.command(epilog="Example: pipeline produce monday.ndjson.zst tuesday.parquet")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE…", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def command(files: tuple[Path, ...]) -> None:
    """Send files of scans to the topic check-ins: NDJSON (plain, .gz, .zst) or Parquet.

    Lines are sent byte for byte, malformed ones too (the worker puts those into dead-letters), with the venue as the key
    and now as the timestamp. Blank lines are skipped. Sending a file twice changes nothing: scans are a set.
    """
    from pipeline.produce import ScanProducer, produce_files  # the client takes a moment to load
    from pipeline.topics import CHECK_INS

    kafka = load_settings().kafka_access
    with (
        progress_bar("sending", sum(path.stat().st_size for path in files)) as advance,
        ScanProducer(kafka, CHECK_INS) as producer,
    ):
        try:
            done = produce_files(producer, files, advance)
        except KeyboardInterrupt:
            producer.flush()
            click.echo(f"pipeline: interrupted; {producer.confirmed:,} scans are in Kafka at {kafka.address}", err=True)
            sys.exit(130)
    many = "file" if done.files == 1 else "files"
    rate = done.records / max(done.seconds, 1e-9)
    click.echo(f"sent {done.records:,} scans from {done.files} {many} in {done.seconds:.1f} s ({rate:,.0f}/s)")
    if done.too_large:
        raise UserError(
            f"{done.too_large:,} lines are more than the topic {CHECK_INS} takes and were left out; "
            "raise its max.message.bytes, or mend the files"
        )
