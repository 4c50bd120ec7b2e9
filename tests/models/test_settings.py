"""The settings of the machine learning: every declared value, held to its range with a message a person can act on."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SettingsError
from models.settings import (
    DeviceSettings,
    GateSettings,
    NetworkSettings,
    Setting,
    SplitSettings,
    TextSettings,
    TrainingSettings,
    VocabularySettings,
    declared_settings,
    result_values,
    setting,
)

SECTIONS = {
    "text": TextSettings,
    "split": SplitSettings,
    "vocabulary": VocabularySettings,
    "network": NetworkSettings,
    "training": TrainingSettings,
    "gate": GateSettings,
    "devices": DeviceSettings,
}
SETTINGS = [one for section, settings_class in SECTIONS.items() for one in declared_settings(section, settings_class)]


def name_of(value: object) -> str | None:
    return f"{value.section}.{value.key}" if isinstance(value, Setting) else None


def just_inside(one: Setting) -> list[object]:
    """Both edges of a range, or each choice."""
    if one.rule.choices:
        return list(one.rule.choices)
    return [one.kind(edge) for edge in (one.rule.low, one.rule.high) if edge is not None]


def just_outside(one: Setting) -> list[object]:
    """The first values beyond the edges."""
    if one.rule.choices:
        return ["", one.rule.choices[0] + "x", one.rule.choices[0].upper()]
    step = (
        (lambda edge, to: int(edge) + to) if one.kind is int else (lambda edge, to: math.nextafter(edge, to * math.inf))
    )
    below = [] if one.rule.low is None else [step(one.rule.low, -1)]
    return below + ([] if one.rule.high is None else [step(one.rule.high, 1)])


INSIDE = [(one, value) for one in SETTINGS for value in just_inside(one)]
OUTSIDE = [(one, value) for one in SETTINGS for value in just_outside(one)]
# What no file can mean by a value of that kind.
RUBBISH = {int: ("", "many", "1.5", "1e3", "0x10"), float: ("", "much", "1,5", "nan"), bool: ("", "maybe", "2", "tru")}


@pytest.mark.parametrize(("one", "value"), INSIDE, ids=name_of)
def test_the_edges_of_a_range_are_allowed(one: Setting, value: object) -> None:
    assert one.checked(value) == value
    assert one.parse(f" {value} ") == value


@pytest.mark.parametrize(("one", "value"), OUTSIDE, ids=name_of)
def test_beyond_the_edges_is_refused_with_section_key_value_and_expectation(one: Setting, value: object) -> None:
    for refusal, shown in ((lambda: one.checked(value), repr(value)), (lambda: one.parse(str(value)), str(value))):
        with pytest.raises(SettingsError) as error:
            refusal()
        for part in (f"[{one.section}] {one.key} = ", shown, one.rule.expected(one.kind), repr(one.default)):
            assert part in str(error.value)


@pytest.mark.parametrize(
    ("one", "text"),
    [(one, text) for one in SETTINGS for text in RUBBISH.get(one.kind, ())],
    ids=name_of,
)
def test_text_of_another_kind_is_refused_with_section_key_and_value(one: Setting, text: str) -> None:
    with pytest.raises(SettingsError) as error:
        one.parse(text)
    assert f"[{one.section}] {one.key} = " in str(error.value)
    assert one.rule.expected(one.kind) in str(error.value)


@pytest.mark.parametrize("one", SETTINGS, ids=name_of)
def test_a_default_is_allowed_and_survives_being_written_and_read(one: Setting) -> None:
    assert one.checked(one.default) == one.default
    assert one.parse(str(one.default)) == one.default


@pytest.mark.parametrize("one", SETTINGS, ids=name_of)
def test_a_setting_is_described_in_a_sentence(one: Setting) -> None:
    assert one.rule.description[0].islower() or one.rule.description[0].isupper()
    assert not one.rule.description.endswith(".")
    assert len(one.rule.description.split()) > 2


@pytest.mark.parametrize("text", ["true", "True", "YES", "on", "1"])
def test_true_has_several_names(text: str) -> None:
    (_, growth, *_) = declared_settings("devices", DeviceSettings)
    assert growth.parse(text) is True


@pytest.mark.parametrize("text", ["false", "False", "NO", "off", "0"])
def test_false_has_several_names(text: str) -> None:
    (_, growth, *_) = declared_settings("devices", DeviceSettings)
    assert growth.parse(text) is False


@pytest.mark.parametrize(
    ("kind", "limits", "expected"),
    [
        (int, {"low": 1, "high": 4096}, "an integer from 1 to 4096"),
        (int, {"low": 1}, "an integer of at least 1"),
        (float, {"low": 0.0, "high": 0.95}, "a number from 0 to 0.95"),
        (float, {}, "a number"),
        (bool, {}, "true or false"),
        (str, {}, "text"),
        (str, {"choices": ("gru", "lstm")}, "one of gru, lstm"),
    ],
)
def test_an_expectation_reads_as_a_sentence_ends(kind: type, limits: dict[str, float], expected: str) -> None:
    rule = setting(None, "a value", **limits).metadata["rule"]
    assert rule.expected(kind) == expected


NUMBER_OR_WORD = Setting(
    "scoring",
    "threshold",
    float,
    "auto",
    setting("auto", "a probability or a word", low=0.0, high=1.0, words=("auto",)).metadata["rule"],
)


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), (" auto ", "auto"), ("0.25", 0.25), ("0", 0.0), ("1", 1.0)]
)
def test_a_number_or_a_word_may_be_either(text: str, value: float | str) -> None:
    assert NUMBER_OR_WORD.parse(text) == value
    assert NUMBER_OR_WORD.checked(value) == value
    assert type(NUMBER_OR_WORD.parse(text)) is type(value)


@pytest.mark.parametrize("text", ["", "Auto", "automatic", "1.1", "-0.1", "nan", "a half"])
def test_what_is_neither_the_number_nor_the_word_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"expected auto or a number from 0 to 1\. .*the default is 'auto'"):
        NUMBER_OR_WORD.parse(text)


def test_a_number_or_a_word_is_declared_as_its_number() -> None:
    @dataclasses.dataclass(frozen=True)
    class Either:
        threshold: float | str = setting("auto", "a probability or a word", words=("auto",))

    (one,) = declared_settings("scoring", Either)
    assert (one.kind, one.default, one.rule.words) == (float, "auto", ("auto",))


def allowed_values(one: Setting) -> st.SearchStrategy[object]:
    """Every value that a setting may have."""
    low, high = one.rule.low, one.rule.high
    if one.rule.choices:
        return st.sampled_from(one.rule.choices)
    if one.kind is int:
        return st.integers(None if low is None else int(low), None if high is None else int(high))
    if one.kind is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return st.booleans() if one.kind is bool else st.text().map(str.strip)


@given(data=st.data())
def test_every_value_that_is_allowed_survives_being_written_and_read(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(SETTINGS))
    value = data.draw(allowed_values(one))
    assert one.checked(value) == value
    assert one.parse(f" {value} ") == value


@given(one=st.sampled_from(SETTINGS), text=st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_text_becomes_a_value_that_is_allowed_or_is_refused(one: Setting, text: str) -> None:
    try:
        value = one.parse(text)
    except SettingsError as error:
        value, refusal = None, str(error)
    if value is None:
        assert f"[{one.section}] {one.key}" in refusal
    else:
        assert type(value) is one.kind
        assert one.checked(value) == value


@given(st.text())
def test_a_secret_is_not_shown_in_an_error(secret: str) -> None:
    one = Setting("database", "port", int, 5432, setting(5432, "a number", low=1, secret=True).metadata["rule"])
    with pytest.raises(SettingsError) as error:
        one.parse(f"hunter2{secret}")
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("settings_class", SECTIONS.values(), ids=SECTIONS)
def test_settings_cannot_be_changed_once_made(settings_class: type) -> None:
    one = settings_class()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, dataclasses.fields(one)[0].name, None)


def test_a_fingerprint_is_made_of_what_changes_results_alone() -> None:
    assert result_values(DeviceSettings()) == {}
    assert result_values(TextSettings()) == dataclasses.asdict(TextSettings())
    checkpoints = {"checkpoint_steps", "keep_checkpoints", "keep_checkpoint_every_hours"}
    assert result_values(TrainingSettings()).keys() == dataclasses.asdict(TrainingSettings()).keys() - checkpoints


def test_the_declared_values_are_those_of_the_dataclass_in_its_order() -> None:
    for section, settings_class in SECTIONS.items():
        assert [one.key for one in declared_settings(section, settings_class)] == [
            field.name for field in dataclasses.fields(settings_class)
        ]


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (NetworkSettings, {"linear": True, "ngram_buckets": 0}, "[network] linear = true: expected ngram_buckets of"),
        (TrainingSettings, {"held_out_folds": 1}, "[training] held_out_folds = 1: expected 0 or from 2 to 20"),
    ],
    ids=["a linear part without n-grams", "a single fold"],
)
def test_values_that_make_no_sense_together_are_refused_with_the_way_out(
    kind: type, values: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        kind(**values)
    assert str(error.value).startswith(said)
    assert "Set " in str(error.value)


def test_what_needs_no_n_grams_does_without() -> None:
    assert NetworkSettings(linear=False, ngram_buckets=0).ngram_buckets == 0
    assert TrainingSettings(held_out_folds=0).held_out_folds == 0
