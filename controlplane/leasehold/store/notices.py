"""PostgreSQL's NOTIFY and LISTEN: tells all processes on a database that something was committed. A hint: one that is
lost costs time, and nothing else."""

from collections.abc import Collection, Iterator, Mapping
from typing import cast

import psycopg
from sqlalchemy import Engine


class Notices:
    """One connection of its own, to tell others or to hear them. Each call raises psycopg.Error when it breaks."""

    def __init__(self, engine: Engine) -> None:
        pooled = engine.raw_connection()
        connection = cast("psycopg.Connection[tuple[object, ...]]", pooled.driver_connection)
        pooled.detach()
        connection.autocommit = True
        self._connection = connection
        self._listens: set[str] = set()

    def tell(self, payloads: Mapping[str, str]) -> None:
        """Tells all who listen to these channels what is for each; less than 8,000 octets."""
        calls = ", ".join(["pg_notify(%s, %s)"] * len(payloads))
        values = [each for pair in payloads.items() for each in pair]
        self._connection.execute(f"SELECT {calls}".encode(), values)

    def listen(self, channels: Collection[str]) -> None:
        """What is told there from now on is heard; harmless for those that are listened to already."""
        for channel in set(channels) - self._listens:
            self._connection.execute(f"LISTEN {channel}".encode())
            self._listens.add(channel)

    def hear(self, timeout_s: float) -> Iterator[tuple[str, str]]:
        """What was told since it was asked last, each with its channel; if there was nothing, it waits up to
        `timeout_s` seconds for something."""
        for notice in self._connection.notifies(timeout=timeout_s, stop_after=1):
            yield notice.channel, notice.payload

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
