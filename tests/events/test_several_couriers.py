"""Two workers on one PostgreSQL database: one of them tells a webhook, and the other takes over."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from events.post import numbers, until
from events.receiver import Receiver
from lab.postgres import Postgres
from leasehold.config import Settings
from leasehold.domain.values import Batch, WebhookSpec
from leasehold.service import delivery_log, events, webhooks
from leasehold.service.context import Context, open_context
from leasehold.worker import Worker

SUBJECTS = 5


@pytest.fixture
def contexts(postgres_server: Postgres) -> Iterator[list[Context]]:
    settings = Settings(
        database_url=postgres_server.fresh_database(), webhook_allowed_networks="127.0.0.0/8", webhook_timeout_s=2
    )
    made = [open_context(settings) for _ in range(3)]
    yield made
    for each in made:
        each.db.dispose()


@pytest.fixture
def workers(contexts: list[Context]) -> Iterator[list[Worker]]:
    made = [Worker(ctx) for ctx in contexts[:2]]
    for each in made:
        each.start()
    yield made
    for each in made:
        each.stop()


def tell(ctx: Context, first: int, last: int) -> None:
    for number in range(first, last + 1):
        with ctx.db.write() as connection:
            events.emit(connection, ctx.now_ms(), "lease.assigned", f"s{number % SUBJECTS}", {"number": number})
        ctx.bell.ring()


def end_claims(ctx: Context) -> None:
    """Ends the sessions in which duties are claimed, as PostgreSQL does it with those of processes that stand still."""
    with ctx.db.write() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
                "AND pid <> pg_backend_pid()"
            )
        )


def in_order(receiver: Receiver) -> bool:
    """The first time that each event came, those of a subject came in their order."""
    first = list(dict.fromkeys(numbers(receiver.taken)))
    return all(
        [each for each in first if each % SUBJECTS == subject]
        == sorted(each for each in first if each % SUBJECTS == subject)
        for subject in range(SUBJECTS)
    )


@pytest.mark.parametrize("batch", [None, Batch(events=7)], ids=["singly", "batches"])
def test_one_worker_tells_and_another_takes_over(
    contexts: list[Context], workers: list[Worker], receiver: Receiver, batch: Batch | None
) -> None:
    ctx = contexts[2]
    webhook = webhooks.create(ctx, WebhookSpec(url=receiver.url, batch=batch))
    (receiver.secret,) = webhook.secrets
    tell(ctx, 1, 40)
    until(lambda: len(set(numbers(receiver.taken))) == 40, "all events arrived")
    until(lambda: delivery_log.progress(ctx, webhook.id)[0].behind == 0, "that is known")
    assert len(receiver.taken) == 40  # by one worker only
    end_claims(ctx)
    tell(ctx, 41, 80)
    until(lambda: set(numbers(receiver.taken)) == set(range(1, 81)), "all events arrived, whoever sent them")
    workers[0].stop()
    tell(ctx, 81, 120)
    until(lambda: set(numbers(receiver.taken)) == set(range(1, 121)), "all events arrived")
    assert in_order(receiver)
    until(lambda: delivery_log.progress(ctx, webhook.id)[0].behind == 0, "that is known")
    assert delivery_log.progress(ctx, webhook.id)[0].waiting == 0
