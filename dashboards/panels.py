"""The kinds of panel. None can be made without a title, what it says, a unit, and what stands there without data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import barchart, common, geomap, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    FrameGeometrySource,
    FrameGeometrySourceMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    MapLayerOptions,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMapping,
)
from grafana_foundation_sdk.models.geomap import TooltipMode

#: Grafana's names of units. `PERSONS`: a whole number in the reader's own spelling.
PERSONS: Final = "locale"
COUNT: Final = "locale"
SHARE: Final = "percentunit"
SECONDS: Final = "s"
MINUTES: Final = "m"
PER_SECOND: Final = "cps"
PLAIN: Final = "none"

#: Grafana's own outlines of countries: the map asks no tile server, and tells none who looks at what.
_OUTLINES: Final = "public/maps/countries.geojson"


@dataclass(frozen=True, slots=True)
class Says:
    """What every panel must tell: its title, its description, the unit of its numbers, and what no data mean."""

    title: str
    description: str
    unit: str
    without_data: str


@dataclass(frozen=True, slots=True)
class Column:
    """How one column or series differs from its panel. `link`: where a click leads; `fill_to`: shade down to that series."""

    unit: str | None = None
    decimals: int | None = None
    mappings: Sequence[ValueMapping] | None = None
    name: str | None = None
    link: tuple[str, str] | None = None
    hidden: bool = False
    colour: str | None = None
    fill_to: str | None = None
    dashed: bool = False
    coloured_cell: bool = False
    steps: Sequence[tuple[float | None, str]] | None = None

    def properties(self) -> list[DynamicConfigValue]:
        """As Grafana's overrides want it."""
        found: list[tuple[str, object]] = []
        if self.unit is not None:
            found.append(("unit", self.unit))
        if self.decimals is not None:
            found.append(("decimals", self.decimals))
        if self.mappings is not None:
            found.append(("mappings", list(self.mappings)))
        if self.name is not None:
            found.append(("displayName", self.name))
        if self.link is not None:
            found.append(("links", [{"title": self.link[0], "url": self.link[1], "targetBlank": False}]))
        if self.hidden:
            found.append(("custom.hidden", True))
        if self.colour is not None:
            found.append(("color", {"mode": "fixed", "fixedColor": self.colour}))
        if self.fill_to is not None:
            found += [("custom.fillBelowTo", self.fill_to), ("custom.lineWidth", 0)]
        if self.dashed:
            found.append(("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}))
        if self.coloured_cell:
            found.append(("custom.cellOptions", {"type": "color-background", "mode": "basic"}))
        if self.steps is not None:
            found.append(
                ("thresholds", ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(self.steps)).build())
            )
        return [DynamicConfigValue(id_val=key, value=value) for key, value in found]


Columns = Mapping[str, Column]
Queries = Sequence[Builder[Dataquery]]


def _steps(steps: Sequence[tuple[float | None, str]]) -> list[Threshold]:
    return [Threshold(value=value, color=colour) for value, colour in steps]


class _Common(Protocol):
    """What the builders of all kinds of panel share."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: Builder[Dataquery]) -> Self: ...
    def override_by_name(self, name: str, properties: list[DynamicConfigValue]) -> Self: ...


P = TypeVar("P", bound=_Common)


def _dressed(panel: P, says: Says, queries: Queries, columns: Columns | None, size: tuple[int, int]) -> P:
    width, height = size
    panel.title(says.title).description(says.description).unit(says.unit).no_value(says.without_data)
    panel.span(width).height(height)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        # Every builder of a query has it, though the SDK's base class does not say so.
        named: Any = query
        panel.with_target(named.ref_id(letter))
    for name, column in (columns or {}).items():
        if properties := column.properties():
            panel.override_by_name(name, properties)
    return panel


def number(
    says: Says,
    *queries: Builder[Dataquery],
    columns: Columns | None = None,
    mappings: Sequence[ValueMapping] = (),
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),),
    decimals: int | None = None,
    size: tuple[int, int] = (4, 4),
) -> Builder[Panel]:
    """Big numbers and words, one for each column of the answer's last row."""
    panel = _dressed(stat.Panel(), says, queries, columns, size)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("/.*/"))
    panel.text_mode(BigValueTextMode.VALUE_AND_NAME if columns and len(columns) > 1 else BigValueTextMode.AUTO)
    panel.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    panel.mappings(list(mappings))
    panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def over_time(
    says: Says,
    *queries: Builder[Dataquery],
    columns: Columns | None = None,
    name: str | None = None,
    bars: bool = False,
    stacked: bool = False,
    stepped: bool = False,
    size: tuple[int, int] = (12, 8),
) -> Builder[Panel]:
    """Lines, or bars, over the board's time. `stepped`: a value holds until the next one. `name` of each series."""
    panel = _dressed(timeseries.Panel(), says, queries, columns, size)
    panel.draw_style(GraphDrawStyle.BARS if bars else GraphDrawStyle.LINE)
    panel.fill_opacity(60 if bars else 0).line_width(1 if bars else 2).show_points(VisibilityMode.NEVER).axis_soft_min(
        0
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if stepped:
        # A venue has a row only for minutes in which something changed: what stood before still stands.
        panel.line_interpolation(LineInterpolation.STEP_AFTER).span_nulls(True)
    if name is not None:
        panel.display_name(name)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
    panel.legend(legend.show_legend(True).calcs(["lastNotNull", "max"]))
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    return panel


def rows(
    says: Says,
    *queries: Builder[Dataquery],
    columns: Columns | None = None,
    size: tuple[int, int] = (24, 10),
) -> Builder[Panel]:
    """A table."""
    return _dressed(table.Panel(), says, queries, columns, size).show_header(True)


def coloured_rows(
    says: Says,
    query: Builder[Dataquery],
    steps: Sequence[tuple[float | None, str]],
    columns: Columns | None = None,
    size: tuple[int, int] = (24, 22),
) -> Builder[Panel]:
    """A table whose numbers stand on the colour of their step: a heat map that can also be read."""
    panel = _dressed(table.Panel(), says, [query], columns, size).show_header(True)
    panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
    panel.color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
    panel.override_by_field_type("number", Column(coloured_cell=True).properties())
    return panel


def bars(
    says: Says,
    query: Builder[Dataquery],
    along: str,
    *,
    columns: Columns | None = None,
    stacked: bool = False,
    size: tuple[int, int] = (12, 8),
) -> Builder[Panel]:
    """A bar for each row, with its number written on it; `along` is the column of their names."""
    panel = _dressed(barchart.Panel(), says, [query], columns, size).x_field(along)
    panel.show_value(VisibilityMode.ALWAYS).stacking(StackingMode.NORMAL if stacked else StackingMode.NONE)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return panel.legend(legend.show_legend(True).calcs([]))


def world(
    says: Says,
    query: Builder[Dataquery],
    *,
    sized_by: str,
    coloured_by: str,
    labelled_by: str,
    columns: Columns | None = None,
    steps: Sequence[tuple[float | None, str]],
    size: tuple[int, int] = (16, 16),
) -> Builder[Panel]:
    """A marker for each row, at its `latitude` and `longitude`, over outlines that Grafana has itself."""
    panel = _dressed(geomap.Panel(), says, [query], columns, size)
    panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
    panel.color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
    line = {"color": {"fixed": "#808080"}, "opacity": 0.4}
    outlines = MapLayerOptions("geojson", "Outlines", {"src": _OUTLINES, "rules": [], "style": line})
    style = {
        "size": {"field": sized_by, "fixed": 6, "min": 4, "max": 30},
        "color": {"field": coloured_by, "fixed": "dark-green"},
        "symbol": {"mode": "fixed", "fixed": "img/icons/marker/circle.svg"},
        "text": {"mode": "field", "field": labelled_by, "fixed": ""},
        "opacity": 0.7,
    }
    place = FrameGeometrySource(FrameGeometrySourceMode.COORDS, latitude="latitude", longitude="longitude")
    markers = MapLayerOptions("markers", "Areas", {"showLegend": True, "style": style}, place, tooltip=True)
    panel.basemap(_Layer(outlines)).layers([_Layer(markers)])
    panel.tooltip(geomap.TooltipOptions().mode(TooltipMode.DETAILS))
    return panel.view(geomap.MapViewConfig().id("fit").all_layers(False).lat(0).lon(0).zoom(4))


class _Layer(Builder[MapLayerOptions]):
    def __init__(self, layer: MapLayerOptions) -> None:
        self._layer = layer

    def build(self) -> MapLayerOptions:
        return self._layer
