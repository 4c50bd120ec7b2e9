"""Tests of TensorFlow's devices. Its configuration belongs to a process, so each case runs in a new process."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_driver import StandInDriver
from new_process import run_in_process

from models.errors import DeviceError, SettingsError
from models.network import devices
from models.network.devices import configure_gpu, hide_unselected_gpus, start_tensorflow
from models.settings import DeviceSettings

TEXTS = [" ".join(["free win now call"[: count % 17]] * (count % 23)) for count in range(300)]
TWO_CPUS = {"logical_cpus": 2}


def start_and_select(settings: DeviceSettings) -> list[str]:
    start_tensorflow(settings)
    return devices.select_devices(settings)


def start_twice(first: DeviceSettings, second: DeviceSettings) -> list[str]:
    return [*start_and_select(first), *start_and_select(second)]


def active_settings(settings: DeviceSettings) -> dict[str, Any]:
    """Starts TensorFlow and returns the settings that it reports."""
    start_tensorflow(settings)
    import tensorflow as tf

    return {
        "soft_placement": tf.config.get_soft_device_placement(),
        "log_placement": tf.debugging.get_log_device_placement(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "logical": len(tf.config.list_logical_devices("CPU")),
    }


def score_on_devices(
    *choices: str, log_level: str = "QUIET", **settings: Any
) -> list[tuple[list[float], list[set[str]]]]:
    """Returns for each choice of devices the scores of messages, and the devices of the weights of each network."""
    start_tensorflow(DeviceSettings(**TWO_CPUS, **settings), log_level)
    from models.inference.scorer import DeviceNetworks
    from models.network.linear import fit_linear
    from models.network.network import build_network, set_linear
    from models.settings import NetworkSettings, TextSettings, VocabularySettings
    from models.statistics.calibration import to_probabilities
    from models.text.encoder import TextEncoder, encode_messages, read_characters
    from models.text.vocabulary import build_vocabulary

    vocabulary = build_vocabulary(TEXTS, VocabularySettings(min_count=1), TextSettings())
    architecture = NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=64)
    network, encoder = (
        build_network(architecture, len(vocabulary), seed=1),
        TextEncoder(vocabulary, architecture.ngram_vectors),
    )
    labels = np.array(["now" in text for text in TEXTS], np.int32)
    set_linear(network, fit_linear(read_characters(encoder, TEXTS), labels, architecture.ngram_buckets))
    results = []
    for names in choices:
        networks = DeviceNetworks(network, devices.select_devices(DeviceSettings(devices=names, **TWO_CPUS)))
        weight_devices = [
            {weight.value.device[-6:] for weight in forward._network.weights} for forward in networks._networks
        ]
        results.append(
            (to_probabilities(networks.logits(encode_messages(encoder, TEXTS), 16)).tolist(), weight_devices)
        )
    return results


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["/device:CPU:0"]),
        ({"devices": "cpu:0"}, ["/device:CPU:0"]),
        (TWO_CPUS, ["/device:CPU:0", "/device:CPU:1"]),
        ({**TWO_CPUS, "devices": " AUTO "}, ["/device:CPU:0", "/device:CPU:1"]),
        ({**TWO_CPUS, "devices": "cpu:1"}, ["/device:CPU:1"]),
        ({**TWO_CPUS, "devices": "CPU:1, cpu:0"}, ["/device:CPU:1", "/device:CPU:0"]),
        ({**TWO_CPUS, "devices": "cpu:1,cpu:1"}, ["/device:CPU:1"]),
    ],
)
def test_the_named_devices_or_all_devices_are_selected(settings: dict[str, Any], expected: list[str]) -> None:
    assert run_in_process(__file__, "start_and_select", DeviceSettings(**settings)) == expected


@pytest.mark.parametrize("requested", ["gpu:0", "cpu:0,gpu:1", "cpu:2"])
def test_a_missing_device_is_an_error_that_names_the_available_devices(requested: str) -> None:
    error = run_in_process(__file__, "start_and_select", DeviceSettings(devices=requested, logical_cpus=2))
    assert isinstance(error, DeviceError)
    missing = next(name for name in requested.split(",") if name not in ("cpu:0", "cpu:1"))
    assert f"[devices] devices = {requested}: device {missing} does not exist on this machine. " in str(error)
    assert "Available: cpu:0, cpu:1." in str(error)


MALFORMED = ["", "cpu", "cpu:", "cpu:x", "tpu:0", "cpu:0;cpu:1", "cpu:0,", "cpu:-1", "automatic", "cpu:0\n,"]


@pytest.mark.parametrize("malformed", MALFORMED)
def test_a_malformed_device_name_is_a_settings_error_that_shows_it(malformed: str) -> None:
    with pytest.raises(SettingsError, match=r"\[devices\] devices: expected auto or names such as cpu:0") as error:
        devices.select_devices(DeviceSettings(devices=malformed))
    part = next(name.strip() for name in malformed.split(",") if not re.fullmatch(r"cpu:\d+", name.strip()))
    assert repr(part) in str(error.value)


def test_two_devices_share_the_work_and_give_the_same_scores_as_one() -> None:
    results = run_in_process(__file__, "score_on_devices", "cpu:0", "cpu:1", "cpu:0,cpu:1")
    (scores_0, devices_0), (scores_1, devices_1), (scores_both, devices_both) = results
    np.testing.assert_allclose(scores_both, scores_0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores_1, scores_0, rtol=0, atol=1e-6)
    assert devices_0 == [{":CPU:0"}]
    assert devices_1 == [{":CPU:1"}]
    assert devices_both == devices_0 + devices_1


def start_in_cluster(settings: DeviceSettings) -> int:
    """Returns the number of GPUs that a strategy for several machines would use."""
    start_tensorflow(dataclasses.replace(settings, devices="auto"), "QUIET", lambda: hide_unselected_gpus(settings))
    import tensorflow as tf

    return len(tf.config.get_visible_devices("GPU"))


@pytest.mark.parametrize(
    ("selected", "error", "message"),
    [
        ("cpu:1", SettingsError, "devices = cpu:1: with several workers, expected auto, cpu:0 or names of GPUs"),
        ("cpu:0,gpu:0", SettingsError, "devices = cpu:0,gpu:0: with several workers, expected auto"),
        ("gpu:3", DeviceError, "device gpu:3 does not exist on this machine, which has 0 GPUs"),
    ],
)
def test_several_workers_use_the_first_cpu_or_gpus_that_exist(selected: str, error: type, message: str) -> None:
    raised = run_in_process(__file__, "start_in_cluster", DeviceSettings(devices=selected))
    assert isinstance(raised, error)
    assert message in str(raised)


@pytest.mark.parametrize("selected", ["auto", "cpu:0"])
def test_several_workers_without_gpus_use_the_first_cpu(selected: str) -> None:
    assert run_in_process(__file__, "start_in_cluster", DeviceSettings(devices=selected)) == 0


def test_settings_reach_tensorflow() -> None:
    assert run_in_process(__file__, "active_settings", DeviceSettings()) == {
        "soft_placement": True, "log_placement": False, "threads": 0, "inter_op_threads": 0, "logical": 1,
    }  # fmt: skip
    changed = DeviceSettings(soft_placement=False, log_placement=True, threads=3, logical_cpus=4)
    assert run_in_process(__file__, "active_settings", changed) == {
        "soft_placement": False, "log_placement": True, "threads": 3, "inter_op_threads": 3, "logical": 4,
    }  # fmt: skip


def test_starting_again_with_the_same_settings_is_no_error() -> None:
    settings = DeviceSettings(logical_cpus=2, threads=2, devices="cpu:1")
    assert run_in_process(__file__, "start_twice", settings, settings) == ["/device:CPU:1"] * 2


ELSEWHERE = "/device:GPU:97"  # no machine has it


def compute_elsewhere(settings: DeviceSettings) -> str:
    """Computes on a device that cannot run the operation; returns the device that ran it."""
    start_tensorflow(settings)
    import tensorflow as tf

    with tf.device(ELSEWHERE):
        return str((tf.constant(1) + 1).device)


def catch_placement_error(settings: DeviceSettings) -> str:
    import tensorflow as tf

    try:
        return compute_elsewhere(settings)
    except tf.errors.InvalidArgumentError as error:  # it cannot be sent to another process
        return f"refused: {error.message}"


def test_an_operation_that_its_device_cannot_run_runs_on_the_cpu_only_with_soft_placement() -> None:
    assert run_in_process(__file__, "catch_placement_error", DeviceSettings()).endswith("/device:CPU:0")
    refused = run_in_process(__file__, "catch_placement_error", DeviceSettings(soft_placement=False))
    assert refused.startswith("refused: ")
    assert ELSEWHERE.lower() in refused.lower()


@pytest.mark.parametrize("log_placement", [False, True])
def test_the_device_of_an_operation_is_printed_only_with_log_placement(log_placement: bool) -> None:
    done = run_python(
        "from models.network.devices import start_tensorflow; from models.settings import DeviceSettings\n"
        f"start_tensorflow(DeviceSettings(log_placement={log_placement}))\n"
        "import tensorflow as tf; tf.function(lambda a: tf.matmul(a, a))(tf.ones([2, 2]))"
    )
    printed = re.search(r"MatMul.*device:\wPU:0", done.stdout + done.stderr)
    assert (printed is not None) == log_placement


GPU = SimpleNamespace(name="/physical_device:GPU:1")


class Recorder:
    """A fake of TensorFlow for a machine without a GPU: records the calls for a GPU."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.config = SimpleNamespace(
            LogicalDeviceConfiguration=lambda memory_limit: ("limit", memory_limit),
            set_logical_device_configuration=lambda gpu, parts: self.calls.append(("parts", gpu, parts)),
            experimental=SimpleNamespace(
                set_memory_growth=lambda gpu, growth: self.calls.append(("growth", gpu, growth))
            ),
        )


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({}, [("growth", GPU, True)]),
        ({"memory_growth": False}, [("growth", GPU, False)]),
        ({"memory_limit": 2048}, [("parts", GPU, [("limit", 2048)])]),
        ({"memory_limit": 512, "memory_growth": False}, [("parts", GPU, [("limit", 512)])]),
        ({"memory_share": 0.25}, [("parts", GPU, [("limit", 4096)])]),
        ({"memory_share": 1.0, "memory_growth": False}, [("parts", GPU, [("limit", 16_384)])]),
        ({"memory_share": 1e-9}, [("parts", GPU, [("limit", 1)])]),
    ],
)
def test_a_gpu_gets_a_memory_limit_or_growth_but_not_both(
    settings: dict[str, Any], calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    StandInDriver([2**30, 16 * 2**30]).install(monkeypatch)
    recorder = Recorder()
    configure_gpu(recorder, GPU, DeviceSettings(**settings))
    assert recorder.calls == calls


def raise_os_error(_: str) -> None:
    raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (raise_os_error, "cannot be used: libcuda.so.1: cannot open shared object file"),
        (lambda _: object(), "cannot be used: 'object' object has no attribute 'cuInit'"),
        (lambda _: StandInDriver([2**30]), "reports error 101"),
    ],
)
def test_a_share_of_unknown_memory_is_an_error_that_names_memory_limit(
    library: Callable[[str], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)
    with pytest.raises(DeviceError) as error:
        configure_gpu(Recorder(), GPU, DeviceSettings(memory_share=0.5))
    assert str(error.value) == (
        f"[devices] memory_share: the memory of gpu:1 cannot be found out, because NVIDIA's driver {reason}. "
        "Set memory_share = 0, and memory_limit to a number of MiB instead."
    )


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new Python process without TensorFlow's environment variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # has tests/drivers
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)


