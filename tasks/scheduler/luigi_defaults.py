"""Sets defaults for Luigi's own settings and prepares Luigi's configuration for this project.

`LUIGI_DEFAULTS` applies where no file sets a value. `prepare_luigi` must run before a task is created.
"""

from __future__ import annotations

import configparser
import os

import luigi
import luigi.rpc
import luigi.worker
from luigi.configuration import LuigiConfigParser

from tasks.scheduler.importing_worker import ImportingWorker
from tasks.scheduler.resilient_scheduler import ResilientScheduler
from tasks.settings.sections import SECTIONS

# The URL of luigid. It takes precedence over the files and sets [core] local_scheduler = false.
LUIGID_VARIABLE = "SPAMSCORE_LUIGID_URL"

# Values that a nightly job needs and that differ from Luigi's own defaults. Without them Luigi looks for luigid, exits
# with 0 on failure, and forks after TensorFlow has run.
LUIGI_DEFAULTS: dict[str, dict[str, str]] = {
    "core": {
        "local_scheduler": "true",
        "log_level": "INFO",
        "autoload_range": "true",
        # Luigi's lock covers the whole machine: the same command in another folder would count as a second run.
        # Folders and batches have their own locks.
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
    # With Luigi's own values a backfill silently leaves out dates older than 100 days and all dates after the first 50.
    "RangeDaily": {"days_back": "36500", "task_limit": "1000"},
}


def prepare_luigi() -> None:
    """Changes the configuration that Luigi read from files.

    - Sets the values of `LUIGI_DEFAULTS` where no file sets them.
    - Replaces Luigi's client of luigid by `ResilientScheduler`, so that a run does not depend on luigid.
    - Replaces Luigi's worker by `ImportingWorker`, which imports TensorFlow once.
    - Escapes per cent signs in the sections of `SECTIONS`: URLs and queries contain them, but Luigi reads them as
      references to other keys and fails if there is no such key.
    """
    luigi.rpc.RemoteScheduler = ResilientScheduler  # type: ignore[assignment,misc]
    luigi.worker.Worker = ImportingWorker  # type: ignore[misc]
    parser = LuigiConfigParser.instance()
    for section, values in LUIGI_DEFAULTS.items():
        for key, value in values.items():
            if not parser.has_option(section, key):
                parser.set(section, key, value)
    if url := os.environ.get(LUIGID_VARIABLE):
        parser.set("core", "local_scheduler", "false")
        parser.set("core", "default_scheduler_url", url.replace("%", "%%"))
    for section in SECTIONS:
        for key, value in parser.items(section, raw=True) if parser.has_section(section) else ():
            try:
                parser.get(section, key)
            except configparser.InterpolationSyntaxError:
                parser.set(section, key, value.replace("%", "%%"))
            except configparser.InterpolationError:
                pass  # a reference to a missing key; `load` raises an error that names it
