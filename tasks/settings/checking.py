"""Checks every section, key and value of the configuration against its declaration, and finds the file that set it."""

from __future__ import annotations

import configparser
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser
from luigi.task_register import Register

from models.errors import SettingsError
from models.settings import NetworkSettings
from tasks.settings.files import MACHINE_FILES, PROJECT_FILES, find_fault
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import SMTP_PASSWORD_VARIABLE, load, read_secret
from tasks.settings.sections import SECTIONS

# Sections that Luigi and its contrib modules read. Their keys are checked only if a class declares them.
_LUIGI_SECTIONS = frozenset({
    "core", "worker", "scheduler", "retcode", "email", "batch_email", "smtp", "sendgrid", "execution_summary",
    "task_history", "resources", "logging", "cors", "prometheus", "datadog",
})  # fmt: skip
# From this similarity on, a section is taken for a misspelt one, also in a file of other projects.
_SIMILARITY = 0.8


# Keys that Luigi reads without declaring them as parameters.
_UNDECLARED_LUIGI_KEYS = {
    "core": {
        "autoload_range", "default_scheduler_host", "default_scheduler_port", "default_scheduler_url",
        "no_configure_logging", "rpc_connect_timeout", "rpc_log_retries", "rpc_retry_attempts", "rpc_retry_wait",
    },
}  # fmt: skip


def check_settings() -> None:
    """Checks every section, key and value in force against its declaration.

    Every stage calls this when it is created, a dozen times in a run. A configuration that passed is not checked again
    until a file, the environment or the command line changes.

    Raises:
        SettingsError: names the section, the key, the value, what was expected and the most similar name.
    """
    global _last_valid
    configuration = _read_configuration()
    if configuration != _last_valid:
        _check_all()
        _last_valid = configuration


_last_valid: tuple[Any, ...] | None = None


def _read_configuration() -> tuple[Any, ...]:
    """Returns everything that settings are computed from: the files, the environment and the command line."""
    sections = LuigiConfigParser.instance()._sections
    command_line = CmdlineParser.get_instance()
    arguments = vars(command_line.known_args) if command_line else {}
    return {name: dict(keys) for name, keys in sections.items()}, dict(os.environ), dict(arguments)


def _check_all() -> None:
    if fault := find_fault():
        raise SettingsError(fault)
    parser = LuigiConfigParser.instance()
    for section in parser.sections():
        _check_section(section, list(parser._sections[section]))
    for settings_class in SECTIONS.values():
        load(settings_class)
    read_secret(SMTP_PASSWORD_VARIABLE)
    _check_self_training()


def _check_self_training() -> None:
    if load(CorpusSettings).self_training != "off" and not load(NetworkSettings).linear:
        raise SettingsError(
            "[corpus] self_training = nights: expected [network] linear = true, received false, because only the "
            "linear part learns from the nights. Set [network] linear = true, or [corpus] self_training = off."
        )


def _check_section(section: str, keys: list[str]) -> None:
    if not is_known_section(section):
        suggestion = suggest_name(section, [*SECTIONS, *_LUIGI_SECTIONS])
        if suggest_name(section, [*SECTIONS, *_LUIGI_SECTIONS], _SIMILARITY) or not _is_of_machine(section):
            raise SettingsError(
                f"[{section}]: no such section{_describe_source(section)}{suggestion}. "
                f"Sections are {', '.join(SECTIONS)}, and Luigi's own."
            )
    allowed = _allowed_keys(section)
    for key in keys if allowed is not None else ():
        if key.replace("-", "_") not in cast("set[str]", allowed):
            _check_unknown_key(section, key, sorted(cast("set[str]", allowed)))


def _check_unknown_key(section: str, key: str, allowed: list[str]) -> None:
    is_similar = suggest_name(key, allowed, _SIMILARITY) != ""
    if is_similar or section not in _LUIGI_SECTIONS or not _is_of_machine(section, key):
        raise SettingsError(
            f"[{section}] {key}: no such setting{_describe_source(section, key)}{suggest_name(key, allowed)}. "
            "`spamscore config` lists all settings."
        )


def is_known_section(section: str) -> bool:
    """Returns whether a section belongs to this project, to one of its tasks, or to Luigi."""
    return section in SECTIONS or section in _LUIGI_SECTIONS or section in Register.task_names()


def _is_of_machine(section: str, key: str | None = None) -> bool:
    """Returns whether all files with a section or key are for all Luigi projects of the machine: others may own it."""
    files = [path for path in list_config_files() if _sets(_read(path), section, key)]
    return bool(files) and all(_is_machine_file(path) for path in files)


def _is_machine_file(path: Path) -> bool:
    """Returns whether a file is for all Luigi projects of the machine.

    LUIGI_CONFIG_PATH may name such a file or one of this project; the latter has a section of this project.
    """
    if str(path) in MACHINE_FILES:
        return True
    is_in_folder = any(Path(name).exists() and path.samefile(name) for name in PROJECT_FILES)
    return not is_in_folder and not set(_read(path).sections()) & set(SECTIONS)


def _allowed_keys(section: str) -> set[str] | None:
    """Returns the keys of a section; None if Luigi accepts any."""
    if section not in Register.task_names() or section == "resources":
        return None
    names = {name for name, _ in Register.get_task_cls(section).get_params()}
    return names | _UNDECLARED_LUIGI_KEYS.get(section, set())


def suggest_name(name: str, names: Sequence[str], similarity: float = 0.6) -> str:
    """Returns the most similar of the names as a question in parentheses, or an empty text.

    Args:
        name: the name that is not among them.
        names: the names that exist.
        similarity: least similarity, from 0 to 1.
    """
    by_folded_name = {other.casefold(): other for other in reversed(names)}
    matches = difflib.get_close_matches(name.casefold(), by_folded_name, n=1, cutoff=similarity)
    return f" (did you mean {by_folded_name[matches[0]]}?)" if matches else ""


def _describe_source(section: str, key: str | None = None) -> str:
    path = find_source_file(section, key)
    return f" (in {path})" if path else ""


def list_config_files() -> list[Path]:
    """Returns the configuration files that exist, in the order they are read. Later files override earlier ones."""
    return [Path(path) for path in LuigiConfigParser._config_paths if Path(path).is_file()]


def find_source_file(section: str, key: str | None = None) -> Path | None:
    """Returns the file that sets a key or, without a key, that contains the section; None if no file does."""
    for path in reversed(list_config_files()):
        if _sets(_read(path), section, key):
            return path
    return None


def _sets(parser: configparser.RawConfigParser, section: str, key: str | None) -> bool:
    return parser.has_section(section) and (key is None or parser.has_option(section, key))


def _read(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser
