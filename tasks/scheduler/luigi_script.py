"""The script `luigi` that this project installs in place of Luigi's own.

Luigi reads the configuration files while it is imported, and imports `--module` before anything else, so that no module
of this project could report a mistake in them. Otherwise both scripts are the same, also for tasks of other projects.
"""

from __future__ import annotations

import configparser
import os
import sys
import warnings
from pathlib import Path
from typing import NoReturn

from tasks.settings.files import PARSER_VARIABLE, find_fault

_BAD_ARGUMENT, _BAD_SETTING, _BAD_SETTING_OF_LUIGI = 2, 2, 40


def main() -> None:
    """Runs Luigi's command line. A module that does not exist and a bad configuration file are one line each."""
    import_luigi()
    from luigi.cmdline import luigi_run

    try:
        luigi_run()
    except ModuleNotFoundError as error:
        if error.name is None or not {error.name, f"--module={error.name}"} & set(sys.argv):
            raise
        import difflib

        suggestion = " (did you mean pipeline?)" if difflib.get_close_matches(error.name, ["pipeline"]) else ""
        _end(f"--module {error.name}: there is no such module{suggestion}", _BAD_ARGUMENT)


def import_luigi() -> None:
    """Imports Luigi, which reads the configuration files. If that cannot be done, prints the reason and exits."""
    code = _BAD_SETTING_OF_LUIGI if is_luigi_command() else _BAD_SETTING
    # Before the import: Luigi's exit codes, too, are set in luigi.cfg, and without the package `toml` the import fails.
    if os.environ.get(PARSER_VARIABLE) == "toml":
        _end(str(find_fault()), code)
    try:
        with warnings.catch_warnings():
            # `tasks.settings.checking` makes errors of them.
            warnings.filterwarnings("ignore", "Config file does not exist|Config for .* parser added", UserWarning)
            import luigi  # noqa: F401
    except (configparser.Error, UnicodeDecodeError) as error:
        _end(find_fault() or " ".join(str(error).split()), code)


def is_luigi_command() -> bool:
    """Returns whether this process is the `luigi` command, not a program or a test that imports the tasks."""
    program = Path(sys.argv[0])
    return program.stem == "luigi" or (program.stem == "__main__" and program.parent.name == "luigi")


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"spamscore: {message}\n")
    sys.exit(code)
