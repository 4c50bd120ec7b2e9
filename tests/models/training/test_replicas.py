"""Tests of training on several devices: where it computes, and that the number of devices does not decide its bits.

Each process has four logical CPUs, which TensorFlow treats as four devices.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from new_process import KilledError, KillPoint, run_in_process
from toy_training import NETWORK, SETTINGS, VOCABULARY, messages

from models.errors import SettingsError
from models.settings import DeviceSettings
from models.training.history import HISTORY, read_history

FOUR_CPUS = DeviceSettings(logical_cpus=4, soft_placement=False)
# With 8 messages in a batch, the last batch of an epoch has one message: with several shards, some are empty.
MESSAGES = 57
# Weights may differ by this much between numbers of shards if there is no dropout. Only the order of additions differs:
# by 4e-7 after these 32 steps, while the weights have moved by 0.1 to 1.
TOLERANCE = 1e-5
# Parts of the names of operations on tensors of the network: matrix products, look-ups, sums over n-grams, activations,
# gradients, and updates of the weights. Other devices may have the counters of the run and the learning rate.
OF_NETWORK = re.compile("MatMul|Gather|Segment|Tanh|Grad|AssignSub|TensorList")


@dataclasses.dataclass(frozen=True)
class Training:
    """The result of a training: SHA-256 and values of the weights, their devices, and the last PR AUC."""

    sha256: str
    weights: list[np.ndarray]
    weight_devices: set[str]
    optimizer_devices: set[str]
    pr_auc: float


def train_on(folder: Path, devices: str, shards: int, *, dropout: bool = True) -> Training:
    """Trains on logical devices of this process."""
    from models.network.devices import select_devices
    from models.training import loop
    from models.training.checkpoints import weights_sha256
    from models.training.replicas import Replicas, create_strategy

    network = NETWORK if dropout else dataclasses.replace(NETWORK, dropout=0.0, word_dropout=0.0)
    replicas = Replicas(create_strategy(select_devices(DeviceSettings(devices=devices))), shards)
    trainers: list[Any] = []

    class Recorded(loop._Trainer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            trainers.append(self)

    loop._Trainer, original = Recorded, loop._Trainer
    result = loop.train(
        messages(MESSAGES, 0), messages(30, 1), VOCABULARY, network, SETTINGS, folder, replicas=replicas
    )
    loop._Trainer = original

    def copies(variables: Any) -> set[str]:
        values = [replicas.strategy.experimental_local_results(variable.value) for variable in variables]
        return {copy.device[-5:].lower() for value in values for copy in value}

    return Training(
        weights_sha256(result.network), [weight.numpy() for weight in result.network.weights],
        copies(result.network.weights), copies(trainers[-1].optimizer.variables),
        result.history[-1].validation_pr_auc,
    )  # fmt: skip


def train_cases(folder: Path, cases: list[tuple[str, int, bool]]) -> list[dict[str, Any]]:
    """Trains once for each case; returns the attributes of `Training`, because a test module cannot be unpickled."""
    from models.network.devices import start_tensorflow

    start_tensorflow(FOUR_CPUS)
    return [
        vars(train_on(folder / str(number), devices, shards, dropout=dropout))
        for number, (devices, shards, dropout) in enumerate(cases)
    ]


def find_operations(folder: Path, devices: str) -> dict[str, set[str]]:
    """Trains, and returns the types of operations that ran on each device, by its name such as ``cpu:1``."""
    from models.network.devices import start_tensorflow

    start_tensorflow(FOUR_CPUS)
    from tensorflow.python.eager import context

    from models.training import loop

    operations = defaultdict(set)
    original = loop._Trainer.run

    def run(trainer: Any) -> Any:
        context.enable_run_metadata()
        result = original(trainer)
        for function in context.context().export_run_metadata().function_graphs:
            for node in (node for graph in function.partition_graphs for node in graph.node):
                operations[node.device[-5:].lower()].add(node.op)
        return result

    loop._Trainer.run = run
    train_on(folder, devices, 0)
    return dict(operations)


SAME_BITS = {
    "4 shards": [("cpu:0", 4), ("cpu:0,cpu:1", 4), ("auto", 4)],
    "2 shards, the default of 2 devices": [("cpu:0,cpu:1", 0), ("cpu:3,cpu:2", 0), ("cpu:0", 2)],
    "1 shard, the default of 1 device": [("cpu:0", 0), ("cpu:1", 0), ("cpu:0", 1)],
}
# From two on: with one shard, Adam squares the slices of a row separately (`Replicas.compute`).
WITHOUT_DROPOUT = [("cpu:0,cpu:1", 0), ("cpu:0,cpu:1,cpu:2", 0), ("auto", 0)]
CASES = [
    *((devices, shards, True) for cases in SAME_BITS.values() for devices, shards in cases),
    *((devices, shards, False) for devices, shards in WITHOUT_DROPOUT),
]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, bool], Training]:
    """The result of each case."""
    results = run_in_process(__file__, "train_cases", tmp_path_factory.mktemp("cases"), CASES)
    return {case: Training(**result) for case, result in zip(CASES, results, strict=True)}


@pytest.mark.parametrize("group", SAME_BITS)
def test_the_same_number_of_shards_gives_the_same_bits_on_any_devices(
    trainings: dict[tuple[str, int, bool], Training], group: str
) -> None:
    results = [trainings[devices, shards, True] for devices, shards in SAME_BITS[group]]
    assert len({result.sha256 for result in results}) == 1
    assert all(np.isfinite(weights).all() for weights in results[0].weights)


def test_another_number_of_devices_gives_the_same_weights_up_to_rounding_without_dropout(
    trainings: dict[tuple[str, int, bool], Training],
) -> None:
    two, *others = (trainings[devices, shards, False] for devices, shards in WITHOUT_DROPOUT)
    assert len({result.sha256 for result in (two, *others)}) == len(WITHOUT_DROPOUT)
    for other in others:
        for weights, expected in zip(other.weights, two.weights, strict=True):
            np.testing.assert_allclose(weights, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_another_number_of_devices_gives_a_network_of_the_same_quality(
    trainings: dict[tuple[str, int, bool], Training],
) -> None:
    # Each shard draws its own dropout, so the weights differ as with another seed.
    assert min(result.pr_auc for result in trainings.values()) > 0.95


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (("cpu:0", 0), {"cpu:0"}), (("cpu:1", 0), {"cpu:1"}), (("cpu:0", 4), {"cpu:0"}),
        (("cpu:3,cpu:2", 0), {"cpu:2", "cpu:3"}), (("auto", 4), {"cpu:0", "cpu:1", "cpu:2", "cpu:3"}),
    ],
)  # fmt: skip
def test_weights_and_the_state_of_the_optimizer_are_on_the_chosen_devices(
    trainings: dict[tuple[str, int, bool], Training], case: tuple[str, int], expected: set[str]
) -> None:
    training = trainings[*case, True]
    assert training.weight_devices == expected
    assert training.optimizer_devices == expected


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:1,cpu:2"])
def test_steps_and_evaluations_run_on_the_chosen_devices_alone(tmp_path: Path, devices: str) -> None:
    operations = run_in_process(__file__, "find_operations", tmp_path, devices)
    for device in devices.split(","):
        assert {"UnsortedSegmentSum", "Tanh", "TanhGrad", "AssignSubVariableOp"} <= operations.pop(device)
    assert {name for names in operations.values() for name in names if OF_NETWORK.search(name)} == set()


KILL_POINTS: dict[str, KillPoint] = {
    "between steps": ("models.training.loop:_Trainer._report", 13, "after"),
    "during a checkpoint": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 5, "before"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kill_point", KILL_POINTS)
def test_a_training_killed_on_two_devices_ends_with_the_same_bits_on_two_or_one(
    trainings: dict[tuple[str, int, bool], Training], tmp_path: Path, kill_point: str
) -> None:
    with pytest.raises(KilledError):
        run_in_process(
            __file__, "train_cases", tmp_path, [("cpu:0,cpu:1", 4, True)], kill_point=KILL_POINTS[kill_point]
        )
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    results = run_in_process(__file__, "train_cases", tmp_path, [("cpu:0,cpu:1", 4, True), ("cpu:0", 4, True)])
    assert [result["sha256"] for result in results] == [trainings["cpu:0", 4, True].sha256] * 2
    assert [epoch.steps for epoch in read_history(tmp_path / "0" / HISTORY)] == [8] * SETTINGS.epochs


@pytest.mark.parametrize(
    ("devices", "shards", "instead"), [("cpu:0,cpu:1", 1, 2), ("cpu:0,cpu:1", 5, 6), ("auto", 6, 8)]
)
def test_shards_that_the_devices_do_not_divide_are_refused(
    tmp_path: Path, devices: str, shards: int, instead: int
) -> None:
    error = run_in_process(__file__, "train_cases", tmp_path, [(devices, shards, True)])
    assert isinstance(error, SettingsError)
    count = 4 if devices == "auto" else 2
    assert str(error) == (
        f"[training] shards = {shards}: expected a multiple of {count}, because the training runs on {count} devices. "
        f"Set shards to {instead}, or to 0 for one shard on each."
    )
