"""What a valid scan is, one record at a time: the authority for whatever the fast path does not recognise."""

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from pydantic_core import from_json

from schemas.dead_letter import Reason
from schemas.fields import refusal_detail
from schemas.scan import Scan

#: The longest record that is read, in bytes (contract, section 5).
MAX_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is no scan. `detail` never holds its values, which may be personal."""

    reason: Reason
    detail: str


def judge_scan(value: bytes | None) -> Scan | Refusal:
    """The scan that a record's value holds, or the first reason why it holds none. Never raises for any bytes.

    JSON is that of RFC 8259, with its freedoms used so: of equal keys the last wins; lone surrogates, integers of more
    than 4,300 digits and nesting deeper than 200 are refused.
    """
    if not value:
        return Refusal("not_json", "the record is empty")
    if len(value) > MAX_BYTES:
        return Refusal("too_large", f"more than {MAX_BYTES:,} bytes")
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("not_utf8", f"no UTF-8 at byte {error.start}")
    try:
        from_json(value, allow_inf_nan=False)
    except ValueError as error:
        return Refusal("not_json", str(error))
    try:
        # From the bytes again: what a model takes from JSON is stricter than what it takes from Python objects.
        return Scan.model_validate_json(value)
    except ValidationError as error:
        return Refusal("schema", refusal_detail(Scan, error))
