"""The API over HTTP, asked at random by its own description, and what the live feed promises whoever reconnects."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.browser.site import FORMULA, Site

pytestmark = pytest.mark.kafka


#: A cursor, or a range, may be of the right type and still make no sense: that is a 422, which the check left out below forbids.
#: The feed never ends, and has a test of its own.
ENDLESS = "/api/v1/live"


@pytest.mark.long
def test_every_answer_is_as_the_openapi_document_says(site: Site) -> None:
    api = schemathesis.openapi.from_url(f"{site.address}/api/v1/openapi.json")
    asked = []
    for found in api.exclude(path=ENDLESS).get_all_operations():
        operation = found.ok()
        asked.append(operation.path)

        # The examples are the same each time: a test that sometimes fails is no test.
        @given(case=operation.as_strategy())
        @settings(
            max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        def answers_as_described(case: Any) -> None:
            case.call_and_validate(timeout=60, excluded_checks=[positive_data_acceptance])

        answers_as_described()
    assert len(asked) == len(site.ask("/api/v1/openapi.json")["paths"]) - 1


def test_every_answer_has_an_example_in_the_document(site: Site) -> None:
    document = site.ask("/api/v1/openapi.json")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
            schema = good.get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in schema:
                assert document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["examples"], path


def test_pages_of_a_list_hold_every_venue_once(site: Site) -> None:
    for sort in ("name", "venue_id", "occupancy", "ratio"):
        found, cursor = [], ""
        while cursor is not None:
            page = site.ask(f"/api/v1/venues?limit=40&sort={sort}" + (f"&cursor={cursor}" if cursor else ""))
            found += [venue["venue_id"] for venue in page["items"]]
            cursor = page["next"]
        assert len(found) == page["total"] == len(set(found)) == 150, sort


def test_pages_of_a_history_join_without_a_gap(site: Site) -> None:
    path = "/api/v1/venues/ven-000003/history?step=hour&since=2021-09-12T00:00:00Z&until=2021-09-20T00:00:00Z"
    whole = site.ask(path)["items"]
    found, cursor = [], ""
    while cursor is not None:
        page = site.ask(f"{path}&limit=3" + (f"&cursor={cursor}" if cursor else ""))
        found += page["items"]
        cursor = page["next"]
    assert found == whole
    assert len(whole) > 3


@pytest.mark.parametrize("path", ["/api/v1/venues/ven-000003/now", "/api/v1/areas", "/", "/static/style.css"])
def test_what_a_client_has_already_is_not_sent_again(site: Site, path: str) -> None:
    with urllib.request.urlopen(site.address + path, timeout=30) as answer:
        tag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"]
    request = urllib.request.Request(site.address + path, headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError) as unchanged:
        urllib.request.urlopen(request, timeout=30)
    assert unchanged.value.code == 304
    assert unchanged.value.read() == b""


def test_the_door_and_the_worker_answer_alike_on_one_connection(site: Site) -> None:
    connection = http.client.HTTPConnection(site.address.removeprefix("http://"), timeout=30)
    answers = []
    for path in ("/api/v1/venues/ven-000003/now", "/livez", "/api/v1/venues/ven-000003/now"):
        connection.request("GET", path)
        answer = connection.getresponse()
        answers.append((answer.status, answer.headers["Content-Type"], json.loads(answer.read())))
    connection.close()
    assert answers[0] == answers[2]
    assert answers[1][2]["ok"] is True


def test_a_reader_of_the_feed_that_comes_back_is_told_the_difference_only(site: Site) -> None:
    def first(last_id: str | None) -> tuple[str, str]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        request = urllib.request.Request(f"{site.address}/api/v1/live", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as stream:
            fields: dict[str, str] = {}
            while "data" not in fields:
                name, _, value = stream.readline().decode().strip().partition(": ")
                fields[name] = value
        return fields["event"], fields["id"]

    event, number = first(None)
    assert event == "snapshot"
    assert first(number)[0] == "delta"
    assert first("foreign-7")[0] == "snapshot"


def test_a_download_is_safe_for_spreadsheets_and_complete(site: Site) -> None:
    with urllib.request.urlopen(f"{site.address}/api/v1/planning/download?format=csv", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
        assert answer.headers["Content-Disposition"].startswith("attachment")
    assert any(f",'{FORMULA}," in line for line in lines)
    assert not any(f",{FORMULA}" in line for line in lines)
    assert len(lines) - 1 == site.ask("/api/v1/planning")["venues"]
    with urllib.request.urlopen(f"{site.address}/api/v1/planning/download?format=parquet", timeout=60) as answer:
        assert answer.read()[:4] == b"PAR1"
