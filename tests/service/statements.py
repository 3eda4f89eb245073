"""What is sent to a database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, Engine, event

from leasehold.store import driver


@contextmanager
def sent_to(database: Engine | Connection) -> Iterator[list[str]]:
    """The statements that are sent inside of the block, by SQLAlchemy and to its driver directly."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    def noting(send: Callable[..., Any]) -> Callable[..., Any]:
        def noted(connection: Connection, sql: str, values: object) -> object:
            sent.append(sql)
            return send(connection, sql, values)

        return noted

    event.listen(database, "before_cursor_execute", note)
    with (
        patch.object(driver, "read", noting(driver.read)),
        patch.object(driver, "write", noting(driver.write)),
        patch.object(driver, "write_many", noting(driver.write_many)),
    ):
        yield sent
    event.remove(database, "before_cursor_execute", note)