def test_a_start_is_silent_and_passes_other_output_on() -> None:
    done = run_python(
        "import os, sys\n"
        "from models.network.devices import start_tensorflow\n"
        "from models.settings import DeviceSettings\n"
        "start_tensorflow(DeviceSettings())\n"
        "import tensorflow as tf\n"
        "tf.linalg.matmul(tf.ones([9, 9]), tf.ones([9, 9]))\n"
        "print('still here', file=sys.stderr)\n"
    )
    assert done.stderr == "still here\n"
    assert done.stdout == ""


def test_a_start_skips_packages_that_only_keras_would_use_and_they_can_be_imported_later() -> None:
    code = (
        "import sys; from models.network.devices import start_tensorflow; from models.settings import DeviceSettings\n"
        "start_tensorflow(DeviceSettings()); import keras; print({'sklearn', 'matplotlib'} & set(sys.modules))\n"
        "import sklearn.metrics, matplotlib.figure; print(sklearn.metrics.__name__, matplotlib.figure.__name__)"
    )
    assert run_python(code).stdout.splitlines() == ["set()", "sklearn.metrics matplotlib.figure"]


def test_a_package_imported_before_a_start_stays_imported() -> None:
    code = (
        "import sklearn\n"
        "from models.network.devices import start_tensorflow; from models.settings import DeviceSettings\n"
        "start_tensorflow(DeviceSettings()); import sys; print(sys.modules['sklearn'] is sklearn)"
    )
    assert run_python(code).stdout == "True\n"


