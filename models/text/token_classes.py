"""Finds the class of a token in compiled loops, as the patterns of `models.text.tokens.CLASS_PATTERNS` do.

Tokens are bytes in lower case that are ASCII, or ASCII with pound signs, without white space. Tests compare the loops
with the patterns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled
from models.text.tokens import CLASSES, CODE, EMAIL, MASKED_CODE, MASKED_PHONE, MONEY, NUMBER, PHONE, TOP_LEVEL, URL

ByteArray = npt.NDArray[np.uint8]

NO_CLASS = -1
URL_CLASS, EMAIL_CLASS, MONEY_CLASS, NUMBER_CLASS, CODE_CLASS, PHONE_CLASS = (
    CLASSES.index(name) for name in (URL, EMAIL, MONEY, NUMBER, CODE, PHONE)
)
_POINT, _COMMA, _COLON, _SLASH, _HYPHEN, _AT, _DOLLAR, _HASH = b".,:/-@$#"
_LEFT_POUND, _RIGHT_POUND = "£".encode()
_PREFIXES = np.array([b"https://", b"http://", b"www."])
_TOP_LEVELS = np.array(TOP_LEVEL.split("|"), bytes)
_PREFIX_BYTES, _TOP_LEVEL_BYTES = (
    names.view(np.uint8).reshape(len(names), -1) for names in (_PREFIXES, _TOP_LEVELS)
)  # padded with zeros
# Characters before the @ of an address that are neither letters nor digits.
_IN_NAMES = np.isin(np.arange(256), list(b"._%+-"))


@compiled
def find_class(text: ByteArray, start: int, stop: int) -> int:
    """Returns the index in `models.text.tokens.CLASSES` of the class of a token, or `NO_CLASS`."""
    is_word = is_number = True
    for index in range(start, stop):
        is_word &= _is_letter(text[index])
        is_number &= _is_digit(text[index]) or text[index] in (_POINT, _COMMA, _COLON)
    if is_word:
        return NO_CLASS
    if _is_email(text, start, stop):
        return EMAIL_CLASS
    if _is_url(text, start, stop):
        return URL_CLASS
    if _is_money(text, start, stop):
        return MONEY_CLASS
    masks = 0
    while masks < stop - start and text[stop - 1 - masks] == _HASH:
        masks += 1
    if masks < stop - start and _is_digit(text[stop - 1 - masks]):
        if masks == len(MASKED_PHONE):
            return PHONE_CLASS
        if masks == len(MASKED_CODE):
            return CODE_CLASS
    if masks == len(MASKED_CODE) == stop - start or (is_number and _is_digit(text[stop - 1])):
        return NUMBER_CLASS
    return NO_CLASS


@compiled
def _is_email(text: ByteArray, start: int, stop: int) -> bool:
    at = start
    while at < stop and (_is_alphanumeric(text[at]) or _IN_NAMES[text[at]]):
        at += 1
    return start < at < stop and text[at] == _AT and _count_labels(text, at + 1, stop) > 1


@compiled
def _is_url(text: ByteArray, start: int, stop: int) -> bool:
    for prefix in _PREFIX_BYTES:
        size = _size(prefix)
        if stop - start > size and _is_equal(text, start, start + size, prefix):
            return True
    end = start
    while end < stop and text[end] != _SLASH:
        end += 1
    point = end - 1
    while point > start and text[point] != _POINT:
        point -= 1
    if point <= start or not _count_labels(text, start, point):
        return False
    for name in _TOP_LEVEL_BYTES:  # noqa: SIM110 - compiled by Numba, which does not know any()
        if _is_equal(text, point + 1, end, name):
            return True
    return False


@compiled
def _is_money(text: ByteArray, start: int, stop: int) -> bool:
    first = start + 1
    if text[start] != _DOLLAR:
        first += 1
        if first > stop or text[start] != _LEFT_POUND or text[start + 1] != _RIGHT_POUND:
            return False
    return first < stop and _is_digit(text[first])


@compiled
def _count_labels(text: ByteArray, start: int, stop: int) -> int:
    """Counts the labels of a host name, `a.b-c.d`; 0 if it is none."""
    labels = size = 0
    for index in range(start, stop):
        if text[index] == _POINT:
            if not size:
                return 0
            labels, size = labels + 1, 0
        elif _is_alphanumeric(text[index]) or text[index] == _HYPHEN:
            size += 1
        else:
            return 0
    return labels + 1 if size else 0


@compiled
def _is_equal(text: ByteArray, start: int, stop: int, name: ByteArray) -> bool:
    """Returns whether text is a name that is padded with zeros."""
    if stop - start != _size(name):
        return False
    for index in range(stop - start):  # noqa: SIM110 - compiled by Numba, which does not know all()
        if text[start + index] != name[index]:
            return False
    return True


@compiled
def _size(name: ByteArray) -> int:
    size = 0
    while size < len(name) and name[size]:
        size += 1
    return size


@compiled
def _is_letter(byte: int) -> bool:
    return 97 <= byte <= 122


@compiled
def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57


@compiled
def _is_alphanumeric(byte: int) -> bool:
    return _is_letter(byte) or _is_digit(byte)
