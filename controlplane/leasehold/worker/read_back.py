"""Reads the leases of servers back, one host at a time, after a crash or a gap in their events."""

import logging
import time
from collections.abc import Callable, Mapping

from leasehold.domain.lease_events import LeaseFound
from leasehold.domain.values import Host
from leasehold.errors import HostNotFound, HostUnreachable, KeaRefused
from leasehold.kea.commands import Commands
from leasehold.service import hosts, read_backs
from leasehold.service.context import Context
from leasehold.worker.loops import Loop

log = logging.getLogger(__name__)

_LOOK_S = 2.0
# The hook numbers events when it takes them out of its queue, every 50 ms or a little later.
_QUEUE_S = 1.0
_PATIENCE_S = 20.0
_RETRY_S = 15.0
_ASK_S = 0.2
_MOST_BEHIND = 5_000
# Source: Kea 2.2 ARM, "Control Channel": 2 is the result for a command that no library brought.
_UNSUPPORTED = 2
_NEEDS_LIBRARY = (
    "its Kea does not know the command for it. Load libdhcp_lease_cmds.so there, as kea-configs/kea-dhcp4.conf does."
)
_LAGS = "events that its hook has in its spool come first"


class ReadBack:
    """The loop; `held` are the hosts that this process looks after, each with the context for it."""

    def __init__(self, ctx: Context, commands: Commands, held: Callable[[], Mapping[str, Context]]) -> None:
        self._ctx = ctx
        self._commands = commands
        self._held = held
        self._not_before: dict[str, float] = {}
        self._loop = Loop("read back", self._turn)
        self.start, self.stop, self.join = self._loop.start, self._loop.stop, self._loop.join

    def _turn(self) -> float:
        held = self._held()
        for host_id in read_backs.wanted(self._ctx):
            if self._loop.stopping:
                break
            if host_id in held and time.monotonic() >= self._not_before.get(host_id, 0.0):
                self._attempt(held[host_id], host_id)
        return _LOOK_S

    def _attempt(self, ctx: Context, host_id: str) -> None:
        try:
            detail = self._read(ctx, hosts.get(ctx, host_id))
        except HostNotFound:
            return
        except HostUnreachable as error:
            detail = f"the host does not answer: {error.facts['reason']}"
        except KeaRefused as error:
            detail = _NEEDS_LIBRARY if error.facts["result"] == _UNSUPPORTED else str(error)
            log.warning("The leases of host %s cannot be read back: %s", host_id, error)
        if detail is not None:
            self._not_before[host_id] = time.monotonic() + _RETRY_S
            read_backs.note(ctx, host_id, detail)

    def _read(self, ctx: Context, host: Host) -> str | None:
        """None when that is done, else why it is not."""
        before = read_backs.snapshot(ctx, host.id)
        if before is None:
            return None
        status = self._commands.status(host)
        boot = status.boot
        if status.reporting and status.last_sequence - read_backs.head(ctx, host.id, boot) > _MOST_BEHIND:
            return _LAGS
        found: list[LeaseFound] = []
        for page in self._commands.leases(host):
            found += page
            if self._loop.stopping:
                return "the control plane was ended"
        self._loop.rest(_QUEUE_S)
        status = self._commands.status(host)
        if status.boot != boot:
            return "Kea was started anew meanwhile"
        deadline = time.monotonic() + _PATIENCE_S
        while status.reporting and read_backs.head(ctx, host.id, boot) < status.last_sequence:
            if time.monotonic() > deadline or self._loop.stopping:
                return _LAGS
            self._loop.rest(_ASK_S)
        missed = read_backs.conclude(ctx, before, found)
        log.info("The leases of host %s were read back; %d events had been missed.", host.id, missed)
        return None
