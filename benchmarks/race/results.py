"""What a contestant left in its store, as two files of rows; a program of its own, since a store is opened by one process.

`python -m benchmarks.race.results ENGINE_FOLDER LAYOUT TARGET_FOLDER` writes visits.parquet and minutes.parquet.
"""

import sys
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import pyarrow.parquet as pq

#: By layout: the SQL of visits (venue, visitor, start, left, ended, persons) and of minutes (venue, minute, arrivals, departures,
#: occupancy), where a peer's occupancy follows from its arrivals and departures.
QUERIES: Final = {
    "ours": (
        "SELECT venue_id AS venue, visitor_id AS visitor, toUnixTimestamp64Milli(checked_in_at) AS start, "
        "toUnixTimestamp64Milli(left_at) AS left, toString(ended_by) AS ended, party_size AS persons FROM checkins.visits",
        "SELECT venue_id AS venue, intDiv(toUnixTimestamp(minute), 60) AS minute, arrivals, departures, occupancy "
        "FROM checkins.occupancy_minutes",
    ),
    "peer": (
        "SELECT venue, visitor, start, left, toString(ended) AS ended, persons FROM visits FINAL",
        "SELECT venue, minute, arrivals, departures FROM minutes FINAL",
    ),
    "alone": (
        "SELECT venue, visitor, start, left, ended, persons FROM visits",
        "SELECT venue, minute, arrivals, departures, occupancy FROM minutes",
    ),
}


def main(engine: str, layout: str, target: str) -> None:
    """Write both files."""
    client: Any = clickhouse_connect.get_client(interface="chdb", path=engine)
    for name, query in zip(("visits", "minutes"), QUERIES[layout], strict=True):
        pq.write_table(client.query_arrow(query), Path(target) / f"{name}.parquet")
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
