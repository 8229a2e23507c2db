"""Grafana's side of a board, as far as tests need it: the queries in its JSON, with variables and macros put in.

Macros are those of the ClickHouse plugin, as its documentation states their output (its page on the query editor, "Macros",
and on template variables, "$__conditionalAll"; plugin 4.20). Only what the boards use is here: any other macro, and any
variable without a value, is an error.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

JSON = Path(__file__).resolve().parent.parent / "dashboards" / "json"

Board = dict[str, Any]
#: Of each variable of a board what the reader has chosen: one text, or several; `ALL` where all are.
Values = Mapping[str, str | list[str]]
ALL = "$__all"


def boards() -> dict[str, Board]:
    """The committed boards, by uid."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(JSON.glob("*.json"))}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a board: where it stands, in which language, its text, and whether Grafana makes series by time of it."""

    board: str
    place: str
    type: str
    text: str
    by_time: bool = False
    panel: Board | None = None

    def __str__(self) -> str:
        return f"{self.board}: {self.place}"


def panels(board: Board) -> list[Board]:
    """The panels, without the headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: Board) -> Iterator[Query]:
    """All of a board: of panels, of annotations, and of variables."""
    uid = board["uid"]
    for panel in panels(board):
        for target in panel.get("targets", []):
            type_ = target["datasource"]["type"]
            text = target["rawSql"] if "rawSql" in target else target["expr"]
            yield Query(uid, f"{panel['title']} {target['refId']}", type_, text, target.get("format") == 0, panel)
    for annotation in board["annotations"]["list"]:
        yield Query(uid, annotation["name"], annotation["datasource"]["type"], annotation["target"]["rawSql"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = variable["query"]
            text = asked["rawSql"] if "rawSql" in asked else asked["query"]
            yield Query(uid, f"variable {variable['name']}", variable["datasource"]["type"], text)


def expand_sql(text: str, values: Values, start: datetime, end: datetime, step_seconds: int) -> str:
    """The SQL that reaches ClickHouse. Times are aware; raises AssertionError for what is not known here."""
    text = _conditional(text, values)

    def quoted(match: re.Match[str]) -> str:
        chosen = values[match[1]]
        texts = [chosen] if isinstance(chosen, str) else chosen
        return ",".join("'" + one.replace("'", "\\'") + "'" for one in texts)

    text = re.sub(r"\$\{(\w+):singlequote\}", quoted, text)
    first, last = (f"toDateTime({int(time.timestamp())})" for time in (start, end))
    text = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= {first} AND \1 <= {last}", text)
    text = re.sub(
        r"\$__timeInterval\((\w+)\)", rf"toStartOfInterval(toDateTime(\1), INTERVAL {step_seconds} second)", text
    )
    text = re.sub(r"\$__fromTime\b", first, text)
    text = re.sub(r"\$__toTime\b", last, text)
    assert "$" not in text, f"a macro or a variable is left: {text[text.index('$') :][:40]}"
    return text


def _conditional(text: str, values: Values) -> str:
    macro = "$__conditionalAll("
    while (at := text.find(macro)) >= 0:
        begin = at + len(macro)
        depth, commas, end = 1, [], begin
        while depth:
            character = text[end]
            depth += (character == "(") - (character == ")")
            if character == "," and depth == 1:
                commas.append(end)
            end += 1
        assert len(commas) == 1, text[at:end]
        condition, variable = text[begin : commas[0]], text[commas[0] + 1 : end - 1].strip()
        # With a format (${name:singlequote}) the plugin would not see that all are chosen.
        assert re.fullmatch(r"\$\w+", variable), variable
        text = text[:at] + ("1=1" if values[variable[1:]] in (ALL, "") else condition) + text[end:]
    return text


def expand_promql(text: str, values: Values, step: str, whole: str) -> str:
    """The PromQL that reaches Prometheus; `step` for the rate interval and `whole` for the board's range, as durations."""
    text = text.replace("$__rate_interval", step).replace("$__range", whole)
    for name, chosen in values.items():
        assert isinstance(chosen, str)
        text = re.sub(rf"\${name}\b", chosen, text)
    assert "$" not in text, text
    return text
