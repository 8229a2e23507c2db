"""Files about venues (the registry, head counts), read row by row and judged before anything is done with them."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from pipeline.errors import UserError
from schemas.fields import refusal_detail
from schemas.head_count import HeadCount
from schemas.venue import Venue

_SUFFIXES: Final = (".csv", ".ndjson", ".jsonl")

#: The longest record that the pipeline takes (contract, section 5).
_MOST_BYTES: Final = 65_536

_MOST_SHOWN: Final = 100

#: What a row of a file may be; both have a venue_id.
_Model = type[Venue] | type[HeadCount]


@dataclass(frozen=True, slots=True)
class VenueRow:
    """One row of a file; `line`, from 1, is where it begins.

    `record` is the JSON object to load, and `key` its venue_id, where `refusal` is empty. Otherwise `refusal` says
    "field: rule", without the value.
    """

    line: int
    key: bytes
    record: bytes
    refusal: str = ""


def read_venues(path: Path) -> list[VenueRow]:
    """The rows of a file of the registry, as `_read_rows` has them. Raises UserError where it cannot be read as a whole."""
    return _read_rows(path, Venue, "venues")


def read_head_counts(path: Path) -> list[HeadCount]:
    """The head counts of a file, as `_read_rows` reads it. Raises UserError, also for a row that is none: line and column."""
    rows = _read_rows(path, HeadCount, "head counts")
    if not rows:
        raise UserError(f"{path} holds no head count: a row has venue_id, at (RFC 3339) and persons")
    if refused := refusals(path, rows):
        more = "" if len(refused) == 1 else f" (and {len(refused) - 1:,} more refused)"
        raise UserError(f"{refused[0]}{more}; nothing was calibrated: mend the file")
    return [HeadCount.model_validate_json(row.record) for row in rows]


def _read_rows(path: Path, model: _Model, what: str) -> list[VenueRow]:
    """The rows of a CSV file (with a header; an empty cell is an absent value) or of NDJSON, in their order, each judged.

    Blank lines are no rows; columns that are no field of the model are left out. Raises UserError where the file cannot be
    read as a whole.
    """
    if path.suffix not in _SUFFIXES:
        raise UserError(f"{path} is no file of {what}: its name must end with {', '.join(_SUFFIXES)}")
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                return list(_read_csv(path, text, model))
        with path.open("rb") as lines:
            return [_judge(number, line.strip(), model) for number, line in enumerate(lines, 1) if line.strip()]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_csv(path: Path, text: IO[str], model: _Model) -> Iterator[VenueRow]:
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header, model)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield _judge_cells(line, dict(zip(header, cells, strict=True)), model)
            elif cells:
                yield VenueRow(line, b"", b"", f"has {len(cells)} cells, not the header's {len(header)}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV at line {reader.line_num}: {error}") from None


def _check_header(path: Path, header: list[str], model: _Model) -> None:
    missing = [name for name, field in model.model_fields.items() if field.is_required() and name not in header]
    if missing:
        raise UserError(
            f"{path} lacks the column {', '.join(missing)}: its first line must name the columns, separated by commas; "
            f"known are {', '.join(model.model_fields)}"
        )
    twice = sorted({name for name in header if name in model.model_fields and header.count(name) > 1})
    if twice:
        raise UserError(f"{path} has the column {', '.join(twice)} twice: keep one")


def _judge_cells(line: int, cells: dict[str, str], model: _Model) -> VenueRow:
    values = {name: cell for name, cell in cells.items() if cell and name in model.model_fields}
    # Bytes that are not UTF-8 came through as surrogates: they go back to what they were, to be judged.
    row = _judge(line, json.dumps(values, ensure_ascii=False).encode(errors="surrogateescape"), model)
    if row.refusal:
        return row
    plain = model.model_validate_json(row.record).model_dump_json(exclude_none=True)
    return VenueRow(line, row.key, plain.encode())


def _judge(line: int, record: bytes, model: _Model) -> VenueRow:
    try:
        if len(record) > _MOST_BYTES:
            return VenueRow(line, b"", record, f"longer than {_MOST_BYTES:,} bytes")
        record.decode()
        judged = model.model_validate_json(record)
    except UnicodeDecodeError:
        return VenueRow(line, b"", record, "not UTF-8")
    except ValidationError as error:
        is_json = error.errors()[0]["type"] != "json_invalid"
        return VenueRow(line, b"", record, refusal_detail(model, error) if is_json else "not JSON")
    return VenueRow(line, judged.venue_id.encode(), record)


def refusals(path: Path, rows: Iterable[VenueRow]) -> list[str]:
    """A sentence for each refused row: file, line, field, rule; after a hundred, how many more."""
    refused = [f"{path}, line {row.line}: {row.refusal}" for row in rows if row.refusal]
    more = len(refused) - _MOST_SHOWN
    return refused if more <= 0 else [*refused[:_MOST_SHOWN], f"{path}: {more:,} more rows are refused"]
