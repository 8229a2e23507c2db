"""A record that could not be taken: what is kept of it, and where it came from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused record.

    `topic`, `partition` and `offset` are where it was read, `key` and `value` its original bytes. `reason` is one of
    the contract's words (section 5); `detail` says more and never holds personal data. `received_at_ms` is the record's
    own Kafka timestamp, in milliseconds since the epoch, UTC.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    received_at_ms: int
