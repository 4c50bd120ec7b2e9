"""Luigi's worker, extended so that TensorFlow is imported once in a run instead of once in each stage."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import Any

import luigi.worker

from models.network.devices import import_tensorflow
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings


class ImportingWorker(luigi.worker.Worker):
    """Imports TensorFlow before it forks the first process that needs it. The later processes have it, too.

    Only imported, TensorFlow has neither devices nor running operations yet, so a fork can use it.
    """

    def _create_task_process(self, task: luigi.Task) -> Any:
        if getattr(task, "uses_tensorflow", False) and "tensorflow" not in sys.modules:
            # An installation that cannot be imported is an error of the task, whose process repeats the import.
            with contextlib.suppress(Exception):
                import_tensorflow(load(ConsoleSettings).tensorflow_log)
            gc.freeze()  # the garbage collector of each process would otherwise copy this memory
        return super()._create_task_process(task)
