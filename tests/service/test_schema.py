"""The migrations lead to the tables that the code works with."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from leasehold.service.context import Context, open_context
from leasehold.store.tables import metadata


def schema(url: str) -> dict[str, Any]:
    """What a database says of its tables, comparable."""
    engine = create_engine(url)
    inspector = inspect(engine)
    found = {
        table: {
            "columns": [(each["name"], str(each["type"]), each["nullable"]) for each in inspector.get_columns(table)],
            "primary key": inspector.get_pk_constraint(table),
            "unique": sorted(inspector.get_unique_constraints(table), key=str),
            "foreign keys": sorted(inspector.get_foreign_keys(table), key=str),
            "checks": sorted(inspector.get_check_constraints(table), key=str),
            "indexes": sorted(map(_comparable, inspector.get_indexes(table)), key=str),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }
    engine.dispose()
    return found


def test_migrated_and_made_at_once_are_the_same(ctx: Context, fresh_database: Callable[[], str]) -> None:
    url = fresh_database()
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    migrated, made = schema(ctx.settings.database_url), schema(url)
    assert migrated.keys() == made.keys()
    for table in made:
        assert migrated[table] == made[table], table


def test_opening_a_database_again_changes_nothing(ctx: Context) -> None:
    pool_before, epoch_before = _drawn(ctx)
    again = open_context(ctx.settings)
    assert _drawn(again) == (pool_before, epoch_before)
    again.db.dispose()


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_every_constraint_has_a_name(table: str) -> None:
    assert all(constraint.name for constraint in metadata.tables[table].constraints)


def _comparable(index: Any) -> Any:
    return {**index, "dialect_options": {name: str(value) for name, value in index["dialect_options"].items()}}


def _drawn(ctx: Context) -> tuple[Any, Any]:
    with ctx.db.read() as connection:
        return (
            connection.execute(metadata.tables["mac_ranges"].select()).all(),
            connection.execute(metadata.tables["lineage"].select()).all(),
        )
