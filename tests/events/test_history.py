"""How long events are kept."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from leasehold.domain.values import WebhookSpec
from leasehold.service import events, history, webhooks
from leasehold.service.context import Context
from leasehold.store.tables import deliveries, event_subjects
from leasehold.store.tables import webhooks as webhooks_table
from service.conftest import Clock

KEPT_S = 1000
GIVE_UP_S = 100


@pytest.fixture
def brief(ctx: Context) -> Context:
    return replace(ctx, settings=replace(ctx.settings, event_history_s=KEPT_S, webhook_give_up_s=GIVE_UP_S))


def happen(ctx: Context, count: int, subject: str = "hosts/a") -> None:
    with ctx.db.write() as connection:
        for _ in range(count):
            events.emit(connection, ctx.now_ms(), "server.started", subject, {})


def positions(ctx: Context) -> list[int]:
    return [each.position for each in events.list_events(ctx, limit=5000)]


def subscribe(ctx: Context) -> str:
    return webhooks.create(ctx, WebhookSpec(url="https://monitoring.example/")).id


def told(ctx: Context, webhook: str, position: int) -> None:
    with ctx.db.write() as connection:
        connection.execute(update(webhooks_table).where(webhooks_table.c.id == webhook).values(position=position))


def waits(ctx: Context, webhook: str, position: int) -> None:
    with ctx.db.write() as connection:
        connection.execute(
            insert(deliveries).values(
                webhook_id=webhook,
                event_position=position,
                state="waiting",
                attempts=1,
                due_ms=ctx.now_ms(),
                first_due_ms=ctx.now_ms(),
            )
        )


def test_events_go_after_their_time_and_not_before(brief: Context, clock: Clock) -> None:
    happen(brief, 3)
    clock.advance(KEPT_S - 1)
    happen(brief, 2)
    assert history.prune(brief) == 0
    clock.advance(2)
    assert history.prune(brief) == 3
    assert positions(brief) == [4, 5]


def test_the_last_event_stays_and_positions_go_on(brief: Context, clock: Clock) -> None:
    happen(brief, 3)
    clock.advance(KEPT_S * 2)
    assert history.prune(brief) == 2
    happen(brief, 1)
    assert positions(brief) == [3, 4]


def test_they_go_in_small_steps(brief: Context, clock: Clock) -> None:
    happen(brief, history.STEP * 2 + 1)
    clock.advance(KEPT_S * 2)
    assert [history.prune(brief) for _ in range(3)] == [history.STEP, history.STEP, 0]


def test_what_a_webhook_is_still_to_be_told_of_stays_as_long_as_it_is_tried(brief: Context, clock: Clock) -> None:
    patient = replace(brief, settings=replace(brief.settings, webhook_give_up_s=KEPT_S * 3))
    webhook = subscribe(patient)
    happen(patient, 4)
    told(patient, webhook, 2)
    clock.advance(KEPT_S * 2)
    assert history.prune(patient) == 2
    assert positions(patient) == [3, 4]
    clock.advance(KEPT_S * 2)
    assert history.prune(patient) == 1


def test_what_waits_to_be_delivered_again_stays(brief: Context, clock: Clock) -> None:
    webhook = subscribe(brief)
    happen(brief, 4)
    told(brief, webhook, 4)
    clock.advance(KEPT_S * 2)
    waits(brief, webhook, 2)
    assert history.prune(brief) == 2
    assert positions(brief) == [2, 4]


def _disable(ctx: Context, webhook: str) -> None:
    with ctx.db.write() as connection:
        connection.execute(update(webhooks_table).where(webhooks_table.c.id == webhook).values(state="disabled"))


def _finish(ctx: Context, webhook: str) -> None:
    with ctx.db.write() as connection:
        connection.execute(update(deliveries).values(state="dead"))


@pytest.mark.parametrize("end", [_disable, _finish])
def test_deliveries_go_with_their_events(brief: Context, clock: Clock, end: Callable[[Context, str], None]) -> None:
    webhook = subscribe(brief)
    happen(brief, 3)
    told(brief, webhook, 3)
    waits(brief, webhook, 1)
    end(brief, webhook)
    clock.advance(KEPT_S * 2)
    assert history.prune(brief) == 2
    with brief.db.read() as connection:
        assert connection.execute(select(deliveries)).all() == []


def test_numbers_of_a_subject_go_on_while_the_history_has_it(brief: Context, clock: Clock) -> None:
    happen(brief, 3)
    happen(brief, 1, "hosts/b")
    clock.advance(KEPT_S + 1)
    happen(brief, 1)
    history.prune(brief)
    history.tidy(brief)
    happen(brief, 1)
    assert [each.sequence for each in events.list_events(brief, limit=10)] == [4, 5]
    with brief.db.read() as connection:
        assert connection.execute(select(event_subjects.c.subject)).scalars().all() == ["hosts/a"]
