"""What went wrong with a request, in the words that its sender needs: what, where, and the way out."""

from dataclasses import dataclass


@dataclass
class RequestError(Exception):
    """Ends a request with `status` and a body of what, where and way out; `retry_after` in seconds, where waiting helps."""

    status: int
    what: str
    where: str
    way_out: str
    retry_after: int | None = None


def not_ready() -> RequestError:
    """The answer while the store has not been read once."""
    return RequestError(
        503,
        "the store has not answered yet",
        "the store",
        "wait a moment; if it stays so, look at /api/v1/health and at the log",
        retry_after=1,
    )


def no_venue(venue_id: str) -> RequestError:
    """The answer for a venue that nobody registered and that had no scan."""
    return RequestError(
        404, f"there is no venue {venue_id!r}", "venue_id", "find it by its name: /api/v1/venues?q=NAME"
    )
