"""The devices that TensorFlow computes on: which exist, which are selected, how much memory they may use.

Call `start_tensorflow` before any other use of TensorFlow in a process. TensorFlow does not allow changes afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from models.errors import DeviceError, SettingsError
from models.settings import DeviceSettings

_CUDA_DRIVER = "libcuda.so.1"
_DEVICE_NAME = re.compile(r"(cpu|gpu):(\d+)\Z", re.IGNORECASE)
# A line of TensorFlow's C++ log: severity, date, time, thread, source line; or the line that precedes the first one.
_LOG_LINE = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:|WARNING: All log messages before absl::InitializeLog")

# Values of TF_CPP_MIN_LOG_LEVEL. On a machine without a GPU, TensorFlow logs errors at its start that are not errors;
# QUIET hides them. Real errors reach Python as exceptions at every level.
_LEVELS = {"QUIET": "3", "FATAL": "3", "CRITICAL": "3", "ERROR": "2", "WARNING": "1", "INFO": "0"}
_HIDDEN_SEVERITIES = {"QUIET": b"IWEF", "FATAL": b"IWE", "CRITICAL": b"IWE", "ERROR": b"IW", "WARNING": b"I"}
# Keras imports these packages if they are installed, for wrappers and galleries that this project does not use. Their
# imports take a third of Keras's start.
_UNUSED_BY_KERAS = ("matplotlib", "sklearn")


def start_tensorflow(
    settings: DeviceSettings, log_level: str = "QUIET", on_configured: Callable[[], None] = lambda: None
) -> None:
    """Imports TensorFlow and sets up its devices.

    Args:
        settings: the [devices] section.
        log_level: lowest severity of TensorFlow's own log that is shown: QUIET, FATAL (the same as CRITICAL), ERROR,
            WARNING or INFO.
        on_configured: called before the logical devices are listed, for what TensorFlow does not allow afterwards.

    Raises:
        SettingsError: a device name is malformed.
        DeviceError: a device does not exist, and the error names the devices that exist; or the memory of a GPU cannot
            be found out.
    """
    import_tensorflow(log_level)
    import tensorflow as tf

    with _hidden_log(log_level):
        _configure(tf, settings)
        on_configured()
        select_devices(settings)


def import_tensorflow(log_level: str = "QUIET") -> None:
    """Imports TensorFlow, and sets the lowest severity of its log that is shown, as `start_tensorflow` takes it."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = _LEVELS[log_level]
    logging.getLogger("tensorflow").setLevel("ERROR" if log_level == "QUIET" else log_level)
    with _hidden_log(log_level), _hidden_from_import(_UNUSED_BY_KERAS):
        import tensorflow  # noqa: F401


