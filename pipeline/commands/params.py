"""Kinds of values that several commands take."""

from typing import Any

import click

from schemas.fields import parse_instant


class Time(click.ParamType):
    """An instant in RFC 3339 with an offset, as milliseconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_instant(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}; an example is 2021-09-19T12:00:00+07:00", param, ctx)
