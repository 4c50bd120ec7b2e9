"""The schema that migrations make is the one that `tasks.database.tables` describes, on each database, and can be
taken back.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from published_batches import DATE, publish
from sqlalchemy.engine import Engine

from tasks.database.batches import batches, published_batch
from tasks.database.connection import connect, reading, writing
from tasks.database.labels import found_labels
from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE
from tasks.database.schema import alembic_config, has_schema, open_database, schema_revision
from tasks.database.tables import metadata
from tasks.monitoring.drift import drifts, figures_before
from tasks.settings.storage import DatabaseSettings


def test_the_revision_known_by_heart_is_the_newest_there_is(engine: Engine) -> None:
    with reading(engine) as connection:
        assert ScriptDirectory.from_config(alembic_config(connection)).get_heads() == [SCHEMA_REVISION]


def test_alembic_finds_no_difference_between_migrations_and_tables(engine: Engine) -> None:
    with reading(engine) as connection, warnings.catch_warnings():
        # PostgreSQL and MariaDB write the expression out in their own way; `described` below holds it.
        warnings.filterwarnings("ignore", "Computed default on score_batches")
        opts = {"version_table": VERSION_TABLE, "compare_type": True, "include_object": is_made_here(engine)}
        assert compare_metadata(MigrationContext.configure(connection, opts=opts), metadata) == []


def is_made_here(engine: Engine) -> Callable[..., bool]:
    """Leaves out the one key that PostgreSQL is not given; Alembic knows of no such thing. `described` holds it too."""
    not_there = {"fk_spam_scores_batch_id_score_batches"} if engine.dialect.name == "postgresql" else set()
    return lambda _, name, *__: name not in not_there


def test_the_database_reads_migrations_and_tables_alike_to_the_last_check(engine: Engine, database_url: str) -> None:
    migrated = described(engine)
    migrate_to(engine, "base")
    with writing(engine) as connection:
        metadata.create_all(connection)
    assert described(engine) == migrated
    assert len(migrated) == 6


def described(engine: Engine) -> dict[str, Any]:
    """All that the database tells of the tables, down to the statement that makes them where it keeps one."""
    inspector = sa.inspect(engine)
    return {
        name: {
            "columns": [{**column, "type": described_type(column["type"])} for column in inspector.get_columns(name)],
            "primary key": inspector.get_pk_constraint(name),
            "foreign keys": inspector.get_foreign_keys(name),
            "unique": sorted(inspector.get_unique_constraints(name), key=lambda one: str(one["name"])),
            "checks": sorted(inspector.get_check_constraints(name), key=lambda one: str(one["name"])),
            "indexes": sorted(inspector.get_indexes(name), key=lambda one: str(one["name"])),
            "options": inspector.get_table_options(name),
            "statement": statement(engine, name),
        }
        for name in inspector.get_table_names()
        if name != VERSION_TABLE
    }


def described_type(one: sa.types.TypeEngine[Any]) -> str:
    return f"{one!r} {getattr(one, 'collation', None)}"


def statement(engine: Engine, name: str) -> str:
    question = {
        "sqlite": f"SELECT sql FROM sqlite_master WHERE name = '{name}'",
        "mariadb": f"SHOW CREATE TABLE {name}",
    }.get(engine.dialect.name)
    with reading(engine) as connection:
        text = str(connection.exec_driver_sql(question).one()[-1]) if question else ""
    return " ".join(sorted(re.sub(r"AUTO_INCREMENT=\d+", "", text).replace(",", " ").split()))


def test_going_back_to_nothing_leaves_nothing_and_the_way_up_again_works(engine: Engine) -> None:
    migrate_to(engine, "base")
    assert not has_schema(engine)
    assert sa.inspect(engine).get_table_names() == [VERSION_TABLE]
    assert sa.inspect(engine).get_view_names() == []
    migrate_to(engine, "head")
    assert has_schema(engine)


def migrate_to(engine: Engine, revision: str) -> None:
    with writing(engine) as connection:
        move = command.upgrade if revision == "head" else command.downgrade
        move(alembic_config(connection), revision)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_batches_of_an_earlier_version_are_known_before_the_database_is_brought_up(
    engine: Engine, revision: str
) -> None:
    batch_id = publish(engine, {"a": 0.25, "b": 0.75})
    migrate_to(engine, revision)
    known = published_batch(engine, DATE)
    assert known is not None
    assert (known.batch_id, known.scored, known.seconds_total, known.seconds_read) == (batch_id, 2, 12.34, None)
    assert batches(engine) == [known]
    assert (drifts(engine), figures_before(engine, DATE, 5), found_labels(engine)) == ([], [], [])
    migrate_to(engine, "head")
    assert published_batch(engine, DATE) == known


@pytest.mark.parametrize("left", [["score_batches"], ["score_batches", "spam_scores", "rejected_messages"]])
def test_a_migration_killed_half_way_is_completed_where_each_table_commits(mariadb_url: str, left: list[str]) -> None:
    engine = connect(DatabaseSettings(url=mariadb_url))
    with writing(engine) as connection:
        metadata.create_all(connection, [metadata.tables[name] for name in left])
        for index in metadata.tables["score_batches"].indexes:
            index.drop(connection)
    assert not has_schema(engine)
    engine = open_database(DatabaseSettings(url=mariadb_url))
    assert "ix_score_batches_batch_date_state" in str(sa.inspect(engine).get_indexes("score_batches"))
    assert sa.inspect(engine).get_view_names() == ["published_scores"]


@pytest.mark.parametrize("server", ["sqlite_url", "postgresql_url"])
def test_a_migration_that_fails_leaves_nothing_where_tables_are_transactional(
    server: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    engine = connect(DatabaseSettings(url=url))
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE batch_chunks (somebody INTEGER)")
    with pytest.raises(Exception, match="batch_chunks"):
        open_database(DatabaseSettings(url=url))
    assert sa.inspect(engine).get_table_names() == ["batch_chunks"]


def test_a_migration_keeps_the_rows_of_others_in_the_same_database(database_url: str) -> None:
    engine = connect(DatabaseSettings(url=database_url))
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('of somebody else')")
    open_database(DatabaseSettings(url=database_url))
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "of somebody else"
        assert schema_revision(connection) == SCHEMA_REVISION


def test_migrations_are_part_of_the_distribution() -> None:
    from importlib import resources

    folder = resources.files("tasks.database.migrations")
    assert folder.joinpath("env.py").is_file()
    assert folder.joinpath("script.py.mako").is_file()
    assert SCHEMA_REVISION in [one.name[:4] for one in folder.joinpath("versions").iterdir()]


def test_a_new_version_starts_from_the_template(sqlite_url: str, tmp_path: Path) -> None:
    engine = open_database(DatabaseSettings(url=sqlite_url))
    with reading(engine) as connection:
        config = alembic_config(connection)
        config.set_main_option("version_locations", str(tmp_path))
        made = command.revision(config, f"Made on {datetime.date(2026, 1, 31)}", rev_id="9999", head="base")
    compile(Path(made.path).read_text(encoding="utf-8"), "made", "exec")  # type: ignore[union-attr]
