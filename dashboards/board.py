"""What all boards have in common: links, annotations, age of the data, time zone, refresh."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard, DashboardLink, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, Panel, VariableModel

from dashboards.queries import data_age
from dashboards.sources import CLICKHOUSE, PROMETHEUS, Sql, variable

#: The tag by which the boards find one another.
TAG: Final = "check-ins"

Variable = Builder[VariableModel]


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading."""

    heading: str
    panels: Sequence[Builder[Panel]]


@dataclass(frozen=True, slots=True)
class Board:
    """One board for one reader. The age of the data is its first panel; `sections` follow.

    `since`: the time range at first, as Grafana writes it; `refresh`: how often it asks anew. `alerts`: SQL that returns
    `time`, `text` and `tags` (and `timeEnd`) of the crowding alerts to mark. `metrics`: it also asks Prometheus.
    """

    uid: str
    title: str
    description: str
    since: str
    refresh: str
    variables: Sequence[Variable]
    alerts: str
    first: Sequence[Builder[Panel]]
    sections: Sequence[Section]
    metrics: bool = False

    def text(self) -> str:
        """The board as Grafana's classic JSON, the same bytes each time."""
        board = Dashboard(self.title).uid(self.uid).description(self.description).tags([TAG]).readonly()
        # The reader's own time zone; where hours of the day matter, the board has a variable for it.
        board.timezone("browser").time(self.since, "now").refresh(self.refresh).tooltip(DashboardCursorSync.CROSSHAIR)
        link = DashboardLink("Boards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
        board.link(link.keep_time(True).include_vars(True).as_dropdown(False))
        board.annotation(_alerts(self.alerts))
        board.with_variable(variable(CLICKHOUSE, "Check-ins (ClickHouse)"))
        if self.metrics:
            board.with_variable(variable(PROMETHEUS, "Check-ins (Prometheus)"))
        for chosen in self.variables:
            board.with_variable(chosen)
        for panel in (data_age(), *self.first):
            board.with_panel(panel)
        for section in self.sections:
            board.with_row(Row(section.heading))
            for panel in section.panels:
                board.with_panel(panel)
        built = board.build()
        for number, panel_or_row in enumerate(built.panels or [], start=1):
            panel_or_row.id_val = number
        shown = json.loads(JSONEncoder().encode(built))
        for item in (*shown["links"], *shown["annotations"]["list"]):
            # The SDK hides both in a menu, which is for less than the way to the other boards.
            del item["placement"]
        return json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _alerts(sql: str) -> AnnotationQuery:
    annotation = AnnotationQuery().name("Crowding alerts").datasource(CLICKHOUSE).icon_color("orange")
    return annotation.enable(True).hide(False).target(Sql(sql))
