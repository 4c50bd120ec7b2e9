"""The vocabulary: its order and counts, its file, and the reasons for which a file is rejected."""

from __future__ import annotations

import csv
import dataclasses
import json
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError, FormatError, InputError
from models.settings import TextSettings, VocabularySettings
from models.text.cleaning import TIE
from models.text.tokens import word_keys
from models.text.vocabulary import (
    PADDING,
    PADDING_ID,
    SPECIAL_TOKENS,
    TOKEN_NUMBERS,
    UNKNOWN,
    UNKNOWN_ID,
    VOCABULARY_CSV,
    Vocabulary,
    build_vocabulary,
    load_vocabulary,
    save_vocabulary,
    write_vocabulary_copies,
)

EVERY_TOKEN = VocabularySettings(min_count=1)
MESSAGES = ["free £5 now !", "call me NOW", "Free free now é", "日 本"]
# Tokens as cleaning returns them: no white space, nothing invisible, no "<" next to other characters.
tokens = st.text(
    st.characters(exclude_categories=["Z", "C"], exclude_characters=TIE), min_size=1, max_size=6
) | st.sampled_from(["7", "£5", "48##", "##", "x.com", "FREE"])
messages = st.lists(st.lists(tokens, max_size=8).map(" ".join), max_size=12)
text_settings = st.builds(
    TextSettings, st.sampled_from(["signal", "letters"]), st.integers(1, 100_000), st.integers(1, 10_000)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Path of a saved vocabulary."""
    save_vocabulary(build_vocabulary(MESSAGES, EVERY_TOKEN, TextSettings()), tmp_path / "vocabulary.json")
    return tmp_path / "vocabulary.json"


def test_tokens_are_ordered_by_count_and_then_by_code_point() -> None:
    vocabulary = build_vocabulary(MESSAGES, EVERY_TOKEN, TextSettings())
    assert vocabulary.tokens == (PADDING, UNKNOWN, "free", "now", "!", "MONEY", "call", "me", "é", "日", "本")
    assert vocabulary.counts == (0, 0, 3, 3, 1, 1, 1, 1, 1, 1, 1)
    assert (vocabulary.tokens[PADDING_ID], vocabulary.tokens[UNKNOWN_ID]) == SPECIAL_TOKENS


def count_keys(messages: list[str]) -> Counter[str]:
    """Counts the occurrences of each word and class, token by token."""
    counts: Counter[str] = Counter()
    for token in (token for message in messages for token in message.split()):
        counts.update({strings.numpy()[0].decode() for strings in word_keys(tf.constant([token.encode()]))})
    return counts


def test_a_short_number_counts_for_itself_and_its_class_and_joined_letters_do_not_count() -> None:
    vocabulary = build_vocabulary([f"7 7 8 {TIE}free £5 ##"], EVERY_TOKEN, TextSettings())
    assert dict(zip(vocabulary.tokens[2:], vocabulary.counts[2:], strict=True)) == {
        "NUMBER": 4, "7": 2, "8": 1, "MONEY": 1,
    }  # fmt: skip


@settings(deadline=None)
@given(messages=messages, min_count=st.integers(1, 4), max_size=st.integers(3, 20))
def test_counts_are_those_of_the_training_part(messages: list[str], min_count: int, max_size: int) -> None:
    expected = count_keys(messages)
    if max(expected.values(), default=0) < min_count:
        return
    vocabulary = build_vocabulary(messages, VocabularySettings(min_count, max_size), TextSettings())
    counts = dict(zip(vocabulary.tokens[2:], vocabulary.counts[2:], strict=True))
    assert all(expected[token] == count >= min_count for token, count in counts.items())
    assert sum(vocabulary.counts) == expected.total()
    assert len(vocabulary) == min(max_size, 2 + sum(count >= min_count for count in expected.values()))
    assert list(vocabulary.counts[2:]) == sorted(counts.values(), reverse=True)
    assert all(
        expected[token] <= min(counts.values())
        for token in expected.keys() - counts.keys()
        if expected[token] >= min_count
    )


@settings(deadline=None)
@given(messages=messages.filter(any), order=st.randoms())
def test_the_order_of_the_messages_does_not_matter(messages: list[str], order: Any) -> None:
    shuffled = order.sample(messages, len(messages))
    first, second = (build_vocabulary(texts, EVERY_TOKEN, TextSettings()) for texts in (messages, shuffled))
    assert first == second


@pytest.mark.parametrize(
    "messages", [[], ["", ""], ["once", "only"]], ids=["no message", "empty messages", "seen once"]
)
def test_a_training_part_without_frequent_tokens_is_rejected_with_a_suggestion(messages: list[str]) -> None:
    with pytest.raises(InputError, match=r"is seen 2 times.*\[vocabulary\] min_count"):
        build_vocabulary(messages, VocabularySettings(min_count=2), TextSettings())


@settings(deadline=None)
@given(messages=messages.filter(any), text=text_settings)
def test_a_vocabulary_survives_being_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, messages: list[str], text: TextSettings
) -> None:
    vocabulary = build_vocabulary(messages, EVERY_TOKEN, text)
    path = tmp_path_factory.getbasetemp() / "vocabulary.json"
    save_vocabulary(vocabulary, path)
    assert load_vocabulary(path) == vocabulary
    written = path.read_bytes()
    save_vocabulary(load_vocabulary(path), path)
    assert path.read_bytes() == written


def test_the_file_is_json_with_a_line_for_each_token(path: Path) -> None:
    content = json.loads(path.read_text())
    assert [*content] == ["format_version", "text", "special_tokens", "size", "sha256", "tokens"]
    assert content["text"] == dataclasses.asdict(TextSettings())
    assert content["special_tokens"] == {"padding": PADDING, "unknown": UNKNOWN}
    lines = path.read_text().split("\n")
    for number, token, count in content["tokens"]:
        assert sum(json.dumps([number, token, count], ensure_ascii=False) in line for line in lines) == 1


def test_a_diff_of_the_file_shows_the_tokens_that_changed(path: Path) -> None:
    before = path.read_text().split("\n")
    save_vocabulary(build_vocabulary([*MESSAGES, "漢"], EVERY_TOKEN, TextSettings()), path)
    after = path.read_text().split("\n")
    old_lines = {line.strip(",") for line in before}
    added = [line.strip(" ,") for line in after if line.strip(",") not in old_lines]
    assert len(after) == len(before) + 1
    assert added[0] == '"size": 12'
    assert added[1].startswith('"sha256"')
    assert added[2:] == ['[11, "漢", 1]']


@settings(deadline=None)
@given(messages=messages.filter(any), other_messages=messages.filter(any), text=text_settings)
def test_fingerprints_are_equal_if_and_only_if_tokens_and_text_settings_are(
    messages: list[str], other_messages: list[str], text: TextSettings
) -> None:
    first, second = (
        build_vocabulary(messages, EVERY_TOKEN, text),
        build_vocabulary(other_messages, EVERY_TOKEN, TextSettings()),
    )
    same = first.tokens == second.tokens and text == TextSettings()
    assert (first.sha256() == second.sha256()) is same


def swap_tokens(content: dict[str, Any]) -> None:
    rows = content["tokens"]
    rows[2][1], rows[3][1] = rows[3][1], rows[2][1]


def change_row(row: int, column: int, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["tokens"][row].__setitem__(column, value)


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (lambda content: content.update(format_version=1), "expected format_version 2, received 1"),
    "no format": (lambda content: content.pop("format_version"), "expected format_version 2, received None"),
    "a missing token": (lambda content: content["tokens"].pop(), "expected 11 tokens, as size says, received 10"),
    "an extra token": (lambda content: content["tokens"].append([11, "x", 1]), "11 tokens, as size says, received 12"),
    "a token missing in the middle": (
        lambda content: (content["tokens"].pop(4), content.update(size=10)),
        "expected number 4 for 'MONEY', which is its position, received 5",
    ),
    "a token twice": (change_row(5, 1, "now"), "expected each token once, received 'now' more than once"),
    "no padding": (change_row(0, 1, "pad"), "expected ('<padding>', '<unknown>') as tokens 0 and 1"),
    "special tokens at the end": (lambda content: content["tokens"].reverse(), "as tokens 0 and 1"),
    "a token changed by hand": (change_row(5, 1, "money"), "changed by hand?"),
    "tokens swapped by hand": (swap_tokens, "changed by hand?"),
    "a text setting changed by hand": (lambda content: content["text"].update(max_tokens=7), "changed by hand?"),
    "an unknown text setting": (lambda content: content["text"].update(stemming=True), "stemming"),
    "no text settings": (lambda content: content.pop("text"), "KeyError: 'text'"),
    "no tokens": (lambda content: content.pop("tokens"), "KeyError: 'tokens'"),
    "a row of another shape": (lambda content: content["tokens"].append("x"), "tokens as [number, token, count]"),
    "a count that is no number": (change_row(3, 2, "many"), "many"),
    "no fingerprint": (lambda content: content.pop("sha256"), "SHA-256 None"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_invalid_file_is_rejected_with_what_differs(path: Path, fault: str) -> None:
    change, expected = FAULTS[fault]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError) as error:
        load_vocabulary(path)
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{path}: expected ")
    assert "run BuildVocabulary again" in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "received a list"),
        (b"\xff\xfe", "JSON"),
        (b"null", "received a NoneType"),
    ],
)
def test_a_file_that_is_not_a_vocabulary_is_rejected(path: Path, content: bytes, expected: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=expected):
        load_vocabulary(path)


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        load_vocabulary(tmp_path / "vocabulary.json")
    with pytest.raises(ArtifactError):
        load_vocabulary(tmp_path)


@settings(deadline=None, max_examples=50)
@given(size=st.integers(0, 2000))
def test_a_truncated_file_is_rejected(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.json"
    save_vocabulary(build_vocabulary([" ".join(string.ascii_letters)], EVERY_TOKEN, TextSettings()), path)
    whole = path.read_bytes().rstrip()
    path.write_bytes(whole[: min(size, len(whole) - 1)])
    with pytest.raises(ArtifactError):
        load_vocabulary(path)


def test_the_current_text_settings_must_be_those_of_the_vocabulary() -> None:
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "a"), (0, 0, 1), TextSettings(max_tokens=100))
    vocabulary.require_text_settings(TextSettings(max_tokens=100))
    with pytest.raises(ArtifactError) as error:
        vocabulary.require_text_settings(TextSettings(cleaning="letters", max_tokens=50))
    assert "cleaning is 'signal' here, 'letters' in the settings" in str(error.value)
    assert "max_tokens is 100 here, 50 in the settings" in str(error.value)
    assert "max_characters" not in str(error.value)
    assert "BuildVocabulary" in str(error.value)


@pytest.mark.parametrize(
    ("version", "kind"), [(1, FormatError), (3, FormatError), (None, ArtifactError), ("2", ArtifactError)]
)
def test_another_format_version_is_distinguished_from_a_damaged_file(
    path: Path, version: object, kind: type[ArtifactError]
) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
    with pytest.raises(ArtifactError) as error:
        load_vocabulary(path)
    assert type(error.value) is kind


# Copies for other programs


def read_copies(folder: Path) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Reads both files as a program without this project does."""
    with open(folder / VOCABULARY_CSV, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((folder / TOKEN_NUMBERS).read_text(encoding="utf-8"))


# Tokens of any characters, more than cleaning leaves: quotes, commas, line ends, NUL.
any_token = st.text(st.characters(codec="utf-8") | st.sampled_from("\",'\n\r\0\u2028=; \t"), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(any_token.filter(lambda token: token not in SPECIAL_TOKENS), unique=True, max_size=12))
def test_the_copies_hold_every_token_with_its_number_and_count(
    tmp_path_factory: pytest.TempPathFactory, given_tokens: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    tokens = (*SPECIAL_TOKENS, *given_tokens)
    counts = tuple(range(len(tokens)))
    write_vocabulary_copies(Vocabulary(tokens, counts, TextSettings()), folder)
    rows, numbers = read_copies(folder)
    assert [(row["token"], int(row["number"]), int(row["count"])) for row in rows] == [
        (token, number, counts[number]) for number, token in enumerate(tokens)
    ]
    assert list(numbers.items()) == [(token, number) for number, token in enumerate(tokens)]


def test_the_copies_are_readable_text(tmp_path: Path) -> None:
    write_vocabulary_copies(build_vocabulary(MESSAGES, EVERY_TOKEN, TextSettings()), tmp_path)
    lines = (tmp_path / VOCABULARY_CSV).read_bytes().decode().split("\r\n")
    assert lines[:4] == ["number,token,count", "0,<padding>,0", "1,<unknown>,0", "2,free,3"]
    assert '"日": 9' in (tmp_path / TOKEN_NUMBERS).read_text(encoding="utf-8")
