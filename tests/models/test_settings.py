"""Tests of the settings of the machine learning: ranges, parsing and the error messages of every declared value."""

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
SETTINGS = [
    option for section, settings_class in SECTIONS.items() for option in declared_settings(section, settings_class)
]


def case_id(value: object) -> str | None:
    return f"{value.section}.{value.key}" if isinstance(value, Setting) else None


def edge_values(option: Setting) -> list[object]:
    """Returns both edges of a range, or each choice."""
    if option.rule.choices:
        return list(option.rule.choices)
    return [option.kind(edge) for edge in (option.rule.low, option.rule.high) if edge is not None]


def values_outside(option: Setting) -> list[object]:
    """Returns the first values outside the edges, or texts that are not a choice."""
    if option.rule.choices:
        return ["", option.rule.choices[0] + "x", option.rule.choices[0].upper()]
    step = (
        (lambda edge, direction: int(edge) + direction)
        if option.kind is int
        else (lambda edge, direction: math.nextafter(edge, direction * math.inf))
    )
    below = [] if option.rule.low is None else [step(option.rule.low, -1)]
    return below + ([] if option.rule.high is None else [step(option.rule.high, 1)])


INSIDE = [(option, value) for option in SETTINGS for value in edge_values(option)]
OUTSIDE = [(option, value) for option in SETTINGS for value in values_outside(option)]
# Texts that are not a value of the type.
INVALID_TEXTS = {
    int: ("", "many", "1.5", "1e3", "0x10"),
    float: ("", "much", "1,5", "nan"),
    bool: ("", "maybe", "2", "tru"),
}


@pytest.mark.parametrize(("option", "value"), INSIDE, ids=case_id)
def test_values_at_the_edges_of_a_range_are_allowed(option: Setting, value: object) -> None:
    assert option.validate(value) == value
    assert option.parse(f" {value} ") == value


@pytest.mark.parametrize(("option", "value"), OUTSIDE, ids=case_id)
def test_a_value_out_of_range_is_refused_and_the_error_names_section_key_value_and_range(
    option: Setting, value: object
) -> None:
    for validation, displayed in (
        (lambda: option.validate(value), repr(value)),
        (lambda: option.parse(str(value)), str(value)),
    ):
        with pytest.raises(SettingsError) as error:
            validation()
        for part in (
            f"[{option.section}] {option.key} = ",
            displayed,
            option.rule.describe_expected(option.kind),
            repr(option.default),
        ):
            assert part in str(error.value)


@pytest.mark.parametrize(
    ("option", "text"),
    [(option, text) for option in SETTINGS for text in INVALID_TEXTS.get(option.kind, ())],
    ids=case_id,
)
def test_text_of_another_type_is_refused_and_the_error_names_section_and_key(option: Setting, text: str) -> None:
    with pytest.raises(SettingsError) as error:
        option.parse(text)
    assert f"[{option.section}] {option.key} = " in str(error.value)
    assert option.rule.describe_expected(option.kind) in str(error.value)


@pytest.mark.parametrize("option", SETTINGS, ids=case_id)
def test_a_default_is_allowed_and_is_the_same_after_writing_and_parsing(option: Setting) -> None:
    assert option.validate(option.default) == option.default
    assert option.parse(str(option.default)) == option.default


@pytest.mark.parametrize("option", SETTINGS, ids=case_id)
def test_a_description_has_more_than_two_words_and_no_full_stop(option: Setting) -> None:
    assert option.rule.description[0].islower() or option.rule.description[0].isupper()
    assert not option.rule.description.endswith(".")
    assert len(option.rule.description.split()) > 2


@pytest.mark.parametrize("text", ["true", "True", "YES", "on", "1"])
def test_true_may_be_written_in_several_ways(text: str) -> None:
    (_, growth, *_) = declared_settings("devices", DeviceSettings)
    assert growth.parse(text) is True


@pytest.mark.parametrize("text", ["false", "False", "NO", "off", "0"])
def test_false_may_be_written_in_several_ways(text: str) -> None:
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
def test_a_rule_describes_its_allowed_values(kind: type, limits: dict[str, float], expected: str) -> None:
    rule = setting(None, "a value", **limits).metadata["rule"]
    assert rule.describe_expected(kind) == expected


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
def test_a_setting_for_a_number_or_a_word_takes_both(text: str, value: float | str) -> None:
    assert NUMBER_OR_WORD.parse(text) == value
    assert NUMBER_OR_WORD.validate(value) == value
    assert type(NUMBER_OR_WORD.parse(text)) is type(value)


@pytest.mark.parametrize("text", ["", "Auto", "automatic", "1.1", "-0.1", "nan", "a half"])
def test_text_that_is_neither_the_number_nor_the_word_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"expected auto or a number from 0 to 1\. .*the default is 'auto'"):
        NUMBER_OR_WORD.parse(text)


