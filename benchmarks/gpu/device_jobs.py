"""The jobs of the checks, each run in a process of its own: `python device_jobs.py JOB ARGUMENTS` prints JSON."""

from __future__ import annotations

import csv
import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.network.devices import read_gpu_memory, select_devices, start_tensorflow
from models.settings import DeviceSettings


def list_gpus() -> list[str]:
    """Returns the names of the GPUs, such as gpu:0."""
    start_tensorflow(DeviceSettings())
    import tensorflow as tf

    return [f"gpu:{number}" for number, _ in enumerate(tf.config.list_physical_devices("GPU"))]


def list_auto(logical_cpus: int) -> dict[str, list[str]]:
    """Returns the GPUs, and the devices that `devices = auto` selects."""
    settings = DeviceSettings(logical_cpus=logical_cpus)
    start_tensorflow(settings)
    selected = [device.removeprefix("/device:").lower() for device in select_devices(settings)]
    return {"selected": selected, "gpus": list_gpus()}


def measure_memory_taken(name: str, growth: bool) -> float:
    """Returns the share of a GPU's memory that is taken after a small computation, by this and other processes."""
    start_tensorflow(DeviceSettings(devices=name, memory_growth=growth))
    import tensorflow as tf

    with tf.device(f"/device:{name.upper()}"):
        tf.linalg.matmul(tf.ones([64, 64]), tf.ones([64, 64])).numpy()
    free, total = read_free_memory(int(name.removeprefix("gpu:")))
    return 1 - free / total


def read_free_memory(number: int) -> tuple[int, int]:
    """Returns the free and the total memory of a GPU that TensorFlow uses in this process, in bytes."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    for call, *arguments in (
        (driver.cuInit, 0),
        (driver.cuDeviceGet, ctypes.byref(device), number),
        # TensorFlow computes in the primary context, which exists by now.
        (driver.cuDevicePrimaryCtxRetain, ctypes.byref(context), device),
        (driver.cuCtxSetCurrent, context),
        (driver.cuMemGetInfo_v2, ctypes.byref(free), ctypes.byref(total)),
    ):
        if code := call(*arguments):
            raise OSError(f"gpu:{number}: NVIDIA's driver reports error {code}")
    return free.value, total.value


def read_total_memory(name: str) -> int:
    """Returns the total memory of a GPU in MiB."""
    return read_gpu_memory(name)


def try_to_allocate(name: str, memory_limit: int, memory_share: float, sizes: Sequence[int]) -> dict[str, bool]:
    """Returns whether memory of two sizes, in MiB, can be allocated on a device under a limit."""
    start_tensorflow(DeviceSettings(devices=name, memory_limit=memory_limit, memory_share=memory_share))
    return dict(zip(("below", "above"), [can_allocate(name, size) for size in sizes], strict=True))


def can_allocate(name: str, size: int) -> bool:
    """Returns whether `size` MiB can be allocated on a device; frees them again."""
    import tensorflow as tf

    try:
        with tf.device(f"/device:{name.upper()}"):
            tf.fill([size, 2**18], 1.0)  # float32: 2**18 numbers are one MiB
    except tf.errors.ResourceExhaustedError:
        return False
    return True


def score(training: str, devices: str, logical_cpus: int) -> list[float]:
    """Returns the spam probabilities of the sample's inbox, by a trained model on devices."""
    settings = DeviceSettings(devices=devices, logical_cpus=logical_cpus)
    start_tensorflow(settings)
    from models.inference.scorer import Scorer
    from models.network.network import ngram_vectors
    from models.text.encoder import TextEncoder
    from models.trained_model.loading import load_trained_model
    from tasks.sources.samples import bundled_file

    with bundled_file("inbox.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    model = load_trained_model(Path(training))
    encoder = TextEncoder(model.vocabulary, ngram_vectors(model.network))
    probabilities: list[float] = (
        Scorer(encoder, model.network, select_devices(settings)).score(texts).probabilities.tolist()
    )
    return probabilities


JOBS: dict[str, Any] = {
    job.__name__: job for job in (list_gpus, list_auto, measure_memory_taken, read_total_memory, try_to_allocate, score)
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))
