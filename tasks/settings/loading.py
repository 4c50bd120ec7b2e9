"""Loads a section of luigi.cfg into its frozen dataclass.

luigi.cfg [section] → a `luigi.Config` generated from the dataclass → the dataclass (`load`) → plain functions.
The machine learning's dataclasses are in `models.settings`, all others in this folder; `SECTIONS` lists both.

A secret comes from an environment variable, or from a file that the variable with the suffix ``_FILE`` names.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
import stat
from pathlib import Path
from typing import Any, TypeVar, cast

import luigi
import luigi.rpc

from models.errors import SettingsError
from models.settings import Setting, declared_settings
from tasks.settings.sections import SECTIONS

Loaded = TypeVar("Loaded")

# The password of the mail server for alerts; it takes precedence over Luigi's [smtp] password.
SMTP_PASSWORD_VARIABLE = "SPAMSCORE_SMTP_PASSWORD"  # noqa: S105 - a name, not a secret
FILE_SUFFIX = "_FILE"
_MAX_SECRET_BYTES = 65536


class SettingParameter(luigi.Parameter[Any]):
    """A Luigi parameter for one declared setting: parsed and range-checked; a secret can come from the environment."""

    def __init__(self, declared_setting: Setting) -> None:
        # argparse takes a per cent sign of a help text for a format.
        description = declared_setting.rule.description.replace("%", "%%")
        super().__init__(default=declared_setting.default, description=description, always_in_help=True)
        self.setting = declared_setting

    def parse(self, x: str) -> Any:
        """Converts text from a file or the command line to a value.

        Raises:
            SettingsError: the text is not a value of this setting.
        """
        return self.setting.parse(x)

    def serialize(self, x: Any) -> str:
        """Formats a value as it is written in luigi.cfg."""
        return str(x).lower() if isinstance(x, bool) else str(x)

    def normalize(self, x: Any) -> Any:
        """Returns the value if it is in range.

        Raises:
            SettingsError: it is not.
        """
        return self.setting.validate(x)

    def _get_value_from_config(self, section: str, name: str) -> Any:
        variable = environment_variable(self.setting)
        if variable and (text := read_secret(variable)):
            return self.parse(text)
        return super()._get_value_from_config(section, name)


def environment_variable(declared_setting: Setting) -> str | None:
    """Returns the environment variable that takes precedence over luigi.cfg; None for a setting that is no secret."""
    if not declared_setting.rule.secret:
        return None
    return f"SPAMSCORE_{declared_setting.section}_{declared_setting.key}".upper()


def find_secret(variable: str) -> str | None:
    """Returns the name of the environment variable that gives a secret: the variable, or the one that names its file.

    Args:
        variable: such as SPAMSCORE_DATABASE_URL. An empty variable counts as not set.

    Returns:
        The variable, or the variable with `FILE_SUFFIX`, or None if neither is set.

    Raises:
        SettingsError: both are set.
    """
    names = [name for name in (variable, variable + FILE_SUFFIX) if os.environ.get(name)]
    if len(names) > 1:
        raise SettingsError(
            f"{names[0]} and {names[1]}: both are set; expected one of them, so that it is clear which value applies. "
            f"Unset one: unset {names[1]}"
        )
    return names[0] if names else None


def read_secret(variable: str) -> str:
    """Returns a secret from its environment variable, or from the file that the variable with ``_FILE`` names.

    Line breaks at the end of a file do not belong to the value.

    Raises:
        SettingsError: both variables are set, or the file cannot be read or has not exactly one line. The message
            names the file and not its content.
    """
    name = find_secret(variable)
    if name is None:
        return ""
    if name == variable:
        return os.environ[name]
    return _read_secret_file(name, Path(os.environ[name]))


def _read_secret_file(name: str, path: Path) -> str:
    way_out = f"Correct the variable, or set {name.removesuffix(FILE_SUFFIX)} instead."
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError(f"{name} = {path}: expected a regular file with the value. {way_out}")
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(f"{name} = {path}: no such file. {way_out}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise SettingsError(f"{name} = {path}: {reason}. Make it a file that this user can read. {way_out}") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise SettingsError(f"{name} = {path}: expected at most {_MAX_SECRET_BYTES} bytes. {way_out}")
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{name} = {path}: expected UTF-8, received other bytes. {way_out}") from None
    if not text.strip():
        raise SettingsError(f"{name} = {path}: the file is empty; expected the value in one line. {way_out}")
    if len(text.splitlines()) > 1 or "\0" in text:
        raise SettingsError(f"{name} = {path}: expected the value in one line, received more than a line. {way_out}")
    return text


def _config_class(section: str, settings_class: type) -> type[luigi.Config]:
    """Creates the `luigi.Config` of a section. It has the section's name, so that ``--network-rnn-units`` works."""
    parameters: dict[str, Any] = {
        declared_setting.key: SettingParameter(declared_setting)
        for declared_setting in declared_settings(section, settings_class)
    }
    return cast(
        "type[luigi.Config]",
        type(section, (luigi.Config,), {"__doc__": settings_class.__doc__, "__module__": __name__, **parameters}),
    )


_CONFIG_CLASSES = {
    settings_class: _config_class(section, settings_class) for section, settings_class in SECTIONS.items()
}


def load(settings_class: type[Loaded]) -> Loaded:
    """Returns the values of a section that are in force now.

    The first of these that sets a value is used: the command line, the environment or the file that it names (secrets
    only), luigi.cfg, the default.

    Raises:
        SettingsError: a value is not valid.
    """
    try:
        values = _CONFIG_CLASSES[settings_class]()
    except (ValueError, configparser.InterpolationError) as error:
        raise _unwrap_settings_error(error) from None
    names = [field.name for field in dataclasses.fields(cast(Any, settings_class))]
    return settings_class(**{name: getattr(values, name) for name in names})


def _unwrap_settings_error(error: Exception) -> Exception:
    """Returns the SettingsError that Luigi wrapped while it read the values; any other error is returned unchanged."""
    cause = error.__cause__ or error
    if isinstance(cause, configparser.InterpolationError):
        return SettingsError(
            f"[{cause.section}] {cause.option}: refers to a variable or key that does not exist. "
            "Set the variable in the environment, or correct the value in luigi.cfg."
        )
    return cause if isinstance(cause, SettingsError) else error
