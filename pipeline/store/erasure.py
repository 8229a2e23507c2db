"""One visitor taken out of the store for good, and kept out: by the hash of the pseudonym, which is all that stays.

SHA-256 without a key: a pseudonym that nobody can guess cannot be guessed from it either, and whoever reads a topic anew needs
nothing but the list.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from pipeline.store.decisions import Decisions
from pipeline.store.recovery import read_standing
from pipeline.store.retention import QUERY, among, counted, delete, forget_told, note_removed
from pipeline.store.writer import quoted, quoted_all, store_errors, unaccounted

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
else:
    Client = Any

#: Tables with a row for a visitor, but the scans.
_OF_VISITORS: Final = ("visit_rows", "exposure_rows", "repair_rows", "asked_rows")
_OF_PERSONS: Final = ("scan_set", *_OF_VISITORS, "interval_rows", "case_rows", "report_set", "published_rows")
#: How soon replaced parts go, in seconds.
_HURRIED: Final = {"old_parts_lifetime": 5, "cleanup_delay_period": 5, "max_cleanup_delay_period": 10}


def digest_of(visitor: bytes) -> bytes:
    """What a pseudonym is known by once it is erased."""
    return sha256(visitor).digest()


def noted(client: Client) -> dict[bytes, bool]:
    """The digest of each pseudonym that was or is being erased, and whether that has ended. Raises StoreUnavailableError."""
    rows = _rows(client, "SELECT digest, finished FROM erased_rows FINAL")
    return {bytes.fromhex(str(digest)): bool(finished) for digest, finished in rows}


def lately_erased(client: Client) -> list[str]:
    """The digests, in hex, of those who are being erased, or were within a day: scans of theirs may be there still.

    Raises StoreUnavailableError.
    """
    sql = "SELECT digest FROM erased_rows FINAL WHERE erased_at > now() - INTERVAL 1 DAY"
    return [str(row[0]) for row in _rows(client, sql)]


def of_erased(pairs: Iterable[tuple[str, str]], erased: Collection[bytes]) -> set[str]:
    """The visitors among pairs (venue, visitor) who are on the list of digests; a pair without a visitor is a whole venue."""
    if not erased:
        return set()
    return {
        visitor for visitor in {visitor for _, visitor in pairs if visitor} if digest_of(visitor.encode()) in erased
    }


def begin(client: Client, visitor: str, decisions: Decisions | None) -> str:
    """Note that a pseudonym is being erased: from here on its scans and reports are not taken. Returns the receipt.

    In `decisions` first, where there are any. The receipt of an erasure that was broken off stays the same. Raises
    StoreUnavailableError.
    """
    receipt = receipt_of(client, visitor) or secrets.token_hex(8)
    if decisions is not None:
        decisions.note_erased([(digest_of(visitor.encode()).hex(), receipt)])
    _note(client, visitor, receipt, finished=False)
    return receipt


def receipt_of(client: Client, visitor: str) -> str:
    """The receipt of a pseudonym that was or is being erased; empty for any other. Raises StoreUnavailableError."""
    rows = _rows(client, f"SELECT receipt FROM erased_rows FINAL WHERE {_noted_as(visitor)}")
    return str(rows[0][0]) if rows else ""


def finish(client: Client, visitor: str, receipt: str) -> None:
    """Note that nothing of a pseudonym is left. Raises StoreUnavailableError."""
    _note(client, visitor, receipt, finished=True)


def _note(client: Client, visitor: str, receipt: str, *, finished: bool) -> None:
    # By the store's clock, which says when parts were replaced, too.
    digest = quoted(digest_of(visitor.encode()).hex())
    with store_errors():
        client.command(
            "INSERT INTO erased_rows (digest, receipt, erased_at, finished) "
            f"SELECT {digest}, {quoted(receipt)}, now64(3), {int(finished)}"
        )


def is_gone(client: Client, visitor: str) -> bool:
    """Whether a visitor's erasure has ended, and nothing of it has come back. Raises StoreUnavailableError."""
    if not _rows(client, f"SELECT 1 FROM erased_rows FINAL WHERE {_noted_as(visitor)} AND finished"):
        return False
    places = [
        *((table, _is(visitor)) for table in ("scan_set", *_OF_VISITORS, "case_rows")),
        ("report_set", _reported(visitor)),
    ]
    return not any(_rows(client, f"SELECT count() FROM {table} WHERE {where}")[0][0] for table, where in places)


