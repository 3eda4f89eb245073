"""`/v1/events`: what happened, in the order in which it became known."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from leasehold.domain.values import Event
from leasehold.service import events
from leasehold.service.context import Context
from leasehold.web.api import READERS, Routes
from leasehold.web.wire import EventType, Listing, Out, Page, PageOut, PageQuery, Text, number_key

routes = Routes("events")
_events = Listing[Event, int]("events", lambda each: each.position, number_key)


class EventOut(Out):
    """An immutable fact. `position` orders all events by arrival, `sequence` those of one subject."""

    position: int
    id: str
    type: str
    subject: str
    sequence: int
    time: datetime
    data: dict[str, Any]


class EventPage(PageOut[EventOut]):
    """Part of the list of events."""


class EventsQuery(PageQuery):
    """Which events."""

    type: Annotated[tuple[EventType, ...], Field(max_length=32)] = ()
    """Only these types; may be repeated."""
    subject: Text | None = None
    """Only those of this subject."""


@routes.on("GET", "/events", roles=READERS, answer=EventPage)
def list_events(ctx: Context, query: EventsQuery) -> Page[Event]:
    """Events, oldest first."""
    return _events.page(
        query,
        lambda limit, after: events.list_events(
            ctx, after_position=after or 0, limit=limit, types=query.type, subject=query.subject
        ),
    )
