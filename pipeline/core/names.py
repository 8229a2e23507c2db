"""Texts to small integers and back, exactly: equal codes mean equal bytes, whatever the hash says."""

from typing import Final

import numpy as np

from pipeline.core.columns import Text
from pipeline.core.jit import array_kernel, kernel
from pipeline.core.pools import I32, I64, U8, Names, crowded, more_room, new_slots

#: Looked up together: the table's and the texts' places are touched first, so that the processor waits for many at once instead
#: of for each in turn: what it gained is in docs/performance.md.
_BLOCK: Final = 64

_WORD: Final = 8


@kernel
def _hash(buffer: U8, start: int, length: int) -> int:
    # Eight bytes at a time, mixed as in the finaliser of MurmurHash3 (Appleby); the table takes the low bits. Unsigned places
    # need no look at whether they count from the end, so that eight loads become one.
    multiplier = np.uint64(0xFF51AFD7ED558CCD)
    value = np.uint64(length)
    at = np.uint64(start)
    end = np.uint64(start + length)
    while at < end:
        word = np.uint64(0)
        if at + np.uint64(_WORD) <= end:
            for i in range(_WORD):
                word |= np.uint64(buffer[at + np.uint64(i)]) << np.uint64(8 * i)
        else:
            for i in range(end - at):
                word |= np.uint64(buffer[at + np.uint64(i)]) << np.uint64(8 * i)
        value = (value ^ word) * multiplier
        value ^= value >> np.uint64(32)
        at += np.uint64(_WORD)
    value *= multiplier
    value ^= value >> np.uint64(32)
    return np.int64(value & np.uint64(0x7FFFFFFFFFFFFFFF))  # type: ignore[return-value]


@kernel
def _insert(names: Names, buffer: U8, start: int, length: int, hashed: int, add: bool) -> int:
    mask = len(names.slots) - 1
    slot = hashed & mask
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
    hashed: I64,
) -> int:
    # What is returned is of no use, but without it there would be no touching. `hashed` is room for a block.
    touched = 0
    mask = len(names.slots) - 1
    for first in range(0, len(start), _BLOCK):
        count = min(_BLOCK, len(start) - first)
        for i in range(count):
            hashed[i] = _hash(buffer, start[first + i], length[first + i])
            touched += names.slots[hashed[i] & mask]
        for i in range(count):
            found = names.slots[hashed[i] & mask] - 1
            if found >= 0:
                touched += names.length[found] + names.arena[names.start[found]]
        for i in range(count):
            codes[first + i] = _insert(names, buffer, start[first + i], length[first + i], hashed[i], add)
    return touched


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


@kernel
def _count_sort(codes: I32, until: I64, order: I64) -> None:
    for code in codes:
        until[code + 1] += 1
    for code in range(1, len(until)):
        until[code] += until[code - 1]
    for i in range(len(codes)):
        order[until[codes[i]]] = i
        until[codes[i]] += 1


def order_by(codes: I32, count: int) -> I64:
    """The places of some codes, all of them under `count`, in the order of the codes; those of one code stay in theirs."""
    order = np.empty(len(codes), np.int64)
    _count_sort(codes, np.zeros(count + 1, np.int64), order)
    return order


@kernel
def _prefixes(buffer: U8, start: I64, length: I32, prefix: I64) -> None:
    # Compared as numbers, the first bytes order texts as the texts themselves, up to those that begin alike.
    for i in range(len(start)):
        value = np.uint64(0)
        for k in range(_WORD):
            byte = np.uint64(buffer[start[i] + k]) if k < length[i] else np.uint64(0)
            value = (value << np.uint64(8)) | byte
        prefix[i] = np.int64(value >> np.uint64(1))


def prefixes(buffer: U8, text: Text) -> I64:
    """Numbers in the order of the texts, by their first eight bytes; equal where these are."""
    prefix = np.empty(len(text.start), np.int64)
    _prefixes(buffer, text.start, text.length, prefix)
    return prefix


def ranks(names: Names) -> I32:
    """The place of each text, by its code, among all of them in the order of their bytes."""
    offsets, data = texts(names, np.arange(int(names.used[0]), dtype=np.int32))
    whole = data.tobytes()
    known = [whole[start:end] for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    rank = np.empty(len(known), np.int32)
    rank[sorted(range(len(known)), key=known.__getitem__)] = np.arange(len(known), dtype=np.int32)
    return rank


@array_kernel
def _sort_within(order: I64, group: I32, first: I64, second: I64) -> None:
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and group[order[end]] == group[order[begin]]:
            end += 1
        here = order[begin:end].copy()
        here = here[np.argsort(first[here])]
        # What begins alike is short, and in order but for the second key.
        for i in range(1, len(here)):
            k = i
            while k > 0 and first[here[k - 1]] == first[here[k]] and second[here[k - 1]] > second[here[k]]:
                here[k - 1], here[k] = here[k], here[k - 1]
                k -= 1
        order[begin:end] = here
        begin = end


def sorted_rows(group: I32, count: int, first: I64, second: I64) -> I64:
    """The places of rows in the order of their group, a number under `count`, then `first`, then `second`."""
    order = order_by(group, count)
    _sort_within(order, group, first, second)
    return order


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
    _insert_all(names, buffer, text.start, text.length, True, codes, np.empty(_BLOCK, np.int64))
    return names, codes


def find(names: Names, buffer: U8, text: Text) -> I32:
    """The code of each text, −1 for one that was never interned."""
    codes = np.empty(len(text.start), np.int32)
    _insert_all(names, buffer, text.start, text.length, False, codes, np.empty(_BLOCK, np.int64))
    return codes


def texts(names: Names, codes: I32) -> tuple[I32, U8]:
    """The texts of some codes as one run of bytes: text i is data[offsets[i] : offsets[i + 1]] (Arrow's string layout)."""
    offsets = np.zeros(len(codes) + 1, np.int32)
    data = np.empty(int(names.length[codes].sum(dtype=np.int64)), np.uint8)
    _gather(names, codes, offsets, data)
    return offsets, data
