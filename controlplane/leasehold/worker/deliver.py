"""Tells webhooks of events: a courier for each, in a thread of its own, so that a dead endpoint delays nobody else."""

from collections.abc import Callable, Mapping
from functools import partial

from leasehold.domain.webhooks import allowed_networks
from leasehold.outbound.endpoint import Endpoint
from leasehold.service import deliveries
from leasehold.service.context import Context
from leasehold.worker.courier import Courier
from leasehold.worker.loops import Loop

_LOOK_S = 5
_LOOK_ENDING_S = 0.05


class Deliver:
    """Keeps one courier for each active webhook, and wakes them for new events and for changes.

    `own` answers the webhooks that this process delivers to, each with the context to do it with; without it, all are.
    """

    def __init__(self, ctx: Context, own: Callable[[], Mapping[str, Context]] | None = None) -> None:
        """Raises FieldInvalid for a setting that is not understood."""
        self._ctx = ctx
        self._own = own
        self._open_door = partial(
            Endpoint,
            timeout_s=ctx.settings.webhook_timeout_s,
            allowed=allowed_networks(ctx.settings.webhook_allowed_networks),
        )
        self._rounds: dict[str, _Rounds] = {}
        self._ending: dict[str, _Rounds] = {}
        self._told: tuple[dict[str, int], int] = ({}, 0)
        self._loop = Loop("deliver", self._turn)
        self.start, self.wake = self._loop.start, self._loop.wake

    def stop(self) -> None:
        """Lets the requests under way be the last."""
        self._loop.stop()
        for each in self._all():
            each.loop.stop()

    def join(self, deadline: float) -> bool:
        """Waits until `time.monotonic()` is `deadline`; True if all came to their end."""
        return all(loop.join(deadline) for loop in (self._loop, *(each.loop for each in self._all())))

    def _all(self) -> "list[_Rounds]":
        return [*list(self._rounds.values()), *list(self._ending.values())]

    def _turn(self) -> float:
        active, last = deliveries.active(self._ctx)
        own = dict.fromkeys(active, self._ctx) if self._own is None else self._own()
        wanted = {webhook_id: own[webhook_id] for webhook_id in active if webhook_id in own}
        for webhook_id, each in list(self._rounds.items()):
            if wanted.get(webhook_id) is not each.ctx or each.loop.stopping:
                each.loop.stop()
                self._ending[webhook_id] = self._rounds.pop(webhook_id)
        # Two couriers at once would send events twice, and out of order.
        self._ending = {key: each for key, each in self._ending.items() if not each.loop.join(0)}
        for webhook_id in wanted.keys() - self._rounds.keys() - self._ending.keys():
            if not self._loop.stopping:
                self._rounds[webhook_id] = _Rounds(wanted[webhook_id], webhook_id, self._open_door)
        if (active, last) != self._told:
            self._told = active, last
            for each in self._rounds.values():
                each.loop.wake()
        return _LOOK_ENDING_S if self._ending.keys() & wanted.keys() else _LOOK_S


class _Rounds:
    """A courier's thread."""

    def __init__(self, ctx: Context, webhook_id: str, open_door: partial[Endpoint]) -> None:
        self.ctx = ctx
        self.loop = Loop(f"deliver {webhook_id}", self._turn, at_end=self._end)
        self._courier = Courier(ctx, webhook_id, open_door, lambda: self.loop.stopping)
        self.loop.start()

    def _turn(self) -> float:
        pause_s = self._courier.turn()
        if self._courier.is_over:
            self.loop.stop()
        return pause_s

    def _end(self) -> None:
        self._courier.close()
