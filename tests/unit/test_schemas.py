"""The exported schemas say what the models say."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from schemas import export
from schemas.alert import CrowdingAlert
from schemas.case_report import CaseReport
from schemas.dead_letter import REASONS, DeadLetter
from schemas.export import CHANNELS, Channel
from schemas.fields import format_instant, parse_instant, refusal_detail
from schemas.scan import Scan
from schemas.venue import Venue

BY_NAME = {channel.name: channel for channel in CHANNELS}
EXAMPLES = [(channel, example) for channel in CHANNELS for example in channel.examples]


def example(model: type[BaseModel], number: int = 0) -> dict[str, Any]:
    return next(dict(channel.examples[number]) for channel in CHANNELS if channel.model is model)


def refusal(model: type[BaseModel], message: object) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(message))
    return refusal_detail(model, caught.value)


def exported_schema(channel: Channel) -> dict[str, Any]:
    return dict(json.loads((export.HERE / "json" / f"{channel.name}.schema.json").read_text("utf-8")))


def test_the_exported_files_are_in_step_with_the_models() -> None:
    result = CliRunner().invoke(export.main, ["--check"])
    assert (result.exit_code, result.output) == (0, "")


def test_a_file_out_of_step_is_found_named_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "schemas"
    here.mkdir()
    monkeypatch.setattr(export, "HERE", here)
    run = CliRunner().invoke
    assert run(export.main, []).exit_code == 0
    assert run(export.main, ["--check"]).exit_code == 0

    scan = here / "json" / "scan.schema.json"
    written = scan.read_bytes()
    scan.write_bytes(written.replace(b"50", b"49"))
    (here / "json" / "visit.schema.json").write_text("{}")
    (here / "asyncapi.yaml").unlink()
    result = run(export.main, ["--check"])
    assert result.exit_code == 1
    assert "schemas/asyncapi.yaml, schemas/json/scan.schema.json, schemas/json/visit.schema.json;" in result.output

    assert run(export.main, []).exit_code == 0
    assert run(export.main, ["--check"]).exit_code == 0
    assert scan.read_bytes() == written


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_every_exported_schema_is_json_schema_2020_12(channel: Channel) -> None:
    schema = exported_schema(channel)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("channel", "message"), EXAMPLES, ids=lambda value: getattr(value, "name", None))
def test_every_example_is_valid_by_schema_and_model(channel: Channel, message: dict[str, Any]) -> None:
    Draft202012Validator(exported_schema(channel)).validate(message)
    model = channel.model.model_validate_json(json.dumps(message))
    assert channel.model.model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize(("channel", "message"), EXAMPLES, ids=lambda value: getattr(value, "name", None))
def test_schema_and_model_need_the_same_fields_and_ignore_unknown_ones(
    channel: Channel, message: dict[str, Any]
) -> None:
    validator = Draft202012Validator(exported_schema(channel))
    for field in message:
        fewer = {name: value for name, value in message.items() if name != field}
        if validator.is_valid(fewer):
            channel.model.model_validate_json(json.dumps(fewer))
        else:
            assert refusal(channel.model, fewer) == f"{field}: is missing"
    more = message | {"from_the_future": [1]}
    assert validator.is_valid(more)
    channel.model.model_validate_json(json.dumps(more))


@pytest.mark.parametrize(
    "text",
    ["2021-09-19 10:15:30Z", "2021-09-19T10:15:30", "2021-09-19T10:15:60Z", "2021-09-19T24:15:30Z", "2021-09-19"],
)
def test_schema_and_model_refuse_the_same_times(text: str) -> None:
    message = example(Scan) | {"occurred_at": text}
    assert not Draft202012Validator(exported_schema(BY_NAME["scan"])).is_valid(message)
    assert refusal(Scan, message) == "occurred_at: not an RFC 3339 time with an offset"


def test_the_asyncapi_document_names_every_topic_of_the_contract() -> None:
    document = yaml.safe_load((export.HERE / "asyncapi.yaml").read_text("utf-8"))
    assert document["asyncapi"] == "3.0.0"
    assert {channel["address"] for channel in document["channels"].values()} == {
        "check-ins",
        "venues",
        "case-reports",
        "dead-letters",
        "crowding-alerts",
        "exposures",
        "venue-warnings",
    }
    assert {operation["channel"]["$ref"] for operation in document["operations"].values()} == {
        f"#/channels/{name}" for name in document["channels"]
    }


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    document = yaml.safe_load((export.HERE / "asyncapi.yaml").read_text("utf-8"))
    references = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                references.append(node["$ref"])
            for child in node.values():
                collect(child)
        elif isinstance(node, list):
            for child in node:
                collect(child)

    collect(document)
    for reference in references:
        path, _, pointer = reference.partition("#")
        node: Any = json.loads((export.HERE / path).read_text("utf-8")) if path else document
        for step in pointer.split("/")[1:]:
            node = node[step]
        assert isinstance(node, dict)
    assert len(references) >= 4 * len(CHANNELS)


def test_an_instant_is_an_integer_in_python_and_rfc3339_in_json() -> None:
    alert = CrowdingAlert.model_validate_json(json.dumps(example(CrowdingAlert)))
    assert alert.raised_at == 1_632_030_060_000
    again = CrowdingAlert(**(alert.model_dump() | {"cleared_at": alert.raised_at + 60_000}))
    assert json.loads(again.model_dump_json())["cleared_at"] == "2021-09-19T05:42:00.000Z"


def test_an_integer_is_no_time_in_json() -> None:
    message = example(CrowdingAlert) | {"raised_at": 1_632_030_060_000}
    assert refusal(CrowdingAlert, message) == "raised_at: not an RFC 3339 time with an offset"


def test_times_finer_than_a_millisecond_are_cut() -> None:
    assert parse_instant("2021-09-19T05:41:00.999999999Z") == 1_632_030_060_999
    assert format_instant(1_632_030_060_999) == "2021-09-19T05:41:00.999Z"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("timezone", name) for name in ("Mars/Olympus", "America", "../etc/passwd", "", "asia/jakarta", "UTC\0", 7)),
        *(("capacity", number) for number in (0, -1, 1.5, "many", 10_000_001, True, "1_000", "5e3")),
        *(("category", text) for text in ("", "a" * 65, "shopping mall")),
        *(("latitude", number) for number in (90.1, -90.1, "north", "nan", True)),
        *(("longitude", number) for number in (180.1, -180.1)),
        ("air_changes_per_hour", -1),
        ("floor_area_m2", 0),
        ("name", ""),
    ],
)
def test_a_bad_venue_is_refused_by_field(field: str, value: object) -> None:
    assert refusal(Venue, example(Venue) | {field: value}).startswith(f"{field}: ")


def test_a_venue_from_a_csv_file_has_its_numbers_as_text() -> None:
    assert Venue.model_validate(example(Venue) | {"latitude": "-5e-05"}).latitude == -5e-05
    row = {name: str(value) for name, value in example(Venue).items()}
    assert Venue.model_validate(row) == Venue.model_validate(example(Venue))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("onset_date", day)
            for day in ("2021-02-29", "2021-9-1", "20210901", "2021-09-01T00:00:00Z", 18_871, "1969-01-01")
        ),
        ("status", "recovered"),
        ("reported_at", "2021-09-20"),
        ("infectious_until", "2021-09-16T07:00:00+07:00"),
    ],
)
def test_a_bad_case_report_is_refused_by_field(field: str, value: object) -> None:
    assert refusal(CaseReport, example(CaseReport, 1) | {field: value}).startswith(f"{field}: ")


@pytest.mark.parametrize("reason", REASONS)
def test_a_dead_letters_headers_are_read_back(reason: str) -> None:
    letter = DeadLetter.model_validate(example(DeadLetter) | {"reason": reason, "detail": "é: is missing"})
    headers = letter.to_headers()
    assert ("offset", b"128734") in headers
    assert DeadLetter.model_validate({name: value.decode() for name, value in headers}) == letter
