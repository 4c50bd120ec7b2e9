"""The names under which the front end answers."""

from __future__ import annotations

import pytest

from pipeline.api.served_hosts import list_served_hosts
from tasks.settings.serving import ApiSettings

LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}


@pytest.mark.parametrize(
    ("host", "hosts", "expected"),
    [
        ("127.0.0.1", "", LOOPBACK),
        ("localhost", "", LOOPBACK),
        ("127.0.0.2", "", {*LOOPBACK, "127.0.0.2"}),
        ("127.0.0.1", "spam.internal, spam", {*LOOPBACK, "spam.internal", "spam"}),
        ("0.0.0.0", "", {"*"}),
        ("0.0.0.0", "spam.internal", {"spam.internal"}),
        ("spam.internal", "", {"*"}),
    ],
)
def test_on_loopback_only_its_names_are_served_and_those_that_are_set(
    host: str, hosts: str, expected: set[str]
) -> None:
    assert set(list_served_hosts(ApiSettings(host=host, hosts=hosts))) == expected
