"""Loads a section of luigi.cfg into its frozen dataclass.

luigi.cfg [section] → a `luigi.Config` generated from the dataclass → the dataclass (`load`) → plain functions.
The machine learning's dataclasses are in `models.settings`, all others in this folder; `SECTIONS` lists both.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
from typing import Any, TypeVar, cast

import luigi
import luigi.rpc

from models.errors import SettingsError
from models.settings import Setting, declared_settings
from tasks.settings.sections import SECTIONS

Loaded = TypeVar("Loaded")


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
        if variable and os.environ.get(variable):
            return self.parse(os.environ[variable])
        return super()._get_value_from_config(section, name)


def environment_variable(declared_setting: Setting) -> str | None:
    """Returns the environment variable that takes precedence over luigi.cfg; None for a setting that is no secret."""
    if not declared_setting.rule.secret:
        return None
    return f"SPAMSCORE_{declared_setting.section}_{declared_setting.key}".upper()


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

    The first of these that sets a value is used: the command line, the environment (secrets only), luigi.cfg, the
    default.

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
