"""A file's records are the same whatever holds them, and a damaged file is named, never guessed at."""

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import files
from pipeline.errors import UserError
from pipeline.files import read_records

LINES = [b'{"event_id":"e-%d","venue_id":"v","party_size":%d}' % (n, n % 50 + 1) for n in range(50_000)]


def records(path: Path) -> list[bytes]:
    return [record for chunk in read_records(path) for record in chunk]


def write(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content, 1))
    elif path.suffix == ".zst":
        path.write_bytes(pa.compress(content, "zstd", asbytes=True))
    else:
        path.write_bytes(content)
    return path


def parquet(path: Path, **columns: object) -> list[dict[str, object]]:
    pq.write_table(pa.table(columns), path)
    return [json.loads(record) for record in records(path)]


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz", ".ndjson.zst"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_comes_once_in_order_whatever_the_compression(tmp_path: Path, suffix: str, end: bytes) -> None:
    path = write(tmp_path / f"scans{suffix}", b"\n".join(LINES) + end)
    assert records(path) == LINES


def test_the_first_bytes_tell_the_kind_of_a_file_with_another_name(tmp_path: Path) -> None:
    for suffix in (".gz", ".zst"):
        write(tmp_path / f"scans{suffix}", b"\n".join(LINES)).rename(tmp_path / "scans")
        assert records(tmp_path / "scans") == LINES
    pq.write_table(pa.table({"venue_id": ["v"]}), tmp_path / "scans")
    assert records(tmp_path / "scans") == [b'{"venue_id":"v"}']


def test_compressed_files_that_were_appended_are_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "days.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert records(path) == [b"one", b"two"]


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=20), st.integers(1, 9))
def test_only_a_line_feed_ends_a_line_and_blocks_do_not_matter(lines: list[bytes], block: int) -> None:
    # Also "\r" and the separators that str.splitlines knows stay where they are.
    expected = [line for line in lines if line.strip(b" \t\r")]
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(files, "_BLOCK_BYTES", block)
        path = write(Path(folder, "scans.ndjson"), b"\n".join([*lines, " \u2028\x85".encode()]))
        assert records(path) == [*expected, " \u2028\x85".encode()]


def test_chunks_are_of_some_twenty_thousand_records(tmp_path: Path) -> None:
    scan = (
        b'{"event_id":"e-0123456789","event_type":"check_in","venue_id":"v-000001","visitor_id":"p-0123456789abcdef",'
    )
    scan += b'"occurred_at":"2021-09-19T10:15:30.250Z"}'
    sizes = [len(chunk) for chunk in read_records(write(tmp_path / "scans.zst", (scan + b"\n") * 100_000))]
    assert 15_000 < sizes[0] < 30_000
    assert sum(sizes) == 100_000


@pytest.mark.parametrize("suffix", [".ndjson", ".gz", ".zst", ".parquet"])
def test_progress_ends_at_the_size_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scans{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"venue_id": ["v"] * 50_000}), path)
    else:
        write(path, b"\n".join(LINES))
    told: list[int] = []
    for _ in read_records(path, told.append):
        pass
    assert sum(told) == path.stat().st_size
    assert min(told) >= 0


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0.05, 0.6, 0.999])
def test_a_cut_file_is_named_with_the_line_it_is_cut_at(tmp_path: Path, suffix: str, kept: float) -> None:
    path = write(tmp_path / f"scans{suffix}", b"\n".join(LINES * 4))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match=rf"scans{suffix} is cut short or damaged.* beyond line [\d,]+; fetch it again"):
        records(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "scans.zst", b"\n".join(LINES))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"scans.zst is cut short or damaged"):
        records(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".parquet"])
