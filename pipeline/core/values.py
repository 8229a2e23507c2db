"""The values of many records as slices of one buffer: what the decoder reads, without an object for each."""

from collections.abc import Iterator, Sequence
from typing import Final, overload

import numpy as np

from pipeline.core.jit import kernel
from pipeline.core.pools import I64, U8

#: Stands between two values, so that no loop needs to look for the end of its own: no ordinary byte of a scan is like it.
SEPARATOR: Final = b"\0"

#: What a scan is from that does not say it.
DEFAULT_SOURCE: Final = b"app"

#: Ends every buffer.
TAIL: Final = SEPARATOR + DEFAULT_SOURCE

_NEWLINE: Final = ord("\n")
_BLANKS: Final = (ord(" "), ord("\t"), ord("\r"))


class Values(Sequence[bytes | None]):
    """Record values in order: value i is buffer[start[i] : end[i]], or null where `end` lies before `start`.

    The buffer ends with TAIL. The byte after a value is any that a scan's reader would not take for part of it; one that it
    does costs time, because the reader then leaves the value to the judge, and nothing else.
    """

    __slots__ = ("buffer", "end", "start")

    def __init__(self, buffer: U8, start: I64, end: I64) -> None:
        self.buffer, self.start, self.end = buffer, start, end

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> "Values":
        """From objects; itself if it is one."""
        if isinstance(values, Values):
            return values
        filled = [value or b"" for value in values]
        lengths = np.fromiter(map(len, filled), np.int64, len(filled))
        start = np.cumsum(lengths + 1) - lengths - 1
        null = np.fromiter((value is None for value in values), np.bool_, len(filled))
        joined = SEPARATOR.join([*filled, DEFAULT_SOURCE]) if filled else TAIL
        return cls(np.frombuffer(joined, np.uint8), start, start + lengths - null)

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> "Values": ...
    def __getitem__(self, index: int | slice) -> "bytes | Values | None":
        if isinstance(index, slice):
            return Values(self.buffer, self.start[index], self.end[index])
        start, end = int(self.start[index]), int(self.end[index])
        return self.buffer[start:end].tobytes() if end >= start else None

    def __iter__(self) -> Iterator[bytes | None]:
        whole = self.buffer.tobytes()
        for start, end in zip(self.start.tolist(), self.end.tolist(), strict=True):
            yield whole[start:end] if end >= start else None


@kernel
def _split(buffer: U8, until: int, start: I64, end: I64) -> int:
    count = 0
    begin = 0
    blank = True
    for at in range(until):
        byte = buffer[at]
        if byte == _NEWLINE:
            buffer[at] = 0
            if not blank:
                start[count] = begin
                end[count] = at
                count += 1
            begin = at + 1
            blank = True
        elif byte != _BLANKS[0] and byte != _BLANKS[1] and byte != _BLANKS[2]:
            blank = False
    return count


def split_lines(pieces: Sequence[bytes]) -> tuple[Values, int]:
    r"""The lines of a text that ends with "\n", given in pieces, without those that are blank; and how many lines there are."""
    joined = bytearray().join([*pieces, TAIL])
    buffer = np.frombuffer(joined, np.uint8)
    until = len(buffer) - len(TAIL)
    lines = int(np.count_nonzero(buffer[:until] == _NEWLINE))
    start, end = np.empty(lines, np.int64), np.empty(lines, np.int64)
    count = _split(buffer, until, start, end)
    buffer.flags.writeable = False  # a kernel is compiled once for buffers that cannot be written, and once for others
    return Values(buffer, start[:count], end[:count]), lines
