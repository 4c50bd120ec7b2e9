"""The settings of the machine learning: one frozen dataclass a section of luigi.cfg, each value with its default, its
range and the sentence that describes it. Everything else (the command line, luigi.cfg, the README) is held to these.

`setting` declares one value; `check` holds a dataclass to its ranges. Reading luigi.cfg is
`tasks.settings.loading`'s part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast, get_args, get_type_hints

from models.errors import SettingsError


@dataclass(frozen=True)
class Rule:
    """What a value may be: a closed range or a word beside it, one of some choices; whether it is secret; whether it
    changes results.
    """

    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    secret: bool = False
    affects_result: bool = True

    def expected(self, kind: type) -> str:
        """The sentence's end that says what was expected, for example ``an integer from 1 to 4096``."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.words:
            return f"{', '.join(self.words)} or {self._of_range(kind)}"
        return self._of_range(kind)

    def _of_range(self, kind: type) -> str:
        name = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
        if self.low is not None and self.high is not None:
            return f"{name} from {self.low:g} to {self.high:g}"
        return name if self.low is None else f"{name} of at least {self.low:g}"

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type lies in the range or among the choices."""
        if self.choices:
            return value in self.choices
        if isinstance(value, str):
            return not self.words or value in self.words
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def setting(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    secret: bool = False,
    affects_result: bool = True,
) -> Any:
    """One value of a section.

    Args:
        default: the value when nobody sets one.
        description: one sentence for ``--help``, luigi.cfg and the README.
        low: smallest value allowed.
        high: largest value allowed.
        choices: the only texts allowed.
        words: texts allowed beside numbers; the type is then written ``float | str`` or ``int | str``.
        secret: may hold a password, so it is masked when shown and can come from the environment.
        affects_result: whether another value gives another result; only these enter fingerprints.
    """
    rule = Rule(description, low, high, choices, words, secret, affects_result)
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class Setting:
    """One declared value of a section, as read off the dataclass. Of a number or a word, `kind` is the number's."""

    section: str
    key: str
    kind: type
    default: Any
    rule: Rule

    def parse(self, text: str) -> Any:
        """Turns the text of a file or command line into a value.

        Raises:
            SettingsError: naming section, key, value and what was expected.
        """
        if text.strip() in self.rule.words:
            return text.strip()
        try:
            value = _CONVERT[self.kind](text.strip())
        except (ValueError, KeyError):
            raise self.refuse(text) from None
        return self.checked(value)

    def checked(self, value: Any) -> Any:
        """Returns the value if it is in range.

        Raises:
            SettingsError: naming section, key, value and what was expected.
        """
        kinds = (self.kind, str) if self.rule.words else self.kind
        if not isinstance(value, kinds) or value != value or not self.rule.allows(value):
            raise self.refuse(value)
        return value

    def refuse(self, value: Any) -> SettingsError:
        """The error for a value that is not allowed."""
        shown = "…" if self.rule.secret else repr(value)
        expected = self.rule.expected(self.kind)
        return SettingsError(
            f"[{self.section}] {self.key} = {shown}: expected {expected}. Set it in luigi.cfg or with "
            f"--{self.section}-{self.key.replace('_', '-')}; the default is {self.default!r}."
        )


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_CONVERT: dict[type, Any] = {int: int, float: float, str: str, bool: lambda text: _BOOLEANS[text.lower()]}


def declared(section: str, settings_class: type) -> list[Setting]:
    """All values of a settings dataclass, in the order they are written in."""
    kinds = get_type_hints(settings_class)
    return [
        Setting(section, field.name, _number_of(kinds[field.name]), field.default, field.metadata["rule"])
        for field in dataclasses.fields(settings_class)
    ]


def _number_of(kind: Any) -> type:
    """The type itself, or of ``float | str`` and the like the number's."""
    return cast("type", get_args(kind)[0] if get_args(kind) else kind)


def result_values(settings: Any) -> dict[str, Any]:
    """The values of a settings dataclass that change results, by key: what a fingerprint is made of."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.metadata["rule"].affects_result
    }


@dataclass(frozen=True)
class TextSettings:
    """[text]: how a message becomes tokens. Stored with the vocabulary, for a model is worth nothing without it."""

    cleaning: str = setting(
        "signal",
        "signal keeps case, digits and punctuation as tokens; letters is the books' letters-only cleaning",
        choices=("signal", "letters"),
    )
    max_characters: int = setting(2000, "characters of a message that are read; the rest is cut", low=1, high=100_000)
    max_tokens: int = setting(160, "tokens of a message that reach the network; the rest is cut", low=1, high=10_000)


@dataclass(frozen=True)
class SplitSettings:
    """[split]: the shares of the messages kept from training. A message's side is a hash of its text."""

    validation_share: float = setting(0.15, "share of messages that early stopping looks at", low=0.01, high=0.45)
    test_share: float = setting(0.15, "share of messages that only EvaluateModel sees", low=0.01, high=0.45)
    salt: str = setting("", "changing it deals all messages anew")


@dataclass(frozen=True)
class VocabularySettings:
    """[vocabulary]: which tokens of the training part get a number of their own."""

    min_count: int = setting(2, "times a token must be seen in the training part", low=1)
    max_size: int = setting(
        20_000, "tokens kept, the most frequent first, special tokens included", low=3, high=5_000_000
    )


