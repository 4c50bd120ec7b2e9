"""The settings that need files, databases or Luigi, and the one way from luigi.cfg to a frozen dataclass.

luigi.cfg [section] → a `luigi.Config` generated from the dataclass → the dataclass (`load`) → plain functions.
The dataclasses of the machine learning live in `models.settings`; `SECTIONS` names them all.
"""

from __future__ import annotations

import codecs
import configparser
import dataclasses
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import luigi
import luigi.rpc
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser
from luigi.task_register import Register

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
    declared,
    setting,
)
from tasks.steady_scheduler import SteadyScheduler

AUTO = "auto"
FILE_FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "sms")


@dataclass(frozen=True)
class ArtifactSettings:
    """[artifacts]: where a run leaves its files."""

    folder: str = setting("artifacts", "folder of everything a run leaves but the database", shapes_result=False)
    model_name: str = setting("spam_ham", "name of the exported model: exports/<model_name>/<version>/")
    keep_days: int = setting(
        0,
        "days after a date from which Nightly deletes its snapshot and reports, which hold messages; 0 keeps all",
        low=0,
        high=36_500,
        shapes_result=False,
    )

    def __post_init__(self) -> None:
        # It becomes a folder, and a part of the addresses that a model server answers.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.model_name):
            raise SettingsError(
                f"[artifacts] model_name = {self.model_name}: expected letters, digits and the signs _ . - such as "
                "spam_ham, beginning with neither . nor -."
            )


@dataclass(frozen=True)
class DatabaseSettings:
    """[database]: where the scores go."""

    url: str = setting(
        "sqlite:///spamscore.db",
        "SQLAlchemy address of the database; SPAMSCORE_DATABASE_URL goes before it, and a password belongs there",
        secret=True,
        shapes_result=False,
    )
    connect_timeout: int = setting(10, "seconds to wait for a connection", low=1, high=3600, shapes_result=False)
    keep_days: int = setting(
        90,
        "days after a batch's date from which spamscore prune and Nightly delete its rows unless it is published; 0 "
        "keeps all",
        low=0,
        high=36_500,
        shapes_result=False,
    )

    def __post_init__(self) -> None:
        _require_address("database", "url", self.url)


@dataclass(frozen=True)
class CorpusSettings:
    """[corpus]: the labelled messages."""

    source: str = setting(
        "bundled",
        "bundled sample, a file, the published SMS Spam Collection (downloaded), or a SQL query",
        choices=("bundled", "file", "sms_spam_collection", "sql"),
    )
    path: str = setting("", "file of labelled messages, for source = file", shapes_result=False)
    format: str = setting(
        "auto", "layout of the file; auto goes by its ending, sms is label TAB text", choices=FILE_FORMATS
    )
    encoding: str = setting("utf-8", "encoding of a CSV, TSV, JSON lines or sms file")
    text_column: str = setting("text", "column that holds the message")
    label_column: str = setting("label", "column that holds the label")
    spam_label: str = setting("spam", "value of the label column that means spam", shapes_result=False)
    ham_label: str = setting("ham", "value of the label column that means ham", shapes_result=False)
    url: str = setting(
        "",
        "SQLAlchemy address for source = sql, empty for [database] url; SPAMSCORE_CORPUS_URL goes before it",
        secret=True,
        shapes_result=False,
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
        shapes_result=False,
    )
    download_timeout: int = setting(300, "seconds the whole download may take", low=1, shapes_result=False)
    max_refused_share: float = setting(
        0.2,
        "share of rows that may be refused (duplicates and overruled ones not counted) before the run fails",
        low=0.0,
        high=1.0,
        shapes_result=False,
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
        shapes_result=False,
    )
    query: str = setting(
        "",
        "SELECT of the id and text columns, for source = sql; :start and :end are bound to the date and the day after",
    )

    def __post_init__(self) -> None:
        _require_source("messages", self)


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
        20_000, "messages scored and committed together", low=1, high=10_000_000, shapes_result=False
    )
    batch_size: int | str = setting(
        AUTO,
        "messages in one call of the network; auto finds it with the first messages of the batch",
        low=1,
        high=65_536,
        words=(AUTO,),
        shapes_result=False,
    )
    queue: int = setting(
        2, "chunks that wait between reading, scoring and writing", low=1, high=1000, shapes_result=False
    )


@dataclass(frozen=True)
class ReportSettings:
    """[report]: what the report of a batch shows."""

    messages: str = setting(
        "show",
        "texts of messages in it: show them, mask their letters and digits, or hide the lists of messages altogether",
        choices=("show", "mask", "hide"),
        shapes_result=False,
    )
    listed: int = setting(20, "messages in each of its lists", low=1, high=1000, shapes_result=False)
    sample: int = setting(
        200_000,
        "messages that unknown words, lengths and scripts are measured on, evenly from the whole batch",
        low=1,
        shapes_result=False,
    )


@dataclass(frozen=True)
class DriftSettings:
    """[drift]: how unlike those before a batch may be. A limit of 0 is none."""

    on_drift: str = setting(
        "warn",
        "what a run does when a limit is crossed: warn, or fail with exit code 50; the batch stays published",
        choices=("warn", "fail"),
        shapes_result=False,
    )
    batches: int = setting(30, "latest batches that a batch is compared with", low=1, high=1000, shapes_result=False)
    least_batches: int = setting(
        7,
        "batches there must be before flagged share, message count and unknown words are compared with them",
        low=1,
        high=1000,
        shapes_result=False,
    )
    flagged_share: float = setting(
        2.0,
        "how many times the median share of flagged messages a batch may have, and what part of it it must have",
        low=0.0,
        shapes_result=False,
    )
    message_count: float = setting(
        3.0,
        "how many times the median number of messages a batch may have, and what part of it it must have",
        low=0.0,
        shapes_result=False,
    )
    unknown_words: float = setting(
        0.1,
        "how far the share of words that are not in the vocabulary may be above its median",
        low=0.0,
        high=1.0,
        shapes_result=False,
    )
    psi_before: float = setting(
        0.25, "population stability index of the scores against those of the batch before", low=0.0, shapes_result=False
    )
    psi_validation: float = setting(
        0.5,
        "population stability index of the scores against those of labelled messages that were not trained on",
        low=0.0,
        shapes_result=False,
    )

    def __post_init__(self) -> None:
        for key in ("flagged_share", "message_count"):
            if 0 < (value := getattr(self, key)) <= 1:
                raise SettingsError(
                    f"[drift] {key} = {value:g}: expected a number above 1, such as 2 for twice or half the median, or "
                    "0 for no limit."
                )


@dataclass(frozen=True)
class RunSettings:
    """[run]: how a run behaves beside others."""

    when_running: str = setting(
        "wait",
        "what a run does when another is scoring the same date or making the same artifact: wait for it, or leave with "
        "exit code 10",
        choices=("wait", "leave"),
        shapes_result=False,
    )
    artifacts_url: str = setting(
        "",
        "address at which a browser finds the folder of the artifacts, for the links on Luigi's page; empty links to "
        "the files themselves",
        shapes_result=False,
    )
    tensorboard_url: str = setting(
        "",
        "address of a TensorBoard over the artifacts, for the links on Luigi's page to a training",
        shapes_result=False,
    )
    catch_up_days: int = setting(
        0,
        "days before its date that Nightly looks at: those that never had a published batch, as after a machine was "
        "off, are scored with it; 0 for none",
        low=0,
        high=1000,
        shapes_result=False,
    )
    deadline: str = setting(
        "",
        "time of the day after a batch's date, as 06:00 by the local clock, at which its scores are due; a run that "
        "will be late says so from its first chunks; empty for none",
        shapes_result=False,
    )

    def __post_init__(self) -> None:
        for key in ("artifacts_url", "tensorboard_url"):
            value = getattr(self, key)
            # It is shown to everybody who reaches the page.
            if value and not re.fullmatch(r"https?://[^\s@]+", value):
                raise SettingsError(
                    f"[run] {key} = …: expected an address such as https://reports.internal/spam, without a user or "
                    "password, for it is shown on Luigi's page."
                )
        if self.deadline and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.deadline):
            raise SettingsError(
                f"[run] deadline = {self.deadline}: expected a time such as 06:00, or nothing. Set it in luigi.cfg."
            )


