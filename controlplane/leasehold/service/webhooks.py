"""Webhooks: who is told of which events, where, and with which secret."""

import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, cast, delete, func, insert, or_, select, update

from leasehold.domain.values import Batch, Trial, Webhook, WebhookSpec
from leasehold.domain.webhooks import allowed_networks, cloud_event, message, require_sound, secret_of
from leasehold.errors import WebhookNotFound
from leasehold.outbound.endpoint import Endpoint, NoAnswer
from leasehold.service.context import Context, from_ms
from leasehold.service.replication import epoch_of
from leasehold.store.tables import deliveries, events, webhooks

_KEY_OCTETS = 32
_FILTERS = ("types", "subjects", "networks", "subnets")
TEST_TYPE = "webhook.test"


def create(ctx: Context, spec: WebhookSpec, *, dry_run: bool = False) -> Webhook:
    """Subscribes a URL to the events from now on. Raises FieldInvalid."""
    require_sound(spec)
    with ctx.db.write(dry_run=dry_run) as connection:
        webhook_id = str(uuid.uuid4())
        position = connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one()
        connection.execute(
            insert(webhooks).values(
                id=webhook_id,
                **_columns(spec),
                secret=_new_secret(),
                state="active",
                revision=1,
                first_position=position,
                position=position,
                created_ms=ctx.now_ms(),
            )
        )
        webhook = webhook_of(require(connection, webhook_id), ctx.now_ms())
    ctx.bell.ring()
    return webhook


def get(ctx: Context, webhook_id: str) -> Webhook:
    """Raises WebhookNotFound."""
    with ctx.db.read() as connection:
        return webhook_of(require(connection, webhook_id), ctx.now_ms())


def list_webhooks(ctx: Context) -> list[Webhook]:
    """All, by id."""
    with ctx.db.read() as connection:
        rows = connection.execute(select(webhooks).order_by(webhooks.c.id))
        return [webhook_of(row, ctx.now_ms()) for row in rows]


def change(ctx: Context, webhook_id: str, wanted: Mapping[str, object], *, dry_run: bool = False) -> Webhook:
    """Changes the named fields of the WebhookSpec, for all that is not delivered yet. Raises WebhookNotFound,
    FieldInvalid."""

    def values(_: Connection, row: Row[Any]) -> Mapping[str, object]:
        before = webhook_of(row, ctx.now_ms())
        given: dict[str, Any] = {each.name: getattr(before, each.name) for each in fields(WebhookSpec)} | dict(wanted)
        spec = WebhookSpec(**given)
        require_sound(spec)
        # What was delivered at once is known by its position, and that it was wanted then.
        keeps = all(getattr(spec, each) == getattr(before, each) for each in _FILTERS)
        return {**_columns(spec), **({} if keeps else {"first_position": row.position})}

    return _change(ctx, webhook_id, values, dry_run)


def pause(ctx: Context, webhook_id: str, *, dry_run: bool = False) -> Webhook:
    """Sends nothing until it is resumed; what happens meanwhile is kept for then. Raises WebhookNotFound."""
    return _change(ctx, webhook_id, lambda *_: {"state": "paused", "state_reason": None}, dry_run)


def resume(ctx: Context, webhook_id: str, *, dry_run: bool = False) -> Webhook:
    """Goes on where it was paused, or disabled since its endpoint was gone; what waits is due now. Raises
    WebhookNotFound."""

    def values(connection: Connection, _: Row[Any]) -> Mapping[str, object]:
        hasten(connection, webhook_id, ctx.now_ms())
        return {"state": "active", "state_reason": None}

    return _change(ctx, webhook_id, values, dry_run)


def rotate_secret(ctx: Context, webhook_id: str, *, overlap_s: float, dry_run: bool = False) -> Webhook:
    """A new secret; for `overlap_s` seconds the one before it signs as well. Raises WebhookNotFound."""
    until_ms = ctx.now_ms() + round(overlap_s * 1000)

    def values(_: Connection, row: Row[Any]) -> Mapping[str, object]:
        return {"secret": _new_secret(), "old_secret": row.secret, "old_secret_until_ms": until_ms}

    return _change(ctx, webhook_id, values, dry_run)


def delete_webhook(ctx: Context, webhook_id: str, *, dry_run: bool = False) -> None:
    """Ends a subscription; what was not delivered yet never is. Raises WebhookNotFound."""
    with ctx.db.write(dry_run=dry_run) as connection:
        if not connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id)).rowcount:
            raise missing(webhook_id)
    ctx.bell.ring()


