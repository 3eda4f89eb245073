"""The courier of one webhook: what it sends next, and what it makes of the answers."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from http import HTTPStatus
from math import inf
from zlib import crc32

from leasehold.domain.values import Webhook
from leasehold.errors import WebhookNotFound
from leasehold.service import deliveries, webhooks
from leasehold.service.context import Context
from leasehold.service.counters import webhook_attempts, webhook_events, webhook_seconds
from leasehold.service.deliveries import Backlog, Outcome, Parcel, State, Try
from leasehold.store.database import DutyLost
from leasehold.worker.lane import Door, Result, Run, convey
from leasehold.worker.loops import backoff_s

log = logging.getLogger(__name__)

_PAGE_EVENTS = 1_000
_MOST_PAGE_EVENTS = 10_000
_PAGE_S = 0.5
_PROBE_EVENTS = 100
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
        self._may_ask = 0
        self._page_until = 0.0
        self._failures = 0
        # The last failure was none of a single event, and so whichever event there is tells whether it is over.
        self._is_unavailable = False
        # Whether it ever answered since this courier began. The one before may have died while it was down: what waits
        # is tried once, due or not.
        self._was_up = False
        self._tries_anyway = True
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
        was_down = self._is_down
        if was_down and self._webhook is not None:
            self._give_up_old(self._webhook)
        looks = self._webhook is None or now_ms >= self._look_at_ms or self._tries_anyway
        known = None if looks or self._webhook is None else self._webhook.revision
        found = deliveries.backlog(
            self._ctx,
            self._id,
            self._source,
            self._position,
            _PROBE_EVENTS if was_down else self._page,
            revision=known,
            anyway=self._tries_anyway,
        )
        self._adopt(found.webhook)
        if found.webhook.state != "active":
            self.is_over = True
            return 0
        if found.webhook.revision != known:
            self._blocked = set(found.blocked)
            self._look_at_ms = inf if found.next_due_ms is None else found.next_due_ms
        if found.retries:
            self._blocked -= {each.subject for each in found.retries}
            self._retry(found.webhook, found.retries, was_down)
        elif found.is_whole:
            self._send_fresh(found, was_down)
        self._write_if_due(self._ctx.now_ms())
        # A webhook of which all that there is waits for later would else learn late that its endpoint is up again.
        self._tries_anyway = self._is_unavailable and self._may_ask > 0 and bool(self._blocked)
        if self._is_down and (found.retries or found.fresh):
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
        if found.retries or self._tries_anyway or self._position < found.last:
            return 0
        idle_s = _WRITE_EVERY_S if self._position != self._written else _IDLE_S
        return min(idle_s, max(0.0, self._look_at_ms - now_ms) / 1000)

    # ---- what is sent

    def _retry(self, webhook: Webhook, parcels: Sequence[Parcel], was_down: bool) -> None:
        runs = self._convey(webhook, parcels, was_down)
        outcomes = [outcome for run in runs for outcome in run.failed]
        for told, attempt in (each for run in runs for each in run.delivered):
            outcomes += [_outcome(each, attempt, "delivered", attempt.at_ms) for each in told]
        self._write(outcomes)
        self._look_at_ms = 0

    def _send_fresh(self, found: Backlog, was_down: bool) -> None:
        parcels = [each for each in found.fresh if each.position not in self._ahead]
        runs = self._convey(found.webhook, parcels, was_down)
        now_ms = self._ctx.now_ms()
        outcomes = [outcome for run in runs for outcome in run.failed]
        for outcome in outcomes:
            self._look_at_ms = min(self._look_at_ms, outcome.due_ms)
        for run in runs:
            self._blocked |= run.blocked
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

    def _convey(self, webhook: Webhook, parcels: Sequence[Parcel], was_down: bool) -> list[Run]:
        """Sends parcels, those of one subject one behind the other; only one of them to an endpoint that is down."""
        self._page_until = time.monotonic() + _PAGE_S
        self._may_ask = 1 if was_down else len(parcels)
        lanes: list[list[Parcel]] = [[] for _ in self._doors]
        if self._threads is None or was_down:
            lanes = [list(parcels)]
        else:
            for parcel in parcels:
                lanes[crc32(parcel.subject.encode()) % len(lanes)].append(parcel)
        work = [
            partial(convey, webhook, door, lane, Run(set(self._blocked)), self, singly=was_down)
            for door, lane in zip(self._doors, lanes, strict=False)
            if lane
        ]
        if self._threads is None or len(work) == 1:
            return [each() for each in work]
        futures = [self._threads.submit(each) for each in work]
        wait(futures)
        return [each.result() for each in futures]

    def may_go_on(self) -> bool:
        """See Judge."""
        return (
            not self._stopping()
            and not self.is_over
            and time.monotonic() < self._page_until
            and self._ctx.now_ms() >= self._not_before_ms
            and self._may_ask > 0
        )

    def now_ms(self) -> int:
        """See Judge."""
        return self._ctx.now_ms()

    # ---- what the answers mean

    def judge(self, parcels: Sequence[Parcel], attempt: Try, result: Result) -> Sequence[Outcome]:
        """See Judge."""
        outcome = "delivered" if result.error is None else "unanswered" if result.status is None else "refused"
        webhook_attempts.labels(self._id, outcome).inc()
        webhook_seconds.observe(attempt.duration_ms / 1000)
        with self._lock:
            self._may_ask -= 1
            if result.error is None:
                webhook_events.labels(self._id).inc(attempt.events)
                comes_up = self._is_down or not self._was_up
                self._failures, self._was_up, self._is_unavailable = 0, True, False
                self._delivered_try = attempt
            else:
                self._failures += 1
                self._is_unavailable = self._is_down and _says_nothing_of_the_event(result.status)
                self._failed_tries = [*self._failed_tries[-_FAILURES_NOTED:], attempt]
                if self._is_down:
                    self._may_ask = 0
        if result.error is not None:
            return self._failed(parcels, attempt, result)
        if comes_up:
            deliveries.endpoint_is_up(self._ctx, self._id)
            self._look_at_ms = 0
        return ()

    def _failed(self, parcels: Sequence[Parcel], attempt: Try, result: Result) -> list[Outcome]:
        log.warning(
            "Webhook %s was not told of events %d to %d: %s",
            self._id,
            attempt.first_position,
            attempt.last_position,
            result.error,
        )
        now_ms = self._ctx.now_ms()
        asked_ms = round(min(result.retry_after_s or 0, _MOST_RETRY_AFTER_S) * 1000)
        self._not_before_ms = max(self._not_before_ms, now_ms + asked_ms)
        if result.status == HTTPStatus.GONE:
            deliveries.disable(self._ctx, self._id, "its endpoint answered 410 Gone")
            self.is_over = True
        # Together once more: what failed in one request is due in one.
        wait_s = backoff_s(1 + max(each.attempts for each in parcels), _FIRST_BACKOFF_S, _MOST_BACKOFF_S)
        due_ms = now_ms + max(round(wait_s * 1000), asked_ms)
        too_old_ms = now_ms - self._ctx.settings.webhook_give_up_s * 1000
        return [
            _outcome(each, attempt, "dead" if each.first_due_ms <= too_old_ms else "waiting", due_ms)
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


def _says_nothing_of_the_event(status: int | None) -> bool:
    """True for what an endpoint would answer to any event. Source: RFC 9110, 15.5.9, 15.6; RFC 6585, 4."""
    return (
        status is None
        or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


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