def test_a_union_of_number_and_text_is_declared_with_the_type_of_the_number() -> None:
    @dataclasses.dataclass(frozen=True)
    class Either:
        threshold: float | str = setting("auto", "a probability or a word", words=("auto",))

    (option,) = declared_settings("scoring", Either)
    assert (option.kind, option.default, option.rule.words) == (float, "auto", ("auto",))


def allowed_values(option: Setting) -> st.SearchStrategy[object]:
    """Returns a strategy for every value that a setting may have."""
    low, high = option.rule.low, option.rule.high
    if option.rule.choices:
        return st.sampled_from(option.rule.choices)
    if option.kind is int:
        return st.integers(None if low is None else int(low), None if high is None else int(high))
    if option.kind is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return st.booleans() if option.kind is bool else st.text().map(str.strip)


@given(data=st.data())
def test_every_allowed_value_is_the_same_after_writing_and_parsing(data: st.DataObject) -> None:
    option = data.draw(st.sampled_from(SETTINGS))
    value = data.draw(allowed_values(option))
    assert option.validate(value) == value
    assert option.parse(f" {value} ") == value


@given(option=st.sampled_from(SETTINGS), text=st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_text_gives_an_allowed_value_or_an_error(option: Setting, text: str) -> None:
    try:
        value = option.parse(text)
    except SettingsError as error:
        value, message = None, str(error)
    if value is None:
        assert f"[{option.section}] {option.key}" in message
    else:
        assert type(value) is option.kind
        assert option.validate(value) == value


@given(st.text())
def test_a_secret_is_not_shown_in_an_error(secret: str) -> None:
    option = Setting("database", "port", int, 5432, setting(5432, "a number", low=1, secret=True).metadata["rule"])
    with pytest.raises(SettingsError) as error:
        option.parse(f"hunter2{secret}")
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("settings_class", SECTIONS.values(), ids=SECTIONS)
def test_settings_are_immutable(settings_class: type) -> None:
    section = settings_class()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(section, dataclasses.fields(section)[0].name, None)


def test_a_fingerprint_contains_only_values_that_affect_results() -> None:
    assert result_values(DeviceSettings()) == {}
    assert result_values(TextSettings()) == dataclasses.asdict(TextSettings())
    checkpoints = {"checkpoint_steps", "keep_checkpoints", "keep_checkpoint_every_hours"}
    # TrainModel adds shards and the content of the source to its fingerprint, if they are set.
    added = {"start_from", "start_variables", "shards"}
    elsewhere = {"processes", "workers", "worker", "worker_timeout"}
    everything = dataclasses.asdict(TrainingSettings()).keys()
    assert result_values(TrainingSettings()).keys() == everything - checkpoints - added - elsewhere


def test_declared_settings_are_the_fields_of_the_dataclass_in_order() -> None:
    for section, settings_class in SECTIONS.items():
        assert [option.key for option in declared_settings(section, settings_class)] == [
            field.name for field in dataclasses.fields(settings_class)
        ]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (TrainingSettings, {"held_out_folds": 1}, "[training] held_out_folds = 1: expected 0 or from 2 to 20"),
        (TrainingSettings, {"start_variables": "logit/*"}, "[training] start_variables = logit/*: expected a source"),
        (TrainingSettings, {"start_from": "version:1", "start_variables": " , "}, "[training] start_variables =  , :"),
    ],
    ids=["a single fold", "variables without a source", "no variables"],
)
def test_values_that_contradict_each_other_are_refused_and_the_error_says_how_to_fix_it(
    kind: type, values: dict[str, object], expected: str
) -> None:
    with pytest.raises(SettingsError) as error:
        kind(**values)
    assert str(error.value).startswith(expected)
    assert "Set " in str(error.value)


def test_n_gram_vectors_and_held_out_folds_can_be_turned_off() -> None:
    assert NetworkSettings(ngram_vectors=0).ngram_vectors == 0
    assert TrainingSettings(held_out_folds=0).held_out_folds == 0


@pytest.mark.parametrize("key", ["dropout", "word_dropout"])
def test_a_share_kept_below_a_quarter_is_refused_with_the_reason(key: str) -> None:
    (option,) = [option for option in SETTINGS if (option.section, option.key) == ("network", key)]
    assert option.parse("0.75") == 0.75
    with pytest.raises(SettingsError) as error:
        option.parse("0.76")
    assert "expected a number from 0 to 0.75, because the share kept must be at least 0.25. Set" in str(error.value)


def test_two_limits_of_the_memory_of_a_gpu_are_refused_and_the_error_names_both() -> None:
    with pytest.raises(
        SettingsError, match=r"\[devices\] memory_limit = 64 and memory_share = 0\.5: expected only one"
    ):
        DeviceSettings(memory_limit=64, memory_share=0.5)
