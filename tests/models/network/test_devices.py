"""What TensorFlow computes on. Its configuration is a process's own, so each case has a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.errors import DeviceError, SettingsError
from models.network import devices
from models.network.devices import configure_gpu, start_tensorflow
from models.settings import DeviceSettings

TEXTS = [" ".join(["free win now call"[: count % 17]] * (count % 23)) for count in range(300)]
TWO = {"logical_cpus": 2}
JOB = "a process of its own"


def in_process(name: str, *arguments: Any) -> Any:
    """Runs a job in a process that has imported TensorFlow and computed nothing; gives its result or error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "hypothesis", "models.training.loop"])
    receiver, sender = context.Pipe(duplex=False)
    job = context.Process(target=runpy.run_path, args=(__file__, {"ARGUMENTS": (name, arguments, sender)}, JOB))
    job.start()
    sender.close()
    result = receiver.recv()
    job.join()
    return result


def chosen(settings: DeviceSettings) -> list[str]:
    start_tensorflow(settings)
    return devices.chosen_devices(settings)


def started_twice(first: DeviceSettings, second: DeviceSettings) -> list[str]:
    return [*chosen(first), *chosen(second)]


def in_force(settings: DeviceSettings) -> dict[str, Any]:
    """What TensorFlow says of itself once it has started."""
    start_tensorflow(settings)
    import tensorflow as tf

    return {
        "soft_placement": tf.config.get_soft_device_placement(),
        "log_placement": tf.debugging.get_log_device_placement(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "threads between": tf.config.threading.get_inter_op_parallelism_threads(),
        "logical": len(tf.config.list_logical_devices("CPU")),
    }


def scores(*choices: str, log_level: str = "QUIET", **settings: Any) -> list[tuple[list[float], list[set[str]]]]:
    """For each choice of devices the scores of messages, and where the weights of each device's network are."""
    start_tensorflow(DeviceSettings(**TWO, **settings), log_level)
    from models.inference.scorer import DeviceNetworks
    from models.network.linear import fit_linear
    from models.network.network import build_network, set_linear
    from models.settings import NetworkSettings, TextSettings, VocabularySettings
    from models.statistics.calibration import probabilities_of
    from models.text.encoder import TextEncoder, encode_messages
    from models.text.vocabulary import build_vocabulary

    vocabulary = build_vocabulary(TEXTS, VocabularySettings(min_count=1), TextSettings())
    make = NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=64)
    network, encoder = build_network(make, len(vocabulary), seed=1), TextEncoder(vocabulary, make.ngram_buckets)
    labels = np.array(["now" in text for text in TEXTS], np.int32)
    set_linear(network, fit_linear(encode_messages(encoder, TEXTS), labels, make.ngram_buckets))
    found = []
    for names in choices:
        on_devices = DeviceNetworks(network, devices.chosen_devices(DeviceSettings(devices=names, **TWO)))
        places = [{weight.value.device[-6:] for weight in one._network.weights} for one in on_devices._networks]
        found.append((probabilities_of(on_devices.logits(encode_messages(encoder, TEXTS), 16)).tolist(), places))
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["/device:CPU:0"]),
        ({"devices": "cpu:0"}, ["/device:CPU:0"]),
        (TWO, ["/device:CPU:0", "/device:CPU:1"]),
        ({**TWO, "devices": " AUTO "}, ["/device:CPU:0", "/device:CPU:1"]),
        ({**TWO, "devices": "cpu:1"}, ["/device:CPU:1"]),
        ({**TWO, "devices": "CPU:1, cpu:0"}, ["/device:CPU:1", "/device:CPU:0"]),
        ({**TWO, "devices": "cpu:1,cpu:1"}, ["/device:CPU:1"]),
    ],
)
def test_devices_are_those_that_are_named_or_all(settings: dict[str, Any], expected: list[str]) -> None:
    assert in_process("chosen", DeviceSettings(**settings)) == expected


@pytest.mark.parametrize("wanted", ["gpu:0", "cpu:0,gpu:1", "cpu:2"])
def test_a_device_that_is_not_there_is_an_error_naming_those_that_are(wanted: str) -> None:
    error = in_process("chosen", DeviceSettings(devices=wanted, logical_cpus=2))
    assert isinstance(error, DeviceError)
    missing = next(name for name in wanted.split(",") if name not in ("cpu:0", "cpu:1"))
    assert f"[devices] devices = {wanted}: there is no {missing} here; there are cpu:0, cpu:1." in str(error)


RUBBISH = ["", "cpu", "cpu:", "cpu:x", "tpu:0", "cpu:0;cpu:1", "cpu:0,", "cpu:-1", "automatic", "cpu:0\n,"]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_what_is_no_device_name_is_a_settings_error_that_shows_it(rubbish: str) -> None:
    with pytest.raises(SettingsError, match=r"\[devices\] devices: expected auto or names such as cpu:0") as error:
        devices.chosen_devices(DeviceSettings(devices=rubbish))
    part = next(one.strip() for one in rubbish.split(",") if not re.fullmatch(r"cpu:\d+", one.strip()))
    assert repr(part) in str(error.value)


