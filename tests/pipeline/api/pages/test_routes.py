"""Where labelling is open."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.api.pages.routes import find_labelling_problem
from tasks.settings.serving import ApiSettings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, None),
        ({"host": "::1"}, None),
        ({"host": "0.0.0.0", "token": "secret"}, None),
        ({"host": "0.0.0.0", **dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), "a.pem")}, None),
        ({"host": "0.0.0.0", "allow_anyone": True}, "Set [api] token"),
        ({"labelling": False, "token": "secret"}, "[api] labelling = false"),
    ],
)
def test_messages_of_people_are_shown_only_to_people_who_are_known_or_on_this_machine(
    settings: dict[str, Any], problem: str | None
) -> None:
    found = find_labelling_problem(ApiSettings(**settings))
    assert (found is None) == (problem is None)
    assert problem is None or problem in str(found)
