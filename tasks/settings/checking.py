"""Checks every section, key and value of luigi.cfg against its declaration."""

from __future__ import annotations

import configparser
import difflib
import os
from pathlib import Path
from typing import Any, cast

from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser
from luigi.task_register import Register

from models.errors import SettingsError
from tasks.settings.loading import load
from tasks.settings.sections import SECTIONS

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
