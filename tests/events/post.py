"""A control plane that delivers, for the tests of webhooks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from events.receiver import TAKEN, Answer, Event, Receiver
from lab import wait_until
from leasehold.config import Settings
from leasehold.domain.values import Webhook, WebhookSpec
from leasehold.service import delivery_log, events, webhooks
from leasehold.service.context import Context, open_context
from leasehold.worker import Worker

PATIENCE_S = 20


@dataclass
class ShiftedClock:
    """The real one, and what a test adds."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Post:
    """A worker that delivers, and events for it."""

    ctx: Context
    clock: ShiftedClock
    worker: Worker | None = None

    def start(self) -> None:
        self.worker = Worker(self.ctx)
        self.worker.start()

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def subscribe(self, receiver: Receiver, *types: str, **spec: Any) -> Webhook:
        webhook = webhooks.create(self.ctx, WebhookSpec(url=receiver.url, types=types, **spec))
        (receiver.secret,) = webhook.secrets
        return webhook

    def tell(self, subject: str, *numbers: int, kind: str = "lease.assigned", **data: object) -> None:
        """Something happened, once for each number."""
        with self.ctx.db.write() as connection:
            for number in numbers:
                events.emit(connection, self.ctx.now_ms(), kind, subject, {"number": number, **data})
        self.ctx.bell.ring()

    def states(self, webhook: Webhook) -> list[str]:
        """Of the webhook's deliveries, the oldest event first."""
        return [each.state for each in reversed(delivery_log.list_deliveries(self.ctx, webhook.id, limit=1000))]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/leasehold.sqlite",
        webhook_allowed_networks="127.0.0.0/8",
        webhook_timeout_s=2,
    )
    clock = ShiftedClock()
    post = Post(open_context(settings, clock), clock)
    yield post
    post.stop()
    post.ctx.db.dispose()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
        assert receiver.unsigned == []


def until(fact: Callable[[], object], what: str) -> None:
    wait_until(fact, PATIENCE_S, what)


def numbers(taken: list[Event], subject: str | None = None) -> list[int]:
    return [each["data"]["number"] for each in taken if subject in (None, each["subject"])]


def failing(*subjects: str) -> Callable[[Event], Answer]:
    return lambda event: (500, {}) if event["subject"] in subjects else TAKEN
