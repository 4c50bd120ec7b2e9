"""What TensorFlow computes on: which devices there are, which are chosen, how much memory they take.

`start_tensorflow` comes before any other use of TensorFlow in a process: none of this can be changed once it has run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from models.errors import DeviceError, SettingsError
from models.settings import DeviceSettings

_NAME = re.compile(r"(cpu|gpu):(\d+)\Z", re.IGNORECASE)
# A line of TensorFlow's C++ log: severity, date, time, thread, place; and the line that announces the first of them.
_LOG_LINE = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:|WARNING: All log messages before absl::InitializeLog")

# TF_CPP_MIN_LOG_LEVEL. What TensorFlow logs as an error at its start on a machine without a GPU is none, hence QUIET;
# its real errors reach Python as exceptions whatever the level.
_LEVELS = {"QUIET": "3", "ERROR": "2", "WARNING": "1", "INFO": "0"}
_HIDDEN = {"QUIET": b"IWEF", "ERROR": b"IW", "WARNING": b"I"}
# Keras imports them where they are installed, for wrappers and galleries that nothing here uses: a third of its start.
_NOT_FOR_KERAS = ("matplotlib", "sklearn")


def start_tensorflow(settings: DeviceSettings, log_level: str = "QUIET") -> None:
    """Imports TensorFlow and sets up its devices.

    Args:
        settings: the [devices] section.
        log_level: least severe lines of TensorFlow's own log to show: QUIET, ERROR, WARNING or INFO.

    Raises:
        SettingsError: a device name that is none.
        DeviceError: a device that is not there; names those that are.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = _LEVELS[log_level]
    logging.getLogger("tensorflow").setLevel("ERROR" if log_level == "QUIET" else log_level)
    with contextlib.nullcontext() if log_level == "INFO" else _quiet_start(_HIDDEN[log_level]):
        with _not_installed(_NOT_FOR_KERAS):
            import tensorflow as tf

        _configure(tf, settings)
        select_devices(settings)


@contextlib.contextmanager
def _not_installed(packages: Sequence[str]) -> Iterator[None]:
    """Within, packages cannot be imported, as if they were not installed; those that are imported already stay."""
    hidden = [one for one in packages if one not in sys.modules]
    # None is Python's way to say so.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for one in hidden:
            del sys.modules[one]


def select_devices(settings: DeviceSettings) -> list[str]:
    """The logical devices to compute on, by TensorFlow's names such as ``/device:GPU:1``.

    ``auto`` takes every GPU or, where there is none, every logical CPU.
    """
    import tensorflow as tf

    there = [device.name.removeprefix("/physical_device:") for device in tf.config.list_logical_devices()]
    names = [f"{kind}:{number}" for kind in ("GPU", "CPU") for number in range(_count(there, kind))]
    if settings.devices.strip().lower() == "auto":
        gpus = [name for name in names if name.startswith("GPU")]
        return [f"/device:{name}" for name in gpus or names]
    wanted = [_device_name(part) for part in settings.devices.split(",")]
    for name in wanted:
        if name not in names:
            raise DeviceError(
                f"[devices] devices = {settings.devices}: there is no {name.lower()} here; "
                f"there are {', '.join(names).lower()}. Choose of these, or auto."
            )
    return [f"/device:{name}" for name in dict.fromkeys(wanted)]


def _count(there: list[str], kind: str) -> int:
    return sum(f":{kind}:" in name for name in there)


def _device_name(part: str) -> str:
    found = _NAME.match(part.strip())
    if not found:
        raise SettingsError(
            "[devices] devices: expected auto or names such as cpu:0 and gpu:1 with commas between, "
            f"received {part.strip()!r}"
        )
    return f"{found[1].upper()}:{int(found[2])}"


def _configure(tf: Any, settings: DeviceSettings) -> None:
    """Applies the settings; a process that computed already keeps what it has, and TensorFlow says so."""
    tf.config.set_soft_device_placement(settings.soft_placement)
    tf.debugging.set_log_device_placement(settings.log_placement)
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        configure_gpu(tf, gpu, settings)
    if settings.logical_cpus > 1:
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(settings.logical_cpus)]
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)


def configure_gpu(tf: Any, gpu: Any, settings: DeviceSettings) -> None:
    """A memory limit goes before growth: TensorFlow takes only one of the two for a GPU."""
    if settings.memory_limit:
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=settings.memory_limit)
        tf.config.set_logical_device_configuration(gpu, [limit])
    else:
        tf.config.experimental.set_memory_growth(gpu, settings.memory_growth)


@contextlib.contextmanager
def _quiet_start(hidden: bytes = b"IWEF") -> Iterator[None]:
    """Keeps lines of TensorFlow's C++ log of the hidden severities off stderr while it starts; everything else written
    meanwhile is passed on after.

    TensorFlow writes to the file descriptor before it heeds TF_CPP_MIN_LOG_LEVEL (tensorflow/tensorflow#100442).
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                found = _LOG_LINE.match(line)
                if not found or (found[1] and found[1] not in hidden):
                    os.write(2, line)
