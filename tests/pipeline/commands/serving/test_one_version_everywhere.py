"""The batch, the commands and the server use one version, while versions are exported, refused, rolled back, promoted.

The stand-in for TensorFlow Serving runs the whole time and polls `models.config`; a client asks for the label stable
the whole time, without retries.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from chain import SMALL, environment, luigi, merge_settings, write_settings
from eventually import eventually
from servers import free_port
from serving import PROGRAM, ROOT, RunningModelServer, model_server
from spamscore_command import get_error, get_output, run

from pipeline.client.grpc_client import GrpcClient
from pipeline.client.server import ModelServer
from tasks.artifacts.exports import exports_folder, version_in_service


class BackgroundClient:
    """Asks for the label stable all the time, and remembers the versions that answered."""

    def __init__(self, address: str) -> None:
        self.versions: list[int] = []
        self.failure: Exception | None = None
        self._stopped = threading.Event()
        self._client = GrpcClient(ModelServer(address, "spam_ham", timeout=60, retries=0))
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        try:
            while not self._stopped.wait(0.02):  # trainings need the processor too
                self.versions.append(self._client.predict(["win prize now"]).version)
        except Exception as error:
            self.failure = error

    def check(self) -> None:
        assert self.failure is None

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()
            self._client.close()


def ask(server: RunningModelServer, *options: str) -> int:
    return int(json.loads(get_output("ask", "--server", server.grpc, *options, "--json", "a"))["model_version"])


def get_versions(server: RunningModelServer) -> tuple[int | None, ...]:
    """The version in service by the batch, `spamscore text`, and `spamscore ask` over gRPC and REST."""
    text = json.loads(get_output("text", "--json", "a"))["model_version"]
    rest = json.loads(get_output("ask", "--rest", "--server", server.rest, "--json", "a"))["model_version"]
    return version_in_service(), text, ask(server, "--label", "stable"), rest


LENIENT = {"gate": {"flip_budget": "1", "pr_auc_allowance": "1", "recall_allowance": "1", "calibration_allowance": "1"}}


def export(folder: Path, seed: str, threshold: str = "auto") -> str:
    """Trains and evaluates a model, and exports it if the gate approves it."""
    settings = {"training": {"seed": seed, "epochs": "2"}, "scoring": {"threshold": threshold}}
    write_settings(folder, merge_settings(SMALL, LENIENT, settings))
    done = luigi(folder, "ExportModel")
    assert done.code == 0, done.output
    return done.output


def test_every_reader_uses_the_version_in_service_and_no_request_fails(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    get_output("serve", "1")  # `models.config` of a copied folder has the path of the original
    with model_server(exports_folder().resolve()) as server:
        client = BackgroundClient(server.grpc)
        with client.asking():

            def expect(version: int) -> None:
                """Waits for the server's poll; all other readers use the version at once."""
                assert version_in_service() == version
                eventually(lambda: ask(server), lambda asked: asked == version, client.check, server.read_log)
                assert get_versions(server) == (version,) * 4
                eventually(lambda: client.versions[-1:] == [version], check=client.check)

            expect(1)
            export(trained, seed="8")
            expect(2)
            # No score reaches this threshold, so the model is no better than the majority class.
            assert "kept out of service" in export(trained, seed="9", threshold="1.0")
            expect(2)
            get_output("serve", "1", "--yes")
            expect(1)
            get_output("serve", "2", "--canary")
            eventually(lambda: has_label(server, "canary"), check=client.check)
            assert ask(server, "--label", "canary") == 2
            expect(1)
            get_output("serve", "2", "--yes")
            expect(2)
            eventually(lambda: not has_label(server, "canary"), check=client.check)
            assert "no such label" in get_error(1, "ask", "--server", server.grpc, "--label", "canary", "a")
            export(trained, seed="10")
            expect(3)
            with label_on_a_missing_version():
                eventually(lambda: REFUSAL in server.read_log(), check=client.check)
                assert ask(server) == 3
            expect(3)
    client.check()
    assert [version for version, _ in groupby(client.versions)] == [1, 2, 1, 2, 3]


def has_label(server: RunningModelServer, label: str) -> bool:
    result = run("ask", "--server", server.grpc, "--label", label, "a")
    assert result.exit_code == 0 or "no such label" in result.stderr
    return result.exit_code == 0


REFUSAL = "Request to assign label to version 9 of model spam_ham, which is not currently available for inference"


@contextlib.contextmanager
def label_on_a_missing_version() -> Iterator[None]:
    """`models.config` moves the label stable to a version that does not exist."""
    path = exports_folder() / "models.config"
    content = path.read_text()
    assert "value: 3" in content
    path.write_text(content.replace("value: 3", "value: 9"))
    try:
        yield
    finally:
        path.write_text(content)


def test_the_script_for_a_real_server_passes_with_the_stand_in(trained: Path, tmp_path: Path) -> None:
    assert len([path for path in (trained / "artifacts" / "exports" / "spam_ham").iterdir() if path.is_dir()]) > 1
    program = tmp_path / "tensorflow_model_server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PROGRAM}" "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = environment(PATH=path, PYTHONPATH=str(ROOT), GRPC_PORT=str(free_port()), REST_PORT=str(free_port()))
    done = subprocess.run(
        [ROOT / "deploy" / "serving" / "check-real-server.sh", trained], env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ALL OK"), done.stdout + done.stderr
    assert done.stdout.count("agrees to within") == 2
