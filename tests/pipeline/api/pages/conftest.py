"""A folder with a model in service and published batches of messages that need labels."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from front_end import FrontEnd, front_end
from page import Page, chromium
from published_batches import publish, write_snapshot

from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

# Words that no two messages share: near-duplicates are left out.
_WORDS = (
    "apple", "bread", "cloud", "dance", "eagle", "flute", "grape", "house", "ivory", "joker", "kneel", "lemon", "mango",
    "night", "ocean", "piano", "queen", "river", "sugar", "table", "uncle", "voice", "water", "yacht", "zebra",
)  # fmt: skip
_LETTERS = str.maketrans("0123456789", "abcdefghij")


@pytest.fixture(scope="module")
def publish_messages(trained: Path) -> Callable[..., dict[str, str]]:
    """Publishes a batch of 25 messages, or of given ones, and returns their texts; the first is the most uncertain."""

    def publish_texts(date: datetime.date, texts: dict[str, str] | None = None) -> dict[str, str]:
        if texts is None:
            end = str(date.toordinal()).translate(_LETTERS)  # also no two dates
            texts = {f"m-{number:02}": f"{word}{end} {end}{word}" for number, word in enumerate(_WORDS, 1)}
        engine = open_database(DatabaseSettings(url=f"sqlite:///{trained}/spamscore.db"))
        publish(engine, {key: 0.5 + 0.01 * index for index, key in enumerate(texts)}, date)
        engine.dispose()
        write_snapshot(trained, [(number, key, text) for number, (key, text) in enumerate(texts.items(), 1)], date)
        return texts

    return publish_texts


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[FrontEnd]:
    """The front end of the folder, with its default settings."""
    with front_end(trained) as server:
        yield server


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A tab of a new browser."""
    with chromium(tmp_path) as page:
        yield page
