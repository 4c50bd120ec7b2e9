"""Tests that the settings of a dialect are words or single characters that differ."""

from __future__ import annotations

import pytest

from models.errors import SettingsError
from tasks.settings.inputs import CorpusSettings, MessagesSettings


@pytest.mark.parametrize("settings_class", [CorpusSettings, MessagesSettings])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"delimiter": "semicolon", "quote": "none", "escape": "\\", "null": r"\N, NULL"},
        {"delimiter": r"\t", "quote": "'"},
        {"delimiter": "^", "quote": '"', "escape": "none"},
        {"quote": "none", "escape": "none"},
    ],
)
def test_words_and_characters_are_accepted(settings_class: type, values: dict[str, str]) -> None:
    assert settings_class(**values)


@pytest.mark.parametrize("section", ["corpus", "messages"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"delimiter": ""}, "delimiter = : expected auto, comma, semicolon, tab, pipe or one character"),
        ({"delimiter": "dot"}, "delimiter = dot: expected auto, comma"),
        ({"delimiter": "t"}, "delimiter = t: expected auto, comma"),
        ({"delimiter": "\n"}, "expected auto, comma"),
        ({"delimiter": "none"}, "delimiter = none: expected auto, comma"),
        ({"quote": "double"}, "quote = double: expected auto, none or one character"),
        ({"escape": "auto"}, "escape = auto: expected none or one character"),
        ({"delimiter": "comma", "quote": ","}, "quote = ,: expected another character than that of"),
        ({"delimiter": '"'}, 'quote = ": expected another character than that of'),
        ({"delimiter": "^", "escape": "^"}, "escape = ^: expected another character than that of"),
        ({"escape": '"'}, 'escape = ": expected another character than that of'),
    ],
)
def test_other_values_are_refused_with_the_setting_and_what_is_expected(
    section: str, values: dict[str, str], expected: str
) -> None:
    settings_class = {"corpus": CorpusSettings, "messages": MessagesSettings}[section]
    with pytest.raises(SettingsError) as caught:
        settings_class(**values)
    assert str(caught.value).startswith(f"[{section}] ")
    assert expected in str(caught.value)