def test_two_devices_share_the_work_and_give_the_scores_of_one() -> None:
    answers = in_process("scores", "cpu:0", "cpu:1", "cpu:0,cpu:1")
    (one, on_one), (other, on_other), (both, on_both) = answers
    np.testing.assert_allclose(both, one, rtol=0, atol=1e-6)
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)
    assert on_one == [{":CPU:0"}]
    assert on_other == [{":CPU:1"}]
    assert on_both == on_one + on_other


def test_settings_reach_tensorflow() -> None:
    assert in_process("in_force", DeviceSettings()) == {
        "soft_placement": True, "log_placement": False, "threads": 0, "threads between": 0, "logical": 1,
    }  # fmt: skip
    other = DeviceSettings(soft_placement=False, log_placement=True, threads=3, logical_cpus=4)
    assert in_process("in_force", other) == {
        "soft_placement": False, "log_placement": True, "threads": 3, "threads between": 3, "logical": 4,
    }  # fmt: skip


def test_starting_again_with_the_same_settings_is_no_error() -> None:
    settings = DeviceSettings(logical_cpus=2, threads=2, devices="cpu:1")
    assert in_process("started_twice", settings, settings) == ["/device:CPU:1"] * 2


class Recorder:
    """Stands for TensorFlow where there is no GPU: notes the calls that a GPU would get."""

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
        ({}, [("growth", "gpu", True)]),
        ({"memory_growth": False}, [("growth", "gpu", False)]),
        ({"memory_limit": 2048}, [("parts", "gpu", [("limit", 2048)])]),
        ({"memory_limit": 512, "memory_growth": False}, [("parts", "gpu", [("limit", 512)])]),
    ],
)
def test_a_gpu_gets_a_memory_limit_or_growth_but_not_both(
    settings: dict[str, Any], calls: list[tuple[Any, ...]]
) -> None:
    recorder = Recorder()
    configure_gpu(recorder, "gpu", DeviceSettings(**settings))
    assert recorder.calls == calls


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh Python, as a run of the pipeline starts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)


def test_a_start_is_silent_and_keeps_what_others_say() -> None:
    done = python(
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


def test_a_start_leaves_out_what_keras_alone_would_use_and_others_find_it_later() -> None:
    code = (
        "import sys; from models.network.devices import start_tensorflow; from models.settings import DeviceSettings\n"
        "start_tensorflow(DeviceSettings()); import keras; print({'sklearn', 'matplotlib'} & set(sys.modules))\n"
        "import sklearn.metrics, matplotlib.figure; print(sklearn.metrics.__name__, matplotlib.figure.__name__)"
    )
    assert python(code).stdout.splitlines() == ["set()", "sklearn.metrics matplotlib.figure"]


def test_what_is_imported_before_a_start_stays() -> None:
    code = (
        "import sklearn\n"
        "from models.network.devices import start_tensorflow; from models.settings import DeviceSettings\n"
        "start_tensorflow(DeviceSettings()); import sys; print(sys.modules['sklearn'] is sklearn)"
    )
    assert python(code).stdout == "True\n"


def test_a_start_with_info_tells_all_and_shows_both_devices_at_work() -> None:
    done = python(
        f"import runpy; jobs = runpy.run_path({__file__!r})\n"
        "jobs['scores']('cpu:0,cpu:1', log_level='INFO', log_placement=True)\n"
    )
    assert re.search(r"^I\d{4} \d\d:\d\d:", done.stderr, re.MULTILINE)
    for number in (0, 1):
        assert re.search(rf"gru_cell.*MatMul.*device:CPU:{number}\b", done.stdout + done.stderr)


def quiet(write: Callable[[], object], capfd: pytest.CaptureFixture[str], *hidden: bytes) -> str:
    with devices._quiet_start(*hidden):
        write()
    return capfd.readouterr().err


LOG = {
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n": b"",
    "I0000 00:00:1795227594.738060   14089 port.cc:153] oneDNN custom operations are on.\n": b"I",
    "2026-01-31 not a log line\n": None,
    "W0131 12:34:56.123456  14 cuda.cc:7] Skipping registering GPU devices\n": b"W",
    "E0000 00:00:1795227594.7 14089 cuda_dnn.cc:8310] Unable to register cuDNN factory\n": b"E",
    "UserWarning: something of yours\n": None,
    "without a line's end": None,
}


@pytest.mark.parametrize("hidden", [b"IWEF", b"IW", b"I"])
def test_a_quiet_start_hides_tensorflows_lines_alone(capfd: pytest.CaptureFixture[str], hidden: bytes) -> None:
    shown = [line for line, severity in LOG.items() if severity is None or (severity and severity not in hidden)]
    assert quiet(lambda: os.write(2, "".join(LOG).encode()), capfd, hidden) == "".join(shown)


def test_a_quiet_start_passes_on_what_was_said_before_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"I0000 00:00:1 chatter\nwhat went wrong\n")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        quiet(fail, capfd)
    os.write(2, b"and after\n")
    assert capfd.readouterr().err == "what went wrong\nand after\n"


def answer(name: str, arguments: tuple[Any, ...], sender: Connection) -> None:
    try:
        result = globals()[name](*arguments)
    except Exception as error:
        result = error
    sender.send(result)
    sender.close()


if __name__ == JOB:
    answer(*ARGUMENTS)  # noqa: F821 - handed over by in_process
