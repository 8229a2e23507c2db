"""One read-only question to the store, its answer as an aligned table, CSV, JSON lines or Parquet.

Nothing can be changed through here, for two reasons that do not depend on each other: ClickHouse's own parser must
find exactly one read statement in the text, without a place to write to, and the connection is put into `readonly = 1`,
which also refuses other settings and table functions that reach outside the store (file, url, remote, executable).
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.cells import cell_len

from pipeline.errors import UserError
from pipeline.one_line import one_line

Format = Literal["table", "csv", "json", "parquet"]
FileFormat = Literal["csv", "json", "parquet"]
#: One value as ClickHouse writes it in text; None for NULL.
Cell = str | None

_DATABASE: Final = "checkins"
_READS: Final = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXISTS", "EXPLAIN")
#: A spreadsheet takes a cell that begins with one of these for a formula: also in the wide forms of East Asian text.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
#: The widths of a table's columns come from its first rows, so that the others can stream.
_ROWS_MEASURED: Final = 1_000
_CHUNK_BYTES: Final = 1 << 20

_NUMBER_TYPE: Final = re.compile(r"(?:Nullable\(|LowCardinality\()*(?:U?Int|B?Float|Decimal)")
_TSV_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_TSV_ESCAPED: Final = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_QUOTED: Final = re.compile(r"[`']([\w.]+)[`']")
_WORD: Final = re.compile(r"[\w.]+")
_UNTOLD: Final = "ClickHouse's own words are not shown, as they may repeat what is stored about persons"
_REASON_ENDS: Final = re.compile(
    r"\. Expected one of|[.:]? In scope | \(version |: [Ww]hile |: \(in query| \([A-Z_]+\)$"
)


def answer(client: Client, sql: str, form: Format, out: BinaryIO, *, discreet: bool = False) -> None:
    """Run one read statement and write its answer to `out`, in UTF-8 but for Parquet; names are those of `checkins`.

    `client` can only read from then on. Times are UTC. CSV puts an apostrophe before text that a spreadsheet would take
    for a formula; JSON is one object a line. Text formats stream; Parquet is held in memory once. Raises UserError with
    ClickHouse's own reason, `discreet`: with no value that is stored, or when the text is anything but one read statement.
    """
    write_answer(client, one_read(client, sql), form, out, discreet=discreet)


def one_read(client: Client, sql: str) -> str:
    """The one read statement in the text, as ClickHouse itself spells it; `client` can only read from then on.

    Raises UserError with ClickHouse's own reason, or when the text is anything but one read statement. Nothing was read then.
    """
    with explained():
        make_read_only(client)
        return read_statement(client, sql)


def write_answer(client: Client, statement: str, form: Format, out: BinaryIO, *, discreet: bool = False) -> None:
    """Run a statement of `one_read` and write its answer as `answer` does. Raises what it raises."""
    with explained(statement if discreet else None):
        if form in ("json", "parquet"):
            for chunk in _chunks(client, statement, "JSONEachRow" if form == "json" else "Parquet"):
                out.write(chunk)
            return
        names, types, rows = _rows(client, statement)
        write = _write_csv if form == "csv" else _write_table
        with _text(out) as text:
            write(text, names, _are_numbers(types), rows)


def write_parts(
    client: Client, selects: Sequence[str], form: FileFormat, out: BinaryIO, done: Callable[[], None]
) -> int:
    """Write the answers to SELECTs with the same columns, at least one, as one file; returns the number of rows.

    Nothing but trusted SQL is for here. `done` is called after each. Formats are as in `answer`; of Parquet one answer at a time
    is held in memory. Raises UserError with ClickHouse's own reason.
    """
    with explained():
        if form == "parquet":
            return _write_parquet_parts(client, selects, out, done)
        if form == "json":
            count = 0
            for select in selects:
                for chunk in _chunks(client, select, "JSONEachRow"):
                    out.write(chunk)
                    count += chunk.count(b"\n")
                done()
            return count
        names, types = _columns(client, selects[0])
        counted = _Counted()
        with _text(out) as text:
            _write_csv(text, names, _are_numbers(types), counted.all(_parts(client, selects, done)))
        return counted.count


def _write_parquet_parts(client: Client, selects: Sequence[str], out: BinaryIO, done: Callable[[], None]) -> int:
    count = 0
    with ExitStack() as open_:
        writer = None
        for select in selects:
            part = pq.read_table(pa.BufferReader(client.raw_query(select, fmt="Parquet")))
            writer = writer or open_.enter_context(pq.ParquetWriter(out, part.schema, compression="zstd"))
            writer.write_table(part)
            count += part.num_rows
            done()
    return count


def _parts(client: Client, selects: Iterable[str], done: Callable[[], None]) -> Iterator[list[Cell]]:
    for select in selects:
        yield from map(_cells, _lines(client, select, "TabSeparated"))
        done()


@dataclass(slots=True)
class _Counted:
    count: int = 0

    def all(self, rows: Iterable[list[Cell]]) -> Iterator[list[Cell]]:
        for row in rows:
            self.count += 1
            yield row


@contextmanager
def explained(discreet: str | None = None) -> Iterator[None]:
    """What ClickHouse refuses in the block becomes a UserError with its own reason.

    `discreet`: a statement about persons, of whose errors only the kind is told: their text may repeat values that are stored.
    """
    try:
        yield
    except ClickHouseError as error:
        told = reason(error) if discreet is None else f"{kind(error, discreet)}; {_UNTOLD}"
        raise UserError(f"the query failed: {told}") from None


def kind(error: ClickHouseError, statement: str = "") -> str:
    """The name and code of an error, and what it is about where that is a word of the statement itself."""
    code = getattr(error, "code", None)
    name = f"{getattr(error, 'name', None) or 'an error'} (code {code})" if code else "an error without a code"
    about = _QUOTED.search(str(error))
    return f"{name} at `{about[1]}`" if about and about[1] in _WORD.findall(statement) else name


def write_table(table: pa.Table, form: Format, out: BinaryIO) -> None:
    """Write rows that were computed here in the same forms as an answer of the store's."""
    if form == "parquet":
        pq.write_table(table, out)
        return
    with _text(out) as text:
        if form == "json":
            for row in table.to_pylist():
                text.write(json.dumps(row, default=_spelt, ensure_ascii=False, separators=(",", ":")) + "\n")
            return
        numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in table.schema.types]
        rows = ([None if cell is None else _spelt(cell) for cell in row.values()] for row in table.to_pylist())
        write = _write_csv if form == "csv" else _write_table
        write(text, table.column_names, numbers, rows)


