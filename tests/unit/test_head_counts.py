"""Files of head counts: what is wrong with them is said with line and column, before anything is done."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.venues import read_head_counts
from schemas.head_count import HeadCount

_HEADER = "venue_id,at,persons\n"
_GOOD = "mall-1,2021-09-19T10:15:00+07:00,312\n"


def _said(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_head_counts(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("counts.csv", "persons,note,venue_id,at\n312,gate 4,mall-1,2021-09-19T10:15:00+07:00\n"),
        ("counts.ndjson", '{"venue_id":"mall-1","at":"2021-09-19T03:15:00Z","persons":312,"gate":4}\n'),
    ],
)
def test_csv_and_ndjson_say_the_same(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_head_counts(tmp_path / name) == [HeadCount(venue_id="mall-1", at=1_632_021_300_000, persons=312)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("mall-1,2021-09-19 10:15,312", "at: not an RFC 3339 time with an offset"),
        ("mall-1,2021-09-19T10:15:00,312", "at: not an RFC 3339 time with an offset"),
        ("mall-1,2021-09-19T10:15:00Z,-1", "persons: "),
        ("mall-1,2021-09-19T10:15:00Z,many", "persons: must be a number"),
        ("mall 1,2021-09-19T10:15:00Z,3", "venue_id: must be a string of 1 to 64 of A-Za-z0-9._:-"),
        ("mall-1,2021-09-19T10:15:00Z", "has 2 cells, not the header's 3"),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(row: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(f"{_HEADER}{_GOOD}{row}\n")
    assert _said(path).startswith(f"{path}, line 3: {said}")


def test_several_bad_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(f"{_HEADER},,\n{_GOOD},,\n,,\n")
    assert "line 2: venue_id: is missing (and 2 more refused)" in _said(path)


def test_a_missing_column_or_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("venue_id,at\nmall-1,2021-09-19T10:15:00Z\n")
    assert "lacks the column persons" in _said(path)
    path.write_text(_HEADER)
    assert "holds no head count" in _said(path)
    assert "must end with .csv" in _said(tmp_path / "counts.xls")
