"""The key of a record is what a JSON reader finds, found faster."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.produce import venue_key

ODD_TEXT = st.sampled_from(["v-1", 'a"b', "\\", "venue_id", '"venue_id":"x"', "é", "{", "", "a b"])
VALUES = st.recursive(
    ODD_TEXT | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["venue_id", "x"]), inner),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.sampled_from(["venue_id", "visitor_id", "note", "venue_id2"]), VALUES, max_size=4)


@given(OBJECTS, st.booleans(), st.sampled_from([(",", ":"), (", ", " : "), ("\t,", ":\r ")]))
@example({"note": {"venue_id": "inner"}, "venue_id": "outer"}, True, (",", ":"))
@example({"note": {"venue_id": "inner"}}, True, (",", ":"))
@example({"venue_id": "v-1", "note": '"venue_id":"x"'}, True, (",", ":"))
def test_the_key_is_the_venue_that_json_reads(record: dict[str, Any], ascii_only: bool, marks: tuple[str, str]) -> None:
    venue = record.get("venue_id")
    line = json.dumps(record, ensure_ascii=ascii_only, separators=marks).encode()
    assert venue_key(line) == (venue.encode() if isinstance(venue, str) else None)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"venue_id":"first","venue_id":"last"}', b"last"),
        (rb'{"venue\u005fid":"v-1"}', b"v-1"),
        (rb'{"venue_id":"v\u002d1"}', b"v-1"),
        (b"not json", None),
        (b'{"venue_id":7}', None),
        (b'{"visitor_id":"p"}', None),
        (b'["venue_id","v-1"]', None),
        (b"\xff\xfe", None),
        (rb'{"venue_id":"\ud800"}', None),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_odd_records_have_the_key_of_a_json_reader_or_none(line: bytes, key: bytes | None) -> None:
    assert venue_key(line) == key