@contextmanager
def _text(out: BinaryIO) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        yield text
    finally:
        text.detach()


def _spelt(cell: object) -> str:
    """As ClickHouse writes it: times in UTC to the millisecond."""
    return f"{cell:%F %T}.{cell.microsecond // 1000:03}" if isinstance(cell, datetime) else str(cell)


def make_read_only(client: Client) -> None:
    """From here on the connection only reads, whatever is sent over it; unqualified names are those of `checkins`."""
    client.database = _DATABASE
    # A connection that is already read-only refuses to have that set again.
    if client.query("SELECT toString(getSetting('readonly'))").result_rows[0][0] != "1":
        client.set_client_setting("readonly", "1")


def read_statement(client: Client, sql: str) -> str:
    """The one read statement in `sql`, in ClickHouse's own spelling: without comments or a closing semicolon.

    Raises UserError for more than one statement, one that is not a read, and one with INTO OUTFILE or FORMAT.
    """
    spelled = client.query("SELECT formatQuery({sql:String})", parameters={"sql": sql}).result_rows[0][0]
    assert isinstance(spelled, str)
    if not spelled.lstrip("(\n ").startswith(_READS):
        first_word = spelled.split(maxsplit=1)[0]
        raise UserError(f"query only reads: {first_word} is refused (use {', '.join(_READS[:-1])} or {_READS[-1]})")
    # A statement that already says where its output goes cannot be told so again: the parser itself finds it.
    probe = "SELECT formatQueryOrNull({sql:String} || ' INTO OUTFILE \\'probe\\'') IS NULL"
    if client.query(probe, parameters={"sql": spelled}).result_rows[0][0]:
        raise UserError("INTO OUTFILE and FORMAT are refused in a query: use --output and --format instead")
    return spelled


