"""The two data sources, always through a variable of the board, and a query to each."""

from typing import Final, Self

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable
from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusQuery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import VariableOption

CLICKHOUSE: Final = DataSourceRef(type_val="grafana-clickhouse-datasource", uid="${clickhouse}")
PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="${prometheus}")

#: The uids that `infra/grafana/provisioning/datasources/` gives them: what the variables stand at first.
_PROVISIONED: Final = {"clickhouse": "checkins-clickhouse", "prometheus": "checkins-prometheus"}

#: How the ClickHouse plugin shapes an answer: as series by time, one for each combination of texts, or as a table.
_SERIES, _TABLE = 0, 1


def variable(source: DataSourceRef, label: str) -> DatasourceVariable:
    """The board's variable that chooses among the data sources of one type."""
    assert source.type_val is not None
    assert source.uid is not None
    name = source.uid.strip("${}")
    chosen = VariableOption(text=label, value=_PROVISIONED[name], selected=True)
    return DatasourceVariable(name).label(label).type(source.type_val).current(chosen)


class _SqlQuery(Dataquery):
    def __init__(self, sql: str, shape: int) -> None:
        self._sql = sql
        self._shape = shape
        self.ref_id = "A"

    def to_json(self) -> dict[str, object]:
        return {
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "format": self._shape,
            "queryType": "timeseries" if self._shape == _SERIES else "table",
            "rawSql": self._sql,
            "refId": self.ref_id,
        }


class Sql(Builder[Dataquery]):
    """One SELECT to ClickHouse, with the plugin's macros. `by_time`: the first column is a time, and texts name series."""

    def __init__(self, sql: str, *, by_time: bool = False) -> None:
        self._query = _SqlQuery(sql.strip(), _SERIES if by_time else _TABLE)

    def ref_id(self, ref_id: str) -> Self:
        """Name the query within its panel."""
        self._query.ref_id = ref_id
        return self

    def build(self) -> Dataquery:
        """The query as the panel holds it."""
        return self._query


def promql(expression: str, legend: str, *, now: bool = False) -> PrometheusQuery:
    """A query to Prometheus over the board's time range, or of its end with `now`. `legend` names each series."""
    query = PrometheusQuery().datasource(PROMETHEUS).expr(expression).legend_format(legend)
    return query.instant() if now else query.range()
