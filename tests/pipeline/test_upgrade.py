"""Upgrades from each earlier schema of the database, as an operator sees them: the commands of the night after."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
import warm
from alembic import command
from alembic.script import ScriptDirectory
from chain import DATE, CommandResult, environment, luigi
from spamscore_command import SPAMSCORE
from sqlalchemy.engine import Engine

from tasks.database.connection import connect, write_transaction
from tasks.database.migrations import SCHEMA_REVISION
from tasks.database.schema import alembic_config, schema_revision
from tasks.settings.storage import DatabaseSettings

NEXT_DATE = "2026-02-01"
OLDEST = "0001"


def list_revisions() -> list[str]:
    """Returns the numbers of all schemas, the oldest first."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    engine.dispose()
    return sorted(script.revision for script in scripts.walk_revisions())


REVISIONS = list_revisions()
UPGRADES = [
    *(("sqlite", revision) for revision in REVISIONS[:-1]), ("postgresql", OLDEST), ("mariadb", OLDEST),
]  # fmt: skip


def read_scores(engine: Engine, date: str) -> list[tuple[object, ...]]:
    query = sa.text("select * from published_scores where batch_date = :date order by message_id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"date": date})]


def test_every_schema_but_the_newest_is_upgraded_from() -> None:
    assert (REVISIONS[0], REVISIONS[-1]) == (OLDEST, SCHEMA_REVISION)
    assert {revision for _, revision in UPGRADES} == set(REVISIONS) - {SCHEMA_REVISION}


@pytest.mark.parametrize(("database", "revision"), UPGRADES)
def test_the_next_night_migrates_the_database_and_keeps_what_was_published(
    trained: Path, tmp_path: Path, request: pytest.FixtureRequest, database: str, revision: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "site"))
    url = request.getfixturevalue(f"{database}_url")
    assert luigi(folder, "ScoreBatch", "--date", DATE, SPAMSCORE_DATABASE_URL=url).code == 0
    engine = connect(DatabaseSettings(url=url))
    before = read_scores(engine, DATE)
    with write_transaction(engine) as connection:
        command.downgrade(alembic_config(connection), revision)
        assert schema_revision(connection) == revision

    done = luigi(folder, "ScoreBatch", "--date", NEXT_DATE, SPAMSCORE_DATABASE_URL=url)
    assert done.code == 0, done.output
    with engine.connect() as connection:
        assert schema_revision(connection) == SCHEMA_REVISION
    assert before
    assert read_scores(engine, DATE) == before
    assert len(read_scores(engine, NEXT_DATE)) == len(before)
    engine.dispose()
    verified = CommandResult(*warm.run(SPAMSCORE, ("verify", DATE), folder, environment(SPAMSCORE_DATABASE_URL=url)))
    assert verified.code == 0, verified.output