@dataclass(frozen=True)
class NetworkSettings:
    """[network]: the recurrent network. Stored with the weights."""

    cell: str = setting("gru", "recurrent cell; simple is the books' plain RNN", choices=("gru", "lstm", "simple"))
    bidirectional: bool = setting(True, "read each message in both directions")
    embedding_size: int = setting(48, "length of a token's vector", low=1, high=4096)
    rnn_units: int = setting(32, "units of the recurrent layer, in each direction", low=1, high=4096)
    pooling: str = setting(
        "max+mean",
        "what the dense layer sees of each unit over the message: its largest value and mean, the largest, or the last",
        choices=("max+mean", "max", "last"),
    )
    dropout: float = setting(0.4, "share of embedding and recurrent outputs dropped in training", low=0.0, high=0.95)
    word_dropout: float = setting(0.1, "share of words taken for unknown in training", low=0.0, high=0.95)
    ngram_buckets: int = setting(
        262_144, "numbers that the character n-grams of tokens are hashed to; 0 for none", low=0, high=16_777_216
    )
    ngram_vectors: int = setting(
        32_768, "vectors there are for n-grams in the recurrent part; 0 for none", low=0, high=16_777_216
    )
    linear: bool = setting(
        True, "a linear model over n-grams and pairs of tokens beside the recurrent part; needs n-grams"
    )

    def __post_init__(self) -> None:
        if self.linear and not self.ngram_buckets:
            raise SettingsError(
                "[network] linear = true: expected ngram_buckets of at least 1, for it is made of n-grams, received 0. "
                "Set linear = false or give ngram_buckets."
            )


@dataclass(frozen=True)
class TrainingSettings:
    """[training]: how the network is fitted and how often it is saved."""

    learning_rate: float = setting(
        0.002, "largest step size of the Adam optimizer, from which it falls to nought", low=1e-7, high=10.0
    )
    batch_size: int = setting(64, "messages in a training step", low=1, high=65_536)
    epochs: int = setting(10, "most passes over the training part", low=1, high=10_000)
    patience: int = setting(10, "epochs without a better validation loss before training stops", low=1, high=10_000)
    label_smoothing: float = setting(
        0.03, "how far from 0 and 1 the labels are that the recurrent part is trained towards", low=0.0, high=0.45
    )
    augmentation: float = setting(
        0.7, "how often messages are rewritten in training, as evasion and typing do; 0 never", low=0.0, high=1.0
    )
    held_out_folds: int = setting(
        3,
        "parts of the training messages that a network trained on the others scores, for calibration and threshold; 0 "
        "leaves both to the validation part",
        low=0,
        high=20,
    )
    seed: int = setting(7, "seed of weights, shuffling and dropout", low=0, high=2**31 - 1)
    checkpoint_steps: int = setting(50, "steps between two checkpoints", low=1, affects_result=False)
    keep_checkpoints: int = setting(5, "latest checkpoints kept", low=1, high=1000, affects_result=False)
    keep_checkpoint_every_hours: float = setting(
        1.0, "hours between the checkpoints that are kept for good", low=0.001, affects_result=False
    )

    def __post_init__(self) -> None:
        if self.held_out_folds == 1:
            raise SettingsError(
                "[training] held_out_folds = 1: expected 0 or from 2 to 20, for a network is trained on the other "
                "parts. Set 0 to calibrate on the validation part alone, or 2 and more."
            )


@dataclass(frozen=True)
class GateSettings:
    """[gate]: how much worse than the version in service a new model may be, and still be exported. Each figure is
    compared on the same test messages, and fails where more than the allowance was lost and the difference's interval
    does not reach nought.
    """

    pr_auc_allowance: float = setting(0.01, "how much lower the PR AUC may be", low=0.0, high=1.0)
    recall_allowance: float = setting(
        0.03,
        "how much lower the recall may be where [scoring] ham_blocked_share of the ham is flagged",
        low=0.0,
        high=1.0,
    )
    calibration_allowance: float = setting(
        0.01, "how much larger the expected calibration error may be", low=0.0, high=1.0
    )
    confidence: float = setting(0.9, "confidence of the intervals", low=0.5, high=0.999)
    resamples: int = setting(1000, "bootstrap resamples that the intervals are made of", low=100, high=100_000)
    flip_budget: float = setting(
        0.05, "share of the latest batch's messages whose verdict may be another; 1 allows any", low=0.0, high=1.0
    )
    flip_examples: int = setting(10, "messages with another verdict that the report shows", low=0, high=1000)


@dataclass(frozen=True)
class DeviceSettings:
    """[devices]: what TensorFlow computes on. None of these changes a score."""

    devices: str = setting(
        "auto", "auto, or devices by name with commas between them: cpu:0, gpu:0,gpu:1", affects_result=False
    )
    memory_growth: bool = setting(
        True, "take GPU memory as it is needed instead of all at the start", affects_result=False
    )
    memory_limit: int = setting(0, "MiB of memory on each GPU; 0 sets no limit", low=0, affects_result=False)
    soft_placement: bool = setting(
        True, "put an operation on the processor when its device cannot run it", affects_result=False
    )
    log_placement: bool = setting(False, "log the device of every operation", affects_result=False)
    logical_cpus: int = setting(
        1,
        "processors to divide the machine into, to try several devices where there is one",
        low=1,
        high=64,
        affects_result=False,
    )
    threads: int = setting(
        0,
        "threads that compute; 0 takes all cores, divided among the workers of luigi --workers",
        low=0,
        high=4096,
        affects_result=False,
    )