def _chunks(client: Client, statement: str, form: str) -> Iterator[bytes]:
    with _stream(client, statement, form) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _rows(client: Client, statement: str) -> tuple[list[str], list[str], Iterator[list[Cell]]]:
    """Column names, their types, and the rows as they come."""
    if selects(statement):
        # The embedded engine streams only formats without a header, so the header is asked for first.
        return *_columns(client, statement), map(_cells, _lines(client, statement, "TabSeparated"))
    rows = map(_cells, _lines(client, statement, "TabSeparatedWithNamesAndTypes"))
    names, types = next(rows, []), next(rows, [])
    return [str(name) for name in names], [str(type_) for type_ in types], rows


def _columns(client: Client, select: str) -> tuple[list[str], list[str]]:
    described = client.raw_query(f"DESCRIBE TABLE (\n{select}\n)", fmt="TabSeparated").decode()
    columns = [_cells(line) for line in described.splitlines()]
    return [str(column[0]) for column in columns], [str(column[1]) for column in columns]


def _are_numbers(types: Iterable[str]) -> list[bool]:
    return [_NUMBER_TYPE.match(type_) is not None for type_ in types]


def _lines(client: Client, statement: str, form: str) -> Iterator[str]:
    with _stream(client, statement, form) as stream:
        for line in stream:
            yield line.decode("utf-8", errors="replace").removesuffix("\n")


def _stream(client: Client, statement: str, form: str) -> io.BufferedReader:
    # The embedded engine streams nothing but a SELECT; the other reads are short.
    raw: Any = (
        client.raw_stream(statement, fmt=form)
        if selects(statement)
        else io.BytesIO(client.raw_query(statement, fmt=form))
    )
    if hasattr(raw, "auto_close"):
        # A server's answer (urllib3) would close itself when it has been read, and the buffer fail for that.
        raw.auto_close = False
    # Reading lines through a buffer is fifty times faster than from the engine's own stream.
    return io.BufferedReader(raw, _CHUNK_BYTES)


def selects(statement: str) -> bool:
    """Whether a statement, as ClickHouse spells it, answers with the rows of a SELECT."""
    return statement.lstrip("(\n ").startswith(("SELECT", "WITH"))


def _cells(line: str) -> list[Cell]:
    return [None if cell == r"\N" else _TSV_ESCAPE.sub(_unescape, cell) for cell in line.split("\t")]


def _unescape(match: re.Match[str]) -> str:
    return _TSV_ESCAPED.get(match[1], match[1])


def _write_csv(text: io.TextIOBase, names: list[str], numbers: list[bool], rows: Iterable[list[Cell]]) -> None:
    # The writer quotes a carriage return only where its own line ends hold one.
    writer = csv.writer(_UnixLines(text), lineterminator="\r\n")
    writer.writerow(map(_harmless, names))
    for row in rows:
        writer.writerow(cell if number else _harmless(cell) for cell, number in zip(row, numbers, strict=False))


@dataclass(frozen=True, slots=True)
class _UnixLines:
    text: io.TextIOBase

    def write(self, line: str) -> int:
        return self.text.write(line[:-2] + "\n")


def _harmless(cell: Cell) -> Cell:
    return f"'{cell}" if cell is not None and cell.startswith(_FORMULA_STARTS) else cell


def _write_table(text: io.TextIOBase, names: list[str], numbers: list[bool], rows: Iterable[list[Cell]]) -> None:
    header = [_printable(name) for name in names]
    shown = ([_printable(cell) for cell in row] for row in rows)
    first = list(islice(shown, _ROWS_MEASURED))
    widths = [max(map(cell_len, column)) for column in zip(header, *first, strict=False)]
    for row in chain([header, ["-" * width for width in widths]], first, shown):
        padded = (
            " " * (width - cell_len(cell)) + cell if number else cell + " " * (width - cell_len(cell))
            for cell, width, number in zip(row, widths, numbers, strict=False)
        )
        text.write("  ".join(padded).rstrip() + "\n")


def _printable(cell: Cell) -> str:
    # A value from outside must not move the cursor or recolour the terminal.
    return "NULL" if cell is None else one_line(cell)


def reason(error: ClickHouseError) -> str:
    """ClickHouse's first line without its code, the echoed query, the parser's word list and the server's version."""
    lines = str(error).rsplit("DB::Exception: ", 1)[-1].strip().splitlines()
    return _REASON_ENDS.split(lines[0] if lines else "no reason given", maxsplit=1)[0].rstrip(".: ")
