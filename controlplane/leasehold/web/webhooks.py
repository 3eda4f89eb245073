"""`/v1/webhooks`, their deliveries and attempts."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from leasehold.domain.values import Attempt, Batch, Delivery, Replayed, Trial, Webhook, WebhookSpec
from leasehold.domain.webhooks import (
    MOST_BATCH_EVENTS,
    MOST_BATCH_OCTETS,
    MOST_CONCURRENCY,
    SUBJECT_PATTERN,
    TYPE_PATTERN,
)
from leasehold.errors import WebhookNotFound
from leasehold.service import delivery_log, webhooks
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.events import EventOut
from leasehold.web.wire import (
    BodySubnetId,
    HttpUrl,
    Id,
    In,
    Instant,
    Listing,
    Out,
    Page,
    PageOut,
    PageQuery,
    Text,
    WriteQuery,
    id_key,
    matching,
    number_key,
)

routes = Routes("webhooks")
_webhooks = Listing[Webhook, str]("webhooks", lambda each: each.id, id_key)
_deliveries = Listing[Delivery, int]("deliveries", lambda each: each.event.position, number_key)
_attempts = Listing[Attempt, int]("attempts", lambda each: each.id, number_key)

_type_rule, _type_schema = matching(TYPE_PATTERN, "is not a type of events, or several like lease.* or *")
_subject_rule, _subject_schema = matching(
    SUBJECT_PATTERN, "should be 1 to 255 printable ASCII characters without spaces, in which * stands for anything"
)
_Types = Annotated[tuple[Annotated[str, _type_rule, _type_schema], ...], Field(max_length=32)]
_Subjects = Annotated[tuple[Annotated[str, _subject_rule, _subject_schema], ...], Field(max_length=100)]
_Networks = Annotated[tuple[Id, ...], Field(max_length=1000)]
_Subnets = Annotated[tuple[BodySubnetId, ...], Field(max_length=1000)]
_Concurrency = Annotated[int, Field(ge=1, le=MOST_CONCURRENCY)]
_Position = Annotated[int, Field(ge=0, le=2**63 - 1)]


class BatchIn(In):
    """The most that a request carries, as CloudEvents' JSON batch: events, and octets where it is more than one."""

    events: Annotated[int, Field(ge=1, le=MOST_BATCH_EVENTS)] = 500
    octets: Annotated[int, Field(ge=1, le=MOST_BATCH_OCTETS)] = 2**20

    def value(self) -> Batch:
        """As the service takes it."""
        return Batch(events=self.events, octets=self.octets)


class WebhookIn(In):
    """A subscription. An event fits if it fits each of the lists; an empty list fits all. `types` and `subjects` may
    have `*` in them: `lease.*`, `subnets/7/*`. Without `batch`, one event a request. `concurrency` is how many requests
    may be under way at once; the events of one subject keep their order."""

    url: HttpUrl
    description: Text = ""
    types: _Types = ()
    subjects: _Subjects = ()
    networks: _Networks = ()
    subnets: _Subnets = ()
    batch: BatchIn | None = None
    concurrency: _Concurrency = 1

    def value(self) -> WebhookSpec:
        """As the service takes it."""
        return WebhookSpec(
            url=self.url,
            description=self.description,
            types=self.types,
            subjects=self.subjects,
            networks=self.networks,
            subnets=self.subnets,
            batch=None if self.batch is None else self.batch.value(),
            concurrency=self.concurrency,
        )


