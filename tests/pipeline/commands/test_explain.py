"""`spamscore explain`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from published_batches import publish, write_snapshot
from spamscore_command import (
    Terminal,
    export_version,
    get_error,
    get_output,
    run,
    strip_styles,
)

from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings


def test_an_explanation_has_the_change_after_each_word(model: Path) -> None:
    first, words, *_ = get_output("explain", "win prize now").splitlines()
    assert re.fullmatch(r"Probability of spam: 0\.9\d{3} \(flagged, version 1\)", first)
    assert re.fullmatch(r"  win(\[\+\d\.\d\d\])? prize(\[\+\d\.\d\d\])? now(\[\+\d\.\d\d\])?", words)
    assert "[+" in words
    assert "[-" in get_output("explain", "win prize now lunch you")


def test_an_explanation_agrees_with_the_scores_of_the_message_without_each_word(model: Path) -> None:
    (explained,) = (json.loads(line) for line in get_output("explain", "--json", "win prize  at\nlunch").splitlines())
    assert (explained["message"], explained["model_version"]) == ("win prize  at\nlunch", 1)
    assert f"{explained['spam_probability']:.6f}" == get_output("text", "--plain", "win prize  at\nlunch").strip()
    assert [word["text"] for word in explained["words"]] == ["win", "prize", "at", "lunch"]
    for word in explained["words"]:
        remaining_text = explained["message"][: word["start"]] + explained["message"][word["end"] :]
        assert f"{word['probability_without']:.6f}" == get_output("text", "--plain", remaining_text).strip()
        assert (word["change"] > 0) == (word["probability_without"] < explained["spam_probability"])
    remaining_text = " ".join(word["text"] for word in explained["words"] if word["text"] not in explained["decisive"])
    (remaining,) = (json.loads(line) for line in get_output("text", "--json", remaining_text).splitlines())
    assert explained["decisive"]
    assert remaining["flagged"] != explained["flagged"]
    decisive_line = (
        f"  {'Not flagged' if explained['flagged'] else 'Flagged'} without: {', '.join(explained['decisive'])}"
    )
    assert get_output("explain", "win prize  at\nlunch").splitlines()[2] == decisive_line


def test_plain_explanations_have_one_line_per_word_and_none_for_an_empty_message(model: Path) -> None:
    rows = [line.split("\t") for line in get_output("explain", "--plain", "win lunch\x1b[2J", " ").splitlines()]
    assert [row[2] for row in rows] == ["win", "lunch[U+001B][2J"]
    assert all(float(change) and 0 <= float(probability) <= 1 for change, probability, _ in rows)
    assert json.loads(get_output("explain", "--json", " "))["spam_probability"] is None
    assert get_output("explain", " ") == "Probability of spam: nan (there is no text to score)\n"


def test_messages_to_explain_can_be_piped_in(model: Path) -> None:
    output = get_output("explain", "--json", stdin=b"win prize now\nsee you\n").splitlines()
    assert [json.loads(line)["message"] for line in output] == ["win prize now", "see you"]


def test_a_terminal_colours_words_for_spam_and_ham_unless_no_color_is_set(model: Path) -> None:
    code, screen = Terminal("explain", "win", "you").wait()
    assert code == 0
    assert re.search(r"\n  \x1b\[(1;)?31mwin\x1b", screen), screen
    assert re.search(r"\n  \x1b\[(1;)?36myou\x1b", screen), screen
    assert re.search(r"\+\d\.\d\d +win +0\.\d{4} without it", strip_styles(screen))
    uncoloured = Terminal("explain", "win", "you", NO_COLOR="1").wait()[1]
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", uncoloured)
    assert re.search(r"win\[\+.*you\[-", strip_styles(uncoloured), re.DOTALL)


def test_a_message_of_a_batch_is_read_from_the_snapshot_and_explained_with_the_version_of_the_batch(
    small_model: Path, folder: Path
) -> None:
    shutil.copytree(small_model / "artifacts", folder / "artifacts")
    engine = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    publish(engine, {"m-1": 0.9, "m-2": 0.1})
    engine.dispose()
    command = ["explain", "--date", "2026-01-31", "--message-id"]
    assert "the messages of batch 1 are missing" in get_error(1, *command, "m-1")
    write_snapshot(folder, [(1, "m-1", "win prize now"), (2, "m-2", "see you at lunch")])
    first, second = (
        json.loads(line) for line in get_output(*command, "m-2", "--message-id", "m-1", "--json").splitlines()
    )
    assert (first["batch_date"], first["message_id"], first["message"]) == ("2026-01-31", "m-2", "see you at lunch")
    assert [word["text"] for word in second["words"]] == ["win", "prize", "now"]
    assert "batch 1 of 2026-01-31 has no message with text and message_id m-7, m-8." in get_error(
        1, *command, "m-7", "--message-id", "m-8"
    )
    assert "there is no published batch for 2026-02-01" in get_error(
        1, "explain", "--date", "2026-02-01", "--message-id", "m-1"
    )
    export_version(folder, 2, "t2")
    engine = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    publish(engine, {"m-1": 0.9}, version=7)
    engine.dispose()
    assert "model version 7: not in" in get_error(1, *command, "m-1")
    assert get_output(*command, "m-1", "--model-version", "1", "--plain")


@pytest.mark.parametrize(
    "arguments", [["--date", "today"], ["--message-id", "m"], ["--date", "today", "--message-id", "m", "hello"]]
)
def test_explain_takes_either_messages_or_a_date_with_a_message_id(folder: Path, arguments: list[str]) -> None:
    result = run("explain", *arguments)
    assert (result.exit_code, "expected messages, or --date with --message-id" in result.stderr) == (2, True)
