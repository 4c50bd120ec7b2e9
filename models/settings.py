"""The settings of the machine learning: one frozen dataclass for each section of luigi.cfg.

Each value is declared with its default, its range and its description. The command line, luigi.cfg and the README are
checked against these declarations. `setting` declares one value; `Setting` parses and validates one. Reading luigi.cfg
is not part of this module: `tasks.settings.loading` does it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast, get_args, get_type_hints

from models.errors import SettingsError


@dataclass(frozen=True)
class Rule:
    """The rule for a value: a closed range, words allowed besides numbers, or a list of choices.

    Also says why the range is limited, whether the value is secret and whether it affects results.
    """

    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    reason: str = ""
    secret: bool = False
    affects_result: bool = True

    def describe_expected(self, kind: type) -> str:
        """Describes the values that are allowed, for an error message: for example ``an integer from 1 to 4096``."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.words:
            return f"{', '.join(self.words)} or {self._describe_range(kind)}"
        return self._describe_range(kind)

    def _describe_range(self, kind: type) -> str:
        name = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
        if self.low is not None and self.high is not None:
            return f"{name} from {self.low:g} to {self.high:g}"
        return name if self.low is None else f"{name} of at least {self.low:g}"

    def allows(self, value: Any) -> bool:
        """Returns whether a value of the right type is in the range or among the choices."""
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
    reason: str = "",
    secret: bool = False,
    affects_result: bool = True,
) -> Any:
    """Declares one value of a section.

    Args:
        default: the value when it is not set.
        description: one sentence for ``--help``, luigi.cfg and the README.
        low: smallest value allowed.
        high: largest value allowed.
        choices: the only texts allowed.
        words: texts allowed besides numbers; the type is then written ``float | str`` or ``int | str``.
        reason: why the range is limited, for the error message.
        secret: whether it may contain a password; then it is masked when shown and can come from the environment.
        affects_result: whether another value gives another result; only these values enter fingerprints.

    Returns:
        A dataclass field with its `Rule` in the metadata.
    """
    rule = Rule(description, low, high, choices, words, reason, secret, affects_result)
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class Setting:
    """One declared value of a section, as read from the dataclass.

    For a value that may be a number or a word, `kind` is the type of the number.
    """

    section: str
    key: str
    kind: type
    default: Any
    rule: Rule

    def parse(self, text: str) -> Any:
        """Parses the text of a file or of the command line and validates the value.

        Raises:
            SettingsError: the text is not an allowed value; names section, key, value and what was expected.
        """
        if text.strip() in self.rule.words:
            return text.strip()
        try:
            value = _CONVERTERS[self.kind](text.strip())
        except (ValueError, KeyError):
            raise self.invalid_value_error(text) from None
        return self.validate(value)

    def validate(self, value: Any) -> Any:
        """Returns the value if it is allowed.

        Raises:
            SettingsError: the value is not allowed; names section, key, value and what was expected.
        """
        kinds = (self.kind, str) if self.rule.words else self.kind
        if not isinstance(value, kinds) or value != value or not self.rule.allows(value):
            raise self.invalid_value_error(value)
        return value

    def invalid_value_error(self, value: Any) -> SettingsError:
        """Builds the error for a value that is not allowed."""
        displayed = "…" if self.rule.secret else repr(value)
        expected = self.rule.describe_expected(self.kind) + (
            f", because {self.rule.reason}" if self.rule.reason else ""
        )
        return SettingsError(
            f"[{self.section}] {self.key} = {displayed}: expected {expected}. Set it in luigi.cfg or with "
            f"--{self.section}-{self.key.replace('_', '-')}; the default is {self.default!r}."
        )


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_CONVERTERS: dict[type, Any] = {int: int, float: float, str: str, bool: lambda text: _BOOLEANS[text.lower()]}


def declared_settings(section: str, settings_class: type) -> list[Setting]:
    """Returns the values of a settings dataclass in the order of their declaration."""
    kinds = get_type_hints(settings_class)
    return [
        Setting(section, field.name, _value_type(kinds[field.name]), field.default, field.metadata["rule"])
        for field in dataclasses.fields(settings_class)
    ]


def _value_type(kind: Any) -> type:
    """Returns the type itself; for a union such as ``float | str``, the type of the number."""
    return cast("type", get_args(kind)[0] if get_args(kind) else kind)


