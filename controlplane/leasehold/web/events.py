"""`/v1/events`: what happened, in the order in which it became known."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any

from flask import Response, current_app
from pydantic import Field

from leasehold.domain.event_types import EventType
from leasehold.domain.values import Event
from leasehold.errors import Unavailable
from leasehold.service import events
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.service.events import Filter
from leasehold.web.api import READERS, Routes
from leasehold.web.wire import (
    Id,
    Instant,
    IpText,
    Listing,
    MacText,
    Out,
    Page,
    PageOut,
    PageQuery,
    Query,
    QueryInt,
    Text,
    number_key,
)

routes = Routes("events")
_events = Listing[Event, int]("events", lambda each: each.position, number_key)

MAX_STREAMS = 16
"""Of one process: each takes one of its threads."""
IS_ENDING = "LEASEHOLD_IS_ENDING"
"""The key in the app's configuration of a function that says whether the server is about to end."""

_STREAM_PAGE = 500
_LEAST_PAUSE_S = 0.05
_LOOK_S = 1.0
_SIGN_OF_LIFE_S = 10.0
_streams = threading.BoundedSemaphore(MAX_STREAMS)


class TooManyStreams(Unavailable):
    """As many event streams are open as this server carries. Facts: limit."""

    code = "too-many-streams"


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


class WhichEvents(Query):
    """Which events: those for which everything holds that is given."""

    type: Annotated[tuple[EventType, ...], Field(max_length=32)] = ()
    """Only these types; may be repeated."""
    subject: Text | None = None
    """Only those of this subject."""
    subject_prefix: Text | None = None
    """Only those of subjects that begin so."""
    since: Instant | None = None
    """Only what happened at this instant or later."""
    until: Instant | None = None
    """Only what happened before this instant."""
    vnic: Id | None = None
    """Only what tells of this vNIC."""
    mac: MacText | None = None
    """Only what tells of this MAC."""
    ip: IpText | None = None
    """Only what happened to this address, on whichever subnet."""

    def filter(self) -> Filter:
        """The same for the service layer."""
        return Filter(
            types=self.type,
            subject=self.subject,
            subject_prefix=self.subject_prefix,
            since=self.since,
            until=self.until,
            vnic=self.vnic,
            mac=self.mac,
            ip=self.ip,
        )


class EventsQuery(PageQuery, WhichEvents):
    """Which part of which events."""


class StreamQuery(WhichEvents):
    """Which events, from where, and for how long."""

    after: Annotated[QueryInt, Field(ge=0, le=2**63 - 1)] | None = None
    """Begin behind this position. Without it, and without Last-Event-ID, the stream begins with what comes now."""
    seconds: Annotated[QueryInt, Field(ge=1, le=3600)] = 300
    """After so long the stream ends; come again with Last-Event-ID."""


@routes.on("GET", "/events", roles=READERS, answer=EventPage)
def list_events(ctx: Context, query: EventsQuery) -> Page[Event]:
    """Events, oldest first.

    One answer looks through a bounded part of the history, and so may have fewer than `limit` although `next` is there.
    """
    found = events.find(ctx, query.filter(), after=_events.after(query.cursor) or 0, limit=query.limit)
    return Page(found.events, None if found.is_all else _events.cursor(found.looked_to))


@routes.on(
    "GET",
    "/events/stream",
    roles=READERS,
    answer=EventOut,
    media_type="text/event-stream",
    errors=[TooManyStreams],
)
def stream_events(ctx: Context, query: StreamQuery, last_event_id: int | None) -> Response:
    """Events as they come, as server-sent events.

    Each has its position as `id`, its type as `event`, and as `data` what the list has. An interrupted stream goes on
    behind `Last-Event-ID`. When nothing happens, an empty comment comes every ten seconds.
    """
    after = last_event_id if last_event_id is not None else query.after
    if after is None:
        with ctx.db.read() as connection:
            after = events.last_position(connection)
    if not _streams.acquire(blocking=False):
        raise TooManyStreams(
            f"{MAX_STREAMS} event streams are open, and this server carries no more. Close one, or come again later.",
            limit=MAX_STREAMS,
        )
    is_ending: Callable[[], bool] = current_app.config.get(IS_ENDING, lambda: False)
    stream = _Stream(ctx, query.filter(), after, time.monotonic() + query.seconds, is_ending)
    response = Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
    response.call_on_close(stream.close)
    return response


class _Stream:
    """The octets of one stream. Nothing is kept for a client that is slow: it is read on when it has taken a part."""

    def __init__(
        self, ctx: Context, wanted: Filter, after: int, deadline: float, is_ending: Callable[[], bool]
    ) -> None:
        self._ctx = ctx
        self._wanted = wanted
        self._after = after
        self._deadline = deadline
        self._is_ending = is_ending
        self._lock = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b":\n\n"  # so that the client has its headers at once
        told_at = time.monotonic()
        while not (self._closed or self._is_ending()) and (now := time.monotonic()) < self._deadline:
            heard = self._ctx.bell.heard(News.EVENTS)
            found = events.find(self._ctx, self._wanted, after=self._after, limit=_STREAM_PAGE)
            told_to = found.events[-1].position if found.events else self._after
            self._after = found.looked_to
            parts = list(map(_message, found.events))
            if found.looked_to > told_to:
                # So that who comes again does not look for what is rare from far behind.
                parts.append(f"id: {found.looked_to}\n\n".encode())
            if parts or now - told_at >= _SIGN_OF_LIFE_S:
                yield b"".join(parts) or b":\n\n"
                told_at = now
            if found.is_all:
                self._ctx.bell.wait(heard, min(_LOOK_S, max(0.0, self._deadline - now)), News.EVENTS)
                time.sleep(_LEAST_PAUSE_S)

    def close(self) -> None:
        """Gives its place to another; harmless when repeated."""
        with self._lock:
            was_closed, self._closed = self._closed, True
        if not was_closed:
            _streams.release()


def _message(event: Event) -> bytes:
    content = EventOut.model_validate(event, from_attributes=True).model_dump_json()
    return f"id: {event.position}\nevent: {event.type}\ndata: {content}\n\n".encode()
