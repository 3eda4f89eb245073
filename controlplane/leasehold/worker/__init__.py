"""The loops beside the API: they push reservations, manage servers, sweep addresses and deliver webhooks."""

import logging
import threading
import time

from leasehold.kea.commands import Commands
from leasehold.kea.provider import KeaDhcpProvider
from leasehold.kea.transport import Transport
from leasehold.service import deliveries, hosts
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.service.devices import ReservationLog
from leasehold.service.duties import Duties
from leasehold.worker.deliver import Deliver
from leasehold.worker.history import pruner
from leasehold.worker.loops import Loop
from leasehold.worker.manage import Manager
from leasehold.worker.push import Push
from leasehold.worker.read_back import ReadBack
from leasehold.worker.sweep import sweeper

log = logging.getLogger(__name__)

_LISTEN_S = 1
_CALM_S = 0.02
_SHARE_S = 1.0
_LEAST_PAUSE_S = 0.1
_SHARES_IN_TIMEOUT = 4

_MANAGE, _PUSH, _DELIVER = "manage", "push", "deliver"
_ALL = "all networks"

_TOLD = News.PLAN | News.EVENTS


class Worker:
    """All loops of one process, woken by its bell.

    Where several run on one database, one of them manages, and hosts and webhooks are shared out among them: see
    leasehold.service.duties. All of them sweep.
    """

    def __init__(self, ctx: Context) -> None:
        """Raises FieldInvalid for a setting that is not understood."""
        self._ctx = ctx
        self._transport = Transport(ctx.settings)
        self._commands = Commands(self._transport)
        self._duties = Duties(ctx)
        self._push = Push(ctx, self._commands, lambda: self._duties.held(_PUSH))
        self._deliver = Deliver(ctx, lambda: self._duties.held(_DELIVER))
        self._sweep = sweeper(ctx)
        self._history = pruner(ctx)
        self._read_back = ReadBack(ctx, self._commands, lambda: self._duties.held(_PUSH))
        self._share = Loop("share", self._share_duties, at_end=self._give_back, least_pause_s=_LEAST_PAUSE_S)
        self._manager: tuple[Context, Manager] | None = None
        self._stopping = threading.Event()
        self._ear = threading.Thread(target=self._listen, name="bell", daemon=True)

    def start(self) -> None:
        """Begins all loops; returns at once. Raises DatabaseUnavailable where another process has an SQLite database,
        and when the database does not answer."""
        self._duties.open()
        self._ctx.db.make_room()
        self._ctx.bell.hand_due_to(self._push.take)
        self._ctx.bell.start()
        for part in (self._share, self._push, self._deliver, self._sweep, self._read_back, self._history, self._ear):
            part.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Lets what is under way come to its end, for up to `timeout_s` seconds."""
        self._stopping.set()
        self._ctx.bell.hand_due_to(None)
        self._ctx.bell.ring()
        deadline = time.monotonic() + timeout_s
        parts = (self._push, self._deliver, self._sweep, self._read_back, self._history)
        for part in parts:
            part.stop()
        ended = [part.join(deadline) for part in parts]
        # Last, since with it others begin.
        self._share.stop()
        ended.append(self._share.join(deadline))
        if not all(ended):
            log.warning("Not all loops came to their end in %.0f s; what they had begun is begun again.", timeout_s)
        self._ctx.bell.stop()
        self._transport.close()

    def _share_duties(self) -> float:
        """Takes this process's part of what is to do, and lets the loops know."""
        active, _ = deliveries.active(self._ctx)
        wanted = {
            _MANAGE: [_ALL],
            _PUSH: [host.id for host in hosts.list_hosts(self._ctx)],
            _DELIVER: list(active),
        }
        try:
            changed = self._duties.share(wanted)
        finally:
            self._manage(self._duties.held(_MANAGE).get(_ALL))
        if changed:
            self._ctx.bell.ring()
        return min(_SHARE_S, self._ctx.settings.duty_timeout_s / _SHARES_IN_TIMEOUT)

    def _manage(self, ctx: Context | None) -> None:
        """Has a manager for this context run, and no other. One begins from what is stored, and knows of no host
        whether it answers until it asked."""
        if self._manager is not None and self._manager[0] is not ctx:
            _, manager = self._manager
            self._manager = None
            manager.stop()
            manager.join(time.monotonic())
        if self._manager is None and ctx is not None:
            commands = self._commands
            provider = KeaDhcpProvider(commands, ReservationLog(ctx), ctx.db.require_duty)
            manager = Manager(ctx, commands, provider)
            self._manager = ctx, manager
            manager.start()

    def _give_back(self) -> None:
        if self._manager is not None:
            _, manager = self._manager
            manager.stop()
            manager.join(time.monotonic() + self._ctx.settings.control_timeout_s)
        self._duties.close()

    def _listen(self) -> None:
        bell = self._ctx.bell
        seen, plan = bell.heard(_TOLD), bell.heard(News.PLAN)
        while not self._stopping.is_set():
            heard = bell.wait(seen, _LISTEN_S, _TOLD)
            if heard == seen:
                continue
            # Whoever waits for a reservation comes first: these would take the processor from the push.
            self._stopping.wait(_CALM_S)
            seen, planned = heard, bell.heard(News.PLAN)
            self._deliver.wake()
            if planned != plan:
                plan = planned
                self._share.wake()
                manager = self._manager
                if manager is not None:
                    manager[1].wake()
