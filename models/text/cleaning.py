"""Cleans raw messages with TensorFlow operations. All text enters the project through this module.

Training, batch scoring and the exported SavedModel run the same code, so it contains no Python per message. A cleaned
message is its tokens separated by single spaces: words as they were written, whole addresses and amounts of money, and
signs. Numbers of five or more digits keep three digits and a mask for the others: 871## or 084####. Spaced-out letters
are joined and marked with a tie.
"""

from __future__ import annotations

import html.entities
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from models.settings import TextSettings
from models.text.lookalikes import CODE_POINTS, PAGE, folding_table
from models.text.tokens import CURRENCY, EMAIL_PATTERN, MASKED_CODE, MASKED_PHONE, URL_PATTERN

# Bytes of a message that are read, per character of [text] max_characters. Many, so that invisible characters in front
# of a message do not hide it; limited, so that a message of a megabyte does not stop the nightly run.
_BYTES_PER_CHARACTER = 64
# A message with nothing to fold: ASCII and pound signs, without control characters and without the start of an entity.
_PLAIN = r"[ -%'-~£]*"
NOT_PLAIN = r"[^ -%'-~£]"
# Marks joined letters: `f r e e` becomes `⁀free`. Editors mark joined letters with a tie.
TIE = "\u2040"
_SPACED = r"\b((?:\pL[ ._*+-]){3,}\pL)\b"
# No token may be the number of a person or a company. Three digits show what kind of number it is.
LONG_NUMBERS = ((r"(\d{3})\d{4,}", r"\1" + MASKED_PHONE), (r"(\d{3})\d{2,3}", r"\1" + MASKED_CODE))
SIGNAL_RULES: tuple[tuple[str, str], ...] = (
    (r"(?i)<(?:#|decimal|time)>", " " + MASKED_CODE + " "),  # placeholders for numbers in anonymised corpora
    (r"([\pL\pM])'([\pL\pM])", r"\1\2"),
    (r"(" + CURRENCY + r")\s(\d)", r"\1\2"),
    *LONG_NUMBERS,
    (
        EMAIL_PATTERN + "|" + URL_PATTERN + "|" + CURRENCY + r"\d[\d.,#]*[\pL]*|\d+(?:[.,:]\d+)+\pL*|"
        r"\p{Han}|\p{Hiragana}|\p{Katakana}|\p{Thai}|" + TIE + r"?[\pL\pM\pN]+(?:#{2,})?[\pL\pM\pN]*|##|"
        r"!+|\?+|\.{2,}|\*{2,}|[^\s\pL\pN\pM]",
        r" \0 ",
    ),
    (r"(\S)" + TIE, r"\1"),  # an address with spaced-out letters stays whole, and a tie is only at the start of a token
    (r"(!!|\?\?|\.\.|\*\*)[!?.*]+", r"\1"),
)  # fmt: skip


