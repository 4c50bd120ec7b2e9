"""The vocabulary, which gives each token a number, and its files.

Number 0 is padding, and number 1 stands for every token that is not in the vocabulary. Then come words in lower case
and classes of tokens (`models.text.tokens`), the most frequent first, with ties in the order of code points. The file
is readable, and a diff shows the tokens that changed. It contains its format version, the text settings that it belongs
to, and the counts.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ArtifactError, FormatError, InputError
from models.settings import TextSettings, VocabularySettings

FORMAT_VERSION = 2
# Copies for other programs. Programs for tokens call a file of this content vocab.json, and read it under that name.
VOCABULARY_CSV, TOKEN_NUMBERS = "vocabulary.csv", "vocab.json"
PADDING, UNKNOWN = "<padding>", "<unknown>"
SPECIAL_TOKENS = (PADDING, UNKNOWN)
PADDING_ID, UNKNOWN_ID = 0, 1


@dataclass(frozen=True)
class Vocabulary:
    """The tokens and their numbers.

    Attributes:
        tokens: all tokens; the number of a token is its index. The first two are the special tokens.
        counts: how often each token occurs in the training part; 0 for padding. The count of the unknown token is the
            sum over tokens that were left out.
        text: the text settings with which the tokens were made.
    """

    tokens: tuple[str, ...]
    counts: tuple[int, ...]
    text: TextSettings

    def __len__(self) -> int:
        return len(self.tokens)

    def sha256(self) -> str:
        """Returns a fingerprint of the tokens, their order and the text settings. It does not depend on the counts."""
        content = json.dumps([self.tokens, dataclasses.asdict(self.text)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def require_text_settings(self, text: TextSettings) -> None:
        """Checks that the vocabulary was built with the current text settings.

        Raises:
            ArtifactError: the settings differ. The message names each setting with both values.
        """
        stored, current = dataclasses.asdict(self.text), dataclasses.asdict(text)
        differences = [
            f"{key} is {stored[key]!r} here, {current[key]!r} in the settings"
            for key in stored
            if stored[key] != current[key]
        ]
        if differences:
            raise ArtifactError(
                f"the vocabulary does not fit [text]: {'; '.join(differences)}. Run BuildVocabulary again."
            )


def build_vocabulary(cleaned: Iterable[str], settings: VocabularySettings, text: TextSettings) -> Vocabulary:
    """Builds a vocabulary from cleaned messages.

    Args:
        cleaned: messages as `models.text.cleaning` returns them, tokens separated by single spaces.
        settings: minimum count of a token and maximum size of the vocabulary.
        text: the text settings with which the messages were cleaned.

    Raises:
        InputError: no token occurs often enough.
    """
    counts = _count_keys(cleaned)
    ranked = sorted((-count, token) for token, count in counts.items() if count >= settings.min_count)
    if not ranked:
        raise InputError(
            f"none of the {len(counts)} tokens of the training part is seen {settings.min_count} times. "
            "Give more labelled messages ([corpus]) or lower [vocabulary] min_count."
        )
    selected = [(token, -count) for count, token in ranked[: settings.max_size - len(SPECIAL_TOKENS)]]
    left_out = counts.total() - sum(count for _, count in selected)
    return Vocabulary(
        tokens=(*SPECIAL_TOKENS, *(token for token, _ in selected)),
        counts=(0, left_out, *(count for _, count in selected)),
        text=text,
    )


def _count_keys(cleaned: Iterable[str]) -> Counter[str]:
    """Counts the keys. A short number counts for itself and for its class."""
    import tensorflow as tf

    from models.text.cleaning import TIE
    from models.text.tokens import word_keys

    tokens: Counter[str] = Counter()
    for message in cleaned:
        # Joined letters are skipped, because the vocabulary that is built here is needed to cut them.
        tokens.update(token for token in message.split() if not token.startswith(TIE))
    keys, classes = (
        strings.numpy() for strings in word_keys(tf.constant(list(tokens), tf.string, shape=[len(tokens)]))
    )
    counts: Counter[str] = Counter()
    for key, kind, count in zip(keys, classes, tokens.values(), strict=True):
        for name in {key, kind}:
            counts[name.decode()] += count
    return counts


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Writes the vocabulary as JSON, one token per line, in a fixed order."""
    head = {
        "format_version": FORMAT_VERSION,
        "text": dataclasses.asdict(vocabulary.text),
        "special_tokens": {"padding": PADDING, "unknown": UNKNOWN},
        "size": len(vocabulary),
        "sha256": vocabulary.sha256(),
    }
    lines = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    rows = ",\n".join(
        f"    {json.dumps([number, token, count], ensure_ascii=False)}"
        for number, (token, count) in enumerate(zip(vocabulary.tokens, vocabulary.counts, strict=True))
    )
    path.write_text(f'{lines},\n  "tokens": [\n{rows}\n  ]\n}}\n', encoding="utf-8")


