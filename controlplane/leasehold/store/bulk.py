"""Many rows in one statement, at the least cost a row: lease events come by the ten thousand a second."""

import json
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Connection, Integer, Table

from leasehold.store import driver

_POSTGRESQL_TYPES = {BigInteger: "bigint", Integer: "integer", Boolean: "boolean"}


def write_rows(
    connection: Connection,
    table: Table,
    columns: Sequence[Column[Any]],
    rows: Collection[tuple[Any, ...]],
    *,
    replace: bool = False,
) -> None:
    """Inserts rows of these columns in their order; those of a JSON column are JSON text already. With `replace` a row
    takes the place of the one with the same primary key, but for columns that are not named."""
    if not rows:
        return
    sql = _statement(connection.dialect.name, table, tuple(columns), replace)
    if connection.dialect.name == "sqlite":
        driver.write_many(connection, sql, list(rows))
        return
    keys = [f"c{number}" for number in range(len(columns))]
    document = json.dumps([dict(zip(keys, row, strict=True)) for row in rows], separators=(",", ":"))
    driver.write(connection, sql, (document,))


@cache
def _statement(dialect: str, table: Table, columns: tuple[Column[Any], ...], replace: bool) -> str:
    names = [f'"{column.name}"' for column in columns]
    tail = ""
    if replace:
        key = [f'"{column.name}"' for column in table.primary_key]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
        tail = f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    into = f"INSERT INTO {table.name} ({', '.join(names)})"
    if dialect == "sqlite":
        marks = ", ".join("?" * len(columns))
        return f"{into} VALUES ({marks}){tail}"
    # The driver binds values one by one; PostgreSQL takes one document apart in less time.
    keys = [f"c{number}" for number in range(len(columns))]
    fields = ", ".join(f"{key} {_type_of(column)}" for key, column in zip(keys, columns, strict=True))
    taken = ", ".join(
        f"{key}{'::json' if isinstance(column.type, JSON) else ''}" for key, column in zip(keys, columns, strict=True)
    )
    return (
        f"{into} SELECT {taken} FROM ROWS FROM (json_to_recordset(%s::json) AS ({fields})) WITH ORDINALITY "  # noqa: S608
        f"AS given({', '.join([*keys, 'place'])}) ORDER BY place{tail}"
    )


def _type_of(column: Column[Any]) -> str:
    return next((name for kind, name in _POSTGRESQL_TYPES.items() if isinstance(column.type, kind)), "text")
