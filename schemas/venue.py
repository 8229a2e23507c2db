"""A venue: a place with a QR code, as the registry knows it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import Identifier, PlainNumber, Rule, TimeZoneName


class Venue(BaseModel):
    """A place with a QR code. Key of the record: `venue_id`; the newest record of a venue holds.

    Numbers may come as decimal strings, as a CSV file has them.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "venue_id": "mall-0042",
                    "name": "Taman Anggrek",
                    "category": "mall",
                    "capacity": 5000,
                    "area": "31.73",
                    "latitude": -6.1785,
                    "longitude": 106.7922,
                    "timezone": "Asia/Jakarta",
                    "air_changes_per_hour": 6.0,
                    "floor_area_m2": 130000.0,
                },
                {"venue_id": "kiosk-7", "name": "Kiosk 7", "category": "minimarket"},
            ]
        },
    )

    venue_id: Identifier
    name: Annotated[str, Field(strict=True, min_length=1, max_length=200), Rule("must be 1 to 200 characters")]
    category: Identifier = Field(description="Decides how long a visit lasts that nobody checks out of.")
    capacity: Annotated[int, Field(ge=1, le=10_000_000), PlainNumber] | None = Field(
        None, description="Persons allowed at once."
    )
    area: Identifier | None = Field(None, description="The administrative code of where it stands.")
    latitude: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False), PlainNumber] | None = Field(
        None, description="Degrees north, WGS 84."
    )
    longitude: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False), PlainNumber] | None = Field(
        None, description="Degrees east, WGS 84."
    )
    timezone: TimeZoneName | None = Field(None, description="IANA name of the local time.")
    air_changes_per_hour: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False), PlainNumber] | None = Field(
        None, description="Ventilation: room volumes of fresh air in an hour."
    )
    floor_area_m2: Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False), PlainNumber] | None = Field(
        None, description="Floor area in square metres."
    )
