"""`spamscore check-server`: agreement with the batch, error rate, failed calls, files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import binomtest
from serving import ScriptedServer, answer_quarter, model_server, scripted_server
from spamscore_command import get_error, get_output, run

from pipeline.client.protocol import grpc

CORPUS = Path(__file__).resolve().parents[4] / "pipeline" / "sample" / "corpus.csv"


def test_a_server_of_the_exports_agrees_with_the_batch(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    messages = pd.read_csv(CORPUS, keep_default_na=False).head(400)
    messages.to_csv("labelled.csv", index=False)
    exports = trained / "artifacts" / "exports" / "spam_ham"
    with model_server(exports) as server:
        options = ("--messages", "labelled.csv", "--json", "--concurrency", "4")
        check = json.loads(get_output("check-server", "--server", server.grpc, *options))
        rest = json.loads(get_output("check-server", "--rest", "--server", server.rest, *options, "--per-call", "100"))
        shown = get_output("check-server", "--server", server.grpc, "--messages", "labelled.csv", "--per-call", "100")
        exact = run("check-server", "--server", server.grpc, *options, "--tolerance", "0")
    threshold = json.loads((exports / "1" / "manifest.json").read_text())["threshold"]["value"]
    texts = "".join(f"{' '.join(text.split())}\n" for text in messages["text"]).encode()
    computed = [json.loads(line) for line in get_output("text", "--json", stdin=texts).splitlines()]
    flagged = pd.Series([one["spam_probability"] >= threshold for one in computed])
    spam = messages["label"] == "spam"
    assert (check["messages"], check["calls"], rest["calls"], check["versions"]) == (400, 400, 4, [1])
    assert check["thresholds"] == [threshold]
    assert check["errors"] == rest["errors"] == int((flagged != spam).sum())
    interval = binomtest(check["errors"], 400).proportion_ci(0.95, method="wilson")
    assert check["error_rate"] == {"value": check["errors"] / 400, "low": interval.low, "high": interval.high}
    assert check["recall"] == pytest.approx((flagged & spam).sum() / spam.sum())
    assert check["precision"] == pytest.approx((flagged & spam).sum() / flagged.sum())
    assert 0 < check["largest_difference"] < 1e-5
    assert (check["passed"], check["failed_calls"], check["concurrency"]) == (True, {}, 4)
    assert 0 < check["median_ms"] <= check["p99_ms"]
    assert re.search(r"Difference: +\d\.\de-0\d at most; agrees to within 1e-05\n", shown)
    assert exact.exit_code == 1
    assert json.loads(exact.stdout)["passed"] is False


@pytest.fixture
def scripted(model: Path) -> Iterator[tuple[ScriptedServer, str]]:
    """A server in this process that answers as version 1 of the small model, in whose folder the command runs."""
    with scripted_server() as (server, address):
        server.answer = by_version_1
        yield server, address


def by_version_1(name: str, request: Any, context: Any) -> Any:
    response = answer_quarter(name, request, context)
    response.model_spec.version.value = 1
    return response


def write_messages(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in rows))


ROWS = [("spam", "win prize now"), ("ham", "see you at lunch"), ("ham", "another one"), ("spam", "prize now win")]


def test_a_server_with_other_scores_fails_the_check(scripted: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    write_messages(tmp_path / "m.csv", ROWS)
    result = run("check-server", "--server", scripted[1], "--messages", str(tmp_path / "m.csv"))
    assert result.exit_code == 1
    assert "at most; DIFFERS to within 1e-05" in result.stdout


def test_failed_calls_are_counted_by_kind(scripted: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    server, address = scripted
    codes = {b"another one": "INTERNAL", b"prize now win": "RESOURCE_EXHAUSTED"}

    def answer(name: str, request: Any, context: Any) -> Any:
        text = request.inputs["texts"].string_val[0] if name == "Predict" else b""
        if text in codes:
            context.abort(grpc.StatusCode[codes[text]], "no")
        return by_version_1(name, request, context)

    server.answer = answer
    write_messages(tmp_path / "m.csv", ROWS)
    result = run(
        "check-server", "--server", address, "--messages", str(tmp_path / "m.csv"), "--tolerance", "1", "--json"
    )
    check = json.loads(result.stdout)
    assert (result.exit_code, check["passed"], check["messages"], check["calls"]) == (1, False, 2, 2)
    assert check["failed_calls"] == {"failed": 1, "overloaded": 1}


def test_answers_of_two_versions_are_compared_with_each(scripted: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    server, address = scripted

    def answer(name: str, request: Any, context: Any) -> Any:
        response = by_version_1(name, request, context)
        response.model_spec.version.value = 1 if name != "Predict" or len(server.calls) % 2 else 2
        return response

    server.answer = answer
    write_messages(tmp_path / "m.csv", ROWS)
    error = get_error(1, "check-server", "--server", address, "--messages", str(tmp_path / "m.csv"))
    assert "model version 2: not in artifacts/exports/spam_ham; there are: 1" in error


def test_a_model_of_another_kind_is_named(scripted: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    server, address = scripted

    def answer(name: str, request: Any, context: Any) -> Any:
        response = by_version_1(name, request, context)
        if name == "GetModelMetadata":
            response.metadata["signature_def"].value = b""
        return response

    server.answer = answer
    write_messages(tmp_path / "m.csv", ROWS)
    error = get_error(1, "check-server", "--server", address, "--messages", str(tmp_path / "m.csv"))
    assert "expected a model with the signature predict_spam from texts to scores, received one with none" in error


def test_a_server_that_answers_nothing_is_one_line(scripted: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    server, address = scripted

    def answer(name: str, request: Any, context: Any) -> Any:
        if name == "Predict":
            context.abort(grpc.StatusCode.INTERNAL, "it broke")
        return by_version_1(name, request, context)

    server.answer = answer
    write_messages(tmp_path / "m.csv", ROWS)
    error = get_error(1, "check-server", "--server", address, "--messages", str(tmp_path / "m.csv"))
    assert "the server failed with INTERNAL: it broke" in error


FRAME = pd.DataFrame({"label": ["spam", "ham", "maybe", "ham"], "text": ["win prize now", "see you", "what", " "]})


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("m.csv", lambda path: FRAME.to_csv(path, index=False)),
        ("m.tsv", lambda path: FRAME.to_csv(path, index=False, sep="\t")),
        ("m.jsonl", lambda path: FRAME.to_json(path, orient="records", lines=True)),
        ("m.parquet", FRAME.to_parquet),
        ("m.csv.gz", lambda path: FRAME.to_csv(path, index=False)),
    ],
)
def test_messages_are_read_in_every_format_and_unusable_rows_are_counted(
    scripted: tuple[ScriptedServer, str], tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path / name)
    options = ("--server", scripted[1], "--messages", str(tmp_path / name), "--tolerance", "1", "--json")
    check = json.loads(get_output("check-server", *options))
    assert (check["messages"], check["skipped"]) == (2, {"no label": 1, "empty text": 1})


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("label,text\nmaybe,hello\n", 1, "expected messages with labels, received none: 1 no label"),
        ("a,b\n1,2\n", 1, "label"),
        (None, 1, "no such file"),
    ],
)
def test_a_file_without_labelled_messages_is_refused(
    model: Path, tmp_path: Path, content: Any, code: int, words: str
) -> None:
    if content:
        (tmp_path / "m.csv").write_text(content)
    result = run("check-server", "--messages", str(tmp_path / "m.csv"))
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
