"""The vocabulary: which token has which number, kept as JSON that a person can read and a diff can show.

Number 0 pads, number 1 stands for every token that is not there; then come words in small letters and classes of
tokens (`models.text.tokens`), the most frequent first, equals in the order of their code points. The file carries
its format
version, the text settings it belongs to, and the counts.
"""

from __future__ import annotations

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
PADDING, UNKNOWN = "<padding>", "<unknown>"
SPECIAL_TOKENS = (PADDING, UNKNOWN)
PADDING_ID, UNKNOWN_ID = 0, 1


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number.

    Attributes:
        tokens: every token; its place is its number. The first two are the special ones.
        counts: how often each was seen in the training part; 0 for padding, for unknown the tokens left out.
        text: the text settings that made the tokens.
    """

    tokens: tuple[str, ...]
    counts: tuple[int, ...]
    text: TextSettings

    def __len__(self) -> int:
        return len(self.tokens)

    def sha256(self) -> str:
        """Fingerprint of the numbering and the text settings; equal vocabularies give equal numbers."""
        content = json.dumps([self.tokens, dataclasses.asdict(self.text)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def require_text_settings(self, text: TextSettings) -> None:
        """Holds the vocabulary to the text settings in force.

        Raises:
            ArtifactError: they differ; names each setting with both values.
        """
        ours, theirs = dataclasses.asdict(self.text), dataclasses.asdict(text)
        differences = [
            f"{key} is {ours[key]!r} here, {theirs[key]!r} in the settings" for key in ours if ours[key] != theirs[key]
        ]
        if differences:
            raise ArtifactError(
                f"the vocabulary does not fit [text]: {'; '.join(differences)}. Run BuildVocabulary again."
            )


def build_vocabulary(cleaned: Iterable[str], settings: VocabularySettings, text: TextSettings) -> Vocabulary:
    """Counts the tokens of cleaned messages.

    Args:
        cleaned: messages as `models.text.cleaning` leaves them: tokens with single spaces between.
        settings: how often a token must be seen, and how many are kept.
        text: the text settings that cleaned them.

    Raises:
        InputError: no token is seen often enough.
    """
    seen = _counts_of_keys(cleaned)
    ranked = sorted((-count, token) for token, count in seen.items() if count >= settings.min_count)
    if not ranked:
        raise InputError(
            f"none of the {len(seen)} tokens of the training part is seen {settings.min_count} times. "
            "Give more labelled messages ([corpus]) or lower [vocabulary] min_count."
        )
    kept = [(token, -count) for count, token in ranked[: settings.max_size - len(SPECIAL_TOKENS)]]
    left_out = seen.total() - sum(count for _, count in kept)
    return Vocabulary(
        tokens=(*SPECIAL_TOKENS, *(token for token, _ in kept)),
        counts=(0, left_out, *(count for _, count in kept)),
        text=text,
    )


def _counts_of_keys(cleaned: Iterable[str]) -> Counter[str]:
    """How often each key occurs; a short number counts for itself and for its class."""
    import tensorflow as tf

    from models.text.cleaning import TIE
    from models.text.tokens import word_keys

    tokens: Counter[str] = Counter()
    for message in cleaned:
        # Joined letters are cut with the vocabulary that is made here.
        tokens.update(token for token in message.split() if not token.startswith(TIE))
    keys, classes = (one.numpy() for one in word_keys(tf.constant(list(tokens), tf.string, shape=[len(tokens)])))
    seen: Counter[str] = Counter()
    for key, kind, count in zip(keys, classes, tokens.values(), strict=True):
        for name in {key, kind}:
            seen[name.decode()] += count
    return seen


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Writes the vocabulary as JSON, one token a line, always in the same order."""
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


def load_vocabulary(path: Path) -> Vocabulary:
    """Reads a vocabulary.

    Raises:
        FormatError: the file is of another format version.
        ArtifactError: the file is missing, is not such JSON, or was changed by hand; the text says what differs.
    """
    content = _read(path)
    received = content.get("format_version")
    if received != FORMAT_VERSION:
        another = isinstance(received, int)
        said = f"{received!r}, which another version of spamscore writes" if another else repr(received)
        raise _refuse(path, f"format_version {FORMAT_VERSION}", said, FormatError if another else ArtifactError)
    try:
        rows = [(int(number), str(token), int(count)) for number, token, count in content["tokens"]]
        vocabulary = Vocabulary(
            tuple(t for _, t, _ in rows), tuple(c for _, _, c in rows), TextSettings(**content["text"])
        )
        sha256 = vocabulary.sha256()  # refuses half a surrogate pair too
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _refuse(
            path, "text settings and tokens as [number, token, count]", f"{type(error).__name__}: {error}"
        ) from None
    _check_numbering(path, rows, content)
    if sha256 != content.get("sha256"):
        raise _refuse(
            path, f"tokens and text settings of SHA-256 {content.get('sha256')}", f"{sha256}: changed by hand?"
        )
    return vocabulary


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _refuse(path, "a vocabulary", "no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _refuse(path, "JSON", str(error)) from None
    if not isinstance(content, dict):
        raise _refuse(path, "a JSON object", f"a {type(content).__name__}")
    return content


def _check_numbering(path: Path, rows: list[tuple[int, str, int]], content: dict[str, Any]) -> None:
    if len(rows) != content.get("size"):
        raise _refuse(path, f"{content.get('size')} tokens, as size says", f"{len(rows)}")
    if tuple(token for _, token, _ in rows[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        raise _refuse(path, f"{SPECIAL_TOKENS} as tokens 0 and 1", repr([token for _, token, _ in rows[:2]]))
    for place, (number, token, _) in enumerate(rows):
        if number != place:
            raise _refuse(path, f"number {place} for {token!r}, the order it stands in", str(number))
    if len({token for _, token, _ in rows}) != len(rows):
        twice = Counter(token for _, token, _ in rows).most_common(1)[0][0]
        raise _refuse(path, "each token once", f"{twice!r} more than once")


def _refuse(path: Path, expected: str, received: str, kind: type[ArtifactError] = ArtifactError) -> ArtifactError:
    return kind(f"{path}: expected {expected}, received {received}. Delete its folder and run BuildVocabulary again.")
