"""Damage of an embedded store: files that ClickHouse's checksums say are not what was written. Trying again mends nothing.

A server's damage is its operator's to mend, from a replica or a backup; meanwhile it counts as away.
"""

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import StoreDamagedError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

log = logging.getLogger(__name__)

_WAY_OUT: Final = (
    "Stop what uses it, move its folder away, but not the one beside it that ends in .decisions, and start the worker: it builds "
    "the store anew from the log, as far back as Kafka keeps it (docs/operations.md)"
)

#: CANNOT_READ_ALL_DATA, TOO_LARGE_SIZE_COMPRESSED, CHECKSUM_DOESNT_MATCH, NO_FILE_IN_DATA_PART, BAD_SIZE_OF_FILE_IN_DATA_PART,
#: TOO_MANY_UNEXPECTED_DATA_PARTS, CORRUPTED_DATA and CANNOT_DECOMPRESS, as the embedded engine says them: what a server has
#: answered begins with other words.
_DAMAGED: Final = re.compile(r"Code: (33|39|40|226|228|231|246|271)\.")


def raise_if_damaged(error: Exception) -> None:
    """Raise StoreDamagedError if what an embedded engine has raised says that its files are damaged."""
    if _DAMAGED.match(str(error)):
        raise StoreDamagedError(f"the store is damaged ({str(error).splitlines()[0][:300]}). {_WAY_OUT}") from error


def look_for_parts_set_aside(client: Client, *, read_only: bool) -> None:
    """Raise StoreDamagedError if the engine could not read parts of an embedded store as it was opened.

    It sets them aside and goes on without their rows, so that any number may be wrong. With `read_only` that is a warning: what
    Kafka has no longer can still be exported.
    """
    rows = client.query(
        "SELECT table, count() FROM system.detached_parts "
        "WHERE database = currentDatabase() AND startsWith(ifNull(reason, ''), 'broken') GROUP BY table ORDER BY table"
    ).result_rows
    if not rows:
        return
    parts = ", ".join(f"{count} of {table}" for table, count in rows)
    found = f"the store is damaged: parts could not be read and were set aside ({parts}), so numbers may be wrong"
    if not read_only:
        raise StoreDamagedError(f"{found}. {_WAY_OUT}")
    log.warning("%s. %s", found, _WAY_OUT)
