"""Events are kept for a time, and removed in steps so small that nobody waits for them."""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, false, func, select

from leasehold.service.context import Context
from leasehold.service.events import last_position
from leasehold.store.sets import among
from leasehold.store.tables import deliveries, event_gaps, event_subjects, events, leases, subnets, webhooks

STEP = 500
"""Events removed in one transaction."""


def prune(ctx: Context) -> int:
    """Removes the oldest events past their time, up to STEP of them, with what is known of their deliveries. Those stay
    that a webhook still is to be told of, as long as attempts are repeated; and the last one, whose position counts.
    Returns how many went."""
    with ctx.db.read() as connection:
        if not _old(ctx, connection):
            return 0
    with ctx.db.write() as connection:
        gone = _old(ctx, connection)
        connection.execute(delete(deliveries).where(among(connection, deliveries.c.event_position, gone)))
        connection.execute(delete(events).where(among(connection, events.c.position, gone)))
    return len(gone)


def _old(ctx: Context, connection: Connection) -> Sequence[int]:
    """Positions of events that can go, of the first STEP that there are."""
    now_ms = ctx.now_ms()
    given_up_ms = now_ms - round(ctx.settings.webhook_give_up_s * 1000)
    is_told = webhooks.c.state.in_(("active", "paused"))
    told_to: int | None = connection.execute(select(func.min(webhooks.c.position)).where(is_told)).scalar_one()
    is_needed = and_(events.c.stored_ms >= given_up_ms, false() if told_to is None else events.c.position > told_to)
    is_waited_for = (
        select(deliveries.c.event_position)
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .where(
            deliveries.c.event_position == events.c.position,
            deliveries.c.state == "waiting",
            deliveries.c.first_due_ms >= given_up_ms,
            is_told,
        )
        .exists()
    )
    oldest = select(events.c.position).order_by(events.c.position).limit(STEP).subquery()
    found = connection.execute(
        select(events.c.position).where(
            events.c.position.in_(select(oldest.c.position)),
            events.c.position < last_position(connection),
            events.c.stored_ms < now_ms - round(ctx.settings.event_history_s * 1000),
            ~is_needed,
            ~is_waited_for,
        )
    )
    return found.scalars().all()


def tidy(ctx: Context) -> None:
    """Forgets counters of subjects of which the history has nothing any more, so that they begin anew; and gaps as old,
    and leases on subnets that are gone."""
    before_ms = ctx.now_ms() - round(ctx.settings.event_history_s * 1000)
    with ctx.db.write() as connection:
        connection.execute(delete(event_subjects).where(event_subjects.c.last_ms < before_ms))
        connection.execute(delete(event_gaps).where(event_gaps.c.told_ms < before_ms))
        connection.execute(delete(leases).where(leases.c.subnet_id.not_in(select(subnets.c.id))))
