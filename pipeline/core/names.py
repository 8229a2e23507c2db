"""Texts to small integers and back, exactly: equal codes mean equal bytes, whatever the hash says."""

import numpy as np

from pipeline.core.columns import Text
from pipeline.core.jit import kernel
from pipeline.core.pools import I32, I64, U8, Names, crowded, more_room, new_slots


@kernel
def _hash(buffer: U8, start: int, length: int) -> int:
    # FNV-1a (Fowler, Noll, Vo), 64 bits, with a final mix because the table takes the low bits.
    value = np.uint64(14695981039346656037)
    for i in range(start, start + length):
        value = (value ^ np.uint64(buffer[i])) * np.uint64(1099511628211)
    value ^= value >> np.uint64(32)
    return np.int64(value & np.uint64(0x7FFFFFFFFFFFFFFF))  # type: ignore[return-value]


@kernel
def _insert(names: Names, buffer: U8, start: int, length: int, add: bool) -> int:
    mask = len(names.slots) - 1
    slot = _hash(buffer, start, length) & mask
    while True:
        found = names.slots[slot] - 1
        if found < 0:
            break
        if names.length[found] == length:
            at = names.start[found]
            same = True
            for i in range(length):
                if names.arena[at + i] != buffer[start + i]:
                    same = False
                    break
            if same:
                return found
        slot = (slot + 1) & mask
    if not add:
        return -1
    code = names.used[0]
    at = names.used[1]
    names.slots[slot] = code + 1
    names.start[code] = at
    names.length[code] = length
    for i in range(length):
        names.arena[at + i] = buffer[start + i]
    names.used[0] = code + 1
    names.used[1] = at + length
    return code


@kernel
def _insert_all(
    names: Names,
    buffer: U8,
    start: I64,
    length: I32,
    add: bool,
    codes: I32,
) -> None:
    for i in range(len(start)):
        codes[i] = _insert(names, buffer, start[i], length[i], add)


@kernel
def _rehash(names: Names, slots: I32) -> None:
    mask = len(slots) - 1
    for code in range(names.used[0]):
        slot = _hash(names.arena, names.start[code], names.length[code]) & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = code + 1


@kernel
def _gather(names: Names, codes: I32, offsets: I32, data: U8) -> None:
    at = 0
    for i in range(len(codes)):
        start = names.start[codes[i]]
        for j in range(names.length[codes[i]]):
            data[at] = names.arena[start + j]
            at += 1
        offsets[i + 1] = at


@kernel
def _copy_slices(
    buffer: U8,
    start: I64,
    length: I32,
    offsets: I32,
    data: U8,
) -> None:
    at = 0
    for i in range(len(start)):
        for j in range(length[i]):
            data[at] = buffer[start[i] + j]
            at += 1
        offsets[i + 1] = at


def slices(buffer: U8, text: Text) -> tuple[I32, U8]:
    """The texts of a column as one run of bytes, in the layout of `texts`."""
    offsets = np.zeros(len(text.start) + 1, np.int32)
    data = np.empty(int(text.length.sum(dtype=np.int64)), np.uint8)
    _copy_slices(buffer, text.start, text.length, offsets, data)
    return offsets, data


def intern(names: Names, buffer: U8, text: Text) -> tuple[Names, I32]:
    """The code of each text, new ones added. Returns the names, grown where that was needed."""
    count = int(names.used[0]) + len(text.start)
    more_room(names.start, count)
    more_room(names.length, count)
    more_room(names.arena, int(names.used[1]) + int(text.length.sum(dtype=np.int64)))
    if crowded(names.slots, len(names.start)):
        slots = new_slots(len(names.start))
        _rehash(names, slots)
        names = names._replace(slots=slots)
    codes = np.empty(len(text.start), np.int32)
    _insert_all(names, buffer, text.start, text.length, True, codes)
    return names, codes


def find(names: Names, buffer: U8, text: Text) -> I32:
    """The code of each text, −1 for one that was never interned."""
    codes = np.empty(len(text.start), np.int32)
    _insert_all(names, buffer, text.start, text.length, False, codes)
    return codes


def texts(names: Names, codes: I32) -> tuple[I32, U8]:
    """The texts of some codes as one run of bytes: text i is data[offsets[i] : offsets[i + 1]] (Arrow's string layout)."""
    offsets = np.zeros(len(codes) + 1, np.int32)
    data = np.empty(int(names.length[codes].sum(dtype=np.int64)), np.uint8)
    _gather(names, codes, offsets, data)
    return offsets, data
