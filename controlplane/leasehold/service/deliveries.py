"""Deliveries: what each webhook is told next, how far it was told, and what is told again.

Events are delivered in the order of their positions, so that a webhook's progress is one number, `position`. Only an
event that could not be delivered at once, or is sent again, has a row in `deliveries`; the events of its subject behind
it wait there too.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Text, cast, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from leasehold.domain.values import Attempt, Delivery, Progress, Replayed, Webhook, WebhookSpec
from leasehold.domain.webhooks import cloud_event
from leasehold.errors import FieldInvalid
from leasehold.service.context import Context, from_ms, to_ms
from leasehold.service.events import event_of, last_position
from leasehold.service.webhooks import hasten, missing, require, webhook_of
from leasehold.store.tables import attempts, deliveries, events, webhooks

_WINDOW = 50_000
_SCANNED_AT_ONCE = 5_000
_ATTEMPTS_KEPT = 1_000
_GIVEN_UP_AT_ONCE = 20_000
_MOST_REPLAYED = 100_000

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


def backlog(ctx: Context, webhook_id: str, source: str, position: int, limit: int, *, revision: int | None) -> Backlog:
    """What to tell a webhook that was told, or has rows, of all up to `position`: up to `limit` of each kind.

    `revision` is what the caller knows of the webhook, and of what waits for it: at that one waiting rows are not
    looked at; None looks at them. Raises WebhookNotFound.
    """
    now_ms = ctx.now_ms()
    with ctx.db.read() as connection:
        webhook = webhook_of(require(connection, webhook_id), now_ms)
        last = last_position(connection)
        if webhook.state != "active":
            limit = 0
        retries: list[Parcel] = []
        blocked: frozenset[str] = frozenset()
        is_whole, next_due_ms = True, None
        if webhook.revision != revision:
            due, blocked, is_whole, next_due_ms = _due(connection, webhook_id, now_ms, limit)
            retries = _parcels(connection, webhook_id, source, due)
        until = min(position + _WINDOW, last)
        fresh = connection.execute(
            select(*_TOLD)
            .where(events.c.position > position, events.c.position <= until, *_wanted(connection, webhook))
            .order_by(events.c.position)
            .limit(limit)
        ).all()
    return Backlog(
        webhook=webhook,
        retries=retries,
        blocked=blocked,
        is_whole=is_whole,
        next_due_ms=next_due_ms,
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
            connection.execute(_upsert(connection), rows)
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
                ).where(events.c.position > position, events.c.position <= last, *_wanted(connection, webhook)),
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
            conditions += _wanted(connection, spec)
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
            connection.execute(_upsert(connection), rows)
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
        for condition in _wanted(connection, spec):
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


def _due(
    connection: Connection, webhook_id: str, now_ms: int, limit: int
) -> tuple[list[int], frozenset[str], bool, int | None]:
    """Positions of up to `limit` waiting events that are due, none before one of its subject that is not; the other
    subjects that wait; whether these are all; and when the first of them is due."""
    found: list[int] = []
    blocked: set[str] = set()
    next_due_ms: int | None = None
    after = -1
    while len(found) < limit:
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
            if subject in blocked:
                continue
            if due_ms <= now_ms:
                found.append(position)
            else:
                blocked.add(subject)
                next_due_ms = due_ms if next_due_ms is None else min(next_due_ms, due_ms)
        if len(rows) < _SCANNED_AT_ONCE:
            return found[:limit], frozenset(blocked), len(found) <= limit, next_due_ms
        after = rows[-1].event_position
    return found[:limit], frozenset(blocked), False, next_due_ms


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


def _wanted(connection: Connection, spec: WebhookSpec) -> list[ColumnElement[bool]]:
    """What must hold of an event."""
    conditions: list[ColumnElement[bool]] = []
    if spec.types and "*" not in spec.types:
        exact = [each for each in spec.types if not each.endswith("*")]
        prefixes = [each.removesuffix("*") for each in spec.types if each.endswith("*")]
        conditions.append(
            or_(events.c.type.in_(exact), *(events.c.type.startswith(each, autoescape=True) for each in prefixes))
        )
    if spec.subjects:
        conditions.append(or_(*(_subject_fits(connection, pattern) for pattern in spec.subjects)))
    if spec.networks:
        conditions.append(events.c.data["network"].as_string().in_(spec.networks))
    if spec.subnets:
        # As text, since PostgreSQL fails on what is no number, and SQLite finds none there.
        conditions.append(cast(events.c.data["subnet"].as_string(), Text).in_([str(each) for each in spec.subnets]))
    return conditions


def _subject_fits(connection: Connection, pattern: str) -> ColumnElement[bool]:
    """SQLite's LIKE takes a for A; its GLOB does not, but gives a meaning to ? and [ too."""
    if connection.dialect.name == "sqlite":
        escaped = pattern.replace("[", "[[]").replace("?", "[?]")
        return events.c.subject.bool_op("GLOB")(escaped)
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
    return events.c.subject.like(escaped, escape="\\")


def _upsert(connection: Connection) -> Any:
    """Of a row in `deliveries`, from executemany's parameters."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(deliveries)
    key = ("webhook_id", "event_position")
    own = {column.name: statement.excluded[column.name] for column in deliveries.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=own)


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
