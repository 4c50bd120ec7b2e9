"""Settings of scoring a batch and judging it: [scoring], [report] and [drift]."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import (
    setting,
)

AUTO = "auto"


@dataclass(frozen=True)
class ScoringSettings:
    """[scoring]: how a batch is scored."""

    threshold: float | str = setting(
        AUTO,
        "spam probability from which a message is flagged; auto finds it on validation data, by ham_blocked_share",
        low=0.0,
        high=1.0,
        words=(AUTO,),
    )
    ham_blocked_share: float = setting(
        0.002, "share of the ham that may be flagged wrongly, for threshold = auto and for the gate", low=0.0, high=1.0
    )
    chunk_size: int = setting(
        20_000, "messages scored and committed together", low=1, high=10_000_000, affects_result=False
    )
    batch_size: int | str = setting(
        AUTO,
        "messages in one call of the network; auto finds it with the first messages of the batch",
        low=1,
        high=65_536,
        words=(AUTO,),
        affects_result=False,
    )
    queue: int = setting(
        2, "chunks that wait between reading, scoring and writing", low=1, high=1000, affects_result=False
    )


@dataclass(frozen=True)
class ReportSettings:
    """[report]: what the report of a batch shows."""

    messages: str = setting(
        "show",
        "texts of messages in it: show them, mask their letters and digits, or hide the lists of messages altogether",
        choices=("show", "mask", "hide"),
        affects_result=False,
    )
    listed: int = setting(20, "messages in each of its lists", low=1, high=1000, affects_result=False)
    sample: int = setting(
        200_000,
        "messages that unknown words, lengths and scripts are measured on, evenly from the whole batch",
        low=1,
        affects_result=False,
    )


@dataclass(frozen=True)
class DriftSettings:
    """[drift]: how unlike those before a batch may be. A limit of 0 is none."""

    on_drift: str = setting(
        "warn",
        "what a run does when a limit is crossed: warn, or fail with exit code 50; the batch stays published",
        choices=("warn", "fail"),
        affects_result=False,
    )
    batches: int = setting(30, "latest batches that a batch is compared with", low=1, high=1000, affects_result=False)
    least_batches: int = setting(
        7,
        "batches there must be before flagged share, message count and unknown words are compared with them",
        low=1,
        high=1000,
        affects_result=False,
    )
    flagged_share: float = setting(
        2.0,
        "how many times the median share of flagged messages a batch may have, and what part of it it must have",
        low=0.0,
        affects_result=False,
    )
    message_count: float = setting(
        3.0,
        "how many times the median number of messages a batch may have, and what part of it it must have",
        low=0.0,
        affects_result=False,
    )
    unknown_words: float = setting(
        0.1,
        "how far the share of words that are not in the vocabulary may be above its median",
        low=0.0,
        high=1.0,
        affects_result=False,
    )
    psi_before: float = setting(
        0.25,
        "population stability index of the scores against those of the batch before",
        low=0.0,
        affects_result=False,
    )
    psi_validation: float = setting(
        0.5,
        "population stability index of the scores against those of labelled messages that were not trained on",
        low=0.0,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        for key in ("flagged_share", "message_count"):
            if 0 < (value := getattr(self, key)) <= 1:
                raise SettingsError(
                    f"[drift] {key} = {value:g}: expected a number above 1, such as 2 for twice or half the median, or "
                    "0 for no limit."
                )
