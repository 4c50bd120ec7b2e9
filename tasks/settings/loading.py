"""The settings that need files, databases or Luigi, and the one way from luigi.cfg to a frozen dataclass.

luigi.cfg [section] → a `luigi.Config` generated from the dataclass → the dataclass (`load`) → plain functions.
The dataclasses of the machine learning live in `models.settings`; `SECTIONS` names them all.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
from typing import Any, TypeVar, cast

import luigi
import luigi.rpc

from models.errors import SettingsError
from models.settings import (
    Setting,
    declared_settings,
)
from tasks.settings.sections import SECTIONS

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
        return self.setting.validate(x)

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
    parameters: dict[str, Any] = {one.key: SettingParameter(one) for one in declared_settings(section, settings_class)}
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
