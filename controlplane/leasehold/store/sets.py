"""Conditions on sets of any size."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY


def among(connection: Connection, column: ColumnElement[Any], values: Iterable[int | str]) -> ColumnElement[bool]:
    """True where the column has one of the values, however many those are.

    They go as one parameter. `in_` takes one for each, of which SQLite has 32,766 in a statement, and PostgreSQL's
    protocol 65,535. Source: SQLite, "Limits In SQLite", 9; PostgreSQL, "Message Formats", Bind.
    """
    wanted = list(values)
    if len(wanted) == 1:
        return column == wanted[0]
    if connection.dialect.name == "sqlite":
        text = bindparam(None, json.dumps(wanted), type_=String, unique=True)
        return column.in_(select(func.json_each(text).table_valued("value").c.value))
    return column == any_(bindparam(None, wanted, type_=ARRAY(column.type), unique=True))
