"""Declares the settings of where messages are read from: [corpus] and [messages]."""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass
from typing import Any

from models.errors import SettingsError
from models.settings import setting
from tasks.settings.dialects import check_dialect, delimiter_setting, escape_setting, null_setting, quote_setting
from tasks.settings.input_checks import check_date_format, check_path, check_time_zone
from tasks.settings.storage import require_sqlalchemy_url

CORPUS_FORMATS = ("auto", "csv", "tsv", "jsonl", "json", "parquet", "sms")
MESSAGE_FORMATS = ("auto", "csv", "tsv", "jsonl", "json", "parquet", "sms_backup")


def _max_replaced_share_setting() -> Any:
    return setting(
        0.05,
        "maximum share of rows with characters that were replaced because they are not valid in the encoding, before "
        "the run fails; any such row is warned of",
        low=0.0,
        high=1.0,
        affects_result=False,
    )


@dataclass(frozen=True)
class CorpusSettings:
    """[corpus]: the labelled messages that a model is trained and tested on."""

    source: str = setting(
        "bundled",
        "source of the labelled messages: the bundled sample, a file, the published SMS Spam Collection (downloaded), "
        "or a SQL query",
        choices=("bundled", "file", "sms_spam_collection", "sql"),
    )
    path: str = setting(
        "",
        "file of labelled messages, for source = file, or an address such as s3://bucket/labelled.csv; ~, * and ? are "
        "expanded, and several files are read in the order of their names",
        affects_result=False,
    )
    format: str = setting(
        "auto",
        "format of the file; auto uses the file extension, and the content to tell JSON lines from a JSON array; sms "
        "is label TAB text; files compressed with gzip, bzip2, xz or zstd are read too",
        choices=CORPUS_FORMATS,
    )
    encoding: str = setting("utf-8", "encoding of a text file; a byte order mark in the file takes precedence")
    delimiter: str = delimiter_setting()
    quote: str = quote_setting()
    escape: str = escape_setting()
    null: str = null_setting()
    text_column: str = setting("text", "column that contains the message text")
    label_column: str = setting("label", "column that contains the label")
    spam_label: str = setting(
        "spam",
        "values of the label column that mean spam, separated by commas; case and spaces around them are ignored, and "
        "double quotes keep a comma in a value",
        affects_result=False,
    )
    ham_label: str = setting(
        "ham", "values of the label column that mean ham, written as those of spam_label", affects_result=False
    )
    url: str = setting(
        "",
        "SQLAlchemy URL for source = sql; empty uses [database] url; SPAMSCORE_CORPUS_URL takes precedence",
        secret=True,
        affects_result=False,
    )
    query: str = setting("", "SELECT that returns the label and text columns, for source = sql")
    edition: str = setting(
        "1", "any text; change it to run a SQL query again, because the fingerprint cannot see that rows changed"
    )
    feedback: str = setting(
        "none",
        "labels given with spamscore label: join adds them to the corpus, where they take precedence over the labels "
        "of the source; none leaves them out",
        choices=("none", "join"),
    )
    # SelectNightMessages adds these to its fingerprint; the corpus does not depend on them.
    self_training: str = setting(
        "off",
        "train the model again with messages of past nights that it is sure of: off, or nights for messages of "
        "published batches, which count less than labelled ones",
        choices=("off", "nights"),
        affects_result=False,
    )
    self_training_messages: int = setting(
        20_000, "messages of the nights that the sample has, which the model labels", low=1, high=1_000_000,
        affects_result=False,
    )  # fmt: skip
    self_training_days: int = setting(
        30,
        "days of a period: the messages are those of the dates of the last whole period, so the model is trained again "
        "once in a period",
        low=1, high=3660, affects_result=False,
    )  # fmt: skip
    self_training_weight: float = setting(
        0.3, "largest weight of a message of the nights; a labelled one has 1", low=0.001, high=1.0,
        affects_result=False,
    )  # fmt: skip
    self_training_spam: float = setting(
        0.9,
        "probability from which a message of the nights is taken as spam",
        low=0.5, high=1.0, affects_result=False,
    )  # fmt: skip
    self_training_ham: float = setting(
        0.02,
        "probability up to which a message of the nights is taken as ham",
        low=0.0, high=0.499, affects_result=False,
    )  # fmt: skip
    download_url: str = setting(
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "URL of the SMS Spam Collection's zip file, for source = sms_spam_collection",
        affects_result=False,
    )
    download_timeout: int = setting(300, "seconds that the whole download may take", low=1, affects_result=False)
    max_refused_share: float = setting(
        0.2,
        "maximum share of refused rows before the run fails; duplicates and overruled rows are not counted",
        low=0.0,
        high=1.0,
        affects_result=False,
    )
    max_replaced_share: float = _max_replaced_share_setting()

    def __post_init__(self) -> None:
        _check_source("corpus", self)
        _check_labels(self)

    @property
    def spam_labels(self) -> tuple[str, ...]:
        """The values of spam_label."""
        return split_values(self.spam_label)

    @property
    def ham_labels(self) -> tuple[str, ...]:
        """The values of ham_label."""
        return split_values(self.ham_label)


