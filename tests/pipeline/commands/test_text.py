"""`spamscore text`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from spamscore_command import (
    Terminal,
    get_error,
    get_output,
    run,
    strip_styles,
)


def test_text_prints_the_probability_of_a_message(model: Path) -> None:
    assert re.fullmatch(r"Probability of spam: [01]\.\d{4}\n", get_output("text", "win prize now"))


def test_text_prints_each_of_several_messages_after_its_probability(model: Path) -> None:
    first, second, third = get_output("text", "win prize now", "see you at lunch\x1b[2J", "lunch " * 40).splitlines()
    assert re.fullmatch(r"Probability of spam: 0\.9\d{3}  win prize now", first)
    assert re.fullmatch(r"Probability of spam: 0\.0\d{3}  see you at lunch\[U\+001B\]\[2J", second)
    assert third.endswith("…")
    assert len(third) <= 100


def test_plain_output_has_the_probabilities_that_a_batch_stores(model: Path) -> None:
    from tasks.export_model import score_with_checkpoint

    messages = ["win prize now", "see you at lunch", "FREE entry, text WIN to 80086", "🎁"]
    expected = [f"{value:.6f}" for value in score_with_checkpoint(model / "artifacts" / "training" / "t1", messages)]
    assert get_output("text", "--plain", *messages).splitlines() == expected
    piped = "".join(f"{message}\n" for message in messages).encode()
    assert get_output("text", "--plain", stdin=piped).splitlines() == expected


def test_json_output_has_the_message_and_the_version(model: Path) -> None:
    first, second = (json.loads(line) for line in get_output("text", "--json", "win prize now", " ").splitlines())
    assert first == {
        "message": "win prize now", "spam_probability": pytest.approx(0.99, abs=0.1),
        "flagged": True, "model_version": 1,
    }  # fmt: skip
    assert second == {"message": " ", "spam_probability": None, "flagged": None, "model_version": 1}


@pytest.mark.parametrize(
    ("piped", "count", "empty"),
    [
        (b"one\ntwo\n", 2, []),
        (b"one\r\n\r\nthree", 3, [1]),
        (b"\n\n", 2, [0, 1]),
        (b"\xff\xfe win\n\x00\n \xe2\x80\x83\nlast", 4, [2]),
        (b"", 0, []),
    ],
)
def test_each_line_of_input_has_one_line_of_output(model: Path, piped: bytes, count: int, empty: list[int]) -> None:
    numbers = get_output("text", "--plain", stdin=piped).splitlines()
    assert len(numbers) == count
    assert [index for index, number in enumerate(numbers) if number == "nan"] == empty
    predictions = [json.loads(line) for line in get_output("text", "--json", stdin=piped).splitlines()]
    assert [prediction["message"] for prediction in predictions] == [
        line.removesuffix("\r") for line in piped.decode("utf-8", "replace").removesuffix("\n").split("\n") if piped
    ]


def test_an_error_for_an_unknown_version_lists_the_versions(model: Path) -> None:
    assert "model version 7: not in" in (error := get_error(1, "text", "--model-version", "7", "hello"))
    assert "there are: 1" in error
    assert get_output("text", "--plain", "--model-version", "1", "hello") == get_output("text", "--plain", "hello")
    assert run("text", "--model-version", "0", "hello").exit_code == 2


def test_a_checkpoint_scores_with_the_weights_of_its_step(model: Path) -> None:
    paths = (model / "artifacts" / "training" / "t1" / "checkpoints").glob("ckpt-*.index")
    first, *_, last = sorted((path.stem for path in paths), key=lambda name: int(name[5:]))
    messages = ["win prize now", "see you at lunch"]
    usual = get_output("text", "--plain", *messages)
    assert get_output("text", "--plain", "--checkpoint", last, *messages) == usual
    assert get_output("text", "--plain", "--checkpoint", first, *messages) != usual
    answers = [json.loads(line) for line in get_output("text", "--json", "--checkpoint", first, *messages).splitlines()]
    assert [answer["checkpoint"] for answer in answers] == [first, first]


def test_a_message_can_start_with_a_dash(model: Path) -> None:
    assert get_output("text", "--plain", "--", "-20% today only")


def test_a_terminal_asks_for_messages_until_an_empty_line(model: Path) -> None:
    terminal = Terminal("text")
    assert "Loading model version 1" in terminal.read_until("Message: ")
    terminal.type("win prize now\n")
    assert re.search(r"Probability of spam: \S*0\.9\d{3}", strip_styles(terminal.read_until("Message: ")))
    terminal.type("\n")
    assert terminal.wait()[0] == 0


def test_an_interrupt_in_a_terminal_exits_with_130_and_no_traceback(model: Path) -> None:
    terminal = Terminal("text")
    terminal.read_until("Message: ")
    terminal.type("\x03")
    code, screen = terminal.wait()
    assert code == 130
    assert "Traceback" not in screen
