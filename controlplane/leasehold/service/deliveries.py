"""Deliveries: what each webhook is told next, and how far it was told.

Events are delivered in the order of their positions, so that a webhook's progress is one number, `position`. Only an
event that could not be delivered at once, or is sent again, has a row in `deliveries`; the events of its subject behind
it wait there too.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Text, cast, delete, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from leasehold.domain.values import Webhook
from leasehold.domain.webhooks import cloud_event
from leasehold.service.context import Context
from leasehold.service.events import last_position
from leasehold.service.webhooks import hasten, missing, require, wanted, webhook_of
from leasehold.store.tables import attempts, deliveries, events, webhooks

_WINDOW = 50_000
_SCANNED_AT_ONCE = 5_000
_ATTEMPTS_KEPT = 1_000
_GIVEN_UP_AT_ONCE = 20_000

State = Literal["waiting", "delivered", "dead"]


class Parcel(NamedTuple):
    """An event for a webhook, as its cloud event's JSON; instants in milliseconds since the Unix epoch."""

    position: int
    subject: str
    text: str
    attempts: int
    first_due_ms: int


class Outcome(NamedTuple):
    """What is known of a delivery that was not simply made."""

    position: int
    state: State
    attempts: int
    due_ms: int
    first_due_ms: int
    last_ms: int | None
    last_status: int | None
    last_error: str | None
    last_duration_ms: int | None


class Try(NamedTuple):
    """One request."""

    at_ms: int
    duration_ms: int
    events: int
    first_position: int
    last_position: int
    status: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What a webhook is to be told next: first the `retries`, which are due, then what is `fresh`, both by position.

    `blocked` are the subjects of which an event waits that is not among the retries; `is_whole` says that none is
    missing there. `next_due_ms` is when the first of those is due. `looked_to` is up to where fresh events were looked
    for, `last` the position of the last event of all.
    """

    webhook: Webhook
    retries: Sequence[Parcel]
    blocked: frozenset[str]
    is_whole: bool
    next_due_ms: int | None
    fresh: Sequence[Parcel]
    looked_to: int
    last: int


def active(ctx: Context) -> tuple[dict[str, int], int]:
    """The webhooks that are told of events, each with its revision, and the position of the last event."""
    with ctx.db.read() as connection:
        rows = connection.execute(select(webhooks.c.id, webhooks.c.revision).where(webhooks.c.state == "active"))
        return {row.id: row.revision for row in rows}, last_position(connection)


def position_of(ctx: Context, webhook_id: str) -> int:
    """How far the webhook was told. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        position: int = require(connection, webhook_id).position
        return position


def backlog(
    ctx: Context,
    webhook_id: str,
    source: str,
    position: int,
    limit: int,
    *,
    revision: int | None,
    anyway: bool = False,
) -> Backlog:
    """What to tell a webhook that was told, or has rows, of all up to `position`: up to `limit` of each kind.

    `revision` is what the caller knows of the webhook, and of what waits for it: at that one waiting rows are not
    looked at; None looks at them. With `anyway`, the first that will be due counts as due if no other is. Raises
    WebhookNotFound.
    """
    now_ms = ctx.now_ms()
    with ctx.db.read() as connection:
        webhook = webhook_of(require(connection, webhook_id), now_ms)
        last = last_position(connection)
        if webhook.state != "active":
            limit = 0
        waiting = _Waiting([], set())
        if webhook.revision != revision:
            waiting = _waiting(connection, webhook_id, now_ms, limit)
            if anyway and not waiting.due and waiting.next_position is not None:
                waiting.due.append(waiting.next_position)
        retries = _parcels(connection, webhook_id, source, waiting.due)
        until = min(position + _WINDOW, last)
        fresh = connection.execute(
            select(*_TOLD)
            .where(events.c.position > position, events.c.position <= until, *wanted(connection, webhook))
            .order_by(events.c.position)
            .limit(limit)
        ).all()
    return Backlog(
        webhook=webhook,
        retries=retries,
        blocked=frozenset(waiting.blocked),
        is_whole=waiting.is_whole,
        next_due_ms=waiting.next_due_ms,
        fresh=[
            Parcel(at, subject, _text(source, id, type, subject, sequence, time_ms, data), 0, stored_ms)
            for at, id, type, subject, sequence, time_ms, stored_ms, data in fresh
        ],
        looked_to=fresh[-1].position if len(fresh) == limit > 0 else max(position, until),
        last=last,
    )


def record(
    ctx: Context, webhook_id: str, position: int, outcomes: Collection[Outcome] = (), tries: Collection[Try] = ()
) -> None:
    """Keeps how far a webhook was told, what became of deliveries with a row, and of the requests the last ones. Raises
    WebhookNotFound."""
    with ctx.db.write() as connection:
        changed = update(webhooks).where(webhooks.c.id == webhook_id).values(position=position)
        if not connection.execute(changed).rowcount:
            raise missing(webhook_id)
        if outcomes:
            rows = [
                {
                    "webhook_id": webhook_id,
                    "event_position": position,
                    **dict(zip(Outcome._fields[1:], rest, strict=True)),
                }
                for position, *rest in outcomes
            ]
            connection.execute(upsert(connection), rows)
        if tries:
            connection.execute(insert(attempts), [{"webhook_id": webhook_id, **each._asdict()} for each in tries])
            own = attempts.c.webhook_id == webhook_id
            oldest = select(attempts.c.id).where(own).order_by(attempts.c.id.desc()).offset(_ATTEMPTS_KEPT).limit(1)
            connection.execute(delete(attempts).where(own, attempts.c.id <= oldest.scalar_subquery()))


