"""What every board promises its reader, checked in the JSON that Grafana gets."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.boards import BOARDS
from pipeline.export import VIEWS as EXPORTED
from pipeline.streaming import metrics
from tests.grafana import JSON, Board, Query, boards, panels, queries

_ROOT = Path(__file__).resolve().parents[2]
_PROVISIONING = _ROOT / "infra" / "grafana" / "provisioning"

CLICKHOUSE, PROMETHEUS = "grafana-clickhouse-datasource", "prometheus"

#: The public views, and the time by which a query of each must be bounded. None: as large as the registry, whatever the time.
VIEWS = {
    "accounting": None,
    "clock": None,
    "venues": None,
    "occupancy_now": None,
    "rolling_occupancy": None,
    "occupancy_minutes": "minute",
    "occupancy_hours": "hour",
    "crowding_alerts": "raised_at",
    "cases": "reported_at",
    "exposures": "overlap_from",
    "venue_warnings": "warn_from",
    "dead_letters": "received_at",
}

#: Boards in the order of their links, and what each must keep the reader from mistaking.
UIDS = {
    "checkins-wall",
    "checkins-venue",
    "checkins-tracing",
    "checkins-capacity",
    "checkins-health",
    "checkins-national",
}

#: What a board may ask again at, in seconds: a wall often, a plan seldom.
_REFRESH = {"30s", "1m", "5m", "1h"}

_SHOWN = boards()
each_board = pytest.mark.parametrize("board", _SHOWN.values(), ids=_SHOWN.keys())


def complaints(board: Board) -> list[str]:
    """Everything about a board that its reader, its database or a visitor would have to suffer from."""
    found = [*_about_the_board(board), *_about_layout(board)]
    for panel in panels(board):
        found += [f"{panel.get('title', 'a panel')}: {fault}" for fault in _about_a_panel(panel)]
    declared = {variable["name"] for variable in board["templating"]["list"]}
    for query in queries(board):
        check = _about_sql if query.type == CLICKHOUSE else _about_promql
        found += [f"{query.place}: {fault}" for fault in check(query)]
        used = re.findall(r"\$\{?(?!__)([a-z]\w*)", query.text)
        found += [f"{query.place}: no variable {name}" for name in used if name not in declared]
    found += [f"no data source {ref}" for ref in _data_sources(board) if ref not in ("${clickhouse}", "${prometheus}")]
    found += [f"data source {ref} is not declared" for ref in _data_sources(board) if ref.strip("${}") not in declared]
    return found


def _about_the_board(board: Board) -> Iterator[str]:
    for key in ("uid", "title", "description", "refresh", "time"):
        if not board.get(key):
            yield f"no {key}"
    if board.get("refresh") not in _REFRESH:
        yield f"refresh {board.get('refresh')}"
    if board.get("timezone") != "browser":
        yield "its times are not in the reader's time zone"
    if not any(
        link["type"] == "dashboards" and link["keepTime"] and link["includeVars"] for link in board.get("links", [])
    ):
        yield "no link to the other boards that keeps time and variables"
    marks = [query for query in queries(board) if query.panel is None and "crowding_alerts" in query.text]
    if not marks:
        yield "no annotations of crowding alerts"
    first = panels(board)[0]
    if first["type"] != "stat" or "checkins.clock" not in first["targets"][0]["rawSql"]:
        yield "the age of the data is not its first panel"


def _about_layout(board: Board) -> Iterator[str]:
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) < len(ids):
        yield "two panels have one id"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if at["x"] + at["w"] > 24 or cells & taken:
            yield f"{panel['title']}: over another panel or the edge"
        taken |= cells


def _about_a_panel(panel: Board) -> Iterator[str]:
    for key in ("title", "description"):
        if not panel.get(key, "").strip():
            yield f"no {key}"
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    for key, what in (("unit", "unit"), ("noValue", "text for no data")):
        if not defaults.get(key, "").strip():
            yield f"no {what}"
    if not panel.get("targets"):
        yield "no query"
    refs = [target["refId"] for target in panel.get("targets", [])]
    if len(set(refs)) < len(refs):
        yield "two queries have one name"
    for override in panel["fieldConfig"]["overrides"]:
        properties = {item["id"]: item["value"] for item in override["properties"]}
        for link in properties.get("links", []):
            if "${__url_time_range}" not in link["url"] or "var-" not in link["url"]:
                yield f"the link {link['title']} loses time or variables"
        # Colour says nothing to one in twelve men, nor on paper: where a cell or a word is coloured, a word says the same.
        background = properties.get("custom.cellOptions", {}).get("type") == "color-background"
        if background and override["matcher"]["options"] != "number" and not properties.get("mappings"):
            yield f"{override['matcher']['options']} has a colour and no word for it"
        for mapping in properties.get("mappings", []):
            results = mapping["options"].values() if mapping["type"] == "value" else [mapping["options"]["result"]]
            for result in results:
                if result.get("color") and mapping["type"] == "value" and not result.get("text"):
                    yield f"{override['matcher']['options']} maps to a colour without a word"


def _about_sql(query: Query) -> Iterator[str]:
    sql = query.text
    if re.search(r"SELECT\s+(\w+\.)?\*", sql, re.IGNORECASE):
        yield "SELECT *"
    if "visitor_id" in sql:
        yield "visitor_id: a pseudonym is nobody's to read on a board"
    if re.search(r"\b(event_id|sha256)\b", sql):
        yield "a column of one record"
    last = sql.rstrip().splitlines()[-1] if "\n" in sql else sql
    limit = re.search(r"LIMIT (\d+)$", last)
    if not limit or not 1 <= int(limit[1]) <= 10_000:
        yield "not bounded by a LIMIT up to 10,000 at its end"
    if query.by_time and not re.search(r"ORDER BY time\b", sql):
        yield "series by time are not in order of time"
    with_names = set(re.findall(r"(?:WITH|,)\s+(\w+) AS \(\s*\n?\s*SELECT", sql))
    for table in re.findall(r"\b(?:FROM|JOIN)\s+([\w.]+)", sql):
        database, _, view = table.rpartition(".")
        if table in with_names:
            continue
        if database != "checkins" or view not in VIEWS:
            yield f"{table} is no public view that boards may read"
        elif (time := VIEWS[view]) is not None and not _bounded(sql, time):
            yield f"{view} is not bounded by {time}"
    for quoted in re.findall(r"\$\{?(?!__)(\w+)(:\w+)?\}?", re.sub(r"\$__conditionalAll\(|, \$\w+\)", "", sql)):
        if quoted[1] != ":singlequote":
            yield f"the variable {quoted[0]} is not quoted"


def _bounded(sql: str, time: str) -> bool:
    both_ends = rf"\b{time} (>=|BETWEEN) \$__(from|to)Time.*\b({time} <=?|AND) \$__toTime|{time} <= \$__toTime"
    return f"$__timeFilter({time})" in sql or re.search(both_ends, sql) is not None


def _about_promql(query: Query) -> Iterator[str]:
    if query.panel is not None and 'instance=~"$worker"' not in query.text:
        yield "not of the chosen workers"
    for name in re.findall(r"\bpipeline_\w+", query.text):
        if name not in _series_names():
            yield f"no worker has a metric {name}"


def _declared() -> set[str]:
    return {value.name for value in vars(metrics).values() if isinstance(value, metrics.Meaning)}


def _series_names() -> set[str]:
    """What the code declares; a histogram stands in /metrics as three series. (Some are only told once they have a value.)"""
    lines = metrics.Metrics().exposition().decode().splitlines()
    types = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))
    histograms = {name for name, type_ in types.items() if type_ == "histogram"}
    ends = ("bucket", "sum", "count")
    return _declared() - histograms | {f"{name}_{end}" for name in histograms for end in ends}


def _data_sources(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "datasource":
                yield value["uid"]
            yield from _data_sources(value)
    elif isinstance(node, list):
        for value in node:
            yield from _data_sources(value)


def test_the_committed_json_is_what_the_code_says() -> None:
    """`make dashboards` writes it anew."""
    written = {path.stem: path.read_text() for path in JSON.glob("*.json")}
    assert written == {board.uid: board.text() for board in BOARDS}


def test_there_are_six_boards() -> None:
    assert _SHOWN.keys() == UIDS


@each_board
def test_a_board_keeps_what_all_boards_promise(board: Board) -> None:
    assert complaints(board) == []


def _of(board: Board, title: str) -> Board:
    return next(panel for panel in panels(board) if panel["title"] == title)


def _sql(change: Callable[[str], str]) -> Callable[[Board], None]:
    def spoil(board: Board) -> None:
        target = _of(board, "Fullest venues")["targets"][0]
        target["rawSql"] = change(target["rawSql"])

    return spoil


def _history(change: Callable[[str], str]) -> Callable[[Board], None]:
    def spoil(board: Board) -> None:
        target = _of(board, "Arriving and leaving")["targets"][0]
        target["rawSql"] = change(target["rawSql"])

    return spoil


SPOILT: dict[str, tuple[Callable[[Board], None], str]] = {
    "no description": (lambda board: _of(board, "Fullest venues").pop("description"), "no description"),
    "no unit": (lambda board: _of(board, "Fullest venues")["fieldConfig"]["defaults"].pop("unit"), "no unit"),
    "no text for no data": (
        lambda board: _of(board, "Fullest venues")["fieldConfig"]["defaults"].pop("noValue"),
        "no text for no data",
    ),
    "a data source of its own": (
        lambda board: _of(board, "Fullest venues")["targets"][0]["datasource"].update(uid="P123"),
        "no data source P123",
    ),
    "no limit": (_sql(lambda sql: sql.replace("LIMIT 25", "")), "not bounded by a LIMIT"),
    "a limit too high": (_sql(lambda sql: sql.replace("LIMIT 25", "LIMIT 100000")), "not bounded by a LIMIT"),
    "every column": (_sql(lambda sql: re.sub(r"SELECT venue_id, name, area, .*", "SELECT *", sql)), "SELECT *"),
    "a visitor": (_sql(lambda sql: sql.replace("SELECT venue_id, name,", "SELECT visitor_id, name,")), "visitor_id"),
    "a table": (_sql(lambda sql: sql.replace("checkins.occupancy_now", "checkins.now_rows")), "no public view"),
    "visits": (_sql(lambda sql: sql.replace("checkins.occupancy_now", "checkins.visits")), "no public view"),
    "an unquoted variable": (_sql(lambda sql: sql.replace("${area:singlequote}", "${area}")), "area is not quoted"),
    "an unknown variable": (_sql(lambda sql: sql.replace("${area:", "${region:")), "no variable region"),
    "all of history": (_history(lambda sql: sql.replace("$__timeFilter(minute)", "1")), "not bounded by minute"),
    "no order": (_history(lambda sql: sql.replace("ORDER BY time", "ORDER BY arriving")), "not in order of time"),
    "no age": (lambda board: board["panels"].pop(0), "age of the data"),
    "no alerts": (lambda board: board["annotations"]["list"].clear(), "no annotations"),
    "a link that forgets": (lambda board: board["links"][0].update(keepTime=False), "no link to the other boards"),
    "a click that forgets": (
        lambda board: _link(board).update(url="/d/checkins-venue"),
        "loses time or variables",
    ),
    "colour only": (
        lambda board: _override(board, "level")["properties"].pop(0),
        "a colour and no word",
    ),
    "always asking": (lambda board: board.update(refresh="1s"), "refresh 1s"),
    "on top of another": (lambda board: board["panels"][1]["gridPos"].update(x=0), "over another panel"),
}


def _override(board: Board, column: str) -> Board:
    overrides = _of(board, "Fullest venues")["fieldConfig"]["overrides"]
    return next(override for override in overrides if override["matcher"]["options"] == column)


def _link(board: Board) -> Board:
    return next(item["value"][0] for item in _override(board, "name")["properties"] if item["id"] == "links")


@pytest.mark.parametrize(("spoil", "fault"), SPOILT.values(), ids=SPOILT.keys())
def test_a_board_that_breaks_a_promise_is_found_out(spoil: Callable[[Board], None], fault: str) -> None:
    board = copy.deepcopy(_SHOWN["checkins-wall"])
    spoil(board)
    assert any(fault in complaint for complaint in complaints(board)), complaints(board)


def test_a_metric_that_no_worker_has_is_found_out() -> None:
    board = copy.deepcopy(_SHOWN["checkins-health"])
    target = _of(board, "Newest scan")["targets"][0]
    target["expr"] = target["expr"].replace("pipeline_newest_event", "pipeline_oldest_event")
    assert any("no worker has a metric pipeline_oldest_event_timestamp_seconds" in fault for fault in complaints(board))


def test_every_metric_of_a_worker_is_on_the_board_of_its_health() -> None:
    shown = {name for query in queries(_SHOWN["checkins-health"]) for name in re.findall(r"pipeline_\w+", query.text)}
    assert {name for name in _declared() if not any(one.startswith(name) for one in shown)} == set()


@pytest.mark.parametrize("uid", sorted(UIDS - {"checkins-health", "checkins-tracing"}))
def test_occupancy_is_never_shown_without_its_estimate(uid: str) -> None:
    """Whatever says how many people are there says also how many the model expects."""
    counting = [
        query for query in queries(_SHOWN[uid]) if query.panel and re.search(r"occupancy\b(?!_)", _columns(query))
    ]
    assert counting
    assert [query.place for query in counting if not re.search(r"\bexpected\b", query.text)] == []


def test_only_contact_tracing_reads_what_is_about_persons() -> None:
    named = {name for name, view in EXPORTED.items() if view.persons}
    reading = {
        uid for uid in UIDS for query in queries(_SHOWN[uid]) if named & set(re.findall(r"checkins\.(\w+)", query.text))
    }
    assert reading == {"checkins-tracing"}


def _columns(query: Query) -> str:
    """The text without the names of views."""
    return re.sub(r"checkins\.\w+", "", query.text)


def test_a_venue_is_searched_for_and_never_chosen_from_all() -> None:
    variables = {item["name"]: item for item in _SHOWN["checkins-venue"]["templating"]["list"]}
    assert variables["search"]["type"] == "textbox"
    asked = variables["venue"]["query"]["rawSql"]
    assert "${search:singlequote}" in asked
    assert asked.endswith("LIMIT 100")


def test_the_map_asks_nobody_outside_for_a_picture() -> None:
    world = _of(_SHOWN["checkins-national"], "Areas now")["options"]
    assert world["basemap"]["type"] == "geojson"
    assert world["basemap"]["config"]["src"].startswith("public/")
    assert "http" not in str(world)


def _provisioned(path: str) -> Any:
    return yaml.safe_load((_PROVISIONING / path).read_text())


def test_the_provisioned_data_sources_are_where_the_boards_variables_stand() -> None:
    sources = {source["uid"]: source["type"] for source in _provisioned("datasources/checkins.yaml")["datasources"]}
    for board in _SHOWN.values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "datasource":
                assert sources[variable["current"]["value"]] == variable["query"]


def test_the_boards_are_provisioned_from_one_folder_and_not_editable() -> None:
    (provider,) = _provisioned("dashboards/checkins.yaml")["providers"]
    assert provider["options"]["path"].endswith("/json") or "$" in provider["options"]["path"]
    assert provider["allowUiUpdates"] is False


def test_no_secret_is_written_down() -> None:
    """Whatever is secret comes from the environment, when Grafana starts."""
    secrets = ("password", "url", "addresses", "integrationKey", "token")

    def walk(node: Any) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            for key, value in node.items():
                if isinstance(value, str):
                    yield key, value
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    files = sorted(_PROVISIONING.rglob("*.yaml"))
    assert len(files) == 3
    found = [pair for path in files for pair in walk(yaml.safe_load(path.read_text())) if pair[0] in secrets]
    assert {key for key, _ in found} >= {"password", "url", "addresses"}
    assert all(re.fullmatch(r"\$\{?[A-Z_]+\}?", value) for _, value in found), found