def test_a_start_with_info_shows_the_whole_log_and_both_devices_in_use() -> None:
    done = run_python(
        f"import runpy; jobs = runpy.run_path({__file__!r})\n"
        "jobs['score_on_devices']('cpu:0,cpu:1', log_level='INFO', log_placement=True)\n"
    )
    assert re.search(r"^I\d{4} \d\d:\d\d:", done.stderr, re.MULTILINE)
    for number in (0, 1):
        assert re.search(rf"gru_cell.*MatMul.*device:CPU:{number}\b", done.stdout + done.stderr)


@pytest.mark.parametrize("level", ["FATAL", "CRITICAL"])
def test_fatal_is_a_log_level_and_hides_errors_of_the_start(level: str) -> None:
    done = run_python(
        "import logging; from models.network.devices import start_tensorflow; from models.settings import "
        f"DeviceSettings\nstart_tensorflow(DeviceSettings(), {level!r})\n"
        "print(logging.getLogger('tensorflow').level == logging.CRITICAL)"
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def filtered_output(write: Callable[[], object], capfd: pytest.CaptureFixture[str], *hidden: bytes) -> str:
    with devices._filtered_stderr(*hidden):
        write()
    return capfd.readouterr().err


LOG_LINES = {
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n": b"",
    "I0000 00:00:1795227594.738060   14089 port.cc:153] oneDNN custom operations are on.\n": b"I",
    "2026-01-31 not a log line\n": None,
    "W0131 12:34:56.123456  14 cuda.cc:7] Skipping registering GPU devices\n": b"W",
    "E0000 00:00:1795227594.7 14089 cuda_dnn.cc:8310] Unable to register cuDNN factory\n": b"E",
    "UserWarning: a warning\n": None,
    "without a line break": None,
}


@pytest.mark.parametrize("hidden", [b"IWEF", b"IWE", b"IW", b"I"])
def test_a_filtered_start_hides_only_tensorflows_lines(capfd: pytest.CaptureFixture[str], hidden: bytes) -> None:
    expected = [
        line for line, severity in LOG_LINES.items() if severity is None or (severity and severity not in hidden)
    ]
    assert filtered_output(lambda: os.write(2, "".join(LOG_LINES).encode()), capfd, hidden) == "".join(expected)


def test_a_filtered_start_passes_on_output_from_before_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"I0000 00:00:1 chatter\nwhat went wrong\n")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        filtered_output(fail, capfd)
    os.write(2, b"and after\n")
    assert capfd.readouterr().err == "what went wrong\nand after\n"
