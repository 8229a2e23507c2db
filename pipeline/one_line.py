"""Text from outside, made harmless: it can neither begin a line of a log nor move a terminal's cursor."""

import re
from typing import Final

#: Controls (C0, DEL, C1: line feeds, escapes), Unicode's line and paragraph separators, what turns the direction of text round
#: (Unicode UAX #9, section 2), and halves of surrogate pairs, which no encoding can write.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """The same text with such characters spelt out, as Python spells them in a literal: `\\n`, `\\x1b`, `\\u2028`."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)
