"""Runs functions of a test module in new processes: TensorFlow's devices can be set up only once in a process.

The processes are forks of one that has imported TensorFlow and has computed nothing yet, so each starts in a fraction
of a second.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pkgutil
import runpy
import signal
from multiprocessing.connection import Connection
from typing import Any

# When a process is killed: the function, the number of its call, and before or after the call.
KillPoint = tuple[str, int, str]


class KilledError(Exception):
    """The process was killed before it returned a result."""


def run_in_process(module: str, name: str, *arguments: Any, kill_point: KillPoint | None = None) -> Any:
    """Runs a function in a new process and returns its result, or the exception that it raised.

    Args:
        module: `__file__` of the test module that has the function.
        name: name of the function.
        arguments: its arguments, which can be pickled.
        kill_point: where the process kills itself; None for nowhere.

    Raises:
        KilledError: the process ended without a result.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "hypothesis", "models.training.loop"])
    receiver, sender = context.Pipe(duplex=False)
    job = context.Process(target=_run, args=(module, name, arguments, sender, kill_point))
    job.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise KilledError(name) from None
    finally:
        job.join()


def _run(module: str, name: str, arguments: tuple[Any, ...], sender: Connection, kill_point: KillPoint | None) -> None:
    # A test module cannot be imported by name.
    function = runpy.run_path(module, run_name="__job__")[name]
    if kill_point:
        kill_at(*kill_point)
    try:
        result = function(*arguments)
    except Exception as error:
        result = error
    sender.send(result)
    sender.close()


def kill_at(target: str, call: int, when: str) -> None:
    """Makes the process kill itself at a call of a function, like `kill -9`: without clean-up or flush."""
    module, _, path = target.partition(":")
    *classes, name = path.split(".")
    owner = pkgutil.resolve_name(f"{module}:{'.'.join(classes)}")
    original, calls = getattr(owner, name), itertools.count(1)

    def wrapper(*args: object, **options: object) -> object:
        number = next(calls)
        if (number, when) == (call, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if (number, when) == (call, "after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapper)