def _hidden_log(log_level: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if log_level == "INFO" else _filtered_stderr(_HIDDEN_SEVERITIES[log_level])


@contextlib.contextmanager
def _hidden_from_import(packages: Sequence[str]) -> Iterator[None]:
    """Makes packages fail to import inside the block, as if not installed; already imported packages stay available."""
    hidden = [package for package in packages if package not in sys.modules]
    # With None in sys.modules, an import raises ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


def select_devices(settings: DeviceSettings) -> list[str]:
    """Returns the logical devices to compute on, by TensorFlow's names such as ``/device:GPU:1``.

    ``auto`` selects every GPU or, without a GPU, every logical CPU.

    Raises:
        SettingsError: a device name is malformed.
        DeviceError: a device does not exist; names the devices that exist.
    """
    import tensorflow as tf

    available = [device.name.removeprefix("/physical_device:") for device in tf.config.list_logical_devices()]
    names = [f"{kind}:{number}" for kind in ("GPU", "CPU") for number in range(_count(available, kind))]
    if settings.devices.strip().lower() == "auto":
        gpus = [name for name in names if name.startswith("GPU")]
        return [f"/device:{name}" for name in gpus or names]
    requested = [_parse_device_name(part) for part in settings.devices.split(",")]
    for name in requested:
        if name not in names:
            raise DeviceError(
                f"[devices] devices = {settings.devices}: device {name.lower()} does not exist on this machine. "
                f"Available: {', '.join(names).lower()}. Set one of these, or auto."
            )
    return [f"/device:{name}" for name in dict.fromkeys(requested)]


def hide_unselected_gpus(settings: DeviceSettings) -> None:
    """Hides the GPUs that are not selected, for a strategy that uses all GPUs or else the first CPU.

    Raises:
        SettingsError: the selection is neither GPUs nor the first CPU.
        DeviceError: a GPU does not exist.
    """
    import tensorflow as tf

    if settings.devices.strip().lower() == "auto":
        return
    gpus = tf.config.list_physical_devices("GPU")
    names = [_parse_device_name(part) for part in settings.devices.split(",")]
    if names != ["CPU:0"] and any(name.startswith("CPU") for name in names):
        raise SettingsError(
            f"[devices] devices = {settings.devices}: with several workers, expected auto, cpu:0 or names of GPUs."
        )
    numbers = sorted({int(name[4:]) for name in names if name.startswith("GPU")})
    if numbers and numbers[-1] >= len(gpus):
        raise DeviceError(
            f"[devices] devices = {settings.devices}: device gpu:{numbers[-1]} does not exist on this machine, which "
            f"has {len(gpus)} GPUs. Set auto, cpu:0 or names of GPUs that exist."
        )
    tf.config.set_visible_devices([gpus[number] for number in numbers], "GPU")


def _count(devices: list[str], kind: str) -> int:
    return sum(f":{kind}:" in name for name in devices)


def _parse_device_name(part: str) -> str:
    match = _DEVICE_NAME.match(part.strip())
    if not match:
        raise SettingsError(
            "[devices] devices: expected auto or names such as cpu:0 and gpu:1 separated by commas, "
            f"received {part.strip()!r}"
        )
    return f"{match[1].upper()}:{int(match[2])}"


def _configure(tf: Any, settings: DeviceSettings) -> None:
    """Applies the settings. In a process that has already computed, they have no effect, and TensorFlow says so."""
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
    """Sets a memory limit or memory growth for a GPU.

    The limit takes precedence, because TensorFlow accepts only one of the two.

    Raises:
        DeviceError: the limit is a share, and the memory of the GPU cannot be found out.
    """
    limit = settings.memory_limit
    if settings.memory_share:
        limit = max(1, int(settings.memory_share * read_gpu_memory(gpu.name)))
    if limit:
        tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=limit)])
    else:
        tf.config.experimental.set_memory_growth(gpu, settings.memory_growth)


def read_gpu_memory(name: str) -> int:
    """Returns the total memory of a GPU in MiB. Allocates nothing on it.

    TensorFlow does not tell the memory of a GPU before it is initialized. NVIDIA's driver does, and counts GPUs as
    TensorFlow does, also with CUDA_VISIBLE_DEVICES; `nvidia-smi` counts them in another order. TensorFlow has loaded
    the driver if it lists the GPU.

    Args:
        name: TensorFlow's name of the device, such as ``/physical_device:GPU:0``.

    Raises:
        DeviceError: the driver cannot be loaded or reports an error.
    """
    number, device, memory = int(name.rpartition(":")[2]), ctypes.c_int(), ctypes.c_size_t()
    try:
        driver = ctypes.CDLL(_CUDA_DRIVER)
        for call, *arguments in (
            (driver.cuInit, 0),
            (driver.cuDeviceGet, ctypes.byref(device), number),
            (driver.cuDeviceTotalMem_v2, ctypes.byref(memory), device),
        ):
            if code := call(*arguments):
                raise _unknown_memory_error(number, f"NVIDIA's driver reports error {code}")
    except (OSError, AttributeError) as error:  # no library, or a library without these functions
        raise _unknown_memory_error(number, f"NVIDIA's driver cannot be used: {error}") from None
    return memory.value // 2**20


def _unknown_memory_error(number: int, reason: str) -> DeviceError:
    return DeviceError(
        f"[devices] memory_share: the memory of gpu:{number} cannot be found out, because {reason}. Set memory_share = "
        "0, and memory_limit to a number of MiB instead."
    )


@contextlib.contextmanager
def _filtered_stderr(hidden: bytes = b"IWEF") -> Iterator[None]:
    """Removes lines of TensorFlow's C++ log with the hidden severities from stderr while TensorFlow starts.

    All other output is written to stderr at the end of the block. TensorFlow writes to the file descriptor before it
    reads TF_CPP_MIN_LOG_LEVEL (tensorflow/tensorflow#100442).
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            captured.seek(0)
            for line in captured:
                match = _LOG_LINE.match(line)
                if not match or (match[1] and match[1] not in hidden):
                    os.write(2, line)
