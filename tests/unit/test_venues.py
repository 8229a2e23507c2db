"""`pipeline venues load`: every row is judged first, and what is loaded is what the file says."""

import csv
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, TopicPartition

from pipeline import produce
from pipeline.cli import cli
from pipeline.errors import UserError
from pipeline.venues import read_venues, refusals
from schemas.venue import Venue

FULL = {
    "venue_id": "mall-0042",
    "name": 'Taman "Anggrek", é\n2',
    "category": "mall",
    "capacity": 5000,
    "area": "31.73",
    "latitude": -6.1785,
    "longitude": 106.7922,
    "timezone": "Asia/Jakarta",
    "air_changes_per_hour": 6.0,
    "floor_area_m2": 130000.0,
}
BARE = {"venue_id": "kiosk-7", "name": "Kiosk 7", "category": "minimarket"}
HEADER = "venue_id,name,category,capacity,latitude,timezone"

#: A row of a CSV file, and what is said of it.
BAD_ROWS = {
    ",Kiosk,minimarket,,,": "venue_id: is missing",
    "kiosk 7,Kiosk,minimarket,,,": "venue_id: must be a string of 1 to 64 of A-Za-z0-9._:-",
    "kiosk-7,,minimarket,,,": "name: is missing",
    f"kiosk-7,{'x' * 201},minimarket,,,": "name: must be 1 to 200 characters",
    "kiosk-7,Kiosk,mini market,,,": "category: must be a string of 1 to 64 of A-Za-z0-9._:-",
    "kiosk-7,Kiosk,minimarket,0,,": "capacity: Input should be greater than or equal to 1",
    "kiosk-7,Kiosk,minimarket,many,,": "capacity: must be a number",
    "kiosk-7,Kiosk,minimarket,,91,": "latitude: Input should be less than or equal to 90",
    "kiosk-7,Kiosk,minimarket,,nan,": "latitude: must be a number",
    "kiosk-7,Kiosk,minimarket,,,Mars/Olympus": "timezone: must be an IANA time zone such as Asia/Jakarta",
    "kiosk-7,Kiosk,minimarket": "has 3 cells, not the header's 6",
    "kiosk-7,Kiosk, Inc.,minimarket,,,": "has 7 cells, not the header's 6",
    f"kiosk-7,{'x' * 70_000},minimarket,,,": "longer than 65,536 bytes",
    "kiosk-7,Caf\udce9,minimarket,,,": "not UTF-8",
}


Record = tuple[bytes | None, bytes]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """What was sent, to a producer that only remembers."""
    records: list[Record] = []

    class Recorder:
        def __init__(self, _address: str, topic: str) -> None:
            assert topic == "venues"

        def send(self, key: bytes | None, value: bytes) -> None:
            records.append((key, value))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(produce, "ScanProducer", Recorder)
    return records


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


def write_csv(path: Path, *venues: dict[str, Any], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, [*Venue.model_fields, "remark"])
        writer.writeheader()
        writer.writerows({"remark": "opened in May", **venue} for venue in venues)
    return path


