"""A control plane's service layer on a database of its own, with a clock that tests turn."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.postgres import Postgres
from leasehold.config import Settings
from leasehold.service.context import Context, open_context


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: datetime = field(default_factory=lambda: datetime(2030, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes a new database with each call, and answers its URL: of one kind in a first run of the test, of the other in
    a second one."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{uuid.uuid4()}.sqlite"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.fresh_database


@pytest.fixture
def ctx(fresh_database: Callable[[], str], clock: Clock) -> Iterator[Context]:
    settings = Settings(database_url=fresh_database(), cool_down_s=60, start_budget_s=0)
    context = open_context(settings, clock)
    yield context
    context.db.dispose()
