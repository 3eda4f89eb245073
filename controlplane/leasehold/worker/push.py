"""Brings each host to the present revision of the subnets that it serves: all hosts at once, one command at a time to
each."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from netaddr import IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import EMPTY_DIGEST, Batch, Entry, Resync, SubnetState, joined, mending
from leasehold.domain.values import Host
from leasehold.errors import HostNotFound, HostUnreachable, KeaRefused, Unavailable
from leasehold.kea.commands import Applied, Commands
from leasehold.service import counters, hosts, replication, sightings
from leasehold.service.bell import Due, News
from leasehold.service.context import Context
from leasehold.service.replication import Advance
from leasehold.store.database import DutyLost
from leasehold.worker.loops import Loop, backoff_s

log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.2
_MOST_BACKOFF_S = 5
_IDLE_S = 60
_STORE_AFTER_S = 0.05
_REST_PER_WORK = 3
_MOST_REST_S = 1.0


class Push:
    """Looks for hosts that lag whenever the bell rings, and wakes a sender for each.

    `own` answers the hosts that this process pushes to, each with the context to do it with; without it, all are.
    """

    def __init__(
        self, ctx: Context, commands: Commands, own: Callable[[], Mapping[str, Context]] | None = None
    ) -> None:
        self._ctx = ctx
        self._commands = commands
        self._own = own
        self._senders: dict[str, _Sender] = {}
        self._lock = threading.Lock()
        # No thread between the bell and this one: `start` waits for what comes of it.
        self._loop = Loop("push", self._turn, bell=ctx.bell, news=News.PLAN | News.LOG)
        self.start = self._loop.start

    def stop(self) -> None:
        """Lets the commands under way be the last."""
        self._loop.stop()
        for sender in self._all():
            sender.loop.stop()

    def join(self, deadline: float) -> bool:
        """Waits until `time.monotonic()` is `deadline`; True if all came to their end."""
        return all(loop.join(deadline) for loop in (self._loop, *(sender.loop for sender in self._all())))

    def take(self, dues: Sequence[Due]) -> None:
        """What somebody knows to be next for hosts is theirs without a look, so that a start need not wait for one."""
        own = None if self._own is None else self._own()
        for due in dues:
            if self._loop.stopping:
                break
            if own is None or due.host in own:
                ctx = self._ctx if own is None else own[due.host]
                self._sender(due.host, ctx).add_due(due)

    def _all(self) -> list["_Sender"]:
        with self._lock:
            return list(self._senders.values())

    def _turn(self) -> float:
        own = None if self._own is None else self._own()
        if own is not None:
            self._end_all_but(own)
        for host_id, batches in replication.lagging(self._ctx, own).items():
            if self._loop.stopping:
                break
            self._sender(host_id, self._ctx if own is None else own[host_id]).add(batches)
        away = {sender.host_id for sender in self._all() if sender.found_away}
        for host_id in hosts.answering(self._ctx, away):
            self._sender(host_id, self._ctx if own is None else own[host_id]).retry()
        return self._ctx.settings.manage_interval_s

    def _sender(self, host_id: str, ctx: Context) -> "_Sender":
        with self._lock:
            sender = self._senders.get(host_id)
            if sender is None or sender.loop.stopping:
                sender = self._senders[host_id] = _Sender(ctx, self._commands, host_id)
                sender.loop.start()
            return sender

    def _end_all_but(self, own: Mapping[str, Context]) -> None:
        """Others push to these hosts now, or we do in another term."""
        with self._lock:
            ended = [host_id for host_id, sender in self._senders.items() if own.get(host_id) is not sender.ctx]
            for host_id in ended:
                self._senders.pop(host_id).loop.stop()


@dataclass(frozen=True)
class _Pause:
    """After so many failures in a row, until `time.monotonic()` is `until`."""

    failures: int = 0
    until: float = 0.0

    @property
    def left_s(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def after_another(self) -> "_Pause":
        failures = self.failures + 1
        return _Pause(failures, time.monotonic() + backoff_s(failures, _FIRST_BACKOFF_S, _MOST_BACKOFF_S))


class _Sender:
    """One host's: sends what it lacks, subnet after subnet. Backs off while the host does not answer, and from a subnet
    whose reservations it refuses, while the others go on."""

    def __init__(self, ctx: Context, commands: Commands, host_id: str) -> None:
        self.ctx = self._ctx = ctx
        self._commands = commands
        self.host_id = host_id
        self.found_away = False
        self._host: Host | None = None
        self._host_read_at = 0.0
        self._lock = threading.Lock()
        # Batches that somebody knew of, or None where the database is to be asked.
        self._behind: dict[int, list[Batch] | None] = {}
        self._at: dict[int, int] = {}
        self._unstored: dict[int, Advance] = {}
        self._store_at = 0.0
        self._pause = _Pause()
        self._pauses: dict[int, _Pause] = {}
        self.loop = Loop(f"push to {host_id}", self._turn, at_end=self._store_last)

    def add(self, batches: Mapping[int, Batch | None]) -> None:
        """The host lags on these subnets, and this batch is next, where that is known."""
        with self._lock:
            for subnet_id, batch in batches.items():
                known = self._behind.setdefault(subnet_id, [])
                if batch is None or known is None:
                    self._behind[subnet_id] = None
                else:
                    known.append(batch)
        self.loop.wake()

    def add_due(self, due: Due) -> None:
        """The host lacks this, and perhaps more."""
        entry = (Mac.parse(due.mac), IPAddress(due.ip), None)
        batch = Batch(
            subnet=due.subnet,
            epoch=due.epoch,
            base=due.revision - 1,
            revision=due.revision,
            set=(entry,),
            unset=(),
        )
        # What is on its way to the host may lead to its base; what is nowhere known does not.
        is_known = due.subnet in self._at or due.confirmed == batch.base
        self.add({due.subnet: batch if is_known else None})

    def retry(self) -> None:
        """The host was found away, and answers again: ends the present back-off."""
        self.found_away = False
        self._pause = replace(self._pause, until=0.0)
        self.loop.wake()

    def _turn(self) -> float:
        if wait_s := self._pause.left_s:
            return wait_s
        with self._lock:
            due = sorted(each for each in self._behind if not self._pause_of(each).left_s)
            behind = {each: self._behind.pop(each) for each in due}
        try:
            for subnet_id, batches in behind.items():
                try:
                    self._catch_up(subnet_id, batches)
                    self._pauses.pop(subnet_id, None)
                except KeaRefused as error:
                    log.warning("Host %s refuses reservations of subnet %d: %s", self.host_id, subnet_id, error)
                    self._pauses[subnet_id] = self._pause_of(subnet_id).after_another()
                    self._look_again([subnet_id])
                    self._host = None
        except HostNotFound:
            self.loop.stop()
        except HostUnreachable as error:
            sightings.record_unreachable(self._ctx, self.host_id, str(error.facts["reason"]))
            self.found_away = True
            return self._back_off(behind)
        except Exception:
            self._look_again(behind)
            raise
        else:
            if self._pause.failures:
                # It was on record as away: whoever starts now is to see that it is not.
                self._store()
            self._pause = _Pause()
            self.found_away = False
        wait_s = self._store_in_time()
        with self._lock:
            return min([wait_s, *(self._pause_of(each).left_s for each in self._behind)])

    def _pause_of(self, subnet_id: int) -> _Pause:
        return self._pauses.get(subnet_id, _Pause())

    def _back_off(self, behind: Iterable[int]) -> float:
        self._look_again(behind)
        self._host = None
        self._pause = self._pause.after_another()
        return self._pause.left_s

    def _look_again(self, behind: Iterable[int]) -> None:
        with self._lock:
            self._behind |= dict.fromkeys(behind)

    def _catch_up(self, subnet_id: int, batches: Sequence[Batch] | None) -> None:
        """`batches` are what somebody knew to be next; without, the database tells."""
        if batches and self._send_known(batches):
            return
        while not self.loop.stopping:
            self._store()
            step = replication.next_step(self._ctx, self.host_id, subnet_id)
            if step is None:
                return
            host = self._known_host()
            if isinstance(step, Resync):
                self._send_all(host, step)
            elif self._send_batch(host, step) and step.revision - step.base < replication.log_step(self._ctx):
                return  # that was all; what came since was told

    def _send_known(self, batches: Sequence[Batch]) -> bool:
        """Sends those that follow on what the host has; whether that was all there is."""
        most = replication.log_step(self._ctx)
        at = self._at.get(batches[0].subnet, batches[0].base)
        while not self.loop.stopping and (step := joined(batches, at, most)) is not None:
            if not self._send_batch(self._known_host(), step):
                return False
            at = step.revision
        return all(each.revision <= at and each.revision - each.base < most for each in batches)

    def _store_in_time(self) -> float:
        """Keeps what the host confirmed once nobody waits for this thread; returns for how long there is nothing to do.

        So a start that waits for several hosts does not share the processor with that, and what is confirmed shortly
        after goes into the same transaction.
        """
        if not self._unstored:
            return _IDLE_S
        wait_s = self._store_at - time.monotonic()
        if wait_s > 0:
            return wait_s
        self._store()
        return _IDLE_S

    def _store(self) -> None:
        if self._unstored:
            replication.store(self._ctx, self.host_id, self._unstored.values())
            self._unstored = {}

    def _store_last(self) -> None:
        try:
            self._store()
        except (Unavailable, DutyLost) as error:
            log.info("What host %s confirmed last is not stored, and asked again: %s", self.host_id, error)

    def _send_batch(self, host: Host, batch: Batch) -> bool:
        """Whether the host took it."""
        try:
            applied = self._apply(host, "batch", batch)
        except KeaRefused as error:
            # What the hook has does not fit the log: reservations that others added or removed there, for one.
            log.warning("Host %s gets all reservations of subnet %d: %s", host.id, batch.subnet, error)
            self._at.pop(batch.subnet, None)
            self._unstored.pop(batch.subnet, None)
            replication.forget(self._ctx, host.id, batch.subnet)
            return False
        if applied.accepted:
            self._at[batch.subnet] = batch.revision
            self._advance(batch)
        else:
            # Its answer to an earlier batch was lost, or its journal; or we are behind ourselves.
            self._at.pop(batch.subnet, None)
            self._store()
            sightings.reconcile(self._ctx, host.id, applied.state)
        return applied.accepted

    def _advance(self, batch: Batch) -> None:
        before = self._unstored.get(batch.subnet)
        if before is not None and (before.epoch, before.revision) != (batch.epoch, batch.base):
            self._store()
            before = None
        base = batch.base if before is None else before.base
        advance = Advance(subnet=batch.subnet, epoch=batch.epoch, base=base, revision=batch.revision)
        replication.tell(self._ctx, self.host_id, advance)
        if not self._unstored:
            self._store_at = time.monotonic() + _STORE_AFTER_S
        self._unstored[batch.subnet] = advance

    def _send_all(self, host: Host, resync: Resync) -> None:
        status = self._commands.status(host)
        sightings.beware(self._ctx, host.id, status)
        state = next((each for each in status.subnets if each.subnet == resync.subnet), None)
        step = replication.log_step(self._ctx)
        state = state or SubnetState(subnet=resync.subnet, epoch="", revision=0, count=0, digest=EMPTY_DIGEST)
        serves = any(each.count and each.subnet in status.managed for each in status.subnets)
        if serves and state.count + len(resync.reservations) > step:
            is_done = self._mend(host, resync, state, step)
        else:
            is_done = self._replace(host, resync)
        if not is_done:
            raise KeaRefused(
                f"Host {host.id} did not take all reservations of subnet {resync.subnet}: another change came between.",
                host=host.id,
                command="leasehold-apply",
                result=4,
                text="resync dropped",
            )
        self._at.pop(resync.subnet, None)
        self._unstored.pop(resync.subnet, None)
        replication.confirm(self._ctx, host.id, resync.subnet, resync.epoch, resync.revision)

    def _replace(self, host: Host, resync: Resync) -> bool:
        """The whole set at once, in pages: the fastest way for a host that serves nothing yet, and for few."""
        # A batch is right whoever sends it; a set is not, once others went on in another epoch.
        self._ctx.db.require_duty()
        page = self._ctx.settings.push_batch
        return _counted(
            host, "resync", len(resync.reservations), lambda: self._commands.resync(host, resync, page)
        ).accepted

    def _mend(self, host: Host, resync: Resync, state: SubnetState, step: int) -> bool:
        """What differs only, in small steps, while the host serves."""
        # The same set of another history need not be compared.
        present = resync.reservations if state.digest == resync.digest else self._read(host, resync.subnet, step)
        # Somebody may have changed reservations on the host meanwhile: then it gets everything at once.
        try:
            for batch in mending(resync, state, present, step):
                if self.loop.stopping:
                    return False
                applied = self._apply(host, "resync", batch)
                if not applied.accepted:
                    return self._replace(host, resync)
        except KeaRefused as error:
            log.warning("Host %s cannot be mended step by step: %s", host.id, error)
            return self._replace(host, resync)
        return applied.state.digest == resync.digest or self._replace(host, resync)

    def _read(self, host: Host, subnet_id: int, step: int) -> list[Entry]:
        """All reservations that the host has of a subnet."""
        present: list[Entry] = []
        after: object = None
        while not self.loop.stopping:
            began = time.monotonic()
            page, after = self._commands.reservations(host, subnet_id, step, after)
            present += page
            if after is None:
                break
            self._rest(began)
        return present

    def _apply(self, host: Host, kind: str, batch: Batch) -> Applied:
        size = len(batch.set) + len(batch.unset)
        began = time.monotonic()
        applied = _counted(host, kind, size, lambda: self._commands.apply(host, batch))
        if size >= replication.log_step(self._ctx):
            self._rest(began)
        return applied

    def _rest(self, began: float) -> None:
        """Leaves the host's Kea to its guests for a multiple of the time that it was kept from them."""
        time.sleep(min(_MOST_REST_S, (time.monotonic() - began) * _REST_PER_WORK))

    def _known_host(self) -> Host:
        """The host's row, read again after a while and after every failure: its URL or password may be new."""
        now = time.monotonic()
        if self._host is None or now - self._host_read_at > self._ctx.settings.manage_interval_s:
            self._host, self._host_read_at = hosts.get(self._ctx, self.host_id), now
        return self._host


def _counted(host: Host, kind: str, reservations: int, send: Callable[[], Applied]) -> Applied:
    """Sends, and counts what came of it."""
    outcome = "failed"
    try:
        with counters.push_seconds.labels(kind).time():
            applied = send()
        outcome = "accepted" if applied.accepted else "rejected"
    finally:
        counters.push_commands.labels(host.id, kind, outcome).inc()
    if applied.accepted:
        counters.push_reservations.labels(host.id).inc(reservations)
    return applied
