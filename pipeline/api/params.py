"""Parameters that several routes take."""

from datetime import datetime
from typing import Annotated

from fastapi import Path, Query

VenueId = Annotated[
    str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$", examples=["mall-0042"], description="Its id.")
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many on a page.")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before.")]
Since = Annotated[
    datetime | None, Query(description="RFC 3339 with an offset; inclusive.", examples=["2021-09-19T00:00:00+07:00"])
]
Until = Annotated[
    datetime | None, Query(description="RFC 3339 with an offset; exclusive.", examples=["2021-09-20T00:00:00+07:00"])
]
