"""Tells webhooks of events: a courier for each, so that a dead endpoint delays nobody but itself."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from netaddr import IPNetwork

from leasehold.domain.values import Event, Webhook
from leasehold.domain.webhooks import allowed_networks, cloud_event, signature
from leasehold.errors import WebhookNotFound
from leasehold.service import webhooks
from leasehold.service.context import Context
from leasehold.service.webhooks import Attempt
from leasehold.worker.http import Endpoint, NoAnswer
from leasehold.worker.loops import Loop, backoff_s

log = logging.getLogger(__name__)

_LOOK_S = 5
_ROUND = 100
_IDLE_S = 60
_WRITE_EVERY_S = 0.25

# So many failures in a row, of whichever events, and the endpoint counts as down: it is then tried with one old and one
# new event at a time, until one of them gets through.
_DOWN_AFTER = 3
_FIRST_BACKOFF_S = 1
_MOST_BACKOFF_S = 3600
_MOST_PAUSE_S = 60
_MOST_RETRY_AFTER_S = 3600


class Deliver:
    """Keeps one courier for each active webhook, and wakes them for new events.

    `own` answers the webhooks that this process delivers to, each with the context to do it with; without it, all are.
    """

    def __init__(self, ctx: Context, own: Callable[[], Mapping[str, Context]] | None = None) -> None:
        self._ctx = ctx
        self._own = own
        self._allowed = allowed_networks(ctx.settings.webhook_allowed_networks)
        self._couriers: dict[str, _Courier] = {}
        self._told_of = 0
        self._loop = Loop("deliver", self._turn)
        self.start, self.wake = self._loop.start, self._loop.wake

    def stop(self) -> None:
        """Lets the requests under way be the last."""
        self._loop.stop()
        for courier in list(self._couriers.values()):
            courier.loop.stop()

    def join(self, deadline: float) -> bool:
        """Waits until `time.monotonic()` is `deadline`; True if all came to their end."""
        loops = [self._loop, *(courier.loop for courier in list(self._couriers.values()))]
        return all(loop.join(deadline) for loop in loops)

    def _turn(self) -> float:
        active, last = webhooks.active(self._ctx)
        own = {webhook.id: self._ctx for webhook in active} if self._own is None else self._own()
        wanted = {webhook.id: webhook for webhook in active if webhook.id in own}
        for webhook_id, courier in list(self._couriers.items()):
            if webhook_id in wanted and own[webhook_id] is courier.ctx:
                continue
            self._couriers.pop(webhook_id).loop.stop()
        for webhook_id in wanted.keys() - self._couriers.keys():
            if not self._loop.stopping:
                courier = self._couriers[webhook_id] = _Courier(own[webhook_id], wanted[webhook_id], self._allowed)
                courier.loop.start()
        if last > self._told_of:
            self._told_of = last
            for courier in self._couriers.values():
                courier.loop.wake()
        return _LOOK_S


@dataclass(frozen=True)
class _Result:
    """What an attempt came to: the HTTP status, or why there was none."""

    status: int | None
    error: str | None
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus(300)


class _Courier:
    """Tells one webhook, one event a request, in the order of their positions.

    How far it came is written every quarter of a second at most: after a crash the last few events are sent again.
    """

    def __init__(self, ctx: Context, webhook: Webhook, allowed: Sequence[IPNetwork]) -> None:
        self.ctx = self._ctx = ctx
        self._webhook = webhook
        self._source = webhooks.source(ctx)
        self._endpoint = Endpoint(webhook.url, timeout_s=ctx.settings.webhook_timeout_s, allowed=allowed)
        self._position = self._written = webhooks.position_of(ctx, webhook.id)
        self._written_at = 0.0
        self._failures = 0
        self._not_before = 0.0
        self.loop = Loop(f"deliver to {webhook.id}", self._turn, at_end=self._end)

    def _turn(self) -> float:
        wait_s = self._not_before - time.monotonic()
        if wait_s > 0:
            return wait_s
        try:
            return self._round()
        except WebhookNotFound:
            self.loop.stop()
            return 0

    def _end(self) -> None:
        self._endpoint.close()
        try:
            self._write()
        except WebhookNotFound:
            log.info("Webhook %s was deleted.", self._webhook.id)

    def _round(self) -> float:
        """Retries what is due, then sends what is new. Returns how long there is nothing to do."""
        was_down = self._failures >= _DOWN_AFTER
        if was_down:
            self._give_up_old()
        backlog = webhooks.backlog(self._ctx, self._webhook, self._position, 1 if was_down else _ROUND)
        for event, attempt in backlog.retries:
            if self._must_pause(was_down):
                break
            self._retry(event, attempt)
        blocked = set(backlog.blocked)
        for event, stored_ms in backlog.fresh:
            if self._must_pause(was_down):
                break
            if not self._send_fresh(event, stored_ms, is_blocked=event.subject in blocked):
                blocked.add(event.subject)
        else:
            self._position = backlog.looked_to
        if time.monotonic() - self._written_at >= _WRITE_EVERY_S:
            self._write()
        if self._failures >= _DOWN_AFTER:
            pause_s = backoff_s(self._failures - _DOWN_AFTER + 1, _FIRST_BACKOFF_S, _MOST_PAUSE_S)
            self._not_before = max(self._not_before, time.monotonic() + pause_s)
            return pause_s
        if backlog.retries or backlog.fresh:
            return 0
        waits_s = [_IDLE_S, _WRITE_EVERY_S if self._position != self._written else _IDLE_S]
        if backlog.next_due_ms is not None:
            waits_s.append(max(0, backlog.next_due_ms - self._ctx.now_ms()) / 1000)
        return min(waits_s)

    def _must_pause(self, was_down: bool) -> bool:
        """True when the round must end: told to stop, asked to wait, or the endpoint went down in it."""
        return (
            self.loop.stopping
            or time.monotonic() < self._not_before
            or (not was_down and self._failures >= _DOWN_AFTER)
        )

    def _retry(self, event: Event, attempt: Attempt) -> None:
        result = self._send(event)
        if result.is_delivered:
            done = replace(attempt, state="delivered", attempts=attempt.attempts + 1, last_status=result.status)
            webhooks.record(self._ctx, self._webhook.id, self._position, [replace(done, last_error=None)])
        else:
            webhooks.record(self._ctx, self._webhook.id, self._position, [self._failed(attempt, result)])

    def _send_fresh(self, event: Event, stored_ms: int, *, is_blocked: bool) -> bool:
        """True if it was delivered; else it has a row afterwards. A blocked one waits for the one before it."""
        attempt = Attempt(
            position=event.position,
            state="waiting",
            attempts=0,
            due_ms=self._ctx.now_ms(),
            first_due_ms=stored_ms,
            last_status=None,
            last_error=None,
        )
        if not is_blocked:
            result = self._send(event)
            if result.is_delivered:
                self._position = event.position
                return True
            attempt = self._failed(attempt, result)
        webhooks.record(self._ctx, self._webhook.id, event.position, [attempt])
        self._position = self._written = event.position
        return False

    def _failed(self, attempt: Attempt, result: _Result) -> Attempt:
        now_ms = self._ctx.now_ms()
        is_dead = now_ms - attempt.first_due_ms >= self._ctx.settings.webhook_give_up_s * 1000
        wait_s = backoff_s(attempt.attempts + 1, _FIRST_BACKOFF_S, _MOST_BACKOFF_S)
        return replace(
            attempt,
            state="dead" if is_dead else "waiting",
            attempts=attempt.attempts + 1,
            due_ms=now_ms + round(max(wait_s, result.retry_after_s or 0) * 1000),
            last_status=result.status,
            last_error=result.error,
        )

    def _send(self, event: Event) -> _Result:
        """One attempt, and what it says about the endpoint."""
        result = self._post(event)
        if result.is_delivered:
            if self._failures >= _DOWN_AFTER:
                webhooks.hasten(self._ctx, self._webhook.id)
            self._failures = 0
            return result
        self._failures += 1
        log.warning("Webhook %s was not told of event %s: %s", self._webhook.id, event.id, result.error)
        if result.status == HTTPStatus.GONE:
            webhooks.disable(self._ctx, self._webhook.id)
            self.loop.stop()
        if result.retry_after_s is not None:
            self._not_before = time.monotonic() + result.retry_after_s
        return result

    def _post(self, event: Event) -> _Result:
        body = cloud_event(event, self._source)
        message_id = f"{self._webhook.id}-{event.position}"
        timestamp_s = int(time.time())
        headers = {
            "Content-Type": "application/cloudevents+json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(self._webhook.secret, message_id, timestamp_s, body),
        }
        try:
            response = self._endpoint.post(body, headers)
        except NoAnswer as error:
            return _Result(None, str(error))
        retry_after_s = response.retry_after_s
        if retry_after_s is not None:
            retry_after_s = min(retry_after_s, _MOST_RETRY_AFTER_S)
        what = "a redirect, which is not followed" if 300 <= response.status < 400 else "an error"
        return _Result(response.status, f"HTTP status {response.status}: {what}", retry_after_s)

    def _give_up_old(self) -> None:
        """While the endpoint fails, events that are older than attempts are repeated get none of their own."""
        before_ms = self._ctx.now_ms() - round(self._ctx.settings.webhook_give_up_s * 1000)
        reason = "not tried: the endpoint failed all attempts at earlier events until then"
        self._position = webhooks.give_up(self._ctx, self._webhook, self._position, before_ms, reason)
        self._written = self._position

    def _write(self) -> None:
        if self._position != self._written:
            webhooks.record(self._ctx, self._webhook.id, self._position)
            self._written = self._position
        self._written_at = time.monotonic()
