"""What became of each delivery and attempt, how far webhooks were told, and what is told again."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, literal, or_, select, update

from leasehold.domain.values import Attempt, Delivery, Progress, Replayed
from leasehold.errors import FieldInvalid
from leasehold.service.context import Context, from_ms, to_ms
from leasehold.service.deliveries import Outcome, State, upsert
from leasehold.service.events import event_of, last_position
from leasehold.service.webhooks import require, wanted, webhook_of
from leasehold.store.tables import attempts, deliveries, events, webhooks

_MOST_REPLAYED = 100_000


def replay(
    ctx: Context,
    webhook_id: str,
    *,
    ids: Collection[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    after_position: int | None = None,
    until_position: int | None = None,
    dead: bool = False,
    dry_run: bool = False,
) -> Replayed:
    """Sends events again, those for which each given condition holds: with one of these ids; stored from `since` to
    before `until`; at positions behind one and up to another; given up before. They go before what is new, in the
    order of their positions, up to 100,000 a call. Events that the webhook is still to be told of are not among them.

    Raises WebhookNotFound, and FieldInvalid without any condition.
    """
    if not ids and not dead and all(each is None for each in (since, until, after_position, until_position)):
        raise FieldInvalid(
            "Nothing says which events to send again. Name ids, since, until, after_position, until_position or dead.",
            field="ids",
            value=[],
        )
    now_ms = ctx.now_ms()
    with ctx.db.write(dry_run=dry_run) as connection:
        webhook_row = require(connection, webhook_id, lock=True)
        spec = webhook_of(webhook_row, now_ms)
        own = (deliveries.c.webhook_id == webhook_id) & (deliveries.c.event_position == events.c.position)
        conditions: list[ColumnElement[bool]] = [events.c.position <= webhook_row.position]
        if ids:
            conditions.append(events.c.id.in_(ids))
        if since is not None:
            conditions.append(events.c.stored_ms >= to_ms(since))
        if until is not None:
            conditions.append(events.c.stored_ms < to_ms(until))
        if after_position is not None:
            conditions.append(events.c.position > after_position)
        if until_position is not None:
            conditions.append(events.c.position <= until_position)
        if dead:
            conditions.append(deliveries.c.state == "dead")
        else:
            conditions += wanted(connection, spec)
        chosen = (
            select(events.c.position)
            .join(deliveries, own, isouter=not dead)
            .where(*conditions)
            .order_by(events.c.position)
            .limit(_MOST_REPLAYED + 1)
        )
        found = connection.execute(chosen).scalars().all()
        is_more = len(found) > _MOST_REPLAYED
        found = found[:_MOST_REPLAYED]
        if found:
            outcome = Outcome(0, "waiting", 0, now_ms, now_ms, None, None, None, None)._asdict()
            del outcome["position"]
            rows = [{"webhook_id": webhook_id, "event_position": each, **outcome} for each in found]
            connection.execute(upsert(connection), rows)
            revised = update(webhooks).where(webhooks.c.id == webhook_id)
            connection.execute(revised.values(revision=webhook_row.revision + 1))
    ctx.bell.ring()
    return Replayed(events=len(found), more_after=found[-1] if is_more else None)


def list_deliveries(
    ctx: Context, webhook_id: str, *, limit: int, before: int | None = None, state: State | None = None
) -> list[Delivery]:
    """Up to `limit` deliveries, the latest events first, of events before position `before`; only those in a state,
    where it is given. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        row = require(connection, webhook_id)
        spec = webhook_of(row, ctx.now_ms())
        own = (deliveries.c.webhook_id == webhook_id) & (deliveries.c.event_position == events.c.position)
        is_plain = (
            deliveries.c.event_position.is_(None)
            & (events.c.position > row.first_position)
            & (events.c.position <= row.position)
        )
        for condition in wanted(connection, spec):
            is_plain &= condition
        conditions: list[ColumnElement[bool]] = [] if before is None else [events.c.position < before]
        if state is None:
            conditions.append(or_(deliveries.c.event_position.is_not(None), is_plain))
        elif state == "delivered":
            conditions.append(or_(deliveries.c.state == state, is_plain))
        else:
            conditions.append(deliveries.c.state == state)
        rows = connection.execute(
            select(events, *(column.label(f"own_{column.name}") for column in deliveries.c))
            .join(deliveries, own, isouter=state in (None, "delivered"))
            .where(*conditions)
            .order_by(events.c.position.desc())
            .limit(limit)
        )
        return [_delivery(webhook_id, row) for row in rows]


def list_attempts(ctx: Context, webhook_id: str, *, limit: int, before: int | None = None) -> list[Attempt]:
    """Up to `limit` requests to the endpoint, the latest first, with ids below `before`. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        require(connection, webhook_id)
        conditions = [attempts.c.webhook_id == webhook_id]
        if before is not None:
            conditions.append(attempts.c.id < before)
        rows = connection.execute(select(attempts).where(*conditions).order_by(attempts.c.id.desc()).limit(limit))
        return [
            Attempt(
                id=row.id,
                at=from_ms(row.at_ms),
                duration_ms=row.duration_ms,
                events=row.events,
                first_position=row.first_position,
                last_position=row.last_position,
                status=row.status,
                error=row.error,
            )
            for row in rows
        ]


def progress(ctx: Context, webhook_id: str | None = None) -> list[Progress]:
    """How far webhooks were told, by id: all of them, or one. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        if webhook_id is not None:
            require(connection, webhook_id)
        last = last_position(connection)
        counts: dict[tuple[str, str], int] = {
            (owner, state): count
            for owner, state, count in connection.execute(
                select(deliveries.c.webhook_id, deliveries.c.state, func.count())
                .where(deliveries.c.webhook_id == webhook_id if webhook_id is not None else literal(True))
                .group_by(deliveries.c.webhook_id, deliveries.c.state)
            )
        }
        oldest = (
            select(events.c.stored_ms)
            .where(events.c.position > webhooks.c.position)
            .order_by(events.c.position)
            .limit(1)
            .correlate(webhooks)
            .scalar_subquery()
        )
        rows = connection.execute(
            select(webhooks.c.id, webhooks.c.state, webhooks.c.position, oldest.label("oldest_ms"))
            .where(webhooks.c.id == webhook_id if webhook_id is not None else literal(True))
            .order_by(webhooks.c.id)
        )
        return [
            Progress(
                webhook=row.id,
                state=row.state,
                behind=max(0, last - row.position),
                behind_s=0 if row.oldest_ms is None else max(0, ctx.now_ms() - row.oldest_ms) / 1000,
                waiting=counts.get((row.id, "waiting"), 0),
                dead=counts.get((row.id, "dead"), 0),
            )
            for row in rows
        ]


def _delivery(webhook_id: str, row: Row[Any]) -> Delivery:
    """Without a row of its own, an event up to the webhook's position was delivered at the first attempt."""
    is_plain = row.own_state is None
    return Delivery(
        webhook=webhook_id,
        event=event_of(row),
        state="delivered" if is_plain else row.own_state,
        attempts=1 if is_plain else row.own_attempts,
        due_at=from_ms(row.stored_ms if is_plain else row.own_due_ms),
        first_due_at=from_ms(row.stored_ms if is_plain else row.own_first_due_ms),
        last_at=None if row.own_last_ms is None else from_ms(row.own_last_ms),
        last_status=row.own_last_status,
        last_error=row.own_last_error,
        last_duration_ms=row.own_last_duration_ms,
    )
