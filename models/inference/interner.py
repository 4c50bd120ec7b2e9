"""String interning: each distinct string is stored once and gets a number, its position in the store."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.arrow_strings import Buffers, from_buffers, to_buffers
from models.hashing.compiled import compiled

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
SlotArray = npt.NDArray[np.int32]

_INITIAL_CAPACITY = 2**12  # strings
_EMPTY = -1
_ONE, _QUARTER, _HALF = np.uint64(1), np.uint64(16), np.uint64(32)


class StringTable(NamedTuple):
    """The content of an `Interner` for compiled loops.

    Attributes:
        factor: of the hash, odd.
        slots: numbers of strings, or `_EMPTY`.
        hashes: of the strings.
        starts: offset of each string followed by the end of the last one.
        content: concatenated bytes of the strings.
    """

    factor: np.uint64
    slots: SlotArray
    hashes: HashArray
    starts: IntArray
    content: ByteArray


class Interner:
    """Distinct strings, numbered from 0 in the order in which they were first seen.

    A hash table with linear probing, at most half full. The hash is a polynomial of the bytes in a random odd number
    that each table draws for itself, so an author of messages cannot know which words share a slot. Two strings are
    equal only if all their bytes are.
    """

    def __init__(self) -> None:
        self._factor = np.uint64(secrets.randbits(64) | 1)
        self._count = 0
        self._slots = np.full(2 * _INITIAL_CAPACITY, _EMPTY, np.int32)
        self._hashes = np.zeros(_INITIAL_CAPACITY, np.uint64)
        self._starts = np.zeros(_INITIAL_CAPACITY + 1, np.int64)
        self._content = np.zeros(8 * _INITIAL_CAPACITY, np.uint8)

    def __len__(self) -> int:
        return self._count

    def intern(self, content: ByteArray, starts: IntArray) -> IntArray:
        """Returns the numbers of strings, int64 [strings]. New strings get the next numbers.

        Args:
            content: concatenated bytes of the strings.
            starts: offset of each string followed by the end of the last one, int64 [strings + 1].
        """
        numbers = np.empty(len(starts) - 1, np.int64)
        self._intern(content, starts, False, numbers, np.zeros_like(starts))
        return numbers

    def intern_words(self, content: ByteArray, starts: IntArray) -> tuple[IntArray, IntArray]:
        """Returns the numbers of the words of texts, which are separated by ASCII white space.

        Args:
            content: concatenated bytes of the texts.
            starts: offset of each text followed by the end of the last one, int64 [texts + 1].

        Returns:
            Numbers, int64 [words]; and the index of each text's first word followed by the number of words, int64
            [texts + 1].
        """
        numbers, firsts = np.empty((len(content) + len(starts)) // 2, np.int64), np.zeros_like(starts)
        self._intern(content, starts, True, numbers, firsts)
        return numbers[: firsts[-1]], firsts

    def _intern(
        self, content: ByteArray, starts: IntArray, at_spaces: bool, numbers: IntArray, firsts: IntArray
    ) -> None:
        done, texts = 0, len(starts) - 1
        while done < texts:
            table = self._slots, self._hashes, self._starts, self._content
            done, self._count = _intern(
                content, starts, done, at_spaces, self._factor, *table, self._count, numbers, firsts
            )
            if done < texts:
                self._grow(int(starts[done + 1] - starts[done]))

    @property
    def table(self) -> StringTable:
        """The current content, for `find`."""
        return StringTable(self._factor, self._slots, self._hashes, self._starts, self._content)

    def buffers(self, first: int = 0) -> Buffers:
        """Returns the bytes and offsets of the strings in the order of their numbers, as `intern` takes them.

        Args:
            first: number of the first string to return.
        """
        starts = self._starts[first : self._count + 1]
        return self._content[starts[0] : starts[-1]], starts - starts[0]

    def strings(self, first: int = 0) -> pa.Array:
        """Returns the strings in the order of their numbers, as Arrow strings. They are not checked to be UTF-8.

        Args:
            first: number of the first string to return.
        """
        content, starts = self.buffers(first)
        return from_buffers(content, starts[:-1])

    def subset(self, numbers: IntArray) -> Interner:
        """Returns a new interner with some of the strings.

        Args:
            numbers: of the strings, each once, int64 [strings]. The first of them gets number 0.
        """
        subset = Interner()
        content, starts = to_buffers(self.strings().take(pa.array(numbers)))
        subset.intern(content, starts)
        return subset

    @contextlib.contextmanager
    def undo_on_error(self) -> Iterator[None]:
        """Removes the strings that were added within the context if it ends with an error."""
        count = self._count
        try:
            yield
        except BaseException:
            self._count = count
            self._slots.fill(_EMPTY)
            _fill_slots(self._slots, self._hashes, count)
            raise

    def _grow(self, size: int) -> None:
        """Adds capacity for a string of `size` bytes, without overwriting arrays that were handed out."""
        if self._starts[self._count] + size > len(self._content):
            self._content = _enlarge(self._content, size)
        if self._count == len(self._hashes):
            self._hashes, self._starts = _enlarge(self._hashes), _enlarge(self._starts)
            self._slots = np.full(2 * len(self._hashes), _EMPTY, np.int32)
            _fill_slots(self._slots, self._hashes, self._count)


def _enlarge(array: npt.NDArray[Any], extra: int = 0) -> npt.NDArray[Any]:
    """Returns a copy with twice the capacity plus `extra`."""
    larger = np.zeros(2 * len(array) + extra, array.dtype)
    larger[: len(array)] = array
    return larger


@compiled
def _intern(
    content: ByteArray,
    texts: IntArray,
    done: int,
    at_spaces: bool,
    factor: np.uint64,
    slots: SlotArray,
    hashes: HashArray,
    starts: IntArray,
    stored: ByteArray,
    count: int,
    numbers: IntArray,
    firsts: IntArray,
) -> tuple[int, int]:
    """Numbers texts or their words, starting with one text, until the capacity for strings is used up.

    It is a single loop, because a call of another function with these arrays costs as much as a look-up. It requires
    that the texts lie in `content`, that the number of slots is a power of two and larger than that of hashes, and that
    `numbers` has capacity for all words.

    Args:
        content: concatenated bytes of the texts.
        texts: offset of each text followed by the end of the last one, int64 [texts + 1].
        done: number of texts that are done. Some words of the next one may be stored already.
        at_spaces: whether texts are split into words.
        factor: odd.
        slots: numbers of strings, or `_EMPTY`.
        hashes: of the stored strings, with capacity for new ones.
        starts: offset in `stored` of each string followed by the end of the last one.
        stored: concatenated bytes of the stored strings.
        count: number of stored strings.
        numbers: output, the numbers of the words of all texts.
        firsts: output, the index of each text's first word followed by the number of words.

    Returns:
        The number of texts that are done, and the number of stored strings.
    """
    last_slot, word = len(slots) - 1, firsts[done]
    for text in range(done, len(texts) - 1):
        position, stop = texts[text], texts[text + 1]
        while True:
            while at_spaces and position < stop and _is_space(content[position]):
                position += 1
            if at_spaces and position == stop:
                break
            start, hashed = position, np.uint64(0)
            while position < stop and not (at_spaces and _is_space(content[position])):
                hashed = (hashed + np.uint64(content[position]) + _ONE) * factor
                position += 1
            slot, size = _slot(hashed, last_slot), position - start
            while slots[slot] != _EMPTY:
                number = slots[slot]
                first = starts[number]
                if hashes[number] == hashed and starts[number + 1] - first == size:
                    equal = 0
                    while equal < size and content[start + equal] == stored[first + equal]:
                        equal += 1
                    if equal == size:
                        break
                slot = (slot + 1) & last_slot
            if slots[slot] == _EMPTY:
                first = starts[count]
                if count == len(hashes) or first + size > len(stored):
                    return text, count
                stored[first : first + size] = content[start:position]
                starts[count + 1], hashes[count], slots[slot] = first + size, hashed, count
                count += 1
            numbers[word] = slots[slot]
            word += 1
            if position == stop:
                break
        firsts[text + 1] = word
    return len(texts) - 1, count


@compiled
def find(table: StringTable, content: ByteArray, start: int, stop: int) -> int:
    """Returns the number of a string, or -1 if it is not in the table.

    Args:
        table: of the interner.
        content: bytes that contain the string.
        start: offset of the string.
        stop: offset of its end.
    """
    hashed, last_slot = np.uint64(0), len(table.slots) - 1
    for index in range(start, stop):
        hashed = (hashed + np.uint64(content[index]) + _ONE) * table.factor
    slot = _slot(hashed, last_slot)
    while table.slots[slot] != _EMPTY:
        number = table.slots[slot]
        first = table.starts[number]
        if table.hashes[number] == hashed and table.starts[number + 1] - first == stop - start:
            equal = 0
            while equal < stop - start and content[start + equal] == table.content[first + equal]:
                equal += 1
            if equal == stop - start:
                return int(number)
        slot = (slot + 1) & last_slot
    return _EMPTY


@compiled
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@compiled
def _slot(hashed: np.uint64, last_slot: int) -> int:
    return int(np.int64((hashed ^ (hashed >> _HALF)) >> _QUARTER) & last_slot)


@compiled
def _fill_slots(slots: SlotArray, hashes: HashArray, count: int) -> None:
    """Puts the numbers of `count` strings into empty slots."""
    last_slot = len(slots) - 1
    for number in range(count):
        slot = _slot(hashes[number], last_slot)
        while slots[slot] != _EMPTY:
            slot = (slot + 1) & last_slot
        slots[slot] = number
