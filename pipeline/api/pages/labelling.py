"""The pages at /label: a person labels the most uncertain messages of a date, one after the other.

The script of the page asks for the messages of a round, shows them, and sends each label as soon as it is given.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response

from pipeline.answers.label_candidates import LabelCandidate
from pipeline.answers.labelling import LABEL_VALUES, check_person
from pipeline.api.limits import FORBIDDEN, NOT_FOUND, UNPROCESSABLE, RequestError
from pipeline.api.pages.label_rounds import (
    MAX_DATES,
    LabelRounds,
    list_published_batches,
    read_person_labels,
    require_published_batch,
    store_label,
)
from pipeline.api.pages.sessions import Sessions
from pipeline.api.pages.sign_in import choose_next_page
from pipeline.api.pages.visit import Visit, split_marks
from tasks.database.connection import connect
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

_SHOWN_CHARACTERS = 5000


class LabellingPages:
    """The list of dates, and the page of a date.

    Args:
        sessions: the sessions of browsers, which hold the name of the person.
        unavailable: why nobody can label messages here; None if people can.
    """

    def __init__(self, sessions: Sessions, unavailable: str | None) -> None:
        self._sessions, self._unavailable = sessions, unavailable
        self._rounds = LabelRounds()

    async def list_dates(self, visit: Visit) -> Response:
        """Lists the dates that have a published batch."""
        self._require_available()
        batches = await run_in_threadpool(list_published_batches)
        return visit.render("label_dates.html", batches=batches, max_dates=MAX_DATES)

    async def show(self, visit: Visit) -> Response:
        """Shows the page of a date, or asks for the name of the person. The script fills in the messages."""
        self._require_available()
        date = _read_date(visit)
        trains = load(CorpusSettings).feedback != "none"
        return visit.render("label.html", date=date, trains=trains, values=LABEL_VALUES)

    async def set_person(self, visit: Visit) -> Response:
        """Keeps the name of the person in the session, and returns to the page that asked for it."""
        self._require_available()
        form, session = visit.read_form(), visit.require_session()
        person = check_person(form.get("person", ""), "Your name")
        response = RedirectResponse(choose_next_page(form.get("next", "")), 303)
        self._sessions.write(dataclasses.replace(session, person=person), visit.request, response)
        return response

    async def find_messages(self, visit: Visit) -> Response:
        """Returns the messages of a round, with the labels that the person has already given to them."""
        self._require_available()
        date, person = _read_date(visit), _require_person(visit)
        number = visit.read_object().get("round")
        if not isinstance(number, int | None):
            raise RequestError(UNPROCESSABLE, "round: expected a number or null")
        return JSONResponse(await run_in_threadpool(self._describe_round, date, person, number))

    def _describe_round(self, date: datetime.date, person: str, number: int | None) -> dict[str, Any]:
        engine = connect(load(DatabaseSettings))
        batch = require_published_batch(engine, date)
        current = self._rounds.read(engine, batch, person, number)
        labels = read_person_labels(engine, date, person)
        messages = [
            _describe_message(candidate, labels.get(candidate.message_id, "")) for candidate in current.candidates
        ]
        return {"round": current.number, "messages": messages}

    async def store(self, visit: Visit) -> Response:
        """Stores one label, and returns the one before it, which undo restores."""
        self._require_available()
        date, person = _read_date(visit), _require_person(visit)
        content = visit.read_object()
        message_id, label = content.get("message_id"), content.get("label")
        if not isinstance(message_id, str) or label not in LABEL_VALUES:
            raise RequestError(UNPROCESSABLE, f"expected message_id, a text, and label, one of {LABEL_VALUES}")
        return JSONResponse({"previous": await run_in_threadpool(store_label, date, message_id, label, person)})

    def _require_available(self) -> None:
        if self._unavailable is not None:
            raise RequestError(FORBIDDEN, self._unavailable)


def _describe_message(candidate: LabelCandidate, label: str) -> dict[str, Any]:
    return {
        "id": candidate.message_id,
        "shown_id": split_marks(candidate.message_id),
        "text": split_marks(candidate.text[:_SHOWN_CHARACTERS]),
        "hidden_characters": max(len(candidate.text) - _SHOWN_CHARACTERS, 0),
        "probability": f"{candidate.spam_probability:.4f}",
        "flagged": candidate.flagged,
        "label": label,
    }


def _read_date(visit: Visit) -> datetime.date:
    text = visit.request.path_params["date"]
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        date = None
    if date is None or str(date) != text:
        raise RequestError(NOT_FOUND, "The address has no date. Expected a date such as /label/2026-01-31.")
    return date


def _require_person(visit: Visit) -> str:
    person = visit.require_session().person
    if not person:
        raise RequestError(FORBIDDEN, "Your name is not known. Reload the page, and give it.")
    return person
