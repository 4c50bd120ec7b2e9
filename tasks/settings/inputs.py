"""Declares the settings of where messages are read from: [corpus] and [messages]."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting
from tasks.settings.storage import require_sqlalchemy_url

FILE_FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "sms")


@dataclass(frozen=True)
class CorpusSettings:
    """[corpus]: the labelled messages that a model is trained and tested on."""

    source: str = setting(
        "bundled",
        "source of the labelled messages: the bundled sample, a file, the published SMS Spam Collection (downloaded), "
        "or a SQL query",
        choices=("bundled", "file", "sms_spam_collection", "sql"),
    )
    path: str = setting("", "file of labelled messages, for source = file", shapes_result=False)
    format: str = setting(
        "auto", "format of the file; auto uses the file extension, sms is label TAB text", choices=FILE_FORMATS
    )
    encoding: str = setting("utf-8", "encoding of a CSV, TSV, JSON lines or sms file")
    text_column: str = setting("text", "column that contains the message text")
    label_column: str = setting("label", "column that contains the label")
    spam_label: str = setting("spam", "value of the label column that means spam", shapes_result=False)
    ham_label: str = setting("ham", "value of the label column that means ham", shapes_result=False)
    url: str = setting(
        "",
        "SQLAlchemy URL for source = sql; empty uses [database] url; SPAMSCORE_CORPUS_URL takes precedence",
        secret=True,
        shapes_result=False,
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
    download_url: str = setting(
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "URL of the SMS Spam Collection's zip file, for source = sms_spam_collection",
        shapes_result=False,
    )
    download_timeout: int = setting(300, "seconds that the whole download may take", low=1, shapes_result=False)
    max_refused_share: float = setting(
        0.2,
        "maximum share of refused rows before the run fails; duplicates and overruled rows are not counted",
        low=0.0,
        high=1.0,
        shapes_result=False,
    )

    def __post_init__(self) -> None:
        _check_source("corpus", self)


@dataclass(frozen=True)
class MessagesSettings:
    """[messages]: the new messages that are scored every night."""

    source: str = setting(
        "bundled",
        "source of the new messages: the bundled inbox, a file, or a SQL query",
        choices=("bundled", "file", "sql"),
    )
    path: str = setting(
        "", "file of messages, for source = file; {date} in the path is replaced by the date, such as 2026-01-31"
    )
    format: str = setting("auto", "format of the file; auto uses the file extension", choices=FILE_FORMATS[:-1])
    encoding: str = setting("utf-8", "encoding of a CSV, TSV or JSON lines file")
    id_column: str = setting("message_id", "column that identifies a message; empty uses the row number")
    text_column: str = setting("text", "column that contains the message text")
    date_column: str = setting(
        "", "column that contains the date or time of a message; empty takes all rows of the source"
    )
    url: str = setting(
        "",
        "SQLAlchemy URL for source = sql; empty uses [database] url; SPAMSCORE_MESSAGES_URL takes precedence",
        secret=True,
        shapes_result=False,
    )
    query: str = setting(
        "",
        "SELECT that returns the id and text columns, for source = sql; :start and :end are bound to the date and the "
        "next day",
    )

    def __post_init__(self) -> None:
        _check_source("messages", self)


def _check_source(section: str, settings: CorpusSettings | MessagesSettings) -> None:
    """Checks the settings that depend on each other: what the source needs is set, and the encoding exists."""
    for source, key in (("file", "path"), ("sql", "query")):
        if settings.source == source and not getattr(settings, key):
            raise SettingsError(
                f"[{section}] {key} is empty, but [{section}] source = {source} needs it. "
                f"Set [{section}] {key}, or another [{section}] source."
            )
    if settings.url:
        require_sqlalchemy_url(section, "url", settings.url)
    try:
        codecs.lookup(settings.encoding)
    except LookupError:
        raise SettingsError(
            f"[{section}] encoding = {settings.encoding}: expected an encoding that Python knows, such as utf-8, "
            "utf-16, latin-1 or cp1252."
        ) from None
