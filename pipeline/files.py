"""Files of scans, read as the records that they hold: NDJSON (plain, gzip, zstd) and Parquet alike."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.values import Values, split_lines
from pipeline.errors import UserError
from schemas.scan import Scan

#: Rows of a Parquet chunk, and about the lines of an NDJSON chunk.
_CHUNK_RECORDS: Final = 20_000
#: About 20,000 lines of 150 bytes.
_BLOCK_BYTES: Final = 3 << 20
#: A line longer than this is no scan, and the file hardly NDJSON; it would have to be held in memory whole.
_LONGEST_LINE: Final = 64 << 20

_CODECS: Final = {".gz": "gzip", ".zst": "zstd"}
_PLAIN: Final = (".ndjson", ".jsonl", ".json")
_MAGIC: Final = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"PAR1": ".parquet"}

_FIELDS: Final = tuple(Scan.model_fields)

#: The bytes that JSON does not take as they are within a string.
_ESCAPED: Final = np.zeros(256, np.bool_)
_ESCAPED[[*range(0x20), *b'"\\']] = True


def _no_progress(_bytes: int) -> None: ...


def read_records(path: Path, progress: Callable[[int], None] = _no_progress) -> Iterator[Values]:
    r"""The records of a file in its order, some 20,000 at a time; `progress` is told of every number of file bytes read.

    A record of NDJSON is a line as it stands, malformed or not, split at b"\n" alone; blank lines are none. A record of
    Parquet is a JSON object of the row's fields that the contract names; a null is left out, and a timestamp without a
    zone is taken as UTC. The name's end says which it is (.ndjson, .gz, .zst, .parquet), or else the first bytes.

    Raises UserError that names the file and the place beyond which it cannot be read; what stands well before that place
    has been yielded.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file")
        kind = _kind(path)
        yield from (
            _read_parquet(path, progress) if kind == ".parquet" else _read_lines(path, _CODECS.get(kind), progress)
        )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix in (*_CODECS, ".parquet"):
        if not start:
            raise UserError(f"{path} is empty: not even the start of a {path.suffix} file; fetch it again")
        return path.suffix
    if path.suffix in _PLAIN:
        return ""
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")


def _read_lines(path: Path, codec: str | None, progress: Callable[[int], None]) -> Iterator[Values]:
    count = 0
    unfinished: list[bytes] = []  # the pieces of the line that goes on in the next block
    unfinished_bytes = 0
    try:
        for block in _blocks(path, codec, progress):
            end = block.rfind(b"\n") + 1
            if not end:
                unfinished.append(block)
                unfinished_bytes += len(block)
                if unfinished_bytes > _LONGEST_LINE:
                    raise UserError(f"{path}: line {count + 1:,} is longer than 64 MiB; this is not NDJSON")
                continue
            records, lines = split_lines([*unfinished, block[:end]])
            unfinished = [block[end:]]
            unfinished_bytes = len(unfinished[0])
            count += lines
            if records:
                yield records
    except OSError as error:
        if codec is None or error.errno is not None:
            raise
        # Arrow's decompressors raise errors without a number.
        raise UserError(
            f"{path} is cut short or damaged: it cannot be decompressed as {codec} beyond line {count:,}; fetch it again"
        ) from None
    if records := split_lines([*unfinished, b"\n"])[0]:
        yield records


def _blocks(path: Path, codec: str | None, progress: Callable[[int], None]) -> Iterator[bytes]:
    with pa.OSFile(str(path)) as raw:
        stream = pa.CompressedInputStream(raw, codec) if codec else raw
        told = 0
        while block := stream.read(_BLOCK_BYTES):
            progress(raw.tell() - told)
            told = raw.tell()
            yield block


def _read_parquet(path: Path, progress: Callable[[int], None]) -> Iterator[Values]:
    size = path.stat().st_size
    row = told = 0
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in _FIELDS if name in file.schema_arrow.names]
            if not names:
                raise UserError(f"{path} has none of a scan's columns: {', '.join(_FIELDS)}")
            total = file.metadata.num_rows
            for batch in file.iter_batches(_CHUNK_RECORDS, columns=names):
                records = _as_json(batch)
                row += len(records)
                progress(size * row // total - told)
                told = size * row // total
                yield Values.of(records)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is cut short or damaged: it cannot be read as Parquet after row {row:,} ({reason}); fetch it again"
        ) from None


def _as_json(batch: Any) -> list[bytes]:
    """Each row as one JSON object: put together by columns, or row by row where a value needs more than quotes."""
    columns = [_plain(column) for column in batch.columns]
    fields = []
    for name, column in zip(batch.schema.names, columns, strict=True):
        if pa.types.is_string(column.type):
            if _needs_escapes(column):
                return _as_json_by_row(batch.schema.names, columns)
            fields.append(pc.binary_join_element_wise(f'"{name}":"', column, '"', ""))
        elif pa.types.is_primitive(column.type):
            fields.append(pc.binary_join_element_wise(f'"{name}":', column.cast(pa.string()), ""))
        else:
            return _as_json_by_row(batch.schema.names, columns)
    joined = pc.binary_join_element_wise(*fields, ",", null_handling="skip")
    records: list[bytes] = pc.binary_join_element_wise("{", joined, "}", "").view(pa.binary()).to_pylist()
    return records


def _plain(column: Any) -> Any:
    """The column with its text as Arrow strings and its times as RFC 3339, cut to milliseconds as the contract says."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_timestamp(kind):
        # Without a zone Arrow writes times twenty times as fast; either way they are kept in UTC.
        cut = pc.floor_temporal(column.cast(pa.timestamp(kind.unit)), unit="millisecond").cast(pa.timestamp("ms"))
        text = pc.binary_replace_slice(cut.cast(pa.string()), 10, 11, "T")
        return pc.binary_join_element_wise(text, "Z", "")
    if pa.types.is_binary(kind):
        return column.view(pa.string())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column


def _needs_escapes(column: Any) -> bool:
    data = column.buffers()[2]
    return data is not None and bool(_ESCAPED[np.frombuffer(data, np.uint8)].any())


def _as_json_by_row(names: list[str], columns: list[Any]) -> list[bytes]:
    # Parquet's strings are not always UTF-8: such bytes go through as they are, for the pipeline to refuse.
    values = [
        [text and text.decode(errors="surrogateescape") for text in column.view(pa.binary()).to_pylist()]
        if pa.types.is_string(column.type)
        else column.to_pylist()
        for column in columns
    ]
    rows = (
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*values, strict=True)
    )
    return [
        json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="surrogateescape")
        for row in rows
    ]
