"""`spamscore ask`, at the stand-in for TensorFlow Serving."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import RunningModelServer, create_certificates, model_server
from spamscore_command import Terminal, get_error, get_output, run, strip_styles

ROOT = Path(__file__).resolve().parents[4]
MESSAGES = ["You have WON a prize! Reply YES to 80086", "Lunch at one?", "é \u202e\x00 \U0001f381", "x" * 10_000]


@pytest.fixture(scope="module")
def served(trained: Path) -> Iterator[RunningModelServer]:
    with model_server(trained / "artifacts" / "exports" / "spam_ham") as server:
        yield server


@pytest.fixture(autouse=True)
def _in_folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)


@pytest.fixture(params=["grpc", "rest"])
def server(request: pytest.FixtureRequest, served: RunningModelServer) -> list[str]:
    """The options that name the server, for each protocol."""
    return ["--server", served.grpc] if request.param == "grpc" else ["--rest", "--server", served.rest]


@pytest.mark.parametrize("classify", [[], ["--classify"]])
def test_ask_gives_the_probabilities_of_the_batch(server: list[str], classify: list[str]) -> None:
    asked = [json.loads(line) for line in get_output("ask", *server, *classify, "--json", *MESSAGES, " ").splitlines()]
    computed = [json.loads(line) for line in get_output("text", "--json", *MESSAGES, " ").splitlines()]
    for one, other in zip(asked[:-1], computed[:-1], strict=True):
        assert one == {
            "message": other["message"], "spam_probability": pytest.approx(other["spam_probability"], abs=1e-5),
            "model_version": 1,
        }  # fmt: skip
    assert asked[-1] == {"message": " ", "spam_probability": None, "model_version": None}


@pytest.mark.parametrize(
    "options", [[], ["--label", "stable"], ["--model-version", "1"], ["--model", "spam_ham"], ["--timeout", "60"]]
)
def test_the_version_is_chosen_by_label_or_number(server: list[str], options: list[str]) -> None:
    assert json.loads(get_output("ask", *server, *options, "--json", "a"))["model_version"] == 1


def test_output_is_that_of_text(server: list[str]) -> None:
    assert re.fullmatch(r"Probability of spam: [01]\.\d{4}\n", get_output("ask", *server, "win prize now"))
    lines = get_output("ask", *server, "win prize now", "see you at lunch\x1b[2J").splitlines()
    assert [line[29:] for line in lines] == ["win prize now", "see you at lunch[U+001B][2J"]
    piped = get_output("ask", *server, "--plain", stdin=b"one\r\n\nthree\n\xff").splitlines()
    assert [bool(re.fullmatch(r"[01]\.\d{6}", number)) for number in piped] == [True, False, True, True]
    assert piped[1] == "nan"


def test_more_lines_than_a_call_may_have_are_answered_in_several_calls(served: RunningModelServer) -> None:
    lines = "".join(f"message {number}\n" for number in range(1500)).encode()
    assert len(get_output("ask", "--server", served.grpc, "--plain", stdin=lines).splitlines()) == 1500


def test_a_terminal_asks_for_messages(served: RunningModelServer) -> None:
    terminal = Terminal("ask", "--server", served.grpc)
    assert "Message: " in terminal.read_until("Message: ")
    terminal.type("win prize now\n")
    assert re.search(r"Probability of spam: \S*[01]\.\d{4}", strip_styles(terminal.read_until("Probability")))
    terminal.read_until("Message: ")
    terminal.type("\n")
    assert terminal.wait()[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label", "canary"], "no such label for this model: Unrecognized servable version label: canary"),
        (
            ["--model-version", "9"],
            "has not loaded this version: Servable not found for request: Specific(spam_ham, 9)",
        ),
    ],
)
def test_an_error_names_the_versions_that_the_server_has(server: list[str], options: list[str], words: str) -> None:
    error = get_error(1, "ask", *server, *options, "a")
    assert words in error
    assert error.endswith(" Versions that the server has: 1.\n")


def test_an_error_for_another_model_names_the_model(server: list[str]) -> None:
    error = get_error(1, "ask", *server, "--model", "other", "a")
    assert "model other label stable: the server has no such label for this model" in error
    assert "--model" in error


def test_a_bad_address_or_option_is_refused_before_a_call() -> None:
    assert "expected an address such as 127.0.0.1:8500" in get_error(2, "ask", "--server", "http://models", "a")
    assert "[serving] ca_file = missing.pem" in get_error(2, "ask", "--ca-file", "missing.pem", "a")
    both = run("ask", "--label", "stable", "--model-version", "1", "a")
    assert (both.exit_code, "received both" in both.stderr) == (2, True)
    assert run("ask", "--timeout", "0", "a").exit_code == 2


def test_ask_over_mutual_tls_with_the_file_that_tls_config_prints(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = create_certificates(tmp_path)
    files = (certificates.server_key, certificates.server, certificates.authority)
    printed = subprocess.run([ROOT / "deploy" / "serving" / "tls-config.sh", *files], capture_output=True, check=True)
    (tmp_path / "tls.config").write_bytes(printed.stdout)
    monkeypatch.setenv("SPAMSCORE_SERVING_TOKEN", "a-token")
    exports = trained / "artifacts" / "exports" / "spam_ham"
    with model_server(exports, f"--ssl_config_file={tmp_path / 'tls.config'}") as server:
        options = ["--server", server.grpc, "--ca-file", str(certificates.authority)]
        client = ["--certificate", str(certificates.client), "--key", str(certificates.client_key)]
        assert json.loads(get_output("ask", *options, *client, "--json", "a"))["model_version"] == 1
        assert "the connection was closed" in get_error(1, "ask", *options, "a")
