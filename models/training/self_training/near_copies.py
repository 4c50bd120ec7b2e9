"""Finds near copies of messages: texts that differ in numbers, addresses, case, signs or a few words.

The text in small letters, with numbers and addresses masked, is one key of a message. The others are MinHash signatures
of its runs of three words (Broder 1997, "On the resemblance and containment of documents"), in bands as in Leskovec,
Rajaraman and Ullman 2014, "Mining of Massive Datasets", 3.4. Two messages are near copies if they share a key. Messages
that share half of their runs do so with probability 0.68, those that share 0.8 with 0.98.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from models.text.lookalikes import fold_character

_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+|\b(?:[a-z0-9-]+\.)+[a-z]{2,}\b(?:/\S*)?")
_NUMBER = re.compile(r"\d(?:[\d\s.,:/+-]*\d)?")
_WORD = re.compile(r"[^\W_]+|[\0\1]")
_ADDRESS_MASK, _NUMBER_MASK = " \0 ", " \1 "
_RUN = 3  # words
_BANDS, _ROWS = 4, 2
_PRIME = 2**31 - 1
_fold = functools.cache(fold_character)


def near_copy_keys(text: str) -> set[str | int]:
    """Returns the keys of a message; two messages that share one are near copies."""
    masked = mask_text(text)
    words = masked.split()
    if len(words) <= _RUN:
        return {masked}
    runs = {" ".join(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}
    return {masked, *_band_keys(np.array([zlib.crc32(run.encode()) for run in runs], np.uint64))}


def mask_text(text: str) -> str:
    """Returns the words of a message in small letters, look-alikes folded, numbers and addresses masked.

    A message without any word is returned as it is, without white space around it.
    """
    folded = "".join(map(_fold, text)).casefold()
    masked = _NUMBER.sub(_NUMBER_MASK, _ADDRESS.sub(_ADDRESS_MASK, folded))
    return " ".join(_WORD.findall(masked)) or text.strip()


def _band_keys(runs: npt.NDArray[np.uint64]) -> list[int]:
    """Returns a key for each band: its number and the smallest hashes of the runs by the hash functions of the band."""
    smallest = ((runs * _FACTORS + _OFFSETS) % np.uint64(_PRIME)).min(axis=1).reshape(_BANDS, _ROWS)
    return [
        (band << 62) | (first << 31) | second for band, (first, second) in enumerate(smallest.tolist())
    ]  # the two hashes have 31 bits each


_GENERATOR = np.random.default_rng(0)
_FACTORS, _OFFSETS = (_GENERATOR.integers(1, _PRIME, (_BANDS * _ROWS, 1)).astype(np.uint64) for _ in range(2))


def collect_keys(texts: Iterable[str]) -> set[str | int]:
    """Returns the keys of all messages."""
    return {key for text in texts for key in near_copy_keys(text)}


def find_first_copies(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns for each message whether none before it is a near copy of it, bool [messages]."""
    seen: set[str | int] = set()
    first = np.ones(len(texts), np.bool_)
    for index, text in enumerate(texts):
        keys = near_copy_keys(text)
        first[index] = seen.isdisjoint(keys)
        seen |= keys
    return first


def find_copies(texts: Sequence[str], keys: set[str | int]) -> npt.NDArray[np.bool_]:
    """Returns for each message whether it shares a key with the messages of `collect_keys`, bool [messages]."""
    return np.array([not keys.isdisjoint(near_copy_keys(text)) for text in texts], np.bool_)
