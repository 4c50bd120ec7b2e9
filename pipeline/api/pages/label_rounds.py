"""Finds the messages that a person labels one after the other, and stores the labels.

Everything here blocks: it reads a batch and its snapshot, or waits for the database. Call it from a thread.
"""

from __future__ import annotations

import datetime
import threading
from dataclasses import dataclass

from sqlalchemy.engine import Engine

from models.errors import InputError
from pipeline.answers.label_candidates import LabelCandidate, find_label_candidates
from pipeline.answers.labelling import NO_LABEL, label_messages
from tasks.database.batches import BatchRow, find_published_batch, list_batches
from tasks.database.connection import connect
from tasks.database.labels import count_labelled_messages, read_labels
from tasks.database.schema import open_database
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

MESSAGES_PER_ROUND = 20
_MAX_ROUNDS = 50  # of different batches and people, kept in memory
MAX_DATES = 60  # in the list
_MAX_BATCHES = 1000  # published or not, searched for these dates


@dataclass(frozen=True)
class Round:
    """The messages that a person labels one after the other.

    Attributes:
        number: counts the rounds of a person and a batch from 0.
        candidates: the messages, the most uncertain first.
        shown_ids: message_id of each message of this round and of the rounds before.
    """

    number: int
    candidates: list[LabelCandidate]
    shown_ids: frozenset[str]


class LabelRounds:
    """Keeps the current round of each person and batch, so that a page that is loaded again shows the same messages."""

    def __init__(self) -> None:
        self._search = threading.Lock()  # one search at a time: a search reads all scores of a batch
        self._rounds: dict[tuple[int, str], Round] = {}

    def read(self, engine: Engine, batch: BatchRow, person: str, number: int | None = None) -> Round:
        """Returns the current round of a person, or starts one.

        Args:
            engine: the database.
            batch: a published batch.
            person: name of the person who labels.
            number: number of the round; one above the current starts the next. None for the current.

        Raises:
            InputError: the snapshot of the batch is missing.
            DatabaseError: the database cannot be used.
        """
        key = (batch.batch_id, person)
        if (current := self._rounds.get(key)) and number in (None, current.number):
            return current
        with self._search:
            current = self._rounds.get(key)  # another request may have found it meanwhile
            if current is None or number == current.number + 1:
                self._rounds.pop(key, None)
                self._rounds[key] = current = _find_round(engine, batch, current)
            while len(self._rounds) > _MAX_ROUNDS:
                del self._rounds[next(iter(self._rounds))]
        return current


def _find_round(engine: Engine, batch: BatchRow, before: Round | None) -> Round:
    shown_ids = before.shown_ids if before else frozenset()
    labelled_ids = {label.message_id for label in read_labels(engine, batch.batch_date)}
    limit = MESSAGES_PER_ROUND + len(shown_ids - labelled_ids)
    found = find_label_candidates(engine, batch, limit)
    candidates = [candidate for candidate in found if candidate.message_id not in shown_ids][:MESSAGES_PER_ROUND]
    ids = frozenset(candidate.message_id for candidate in candidates)
    return Round(before.number + 1 if before else 0, candidates, shown_ids | ids)


def list_published_batches() -> list[tuple[BatchRow, int]]:
    """Returns the published batches of the latest dates, each with the number of its messages that have a label."""
    engine = connect(load(DatabaseSettings))
    published = [batch for batch in list_batches(engine, _MAX_BATCHES) if batch.state == "published"][:MAX_DATES]
    labelled = count_labelled_messages(engine)
    return [(batch, labelled.get(batch.batch_date, 0)) for batch in published]


def read_person_labels(engine: Engine, date: datetime.date, person: str) -> dict[str, str]:
    """Returns the labels that a person gave to messages of a date, by message_id."""
    return {label.message_id: label.label for label in read_labels(engine, date) if label.labelled_by == person}


def store_label(date: datetime.date, message_id: str, label: str, person: str) -> str:
    """Stores one label of a person, or removes it.

    Args:
        date: date of the published batch.
        message_id: a message of the batch.
        label: spam, ham or none.
        person: name of the person.

    Returns:
        The label that the person had given to the message before, or none.

    Raises:
        InputError: the date has no published batch, the batch has no such message, or its snapshot is missing.
        DatabaseError: the database cannot be used.
    """
    engine = open_database(load(DatabaseSettings))
    batch = require_published_batch(engine, date)
    before = read_person_labels(engine, date, person).get(message_id, NO_LABEL)
    label_messages(engine, batch, [(message_id, label)], person)
    return before


def require_published_batch(engine: Engine, date: datetime.date) -> BatchRow:
    """Returns the published batch of a date.

    Raises:
        InputError: there is none.
    """
    if batch := find_published_batch(engine, date):
        return batch
    raise InputError(
        f"{date} has no published batch: it was never scored, or its batch was withdrawn. To publish one again that "
        f"spamscore batches lists: spamscore restore {date} --batch N"
    )
