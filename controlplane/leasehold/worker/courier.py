"""The courier of one webhook: what it sends next, and what it makes of the answers."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from http import HTTPStatus
from math import inf
from typing import Protocol
from zlib import crc32

from leasehold.domain.values import Webhook
from leasehold.domain.webhooks import Message, message
from leasehold.errors import WebhookNotFound
from leasehold.outbound.endpoint import NoAnswer, Response
from leasehold.service import deliveries, webhooks
from leasehold.service.context import Context
from leasehold.service.counters import webhook_attempts, webhook_events, webhook_seconds
from leasehold.service.deliveries import Backlog, Outcome, Parcel, State, Try
from leasehold.store.database import DutyLost
from leasehold.worker.loops import backoff_s

log = logging.getLogger(__name__)

_PAGE_EVENTS = 1_000
_MOST_PAGE_EVENTS = 10_000
_PAGE_S = 0.5
_IDLE_S = 60
_WRITE_EVERY_S = 0.25
_FAILURES_NOTED = 200

# So many failures in a row, of whichever events, and the endpoint counts as down: it is then tried with one event at a
# time, until one of them gets through.
_DOWN_AFTER = 3
_FIRST_BACKOFF_S = 1
_MOST_BACKOFF_S = 3600
_MOST_PAUSE_S = 60
_MOST_RETRY_AFTER_S = 3600


class Door(Protocol):
    """What a courier needs of an Endpoint."""

    def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Raises NoAnswer."""

    def answer(self) -> Response:
        """Raises NoAnswer."""

    def close(self) -> None:
        """Once it is not needed any more."""


@dataclass(frozen=True)
class _Bundle:
    """What goes into one request, and those between its parcels that must wait for an earlier one of their subject;
    `behind` is the index of the next parcel after all these."""

    parcels: Sequence[Parcel]
    held: Sequence[Parcel]
    behind: int
    message: Message
    headers: Mapping[str, str]


@dataclass
class _Run:
    """What became of the parcels of a lane. Of the subjects in `blocked` nothing more is sent."""

    blocked: set[str]
    delivered: list[tuple[Sequence[Parcel], Try]] = field(default_factory=list)
    failed: list[tuple[Parcel, Outcome]] = field(default_factory=list)
    held: list[Parcel] = field(default_factory=list)
    left: Sequence[Parcel] = ()


@dataclass(frozen=True)
class _Result:
    status: int | None
    error: str | None
    retry_after_s: float | None = None