def test_an_empty_file_that_should_be_compressed_is_not_taken_for_no_scans(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scans{suffix}"
    path.touch()
    with pytest.raises(UserError, match=r"is empty"):
        records(path)


def test_an_empty_ndjson_file_holds_no_scans(tmp_path: Path) -> None:
    assert records(write(tmp_path / "scans.ndjson", b"")) == []


def test_a_cut_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scans.parquet"
    pq.write_table(pa.table({"venue_id": ["v"] * 10_000}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"scans.parquet is cut short or damaged: .* after row 0"):
        records(path)


def test_a_parquet_file_damaged_inside_is_named_with_the_row(tmp_path: Path) -> None:
    path = tmp_path / "scans.parquet"
    names = [f"v-{n * 7919 % 100_003}" for n in range(100_000)]
    pq.write_table(pa.table({"venue_id": names}), path, row_group_size=40_000, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2_000] = b"\xff" * 2_000
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as Parquet after row 40,000"):
        records(path)


def test_a_missing_file_a_folder_and_an_endless_line_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none.ndjson cannot be read: No such file"):
        records(tmp_path / "none.ndjson")
    with pytest.raises(UserError, match=r"is not a file"):
        records(tmp_path)
    monkeypatch.setattr(files, "_BLOCK_BYTES", 10)
    monkeypatch.setattr(files, "_LONGEST_LINE", 50)
    with pytest.raises(UserError, match=r"scans.ndjson: line 2 is longer than"):
        records(write(tmp_path / "scans.ndjson", b"one\n" + b"x" * 100))


def test_a_parquet_row_becomes_the_json_object_of_a_scan(tmp_path: Path) -> None:
    assert parquet(
        tmp_path / "scans.parquet",
        event_id=["e-1", "e-2"],
        event_type=pa.array(["check_in", "check_out"]).dictionary_encode(),
        venue_id=pa.array(["v-1", "v-2"], pa.large_string()),
        visitor_id=["p-1", "p-2"],
        occurred_at=["2021-09-19T10:15:30.250+07:00", "2021-09-19T10:15:30Z"],
        party_size=pa.array([3, None], pa.int8()),
        source=["gate", None],
        temperature=[36.6, 36.7],
    ) == [
        {
            "event_id": "e-1",
            "event_type": "check_in",
            "venue_id": "v-1",
            "visitor_id": "p-1",
            "occurred_at": "2021-09-19T10:15:30.250+07:00",
            "party_size": 3,
            "source": "gate",
        },
        {
            "event_id": "e-2",
            "event_type": "check_out",
            "venue_id": "v-2",
            "visitor_id": "p-2",
            "occurred_at": "2021-09-19T10:15:30Z",
        },
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Jakarta"])
def test_a_timestamp_is_the_same_instant_in_utc_cut_to_milliseconds(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    at = datetime(2021, 9, 19, 10, 15, 30, 250_999, UTC)
    moments = pa.array([at, None], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone), safe=False)
    first, second = parquet(tmp_path / "scans.parquet", venue_id=["v", "v"], occurred_at=moments)
    assert first["occurred_at"] in ("2021-09-19T10:15:30.250Z", *(["2021-09-19T10:15:30.000Z"] * (unit == "s")))
    assert "occurred_at" not in second


def test_a_timestamp_before_1970_is_cut_backwards(tmp_path: Path) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    (row,) = parquet(tmp_path / "scans.parquet", occurred_at=pa.array([at], pa.timestamp("us", "UTC")))
    assert row["occurred_at"] == "1969-12-31T23:59:59.999Z"


def test_values_that_json_must_escape_stay_themselves(tmp_path: Path) -> None:
    odd = ['"', "\\", "line\nfeed", "\x00", "é", "\u2028", None]
    rows = parquet(tmp_path / "scans.parquet", venue_id=odd, visitor_id=["plain"] * 7, party_size=[1] * 7)
    assert [row.get("venue_id") for row in rows] == odd


def test_columns_of_other_types_reach_the_judge_as_they_are(tmp_path: Path) -> None:
    day = datetime(2021, 9, 19, tzinfo=timezone(timedelta(hours=7))).date()
    rows = parquet(
        tmp_path / "scans.parquet",
        venue_id=[["a", "list"]],
        occurred_at=pa.array([day]),
        party_size=pa.array([1.5]),
        source=pa.array([True]),
    )
    assert rows == [{"venue_id": ["a", "list"], "occurred_at": "2021-09-19", "party_size": 1.5, "source": True}]


@pytest.mark.parametrize("beside", ["plain", 'a "quote"'])
def test_text_that_is_not_utf_8_goes_through_for_the_pipeline_to_refuse(tmp_path: Path, beside: str) -> None:
    path = tmp_path / "scans.parquet"
    pq.write_table(pa.table({"venue_id": pa.array([b"\xff\xfe"]), "visitor_id": [beside]}), path)
    assert records(path) == [b'{"venue_id":"\xff\xfe","visitor_id":%s}' % json.dumps(beside).encode()]


def test_a_parquet_file_of_something_else_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"temperature": [36.6]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"other.parquet has none of a scan's columns: event_id, "):
        records(tmp_path / "other.parquet")
