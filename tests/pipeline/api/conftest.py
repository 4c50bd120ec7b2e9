"""A folder with two versions of a model and a published batch, and a front end that serves them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import CommandResult, luigi
from front_end import FrontEnd, front_end
from servers import free_port
from spamscore_command import run_process

# A model that was trained for a shorter time scores differently. Its gate lets everything pass.
SECOND_VERSION = (
    "--training-epochs", "3", "--gate-pr-auc-allowance", "1", "--gate-recall-allowance", "1",
    "--gate-calibration-allowance", "1", "--gate-flip-budget", "1",
)  # fmt: skip


@pytest.fixture(scope="session")
def _two_versions(_chain: tuple[Path, CommandResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(_chain[0], tmp_path_factory.mktemp("versions"), dirs_exist_ok=True))
    done = luigi(folder, "ExportModel", *SECOND_VERSION)
    assert done.code == 0, done.output
    assert run_process("serve", "1", "--yes", cwd=folder).returncode == 0
    return folder


@pytest.fixture(scope="session")
def front(_two_versions: Path) -> Iterator[FrontEnd]:
    """A front end with gRPC, for tests that change nothing. Version 1 is in service, and version 2 is there too."""
    with front_end(_two_versions, "--grpc-port", str(free_port())) as running:
        yield running


@pytest.fixture(scope="module")
def versions(_two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, for tests that change it."""
    return Path(shutil.copytree(_two_versions, tmp_path_factory.mktemp("copy"), dirs_exist_ok=True))
