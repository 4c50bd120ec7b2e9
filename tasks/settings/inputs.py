"""Settings of where messages come from: [corpus] and [messages]."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import (
    setting,
)
from tasks.settings.storage import require_address

FILE_FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "sms")


@dataclass(frozen=True)
class CorpusSettings:
    """[corpus]: the labelled messages."""

    source: str = setting(
        "bundled",
        "bundled sample, a file, the published SMS Spam Collection (downloaded), or a SQL query",
        choices=("bundled", "file", "sms_spam_collection", "sql"),
    )
    path: str = setting("", "file of labelled messages, for source = file", affects_result=False)
    format: str = setting(
        "auto", "layout of the file; auto goes by its ending, sms is label TAB text", choices=FILE_FORMATS
    )
    encoding: str = setting("utf-8", "encoding of a CSV, TSV, JSON lines or sms file")
    text_column: str = setting("text", "column that holds the message")
    label_column: str = setting("label", "column that holds the label")
    spam_label: str = setting("spam", "value of the label column that means spam", affects_result=False)
    ham_label: str = setting("ham", "value of the label column that means ham", affects_result=False)
    url: str = setting(
        "",
        "SQLAlchemy address for source = sql, empty for [database] url; SPAMSCORE_CORPUS_URL goes before it",
        secret=True,
        affects_result=False,
    )
    query: str = setting("", "SELECT that returns the label and text columns, for source = sql")
    edition: str = setting(
        "1", "any text; a new one makes a SQL query run again, for a fingerprint cannot see rows change"
    )
    feedback: str = setting(
        "none",
        "join adds the labels that people gave with spamscore label, and a person's goes before the source's; none "
        "leaves them out",
        choices=("none", "join"),
    )
    download_url: str = setting(
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "address of the SMS Spam Collection's zip, for source = sms_spam_collection",
        affects_result=False,
    )
    download_timeout: int = setting(300, "seconds the whole download may take", low=1, affects_result=False)
    max_refused_share: float = setting(
        0.2,
        "share of rows that may be refused (duplicates and overruled ones not counted) before the run fails",
        low=0.0,
        high=1.0,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        _require_source("corpus", self)


@dataclass(frozen=True)
class MessagesSettings:
    """[messages]: the new messages of a night."""

    source: str = setting("bundled", "bundled inbox, a file, or a SQL query", choices=("bundled", "file", "sql"))
    path: str = setting("", "file of messages, for source = file; {date} in it stands for the date, as 2026-01-31")
    format: str = setting("auto", "layout of the file; auto goes by its ending", choices=FILE_FORMATS[:-1])
    encoding: str = setting("utf-8", "encoding of a CSV, TSV or JSON lines file")
    id_column: str = setting("message_id", "column that identifies a message; empty takes the row number")
    text_column: str = setting("text", "column that holds the message")
    date_column: str = setting("", "column that holds the date or time of a message; empty takes the file whole")
    url: str = setting(
        "",
        "SQLAlchemy address for source = sql, empty for [database] url; SPAMSCORE_MESSAGES_URL goes before it",
        secret=True,
        affects_result=False,
    )
    query: str = setting(
        "",
        "SELECT of the id and text columns, for source = sql; :start and :end are bound to the date and the day after",
    )

    def __post_init__(self) -> None:
        _require_source("messages", self)


def _require_source(section: str, settings: CorpusSettings | MessagesSettings) -> None:
    """Holds the values that only make sense together: a source has what it reads, its encoding is one."""
    for source, key in (("file", "path"), ("sql", "query")):
        if settings.source == source and not getattr(settings, key):
            raise SettingsError(
                f"[{section}] {key} is empty, and [{section}] source = {source} needs it. "
                f"Set [{section}] {key}, or [{section}] source to another."
            )
    if settings.url:
        require_address(section, "url", settings.url)
    try:
        codecs.lookup(settings.encoding)
    except LookupError:
        raise SettingsError(
            f"[{section}] encoding = {settings.encoding}: Python knows no such encoding. "
            "Set it to one such as utf-8, utf-16, latin-1 or cp1252."
        ) from None
