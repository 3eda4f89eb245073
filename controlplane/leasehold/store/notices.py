"""PostgreSQL's NOTIFY and LISTEN: tells all processes on a database that something was committed. A hint: one that is
lost costs time, and nothing else."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import psycopg
from sqlalchemy import Engine

_CHANNEL = "leasehold"


class Notices:
    """One connection of its own, to tell others or to hear them. Each call raises psycopg.Error when it breaks."""

    def __init__(self, engine: Engine) -> None:
        pooled = engine.raw_connection()
        connection = cast("psycopg.Connection[tuple[object, ...]]", pooled.driver_connection)
        pooled.detach()
        connection.autocommit = True
        self._connection = connection

    def tell(self, sender: str, what: int, messages: Sequence[str]) -> None:
        """Tells all who listen, with the name of who did it. Messages are JSON, and in all less than 7,900 octets."""
        payload = f'["{sender}",{what},[{",".join(messages)}]]'
        self._connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, payload))

    def listen(self) -> None:
        """What is told from now on is heard."""
        self._connection.execute(f"LISTEN {_CHANNEL}".encode())

    def hear(self, timeout_s: float) -> Iterator[tuple[str, int, Sequence[Sequence[Any]]]]:
        """Who told what since it was asked last; if nobody did, it waits up to `timeout_s` seconds for one."""
        for notice in self._connection.notifies(timeout=timeout_s, stop_after=1):
            sender, what, messages = json.loads(notice.payload)
            yield sender, what, messages

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
