"""A simulated day's files: lines of scans, the venue registry, the truth."""

import csv
import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from schemas.venue import Venue

#: How a file of scans may end.
SCAN_SUFFIXES: Final = (".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet")

#: gzip's level: three times as fast as the usual 6, for files a tenth larger.
_GZIP_LEVEL: Final = 2


@contextmanager
def open_lines(path: Path) -> Iterator[Any]:
    """A binary file to write lines to, compressed as its suffix says; the same lines give the same bytes.

    However the block ends, the file is closed such that what was written can be read. Raises UserError if it cannot be
    written.
    """
    with _explained(path), path.open("wb", buffering=1 << 20) as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as file:
                yield file
        elif path.suffix == ".zst":
            with pa.CompressedOutputStream(raw, "zstd") as file:
                yield file
        else:
            yield raw


@contextmanager
def open_table(path: Path, schema: Any) -> Iterator[Any]:
    """A pyarrow ParquetWriter; however the block ends, the file is whole. Raises UserError if it cannot be written."""
    with _explained(path), pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer


def write_truth(path: Path, schema: Any, tables: Iterable[Any]) -> None:
    """Write the tables as one Parquet file, which appears when it is complete."""
    with _appearing(path) as unfinished, open_table(unfinished, schema) as writer:
        for table in tables:
            writer.write_table(table)


def write_venues(path: Path, venues: Iterable[Venue]) -> None:
    """Write the registry as CSV or NDJSON, as the suffix says; the file appears when it is complete."""
    with _appearing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            _write_csv(file, venues)
        else:
            file.writelines(f"{venue.model_dump_json(exclude_none=True)}\n" for venue in venues)


def _write_csv(file: IO[str], venues: Iterable[Venue]) -> None:
    writer = csv.DictWriter(file, list(Venue.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(venue.model_dump() for venue in venues)


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with _explained(path):
            yield unfinished
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
