"""A control plane's service layer on a database of its own, with a clock that tests turn."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

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


@pytest.fixture
def ctx(tmp_path: Path, clock: Clock) -> Iterator[Context]:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/leasehold.sqlite", cool_down_s=60, start_budget_s=0)
    context = open_context(settings, clock)
    yield context
    context.db.dispose()