class Courier:
    """Tells one webhook, in the order of the events' positions, or of those of each subject when several requests may
    be under way. It has no thread: `turn` does what there is to do, and returns for how many seconds there is nothing
    more; it is over for good when `is_over`.

    How far it came is written every quarter of a second at most: after a crash the last few events are sent again.
    Time is the context's clock, but for how long an answer may take.
    """

    def __init__(
        self,
        ctx: Context,
        webhook_id: str,
        open_door: Callable[[str], Door],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ctx = ctx
        self._id = webhook_id
        self._open_door = open_door
        self._stopping = stopping
        self.is_over = False
        self._source: str | None = None
        self._webhook: Webhook | None = None
        self._doors: list[Door] = []
        self._threads: ThreadPoolExecutor | None = None
        self._position = self._written = 0
        self._written_ms = 0
        # Events behind the position that are done with, since the lanes do not come equally far.
        self._ahead: set[int] = set()
        # What waits in the database is looked at when the first of it is due, or someone changed something.
        self._look_at_ms: float = 0
        self._blocked: set[str] = set()
        self._lock = threading.Lock()
        self._failures = 0
        # Whether it ever answered since this courier began: the one before may have died while it was down.
        self._was_up = False
        self._not_before_ms = 0
        self._failed_tries: list[Try] = []
        self._delivered_try: Try | None = None

    def turn(self) -> float:
        """Sends what is due, for half a second or so. Returns for how many seconds there is nothing to do."""
        now_ms = self._ctx.now_ms()
        try:
            if now_ms < self._not_before_ms:
                self._write_if_due(now_ms)
                return (self._not_before_ms - now_ms) / 1000
            return self._round(now_ms)
        except WebhookNotFound:
            self.is_over = True
            return 0
        except Exception:
            # What became of the last events may not have been written: the next turn begins from what is.
            self._source = None
            raise

    def close(self) -> None:
        """Writes how far it came, and ends its connections."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        for door in self._doors:
            door.close()
        self._doors = []
        try:
            self._write()
        except WebhookNotFound:
            log.info("Webhook %s was deleted.", self._id)
        except DutyLost:
            log.info("Another process delivers to webhook %s now, and may repeat its last events.", self._id)

    def _round(self, now_ms: int) -> float:
        if self._source is None:
            self._position = self._written = deliveries.position_of(self._ctx, self._id)
            self._ahead, self._look_at_ms = set(), 0
            self._source = webhooks.source(self._ctx)
        was_down, failures = self._is_down, self._failures
        if was_down and self._webhook is not None:
            self._give_up_old(self._webhook)
        known = self._webhook.revision if self._webhook is not None and now_ms < self._look_at_ms else None
        found = deliveries.backlog(
            self._ctx, self._id, self._source, self._position, 1 if was_down else self._page, revision=known
        )
        self._adopt(found.webhook)
        if found.webhook.state != "active":
            self.is_over = True
            return 0
        if found.webhook.revision != known:
            self._blocked = set(found.blocked)
            self._look_at_ms = inf if found.next_due_ms is None else found.next_due_ms
        if found.retries:
            self._retry(found.webhook, found.retries, was_down)
        elif found.is_whole:
            self._send_fresh(found, was_down)
        self._write_if_due(self._ctx.now_ms())
        if self._is_down and self._failures > failures:
            pause_s = backoff_s(self._failures - _DOWN_AFTER + 1, _FIRST_BACKOFF_S, _MOST_PAUSE_S)
            self._not_before_ms = max(self._not_before_ms, self._ctx.now_ms() + round(pause_s * 1000))
        return self._pause_s(found)

    @property
    def _is_down(self) -> bool:
        return self._failures >= _DOWN_AFTER

    @property
    def _page(self) -> int:
        """How many events a round begins with."""
        webhook = self._webhook
        if webhook is None or webhook.batch is None:
            return _PAGE_EVENTS
        return min(_MOST_PAGE_EVENTS, max(_PAGE_EVENTS, 4 * webhook.batch.events * webhook.concurrency))

    def _adopt(self, webhook: Webhook) -> None:
        """The webhook as it is now."""
        before, self._webhook = self._webhook, webhook
        if before is not None and (before.url, before.concurrency) == (
            webhook.url,
            webhook.concurrency,
        ):
            return
        if before is not None and before.url != webhook.url:
            self._failures = 0
        for door in self._doors:
            door.close()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._doors = [self._open_door(webhook.url) for _ in range(webhook.concurrency)]
        if webhook.concurrency > 1:
            self._threads = ThreadPoolExecutor(webhook.concurrency, f"courier {self._id}")

    def _pause_s(self, found: Backlog) -> float:
        now_ms = self._ctx.now_ms()
        if self.is_over:
            return 0
        if now_ms < self._not_before_ms:
            return (self._not_before_ms - now_ms) / 1000
        if found.retries or self._position < found.last:
            return 0
        idle_s = _WRITE_EVERY_S if self._position != self._written else _IDLE_S
        return min(idle_s, max(0.0, self._look_at_ms - now_ms) / 1000)

    # ---- what is sent

    def _retry(self, webhook: Webhook, parcels: Sequence[Parcel], was_down: bool) -> None:
        runs = self._convey(webhook, parcels, self._blocked, was_down)
        outcomes = [outcome for run in runs for _, outcome in run.failed]
        for told, attempt in (each for run in runs for each in run.delivered):
            outcomes += [_outcome(each, attempt, "delivered", attempt.at_ms) for each in told]
        self._write(outcomes)
        self._look_at_ms = 0

    def _send_fresh(self, found: Backlog, was_down: bool) -> None:
        parcels = [each for each in found.fresh if each.position not in self._ahead]
        runs = self._convey(found.webhook, parcels, self._blocked, was_down)
        now_ms = self._ctx.now_ms()
        outcomes = [outcome for run in runs for _, outcome in run.failed]
        for outcome in outcomes:
            self._look_at_ms = min(self._look_at_ms, outcome.due_ms)
        for run in runs:
            self._blocked |= {parcel.subject for parcel, _ in run.failed}
            outcomes += [
                Outcome(each.position, "waiting", 0, now_ms, each.first_due_ms, None, None, None, None)
                for each in run.held
            ]
        left = [each.position for run in runs for each in run.left]
        self._position = min(left) - 1 if left else found.looked_to
        done = {outcome.position for outcome in outcomes} | self._ahead
        for told, _ in (each for run in runs for each in run.delivered):
            done |= {each.position for each in told}
        self._ahead = {position for position in done if position > self._position}
        if outcomes:
            self._write(outcomes)

    def _convey(
        self, webhook: Webhook, parcels: Sequence[Parcel], blocked: Iterable[str], was_down: bool
    ) -> list[_Run]:
        """Sends parcels, those of one subject one behind the other."""
        until = time.monotonic() + _PAGE_S

        def must_stop() -> bool:
            return (
                self._stopping()
                or self.is_over
                or time.monotonic() > until
                or self._ctx.now_ms() < self._not_before_ms
                or (not was_down and self._is_down)
            )

        lanes: list[list[Parcel]] = [[] for _ in self._doors]
        if len(lanes) == 1:
            lanes = [list(parcels)]
        else:
            for parcel in parcels:
                lanes[crc32(parcel.subject.encode()) % len(lanes)].append(parcel)
        work = [(door, lane, _Run(set(blocked))) for door, lane in zip(self._doors, lanes, strict=True) if lane]
        if self._threads is None or len(work) == 1:
            for door, lane, run in work:
                self._run(webhook, door, lane, run, must_stop)
        else:
            futures = [self._threads.submit(self._run, webhook, *each, must_stop) for each in work]
            wait(futures)
            for future in futures:
                future.result()
        return [run for _, _, run in work]

    def _run(
        self, webhook: Webhook, door: Door, parcels: Sequence[Parcel], run: _Run, must_stop: Callable[[], bool]
    ) -> None:
        """One lane: the next request is made while the answer to the one before is on its way."""
        behind = 0
        bundle = self._bundle(webhook, parcels, 0, run)
        while bundle is not None and not must_stop():
            began_ms, began = self._ctx.now_ms(), time.monotonic()
            following = None
            try:
                door.send(bundle.message.body, bundle.headers)
                following = self._bundle(webhook, parcels, bundle.behind, run)
                response = door.answer()
                result = _Result(response.status, webhooks.error_of(response.status), response.retry_after_s)
            except NoAnswer as error:
                result = _Result(None, str(error))
            attempt = _try(bundle.parcels, result, began_ms, round((time.monotonic() - began) * 1000))
            behind = bundle.behind
            run.held += bundle.held
            self._note(attempt, result)
            if result.error is None:
                run.delivered.append((bundle.parcels, attempt))
            else:
                run.failed += self._failed(bundle.parcels, attempt, result)
                run.blocked |= {each.subject for each in bundle.parcels}
                following = self._bundle(webhook, parcels, behind, run)
            bundle = following
        if bundle is None:
            run.held += parcels[behind:]
        else:
            run.left = parcels[behind:]

    def _bundle(self, webhook: Webhook, parcels: Sequence[Parcel], begin: int, run: _Run) -> _Bundle | None:
        """The next request from an index on; None when nothing there may be sent."""
        batch = webhook.batch
        most = 1 if batch is None else batch.events
        octets = 2
        chosen: list[Parcel] = []
        held: list[Parcel] = []
        index = begin
        for index in range(begin, len(parcels)):
            parcel = parcels[index]
            if parcel.subject in run.blocked:
                held.append(parcel)
                continue
            if not chosen:
                # A batch that failed is repeated in ever smaller ones, until the event that the receiver cannot take is
                # alone.
                most = max(1, most >> parcel.attempts)
            elif batch is not None and octets + len(parcel.text) + 1 > batch.octets:
                break
            chosen.append(parcel)
            octets += len(parcel.text) + 1
            if len(chosen) == most:
                index += 1
                break
        else:
            index = len(parcels)
        if not chosen:
            return None
        sent = message(
            webhook.id,
            [each.position for each in chosen],
            [each.text for each in chosen],
            as_batch=batch is not None,
        )
        return _Bundle(chosen, held, index, sent, sent.headers(webhook.secrets, int(time.time())))

    # ---- what the answers mean

    def _note(self, attempt: Try, result: _Result) -> None:
        """What a request says about the endpoint."""
        outcome = "delivered" if result.error is None else "unanswered" if result.status is None else "refused"
        webhook_attempts.labels(self._id, outcome).inc()
        webhook_seconds.observe(attempt.duration_ms / 1000)
        with self._lock:
            if result.error is None:
                webhook_events.labels(self._id).inc(attempt.events)
                was_down, self._failures = self._is_down or not self._was_up, 0
                self._was_up = True
                self._delivered_try = attempt
            else:
                was_down, self._failures = False, self._failures + 1
                self._failed_tries = [*self._failed_tries[-_FAILURES_NOTED:], attempt]
        if was_down:
            deliveries.endpoint_is_up(self._ctx, self._id)
            self._look_at_ms = 0
        if result.error is None:
            return
        log.warning(
            "Webhook %s was not told of events %d to %d: %s",
            self._id,
            attempt.first_position,
            attempt.last_position,
            result.error,
        )
        if result.status == HTTPStatus.GONE:
            deliveries.disable(self._ctx, self._id, "its endpoint answered 410 Gone")
            self.is_over = True
        if result.retry_after_s is not None:
            wait_ms = round(min(result.retry_after_s, _MOST_RETRY_AFTER_S) * 1000)
            self._not_before_ms = max(self._not_before_ms, self._ctx.now_ms() + wait_ms)

    def _failed(self, parcels: Sequence[Parcel], attempt: Try, result: _Result) -> list[tuple[Parcel, Outcome]]:
        now_ms = self._ctx.now_ms()
        # Together once more: what failed in one request is due in one.
        wait_s = backoff_s(1 + max(each.attempts for each in parcels), _FIRST_BACKOFF_S, _MOST_BACKOFF_S)
        due_ms = now_ms + round(max(wait_s, min(result.retry_after_s or 0, _MOST_RETRY_AFTER_S)) * 1000)
        too_old_ms = now_ms - self._ctx.settings.webhook_give_up_s * 1000
        return [
            (each, _outcome(each, attempt, "dead" if each.first_due_ms <= too_old_ms else "waiting", due_ms))
            for each in parcels
        ]

    def _give_up_old(self, webhook: Webhook) -> None:
        """While the endpoint fails, events that are older than attempts are repeated get none of their own."""
        before_ms = self._ctx.now_ms() - round(self._ctx.settings.webhook_give_up_s * 1000)
        reason = "not tried: the endpoint failed all attempts at earlier events until then"
        while not self._stopping():
            reached = deliveries.give_up(self._ctx, webhook, self._position, before_ms, reason)
            if reached == self._position:
                return
            self._position = self._written = reached

    # ---- what is kept

    def _write_if_due(self, now_ms: int) -> None:
        if abs(now_ms - self._written_ms) >= _WRITE_EVERY_S * 1000:
            self._write()

    def _write(self, outcomes: Sequence[Outcome] = ()) -> None:
        with self._lock:
            tries = [*self._failed_tries, *([self._delivered_try] if self._delivered_try is not None else [])]
            self._failed_tries, self._delivered_try = [], None
        if outcomes or tries or self._position != self._written:
            deliveries.record(self._ctx, self._id, self._position, outcomes, tries)
            self._written = self._position
        self._written_ms = self._ctx.now_ms()


def _try(parcels: Sequence[Parcel], result: _Result, at_ms: int, duration_ms: int) -> Try:
    first, last = parcels[0].position, parcels[-1].position
    return Try(at_ms, duration_ms, len(parcels), first, last, result.status, result.error)


def _outcome(parcel: Parcel, attempt: Try, state: State, due_ms: int) -> Outcome:
    return Outcome(
        position=parcel.position,
        state=state,
        attempts=parcel.attempts + 1,
        due_ms=due_ms,
        first_due_ms=parcel.first_due_ms,
        last_ms=attempt.at_ms,
        last_status=attempt.status,
        last_error=attempt.error,
        last_duration_ms=attempt.duration_ms,
    )