@dataclass(frozen=True)
class AlertSettings:
    """[alerts]: who is told that a night failed, drifted, will be late, or is well again; once each, by Nightly."""

    mail_to: str = setting(
        "",
        "addresses that are mailed, with commas between them, by the server of Luigi's [smtp] and from [email] sender; "
        "empty for none",
        shapes_result=False,
    )
    webhook_url: str = setting(
        "",
        "address that is sent JSON; SPAMSCORE_ALERTS_WEBHOOK_URL goes before it, for such an address is often a "
        "secret; empty for none",
        secret=True,
        shapes_result=False,
    )
    timeout: int = setting(10, "seconds that a mail server or webhook may take", low=1, high=300, shapes_result=False)
    attempts: int = setting(3, "times that a run tries to deliver an alert", low=1, high=10, shapes_result=False)

    def __post_init__(self) -> None:
        if self.webhook_url and not re.match(r"https?://[^/\s]+", self.webhook_url):
            raise SettingsError(
                "[alerts] webhook_url = …: expected an address that begins with https:// or http://. Set it in "
                "luigi.cfg or in SPAMSCORE_ALERTS_WEBHOOK_URL."
            )


@dataclass(frozen=True)
class MetricsSettings:
    """[metrics]: where Prometheus finds the numbers of a night."""

    textfile_folder: str = setting(
        "",
        "folder that node_exporter's textfile collector reads, which must be there; empty for none",
        shapes_result=False,
    )
    pushgateway: str = setting(
        "",
        "address of a Pushgateway, as http://pushgateway.internal:9091; SPAMSCORE_METRICS_PUSHGATEWAY goes before it, "
        "and a password belongs there; empty for none",
        secret=True,
        shapes_result=False,
    )

    def __post_init__(self) -> None:
        if self.pushgateway and not re.match(r"https?://[^/\s]+", self.pushgateway):
            raise SettingsError(
                "[metrics] pushgateway = …: expected an address such as http://pushgateway.internal:9091. Set it in "
                "luigi.cfg or in SPAMSCORE_METRICS_PUSHGATEWAY."
            )


@dataclass(frozen=True)
class ConsoleSettings:
    """[console]: what is said while it runs. Luigi's own lines have their level in [core] log_level."""

    log_level: str = setting(
        "INFO",
        "least severe lines of the pipeline that are shown",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        shapes_result=False,
    )
    tensorflow_log: str = setting(
        "QUIET",
        "least severe lines of TensorFlow's own log that are shown; its failures are shown always",
        choices=("QUIET", "ERROR", "WARNING", "INFO"),
        shapes_result=False,
    )
    progress: str = setting(
        "auto", "progress bars: auto shows them in a terminal", choices=("auto", "never"), shapes_result=False
    )


def _require_source(section: str, settings: CorpusSettings | MessagesSettings) -> None:
    """Holds the values that only make sense together: a source has what it reads, its encoding is one."""
    for source, key in (("file", "path"), ("sql", "query")):
        if settings.source == source and not getattr(settings, key):
            raise SettingsError(
                f"[{section}] {key} is empty, and [{section}] source = {source} needs it. "
                f"Set [{section}] {key}, or [{section}] source to another."
            )
    if settings.url:
        _require_address(section, "url", settings.url)
    try:
        codecs.lookup(settings.encoding)
    except LookupError:
        raise SettingsError(
            f"[{section}] encoding = {settings.encoding}: Python knows no such encoding. "
            "Set it to one such as utf-8, utf-16, latin-1 or cp1252."
        ) from None


def _require_address(section: str, key: str, address: str) -> None:
    """Refuses what is no address at all; the text may hold a password, so it is not shown."""
    if not re.match(r"[A-Za-z][\w+]*://", address):
        raise SettingsError(
            f"[{section}] {key} = …: expected a SQLAlchemy address such as sqlite:///spamscore.db or "
            f"postgresql://user:password@host:5432/name. Set it in luigi.cfg or in SPAMSCORE_{section.upper()}_URL."
        )


SECTIONS: dict[str, type] = {
    "artifacts": ArtifactSettings,
    "database": DatabaseSettings,
    "corpus": CorpusSettings,
    "text": TextSettings,
    "split": SplitSettings,
    "vocabulary": VocabularySettings,
    "network": NetworkSettings,
    "training": TrainingSettings,
    "gate": GateSettings,
    "messages": MessagesSettings,
    "scoring": ScoringSettings,
    "devices": DeviceSettings,
    "report": ReportSettings,
    "drift": DriftSettings,
    "run": RunSettings,
    "alerts": AlertSettings,
    "metrics": MetricsSettings,
    "console": ConsoleSettings,
}

# The environment's address of luigid; it goes before the files, and no run without luigid is then meant.
LUIGID_VARIABLE = "SPAMSCORE_LUIGID_URL"