class TextCleaner(tf.Module):
    """Cleans messages: `cleaner(texts)` takes and returns string tensors of shape [messages].

    Bytes that are not UTF-8 become U+FFFD. HTML entities are decoded once. Look-alikes and other characters are folded
    to what a reader sees (`models.text.lookalikes`). Then the rules of the chosen cleaning apply. The result is
    deterministic, and a message does not affect the others.
    """

    def __init__(self, settings: TextSettings) -> None:
        super().__init__(name="text_cleaner")
        self.settings = settings
        self._folding = _Folding()
        self._entities = _Entities()

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Cleans a batch of messages.

        Args:
            texts: string [messages], any bytes.

        Returns:
            string [messages], UTF-8, tokens separated by single spaces; empty where nothing is left.
        """
        return tf.strings.strip(tf.strings.regex_replace(self.separate(self.fold(texts)), r"\s+", " "))

    def fold(self, texts: tf.Tensor) -> tf.Tensor:
        """Runs the first half of the cleaning: makes UTF-8 valid, decodes entities and folds characters.

        Messages without a `NOT_PLAIN` character stay as they are. Each character is folded independently, so any part
        of a message without entities may be folded alone.
        """
        texts = tf.strings.substr(texts, 0, max_bytes(self.settings), unit="BYTE")
        return _where_matches(texts, _PLAIN, otherwise=self._decode)

    def separate(self, folded: tf.Tensor) -> tf.Tensor:
        """Runs the second half: splits folded messages into tokens separated by white space."""
        return self._letters(folded) if self.settings.cleaning == "letters" else self._signal(folded)

    def _decode(self, texts: tf.Tensor) -> tf.Tensor:
        """Makes UTF-8 valid, decodes entities and folds characters, for messages that are not `_PLAIN`."""
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        texts = _where_matches(texts, r"[^&]*", otherwise=self._entities)
        return self._folding(texts)

    def join_letters(self, folded: tf.Tensor) -> tf.Tensor:
        """Cuts folded messages to [text] max_characters, and joins spaced-out letters, which get a tie in front.

        With [text] cleaning = letters, keeps letters and white space only instead.
        """
        if self.settings.cleaning == "letters":
            return self._letters(folded)
        texts = tf.strings.substr(folded, 0, self.settings.max_characters, unit="UTF8_CHAR")
        texts = tf.strings.regex_replace(texts, "[\x00" + TIE + "]", " ")
        return _where_matches(texts, r"(?s:.*)" + _SPACED + r"(?s:.*)", then=_join_spaced)

    def _signal(self, texts: tf.Tensor) -> tf.Tensor:
        texts = self.join_letters(texts)
        for pattern, replacement in SIGNAL_RULES:
            texts = tf.strings.regex_replace(texts, pattern, replacement)
        return texts

    def _letters(self, texts: tf.Tensor) -> tf.Tensor:
        """Keeps letters and white space only: the usual cleaning of textbooks."""
        texts = tf.strings.substr(texts, 0, self.settings.max_characters, unit="UTF8_CHAR")
        return tf.strings.lower(tf.strings.regex_replace(texts, r"[^\pL\pM\s]+", ""), encoding="utf-8")


def clean_texts(texts: Sequence[str], settings: TextSettings, batch_size: int = 10_000) -> list[str]:
    """Cleans messages outside a graph.

    Args:
        texts: messages. Lone surrogates are read as U+FFFD.
        settings: the cleaning to use.
        batch_size: number of messages per call.

    Returns:
        The cleaned messages, in order.
    """
    cleaner = compile_graph(TextCleaner(settings))
    cleaned: list[str] = []
    for first in range(0, len(texts), batch_size):
        batch = tf.constant(encode_utf8(texts[first : first + batch_size]), dtype=tf.string)
        cleaned += [text.decode() for text in cleaner(batch).numpy()]
    return cleaned


def compile_graph(function: Callable[..., Any], arguments: int = 1) -> Any:
    """Wraps a function of string tensors of shape [any] as a TensorFlow function that is traced once for all calls."""
    strings = [tf.TensorSpec([None], tf.string)] * arguments
    return tf.function(function, input_signature=strings, autograph=False)


def max_bytes(settings: TextSettings) -> int:
    """Returns the number of bytes of a message that are read. Callers may drop all bytes after them to save memory."""
    return _BYTES_PER_CHARACTER * settings.max_characters


def encode_utf8(texts: Sequence[str]) -> list[bytes]:
    """Encodes messages as UTF-8, with lone surrogates, which UTF-8 cannot encode, replaced by U+FFFD."""
    return [
        text.encode() if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        for text in texts
    ]


def _where_matches(
    texts: tf.Tensor,
    pattern: str,
    then: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    otherwise: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """Applies `then` to the messages that fully match the pattern, or `otherwise` to the others; the order stays."""
    matches = tf.strings.regex_full_match(texts, pattern)
    rows, apply = (tf.where(tf.logical_not(matches)), otherwise) if then is tf.identity else (tf.where(matches), then)
    return tf.cond(
        tf.size(rows) > 0,
        lambda: tf.tensor_scatter_nd_update(texts, rows, apply(tf.gather_nd(texts, rows))),
        lambda: texts,
    )


def _join_spaced(texts: tf.Tensor) -> tf.Tensor:
    """Joins spaced-out letters as in `f r e e`.

    Args:
        texts: string [messages], without U+0000, which is the separator here.
    """
    cut = tf.strings.regex_replace(texts, _SPACED, "\x00" + TIE + r"\1" + "\x00")
    pieces = tf.strings.split(cut, "\x00")
    joined = tf.strings.regex_replace(pieces.flat_values, r"[ ._*+-]", "")
    is_run = tf.strings.regex_full_match(pieces.flat_values, TIE + "(?s:.*)")
    whole = pieces.with_flat_values(tf.where(is_run, joined, pieces.flat_values))
    return tf.strings.reduce_join(whole, axis=1)


class _Folding(tf.Module):
    """Folds whole messages as `models.text.lookalikes.fold_character` folds a character.

    It takes one gather in a paged table and one in the expansions.
    """

    def __init__(self) -> None:
        super().__init__(name="folding")
        table = folding_table()
        self._page_block = table.page_block
        self._blocks = table.blocks.reshape(-1)
        self._lengths, self._starts, self._values = (
            table.expansion_lengths, table.expansion_starts, table.expansion_values,
        )  # fmt: skip

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Folds messages, string [messages] of valid UTF-8."""
        characters = tf.strings.unicode_decode(texts, "UTF-8")
        codes = characters.flat_values
        offset = tf.gather(tf.constant(self._page_block), codes // PAGE) * PAGE + codes % PAGE
        entries = codes + tf.gather(tf.constant(self._blocks), offset)
        expansion = tf.maximum(entries - CODE_POINTS, 0)
        lengths = tf.where(entries >= CODE_POINTS, tf.gather(tf.constant(self._lengths), expansion), 1)
        lengths = tf.where(entries < 0, 0, lengths)
        return tf.strings.unicode_encode(self._expand(characters, entries, expansion, lengths), "UTF-8")

    def _expand(
        self, characters: tf.RaggedTensor, entries: tf.Tensor, expansion: tf.Tensor, lengths: tf.Tensor
    ) -> tf.RaggedTensor:
        """Repeats each entry once per code point of its expansion, then replaces the repeats by these code points."""
        offsets = tf.range(tf.reduce_sum(lengths)) - tf.repeat(tf.cumsum(lengths, exclusive=True), lengths)
        indices = tf.repeat(tf.gather(tf.constant(self._starts), expansion), lengths) + offsets
        repeated = tf.repeat(entries, lengths)
        values = tf.gather(tf.constant(self._values), tf.minimum(indices, len(self._values) - 1))
        folded = tf.where(repeated >= CODE_POINTS, values, repeated)
        rows = tf.reduce_sum(characters.with_flat_values(lengths), axis=1)
        return tf.RaggedTensor.from_row_lengths(folded, tf.cast(rows, tf.int64), validate=False)


class _Entities(tf.Module):
    """Decodes HTML entities that end in a semicolon, once: `&amp;lt;` becomes `&lt;`.

    A message is split at its entities, each entity is looked up or computed, and the pieces are joined again.
    """

    _PATTERN = r"&(#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]{1,31});"
    # U+0000 separates pieces and U+0001 marks an entity; both are removed from the message first.
    _CUT, _ENTITY = "\x00", "\x01"

    def __init__(self) -> None:
        super().__init__(name="entities")
        named = {name.removesuffix(";"): text for name, text in html.entities.html5.items() if name.endswith(";")}
        self._names = sorted(named)
        self._texts = [named[name] for name in self._names]
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(self._names), tf.range(len(self._names), dtype=tf.int64), tf.string, tf.int64
            ),
            default_value=-1,
        )

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Decodes the entities of messages, string [messages] of valid UTF-8."""
        texts = tf.strings.regex_replace(texts, r"[\x00\x01]", " ")
        cut = tf.strings.regex_replace(texts, self._PATTERN, self._CUT + self._ENTITY + r"\1" + self._CUT)
        pieces = tf.strings.split(cut, self._CUT)
        decoded = _where_matches(pieces.flat_values, "[^" + self._ENTITY + "](?s:.*)|", otherwise=self._decode)
        return tf.strings.reduce_join(pieces.with_flat_values(decoded), axis=1)

    def _decode(self, pieces: tf.Tensor) -> tf.Tensor:
        """Decodes entities, string [entities], each with its mark in front. Unknown names stay as written."""
        names = tf.strings.regex_replace(pieces, "^" + self._ENTITY, "")
        row = self._table.lookup(names)
        named = tf.gather(tf.constant(self._texts), tf.maximum(row, 0))
        as_written = tf.strings.join(["&", names, ";"])
        decoded = tf.where(row >= 0, named, as_written)
        return _where_matches(decoded, r"(?s:[^&].*)|&|&[^#](?s:.*)", otherwise=self._decode_number)

    def _decode_number(self, written: tf.Tensor) -> tf.Tensor:
        """Decodes numeric entities such as `&#39;` and `&#x27;`, string [entities].

        Numbers that are not characters become U+FFFD. Control characters and noncharacters are dropped, as in HTML
        parsers.
        """
        is_hexadecimal = tf.strings.regex_full_match(written, r"&#[xX].*")
        digits = tf.strings.regex_replace(written, r"^&#[xX]?0*|;$", "")
        # Seven digits suffice for every character, and longer numbers would not fit an integer.
        digits = tf.where(tf.strings.regex_full_match(digits, r".{1,7}"), digits, "0")
        decimal = tf.strings.to_number(tf.where(is_hexadecimal, "0", digits), tf.int64)
        code = tf.where(is_hexadecimal, self._parse_hexadecimal(tf.where(is_hexadecimal, digits, "0")), decimal)
        is_character = (code > 0) & (code < CODE_POINTS) & ((code < 0xD800) | (code >= 0xE000))
        code_point = tf.cast(tf.where(is_character, code, 0xFFFD), tf.int32)
        return tf.where(self._is_dropped(code), "", tf.strings.unicode_encode(code_point[:, tf.newaxis], "UTF-8"))

    @staticmethod
    def _is_dropped(code: tf.Tensor) -> tf.Tensor:
        """Returns which codes are control characters or noncharacters that are dropped.

        Codes 0x80 to 0x9F are kept, because they mean Windows-1252; see `fold_character`.
        """
        space = (code == 0x9) | (code == 0xA) | (code == 0xC) | (code == 0xD)
        controls = ((code > 0) & (code < 0x20) & ~space) | (code == 0x7F)
        noncharacters = ((code >= 0xFDD0) & (code <= 0xFDEF)) | (tf.bitwise.bitwise_and(code, 0xFFFE) == 0xFFFE)
        return controls | (noncharacters & (code < CODE_POINTS))

    @staticmethod
    def _parse_hexadecimal(digits: tf.Tensor) -> tf.Tensor:
        """Parses hexadecimal numbers of at most seven digits, string [numbers] to int64 [numbers]."""
        padded = tf.strings.substr(tf.strings.join(["0000000", tf.strings.lower(digits)]), -7, 7)
        codes = tf.cast(tf.io.decode_raw(padded, tf.uint8, fixed_length=7), tf.int64)
        values = tf.where(codes >= ord("a"), codes - ord("a") + 10, codes - ord("0"))
        return tf.reduce_sum(values * tf.constant([16**power for power in range(6, -1, -1)], tf.int64), axis=1)