def give_up(ctx: Context, webhook: Webhook, position: int, stored_before_ms: int, reason: str) -> int:
    """Makes dead letters of the events behind `position` that were stored before an instant, and of which none could be
    tried, since the endpoint has been failing ever since: of some of them, so that nobody waits for long. Returns up to
    which position. Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        last: int = connection.execute(
            select(func.coalesce(func.max(events.c.position), position)).where(
                events.c.position > position,
                events.c.position <= position + _GIVEN_UP_AT_ONCE,
                events.c.stored_ms < stored_before_ms,
            )
        ).scalar_one()
    if last == position:
        return last
    with ctx.db.write() as connection:
        columns = ("webhook_id", "event_position", "state", "attempts", "due_ms", "first_due_ms", "last_error")
        connection.execute(
            insert(deliveries).from_select(
                columns,
                select(
                    literal(webhook.id),
                    events.c.position,
                    literal("dead"),
                    literal(0),
                    events.c.stored_ms,
                    events.c.stored_ms,
                    literal(reason),
                ).where(events.c.position > position, events.c.position <= last, *wanted(connection, webhook)),
            )
        )
        changed = update(webhooks).where(webhooks.c.id == webhook.id).values(position=last)
        if not connection.execute(changed).rowcount:
            raise missing(webhook.id)
    return last


def endpoint_is_up(ctx: Context, webhook_id: str) -> None:
    """What waits for it is due now."""
    with ctx.db.write() as connection:
        hasten(connection, webhook_id, ctx.now_ms())


def disable(ctx: Context, webhook_id: str, reason: str) -> None:
    """Its endpoint said that it is gone: nothing is sent there until somebody resumes it."""
    with ctx.db.write() as connection:
        connection.execute(
            update(webhooks)
            .where(webhooks.c.id == webhook_id)
            .values(state="disabled", state_reason=reason, revision=webhooks.c.revision + 1)
        )
    ctx.bell.ring()


# As text, which is not parsed only to be written again.
_TOLD = (
    events.c.position,
    events.c.id,
    events.c.type,
    events.c.subject,
    events.c.sequence,
    events.c.time_ms,
    events.c.stored_ms,
    cast(events.c.data, Text).label("data"),
)


def _text(source: str, id: str, type: str, subject: str, sequence: int, time_ms: int, data: str) -> str:
    return cloud_event(source=source, id=id, type=type, subject=subject, time_ms=time_ms, sequence=sequence, data=data)


@dataclass
class _Waiting:
    """Positions of waiting events that are `due`, none before one of its subject that is not; the other subjects that
    wait; whether these are all; and when the first of those is due, and where it is."""

    due: list[int]
    blocked: set[str]
    is_whole: bool = True
    next_due_ms: int | None = None
    next_position: int | None = None


def _waiting(connection: Connection, webhook_id: str, now_ms: int, limit: int) -> _Waiting:
    """Up to `limit` of those that are due."""
    found = _Waiting([], set())
    after = -1
    while len(found.due) < limit:
        rows = connection.execute(
            select(deliveries.c.event_position, deliveries.c.due_ms, events.c.subject)
            .join(events, events.c.position == deliveries.c.event_position)
            .where(
                deliveries.c.webhook_id == webhook_id,
                deliveries.c.state == "waiting",
                deliveries.c.event_position > after,
            )
            .order_by(deliveries.c.event_position)
            .limit(_SCANNED_AT_ONCE)
        ).all()
        for position, due_ms, subject in rows:
            if subject in found.blocked:
                continue
            if due_ms <= now_ms:
                found.due.append(position)
                continue
            found.blocked.add(subject)
            if found.next_due_ms is None or due_ms < found.next_due_ms:
                found.next_due_ms, found.next_position = due_ms, position
        if len(rows) < _SCANNED_AT_ONCE:
            break
        after = rows[-1].event_position
    else:
        found.is_whole = False
    if len(found.due) > limit:
        found.is_whole = False
        del found.due[limit:]
    return found


def _parcels(connection: Connection, webhook_id: str, source: str, positions: Sequence[int]) -> list[Parcel]:
    parcels = []
    for begin in range(0, len(positions), _SCANNED_AT_ONCE):
        rows = connection.execute(
            select(*_TOLD, deliveries.c.attempts, deliveries.c.first_due_ms)
            .join(deliveries, deliveries.c.event_position == events.c.position)
            .where(
                deliveries.c.webhook_id == webhook_id,
                deliveries.c.event_position.in_(positions[begin : begin + _SCANNED_AT_ONCE]),
            )
            .order_by(events.c.position)
        )
        parcels += [
            Parcel(at, subject, _text(source, id, type, subject, sequence, time_ms, data), tried, first_due_ms)
            for at, id, type, subject, sequence, time_ms, _, data, tried, first_due_ms in rows
        ]
    return parcels


def upsert(connection: Connection) -> Any:
    """The statement for a row in `deliveries`, from executemany's parameters."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(deliveries)
    key = ("webhook_id", "event_position")
    own = {column.name: statement.excluded[column.name] for column in deliveries.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=own)