# Luigi's own values that a nightly job needs otherwise than Luigi ships them; set when nobody sets them.
# Without them Luigi looks for luigid, exits 0 on failure, and forks after TensorFlow has run.
LUIGI_DEFAULTS: dict[str, dict[str, str]] = {
    "core": {
        "local_scheduler": "true",
        "log_level": "INFO",
        "autoload_range": "true",
        # Luigi's lock is one for the machine: the same command in another folder would be taken for a second run.
        # Folders and batches have locks of their own.
        "no_lock": "true",
    },
    "worker": {"force_multiprocessing": "true", "check_complete_on_run": "true"},
    "retcode": {
        "already_running": "10",
        "missing_data": "20",
        "not_run": "25",
        "task_failed": "30",
        "scheduling_error": "35",
        "unhandled_exception": "40",
    },
    # As Luigi ships it, a backfill leaves out in silence what is older than 100 days and what comes after 50 dates.
    "RangeDaily": {"days_back": "36500", "task_limit": "1000"},
}

# Sections that Luigi and its contrib modules read; their keys are Luigi's business unless a class declares them.
_LUIGI_SECTIONS = frozenset({
    "core", "worker", "scheduler", "retcode", "email", "batch_email", "smtp", "sendgrid", "execution_summary",
    "task_history", "resources", "logging", "cors", "prometheus", "datadog",
})  # fmt: skip
# Keys that Luigi reads without declaring them as parameters.
_UNDECLARED_LUIGI_KEYS = {
    "core": {
        "autoload_range", "default_scheduler_host", "default_scheduler_port", "default_scheduler_url",
        "no_configure_logging", "rpc_connect_timeout", "rpc_log_retries", "rpc_retry_attempts", "rpc_retry_wait",
    },
}  # fmt: skip

Loaded = TypeVar("Loaded")


class SettingParameter(luigi.Parameter[Any]):
    """A Luigi parameter held to one declared setting: parsed, range-checked, for secrets read from the environment."""

    def __init__(self, declared_setting: Setting) -> None:
        super().__init__(
            default=declared_setting.default, description=declared_setting.rule.description, always_in_help=True
        )
        self.setting = declared_setting

    def parse(self, x: str) -> Any:
        """Text of a file or the command line to a value, or a SettingsError."""
        return self.setting.parse(x)

    def serialize(self, x: Any) -> str:
        """A value as luigi.cfg would have it."""
        return str(x).lower() if isinstance(x, bool) else str(x)

    def normalize(self, x: Any) -> Any:
        """The value if it is in range, or a SettingsError."""
        return self.setting.checked(x)

    def _get_value_from_config(self, section: str, name: str) -> Any:
        variable = environment_variable(self.setting)
        if variable and os.environ.get(variable):
            return self.parse(os.environ[variable])
        return super()._get_value_from_config(section, name)


def environment_variable(declared_setting: Setting) -> str | None:
    """The environment variable that goes before luigi.cfg: secrets alone have one."""
    if not declared_setting.rule.secret:
        return None
    return f"SPAMSCORE_{declared_setting.section}_{declared_setting.key}".upper()


def _config_class(section: str, settings_class: type) -> type[luigi.Config]:
    """The `luigi.Config` of a section; its name is the section's, which makes ``--training-rnn-units`` work."""
    parameters: dict[str, Any] = {one.key: SettingParameter(one) for one in declared(section, settings_class)}
    return cast(
        "type[luigi.Config]",
        type(section, (luigi.Config,), {"__doc__": settings_class.__doc__, "__module__": __name__, **parameters}),
    )


_CONFIG_CLASSES = {
    settings_class: _config_class(section, settings_class) for section, settings_class in SECTIONS.items()
}


def load(settings_class: type[Loaded]) -> Loaded:
    """The section's values as they hold now: command line, environment (secrets), luigi.cfg, default, in this order.

    Raises:
        SettingsError: a value that cannot be used.
    """
    try:
        values = _CONFIG_CLASSES[settings_class]()
    except (ValueError, configparser.InterpolationError) as error:
        raise _settings_error(error) from None
    names = [field.name for field in dataclasses.fields(cast(Any, settings_class))]
    return settings_class(**{name: getattr(values, name) for name in names})


