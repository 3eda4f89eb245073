"""Webhooks: who is told of events, and how far each was told.

Events are delivered in the order of their positions, so that a webhook's progress is one number, `position`. Only an
event that could not be delivered at once has a row in `deliveries`; the events of its subject behind it wait there too.
"""

import secrets
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, literal, select, true, update

from leasehold.domain.values import Delivery, Event, Webhook
from leasehold.domain.webhooks import require_url, secret_of
from leasehold.errors import WebhookNotFound
from leasehold.service.context import Context, from_ms
from leasehold.service.events import event_of
from leasehold.service.replication import epoch_of
from leasehold.store.tables import deliveries as deliveries_table
from leasehold.store.tables import events, webhooks

_KEY_OCTETS = 32


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What is known of a delivery that was not simply made; instants in milliseconds since the Unix epoch."""

    position: int
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    due_ms: int
    first_due_ms: int
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What a webhook is to be told next.

    `retries` are due: the first of each subject, by position. `fresh` are new events, each with when it was stored in
    milliseconds since the Unix epoch; `looked_to` is up to where they were looked for. Events of the subjects in
    `blocked` wait for one before them.
    """

    retries: tuple[tuple[Event, Attempt], ...]
    next_due_ms: int | None
    blocked: frozenset[str]
    fresh: tuple[tuple[Event, int], ...]
    looked_to: int


def create(ctx: Context, url: str, types: Sequence[str] = ()) -> Webhook:
    """Subscribes a URL to the events from now on; empty `types` means all. Raises FieldInvalid."""
    require_url(url)
    with ctx.db.write() as connection:
        webhook_id = str(uuid.uuid4())
        position = connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one()
        connection.execute(
            insert(webhooks).values(
                id=webhook_id,
                url=url,
                types=list(types),
                secret=secret_of(secrets.token_bytes(_KEY_OCTETS)),
                state="active",
                first_position=position,
                position=position,
                created_ms=ctx.now_ms(),
            )
        )
        webhook = _webhook(_require(connection, webhook_id))
    ctx.bell.ring()
    return webhook


def get(ctx: Context, webhook_id: str) -> Webhook:
    """Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        return _webhook(_require(connection, webhook_id))


def list_webhooks(ctx: Context) -> list[Webhook]:
    """All, by id."""
    with ctx.db.read() as connection:
        return [_webhook(row) for row in connection.execute(select(webhooks).order_by(webhooks.c.id))]


def delete_webhook(ctx: Context, webhook_id: str) -> None:
    """Ends a subscription; what was not delivered yet never is. Raises WebhookNotFound."""
    with ctx.db.write() as connection:
        if not connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id)).rowcount:
            raise _missing(webhook_id)
    ctx.bell.ring()


def list_deliveries(ctx: Context, webhook_id: str, *, limit: int, before: int | None = None) -> list[Delivery]:
    """Up to `limit` deliveries, the latest events first, of events before position `before`. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        webhook = _require(connection, webhook_id)
        own = (deliveries_table.c.webhook_id == webhook_id) & (deliveries_table.c.event_position == events.c.position)
        rows = connection.execute(
            select(events, *(column.label(f"own_{column.name}") for column in deliveries_table.c))
            .join(deliveries_table, own, isouter=True)
            .where(
                events.c.position > webhook.first_position,
                events.c.position <= webhook.position,
                events.c.position < before if before is not None else true(),
                _is_wanted(webhook.types),
            )
            .order_by(events.c.position.desc())
            .limit(limit)
        )
        return [_delivery(webhook_id, row) for row in rows]


def active(ctx: Context) -> tuple[list[Webhook], int]:
    """The webhooks that are told of events, and the position of the last event."""
    with ctx.db.read() as connection:
        rows = connection.execute(select(webhooks).where(webhooks.c.state == "active").order_by(webhooks.c.id))
        last = connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one()
        return [_webhook(row) for row in rows], last


def source(ctx: Context) -> str:
    """CloudEvents' `source` of all events here: with it, an event's id is unique in the world."""
    with ctx.db.read() as connection:
        return f"urn:uuid:{epoch_of(connection)}"


def backlog(ctx: Context, webhook: Webhook, position: int, limit: int) -> Backlog:
    """What to tell the webhook, which was told or has rows for all up to `position`: up to `limit` of each kind."""
    now_ms = ctx.now_ms()
    with ctx.db.read() as connection:
        first = (
            select(func.min(deliveries_table.c.event_position))
            .join(events, events.c.position == deliveries_table.c.event_position)
            .where(deliveries_table.c.webhook_id == webhook.id, deliveries_table.c.state == "waiting")
            .group_by(events.c.subject)
        )
        heads = connection.execute(
            select(deliveries_table, events)
            .join(events, events.c.position == deliveries_table.c.event_position)
            .where(deliveries_table.c.webhook_id == webhook.id, deliveries_table.c.event_position.in_(first))
            .order_by(events.c.position)
        ).all()
        last = connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one()
        fresh = connection.execute(
            select(events)
            .where(events.c.position > position, _is_wanted(webhook.types))
            .order_by(events.c.position)
            .limit(limit)
        ).all()
    due = [row for row in heads if row.due_ms <= now_ms][:limit]
    return Backlog(
        retries=tuple((event_of(row), _attempt(row)) for row in due),
        next_due_ms=min((row.due_ms for row in heads), default=None),
        blocked=frozenset(row.subject for row in heads),
        fresh=tuple((event_of(row), row.stored_ms) for row in fresh),
        looked_to=fresh[-1].position if len(fresh) == limit else max(position, last),
    )