def pairs_of(client: Client, visitor: str) -> list[tuple[str, str]]:
    """The visitor's pairs (venue, visitor), whatever is known of them. Raises StoreUnavailableError."""
    rows = _rows(
        client,
        f"SELECT DISTINCT venue_id FROM scan_set WHERE {_is(visitor)} "
        f"UNION DISTINCT SELECT venue_id FROM visit_rows WHERE {_is(visitor)}",
    )
    return [(str(row[0]), visitor) for row in rows]


def asked_of(client: Client, visitor: str) -> int:
    """Corrections of the visitor's pairs that are asked for and not made yet. Raises StoreUnavailableError."""
    return int(_rows(client, f"SELECT count() FROM asked_rows FINAL WHERE {_is(visitor)}")[0][0])


def removed_under(client: Client, receipt: str) -> int:
    """The scans that went under a receipt. Raises StoreUnavailableError."""
    sql = f"SELECT sum(scans) FROM removed_rows FINAL WHERE reason = 'erasure' AND key = {quoted(receipt)}"
    return int(_rows(client, sql)[0][0])


def remove_scans(client: Client, visitor: str, receipt: str) -> None:
    """Delete the visitor's scans, accounted for under the receipt. Raises StoreUnavailableError."""
    if not _rows(client, f"SELECT 1 FROM removed_rows FINAL WHERE reason = 'erasure' AND key = {quoted(receipt)}"):
        # As in a cut of retention: what is not accounted for is read again, and left out then.
        stored = f"{_is(visitor)} AND NOT {unaccounted(read_standing(client).progress)} AND NOT {counted(client)}"
        scans = _rows(client, f"SELECT count() FROM scan_set FINAL WHERE {stored}")[0][0]
        note_removed(client, "erasure", [(receipt, int(scans))])
    delete(client, "scan_set", _is(visitor))


def remove_rest(client: Client, visitor: str) -> None:
    """Delete all else about the visitor: visits, exposures, and the cases reported of it with what followed from them.

    Raises StoreUnavailableError.
    """
    cases = [
        str(row[0])
        for row in _rows(
            client,
            "SELECT DISTINCT case_id FROM report_set "
            f"WHERE {_reported(visitor)} "
            f"UNION DISTINCT SELECT case_id FROM case_rows WHERE {_is(visitor)}",
        )
    ]
    doomed = [(table, _is(visitor)) for table in _OF_VISITORS]
    if cases:
        of_cases = among("case_id", cases)
        doomed += [(table, of_cases) for table in ("exposure_rows", "interval_rows", "case_rows", "report_set")]
    for table, condition in doomed:
        delete(client, table, condition)
    forget_told(client)


def hurry(client: Client, *, on: bool) -> None:
    """Have ClickHouse take replaced parts off the disk within a minute, or again at its own pace, which outlives a power cut.

    Raises StoreUnavailableError.
    """
    for table in _OF_PERSONS:
        names = ", ".join(_HURRIED)
        change = f"MODIFY SETTING {', '.join(f'{name} = {value}' for name, value in _HURRIED.items())}"
        with store_errors():
            client.command(f"ALTER TABLE {table} {change if on else f'RESET SETTING {names}'}")
            if on:
                # Whoever takes parts off the disk sleeps for its former period first, but not in a table that begins.
                client.command(f"DETACH TABLE {table}")
                client.command(f"ATTACH TABLE {table}")


def on_disk(client: Client, visitor: str) -> int:
    """Parts that may hold rows of an erased visitor, and wait to be taken off the disk. Raises StoreUnavailableError.

    Those replaced by the time the erasure ended: what was there after that held none, whenever it is replaced. And those that are
    detached, by hand or because they were broken, and are not newer: nobody takes these away but whoever drops them.
    """
    tables = quoted_all(_OF_PERSONS)
    ended = f"(SELECT max(erased_at) FROM erased_rows WHERE {_noted_as(visitor)})"
    ours = f"database = currentDatabase() AND table IN ({tables})"
    parts = f"SELECT count() FROM system.parts WHERE {ours} AND NOT active AND remove_time <= {ended}"
    detached = f"SELECT count() FROM system.detached_parts WHERE {ours} AND modification_time <= {ended}"
    return sum(int(_rows(client, sql)[0][0]) for sql in (parts, detached))


def _noted_as(visitor: str) -> str:
    return f"digest = {quoted(digest_of(visitor.encode()).hex())}"


def _reported(visitor: str) -> str:
    return _is(visitor, "JSONExtractString(newest.2, 'visitor_id')")


def _is(visitor: str, column: str = "visitor_id") -> str:
    # Not by name: a server keeps the text of every question in its log of queries.
    return among(column, [visitor])


def _rows(client: Client, sql: str) -> Sequence[Sequence[Any]]:
    with store_errors():
        rows: Sequence[Sequence[Any]] = client.query(sql, settings=QUERY).result_rows
    return rows