def write_vocabulary_copies(vocabulary: Vocabulary, folder: Path) -> None:
    """Writes the vocabulary for other programs, in UTF-8. Nothing in this project reads these files.

    ``vocabulary.csv`` has the columns number, token and count, with the quoting and line ends of RFC 4180.
    ``vocab.json`` is one object that maps each token to its number. Both have the special tokens too.

    Args:
        vocabulary: the vocabulary.
        folder: an existing folder.
    """
    with open(folder / VOCABULARY_CSV, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "token", "count"])
        writer.writerows(zip(range(len(vocabulary)), vocabulary.tokens, vocabulary.counts, strict=True))
    numbers = {token: number for number, token in enumerate(vocabulary.tokens)}
    text = json.dumps(numbers, ensure_ascii=False, indent=0) + "\n"
    (folder / TOKEN_NUMBERS).write_text(text, encoding="utf-8", newline="\n")


def load_vocabulary(path: Path) -> Vocabulary:
    """Reads a vocabulary from its JSON file.

    Raises:
        FormatError: the file has another format version.
        ArtifactError: the file is missing, does not have this format, or was edited. The message says what differs.
    """
    content = _read(path)
    received = content.get("format_version")
    if received != FORMAT_VERSION:
        is_version = isinstance(received, int)
        description = f"{received!r}, which another version of spamscore writes" if is_version else repr(received)
        kind = FormatError if is_version else ArtifactError
        raise _error(path, f"format_version {FORMAT_VERSION}", description, kind)
    try:
        rows = [(int(number), str(token), int(count)) for number, token, count in content["tokens"]]
        vocabulary = Vocabulary(
            tuple(t for _, t, _ in rows), tuple(c for _, _, c in rows), TextSettings(**content["text"])
        )
        sha256 = vocabulary.sha256()  # also raises ValueError for a lone surrogate
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _error(
            path, "text settings and tokens as [number, token, count]", f"{type(error).__name__}: {error}"
        ) from None
    _check_numbering(path, rows, content)
    if sha256 != content.get("sha256"):
        raise _error(
            path, f"tokens and text settings of SHA-256 {content.get('sha256')}", f"{sha256}: changed by hand?"
        )
    return vocabulary


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _error(path, "a vocabulary", "no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _error(path, "JSON", str(error)) from None
    if not isinstance(content, dict):
        raise _error(path, "a JSON object", f"a {type(content).__name__}")
    return content


def _check_numbering(path: Path, rows: list[tuple[int, str, int]], content: dict[str, Any]) -> None:
    if len(rows) != content.get("size"):
        raise _error(path, f"{content.get('size')} tokens, as size says", f"{len(rows)}")
    if tuple(token for _, token, _ in rows[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        raise _error(path, f"{SPECIAL_TOKENS} as tokens 0 and 1", repr([token for _, token, _ in rows[:2]]))
    for index, (number, token, _) in enumerate(rows):
        if number != index:
            raise _error(path, f"number {index} for {token!r}, which is its position", str(number))
    if len({token for _, token, _ in rows}) != len(rows):
        duplicate = Counter(token for _, token, _ in rows).most_common(1)[0][0]
        raise _error(path, "each token once", f"{duplicate!r} more than once")


def _error(path: Path, expected: str, received: str, kind: type[ArtifactError] = ArtifactError) -> ArtifactError:
    return kind(f"{path}: expected {expected}, received {received}. Delete its folder and run BuildVocabulary again.")
