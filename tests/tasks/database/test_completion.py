"""Tests that the fast path for SQLite gives the same answer as the full query, or none."""

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

from tasks.database.batches import find_completed_dates, find_published_snapshots
from tasks.database.completion import (
    find_completed_dates_in_sqlite,
    find_published_snapshots_in_sqlite,
    select_completed_dates,
)
from tasks.database.connection import connect
from tasks.database.ledger import withdraw_batch
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

OTHER = DATE + datetime.timedelta(days=1)
states = st.sampled_from(["published", "superseded"])


@given(
    batches=st.lists(st.tuples(st.just(DATE), st.sampled_from(["expected", "another"]), states)), exactly=st.booleans()
)
def test_a_date_is_complete_if_the_batch_of_its_recipe_is_or_was_published(
    batches: list[tuple[datetime.date, str, str]], exactly: bool
) -> None:
    published = any(state == "published" for _, _, state in batches)
    by_recipe = [
        state for _, recipe, state in batches if recipe == "expected" and not (exactly and state == "superseded")
    ]
    assert select_completed_dates(batches, {DATE: "expected"}, exactly) == (
        {DATE} if published and by_recipe else set()
    )


@pytest.mark.parametrize("exactly", [False, True])
def test_the_fast_path_and_the_full_query_agree(sqlite_url: str, exactly: bool) -> None:
    engine = open_database(DatabaseSettings(url=sqlite_url))
    answers, numbers = [], []

    def check() -> None:
        for recipe in ("r1", "r2"):
            recipes = {DATE: recipe, OTHER: recipe}
            answers.append(find_completed_dates_in_sqlite(sqlite_url, recipes, exactly))
            assert answers[-1] == find_completed_dates(engine, recipes, exactly)
        published = find_published_snapshots_in_sqlite(sqlite_url, [DATE, OTHER])
        assert published == find_published_snapshots(engine, [DATE, OTHER])
        numbers.append({date: number for date, (number, _) in (published or {}).items()})

    check()
    publish(engine, {"a": 0.5}, version=1)
    check()
    second = publish(engine, {"a": 0.5}, version=2)
    publish(engine, {"a": 0.5}, date=OTHER, version=1)
    check()
    withdraw_batch(engine, second)
    check()
    assert len({frozenset(dates or ()) for dates in answers}) > 2
    assert numbers == [{}, {DATE: 1}, {DATE: 2, OTHER: 3}, {OTHER: 3}]


@pytest.mark.parametrize(
    "address",
    ["postgresql+psycopg://h/scores", "sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///{0}", "sqlite:///{0}?timeout=1",
     "sqlite:///{0}.none", "sqlite:///{0}.rubbish", "sqlite:///{0}.empty", "sqlite:///{0}.folder"],
)  # fmt: skip
def test_the_fast_path_gives_no_answer_for_other_urls_and_files(address: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    publish(open_database(DatabaseSettings(url=f"sqlite:///{path}")), {"a": 0.5})
    assert find_completed_dates_in_sqlite(f"sqlite:///{path}", {DATE: "r1"}, exactly=False) == {DATE}
    Path(f"{path}.rubbish").write_bytes(b"rubbish" * 999)
    Path(f"{path}.empty").touch()
    Path(f"{path}.folder").mkdir()
    assert find_completed_dates_in_sqlite(address.format(path), {DATE: "r1"}, exactly=False) is None
    assert not Path(f"{path}.none").exists()


@pytest.mark.parametrize("version", ["0004", "9999"])
def test_the_fast_path_gives_no_answer_for_another_schema_version(sqlite_url: str, version: str) -> None:
    publish(open_database(DatabaseSettings(url=sqlite_url)), {"a": 0.5})
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE spamscore_version SET version_num = ?", (version,))
    connection.close()
    assert find_completed_dates_in_sqlite(sqlite_url, {DATE: "r1"}, exactly=False) is None


def test_a_file_locked_by_another_process_is_still_read(sqlite_url: str) -> None:
    publish(open_database(DatabaseSettings(url=sqlite_url)), {"a": 0.5})
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert find_completed_dates_in_sqlite(sqlite_url, {DATE: "r1"}, exactly=False) == {DATE}
    connection.close()


def test_a_path_with_spaces_and_special_characters_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a b&c=d é"
    folder.mkdir()
    url = f"sqlite:///{folder}/scores.db"
    publish(open_database(DatabaseSettings(url=url)), {"a": 0.5})
    assert find_completed_dates_in_sqlite(url, {DATE: "r1"}, exactly=False) == {DATE} == find_completed_dates(
        connect(DatabaseSettings(url=url)), {DATE: "r1"}
    )  # fmt: skip


def test_a_run_with_nothing_to_do_imports_no_database_library(sqlite_url: str, tmp_path: Path) -> None:
    """The date is not complete here; the check is the same as for a complete date."""
    open_database(DatabaseSettings(url=sqlite_url))
    code = (
        "import sys, pipeline; print(pipeline.ScoreBatch().complete(), "
        "*[name for name in ('tensorflow', 'sqlalchemy', 'pandas', 'numpy') if name in sys.modules])"
    )
    (tmp_path / "luigi.cfg").write_text(f"[database]\nurl = {sqlite_url}\n")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.split() == ["False"]
