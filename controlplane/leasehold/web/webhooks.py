"""`/v1/webhooks` and their deliveries."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from leasehold.domain.event_types import EventType
from leasehold.domain.values import Delivery, Webhook
from leasehold.errors import WebhookNotFound
from leasehold.service import webhooks
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.events import EventOut
from leasehold.web.wire import HttpUrl, Id, In, Listing, Out, Page, PageOut, PageQuery, id_key, number_key

routes = Routes("webhooks")
_webhooks = Listing[Webhook, str]("webhooks", lambda each: each.id, id_key)
_deliveries = Listing[Delivery, int]("deliveries", lambda each: each.event.position, number_key)


class WebhookIn(In):
    """A subscription. Without `types`, to every type."""

    url: HttpUrl
    types: Annotated[tuple[EventType, ...], Field(max_length=32)] = ()


class WebhookOut(Out):
    """A subscription, without its secret. Empty `types` means every type."""

    id: str
    url: str
    types: list[str]
    state: Literal["active", "paused", "disabled"]
    created_at: datetime


class WebhookPage(PageOut[WebhookOut]):
    """Part of the list of webhooks."""


class WebhookCreated(WebhookOut):
    """A subscription, with the secret that signs its deliveries, which is shown this once."""

    secret: str


class DeliveryOut(Out):
    """One event for one webhook. `last_status` null: the last attempt got no answer."""

    event: EventOut
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    due_at: datetime
    first_due_at: datetime
    last_status: int | None
    last_error: str | None


class DeliveryPage(PageOut[DeliveryOut]):
    """Part of the list of deliveries."""


@routes.on("POST", "/webhooks", roles=WRITERS, answer=WebhookCreated, statuses=(201,))
def create_webhook(ctx: Context, body: WebhookIn) -> Reply[Webhook]:
    """Subscribes a URL to events from now on. The secret is in this answer, and in no other."""
    webhook = webhooks.create(ctx, body.url, body.types)
    return Reply(webhook, 201, f"/v1/webhooks/{webhook.id}")


@routes.on("GET", "/webhooks", roles=READERS, answer=WebhookPage)
def list_webhooks(ctx: Context, query: PageQuery) -> Page[Webhook]:
    """Every webhook, by id."""
    return _webhooks.page_of(query, webhooks.list_webhooks(ctx))


@routes.on("GET", "/webhooks/<webhook_id>", roles=READERS, answer=WebhookOut, errors=[WebhookNotFound])
def get_webhook(ctx: Context, webhook_id: Id) -> Webhook:
    """One webhook."""
    return webhooks.get(ctx, webhook_id)


@routes.on("DELETE", "/webhooks/<webhook_id>", roles=WRITERS, errors=[WebhookNotFound])
def delete_webhook(ctx: Context, webhook_id: Id) -> None:
    """Ends a subscription; what was not delivered yet never is."""
    webhooks.delete_webhook(ctx, webhook_id)


@routes.on("GET", "/webhooks/<webhook_id>/deliveries", roles=READERS, answer=DeliveryPage, errors=[WebhookNotFound])
def list_deliveries(ctx: Context, webhook_id: Id, query: PageQuery) -> Page[Delivery]:
    """What became of the events for this webhook, the latest first."""
    return _deliveries.page(
        query, lambda limit, before: webhooks.list_deliveries(ctx, webhook_id, limit=limit, before=before)
    )