def result_values(settings: Any) -> dict[str, Any]:
    """Returns the values of a settings dataclass that affect results, by key. Fingerprints are made of them."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.metadata["rule"].affects_result
    }


@dataclass(frozen=True)
class TextSettings:
    """[text]: how a message becomes tokens. Stored with the vocabulary, because a model cannot be used without it."""

    cleaning: str = setting(
        "signal",
        "signal keeps case, digits and punctuation as tokens; letters is the books' letters-only cleaning",
        choices=("signal", "letters"),
    )
    max_characters: int = setting(2000, "characters of a message that are read; the rest is cut", low=1, high=100_000)
    max_tokens: int = setting(160, "tokens of a message that reach the network; the rest is cut", low=1, high=10_000)


@dataclass(frozen=True)
class SplitSettings:
    """[split]: the shares of the messages that are not trained on. A hash of its text decides the part of a message."""

    validation_share: float = setting(
        0.15, "share of messages in the validation part, which early stopping uses", low=0.01, high=0.45
    )
    test_share: float = setting(
        0.15, "share of messages in the test part, which only EvaluateModel uses", low=0.01, high=0.45
    )
    salt: str = setting("", "any text; changing it assigns all messages to new parts")


@dataclass(frozen=True)
class VocabularySettings:
    """[vocabulary]: which tokens of the training part get an id of their own."""

    min_count: int = setting(2, "times a token must occur in the training part", low=1)
    max_size: int = setting(
        20_000, "maximum number of tokens, special tokens included; the most frequent are kept", low=3, high=5_000_000
    )


# Source: the books refuse a keep probability below 0.25.
_SHARE_KEPT = "the share kept must be at least 0.25"


@dataclass(frozen=True)
class NetworkSettings:
    """[network]: the recurrent network. Stored with the weights."""

    cell: str = setting("gru", "recurrent cell; simple is the books' plain RNN", choices=("gru", "lstm", "simple"))
    bidirectional: bool = setting(True, "read each message in both directions")
    embedding_size: int = setting(48, "length of a token's vector", low=1, high=4096)
    rnn_units: int = setting(32, "units of the recurrent layer, in each direction", low=1, high=4096)
    pooling: str = setting(
        "max+mean",
        "how the recurrent outputs of a message are pooled for the dense layer: maximum and mean, maximum, or last",
        choices=("max+mean", "max", "last"),
    )
    dropout: float = setting(
        0.4, "share of embedding and recurrent outputs dropped in training", low=0.0, high=0.75, reason=_SHARE_KEPT
    )
    word_dropout: float = setting(
        0.1, "share of words replaced by the unknown word in training", low=0.0, high=0.75, reason=_SHARE_KEPT
    )
    ngram_buckets: int = setting(
        262_144, "hash buckets for the character n-grams of messages in the linear part", low=1, high=16_777_216
    )
    ngram_vectors: int = setting(
        32_768,
        "embedding vectors for the character n-grams of tokens in the recurrent part; 0 for none",
        low=0,
        high=16_777_216,
    )
    linear: bool = setting(True, "add a linear model over the character n-grams of the message to the recurrent part")


@dataclass(frozen=True)
class TrainingSettings:
    """[training]: how the network is fitted and how often it is saved."""

    learning_rate: float = setting(
        0.002, "largest step size of the Adam optimizer; it falls to 0 during training", low=1e-7, high=10.0
    )
    batch_size: int = setting(64, "messages in a training step", low=1, high=65_536)
    epochs: int = setting(10, "maximum number of passes over the training part", low=1, high=10_000)
    patience: int = setting(10, "epochs without a better validation loss before training stops", low=1, high=10_000)
    label_smoothing: float = setting(
        0.03, "distance of the recurrent part's training targets from 0 and 1", low=0.0, high=0.45
    )
    augmentation: float = setting(
        0.4,
        "how often training messages are rewritten with evasion tricks and typing errors; 0 for never",
        low=0.0, high=1.0,
    )  # fmt: skip
    held_out_folds: int = setting(
        3,
        "folds of the training messages, each scored by a network trained on the others, for calibration and "
        "threshold; 0 uses the validation part alone",
        low=0, high=20,
    )  # fmt: skip
    seed: int = setting(7, "seed of weights, shuffling and dropout", low=0, high=2**31 - 1)
    # TrainModel adds a number other than 0 to its fingerprint.
    shards: int = setting(
        0,
        "parts that each step is cut into; equal numbers give equal weights on any number of devices or machines that "
        "divides it; 0 is one for each device",
        low=0, high=4096, affects_result=False,
    )  # fmt: skip
    processes: int = setting(
        0,
        "networks that are trained at once, in processes that share the cores; 0 for as many as cores and memory allow",
        low=0, high=64, affects_result=False,
    )  # fmt: skip
    workers: str = setting(
        "",
        "host:port of each machine that takes part in the training, separated by commas; empty for TF_CONFIG or this "
        "machine alone",
        affects_result=False,
    )
    worker: int = setting(0, "number of this machine among the workers, from 0", low=0, high=4095, affects_result=False)
    worker_timeout: int = setting(
        300, "seconds to wait for the other workers at the start", low=1, high=86_400, affects_result=False
    )
    # The content of the source is part of the fingerprint of a training, and so are the variables: see TrainModel.
    start_from: str = setting(
        "",
        "weights that the training starts from: version:3 for an exported version, a .npz file, the folder of a "
        "training, or one of its checkpoints such as checkpoints/ckpt-72; empty starts from random weights",
        affects_result=False,
    )
    start_variables: str = setting(
        "all",
        "variables that are taken from start_from, separated by commas: all, patterns of paths such as embedding/*, or "
        "old=new for a variable with another path in the source; all leaves out the linear part, which is fitted to "
        "the training part",
        affects_result=False,
    )
    checkpoint_steps: int = setting(50, "steps between two checkpoints", low=1, affects_result=False)
    keep_checkpoints: int = setting(
        5, "number of latest checkpoints that are kept", low=1, high=1000, affects_result=False
    )
    keep_checkpoint_every_hours: float = setting(
        1.0, "hours between the checkpoints that are kept permanently", low=0.001, affects_result=False
    )

    def __post_init__(self) -> None:
        if self.held_out_folds == 1:
            raise SettingsError(
                "[training] held_out_folds = 1: expected 0 or from 2 to 20, because each fold is scored by a network "
                "trained on the others. Set 0 to calibrate on the validation part alone, or at least 2."
            )
        if self.start_variables != "all" and not self.start_from:
            raise SettingsError(
                f"[training] start_variables = {self.start_variables}: expected a source in start_from, received none. "
                "Set start_from, or start_variables = all."
            )
        if not self.start_patterns:
            raise SettingsError(
                f"[training] start_variables = {self.start_variables}: expected all, patterns of paths or old=new, "
                "separated by commas, received none. Set all to take every variable that fits."
            )

    @property
    def start_patterns(self) -> tuple[str, ...]:
        """The items of start_variables."""
        return tuple(item.strip() for item in self.start_variables.split(",") if item.strip())


@dataclass(frozen=True)
class GateSettings:
    """[gate]: how much worse than the version in service a new model may be and still be exported. Both are measured on
    the same test messages. A metric fails if it got worse by more than its allowance and the interval of the difference
    does not include zero.
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
    resamples: int = setting(1000, "bootstrap resamples for the intervals", low=100, high=100_000)
    flip_budget: float = setting(
        0.05, "share of the latest batch's messages whose verdict may flip; 1 allows any share", low=0.0, high=1.0
    )
    flip_examples: int = setting(10, "messages with a flipped verdict that the report shows", low=0, high=1000)


