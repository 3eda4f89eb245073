"""One connection to an endpoint: events go into requests, and requests go out one behind the other."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from leasehold.domain.values import Webhook
from leasehold.domain.webhooks import Message, message
from leasehold.outbound.endpoint import NoAnswer, Response
from leasehold.service.deliveries import Outcome, Parcel, Try
from leasehold.service.webhooks import error_of


class Door(Protocol):
    """What a lane needs of an Endpoint."""

    def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Raises NoAnswer."""

    def answer(self) -> Response:
        """Raises NoAnswer."""

    def close(self) -> None:
        """Once it is not needed any more."""


@dataclass(frozen=True)
class Result:
    """What a request came to: an HTTP status, or why there was none; and for how long the endpoint wants to be left."""

    status: int | None
    error: str | None
    retry_after_s: float | None = None


class Judge(Protocol):
    """Whoever knows what an answer means."""

    def may_go_on(self) -> bool:
        """Asked before each request."""

    def now_ms(self) -> int:
        """The present instant in milliseconds since the Unix epoch."""

    def judge(self, parcels: Sequence[Parcel], attempt: Try, result: Result) -> Sequence[Outcome]:
        """What became of the parcels of a request; nothing when they were simply delivered."""


@dataclass
class Run:
    """What became of the parcels of a lane: delivered, by request; failed; held, since one before them of their subject
    waits; left, since it had to stop. Of the subjects in `blocked` nothing more is sent."""

    blocked: set[str]
    delivered: list[tuple[Sequence[Parcel], Try]] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    held: list[Parcel] = field(default_factory=list)
    left: Sequence[Parcel] = ()


@dataclass(frozen=True)
class _Bundle:
    """What goes into one request, and those between its parcels that are held; `behind` is the index after them."""

    parcels: Sequence[Parcel]
    held: Sequence[Parcel]
    behind: int
    message: Message
    headers: Mapping[str, str]


def convey(
    webhook: Webhook, door: Door, parcels: Sequence[Parcel], run: Run, judge: Judge, *, singly: bool = False
) -> Run:
    """Sends parcels in their order, `singly` one a request. The next request is made while the answer to the one before
    is on its way."""
    behind = 0
    bundle = _bundle(webhook, parcels, 0, run.blocked, singly)
    while bundle is not None and judge.may_go_on():
        began_ms, began = judge.now_ms(), time.monotonic()
        following = None
        try:
            door.send(bundle.message.body, bundle.headers)
            following = _bundle(webhook, parcels, bundle.behind, run.blocked, singly)
            response = door.answer()
            result = Result(response.status, error_of(response.status), response.retry_after_s)
        except NoAnswer as error:
            result = Result(None, str(error))
        attempt = Try(
            at_ms=began_ms,
            duration_ms=round((time.monotonic() - began) * 1000),
            events=len(bundle.parcels),
            first_position=bundle.parcels[0].position,
            last_position=bundle.parcels[-1].position,
            status=result.status,
            error=result.error,
        )
        behind = bundle.behind
        run.held += bundle.held
        failed = judge.judge(bundle.parcels, attempt, result)
        if failed:
            run.failed += failed
            run.blocked |= {each.subject for each in bundle.parcels}
            following = _bundle(webhook, parcels, behind, run.blocked, singly)
        else:
            run.delivered.append((bundle.parcels, attempt))
        bundle = following
    if bundle is None:
        run.held += parcels[behind:]
    else:
        run.left = parcels[behind:]
    return run


def _bundle(webhook: Webhook, parcels: Sequence[Parcel], begin: int, blocked: set[str], singly: bool) -> _Bundle | None:
    """The next request from an index on; None when nothing there may be sent."""
    batch = webhook.batch
    most = 1 if batch is None or singly else batch.events
    octets = 2
    chosen: list[Parcel] = []
    held: list[Parcel] = []
    behind = begin
    while behind < len(parcels) and len(chosen) < most:
        parcel = parcels[behind]
        if parcel.subject in blocked:
            held.append(parcel)
        else:
            octets += len(parcel.text.encode()) + 1
            if not chosen:
                # A batch that failed is repeated in ever smaller ones, until the event that the receiver cannot take
                # is alone.
                most = max(1, most >> parcel.attempts)
            elif batch is not None and octets > batch.octets:
                break
            chosen.append(parcel)
        behind += 1
    if not chosen:
        return None
    sent = message(
        webhook.id,
        [each.position for each in chosen],
        [each.text for each in chosen],
        as_batch=batch is not None,
    )
    return _Bundle(chosen, held, behind, sent, sent.headers(webhook.secrets, int(time.time())))
