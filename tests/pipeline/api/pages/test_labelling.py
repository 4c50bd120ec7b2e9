"""The pages at /label in Chromium, against the table of labels."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import MODES
from chain import query, write_settings
from eventually import eventually
from front_end import FrontEnd, Visitor, front_end
from page import Page
from spamscore_command import run_process

Publish = Callable[..., dict[str, str]]

CARD = "document.getElementById('card')"
SHOWN = f"{CARD} && !{CARD}.hidden && document.getElementById('text').textContent"
PROGRESS = "document.getElementById('progress').textContent"
STORED = "document.getElementById('stored').textContent"
PROBLEM = "document.getElementById('problem').hidden ? '' : document.getElementById('problem-text').textContent"


@pytest.fixture(scope="module")
def dates() -> Iterator[datetime.date]:
    """A new date for each test: the tests share the database."""
    return (datetime.date(2026, 1, 1) + datetime.timedelta(days=number) for number in range(1000))


@pytest.fixture
def date(dates: Iterator[datetime.date]) -> datetime.date:
    return next(dates)


def start(page: Page, server: FrontEnd, date: datetime.date, person: str = "ann") -> None:
    """Opens the page of a date in a new browser, and gives a name."""
    page.open(f"{server.url}/label/{date}")
    page.type(person)
    page.press("Enter")
    page.wait_for(SHOWN)


def press(page: Page, keys: str) -> None:
    """Presses keys one after the other, and waits until all answers are stored."""
    for key in keys:
        page.press(key)
    page.wait_for(f"{STORED} === 'All stored'")


def read_labels(folder: Path, date: datetime.date) -> dict[str, tuple[object, object]]:
    """Returns label and person by message_id."""
    rows = query(folder, f"select message_id, label, labelled_by from labels where batch_date = '{date}'")
    return {str(message_id): (label, person) for message_id, label, person in rows}


def command(folder: Path, *arguments: object) -> str:
    done = run_process(*map(str, arguments), cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_answers_by_key_are_stored_and_kept_when_the_page_is_loaded_again(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    texts = publish_messages(date)
    start(page, server, date)
    expected = [json.loads(line)["message_id"] for line in command(trained, "uncertain", date, "--json").splitlines()]
    assert page.value(SHOWN) == texts[expected[0]]
    press(page, "shhnsu")
    assert page.value(PROGRESS) == "4 of 20, 1 spam, 2 ham, 1 skipped"
    stored = dict(zip(expected, [("spam", "ann"), ("ham", "ann"), ("ham", "ann")], strict=False))
    assert read_labels(trained, date) == stored
    assert page.value(SHOWN) == texts[expected[4]]  # the one that was undone
    page.reload()
    page.wait_for(SHOWN)
    assert page.value(PROGRESS) == "4 of 20, 1 spam, 2 ham, 1 skipped"
    assert page.value(SHOWN) == texts[expected[4]]
    press(page, "uu")  # the skipped one and the second ham, from before the page was loaded
    assert page.value(PROGRESS) == "2 of 20, 1 spam, 1 ham"
    assert read_labels(trained, date) == dict(list(stored.items())[:2])
    rows = query(trained, f"select text from labels where batch_date = '{date}' and message_id = '{expected[0]}'")
    assert rows == [(texts[expected[0]],)]


def test_undo_restores_the_label_that_the_same_person_had_given_before(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date)
    start(page, server, date)
    first = page.value("document.getElementById('message-id').textContent")
    command(trained, "label", date, first, "ham", "--who", "ann")
    command(trained, "label", date, first, "ham", "--who", "bob")
    press(page, "s")
    assert read_labels(trained, date)[first] in (("spam", "ann"), ("ham", "bob"))
    press(page, "u")
    rows = query(trained, f"select labelled_by, label from labels where batch_date = '{date}' order by 1")
    assert rows == [("ann", "ham"), ("bob", "ham")]


def test_a_key_that_is_held_down_and_keys_that_are_switched_off(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date)
    start(page, server, date)
    page.press("s", held=True)
    page.press("S")
    press(page, "")
    assert page.value(PROGRESS) == "2 of 20, 2 spam, 0 ham"
    page.click("#keys")
    press(page, "shu")
    page.click("summary")
    page.click("#person")
    page.type("she")
    assert page.value(PROGRESS) == "2 of 20, 2 spam, 0 ham"
    assert len(read_labels(trained, date)) == 2


def test_buttons_do_the_same_and_fit_a_thumb(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date)
    page.resize(360, 740, phone=True)
    start(page, server, date)
    for name in ("spam", "ham", "skip", "ham", "undo"):
        page.click(f"#{name}")
    page.wait_for(f"{STORED} === 'All stored'")
    assert page.value(PROGRESS) == "3 of 20, 1 spam, 1 ham, 1 skipped"
    assert sorted(read_labels(trained, date).values()) == [("ham", "ann"), ("spam", "ann")]
    boxes = "[...document.querySelectorAll('#answers button')].map(button => button.getBoundingClientRect())"
    sizes = page.value(f"{boxes}.flatMap(box => [box.width, box.height])")
    assert min(sizes) >= 44


def test_after_a_round_follow_other_messages_without_the_skipped_ones(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    texts = publish_messages(date)
    start(page, server, date)
    seen = []
    for key in "s" * 10 + "n" * 10:
        seen.append(page.value(SHOWN))
        page.press(key)
    press(page, "")
    assert page.value("document.activeElement.id") == "next"
    page.press("Enter")
    page.wait_for(f"{PROGRESS} === '0 of 5, 0 spam, 0 ham'")
    while page.value(SHOWN):
        seen.append(page.value(SHOWN))
        page.press("h")
    press(page, "")
    assert sorted(seen) == sorted(texts.values())
    assert len(read_labels(trained, date)) == 15
    page.click("#next")
    page.wait_for("document.getElementById('done-text').textContent === 'There is nothing more to label.'")


def test_an_answer_that_cannot_be_stored_is_kept_until_it_can(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date)
    start(page, server, date)
    command(trained, "withdraw", date, "--yes")
    page.press("s")
    page.wait_for(f"({PROBLEM}).includes('{date} has no published batch')")
    page.press("h")
    page.wait_for(f"{STORED} === '2 not stored yet'")
    assert read_labels(trained, date) == {}
    batch = query(trained, f"select batch_id from score_batches where batch_date = '{date}'")[0][0]
    page.allow_leaving()
    page.reload()
    page.wait_for(f"({PROBLEM}).includes('no published batch')")
    command(trained, "restore", date, "--batch", batch, "--yes")
    page.click("#retry")
    page.wait_for(f"{STORED} === 'All stored'")
    page.wait_for(f"({PROBLEM}) === ''")
    assert page.value(PROGRESS) == "2 of 20, 1 spam, 1 ham"
    assert sorted(read_labels(trained, date).values()) == [("ham", "ann"), ("spam", "ann")]


def test_answers_that_a_person_discards_are_asked_again(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date)
    start(page, server, date)
    press(page, "s")
    snapshot = trained / "artifacts" / "snapshots" / str(date)
    shutil.move(snapshot, snapshot.with_name("moved"))
    first = page.value(SHOWN)
    page.press("h")
    page.wait_for(f"({PROBLEM}).includes('are missing or cannot be read')")
    shutil.move(snapshot.with_name("moved"), snapshot)
    page.click("#discard")
    page.wait_for(f"{STORED} === 'All stored'")
    page.wait_for(f"{SHOWN} === {json.dumps(first)}")
    assert page.value(PROGRESS) == "1 of 20, 1 spam, 0 ham"


def test_answers_survive_a_restart_of_the_server(
    trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    """The rounds and, without a token, the sessions end with the server: the person gives the name again."""
    publish_messages(date)
    with front_end(trained) as server:
        start(page, server, date)
        press(page, "s")
    page.press("h")
    page.wait_for(f"({PROBLEM}) === 'The server does not answer.'")
    with front_end(trained, port=server.port):
        page.click("#retry")
        page.wait_for(f"({PROBLEM}).includes('Reload the page.')")
        page.allow_leaving()
        page.reload()
        start(page, server, date)
        page.wait_for(f"{STORED} === 'All stored'")
    assert sorted(read_labels(trained, date).values()) == [("ham", "ann"), ("spam", "ann")]


HOSTILE = {
    "<script>owned=1</script>": "<img src=x onerror=owned=1> \u202eevil\u200b\nsecond line",
    "' onclick='owned=1": "x" * 6000,
}


def test_messages_and_identifiers_with_html_are_text(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date, HOSTILE)
    start(page, server, date)
    first, second = HOSTILE
    assert page.value(SHOWN) == "<img src=x onerror=owned=1> [U+202E]evil[U+200B]\nsecond line"
    assert page.value("document.getElementById('message-id').textContent") == first
    marks = "[...document.querySelectorAll('#text i')].map(mark => mark.textContent)"
    assert page.value(marks) == ["[U+202E]", "[U+200B]"]
    press(page, "s")
    assert page.value(SHOWN) == "x" * 5000
    assert page.value("document.getElementById('more').textContent") == "… and 1000 more characters"
    press(page, "h")
    assert page.value("typeof owned") == "undefined"
    assert page.value("document.querySelectorAll('#card script, #card img').length") == 0
    assert read_labels(trained, date) == {first: ("spam", "ann"), second: ("ham", "ann")}


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("mode", MODES)
def test_the_pages_are_readable_on_a_phone_and_in_dark_mode(
    server: FrontEnd, page: Page, publish_messages: Publish, date: datetime.date, width: int, mode: str
) -> None:
    publish_messages(date, {"m-" + "1" * 100: "https://prize.example/" + "x" * 200})
    page.resize(width, 800, phone=width < 800)
    page.set_mode(mode)

    def check(colours: str = "rgb(255, 255, 255)") -> None:
        found = page.measure()
        assert (found["scrolls_to"], found["outside"], found["faint"]) == (width, [], [])
        assert found["smallest"] >= 12
        assert (found["background"] == colours) == (mode == "light")

    page.open(f"{server.url}/label")
    check()
    page.open(f"{server.url}/label/{date}")
    check()
    start(page, server, date, "x" * 255)
    check()
    press(page, "n")
    check()


def test_nothing_is_loaded_from_elsewhere(
    server: FrontEnd, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    publish_messages(date)
    page.open(f"{server.url}/label")
    start(page, server, date)
    press(page, "s")
    requested = [url for url in page.requested if url != "about:blank"]
    assert f"{server.url}/label/{date}/messages" in requested
    assert [url for url in requested if not url.startswith(f"{server.url}/")] == []


def test_the_dates_are_listed_with_the_number_of_labelled_messages(
    server: FrontEnd, trained: Path, page: Page, publish_messages: Publish, date: datetime.date
) -> None:
    texts = publish_messages(date)
    for person in ("ann", "bob"):
        command(trained, "label", date, next(iter(texts)), "spam", "--who", person)
    page.open(f"{server.url}/label")
    page.click(f"a[href='/label/{date}']")
    page.wait_for(f"location.pathname === '/label/{date}'")
    page.open(f"{server.url}/label")
    row = page.value(f"document.querySelector(\"a[href='/label/{date}']\").closest('tr').innerText.split('\\t')")
    assert row == [f"{date:%-d %B %Y}", "25", "25", "1"]


@pytest.mark.parametrize("name", ["", " ", "a\x1b[2J", "x" * 256, "a\u202eb"])
def test_a_name_that_no_command_accepts_is_refused(server: FrontEnd, name: str) -> None:
    visitor = Visitor(server)
    answer = visitor.post("/label/person", {"csrf_token": visitor.csrf_token(), "person": name, "next": "/label"})
    assert answer.status_code == 409
    assert "Your name" in answer.text
    assert "expected a name of 1 to 255 printable characters" in answer.text


def test_without_a_database_the_page_of_a_message_works(trained: Path) -> None:
    address = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    with front_end(trained, SPAMSCORE_DATABASE_URL=address) as server:
        visitor = Visitor(server)
        token = visitor.csrf_token()
        assert "probability of spam" in visitor.post("/", {"csrf_token": token, "message": "win a prize"}).text
        answer = visitor.get("/label")
        assert answer.status_code == 503
        assert "cannot be reached" in answer.text
        visitor.post("/label/person", {"csrf_token": token, "person": "ann"})
        answer = visitor.post_json("/label/2026-01-31/messages", {"round": None}, **{"X-CSRF-Token": token})
        assert answer.status_code == 503
        assert "cannot be reached" in answer.json()["error"]


def test_labelling_that_is_switched_off_is_closed_on_every_path(trained: Path) -> None:
    write_settings(trained, {"api": {"labelling": "false"}})
    with front_end(trained) as server:
        visitor = Visitor(server)
        token = visitor.csrf_token()
        for path in ("/label", "/label/2026-01-31"):
            answer = visitor.get(path)
            assert (answer.status_code, "[api] labelling = false" in answer.text) == (403, True)
        for path in ("/label/2026-01-31", "/label/2026-01-31/messages"):
            answer = visitor.post_json(path, {}, **{"X-CSRF-Token": token})
            assert (answer.status_code, "[api] labelling = false" in answer.json()["error"]) == (403, True)


def test_requests_for_a_round_at_the_same_time_get_the_same_round(
    server: FrontEnd, publish_messages: Publish, date: datetime.date
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    publish_messages(date)
    visitor = Visitor(server)
    token = visitor.csrf_token()
    visitor.post("/label/person", {"csrf_token": token, "person": "ann"})

    def ask(number: int | None) -> tuple[int, tuple[str, ...]]:
        answer = visitor.post_json(f"/label/{date}/messages", {"round": number}, **{"X-CSRF-Token": token}).json()
        return answer["round"], tuple(message["id"] for message in answer["messages"])

    with ThreadPoolExecutor(4) as pool:
        first = set(pool.map(ask, [None] * 4))
        second = set(pool.map(ask, [1] * 4))
    assert [len(first), len(second)] == [1, 1]
    [(number, ids)], [(next_number, next_ids)] = first, second
    assert (number, next_number, len(ids), len(next_ids)) == (0, 1, 20, 5)
    assert not set(ids) & set(next_ids)
    assert eventually(lambda: ask(None)) == (1, next_ids)