def record(ctx: Context, webhook_id: str, position: int, attempts: Collection[Attempt] = ()) -> None:
    """Keeps how far a webhook was told, and what became of deliveries with a row. Raises WebhookNotFound."""
    with ctx.db.write() as connection:
        changed = update(webhooks).where(webhooks.c.id == webhook_id).values(position=position)
        if not connection.execute(changed).rowcount:
            raise _missing(webhook_id)
        for attempt in attempts:
            values = {
                "state": attempt.state,
                "attempts": attempt.attempts,
                "due_ms": attempt.due_ms,
                "first_due_ms": attempt.first_due_ms,
                "last_status": attempt.last_status,
                "last_error": attempt.last_error,
            }
            own = (deliveries_table.c.webhook_id == webhook_id) & (
                deliveries_table.c.event_position == attempt.position
            )
            if not connection.execute(update(deliveries_table).where(own).values(**values)).rowcount:
                connection.execute(
                    insert(deliveries_table).values(webhook_id=webhook_id, event_position=attempt.position, **values)
                )


def give_up(ctx: Context, webhook: Webhook, position: int, stored_before_ms: int, reason: str) -> int:
    """Makes dead letters of the events behind `position` that were stored before an instant, and of which none could be
    tried, since the endpoint has been failing ever since. Returns up to which position. Raises WebhookNotFound."""
    with ctx.db.write() as connection:
        last: int = connection.execute(
            select(func.coalesce(func.max(events.c.position), position)).where(
                events.c.position > position, events.c.stored_ms < stored_before_ms
            )
        ).scalar_one()
        columns = ("webhook_id", "event_position", "state", "attempts", "due_ms", "first_due_ms", "last_error")
        connection.execute(
            insert(deliveries_table).from_select(
                columns,
                select(
                    literal(webhook.id),
                    events.c.position,
                    literal("dead"),
                    literal(0),
                    events.c.stored_ms,
                    events.c.stored_ms,
                    literal(reason),
                ).where(events.c.position > position, events.c.position <= last, _is_wanted(webhook.types)),
            )
        )
        changed = update(webhooks).where(webhooks.c.id == webhook.id).values(position=last)
        if not connection.execute(changed).rowcount:
            raise _missing(webhook.id)
    return last


def hasten(ctx: Context, webhook_id: str) -> None:
    """The endpoint is up again: what waits for it is due now."""
    with ctx.db.write() as connection:
        connection.execute(
            update(deliveries_table)
            .where(deliveries_table.c.webhook_id == webhook_id, deliveries_table.c.state == "waiting")
            .values(due_ms=ctx.now_ms())
        )


def disable(ctx: Context, webhook_id: str) -> None:
    """Its endpoint said that it is gone: nothing is sent there any more."""
    with ctx.db.write() as connection:
        connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(state="disabled"))
    ctx.bell.ring()


def position_of(ctx: Context, webhook_id: str) -> int:
    """How far the webhook was told. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        position: int = _require(connection, webhook_id).position
        return position


def _is_wanted(types: Sequence[str]) -> ColumnElement[bool]:
    return events.c.type.in_(types) if types else true()


def _require(connection: Connection, webhook_id: str) -> Row[Any]:
    row = connection.execute(select(webhooks).where(webhooks.c.id == webhook_id)).one_or_none()
    if row is None:
        raise _missing(webhook_id)
    return row


def _missing(webhook_id: str) -> WebhookNotFound:
    return WebhookNotFound(
        f"There is no webhook {webhook_id!r}. GET /v1/webhooks lists those that are.", webhook=webhook_id
    )


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        id=row.id,
        url=row.url,
        types=tuple(row.types),
        secret=row.secret,
        state=row.state,
        created_at=from_ms(row.created_ms),
    )


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        position=row.event_position,
        state=row.state,
        attempts=row.attempts,
        due_ms=row.due_ms,
        first_due_ms=row.first_due_ms,
        last_status=row.last_status,
        last_error=row.last_error,
    )


def _delivery(webhook_id: str, row: Row[Any]) -> Delivery:
    """Without a row of its own, an event up to the webhook's position was delivered at the first attempt."""
    is_plain = row.own_state is None
    due_ms = row.stored_ms if is_plain else row.own_due_ms
    return Delivery(
        webhook=webhook_id,
        event=event_of(row),
        state="delivered" if is_plain else row.own_state,
        attempts=1 if is_plain else row.own_attempts,
        due_at=from_ms(due_ms),
        first_due_at=from_ms(row.stored_ms if is_plain else row.own_first_due_ms),
        last_status=None if is_plain else row.own_last_status,
        last_error=None if is_plain else row.own_last_error,
    )
