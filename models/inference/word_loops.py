"""Compiled loops over the bytes of words: which need folding or the rules, how they are cut, and their flags."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled
from models.text.cleaning import TIE
from models.text.tokens import MASKED_CODE, MASKED_PHONE

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FlagArray = npt.NDArray[np.uint8]

# Kinds of characters, one bit each, by byte.
_LETTER, _DIGIT, _SIGN, _RUN_SIGN, _SEPARATOR, _NUMBER_SIGN, _CONTEXT = (1 << bit for bit in range(7))
_CHARACTERS = {
    _LETTER: b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    _DIGIT: b"0123456789",
    # In a word of letters, digits and these, each sign is a token, except in runs.
    _SIGN: b".,;:!?()\"'/=+%&*-",
    _RUN_SIGN: b"!?.*",
    _SEPARATOR: b"._*+-",  # of spaced-out letters
    _NUMBER_SIGN: b".,:",
    _CONTEXT: b"\x00\x01\t\n\v\f\r ",
}
_KINDS = np.zeros(256, np.uint8)
for _kind, _bytes in _CHARACTERS.items():
    _KINDS[list(_bytes)] |= np.uint8(_kind)
_ALPHANUMERIC = _LETTER | _DIGIT
_UNDERSCORE, _APOSTROPHE, _AMPERSAND, _COLON, _POINT, _HYPHEN, _DOLLAR, _HASH, _SPACE = b"_'&:.-$# "
_LEFT_POUND, _RIGHT_POUND = "£".encode()
_LEFT_YEN, _RIGHT_YEN = "¥".encode()
_LEFT_TIE, _MIDDLE_TIE, _ = TIE.encode()
_LEFT_CURRENCY, _MIDDLE_CURRENCY, _ = "€".encode()  # as of all characters of the block of currency signs
_WWW, _HTTP, _HTTPS = (np.frombuffer(letters, np.uint8) for letters in (b"www", b"http", b"https"))
_LOWER_CASE = 0x20  # bit of an ASCII letter
# In UTF-8 every byte of a character except the first is 10xxxxxx.
_TOP_BITS, _CONTINUATION, _NON_ASCII = 0xC0, 0x80, 0x80
# Numbers with at least so many digits are masked after the first three, as in `models.text.cleaning.LONG_NUMBERS`.
_MIN_LONG_DIGITS, _MIN_PHONE_DIGITS, _KEPT_DIGITS = 5, 7, 3

# Flags, one bit each: how a word interacts with its neighbours.
NEEDS_CONTEXT = 1  # its tokens depend on the words before or after it
ENDS_IN_CURRENCY = 2  # its tokens change if the next word starts with a digit
STARTS_WITH_DIGIT = 4
MAY_BE_SPACED = 8  # it may belong to spaced-out letters, `f.r e.e`
IS_LETTER = 16  # it may be a single letter
LETTER_AT_EDGE = 32  # it may start or end spaced-out letters

BY_RULES = -1  # instead of a number of tokens


@compiled
def find_not_plain(content: ByteArray, starts: IntArray, not_plain: BoolArray) -> None:
    """Finds words with a character that `models.text.cleaning` calls not plain."""
    for word in range(len(starts) - 1):
        index, stop = starts[word], starts[word + 1]
        while index < stop:
            if _is_pound(content, index, stop):
                index += 1
            elif not 32 <= content[index] < 127 or content[index] == _AMPERSAND:
                not_plain[word] = True
            index += 1


@compiled
def decode_words(content: ByteArray, starts: IntArray, codes: npt.NDArray[np.int32], sizes: IntArray) -> None:
    """Decodes folded words: a space and the code points of each word; nothing of an empty word.

    Args:
        content: concatenated bytes of the words, valid UTF-8.
        starts: offset of each word followed by the end of the last one.
        codes: output, with capacity for the bytes and a space for each word.
        sizes: output, number of codes of each word.
    """
    count = 0
    for word in range(len(starts) - 1):
        first = count
        for index in range(starts[word], starts[word + 1]):
            byte = np.int32(content[index])
            if byte & _TOP_BITS == _CONTINUATION:
                codes[count - 1] = codes[count - 1] << 6 | byte & 0x3F
                continue
            if count == first:
                codes[count] = _SPACE
                count += 1
            # The first byte of a character of two, three or four bytes has five, four or three bits of it.
            bits = 0x7F if byte < 0xC0 else 0x1F if byte < 0xE0 else 0x0F if byte < 0xF0 else 0x07
            codes[count] = byte & bits
            count += 1
        sizes[word] = count - first


@compiled
def _is_pound(content: ByteArray, index: int, stop: int) -> bool:
    return content[index] == _LEFT_POUND and index + 1 < stop and content[index + 1] == _RIGHT_POUND


@compiled
def cut_words(
    content: ByteArray,
    starts: IntArray,
    firsts: IntArray,
    sizes: IntArray,
    flags: FlagArray,
    tokens: ByteArray,
    token_starts: IntArray,
) -> int:
    """Finds the flags of folded words, and cuts those that need no rule.

    Args:
        content: concatenated bytes of the words.
        starts: offset of each word followed by the end of the last one.
        firsts: output, index of each word's first token.
        sizes: output, number of tokens of each word, or `BY_RULES`.
        flags: output, flags of each word.
        tokens: output, concatenated bytes of the tokens.
        token_starts: output, offset of each token followed by the end of the last one.

    Returns:
        The number of tokens.
    """
    count = 0
    for word in range(len(starts) - 1):
        start, stop = starts[word], starts[word + 1]
        flags[word] = _find_flags(content, start, stop)
        firsts[word] = count
        if _is_single(content, start, stop):
            token_starts[count + 1] = _copy_masked(content, start, stop, tokens, token_starts[count])
            count += 1
        elif _needs_rules(content, start, stop):
            sizes[word] = BY_RULES
            continue
        else:
            count = _cut_at_signs(content, start, stop, tokens, token_starts, count)
        sizes[word] = count - firsts[word]
    return count


@compiled
def _is_single(content: ByteArray, start: int, stop: int) -> bool:
    """Returns whether a word is one token: letters and digits, an amount of money, or a number with points.

    It is unchanged except for a long number, of which it contains at most one. A single letter may belong to spaced-out
    letters. Amounts of money, and numbers with points, are left to the rules if they contain a long number.
    """
    letters, digits, run, long_runs, index = 0, 0, 0, 0, start
    while index < stop and _KINDS[content[index]] & _ALPHANUMERIC:
        is_digit = _KINDS[content[index]] & _DIGIT != 0
        run = run + 1 if is_digit else 0
        long_runs += run == _MIN_LONG_DIGITS
        digits, letters, index = digits + is_digit, letters + (not is_digit), index + 1
    if index == stop:
        return long_runs <= 1 if digits else letters > 1
    index, groups, is_money = start, 0, True
    if content[start] == _DOLLAR:
        index += 1
    elif _is_pound(content, start, stop):
        index += 2
    else:
        is_money = False
    run = 1
    while run:
        run = 0
        while index + run < stop and _KINDS[content[index + run]] & _DIGIT:
            run += 1
        if not 1 <= run < _MIN_LONG_DIGITS:
            return False
        groups, index = groups + 1, index + run
        if index < stop and _KINDS[content[index]] & _NUMBER_SIGN and not (is_money and content[index] == _COLON):
            index += 1
        else:
            run = 0
    while index < stop and _KINDS[content[index]] & _LETTER:
        index += 1
    return index == stop and (is_money or groups > 1)


@compiled
def _needs_rules(content: ByteArray, start: int, stop: int) -> bool:
    """Returns whether a word may not be cut where letters and digits meet signs.

    So it is with other characters than these, a number with points, a long number before a letter, an apostrophe
    between letters, a part of an address, and spaced-out letters.
    """
    before = second = third = 0  # kinds of the last three characters
    run = 0  # of digits
    for index in range(start, stop):
        byte, kind = content[index], _KINDS[content[index]]
        if not kind & (_ALPHANUMERIC | _SIGN):
            return True
        last = content[index - 1] if index > start else 0
        if kind & _LETTER:
            if run >= _MIN_LONG_DIGITS or (last == _APOSTROPHE and second & _LETTER):
                return True
            if last == _POINT and (second & _ALPHANUMERIC or (index - 2 >= start and content[index - 2] == _HYPHEN)):
                return True
        if kind & _DIGIT and before & _NUMBER_SIGN and second & _DIGIT:
            return True
        if kind & _SEPARATOR and before & _LETTER and second & _SEPARATOR and third & _LETTER:
            return True
        if (byte == _POINT and _ends_with(content, start, index, _WWW)) or (
            byte == _COLON and (_ends_with(content, start, index, _HTTP) or _ends_with(content, start, index, _HTTPS))
        ):
            return True
        run = run + 1 if kind & _DIGIT else 0
        before, second, third = kind, before, second
    return False


@compiled
def _ends_with(content: ByteArray, start: int, stop: int, letters: ByteArray) -> bool:
    """Returns whether text ends with lower-case letters, in any case."""
    first = stop - len(letters)
    if first < start:
        return False
    for index in range(len(letters)):  # noqa: SIM110 - compiled by Numba, which does not know all()
        if content[first + index] | _LOWER_CASE != letters[index]:
            return False
    return True


@compiled
def _cut_at_signs(
    content: ByteArray,
    start: int,
    stop: int,
    tokens: ByteArray,
    token_starts: IntArray,
    count: int,
) -> int:
    """Cuts a word where letters and digits meet signs, after `count` tokens. Returns the new number of tokens.

    A sign is a token. A run of the same sign becomes one token of its first two, for signs that form runs.
    """
    while start < stop:
        end, position = start + 1, token_starts[count]
        if _KINDS[content[start]] & _ALPHANUMERIC:
            while end < stop and _KINDS[content[end]] & _ALPHANUMERIC:
                end += 1
            position = _copy_masked(content, start, end, tokens, position)
        else:
            while _KINDS[content[start]] & _RUN_SIGN and end < stop and content[end] == content[start]:
                end += 1
            for index in range(start, min(end, start + 2)):
                tokens[position] = content[index]
                position += 1
        count += 1
        token_starts[count], start = position, end
    return count


@compiled
def _copy_masked(content: ByteArray, start: int, stop: int, output: ByteArray, position: int) -> int:
    """Copies a token to `position`, and masks long numbers as `models.text.cleaning.LONG_NUMBERS` does.

    Returns the position after it. No token gets longer.
    """
    while start < stop:
        digits = 0
        while start + digits < stop and _KINDS[content[start + digits]] & _DIGIT:
            digits += 1
        keep, marks = digits, 0
        if digits >= _MIN_LONG_DIGITS:
            keep, marks = _KEPT_DIGITS, len(MASKED_PHONE) if digits >= _MIN_PHONE_DIGITS else len(MASKED_CODE)
        for offset in range(max(keep, 1)):  # not a digit: the character itself
            output[position] = content[start + offset]
            position += 1
        for _ in range(marks):
            output[position] = _HASH
            position += 1
        start += max(digits, 1)
    return position


@compiled
def _find_flags(content: ByteArray, start: int, stop: int) -> int:
    """Finds the flags of a folded word. Any character outside ASCII, except £, is taken for a letter."""
    flags = characters = 0
    has_other = has_separator = False
    index = start
    while index < stop:
        byte, kind = content[index], _KINDS[content[index]]
        characters += 1
        if kind & _CONTEXT:
            flags |= NEEDS_CONTEXT
        has_separator |= kind & _SEPARATOR != 0
        # Two letters without a letter or digit next to them or an underscore before them. An underscore may follow,
        # with a third letter after it: `f_r_e`.
        if (
            kind & _SEPARATOR
            and _is_edge(content, index - 2, start, stop)
            and start < index < stop - 1
            and _KINDS[content[index - 1]] & _KINDS[content[index + 1]] & _LETTER
            and (index + 2 == stop or not _KINDS[content[index + 2]] & _ALPHANUMERIC)
        ):
            flags |= MAY_BE_SPACED
        index += 1
        if byte >= _NON_ASCII:
            is_pound = _is_pound(content, index - 1, stop)
            has_other |= not is_pound
            if stop - index >= 2 and byte == _LEFT_TIE and content[index] == _MIDDLE_TIE:
                flags |= NEEDS_CONTEXT
            while index < stop and content[index] & _TOP_BITS == _CONTINUATION:
                index += 1
    if start < stop:
        first, last = _KINDS[content[start]], _KINDS[content[stop - 1]]
        flags |= STARTS_WITH_DIGIT if first & _DIGIT else 0
        flags |= ENDS_IN_CURRENCY if _ends_in_currency(content, start, stop) else 0
        is_edge = (first & _LETTER and _is_edge(content, start + 1, start, stop)) or (
            last & _LETTER and _is_edge(content, stop - 2, start, stop)
        )
        flags |= LETTER_AT_EDGE if has_other or is_edge else 0
        flags |= IS_LETTER if characters == 1 and (has_other or first & _LETTER) else 0
        flags |= MAY_BE_SPACED if has_other and has_separator else 0
    return flags


@compiled
def _is_edge(content: ByteArray, index: int, start: int, stop: int) -> bool:
    """Returns whether an index is outside the word, or that of a character other than ASCII letters, digits and _."""
    return not start <= index < stop or not (_KINDS[content[index]] & _ALPHANUMERIC or content[index] == _UNDERSCORE)


@compiled
def _ends_in_currency(content: ByteArray, start: int, stop: int) -> bool:
    """Returns whether a word ends in $, £, ¥ or a character of the block of currency signs."""
    if content[stop - 1] == _DOLLAR or (stop - start >= 2 and _is_pound(content, stop - 2, stop)):
        return True
    is_yen = stop - start >= 2 and content[stop - 2] == _LEFT_YEN and content[stop - 1] == _RIGHT_YEN
    is_in_block = stop - start >= 3 and content[stop - 3] == _LEFT_CURRENCY and content[stop - 2] == _MIDDLE_CURRENCY
    return is_yen or is_in_block