@dataclass(frozen=True)
class DeviceSettings:
    """[devices]: the devices that TensorFlow computes on. None of these settings changes a score."""

    devices: str = setting(
        "auto", "auto, or device names separated by commas, such as cpu:0 or gpu:0,gpu:1", affects_result=False
    )
    memory_growth: bool = setting(
        True, "allocate GPU memory as it is needed instead of all at the start", affects_result=False
    )
    memory_limit: int = setting(0, "MiB of memory on each GPU; 0 sets no limit", low=0, affects_result=False)
    memory_share: float = setting(
        0.0, "share of the memory of each GPU, as a limit; 0 sets none", low=0.0, high=1.0, affects_result=False
    )
    soft_placement: bool = setting(
        True, "run an operation on the CPU when its device cannot run it", affects_result=False
    )
    log_placement: bool = setting(False, "log the device of every operation", affects_result=False)
    logical_cpus: int = setting(
        1,
        "logical CPU devices to create, to try several devices on a machine that has one",
        low=1,
        high=64,
        affects_result=False,
    )
    threads: int = setting(
        0,
        "threads for computing; 0 uses all cores, divided among the workers of luigi --workers",
        low=0,
        high=4096,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if self.memory_limit and self.memory_share:
            raise SettingsError(
                f"[devices] memory_limit = {self.memory_limit} and memory_share = {self.memory_share:g}: expected only "
                "one of the two, because both limit the memory of a GPU. Set the other to 0."
            )
