"""What SQLite is asked by the short way is answered as in full, and what is not plain is not answered."""

from __future__ import annotations

import datetime
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_batches import DATE, publish

from tasks.database.batches import dates_done
from tasks.database.completion import done_in_sqlite, done_of
from tasks.database.connection import connect
from tasks.database.ledger import withdraw_batch
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

OTHER = DATE + datetime.timedelta(days=1)
states = st.sampled_from(["published", "superseded"])


@given(batches=st.lists(st.tuples(st.just(DATE), st.sampled_from(["ours", "another"]), states)), exactly=st.booleans())
def test_a_date_is_done_if_it_is_published_and_the_recipe_was_or_is(
    batches: list[tuple[datetime.date, str, str]], exactly: bool
) -> None:
    published = any(state == "published" for _, _, state in batches)
    ours = [state for _, recipe, state in batches if recipe == "ours" and not (exactly and state == "superseded")]
    assert done_of(batches, {DATE: "ours"}, exactly) == ({DATE} if published and ours else set())


@pytest.mark.parametrize("exactly", [False, True])
def test_the_short_way_and_the_long_one_give_the_same(sqlite_url: str, exactly: bool) -> None:
    engine = open_database(DatabaseSettings(url=sqlite_url))
    answers = []

    def ask() -> None:
        for recipe in ("r1", "r2"):
            recipes = {DATE: recipe, OTHER: recipe}
            answers.append(done_in_sqlite(sqlite_url, recipes, exactly))
            assert answers[-1] == dates_done(engine, recipes, exactly)

    ask()
    publish(engine, {"a": 0.5}, version=1)
    ask()
    second = publish(engine, {"a": 0.5}, version=2)
    publish(engine, {"a": 0.5}, date=OTHER, version=1)
    ask()
    withdraw_batch(engine, second)
    ask()
    assert len({frozenset(one or ()) for one in answers}) > 2


@pytest.mark.parametrize(
    "address",
    ["postgresql+psycopg://h/scores", "sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///{0}", "sqlite:///{0}?timeout=1",
     "sqlite:///{0}.none", "sqlite:///{0}.rubbish", "sqlite:///{0}.empty", "sqlite:///{0}.folder"],
)  # fmt: skip
def test_what_is_not_plainly_a_file_of_ours_is_not_answered(address: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    publish(open_database(DatabaseSettings(url=f"sqlite:///{path}")), {"a": 0.5})
    assert done_in_sqlite(f"sqlite:///{path}", {DATE: "r1"}, exactly=False) == {DATE}
    Path(f"{path}.rubbish").write_bytes(b"rubbish" * 999)
    Path(f"{path}.empty").touch()
    Path(f"{path}.folder").mkdir()
    assert done_in_sqlite(address.format(path), {DATE: "r1"}, exactly=False) is None
    assert not Path(f"{path}.none").exists()


@pytest.mark.parametrize("version", ["0004", "9999"])
def test_a_schema_of_another_version_is_not_answered(sqlite_url: str, version: str) -> None:
    publish(open_database(DatabaseSettings(url=sqlite_url)), {"a": 0.5})
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE spamscore_version SET version_num = ?", (version,))
    connection.close()
    assert done_in_sqlite(sqlite_url, {DATE: "r1"}, exactly=False) is None


def test_a_file_locked_by_another_process_is_not_called_undone(sqlite_url: str) -> None:
    publish(open_database(DatabaseSettings(url=sqlite_url)), {"a": 0.5})
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert done_in_sqlite(sqlite_url, {DATE: "r1"}, exactly=False) == {DATE}
    connection.close()


def test_a_path_with_spaces_and_signs_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "a b&c=d é"
    folder.mkdir()
    url = f"sqlite:///{folder}/scores.db"
    publish(open_database(DatabaseSettings(url=url)), {"a": 0.5})
    assert done_in_sqlite(url, {DATE: "r1"}, exactly=False) == {DATE} == dates_done(
        connect(DatabaseSettings(url=url)), {DATE: "r1"}
    )  # fmt: skip


def test_a_night_with_nothing_to_do_imports_no_database_library(sqlite_url: str, tmp_path: Path) -> None:
    """The date is not done, which is asked the same way as that it is."""
    open_database(DatabaseSettings(url=sqlite_url))
    code = (
        "import sys, pipeline; print(pipeline.ScoreBatch().complete(), "
        "*[name for name in ('tensorflow', 'sqlalchemy', 'pandas', 'numpy') if name in sys.modules])"
    )
    (tmp_path / "luigi.cfg").write_text(f"[database]\nurl = {sqlite_url}\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["False"]
