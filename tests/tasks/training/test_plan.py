"""The networks of a model, in the order in which one process trains them."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from toy_training import NETWORK, SETTINGS, VOCABULARY, messages

from models.settings import DeviceSettings
from models.training.folds import read_held_out_logits, split_folds
from models.training.job import Progress
from tasks.training.plan import TrainingPlan, describe_network

# As in `start_tensorflow`: otherwise TensorFlow lists the values of a checkpoint that were not restored.
logging.getLogger("tensorflow").setLevel("ERROR")
SHORT = dataclasses.replace(SETTINGS, epochs=2)


def make_plan(folder: Path) -> TrainingPlan:
    training = messages(60, 0)
    return TrainingPlan(
        training, messages(30, 1), VOCABULARY, NETWORK, SHORT, split_folds(training, SHORT, folder), folder
    )


def test_the_folds_that_are_not_finished_are_trained_before_the_final_network(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    assert plan.list_unfinished() == [1, 2, 0]
    plan.folds[0].logits_path.parent.mkdir()
    np.save(plan.folds[0].logits_path, np.zeros(30, np.float32))
    assert plan.list_unfinished() == [2, 0]


def test_a_plan_trains_all_networks_and_again_only_the_final_one_which_is_finished(tmp_path: Path) -> None:
    steps: list[tuple[int, Progress]] = []
    finished: list[int] = []
    summary = make_plan(tmp_path).train_all(
        DeviceSettings(), lambda number, progress: steps.append((number, progress)), finished.append
    )
    assert finished == [1, 2, 0]
    assert [number for number, _ in steps] == [1] * 8 + [2] * 8 + [0] * 16
    assert all(progress.fold == number for number, progress in steps)
    assert read_held_out_logits(make_plan(tmp_path).folds).all()
    steps.clear()
    again = make_plan(tmp_path).train_all(DeviceSettings(), lambda *step: steps.append(step), finished.append)
    assert (steps, finished) == ([], [1, 2, 0, 0])
    assert again.weights_sha256 == summary.weights_sha256


@pytest.mark.parametrize(("number", "name"), [(0, "final network"), (2, "held-out fold 2/3")])
def test_a_network_has_a_name(number: int, name: str) -> None:
    assert describe_network(number, 3) == name