def load(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["venues", "load", *map(str, arguments)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_file_gives_the_venues_that_ndjson_gives(tmp_path: Path, encoding: str) -> None:
    from_csv = read_venues(write_csv(tmp_path / "v.csv", FULL, BARE, encoding=encoding))
    from_lines = read_venues(write(tmp_path / "v.ndjson", f"{json.dumps(FULL)}\n\n  \n{json.dumps(BARE)}"))
    assert [json.loads(row.record) for row in from_csv] == [FULL, BARE]
    assert [json.loads(row.record) for row in from_lines] == [FULL, BARE]
    assert [row.key for row in from_csv] == [row.key for row in from_lines] == [b"mall-0042", b"kiosk-7"]
    assert [row.line for row in from_csv] == [2, 4]  # the first one's name has two lines
    assert [row.line for row in from_lines] == [1, 4]


def test_fields_that_we_do_not_know_reach_those_who_do(tmp_path: Path) -> None:
    line = json.dumps({**BARE, "gates": 4})
    assert [row.record for row in read_venues(write(tmp_path / "v.jsonl", line))] == [line.encode()]


def test_each_bad_row_is_told_by_its_line_and_rule(tmp_path: Path) -> None:
    good = "kiosk-8,Kiosk,minimarket,10,-6.1,Asia/Jakarta"
    path = write(tmp_path / "v.csv", "\n".join([HEADER, good, *BAD_ROWS, good]))
    rows = read_venues(path)
    assert [row.refusal for row in rows] == ["", *BAD_ROWS.values(), ""]
    assert refusals(path, rows) == [f"{path}, line {line}: {said}" for line, said in enumerate(BAD_ROWS.values(), 3)]


@pytest.mark.parametrize("line", ["{", "[]", '{"venue_id": "\udcff"}', '{"venue_id": "a"} x', '{"capacity": NaN}', "7"])
def test_a_line_that_is_no_venue_is_refused_and_the_next_one_taken(tmp_path: Path, line: str) -> None:
    bad, good = read_venues(write(tmp_path / "v.ndjson", f"{line}\n{json.dumps(BARE)}\n"))
    assert bad.refusal
    assert not good.refusal


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("v.csv", "", "lacks the column venue_id, name, category"),
        ("v.csv", "venue_id;name;category\na;b;c", "lacks the column venue_id, name, category"),
        ("v.csv", "venue_id,name\n", "lacks the column category"),
        ("v.csv", "venue_id,name,category,name\n", "has the column name twice"),
        ("v.csv", f'{HEADER}\na,"b,c,,,\n', "cannot be read as CSV at line 2"),
        ("v.xlsx", "", "must end with .csv, .ndjson, .jsonl"),
    ],
)
def test_a_file_that_is_no_registry_is_refused_as_a_whole(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_venues(write(tmp_path / name, text))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read: No such file or directory"):
        read_venues(tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv cannot be read: Is a directory"):
        read_venues(tmp_path / "folder.csv")


def test_one_bad_row_and_nothing_is_sent_unless_told_so(tmp_path: Path, sent: list[Record]) -> None:
    path = write_csv(tmp_path / "v.csv", FULL, {**BARE, "capacity": "-1"}, BARE)
    refused = load(path)
    assert isinstance(refused.exception, UserError)
    assert "1 of 3 rows" in str(refused.exception)
    assert refused.stderr == f"pipeline: {path}, line 4: capacity: Input should be greater than or equal to 1\n"
    assert sent == []
    taken = load(path, "--skip-bad")
    assert taken.exit_code == 0
    assert taken.stderr == refused.stderr
    assert "2 venues into the topic venues" in taken.stdout
    assert "left out: 1" in taken.stdout
    assert [(key, json.loads(value)) for key, value in sent] == [(b"mall-0042", FULL), (b"kiosk-7", BARE)]


def test_a_thousand_bad_rows_are_not_a_thousand_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "v.ndjson", "{}\n" * 1_000)
    said = refusals(path, read_venues(path))
    assert len(said) == 101
    assert said[-1] == f"{path}: 900 more rows are refused"


def test_without_kafka_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIPELINE_KAFKA", f"127.0.0.1:{nobody.getsockname()[1]}")
        result = load(write_csv(tmp_path / "v.csv", FULL))
    assert isinstance(result.exception, UserError)
    assert "no Kafka answers at 127.0.0.1:" in str(result.exception)


@pytest.mark.kafka
def test_venues_arrive_in_kafka_under_their_keys(
    tmp_path: Path, kafka_topics: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = kafka_topics(partitions=2)
    monkeypatch.setenv("PIPELINE_KAFKA", address)
    result = load(write_csv(tmp_path / "v.csv", FULL, BARE, {**BARE, "name": "Kiosk seven"}))
    assert result.stdout == f"3 venues into the topic venues at {address}\n"
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader"})
    partitions = consumer.list_topics("venues", timeout=10).topics["venues"].partitions
    consumer.assign([TopicPartition("venues", number, 0) for number in partitions])
    records = []
    while len(records) < 3 and (message := consumer.poll(10)) is not None:
        records.append((message.key(), json.loads(message.value())))
    consumer.close()
    assert [venue for key, venue in records if key == b"mall-0042"] == [FULL]
    assert [venue["name"] for key, venue in records if key == b"kiosk-7"] == ["Kiosk 7", "Kiosk seven"]
