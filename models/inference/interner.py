"""Strings to numbers and back ("interning"): each string that came is kept once, and its number is its place."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.arrow_strings import bytes_of, strings_of
from models.hashing.compiled import compiled

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
SlotArray = npt.NDArray[np.int32]

_FEWEST = 2**12  # strings that there is room for
_NOBODY = -1
_ONE, _QUARTER, _HALF = np.uint64(1), np.uint64(16), np.uint64(32)


class Interner:
    """Distinct strings, numbered from 0 in the order they came in.

    A hash table with linear probing, at most half full. The hash is a polynomial of the bytes in an odd number that
    each table draws for itself, so that who writes messages does not know which words share a slot. Two strings are
    one only if every byte is the same.
    """

    def __init__(self) -> None:
        self._factor = np.uint64(secrets.randbits(64) | 1)
        self._known = 0
        self._slots = np.full(2 * _FEWEST, _NOBODY, np.int32)
        self._hashes = np.zeros(_FEWEST, np.uint64)
        self._starts = np.zeros(_FEWEST + 1, np.int64)
        self._content = np.zeros(8 * _FEWEST, np.uint8)

    def __len__(self) -> int:
        return self._known

    def numbers(self, content: ByteArray, starts: IntArray) -> IntArray:
        """Numbers of strings, int64 [strings]; those that are not known get the next ones.

        Args:
            content: bytes of the strings, one behind another.
            starts: where each begins and the last ends, int64 [strings + 1].
        """
        numbers = np.empty(len(starts) - 1, np.int64)
        self._intern(content, starts, False, numbers, np.zeros_like(starts))
        return numbers

    def numbers_of_words(self, content: ByteArray, starts: IntArray) -> tuple[IntArray, IntArray]:
        """The same of the words of texts: of what white space of ASCII sets apart.

        Args:
            content: bytes of the texts, one behind another.
            starts: where each begins and the last ends, int64 [texts + 1].

        Returns:
            Numbers, int64 [words], and where those of each text begin and the last ends, int64 [texts + 1].
        """
        numbers, firsts = np.empty((len(content) + len(starts)) // 2, np.int64), np.zeros_like(starts)
        self._intern(content, starts, True, numbers, firsts)
        return numbers[: firsts[-1]], firsts

    def _intern(
        self, content: ByteArray, starts: IntArray, at_spaces: bool, numbers: IntArray, firsts: IntArray
    ) -> None:
        done, texts = 0, len(starts) - 1
        while done < texts:
            room = self._slots, self._hashes, self._starts, self._content
            done, self._known = _intern(
                content, starts, done, at_spaces, self._factor, *room, self._known, numbers, firsts
            )
            if done < texts:
                self._grow(int(starts[done + 1] - starts[done]))

    def strings(self, first: int = 0) -> pa.Array:
        """The strings by number, from one on, as Arrow's; whether they are UTF-8 is not looked at.

        Args:
            first: the first number wanted.
        """
        starts = self._starts[first : self._known + 1]
        return strings_of(self._content[starts[0] : starts[-1]], starts[:-1] - starts[0])

    def some(self, numbers: IntArray) -> Interner:
        """Some of the strings, numbered anew.

        Args:
            numbers: theirs, each once, int64 [strings]; the first of them becomes number 0.
        """
        few = Interner()
        content, starts = bytes_of(self.strings().take(pa.array(numbers)))
        few.numbers(content, starts)
        return few

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Within, an error forgets the strings that are new."""
        known = self._known
        try:
            yield
        except BaseException:
            self._known = known
            self._slots.fill(_NOBODY)
            _place(self._slots, self._hashes, known)
            raise

    def _grow(self, size: int) -> None:
        """Makes room for a string of so many bytes; what was handed out is not written over."""
        if self._starts[self._known] + size > len(self._content):
            self._content = _enlarged(self._content, size)
        if self._known == len(self._hashes):
            self._hashes, self._starts = _enlarged(self._hashes), _enlarged(self._starts)
            self._slots = np.full(2 * len(self._hashes), _NOBODY, np.int32)
            _place(self._slots, self._hashes, self._known)


def _enlarged(array: npt.NDArray[Any], least: int = 0) -> npt.NDArray[Any]:
    """A copy with room for as much again, and for `least` more at least."""
    wider = np.zeros(2 * len(array) + least, array.dtype)
    wider[: len(array)] = array
    return wider


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
    kept: ByteArray,
    known: int,
    numbers: IntArray,
    firsts: IntArray,
) -> tuple[int, int]:
    """Numbers texts or their words, from one text on, until there is no room for a string.

    One loop, for to call another with these arrays costs as much as to find a word. Takes for granted that texts lie in
    `content`, that slots are a power of two and more than hashes, and that `numbers` has room for all words.

    Args:
        content: bytes of the texts, one behind another.
        texts: where each begins and the last ends, int64 [texts + 1].
        done: how many texts are; of the words of the next one some may be known.
        at_spaces: whether texts are cut into words.
        factor: odd.
        slots: numbers of strings, or `_NOBODY`.
        hashes: of the strings that are known; has room for those that are not.
        starts: where each begins in `kept`, and the last ends.
        kept: bytes of the strings, one behind another.
        known: how many there are.
        numbers: takes those of the words, one text after another.
        firsts: takes where those of each text begin and the last ends.

    Returns:
        How many texts are done, and how many strings are known then.
    """
    last_slot, word = len(slots) - 1, firsts[done]
    for text in range(done, len(texts) - 1):
        at, end = texts[text], texts[text + 1]
        while True:
            while at_spaces and at < end and _is_space(content[at]):
                at += 1
            if at_spaces and at == end:
                break
            begin, hashed = at, np.uint64(0)
            while at < end and not (at_spaces and _is_space(content[at])):
                hashed = (hashed + np.uint64(content[at]) + _ONE) * factor
                at += 1
            slot, size = _slot(hashed, last_slot), at - begin
            while slots[slot] != _NOBODY:
                number = slots[slot]
                first = starts[number]
                if hashes[number] == hashed and starts[number + 1] - first == size:
                    same = 0
                    while same < size and content[begin + same] == kept[first + same]:
                        same += 1
                    if same == size:
                        break
                slot = (slot + 1) & last_slot
            if slots[slot] == _NOBODY:
                first = starts[known]
                if known == len(hashes) or first + size > len(kept):
                    return text, known
                kept[first : first + size] = content[begin:at]
                starts[known + 1], hashes[known], slots[slot] = first + size, hashed, known
                known += 1
            numbers[word] = slots[slot]
            word += 1
            if at == end:
                break
        firsts[text + 1] = word
    return len(texts) - 1, known


@compiled
def _is_space(sign: int) -> bool:
    return sign == 32 or 9 <= sign <= 13


@compiled
def _slot(hashed: np.uint64, last_slot: int) -> int:
    return int(np.int64((hashed ^ (hashed >> _HALF)) >> _QUARTER) & last_slot)


@compiled
def _place(slots: SlotArray, hashes: HashArray, known: int) -> None:
    """Puts the numbers of strings that are known into empty slots."""
    last_slot = len(slots) - 1
    for number in range(known):
        slot = _slot(hashes[number], last_slot)
        while slots[slot] != _NOBODY:
            slot = (slot + 1) & last_slot
        slots[slot] = number
