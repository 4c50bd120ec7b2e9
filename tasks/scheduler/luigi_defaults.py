"""Luigi's own settings as this project needs them, where no file sets them."""

from __future__ import annotations

import configparser
import os

import luigi
import luigi.rpc
from luigi.configuration import LuigiConfigParser

from tasks.scheduler.resilient_scheduler import ResilientScheduler
from tasks.settings.sections import SECTIONS

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


def prepare_luigi() -> None:
    """Makes what Luigi read from files fit for this project.

    Luigi's own sections get the values of `LUIGI_DEFAULTS` where no file sets them, and its client of luigid
    becomes one that a run does not depend on. In ours a per cent sign may stand as it is, for addresses and queries
    have them: Luigi takes one for a reference, and fails where it is none.
    """
    luigi.rpc.RemoteScheduler = ResilientScheduler  # type: ignore[assignment,misc]
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
