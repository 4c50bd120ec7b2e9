"""Tests that migrations create the schema of `tasks.database.tables` on each database, and can be reverted."""

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

from tasks.database.batches import find_published_batch, list_batches
from tasks.database.connection import connect, read_transaction, write_transaction
from tasks.database.labels import read_labels
from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE
from tasks.database.schema import alembic_config, has_schema, open_database, schema_revision
from tasks.database.tables import metadata
from tasks.monitoring.drift import read_drifts, read_earlier_figures
from tasks.settings.storage import DatabaseSettings


def test_the_hard_coded_revision_is_the_newest_migration(engine: Engine) -> None:
    with read_transaction(engine) as connection:
        assert ScriptDirectory.from_config(alembic_config(connection)).get_heads() == [SCHEMA_REVISION]


def test_alembic_finds_no_difference_between_migrations_and_tables(engine: Engine) -> None:
    with read_transaction(engine) as connection, warnings.catch_warnings():
        # PostgreSQL and MariaDB format the expression differently; `describe_schema` below compares it.
        warnings.filterwarnings("ignore", "Computed default on score_batches")
        opts = {"version_table": VERSION_TABLE, "compare_type": True, "include_object": exclude_missing_key(engine)}
        assert compare_metadata(MigrationContext.configure(connection, opts=opts), metadata) == []


def exclude_missing_key(engine: Engine) -> Callable[..., bool]:
    """Excludes the foreign key that is not created on PostgreSQL. `describe_schema` compares that one too."""
    missing = {"fk_spam_scores_batch_id_score_batches"} if engine.dialect.name == "postgresql" else set()
    return lambda _, name, *__: name not in missing


def test_migrations_and_tables_create_identical_schemas(engine: Engine, database_url: str) -> None:
    migrated = describe_schema(engine)
    migrate_to(engine, "base")
    with write_transaction(engine) as connection:
        metadata.create_all(connection)
    assert describe_schema(engine) == migrated
    assert len(migrated) == 6


def describe_schema(engine: Engine) -> dict[str, Any]:
    """Returns everything the database reports about its tables, with their CREATE statements where it stores them."""
    inspector = sa.inspect(engine)
    return {
        name: {
            "columns": [{**column, "type": describe_type(column["type"])} for column in inspector.get_columns(name)],
            "primary key": inspector.get_pk_constraint(name),
            "foreign keys": inspector.get_foreign_keys(name),
            "unique": sorted(inspector.get_unique_constraints(name), key=lambda item: str(item["name"])),
            "checks": sorted(inspector.get_check_constraints(name), key=lambda item: str(item["name"])),
            "indexes": sorted(inspector.get_indexes(name), key=lambda item: str(item["name"])),
            "options": inspector.get_table_options(name),
            "statement": create_statement(engine, name),
        }
        for name in inspector.get_table_names()
        if name != VERSION_TABLE
    }


def describe_type(column_type: sa.types.TypeEngine[Any]) -> str:
    return f"{column_type!r} {getattr(column_type, 'collation', None)}"


def create_statement(engine: Engine, name: str) -> str:
    query = {
        "sqlite": f"SELECT sql FROM sqlite_master WHERE name = '{name}'",
        "mariadb": f"SHOW CREATE TABLE {name}",
    }.get(engine.dialect.name)
    with read_transaction(engine) as connection:
        text = str(connection.exec_driver_sql(query).one()[-1]) if query else ""
    return " ".join(sorted(re.sub(r"AUTO_INCREMENT=\d+", "", text).replace(",", " ").split()))


def test_all_migrations_can_be_reverted_and_applied_again(engine: Engine) -> None:
    migrate_to(engine, "base")
    assert not has_schema(engine)
    assert sa.inspect(engine).get_table_names() == [VERSION_TABLE]
    assert sa.inspect(engine).get_view_names() == []
    migrate_to(engine, "head")
    assert has_schema(engine)


def migrate_to(engine: Engine, revision: str) -> None:
    with write_transaction(engine) as connection:
        migrate = command.upgrade if revision == "head" else command.downgrade
        migrate(alembic_config(connection), revision)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005"])
def test_batches_in_an_older_schema_can_be_read_before_it_is_migrated(engine: Engine, revision: str) -> None:
    batch_id = publish(engine, {"a": 0.25, "b": 0.75})
    migrate_to(engine, revision)
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    assert (batch.batch_id, batch.scored, batch.seconds_total, batch.seconds_read) == (batch_id, 2, 12.34, None)
    assert list_batches(engine) == [batch]
    assert (read_drifts(engine), read_earlier_figures(engine, DATE, 5), read_labels(engine)) == ([], [], [])
    migrate_to(engine, "head")
    assert find_published_batch(engine, DATE) == batch


@pytest.mark.parametrize("existing", [["score_batches"], ["score_batches", "spam_scores", "rejected_messages"]])
def test_a_killed_migration_is_completed_on_mariadb(mariadb_url: str, existing: list[str]) -> None:
    engine = connect(DatabaseSettings(url=mariadb_url))
    with write_transaction(engine) as connection:
        metadata.create_all(connection, [metadata.tables[name] for name in existing])
        for index in metadata.tables["score_batches"].indexes:
            index.drop(connection)
    assert not has_schema(engine)
    engine = open_database(DatabaseSettings(url=mariadb_url))
    assert "ix_score_batches_batch_date_state" in str(sa.inspect(engine).get_indexes("score_batches"))
    assert sa.inspect(engine).get_view_names() == ["published_scores"]


@pytest.mark.parametrize("server", ["sqlite_url", "postgresql_url"])
def test_a_failed_migration_leaves_nothing_on_transactional_databases(
    server: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    engine = connect(DatabaseSettings(url=url))
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE batch_chunks (other_application INTEGER)")
    with pytest.raises(Exception, match="batch_chunks"):
        open_database(DatabaseSettings(url=url))
    assert sa.inspect(engine).get_table_names() == ["batch_chunks"]


def test_a_migration_keeps_tables_of_other_applications(database_url: str) -> None:
    engine = connect(DatabaseSettings(url=database_url))
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('other application')")
    open_database(DatabaseSettings(url=database_url))
    with read_transaction(engine) as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "other application"
        assert schema_revision(connection) == SCHEMA_REVISION


def test_migrations_are_part_of_the_distribution() -> None:
    from importlib import resources

    folder = resources.files("tasks.database.migrations")
    assert folder.joinpath("env.py").is_file()
    assert folder.joinpath("script.py.mako").is_file()
    assert SCHEMA_REVISION in [path.name[:4] for path in folder.joinpath("versions").iterdir()]


def test_a_new_migration_is_created_from_the_template(sqlite_url: str, tmp_path: Path) -> None:
    engine = open_database(DatabaseSettings(url=sqlite_url))
    with read_transaction(engine) as connection:
        config = alembic_config(connection)
        config.set_main_option("version_locations", str(tmp_path))
        revision = command.revision(config, f"Created on {datetime.date(2026, 1, 31)}", rev_id="9999", head="base")
    compile(Path(revision.path).read_text(encoding="utf-8"), "revision", "exec")  # type: ignore[union-attr]
