"""Lists every setting with its value and source, and formats a luigi.cfg with the defaults.

Both are made from the declarations in `models.settings` and `tasks.settings`. Passwords are masked before a value is
returned.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from luigi.configuration import LuigiConfigParser

from models.errors import SettingsError
from models.settings import Setting, declared_settings
from tasks.monitoring.alerts import mask_webhook_url
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.checking import find_source_file, is_known_section
from tasks.settings.loading import environment_variable, find_secret, load
from tasks.settings.masking import mask_password
from tasks.settings.sections import SECTIONS

DEFAULT = "default"
_COMMENT_WIDTH = 110
_SECRET_KEY = re.compile(r"pass|secret|api_?key|token", re.IGNORECASE)

# Descriptions of the settings in `LUIGI_DEFAULTS`; Luigi's own are too short.
_LUIGI_DESCRIPTIONS = {
    "core": {
        "local_scheduler": "true runs without luigid; false uses the luigid at default_scheduler_url",
        "log_level": "minimum level of Luigi's log lines: DEBUG, INFO, WARNING, ERROR or CRITICAL",
        "autoload_range": "true makes the task RangeDaily available without its module",
        "no_lock": "false allows only one run of the same command at a time on the whole machine, in any folder",
    },
    "worker": {
        "force_multiprocessing": "run each task in its own process: a process that forks after TensorFlow ran hangs",
        "check_complete_on_run": "treat a task that produced no output as failed",
    },
    "retcode": {
        "already_running": "exit code when another run is working on the same task",
        "missing_data": "exit code when an input file is missing, or when the date is not over",
        "not_run": "exit code when a task was not run and no reason is known",
        "task_failed": "exit code when a task failed",
        "scheduling_error": "exit code when the state of a task is unknown, as when the database cannot be reached",
        "unhandled_exception": "exit code when Luigi itself fails, or on a bad setting",
    },
    "RangeDaily": {
        "days_back": "dates more than this number of days before today are left out, even if they are after --start",
        "task_limit": "maximum number of dates in one run, earliest first; run again for the others",
    },
}


@dataclass(frozen=True)
class ActiveSetting:
    """A setting with its current value.

    Attributes:
        section: section of luigi.cfg.
        key: key in the section.
        value: value in the notation of luigi.cfg, passwords masked.
        source: ``default``, the path of a file, or the name of an environment variable.
        default: default in the same notation; None for a setting of Luigi that has none in `LUIGI_DEFAULTS`.
        description: one sentence.
    """

    section: str
    key: str
    value: str
    source: str
    default: str | None
    description: str


def list_settings(section: str | None = None) -> list[ActiveSetting]:
    """Returns all settings, or those of one section.

    The settings of this project come first, in the order of their declaration, then those of Luigi: the ones in
    `LUIGI_DEFAULTS`, and all others that a file sets. Sections of other projects are left out.

    Raises:
        SettingsError: there is no such section.
    """
    settings = [*_iterate_project_settings(), *_iterate_luigi_settings()]
    if section is None:
        return settings
    sections = list(dict.fromkeys(setting.section for setting in settings))
    if section not in sections:
        raise SettingsError(f"[{section}]: no such section. Sections are {', '.join(sections)}.")
    return [setting for setting in settings if setting.section == section]


def _iterate_project_settings() -> Iterator[ActiveSetting]:
    for section, settings_class in SECTIONS.items():
        values: Any = load(settings_class)
        for setting in declared_settings(section, settings_class):
            value = _mask(setting, format_value(getattr(values, setting.key)))
            default, description = format_value(setting.default), setting.rule.description
            yield ActiveSetting(section, setting.key, value, _find_source(setting), default, description)


def _iterate_luigi_settings() -> Iterator[ActiveSetting]:
    parser = LuigiConfigParser.instance()
    file_sections = [name for name in parser.sections() if name not in SECTIONS and is_known_section(name)]
    for section in dict.fromkeys([*LUIGI_DEFAULTS, *file_sections]):
        defaults: dict[str, str] = LUIGI_DEFAULTS.get(section, {})
        for key in dict.fromkeys([*defaults, *parser.options(section)]):
            value = str(parser.get(section, key))
            masked_value = "***" if _SECRET_KEY.search(key) else _mask_url(value) if "url" in key else value
            description = _LUIGI_DESCRIPTIONS.get(section, {}).get(key, "a setting of Luigi; see its documentation")
            source = _find_file(section, key) or DEFAULT
            yield ActiveSetting(section, key, masked_value, source, defaults.get(key), description)


def format_value(value: Any) -> str:
    """Formats a value in the notation of luigi.cfg."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mask(setting: Setting, value: str) -> str:
    # A default contains no password, and masking would import SQLAlchemy.
    if value == format_value(setting.default) or not (setting.rule.secret or setting.key.endswith("url")):
        return value
    return mask_webhook_url(value) if setting.key == "webhook_url" else _mask_url(value)


def _mask_url(value: str) -> str:
    return mask_password(value) if value else value


def _find_source(setting: Setting) -> str:
    variable = environment_variable(setting)
    if variable and (source := find_secret(variable)):
        return source
    return _find_file(setting.section, setting.key) or DEFAULT


def _find_file(section: str, key: str) -> str | None:
    # Luigi also accepts a key with dashes.
    path = find_source_file(section, key) or find_source_file(section, key.replace("_", "-"))
    return str(path) if path else None


def format_default_file() -> str:
    """Returns a luigi.cfg with every setting at its default, below a comment with its description and valid values."""
    project = (_format_project_section(section, settings_class) for section, settings_class in SECTIONS.items())
    luigi = (_format_luigi_section(section, values) for section, values in LUIGI_DEFAULTS.items())
    return "\n".join([_format_comment(_FILE_HEADER), "", *project, *luigi])


_FILE_HEADER = (
    "Every setting with its default, as printed by `spamscore config --defaults`. A setting that is missing or "
    "commented out has its default. `spamscore config` shows the current values and where each comes from. ${NAME} "
    "inserts an environment variable. Put passwords into the environment: SPAMSCORE_DATABASE_URL, or "
    "SPAMSCORE_DATABASE_URL_FILE for a file with the value."
)


def _format_project_section(section: str, settings_class: type) -> str:
    description = (settings_class.__doc__ or "").split(": ", 1)[1].split("\n\n")[0]
    lines = (
        f"{_format_comment(_describe(setting))}\n{_format_line(setting.key, format_value(setting.default))}\n"
        for setting in declared_settings(section, settings_class)
    )
    return "\n".join([f"[{section}]", _format_comment(description[:1].upper() + description[1:]), "", *lines])


def _format_luigi_section(section: str, values: dict[str, str]) -> str:
    lines = (
        f"{_format_comment(_LUIGI_DESCRIPTIONS[section][key])}\n{_format_line(key, value)}\n"
        for key, value in values.items()
    )
    return "\n".join([f"[{section}]", _format_comment("Settings of Luigi, for a nightly job."), "", *lines])


def _describe(setting: Setting) -> str:
    """Returns the description of a setting, and its valid values unless any text is valid."""
    expected = setting.rule.describe_expected(setting.kind)
    return setting.rule.description + ("" if expected == "text" else f" ({expected})")


def _format_line(key: str, value: str) -> str:
    return f"{key} = {value.replace('%', '%%')}".rstrip()


def _format_comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _COMMENT_WIDTH))
