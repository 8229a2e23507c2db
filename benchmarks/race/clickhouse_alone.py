"""ClickHouse alone: the whole day as one batch of SQL over the file, in the embedded engine.

A program of its own, `clickhouse_alone.py FILE RECORDS FOLDER`; prints one JSON line.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import clickhouse_connect

from benchmarks.race.job import HARD_LIMIT, MAX_STAY


def main(file: str, records: str, folder: str) -> None:
    """Run the statements one after the other."""
    client: Any = clickhouse_connect.get_client(interface="chdb", path=str(Path(folder) / "clickhouse"))
    text = Path(__file__).with_suffix(".sql").read_text()
    parameters = {"file": file, "stay": MAX_STAY, "hard_limit": HARD_LIMIT}
    began = time.monotonic()
    for statement in text.split(";\n"):
        client.command(statement, parameters=parameters)
    seconds = time.monotonic() - began
    # The table of scans has one row of those that are the same; its columns say how many lines each stands for.
    read = client.query("SELECT sum(lines) FROM scans").first_row[0]
    print(json.dumps({"scans": int(records), "refused": int(records) - read, "seconds": seconds}))
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
