"""Opening the store: ClickHouse, embedded in this process or as a server, through one client."""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.addresses import split_address
from pipeline.errors import StoreAwayError, UserError
from pipeline.privacy.secret_files import close_folder
from pipeline.settings import Settings
from pipeline.store.damage import look_for_parts_set_aside, raise_if_damaged
from pipeline.store.decisions import decisions_of, share_decisions

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

DATABASE = "checkins"

#: A write may hold scans of many days (late ones reach back the whole retention): a block is cut into a part for each day.
#: Rows of one key within a block are left to the merges and to FINAL: merging them on insert takes 2 to 2.7 times as long.
INSERT_SETTINGS = {"max_partitions_per_insert_block": 0, "optimize_on_insert": 0}

#: What a server answers that passes: TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, SOCKET_TIMEOUT, NETWORK_ERROR,
#: NO_ZOOKEEPER, MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE, TOO_MANY_PARTS and KEEPER_EXCEPTION.
_PASSING = frozenset({159, 202, 209, 210, 225, 241, 242, 243, 252, 999})

# Where a server's profile fixes a limit for its user, as infra/clickhouse/users.sql does for readers, that limit holds, and ours
# is not sent: the driver would refuse every question for it.
common.set_setting("invalid_setting_action", "drop")
logging.getLogger("clickhouse_connect.driver.client").addFilter(
    lambda record: not str(record.msg).startswith("Dropping readonly setting")
)

_locks: dict[Path, int] = {}


def _lock(path: Path) -> None:
    # The engine itself refuses a second process, but with its own words and only after having started.
    if path in _locks:
        return
    try:
        # Of the store's own folder, which the user names, what the engine writes is all that is private.
        close_folder(path / "clickhouse")
        descriptor = os.open(path / "pipeline.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(
            f"the store {path} cannot be opened: {error.strerror}; give another folder with --store"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"the store {path} is in use by process {owner}: an embedded store has one owner at a time; stop that one first"
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    _locks[path] = descriptor


def _emptied_after_errors(client: Client) -> Client:
    """Have an embedded store's connection forget what a query had answered before it failed.

    The engine keeps it (chdb-core 26.9), and would give it as the beginning of the next answer, whatever that query is.
    """
    ask = client.raw_query

    def emptied(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except ClickHouseError:
                with suppress(ClickHouseError):
                    ask("SELECT 1", fmt="Null")
                raise

        return call

    for name in ("command", "query", "query_arrow", "raw_query", "raw_stream"):
        setattr(client, name, emptied(getattr(client, name)))
    return client


def connect(settings: Settings) -> Client:
    """A new connection, for one thread. Raises UserError where the store cannot be reached, StoreAwayError if that may pass."""
    if settings.clickhouse_url is not None:
        dsn = settings.clickhouse_url.get_secret_value()
        split_address(dsn, "PIPELINE_CLICKHOUSE_URL")
        try:
            return clickhouse_connect.get_client(dsn=dsn)
        except (ClickHouseError, OSError) as error:
            raise _told("ClickHouse does not answer at the address in PIPELINE_CLICKHOUSE_URL", error) from None
        except (TypeError, ValueError):
            # Their texts may repeat what stands in the address.
            raise UserError(
                "PIPELINE_CLICKHOUSE_URL has a part that the client does not know; see what follows its ?"
            ) from None
    _lock(settings.store_path)
    memory = settings.store_memory_mib << 20
    client_settings = {"max_memory_usage": memory, "max_bytes_before_external_group_by": memory // 2}
    if settings.durable_writes:
        client_settings |= {"fsync_after_insert": 1, "fsync_part_directory": 1}
    try:
        return _emptied_after_errors(
            clickhouse_connect.get_client(
                interface="chdb", path=str(settings.store_path / "clickhouse"), settings=client_settings
            )
        )
    except (ClickHouseError, OSError, RuntimeError) as error:
        raise_if_damaged(error)
        first = str(error).splitlines()[0]
        raise UserError(f"the embedded ClickHouse cannot open {settings.store_path}: {first}") from None


def connect_further(settings: Settings) -> Client:
    """One more connection to a store that `open_store` has opened. Raises what it raises."""
    client = connect(settings)
    with _broken_off(settings):
        client.command(f"USE {DATABASE}")
    client.database = DATABASE
    return client


def _told(what: str, error: Exception) -> UserError:
    sentence = f"{what}: {str(error).splitlines()[0]}"
    code = getattr(error, "code", None)  # none where nothing has answered
    return StoreAwayError(sentence) if code is None or code in _PASSING else UserError(sentence)


@contextmanager
def _broken_off(settings: Settings) -> Iterator[None]:
    what = "ClickHouse broke off while the store was opened"
    try:
        yield
    except (ClickHouseError, OSError) as error:
        if settings.clickhouse_url is None:
            raise_if_damaged(error)
            raise UserError(f"{what}: {str(error).splitlines()[0]}") from None
        raise _told(what, error) from None


def _statements(name: str) -> list[str]:
    text = resources.files("pipeline.store").joinpath("sql", name).read_text()
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]


def create_tables(client: Client) -> None:
    """Create the database, tables and views that are missing; views are brought up to date."""
    client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    client.command(f"USE {DATABASE}")
    client.database = DATABASE
    for name in ("tables.sql", "views.sql"):
        for statement in _statements(name):
            client.command(statement)


def open_store(settings: Settings, *, read_only: bool = False) -> Client:
    """The store, ready for use. With `read_only` it must exist already, and nothing is created.

    An embedded one that was built anew knows who was erased and what was released (`decisions`), unless it is opened `read_only`.
    Raises UserError when there is none or another process owns it, StoreAwayError when a server does not answer for now,
    StoreDamagedError when an embedded one is damaged.
    """
    embedded = settings.clickhouse_url is None
    if read_only and embedded and not (settings.store_path / "clickhouse").is_dir():
        raise UserError(f"there is no store at {settings.store_path}: run `pipeline replay` or `pipeline worker` first")
    client = connect(settings)
    with _broken_off(settings):
        if not read_only:
            create_tables(client)
        elif client.query(f"SELECT count() FROM system.databases WHERE name = '{DATABASE}'").result_rows[0][0]:
            client.command(f"USE {DATABASE}")
            client.database = DATABASE
        else:
            raise UserError(f"the store holds no database {DATABASE}: run `pipeline replay` or `pipeline worker` first")
        if embedded:
            look_for_parts_set_aside(client, read_only=read_only)
        if not read_only and (decisions := decisions_of(settings)) is not None:
            share_decisions(client, decisions)
    return client