class WebhookPatch(In):
    """What is to change; fields left out stay. `batch` null: one event a request from now on."""

    url: HttpUrl | None = None
    description: Text | None = None
    types: _Types | None = None
    subjects: _Subjects | None = None
    networks: _Networks | None = None
    subnets: _Subnets | None = None
    batch: BatchIn | None = None
    concurrency: _Concurrency | None = None

    def values(self) -> dict[str, object]:
        """The fields that are to change, as the service takes them."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        changed = {name: value for name, value in given.items() if value is not None}
        return changed | ({"batch": self.batch and self.batch.value()} if "batch" in given else {})


class RotationIn(In):
    """For how many seconds the secret before it signs as well."""

    overlap_s: Annotated[int, Field(ge=0, le=30 * 24 * 3600)] = 24 * 3600


class ReplayIn(In):
    """Which events are sent again: those for which each given condition holds. `dead`: given up before. Instants are
    those when an event was stored, positions those in `/v1/events`."""

    ids: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], Field(max_length=1000)] = ()
    since: Instant | None = None
    until: Instant | None = None
    after_position: _Position | None = None
    until_position: _Position | None = None
    dead: bool = False

    def conditions(self) -> dict[str, Any]:
        """As the service takes them."""
        return {name: getattr(self, name) for name in type(self).model_fields}


_ROTATION = RotationIn()


class WebhookOut(Out):
    """A subscription, without its secrets. `old_secret_until`: until then the secret before signs as well."""

    id: str
    url: str
    description: str
    types: list[str]
    subjects: list[str]
    networks: list[str]
    subnets: list[int]
    batch: BatchIn | None
    concurrency: int
    state: Literal["active", "paused", "disabled"]
    state_reason: str | None
    old_secret_until: datetime | None
    created_at: datetime


class ProgressOut(Out):
    """How far a webhook was told. `behind`: events that came after the last that it was told of, those that it does not
    want included; `behind_s`: the age of the first of them, in seconds. `waiting`: deliveries to be repeated; `dead`:
    given up."""

    behind: int
    behind_s: float
    waiting: int
    dead: int


class WebhookShown(WebhookOut):
    """A subscription, and how far it was told."""

    progress: ProgressOut


class WebhookPage(PageOut[WebhookOut]):
    """Part of the list of webhooks."""


class WebhookSecret(WebhookOut):
    """A subscription, with the secret that signs its deliveries, which is shown this once."""

    secret: str


class DeliveryOut(Out):
    """One event for one webhook. Of one that was delivered at once the `last_…` fields are null. `last_status` null:
    the last attempt got no answer."""

    event: EventOut
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    due_at: datetime
    first_due_at: datetime
    last_at: datetime | None
    last_status: int | None
    last_error: str | None
    last_duration_ms: int | None


class DeliveryPage(PageOut[DeliveryOut]):
    """Part of the list of deliveries."""


class AttemptOut(Out):
    """One request, with so many events from one position to another. `error` null: they were delivered."""

    id: int
    at: datetime
    duration_ms: int
    events: int
    first_position: int
    last_position: int
    status: int | None
    error: str | None


class AttemptPage(PageOut[AttemptOut]):
    """Part of the list of attempts."""


class TrialOut(Out):
    """What the endpoint said to a test event."""

    delivered: bool
    status: int | None
    error: str | None
    duration_ms: int


class ReplayedOut(Out):
    """How many events are sent again. `more_after`: there are more behind this position; ask again with it as
    `after_position`."""

    events: int
    more_after: int | None


class DeliveriesQuery(PageQuery):
    """Which deliveries."""

    state: Literal["waiting", "delivered", "dead"] | None = None
    """Only those in this state."""


class Shown:
    """A webhook with something beside it, as the answer models read it."""

    def __init__(self, webhook: Webhook, **more: object) -> None:
        self.__dict__.update({name: getattr(webhook, name) for name in WebhookOut.model_fields}, **more)


@routes.on("POST", "/webhooks", roles=WRITERS, keyed=True, answer=WebhookSecret, statuses=(201, 200))
def create_webhook(ctx: Context, query: WriteQuery, body: WebhookIn) -> Reply[Shown]:
    """Subscribes a URL to events from now on. The secret is in this answer, and in no other."""
    webhook = webhooks.create(ctx, body.value(), dry_run=query.dry_run)
    shown = Shown(webhook, secret=webhook.secrets[0])
    return Reply(shown) if query.dry_run else Reply(shown, 201, f"/v1/webhooks/{webhook.id}")


@routes.on("GET", "/webhooks", roles=READERS, answer=WebhookPage)
def list_webhooks(ctx: Context, query: PageQuery) -> Page[Webhook]:
    """Every webhook, by id."""
    return _webhooks.page_of(query, webhooks.list_webhooks(ctx))


@routes.on("GET", "/webhooks/<webhook_id>", roles=READERS, answer=WebhookShown, errors=[WebhookNotFound])
def get_webhook(ctx: Context, webhook_id: Id) -> Shown:
    """One webhook, and how far it was told."""
    (progress,) = delivery_log.progress(ctx, webhook_id)
    return Shown(webhooks.get(ctx, webhook_id), progress=progress)


@routes.on("PATCH", "/webhooks/<webhook_id>", roles=WRITERS, answer=WebhookOut, errors=[WebhookNotFound])
def patch_webhook(ctx: Context, webhook_id: Id, query: WriteQuery, body: WebhookPatch) -> Webhook:
    """Changes a webhook, for all that is not delivered yet."""
    return webhooks.change(ctx, webhook_id, body.values(), dry_run=query.dry_run)


@routes.on("DELETE", "/webhooks/<webhook_id>", roles=WRITERS, errors=[WebhookNotFound])
def delete_webhook(ctx: Context, webhook_id: Id, query: WriteQuery) -> None:
    """Ends a subscription; what was not delivered yet never is."""
    webhooks.delete_webhook(ctx, webhook_id, dry_run=query.dry_run)


@routes.on("POST", "/webhooks/<webhook_id>/pause", roles=WRITERS, answer=WebhookOut, errors=[WebhookNotFound])
def pause_webhook(ctx: Context, webhook_id: Id, query: WriteQuery) -> Webhook:
    """Sends nothing until it is resumed; what happens meanwhile is kept for then."""
    return webhooks.pause(ctx, webhook_id, dry_run=query.dry_run)


@routes.on("POST", "/webhooks/<webhook_id>/resume", roles=WRITERS, answer=WebhookOut, errors=[WebhookNotFound])
def resume_webhook(ctx: Context, webhook_id: Id, query: WriteQuery) -> Webhook:
    """Goes on where it was paused, or disabled since its endpoint was gone; what waits is due now."""
    return webhooks.resume(ctx, webhook_id, dry_run=query.dry_run)


@routes.on("POST", "/webhooks/<webhook_id>/rotate", roles=WRITERS, answer=WebhookSecret, errors=[WebhookNotFound])
def rotate_secret(ctx: Context, webhook_id: Id, query: WriteQuery, body: RotationIn = _ROTATION) -> Shown:
    """Draws a new secret, which is in this answer and in no other; for a while the old one signs as well."""
    webhook = webhooks.rotate_secret(ctx, webhook_id, overlap_s=body.overlap_s, dry_run=query.dry_run)
    return Shown(webhook, secret=webhook.secrets[0])


@routes.on("POST", "/webhooks/<webhook_id>/test", roles=WRITERS, answer=TrialOut, errors=[WebhookNotFound])
def test_webhook(ctx: Context, webhook_id: Id) -> Trial:
    """Sends an event of type `webhook.test` now, whatever the webhook's state and filters, and answers what came of it.

    It is no delivery, and is not repeated.
    """
    return webhooks.test(ctx, webhook_id)


@routes.on("POST", "/webhooks/<webhook_id>/replay", roles=WRITERS, answer=ReplayedOut, errors=[WebhookNotFound])
def replay(ctx: Context, webhook_id: Id, query: WriteQuery, body: ReplayIn) -> Replayed:
    """Sends events again, before what is new, in the order of their positions, up to 100,000 a call."""
    return delivery_log.replay(ctx, webhook_id, **body.conditions(), dry_run=query.dry_run)


@routes.on("GET", "/webhooks/<webhook_id>/deliveries", roles=READERS, answer=DeliveryPage, errors=[WebhookNotFound])
def list_deliveries(ctx: Context, webhook_id: Id, query: DeliveriesQuery) -> Page[Delivery]:
    """What became of the events for this webhook, the latest first."""
    return _deliveries.page(
        query,
        lambda limit, before: delivery_log.list_deliveries(
            ctx, webhook_id, limit=limit, before=before, state=query.state
        ),
    )


@routes.on("GET", "/webhooks/<webhook_id>/attempts", roles=READERS, answer=AttemptPage, errors=[WebhookNotFound])
def list_attempts(ctx: Context, webhook_id: Id, query: PageQuery) -> Page[Attempt]:
    """The last requests to the endpoint, the latest first: every one that failed, and the last that got through of each
    quarter of a second. Up to 1,000 are kept."""
    return _attempts.page(
        query, lambda limit, before: delivery_log.list_attempts(ctx, webhook_id, limit=limit, before=before)
    )