def test(ctx: Context, webhook_id: str) -> Trial:
    """Sends an event of type `webhook.test` now, whatever the webhook's state and filters; it is no delivery, and is
    not repeated. Raises WebhookNotFound."""
    webhook = get(ctx, webhook_id)
    event = cloud_event(
        source=source(ctx),
        id=str(uuid.uuid4()),
        type=TEST_TYPE,
        subject=f"webhooks/{webhook_id}",
        time_ms=ctx.now_ms(),
        sequence=0,
        data="{}",
    )
    sent = message(f"{webhook_id}-test-{uuid.uuid4()}", [0], [event], as_batch=webhook.batch is not None)
    allowed = allowed_networks(ctx.settings.webhook_allowed_networks)
    endpoint = Endpoint(webhook.url, timeout_s=ctx.settings.webhook_timeout_s, allowed=allowed)
    began = time.monotonic()
    try:
        status: int | None = endpoint.post(sent.body, sent.headers(webhook.secrets, int(time.time()))).status
        error = error_of(status)
    except NoAnswer as answer:
        status, error = None, str(answer)
    finally:
        endpoint.close()
    duration_ms = round((time.monotonic() - began) * 1000)
    return Trial(delivered=error is None, status=status, error=error, duration_ms=duration_ms)


def error_of(status: int | None) -> str | None:
    """What is wrong with an HTTP status; None for those of success."""
    if status is not None and 200 <= status < 300:
        return None
    what = "a redirect, which is not followed" if status is not None and 300 <= status < 400 else "an error"
    return f"HTTP status {status}: {what}"


def source(ctx: Context) -> str:
    """CloudEvents' `source` of all events here: with it, an event's id is unique in the world."""
    with ctx.db.read() as connection:
        return f"urn:uuid:{epoch_of(connection)}"


def hasten(connection: Connection, webhook_id: str, now_ms: int) -> None:
    """What waits for it is due now."""
    own = (deliveries.c.webhook_id == webhook_id) & (deliveries.c.state == "waiting")
    connection.execute(update(deliveries).where(own, deliveries.c.due_ms > now_ms).values(due_ms=now_ms))


def require(connection: Connection, webhook_id: str, *, lock: bool = False) -> Row[Any]:
    """Its row. Raises WebhookNotFound."""
    query = select(webhooks).where(webhooks.c.id == webhook_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise missing(webhook_id)
    return row


def missing(webhook_id: str) -> WebhookNotFound:
    """What to say of an id that no webhook has."""
    return WebhookNotFound(
        f"There is no webhook {webhook_id!r}. GET /v1/webhooks lists those that are.", webhook=webhook_id
    )


def webhook_of(row: Row[Any], now_ms: int) -> Webhook:
    """The webhook of a row, with the secrets that sign at an instant."""
    overlaps = row.old_secret_until_ms is not None and now_ms < row.old_secret_until_ms
    return Webhook(
        id=row.id,
        url=row.url,
        description=row.description,
        types=tuple(row.types),
        subjects=tuple(row.subjects),
        networks=tuple(row.networks),
        subnets=tuple(row.subnets),
        batch=None if row.batch_events is None else Batch(events=row.batch_events, octets=row.batch_octets),
        concurrency=row.concurrency,
        secrets=(row.secret, row.old_secret) if overlaps else (row.secret,),
        old_secret_until=from_ms(row.old_secret_until_ms) if overlaps else None,
        state=row.state,
        state_reason=row.state_reason,
        revision=row.revision,
        created_at=from_ms(row.created_ms),
    )


def wanted(connection: Connection, spec: WebhookSpec) -> list[ColumnElement[bool]]:
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


def _columns(spec: WebhookSpec) -> dict[str, object]:
    return {
        "url": spec.url,
        "description": spec.description,
        "types": list(spec.types),
        "subjects": list(spec.subjects),
        "networks": list(spec.networks),
        "subnets": list(spec.subnets),
        "batch_events": None if spec.batch is None else spec.batch.events,
        "batch_octets": None if spec.batch is None else spec.batch.octets,
        "concurrency": spec.concurrency,
    }


def _change(
    ctx: Context,
    webhook_id: str,
    values: Callable[[Connection, Row[Any]], Mapping[str, object]],
    dry_run: bool,
) -> Webhook:
    """Sets columns of a row, which is locked when they are asked for, and wakes whoever delivers."""
    with ctx.db.write(dry_run=dry_run) as connection:
        row = require(connection, webhook_id, lock=True)
        changed = update(webhooks).where(webhooks.c.id == webhook_id)
        connection.execute(changed.values(revision=row.revision + 1, **values(connection, row)))
        webhook = webhook_of(require(connection, webhook_id), ctx.now_ms())
    ctx.bell.ring()
    return webhook


def _new_secret() -> str:
    return secret_of(secrets.token_bytes(_KEY_OCTETS))
