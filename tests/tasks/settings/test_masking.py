"""Tests that passwords never appear, and that a message without credentials is shown as it is."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sa
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tasks.settings.masking import find_secrets, mask_credentials, mask_password

SECRET = "s3cr3t"

# Messages of psycopg, libpq, PostgreSQL, PyMySQL, MySQL, PgBouncer and SQLite.
MESSAGES = [
    "permission denied for table score_batches",
    'connection to server at "127.0.0.1", port 5432 failed: FATAL: password authentication failed for user "scorer"',
    'database "spamscore" does not exist',
    "Access denied for user 'scorer'@'10.0.0.7' (using password: YES)",
    "Can't connect to MySQL server on 'db.internal' ([Errno 111] Connection refused)",
    'prepared statement "_pg3_0" does not exist',
    "attempt to write a readonly database",
    'invalid sslmode value: "bogus"',
    "cannot execute CREATE TABLE in a read-only transaction at 12:30:59",
    "mail the administrator at root@localhost",
]
# Nothing that the masks themselves contain, and no surrogates, which a URL cannot encode.
CHARACTERS = st.characters(exclude_characters="*", exclude_categories=["Cs", "Cc"])
STRONG = st.text(CHARACTERS, min_size=8, max_size=40).filter(
    lambda text: len(text.strip()) >= 8 and len({(c.isalpha(), c.isdigit()) for c in text.strip()}) > 1
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///scores.db", "sqlite:///scores.db"),
        (f"postgresql://me:{SECRET}@host:5432/scores", "postgresql://me:***@host:5432/scores"),
        (f"postgresql://host/scores?user=me&password={SECRET}", "postgresql://host/scores?password=***&user=me"),
        (f"mysql://host/scores?ssl_key_password={SECRET}", "mysql://host/scores?ssl_key_password=***"),
        (f"postgresql://me:{SECRET}@host:port/scores", "postgresql://…"),
        (f"postgresql://domain/me:{SECRET}@host/scores", "postgresql://…"),
        (f"postgresql://me:a@{SECRET}@host/scores", "postgresql://…"),
        ("sqlite:///me@home/scores.db", "sqlite:///me%40home/scores.db"),
        (SECRET, "…"),
        ("", "…"),
    ],
)
def test_a_masked_url_shows_everything_except_passwords(url: str, expected: str) -> None:
    assert mask_password(url) == expected


@given(st.sampled_from(MESSAGES), st.text(CHARACTERS, max_size=7) | st.sampled_from(re.findall(r"\w+", str(MESSAGES))))
@example("permission denied for table score_batches", "r")
@example(MESSAGES[1], "password")
def test_a_message_is_not_changed_by_a_password_that_occurs_in_it_by_chance(message: str, password: str) -> None:
    assert mask_credentials(message, [password]) == message


@given(st.sampled_from(MESSAGES), st.integers(0, 200), STRONG, st.sampled_from([str, quote, quote_plus]))
def test_a_password_that_is_no_ordinary_word_never_appears(message: str, place: int, password: str, form: type) -> None:
    assume(password not in message)
    shown = mask_credentials(message[:place] + form(password) + message[place:], [password])
    assert password not in shown
    assert form(password) not in shown


@given(st.text(CHARACTERS, min_size=1, max_size=20))
@example("r")
@example("pass")
def test_any_password_is_masked_where_it_stands_as_one(password: str) -> None:
    conninfo = password.replace("\\", r"\\").replace("'", r"\'")
    text = f"failed: postgresql://scorer:{quote(password, safe='')}@host/scores (host=h password='{conninfo}' port=5)"
    expected = "failed: postgresql://scorer:***@host/scores (host=h password=*** port=5)"
    assert mask_credentials(text) == expected


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("postgresql://me:a%20b@host/scores?sslpassword=c&sslmode=require", ["a b", "c"]),
        ("mysql://host/scores?password=a&password=b", ["a", "b"]),
        ("mysql://spamscore-1:spamscore-1@host/scores", []),  # it would be given away where the user is shown
        ("sqlite:///scores.db", []),
    ],
)
def test_the_secrets_of_a_url_are_found(url: str, secrets: list[str]) -> None:
    assert find_secrets(sa.make_url(url)) == secrets
