"""Declares the settings of scoring a batch, reporting on it and checking it for drift: [scoring], [report], [drift]."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting

AUTO = "auto"


@dataclass(frozen=True)
class ScoringSettings:
    """[scoring]: how a batch is scored."""

    engine: str = setting(
        "local",
        "where chunks are scored: local, in this process; or spark, on the cluster of [spark] master",
        choices=("local", "spark"),
        affects_result=False,
    )
    threshold: float | str = setting(
        AUTO,
        "spam probability from which a message is flagged; auto computes it from held-out scores and ham_blocked_share",
        low=0.0,
        high=1.0,
        words=(AUTO,),
    )
    ham_blocked_share: float = setting(
        0.002, "share of ham that may be flagged wrongly, for threshold = auto and for the gate", low=0.0, high=1.0
    )
    chunk_size: int = setting(
        20_000, "messages that are scored and committed together", low=1, high=10_000_000, affects_result=False
    )
    batch_size: int | str = setting(
        AUTO,
        "messages per call of the network; auto measures the best size with the first messages of the batch",
        low=1,
        high=65_536,
        words=(AUTO,),
        affects_result=False,
    )
    queue: int = setting(
        2, "chunks that may wait between reading, scoring and writing", low=1, high=1000, affects_result=False
    )


@dataclass(frozen=True)
class ReportSettings:
    """[report]: what the report of a batch shows."""

    messages: str = setting(
        "show",
        "message texts in the report: show them, mask their letters and digits, or hide the lists of messages",
        choices=("show", "mask", "hide"),
        affects_result=False,
    )
    listed: int = setting(20, "messages in each list of the report", low=1, high=1000, affects_result=False)
    sample: int = setting(
        200_000,
        "messages on which unknown words, lengths and scripts are measured, taken evenly from the whole batch",
        low=1,
        affects_result=False,
    )


@dataclass(frozen=True)
class DriftSettings:
    """[drift]: limits on how much a batch may differ from earlier batches. 0 switches a limit off."""

    on_drift: str = setting(
        "warn",
        "action when a limit is exceeded: warn, or fail with exit code 50; the batch stays published",
        choices=("warn", "fail"),
        affects_result=False,
    )
    batches: int = setting(30, "latest batches that a batch is compared with", low=1, high=1000, affects_result=False)
    least_batches: int = setting(
        7,
        "minimum number of earlier batches before flagged share, message count and unknown words are checked",
        low=1,
        high=1000,
        affects_result=False,
    )
    flagged_share: float = setting(
        2.0,
        "maximum factor by which the share of flagged messages may be above or below the median",
        low=0.0,
        affects_result=False,
    )
    message_count: float = setting(
        3.0,
        "maximum factor by which the number of messages may be above or below the median",
        low=0.0,
        affects_result=False,
    )
    unknown_words: float = setting(
        0.1,
        "maximum difference by which the share of words outside the vocabulary may be above the median",
        low=0.0,
        high=1.0,
        affects_result=False,
    )
    psi_before: float = setting(
        0.25,
        "maximum population stability index between the scores and those of the previous batch",
        low=0.0,
        affects_result=False,
    )
    psi_validation: float = setting(
        0.5,
        "maximum population stability index between the scores and the held-out scores of labelled messages",
        low=0.0,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        for key in ("flagged_share", "message_count"):
            if 0 < (value := getattr(self, key)) <= 1:
                raise SettingsError(
                    f"[drift] {key} = {value:g}: expected a number above 1, such as 2 for double or half the median, "
                    "or 0 for no limit."
                )
