"""The page at / in Chromium, against `spamscore text` and `spamscore explain`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import MODES
from front_end import FrontEnd, Visitor, front_end
from page import Page
from spamscore_command import get_output, run_process

SPAM = "URGENT! You have WON a £1000 prize. Call now to claim, or see you at lunch?"
HAM = "Are we still on for lunch at one?"
HOSTILE = "<script>owned=1</script><img src=x onerror=owned=1> {{7*7}} win\u202egnp\u200b prize"
NOT_UTF8 = "win pr\ufffdize"
SPELLED_OUT = str.maketrans({"\u202e": "[U+202E]", "\u200b": "[U+200B]"})
RESULT = "document.getElementById('result').innerText"
ANSWERED = "document.querySelector('.verdict') !== null"


@pytest.fixture(scope="module")
def explained(trained: Path) -> dict[str, dict[str, Any]]:
    """The answers of `spamscore explain` by message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        return {
            message: json.loads(get_output("explain", "--json", message)) for message in (SPAM, HAM, HOSTILE, NOT_UTF8)
        }


def read_result(page: Page) -> dict[str, Any]:
    """Returns what the page shows of a result."""
    page.wait_for(ANSWERED)
    texts = "[...document.querySelectorAll('{}')].map(element => element.textContent)"
    words = page.value(texts.format(".words .word"))
    return {
        "verdict": page.value("document.querySelector('.verdict strong').textContent"),
        "probability": page.value("document.querySelector('.figure b').textContent"),
        "line": page.value("document.querySelector('.verdict .quiet').textContent"),
        "words": [re.fullmatch(r"(.+)([+-]\d+\.\d\d)", word, re.DOTALL).groups() for word in words],
        "decisive": page.value(texts.format(".decisive b")),
    }


@pytest.mark.parametrize("message", [SPAM, HAM, HOSTILE])
def test_a_typed_message_has_the_score_and_words_of_spamscore_explain(
    server: FrontEnd, explained: dict[str, dict[str, Any]], page: Page, message: str
) -> None:
    expected = explained[message]
    page.open(server.url)
    page.type(message)
    shown = read_result(page)
    assert shown["probability"] == f"{expected['spam_probability']:.4f}"
    assert shown["verdict"] == ("Spam" if expected["flagged"] else "Not spam")
    verdict = "Flagged" if expected["flagged"] else "Not flagged"
    assert re.fullmatch(rf"{verdict}: the threshold is 0\.\d{{4}}\. Model version 1\.", shown["line"])
    assert shown["words"] == [
        (word["text"].translate(SPELLED_OUT), f"{word['change']:+.2f}")
        for word in expected["words"] if abs(word["change"]) >= 0.1
    ]  # fmt: skip
    assert shown["decisive"] == [word.translate(SPELLED_OUT) for word in expected["decisive"]]


def test_the_score_is_that_of_spamscore_text(server: FrontEnd, trained: Path, page: Page) -> None:
    page.open(server.url)
    page.type(SPAM)
    assert read_result(page)["probability"] == run_process("text", SPAM, cwd=trained).stdout.split()[-1]


def test_without_scripts_the_form_gives_the_same_result(server: FrontEnd, page: Page) -> None:
    shown = []
    for allowed in (True, False):
        page.allow_scripts(allowed)
        page.open(server.url)
        page.type(SPAM)
        if not allowed:
            page.click("form .primary")
        page.wait_for(ANSWERED)
        shown.append((page.value("document.getElementById('message').value"), page.value(RESULT)))
    assert shown[0] == shown[1]
    assert shown[0][0] == SPAM


def test_a_message_with_html_is_text(server: FrontEnd, page: Page) -> None:
    page.open(server.url)
    page.type(HOSTILE)
    page.wait_for(ANSWERED)
    shown = page.value(RESULT)
    assert "onerror=owned=1>" in shown
    assert "{{7*7}}" in shown
    assert page.value("typeof owned") == "undefined"
    assert page.value("document.querySelectorAll('#result script, #result img').length") == 0
    assert set(page.value("[...document.querySelectorAll('#result i')].map(mark => mark.textContent)")) == {
        "[U+202E]", "[U+200B]",
    }  # fmt: skip


def test_the_answer_follows_the_typing_and_an_empty_message_has_none(server: FrontEnd, page: Page) -> None:
    page.open(server.url)
    page.type(SPAM)
    page.wait_for(f"{RESULT}.includes('Spam')")
    page.value("document.getElementById('message').select()")
    page.type(HAM)
    page.wait_for(f"{RESULT}.includes('Not spam')")
    page.value("document.getElementById('message').select()")
    page.type(" ")
    page.wait_for(f"{RESULT} === ''")


def test_the_page_is_used_by_keyboard_alone(server: FrontEnd, page: Page) -> None:
    page.open(server.url)
    assert page.value("document.activeElement.id") == "message"  # a person can type at once
    page.type("WIN a prize")
    page.press("Enter")
    page.wait_for(ANSWERED)
    assert page.value("document.getElementById('message').value") == "WIN a prize"
    page.press("Tab")
    assert page.value("document.activeElement.textContent") == "Score"
    assert page.value("document.getElementById('verdict').getAttribute('role')") == "status"
    unnamed = (
        "[...document.querySelectorAll('input:not([type=hidden]), textarea')].filter(field => !field.labels.length)"
    )
    assert page.value(f"{unnamed}.length") == 0


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("mode", MODES)
def test_the_page_is_readable_on_a_phone_and_in_dark_mode(server: FrontEnd, page: Page, width: int, mode: str) -> None:
    page.resize(width, 800, phone=width < 800)
    page.set_mode(mode)
    page.open(server.url)
    page.type(f"{SPAM} https://prize.example/{'x' * 100}")
    page.wait_for(ANSWERED)
    found = page.measure()
    assert (found["scrolls_to"], found["outside"], found["faint"]) == (width, [], [])
    assert found["smallest"] >= 12
    assert (found["background"] == "rgb(255, 255, 255)") == (mode == "light")


def test_nothing_is_loaded_from_elsewhere(server: FrontEnd, page: Page) -> None:
    page.open(server.url)
    page.type(SPAM)
    page.wait_for(ANSWERED)
    requested = [url for url in page.requested if url != "about:blank"]
    assert f"{server.url}/static/message.js" in requested
    assert [url for url in requested if not url.startswith(f"{server.url}/")] == []


def test_a_message_over_the_limit_is_refused_with_the_limit(server: FrontEnd) -> None:
    visitor = Visitor(server)
    answer = visitor.post("/", {"csrf_token": visitor.csrf_token(), "message": "x" * 10_001})
    assert answer.status_code == 413
    assert "messages of up to 10,000 characters" in answer.text


def test_a_server_that_is_gone_is_reported_and_the_message_stays(trained: Path, page: Page) -> None:
    with front_end(trained) as server:
        page.open(server.url)
    page.type(SPAM)
    page.wait_for(f"{RESULT}.includes('The server does not answer.')")
    assert page.value("document.getElementById('message').value") == SPAM


def test_bytes_that_are_not_utf8_are_read_as_replacement_characters(
    server: FrontEnd, explained: dict[str, dict[str, Any]]
) -> None:
    visitor = Visitor(server)
    form = f"csrf_token={visitor.csrf_token()}&message=win+pr%FFize"
    answer = visitor.post("/", form, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert f"<b>{explained[NOT_UTF8]['spam_probability']:.4f}</b>" in answer.text
