"""Many rows in one statement, at the least cost a row: lease events come by the ten thousand a second."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Table,
    any_,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

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
    names = [f'"{column.name}"' for column in columns]
    tail = ""
    if replace:
        key = [f'"{column.name}"' for column in table.primary_key]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
        tail = f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    into = f"INSERT INTO {table.name} ({', '.join(names)})"
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"{into} VALUES ({marks}){tail}", list(rows))
        return
    # The driver binds values one by one; PostgreSQL takes one document apart in less time.
    fields = ", ".join(f"c{number} {_type_of(column)}" for number, column in enumerate(columns))
    taken = ", ".join(
        f"c{number}{'::json' if isinstance(column.type, JSON) else ''}" for number, column in enumerate(columns)
    )
    keys = [f"c{number}" for number in range(len(columns))]
    document = json.dumps([dict(zip(keys, row, strict=True)) for row in rows], separators=(",", ":"))
    connection.exec_driver_sql(
        f"{into} SELECT {taken} FROM ROWS FROM (json_to_recordset(%s::json) AS ({fields})) WITH ORDINALITY "  # noqa: S608
        f"AS given({', '.join([*keys, 'place'])}) ORDER BY place{tail}",
        (document,),
    )


def is_among(connection: Connection, column: ColumnElement[Any], wanted: Collection[int | str]) -> ColumnElement[bool]:
    """The column has one of these values, which go over as one parameter however many they are."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(json.dumps(list(wanted))).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(literal(list(wanted), ARRAY(column.type)))


def _type_of(column: Column[Any]) -> str:
    return next((name for kind, name in _POSTGRESQL_TYPES.items() if isinstance(column.type, kind)), "text")
