"""What every service function needs: database, settings, clock, bell."""

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, select

from leasehold.config import Settings
from leasehold.domain.addresses import random_local_range
from leasehold.service.bell import Bell, SharedBell
from leasehold.store import schema
from leasehold.store.database import Database, lock
from leasehold.store.extents import create_space
from leasehold.store.tables import lineage, mac_pools, mac_ranges

_INSTALLS = 0x6C68_696E  # an advisory lock's
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_POOL = "default"


def utc_now() -> datetime:
    """The present instant, aware, UTC."""
    return datetime.now(UTC)


def to_ms(instant: datetime) -> int:
    """Milliseconds since the Unix epoch, as the database keeps instants."""
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def from_ms(milliseconds: int) -> datetime:
    """The instant of so many milliseconds since the Unix epoch."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


@dataclass(frozen=True)
class Context:
    """Handed to every service function."""

    db: Database
    settings: Settings
    clock: Callable[[], datetime] = utc_now
    bell: Bell = field(default_factory=Bell)

    def now_ms(self) -> int:
        """The present instant in milliseconds since the Unix epoch."""
        return to_ms(self.clock())

    def fenced(self, duty: str, term: int) -> "Context":
        """The same for whoever has a duty: a write raises DutyLost once another process has taken it over."""
        return replace(self, db=self.db.fenced(duty, term))


def open_context(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Context:
    """Opens the database, brings it to this release's schema, and draws epoch and default MAC pool if it is new."""
    database = Database(settings.database_url)
    schema.upgrade(database)
    with database.write() as connection:
        lock(connection, _INSTALLS, shared=False)
        if connection.execute(select(lineage.c.epoch)).one_or_none() is None:
            _install(connection)
    return Context(database, settings, clock, Bell() if database.is_sqlite else SharedBell(database))


def _install(connection: Connection) -> None:
    connection.execute(insert(lineage).values(id=1, epoch=str(uuid.uuid4())))
    drawn = random_local_range(secrets.randbits(22))
    first, last = drawn.first.value, drawn.last.value
    connection.execute(
        insert(mac_pools).values(
            id=DEFAULT_POOL,
            name="Default",
            description="Drawn at random when Leasehold was installed.",
            allow_duplicates=False,
            default_pool=True,
            revision=1,
            space_id=create_space(connection, [(first, last)]),
        )
    )
    connection.execute(insert(mac_ranges).values(mac_pool_id=DEFAULT_POOL, first=first, last=last))
