"""The manager's loop: asks every host how it is, lets the service decide who serves what, and has hosts serve it."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from leasehold.domain.placement import Served, halves, reduced
from leasehold.domain.values import Host
from leasehold.errors import HostUnreachable, KeaRefused
from leasehold.kea.commands import Commands
from leasehold.kea.provider import IpamDhcpProvider
from leasehold.service import hosts, management, sightings
from leasehold.service.context import Context
from leasehold.service.management import Assignment
from leasehold.service.sightings import Answer, Watch
from leasehold.worker.loops import Loop, backoff_s

_PROBES = 64
_PROVISIONS = 16
_LEAST_PAUSE_S = 0.05
_FIRST_BACKOFF_S = 1
_MOST_BACKOFF_S = 30
_JUDGES = "config-test"
"""Kea's command that fails because of what is in a configuration; others fail whatever that is."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What came of having a host serve networks: what it has now, why its Kea did not take the rest, by network, and
    its answer afterwards; or why Kea refused it all."""

    assignment: Assignment
    served: tuple[Served, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
    answer: Answer | None = None
    refusal: str | None = None


@dataclass
class _Provision:
    """What a host took last, and in which life of its Kea; or what it refused, how often, and when to try again."""

    taken: Assignment | None = None
    boot: str | None = None
    refused: Assignment | None = None
    failures: int = 0
    not_before: float = 0.0

    def refuse(self, assignment: Assignment) -> None:
        """It did not take all of this."""
        self.failures += 1
        self.refused = assignment
        self.not_before = time.monotonic() + backoff_s(self.failures, _FIRST_BACKOFF_S, _MOST_BACKOFF_S)


class Manager:
    """Asks hosts every `manage_interval_s`, each without waiting for the others, and decides then and when woken. One
    that is to serve and did not answer is asked again when woken, since a `start` may wait for it."""

    def __init__(self, ctx: Context, commands: Commands, provider: IpamDhcpProvider) -> None:
        self._ctx = ctx
        self._commands = commands
        self._provider = provider
        self._watch = Watch()
        self._provisions: dict[str, _Provision] = {}
        self._awaited: frozenset[str] = frozenset()
        self._next_probe = 0.0
        self._asking: dict[str, Future[Answer]] = {}
        self._providing: dict[str, Future[_Outcome]] = {}
        self._askers = ThreadPoolExecutor(_PROBES, "ask")
        self._providers = ThreadPoolExecutor(_PROVISIONS, "provide")
        self._loop = Loop("manage", self._turn, least_pause_s=_LEAST_PAUSE_S)
        self.start, self.wake = self._loop.start, self._loop.wake

    def stop(self) -> None:
        """Lets the commands under way be the last."""
        self._loop.stop()

    def join(self, deadline: float) -> bool:
        """Waits until `time.monotonic()` is `deadline`; True if it came to its end."""
        ended = self._loop.join(deadline)
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._providers.shutdown(wait=False, cancel_futures=True)
        return ended

    def _turn(self) -> float:
        self._take_in()
        known = {host.id: host for host in hosts.list_hosts(self._ctx)}
        for host_id in self._watch.hosts.keys() - known.keys():
            del self._watch.hosts[host_id]
            self._provisions.pop(host_id, None)
        self._ask(known)
        management.plan(self._ctx, self._watch)
        assignments = management.assignments(self._ctx, self._watch)
        self._awaited = frozenset(host_id for host_id, each in assignments.items() if each.served)
        for host_id, assignment in assignments.items():
            if host_id in known and self._is_due(host_id, assignment):
                self._submit(known[host_id], assignment)
        return max(0.0, self._next_probe - time.monotonic())

    def _ask(self, known: dict[str, Host]) -> None:
        is_time = time.monotonic() >= self._next_probe
        if is_time:
            self._next_probe = time.monotonic() + self._ctx.settings.manage_interval_s
        for host in known.values():
            if host.id not in self._asking and (is_time or self._is_worth_asking(host)):
                future = self._askers.submit(self._answer, host)
                future.add_done_callback(lambda _: self.wake())
                self._asking[host.id] = future

    def _is_worth_asking(self, host: Host) -> bool:
        """True for a host that was never asked, and for one that is waited for and was not asked lately."""
        sighting = self._watch.hosts.get(host.id)
        if sighting is None:
            return True
        is_away = host.unreachable_reason is not None or sighting.reason is not None
        asked_ms_ago = self._ctx.now_ms() - sighting.asked_ms
        return is_away and host.id in self._awaited and asked_ms_ago >= hosts.FAILURE_COUNTS_MS

    def _answer(self, host: Host) -> Answer:
        asked_ms = self._ctx.now_ms()
        try:
            return Answer(host=host.id, asked_ms=asked_ms, status=self._commands.status(host))
        except HostUnreachable as error:
            return Answer(host=host.id, asked_ms=asked_ms, status=None, reason=str(error.facts["reason"]))
        except KeaRefused as error:
            return Answer(host=host.id, asked_ms=asked_ms, status=None, reason=str(error))

    def _take_in(self) -> None:
        """Records what came in since the last turn."""
        answers = [self._asking.pop(key).result() for key in _done(self._asking)]
        outcomes = {key: self._providing.pop(key).result() for key in _done(self._providing)}
        answers += [each.answer for each in outcomes.values() if each.answer is not None]
        sightings.record_answers(self._ctx, self._watch, answers)
        for host_id, outcome in outcomes.items():
            self._settle(host_id, outcome)

    def _settle(self, host_id: str, outcome: _Outcome) -> None:
        provision = self._provisions.setdefault(host_id, _Provision())
        refusal = outcome.refusal
        assignment = outcome.assignment
        status = None if outcome.answer is None else outcome.answer.status
        if status is not None and status.managed != _subnets(outcome.served):
            refusal = (
                f"Kea on host {host_id} took the configuration, but its hook sees the subnets "
                f"{sorted(status.managed)} there instead of {sorted(_subnets(outcome.served))}."
            )
        if refusal is not None:
            management.refused(self._ctx, self._watch, host_id, self._not_taken(host_id, assignment), refusal)
            provision.refuse(assignment)
        elif status is not None:
            management.provided(self._ctx, self._watch, host_id, outcome.served, assignment.settings, outcome.refusals)
            has_stopped = replace(assignment, stops=False)
            provision.taken, provision.boot = replace(has_stopped, served=outcome.served), status.boot
            if outcome.refusals:
                provision.refuse(has_stopped)
            else:
                provision.failures, provision.refused = 0, None

    def _not_taken(self, host_id: str, assignment: Assignment) -> list[str]:
        """The networks that the host is not known to serve as they are to be."""
        sighting, provision = self._watch.hosts[host_id], self._provisions[host_id]
        taken = provision.taken.served if provision.taken is not None and provision.boot == sighting.boot else ()
        return [
            each.network for each in assignment.served if each not in taken or not _subnets([each]) <= sighting.managed
        ]

    def _is_due(self, host_id: str, assignment: Assignment) -> bool:
        """True when the host answers, and is not known to have just what it is to have."""
        sighting = self._watch.hosts.get(host_id)
        if sighting is None or sighting.reason is not None or host_id in self._providing:
            return False
        provision = self._provisions.setdefault(host_id, _Provision())
        if provision.refused == assignment and time.monotonic() < provision.not_before:
            return False
        return (
            assignment.stops
            or (provision.taken, provision.boot) != (assignment, sighting.boot)
            or sighting.managed != _subnets(assignment.served)
        )

    def _submit(self, host: Host, assignment: Assignment) -> None:
        future = self._providers.submit(self._provide, host, assignment, self._watch.hosts[host.id].managed)
        future.add_done_callback(lambda _: self.wake())
        self._providing[host.id] = future

    def _provide(self, host: Host, assignment: Assignment, has: frozenset[int]) -> _Outcome:
        try:
            served, refusals = self._provide_most(host, assignment.served, has)
        except KeaRefused as error:
            return _Outcome(assignment=assignment, refusal=str(error))
        except HostUnreachable as error:
            reason = str(error.facts["reason"])
            return _Outcome(
                assignment=assignment,
                answer=Answer(host=host.id, asked_ms=self._ctx.now_ms(), status=None, reason=reason),
            )
        return _Outcome(assignment=assignment, served=served, refusals=refusals, answer=self._answer(host))

    def _provide_most(
        self, host: Host, wanted: tuple[Served, ...], has: frozenset[int]
    ) -> tuple[tuple[Served, ...], dict[str, str]]:
        """Provides as much of what is wanted as the host's Kea takes; returns that, and by network why not the rest.

        Where it refuses the whole, it first gets what it has already of that, so that what is to stop does. The rest is
        added in halves, down to the subnets that it refuses, for which it keeps what it has. Raises KeaRefused where
        the reason is not in what is wanted, and HostUnreachable.
        """
        served: tuple[Served, ...] = ()
        taken: frozenset[int] = frozenset()
        refusals: dict[str, str] = {}
        parts = [wanted]
        while parts:
            part = parts.pop()
            attempt = reduced(wanted, taken | _subnets(part), has)
            try:
                self._set(host, attempt)
            except KeaRefused as error:
                if error.facts["command"] != _JUDGES:
                    raise
                if part == wanted:
                    served = reduced(wanted, (), has)
                    self._set(host, served)
                smaller = halves(part)
                parts += reversed(smaller)
                if not smaller:
                    refusals.setdefault(part[0].network, str(error))
            else:
                served, taken = attempt, taken | _subnets(part)
        return served, refusals

    def _set(self, host: Host, served: tuple[Served, ...]) -> None:
        if served:
            self._provider.provide(host, served)
        else:
            self._provider.dont_provide(host)


def _done(futures: dict[str, Future[Answer]] | dict[str, Future[_Outcome]]) -> list[str]:
    return [key for key, future in futures.items() if future.done()]


def _subnets(served: Iterable[Served]) -> frozenset[int]:
    return frozenset(subnet_id for each in served for subnet_id, _ in each.subnets)
