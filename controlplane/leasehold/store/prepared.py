"""Statements of the ways that every vNIC takes: compiled once, and handed to the driver directly. SQLAlchemy takes
several times longer for a statement than SQLite takes to run it, and PostgreSQL's answers take a round trip each."""

import inspect
from collections import namedtuple
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Any, cast

from sqlalchemy import BindParameter, ClauseElement, Connection, Dialect, bindparam
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import replacement_traverse

from leasehold.store import driver
from leasehold.store.database import AnyRow

# Not the bare names: SQLAlchemy takes a parameter that is named as a column for a value to set that column to.
_PREFIX = "p_"

_Found = list[AnyRow]


class Rows(Sequence[AnyRow]):
    """What a statement answers, in order. In a pipeline it is waited for only when somebody looks.

    Asked for one row, it raises ValueError, a bug, when there are several, or none where there must be one.
    """

    def __init__(self, found: _Found | Callable[[], _Found]) -> None:
        self._found = found

    def __getitem__(self, place: Any) -> Any:
        return self._rows()[place]

    def __len__(self) -> int:
        return len(self._rows())

    def __iter__(self) -> Iterator[AnyRow]:
        return iter(self._rows())

    def _rows(self) -> _Found:
        if not isinstance(self._found, list):
            self._found = self._found()
        return self._found

    def one(self) -> AnyRow:
        """The only row."""
        (row,) = self
        return row

    def one_or_none(self) -> AnyRow | None:
        """The only row, if there is one."""
        return self.one() if self else None

    def scalar_one(self) -> Any:
        """The first column of the only row."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        """The first column of the only row, if there is one."""
        row = self.one_or_none()
        return None if row is None else row[0]


def prepared(build: Callable[..., Executable]) -> Callable[..., Rows]:
    """What `build` returns for values of its parameters, executed: `find(connection, vnic_id="v1")`. It is called once
    for each kind of database, with placeholders. A value may be None only where the statement means SQL's NULL by it.
    """
    names = tuple(inspect.signature(build).parameters)
    statements: dict[str, _Statement] = {}

    @wraps(build)
    def execute(connection: Connection, **values: object) -> Rows:
        dialect = connection.dialect
        statement = statements.get(dialect.name)
        if statement is None:
            statement = statements[dialect.name] = _Statement(build, names, dialect)
        return statement.execute(connection, values)

    return execute


class _Statement:
    """A statement in a dialect's SQL, with what the dialect makes of values on their way in and out."""

    def __init__(self, build: Callable[..., Executable], names: Sequence[str], dialect: Dialect) -> None:
        built = build(**{name: bindparam(_PREFIX + name) for name in names})
        given = {_PREFIX + name: name for name in names}
        # What never changes is text: a partial index serves only where the planner sees its condition.
        textual = replacement_traverse(cast("ClauseElement", built), {}, partial(_as_text, given))
        compiled = cast("SQLCompiler", cast("ClauseElement", textual).compile(dialect=dialect))
        state = compiled.construct_expanded_state(dict.fromkeys(given))
        self._sql = state.statement
        # By place where the driver wants a sequence, by name where it wants a mapping.
        by_name = state.positiontup is None
        places: list[tuple[Any, str]] = [
            (name if by_name else place, name)
            for place, name in enumerate(state.parameters if state.positiontup is None else state.positiontup)
        ]
        fixed = {place: _through(state.processors.get(name), state.parameters[name]) for place, name in places}
        self._fixed: Any = fixed if by_name else list(fixed.values())
        self._given = [(place, given[name], state.processors.get(name)) for place, name in places if name in given]
        columns = list(getattr(built, "exported_columns", ()))
        row: Any = namedtuple("Row", [column.key for column in columns])  # type: ignore[misc]
        self._make: Any = row._make if columns else None
        self._results = [
            (place, process)
            for place, column in enumerate(columns)
            if (process := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        ]

    def execute(self, connection: Connection, values: Mapping[str, object]) -> Rows:
        bound = self._fixed.copy()
        for place, name, process in self._given:
            bound[place] = _through(process, values[name])
        if self._make is None:
            driver.write(connection, self._sql, bound)
            return Rows([])
        cursor = driver.read(connection, self._sql, bound)
        if driver.in_pipeline(connection):
            return Rows(lambda: self._fetch(connection, cursor))
        return Rows(self._fetch(connection, cursor))

    def _fetch(self, connection: Connection, cursor: Any) -> _Found:
        found = driver.fetch(connection, cursor)
        if not self._results:
            return list(map(self._make, found))
        rows = []
        for each in found:
            values = list(each)
            for place, process in self._results:
                values[place] = process(values[place])
            rows.append(self._make(values))
        return rows


def _as_text(given: Collection[str], element: Any, **_: object) -> Any:
    is_fixed = isinstance(element, BindParameter) and element.key not in given
    return element.render_literal_execute() if is_fixed else None


def _through(process: Callable[[Any], Any] | None, value: object) -> object:
    return value if process is None else process(value)
