"""The messages of TensorFlow Serving: imported without TensorFlow, beside it, and when they are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from chain import environment

ROOT = Path(__file__).resolve().parents[3]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    variables = environment(PYTHONPATH=str(ROOT))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)


@pytest.mark.parametrize("module", ["grpc_client", "rest_client", "asking"])
def test_a_client_starts_without_tensorflow(module: str) -> None:
    done = run_python(f"import sys, pipeline.client.{module}; print('tensorflow' in sys.modules)")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_tensorflow_can_be_imported_after_and_before() -> None:
    uses = "print(tf.sigmoid(0.0).numpy(), predict_pb2.PredictRequest.FromString(b'') is not None)\n"
    packed = "r = predict_pb2.PredictRequest(); r.inputs['t'].CopyFrom(tf.make_tensor_proto([b'a']))\n"
    imports = ["from pipeline.client.protocol import predict_pb2\n", "import tensorflow as tf\n"]
    for order in (imports, imports[::-1]):
        done = run_python("".join(order) + packed + uses)
        assert (done.returncode, done.stdout) == (0, "0.5 True\n"), done.stderr


@pytest.mark.parametrize("missing", ["grpc", "tensorflow_serving"])
def test_without_the_extra_the_command_names_it_and_rest_works(missing: str) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from pipeline.command_line import cli\n"
        "cli.main(['ask', '--server', '127.0.0.1:1', *sys.argv[1:], 'a'], prog_name='spamscore')"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{missing}" in done.stderr
    assert done.stderr.endswith("Install it: pip install 'spamscore[serving]'\n")
    rest = run_python(code.replace("*sys.argv[1:]", "'--rest'"))
    assert (rest.returncode, "connection refused" in rest.stderr) == (1, True), rest.stderr
