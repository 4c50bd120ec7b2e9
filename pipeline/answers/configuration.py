"""Every setting in force, with where it came from, and the luigi.cfg that says the defaults.

Both are made from what `models.settings` and `tasks.settings.loading` declare. Passwords are masked before anything
leaves.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from luigi.configuration import LuigiConfigParser

from models.errors import SettingsError
from models.settings import Setting, declared
from tasks.monitoring.alerts import masked_webhook
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.checking import find_source_file
from tasks.settings.loading import environment_variable, load
from tasks.settings.sections import SECTIONS

DEFAULT = "default"
_LINE = 110
_SECRET_KEY = re.compile(r"pass|secret|api_?key|token", re.IGNORECASE)

# What Luigi's own settings of `LUIGI_DEFAULTS` are for, as Luigi's descriptions do not say.
_LUIGI_MEANINGS = {
    "core": {
        "local_scheduler": "true runs without luigid; false looks for it, at default_scheduler_url",
        "log_level": "least severe lines of Luigi that are shown: DEBUG, INFO, WARNING or ERROR",
        "autoload_range": "true makes RangeDaily known without its module",
        "no_lock": "false lets only one run of a command go on at a time, on the whole machine, in whatever folder",
    },
    "worker": {
        "force_multiprocessing": "run each task in a process of its own: one that forks after TensorFlow ran hangs",
        "check_complete_on_run": "take a task that left nothing behind for failed",
    },
    "retcode": {
        "already_running": "exit code when another run is at the same task",
        "missing_data": "exit code when a file that somebody provides is not there",
        "not_run": "exit code when a task was not run and nothing says why",
        "task_failed": "exit code when a task failed",
        "scheduling_error": "exit code when it cannot be told what is done, as when the database cannot be reached",
        "unhandled_exception": "exit code when Luigi itself fails, as on a bad argument",
    },
    "RangeDaily": {
        "days_back": "days before today from which on --start counts",
        "task_limit": "most dates of one run, the earliest first; run again for the others",
    },
}


@dataclass(frozen=True)
class SettingInForce:
    """One setting as it holds now.

    Attributes:
        section: of luigi.cfg.
        key: in the section.
        value: as luigi.cfg would say it, passwords masked.
        source: ``default``, the path of a file, or the name of an environment variable.
        default: as `value`; None for what Luigi declares.
        description: one sentence.
    """

    section: str
    key: str
    value: str
    source: str
    default: str | None
    description: str


def settings_in_force(section: str | None = None) -> list[SettingInForce]:
    """All settings, or those of a section: ours in the order they are declared, then Luigi's that somebody set.

    Raises:
        SettingsError: there is no such section.
    """
    found = [one for part in (_our_settings(), _luigi_settings()) for one in part]
    if section is None:
        return found
    sections = list(dict.fromkeys(one.section for one in found))
    if section not in sections:
        raise SettingsError(f"[{section}]: no such section. Sections are {', '.join(sections)}.")
    return [one for one in found if one.section == section]


def _our_settings() -> Iterator[SettingInForce]:
    for section, settings_class in SECTIONS.items():
        values: Any = load(settings_class)
        for one in declared(section, settings_class):
            value = _masked(one, written(getattr(values, one.key)))
            yield SettingInForce(section, one.key, value, _source(one), written(one.default), one.rule.description)


def _luigi_settings() -> Iterator[SettingInForce]:
    """Those of `LUIGI_DEFAULTS`, and all others that a file sets."""
    parser = LuigiConfigParser.instance()
    sections = dict.fromkeys([*LUIGI_DEFAULTS, *(one for one in parser.sections() if one not in SECTIONS)])
    for section in sections:
        defaults: dict[str, str] = LUIGI_DEFAULTS.get(section, {})
        for key in dict.fromkeys([*defaults, *parser.options(section)]):
            value = str(parser.get(section, key))
            hidden = "***" if _SECRET_KEY.search(key) else _masked_address(value) if "url" in key else value
            meaning = _LUIGI_MEANINGS.get(section, {}).get(key, "Luigi's own; see its documentation")
            yield SettingInForce(section, key, hidden, _file(section, key) or DEFAULT, defaults.get(key), meaning)


def written(value: Any) -> str:
    """A value as luigi.cfg says it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _masked(one: Setting, value: str) -> str:
    # A default holds no password; asking would cost SQLAlchemy's import.
    if value == written(one.default) or not (one.rule.secret or one.key.endswith("url")):
        return value
    return masked_webhook(value) if one.key == "webhook_url" else _masked_address(value)


def _masked_address(value: str) -> str:
    from tasks.database.connection import masked

    return masked(value) if value else value


def _source(one: Setting) -> str:
    variable = environment_variable(one)
    if variable and os.environ.get(variable):
        return variable
    return _file(one.section, one.key) or DEFAULT


def _file(section: str, key: str) -> str | None:
    # Luigi takes a key with dashes as well.
    path = find_source_file(section, key) or find_source_file(section, key.replace("_", "-"))
    return str(path) if path else None


def default_file() -> str:
    """A luigi.cfg with every setting at its default, each under a comment that says what it is for and may be."""
    ours = (_our_section(section, settings_class) for section, settings_class in SECTIONS.items())
    luigis = (_luigi_section(section, values) for section, values in LUIGI_DEFAULTS.items())
    return "\n".join([_comment(_HEAD), "", *ours, *luigis])


_HEAD = (
    "Every setting with its default, as `spamscore config --defaults` prints it. A line that is left out or commented "
    "out means the same. `spamscore config` shows what holds and where it came from. ${NAME} stands for an "
    "environment variable. A password belongs in the environment: SPAMSCORE_DATABASE_URL."
)


def _our_section(section: str, settings_class: type) -> str:
    meaning = (settings_class.__doc__ or "").split(": ", 1)[1].split("\n\n")[0]
    keys = (
        f"{_comment(_described(one))}\n{_line(one.key, written(one.default))}\n"
        for one in declared(section, settings_class)
    )
    return "\n".join([f"[{section}]", _comment(meaning[:1].upper() + meaning[1:]), "", *keys])


def _luigi_section(section: str, values: dict[str, str]) -> str:
    keys = (f"{_comment(_LUIGI_MEANINGS[section][key])}\n{_line(key, value)}\n" for key, value in values.items())
    return "\n".join([f"[{section}]", _comment("Luigi's own, as a nightly job needs it."), "", *keys])


def _described(one: Setting) -> str:
    """What it is for, and what it may be where the sentence alone does not tell."""
    expected = one.rule.expected(one.kind)
    return one.rule.description + ("" if expected == "text" else f" ({expected})")


def _line(key: str, value: str) -> str:
    return f"{key} = {value.replace('%', '%%')}".rstrip()


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _LINE))