@dataclass(frozen=True)
class MessagesSettings:
    """[messages]: the new messages that are scored every night."""

    source: str = setting(
        "bundled",
        "source of the new messages: the bundled inbox, a file, or a SQL query",
        choices=("bundled", "file", "sql"),
    )
    path: str = setting(
        "",
        "file of messages, for source = file, or an address such as s3://bucket/{date}.csv; {date} is replaced by the "
        "date, such as 2026-01-31, and {date:%Y%m%d} by 20260131; ~, * and ? are expanded, and several files are read "
        "in the order of their names",
    )
    format: str = setting(
        "auto",
        "format of the file; auto uses the file extension, and the content to tell JSON lines from a JSON array; "
        "sms_backup is the XML of SMS Backup & Restore, with text_column = body; files compressed with gzip, bzip2, xz "
        "or zstd are read too",
        choices=MESSAGE_FORMATS,
    )
    encoding: str = setting("utf-8", "encoding of a text file; a byte order mark in the file takes precedence")
    delimiter: str = delimiter_setting()
    quote: str = quote_setting()
    escape: str = escape_setting()
    null: str = null_setting()
    id_column: str = setting("message_id", "column that identifies a message; empty uses the row number")
    text_column: str = setting("text", "column that contains the message text")
    date_column: str = setting(
        "", "column that contains the date or time of a message; empty takes all rows of the source"
    )
    date_format: str = setting(
        "iso",
        "format of the date column: iso for ISO 8601, epoch_seconds, epoch_milliseconds, or a format of strptime such "
        "as %d/%m/%Y %H:%M; dates and times of Parquet and SQL are iso",
    )
    timezone: str = setting(
        "local",
        "time zone in which a date begins and ends, and to which epoch times are converted; local is the one of this "
        "machine, others are names such as Europe/Berlin; a time with an offset of its own keeps it",
    )
    provisional: bool = setting(
        False,
        "score a date that is not over; its batch is provisional, and the date is scored again once it is over",
        affects_result=False,
    )
    url: str = setting(
        "",
        "SQLAlchemy URL for source = sql; empty uses [database] url; SPAMSCORE_MESSAGES_URL takes precedence",
        secret=True,
        affects_result=False,
    )
    query: str = setting(
        "",
        "SELECT that returns the id and text columns, for source = sql; :start and :end are bound to the date and the "
        "next day",
    )
    max_rejected_share: float = setting(
        0.2,
        "maximum share of messages of a date that are rejected before the run fails and nothing is published; a date "
        "of which no message can be scored always fails",
        low=0.0,
        high=1.0,
        affects_result=False,
    )
    max_replaced_share: float = _max_replaced_share_setting()

    def __post_init__(self) -> None:
        _check_source("messages", self)
        check_date_format(self.date_format)
        check_time_zone(self.timezone)


def _check_source(section: str, settings: CorpusSettings | MessagesSettings) -> None:
    """Checks the settings that depend on each other: what the source needs is set, and the encoding exists."""
    for source, key in (("file", "path"), ("sql", "query")):
        if settings.source == source and not getattr(settings, key):
            raise SettingsError(
                f"[{section}] {key} is empty, but [{section}] source = {source} needs it. "
                f"Set [{section}] {key}, or another [{section}] source."
            )
    if settings.source == "file":
        check_path(section, settings.path)
    if settings.url:
        require_sqlalchemy_url(section, "url", settings.url)
    check_dialect(section, settings.delimiter, settings.quote, settings.escape)
    try:
        codecs.lookup(settings.encoding)
    except LookupError:
        raise SettingsError(
            f"[{section}] encoding = {settings.encoding}: expected an encoding that Python knows, such as utf-8, "
            "utf-16, latin-1 or cp1252."
        ) from None


def split_values(text: str) -> tuple[str, ...]:
    """Returns the values of a setting, separated by commas. Double quotes keep a comma in a value."""
    values = next(csv.reader([text.replace("\n", " ")], skipinitialspace=True)) or [""]
    return tuple(value.strip() for value in values)


def _check_labels(settings: CorpusSettings) -> None:
    """Checks that spam_label and ham_label have values, and none in common."""
    for key, values in (("spam_label", settings.spam_labels), ("ham_label", settings.ham_labels)):
        if "" in values:
            raise SettingsError(
                f"[corpus] {key} = {getattr(settings, key)}: expected values of the label column, separated by commas, "
                f"received an empty value. Set [corpus] {key}, for example spam, smishing."
            )
    ham = {value.casefold() for value in settings.ham_labels}
    if common := [value for value in settings.spam_labels if value.casefold() in ham]:
        raise SettingsError(
            f"[corpus] spam_label and ham_label both have the value {common[0]!r}; case is ignored. "
            "Leave it in one of them."
        )