def _settings_error(error: Exception) -> Exception:
    """The error that Luigi wrapped while it read the values; one it is not for us to explain stays as it is."""
    cause = error.__cause__ or error
    if isinstance(cause, configparser.InterpolationError):
        return SettingsError(
            f"[{cause.section}] {cause.option}: refers to a variable or key that is not there. "
            "Set the variable in the environment, or correct the value in luigi.cfg."
        )
    return cause if isinstance(cause, SettingsError) else error


def prepare_luigi() -> None:
    """Makes what Luigi read from files fit for this project.

    Luigi's own sections get the values of `LUIGI_DEFAULTS` where no file sets them, and its client of luigid
    becomes one that a run does not depend on. In ours a per cent sign may stand as it is, for addresses and queries
    have them: Luigi takes one for a reference, and fails where it is none.
    """
    luigi.rpc.RemoteScheduler = SteadyScheduler  # type: ignore[assignment,misc]
    parser = LuigiConfigParser.instance()
    for section, values in LUIGI_DEFAULTS.items():
        for key, value in values.items():
            if not parser.has_option(section, key):
                parser.set(section, key, value)
    if address := os.environ.get(LUIGID_VARIABLE):
        parser.set("core", "local_scheduler", "false")
        parser.set("core", "default_scheduler_url", address.replace("%", "%%"))
    for section in SECTIONS:
        for key, value in parser.items(section, raw=True) if parser.has_section(section) else ():
            try:
                parser.get(section, key)
            except configparser.InterpolationSyntaxError:
                parser.set(section, key, value.replace("%", "%%"))
            except configparser.InterpolationError:
                pass  # a reference to what is not there; `load` says so


def check_settings() -> None:
    """Holds every section, key and value in force to what is declared.

    Every stage asks as it is made, a dozen in a run; what was found sound is not looked at again.

    Raises:
        SettingsError: naming section, key, value, what was expected and the nearest name there is.
    """
    global _sound
    given = _given()
    if given != _sound:
        _check_all()
        _sound = given


_sound: tuple[Any, ...] | None = None


def _given() -> tuple[Any, ...]:
    """All that settings are made of: what files say, the environment and the command line."""
    sections = LuigiConfigParser.instance()._sections
    command_line = CmdlineParser.get_instance()
    said = vars(command_line.known_args) if command_line else {}
    return {name: dict(keys) for name, keys in sections.items()}, dict(os.environ), dict(said)


def _check_all() -> None:
    chosen = os.environ.get("LUIGI_CONFIG_PATH")
    if chosen and not Path(chosen).is_file():
        raise SettingsError(f"LUIGI_CONFIG_PATH = {chosen}: no such file. Correct the variable or unset it.")
    parser = LuigiConfigParser.instance()
    for section in parser.sections():
        _check_section(section, list(parser._sections[section]))
    for settings_class in SECTIONS.values():
        load(settings_class)


def _check_section(section: str, keys: list[str]) -> None:
    tasks = Register.task_names()
    if section not in SECTIONS and section not in _LUIGI_SECTIONS and section not in tasks:
        raise SettingsError(
            f"[{section}]: no such section{_where(section)}{_nearest(section, [*SECTIONS, *_LUIGI_SECTIONS])}. "
            f"Sections are {', '.join(SECTIONS)}, and Luigi's own."
        )
    known = _known_keys(section)
    for key in keys if known is not None else ():
        if key.replace("-", "_") not in cast("set[str]", known):
            near = _nearest(key, sorted(cast("set[str]", known)))
            raise SettingsError(
                f"[{section}] {key}: no such setting{_where(section, key)}{near}. `spamscore config` lists them all."
            )


def _known_keys(section: str) -> set[str] | None:
    """Keys of a section, or None where Luigi leaves them open."""
    if section not in Register.task_names() or section == "resources":
        return None
    names = {name for name, _ in Register.get_task_cls(section).get_params()}
    return names | _UNDECLARED_LUIGI_KEYS.get(section, set())


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _where(section: str, key: str | None = None) -> str:
    path = source_file(section, key)
    return f" (in {path})" if path else ""


def config_files() -> list[Path]:
    """The configuration files that are there, in the order they are read: a later one goes before an earlier one."""
    return [Path(path) for path in LuigiConfigParser._config_paths if Path(path).is_file()]


def source_file(section: str, key: str | None = None) -> Path | None:
    """The file that sets a key (or holds a section), or None."""
    for path in reversed(config_files()):
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(path, encoding="utf-8")
        if parser.has_section(section) and (key is None or parser.has_option(section, key)):
            return path
    return None
