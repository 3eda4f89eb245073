"""Statements that are built once: to build one, and to find it among those compiled, costs several times what it takes
to run it."""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from sqlalchemy import BindParameter, Connection, CursorResult, bindparam
from sqlalchemy.sql.base import Executable

# Not the bare names: SQLAlchemy takes a parameter that is named as a column for a value to set that column to.
_PREFIX = "p_"


def prepared(build: Callable[..., Executable]) -> Callable[..., CursorResult[Any]]:
    """What `build` returns for values of its parameters, executed: `find(connection, vnic_id="v1")`. It is called once,
    with placeholders. A value may be None only where the statement means SQL's NULL by it."""
    names = tuple(inspect.signature(build).parameters)

    @cache
    def statement() -> Executable:
        placeholders: dict[str, BindParameter[Any]] = {name: bindparam(_PREFIX + name) for name in names}
        return build(**placeholders)

    @wraps(build)
    def execute(connection: Connection, **values: object) -> CursorResult[Any]:
        return connection.execute(statement(), {_PREFIX + name: values[name] for name in names})

    return execute
