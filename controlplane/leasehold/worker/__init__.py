"""The loops beside the API: they push reservations, manage servers, sweep addresses and deliver webhooks."""

import logging
import threading
import time

from leasehold.kea.commands import Commands
from leasehold.kea.provider import KeaDhcpProvider
from leasehold.kea.transport import Transport
from leasehold.service.context import Context
from leasehold.worker.deliver import Deliver
from leasehold.worker.manage import Manager
from leasehold.worker.push import Push
from leasehold.worker.sweep import sweeper

log = logging.getLogger(__name__)

_LISTEN_S = 1
_CALM_S = 0.02


class Worker:
    """All loops of one process, woken by its bell."""

    def __init__(self, ctx: Context) -> None:
        """Raises FieldInvalid for a setting that is not understood."""
        self._ctx = ctx
        self._transport = Transport(ctx.settings)
        commands = Commands(self._transport)
        self._push = Push(ctx, commands)
        self._manager = Manager(ctx, commands, KeaDhcpProvider(commands), self._push.retry)
        self._deliver = Deliver(ctx)
        self._sweep = sweeper(ctx)
        self._stopping = threading.Event()
        self._ear = threading.Thread(target=self._listen, name="bell", daemon=True)

    def start(self) -> None:
        """Begins all loops; returns at once."""
        for part in (self._push, self._manager, self._deliver, self._sweep, self._ear):
            part.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Lets what is under way come to its end, for up to `timeout_s` seconds."""
        self._stopping.set()
        self._ctx.bell.ring()
        deadline = time.monotonic() + timeout_s
        for part in (self._push, self._manager, self._deliver, self._sweep):
            part.stop()
        ended = [part.join(deadline) for part in (self._push, self._manager, self._deliver, self._sweep)]
        if not all(ended):
            log.warning("Not all loops came to their end in %.0f s; what they had begun is begun again.", timeout_s)
        self._transport.close()

    def _listen(self) -> None:
        seen = self._ctx.bell.count
        while not self._stopping.is_set():
            heard = self._ctx.bell.wait(seen, _LISTEN_S)
            if heard != seen:
                # Whoever waits for a reservation comes first: these would take the processor from the push.
                self._stopping.wait(_CALM_S)
                seen = heard
                self._manager.wake()
                self._deliver.wake()
