"""What is seen of the hosts: what they answer, compared with what they are known to have, and what becomes of that.

A host is up while it answers, doubtful when it was asked in vain, and down once it was for `host_down_after_s`. On one
network it is down, too, once its hook has said for as long that it hears no guests there. What it says that it has of
our reservations is the truth: what it confirmed and has no more is sent again. Where it has more than this database
ever sent, the database is an older copy of itself, and begins a new history.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, insert, select, tuple_, update

from leasehold.domain.placement import Health
from leasehold.domain.replication import EMPTY_DIGEST, HookStatus, SubnetState
from leasehold.service import lineage, replication
from leasehold.service.context import Context
from leasehold.store.database import AnyRow
from leasehold.store.tables import host_networks, hosts, reservation_log, server_subnets, servers
from leasehold.store.tables import subnets as subnets_table

log = logging.getLogger(__name__)

_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of asking a host: its hook's status, or the reason why there is none."""

    host: str
    asked_ms: int
    status: HookStatus | None
    reason: str | None = None


@dataclass(frozen=True)
class Trouble:
    """What was wrong each time since `since_ms`, and how long that had been at the last look."""

    reason: str
    since_ms: int
    for_ms: int


@dataclass
class Sighting:
    """What this process last saw of a host, which was asked at `asked_ms`: `silence` where it did not answer, and by
    network `link_faults` where it hears no guests, and `refusals` where its Kea did not take the settings. `goals` are
    the revisions that its servers must reach to count again."""

    asked_ms: int
    silence: Trouble | None = None
    link_faults: dict[str, Trouble] = field(default_factory=dict)
    boot: str | None = None
    managed: frozenset[int] = frozenset()
    refusals: Mapping[str, str] = field(default_factory=dict)
    goals: dict[int, int] = field(default_factory=dict)

    @property
    def reason(self) -> str | None:
        """Why it did not answer when it was last asked."""
        return None if self.silence is None else self.silence.reason

    def trouble(self, network_id: str) -> Trouble | None:
        """What keeps it from serving the network: of two troubles the longer one."""
        found = [each for each in (self.silence, self.link_faults.get(network_id)) if each is not None]
        return max(found, key=lambda each: each.for_ms, default=None)


def health_with(trouble: Trouble | None, down_after_s: float) -> Health:
    """What to make of a host, or of it on one network."""
    if trouble is None:
        return "up"
    return "doubtful" if trouble.for_ms < down_after_s * 1000 else "down"


@dataclass
class Watch:
    """What this process saw of the hosts. Nobody is down who was not asked in vain for long enough: a control plane
    that was away itself does not take the hosts for those that were."""

    hosts: dict[str, Sighting] = field(default_factory=dict)
    since_ms: int | None = None
    """When it began. No other database was put in place since, and whoever answered since has said what it serves."""


def record_answers(ctx: Context, watch: Watch, answers: Iterable[Answer]) -> None:
    """Keeps what hosts answered, and compares it with what they are known to have: what they confirmed and have no
    more, or have otherwise, is pushed again; a network that they serve unasked becomes a server that is stopping, so
    that addresses wait for it."""
    new = [each for each in map(_checked, answers) if _is_newer(watch, each)]
    if not new:
        return
    if watch.since_ms is None:
        watch.since_ms = min(each.asked_ms for each in new)
    sighted: dict[str, Sighting] = {}
    returned, first_seen = False, set()
    for answer in new:
        before = sighted.get(answer.host, watch.hosts.get(answer.host))
        sighted[answer.host] = _sighted(before, answer, ctx.now_ms())
        if answer.status is not None and (before is None or before.boot is None):
            first_seen.add(answer.host)
        if answer.status is not None and (before is None or before.reason is not None):
            returned = True
    with ctx.db.write() as connection:
        replication.change_servers(connection)
        changed = False
        known = set()
        for row in connection.execute(select(hosts).where(hosts.c.id.in_(sighted))).all():
            known.add(row.id)
            changed |= _keep(ctx, connection, row, sighted[row.id])
        here = {each.host: each for each in new if each.host in known and each.status is not None}
        statuses = {host_id: each.status for host_id, each in here.items() if each.status is not None}
        connection.execute(update(hosts).where(hosts.c.id.in_(statuses)).values(answered_ms=ctx.now_ms(), strays=None))
        evidence = _rewinds(connection, statuses, first_seen)
        if evidence is not None:
            lineage.draw_epoch(connection, ctx.now_ms(), evidence)
        changed |= _beware(connection, ctx.now_ms(), watch.since_ms, statuses)
        changed |= _listen(ctx, connection, sighted, here)
        changed |= _adopt(connection, ctx.now_ms(), statuses)
        changed |= evidence is not None or _compare(connection, here)
    # Not before: what is seen for the first time is seen so again when nothing came of it.
    watch.hosts |= sighted
    if changed or returned:
        ctx.bell.ring()


def record_unreachable(ctx: Context, host_id: str, reason: str) -> None:
    """A host did not answer: `start` need not wait for it. Its next status says that it is back."""
    with ctx.db.write() as connection:
        changed = connection.execute(
            update(hosts).where(hosts.c.id == host_id).values(unreachable_reason=reason, failed_ms=ctx.now_ms())
        ).rowcount
    if changed:
        ctx.bell.ring()


def beware(ctx: Context, host_id: str, status: HookStatus) -> None:
    """Before reservations on a host are replaced that serves: if they are of another history, which the manager need
    not have seen yet, nothing is promised anew where the host may have served them."""
    with ctx.db.read() as connection:
        found = _unknown(connection, {host_id: status})
        if all(lineage.is_guarded(connection, host_id, each.subnets) for each in found):
            return
    with ctx.db.write() as connection:
        replication.change_servers(connection)
        _beware(connection, ctx.now_ms(), ctx.now_ms(), {host_id: status})
    ctx.bell.ring()


def reconcile(ctx: Context, host_id: str, state: SubnetState) -> None:
    """A host took no log entries, since it is elsewhere than it confirmed, in this state. Where it has what we had at
    that revision, the log goes on from there, else it gets everything anew. One that has seen a history of ours that we
    do not know shows that the database is an older copy of itself."""
    with ctx.db.write() as connection:
        replication.change_servers(connection)
        row = connection.execute(
            select(server_subnets, subnets_table.c.id, subnets_table.c.revision, subnets_table.c.digest)
            .join(subnets_table, subnets_table.c.id == server_subnets.c.subnet_id)
            .where(server_subnets.c.host_id == host_id, server_subnets.c.subnet_id == state.subnet)
        ).one_or_none()
        if row is None:
            return
        is_ours = state.epoch == replication.epoch_of(connection)
        known = _digests(connection, [state], {row.id: row}).get((state.subnet, state.revision)) if is_ours else None
        went_on = row.confirmed_revision is not None and state.revision > row.confirmed_revision
        if is_ours and (state.revision > row.revision or (went_on and known not in (None, state.digest))):
            lineage.draw_epoch(connection, ctx.now_ms(), _evidence(host_id, state, row.revision))
        else:
            connection.execute(
                update(server_subnets)
                .where(server_subnets.c.host_id == host_id, server_subnets.c.subnet_id == state.subnet)
                .values(confirmed_revision=state.revision if known == state.digest else None, confirmed_ms=ctx.now_ms())
            )
    ctx.bell.ring()


def _keep(ctx: Context, connection: Connection, row: AnyRow, sighting: Sighting) -> bool:
    """Writes what is new about a host; returns whether that is of interest to others."""
    now_ms = ctx.now_ms()
    health = health_with(sighting.silence, ctx.settings.host_down_after_s)
    if health == "doubtful" and row.health == "down":
        health = "down"  # it did not return in between: this process began to watch, and asked it in vain
    values: dict[str, Any] = {
        "health": health,
        "unreachable_reason": sighting.reason,
        "boot_id": sighting.boot or row.boot_id,
    }
    # One that never answered did not fall: it was not there yet.
    has_been_up = row.answered_ms is not None
    if health == "up" and row.health == "down" and has_been_up:
        values["returned_ms"] = now_ms
    if health == "down" and row.health != "down" and has_been_up:
        values["falls"] = _falls(ctx, row)
    changed = any(getattr(row, name) != value for name, value in values.items())
    if sighting.reason is not None:
        values["failed_ms"] = now_ms
    if changed or sighting.reason is not None:
        connection.execute(update(hosts).where(hosts.c.id == row.id).values(**values))
    return changed


def _listen(
    ctx: Context, connection: Connection, sighted: Mapping[str, Sighting], answers: Mapping[str, Answer]
) -> bool:
    """Takes in on which of their networks hosts say that they hear guests; returns whether that is of interest to
    others."""
    now_ms = ctx.now_ms()
    found: dict[str, dict[str, Trouble]] = {host_id: {} for host_id in answers}
    changed = False
    for row in connection.execute(select(host_networks).where(host_networks.c.host_id.in_(answers))).all():
        status, asked_ms = answers[row.host_id].status, answers[row.host_id].asked_ms
        reason = None if status is None else status.link_fault(row.interface)
        trouble = None
        if reason is not None:
            # Until it was asked, not until now: one answer alone, however late, is not for long enough.
            trouble = _goes_on(sighted[row.host_id].link_faults.get(row.network_id), reason, asked_ms, asked_ms)
            found[row.host_id][row.network_id] = trouble
        health = health_with(trouble, ctx.settings.host_down_after_s)
        values: dict[str, Any] = {}
        if health == "down" and row.link_fault != reason:
            values = {"link_fault": reason} | ({"falls": _falls(ctx, row)} if row.link_fault is None else {})
        if health == "up" and row.link_fault is not None:
            values = {"link_fault": None, "returned_ms": now_ms}
        if values:
            own = (host_networks.c.host_id == row.host_id) & (host_networks.c.network_id == row.network_id)
            connection.execute(update(host_networks).where(own).values(**values))
            changed = True
    for host_id, link_faults in found.items():
        sighted[host_id].link_faults = link_faults
    return changed


def _falls(ctx: Context, row: AnyRow) -> int:
    """How often, with this time, a host fell without a calm time in between, or did so on one network."""
    was_calm = row.returned_ms is None or ctx.now_ms() - row.returned_ms >= ctx.settings.host_calm_s * 1000
    return 1 if was_calm else row.falls + 1


def _goes_on(before: Trouble | None, reason: str, asked_ms: int, until_ms: int) -> Trouble:
    since_ms = asked_ms if before is None else before.since_ms
    return Trouble(reason, since_ms, until_ms - since_ms)


def _checked(answer: Answer) -> Answer:
    """An answer of another host's hook is none."""
    if answer.status is None or answer.status.host == answer.host:
        return answer
    reason = f"its control URL leads to the Kea of host {answer.status.host!r}"
    return Answer(host=answer.host, asked_ms=answer.asked_ms, status=None, reason=reason)


def _is_newer(watch: Watch, answer: Answer) -> bool:
    """False for an answer that was overtaken by that to a later question."""
    before = watch.hosts.get(answer.host)
    return before is None or before.asked_ms <= answer.asked_ms


def _sighted(before: Sighting | None, answer: Answer, now_ms: int) -> Sighting:
    before = before or Sighting(asked_ms=answer.asked_ms)
    if answer.status is not None:
        return replace(
            before,
            asked_ms=answer.asked_ms,
            silence=None,
            boot=answer.status.boot,
            managed=answer.status.managed,
        )
    silence = _goes_on(before.silence, answer.reason or "no answer", answer.asked_ms, now_ms)
    return replace(before, asked_ms=answer.asked_ms, silence=silence, goals={})


def _adopt(connection: Connection, now_ms: int, statuses: Mapping[str, HookStatus]) -> bool:
    """Makes servers of hosts that have networks in their configuration which they are not known to serve."""
    managed = {(host_id, subnet_id) for host_id, status in statuses.items() for subnet_id in status.managed}
    expected = {
        (row.host_id, row.subnet_id)
        for row in connection.execute(
            select(server_subnets.c.host_id, server_subnets.c.subnet_id).where(server_subnets.c.host_id.in_(statuses))
        )
    }
    unasked = managed - expected
    if not unasked:
        return False
    network_of = dict(connection.execute(select(subnets_table.c.id, subnets_table.c.network_id)).all())
    present = set(connection.execute(select(servers.c.host_id, servers.c.network_id)))
    adopted = sorted((host_id, subnet_id) for host_id, subnet_id in unasked if subnet_id in network_of)
    detail = "Its Kea serves the network without having been asked to."
    for host_id, network_id in {(host_id, network_of[subnet_id]) for host_id, subnet_id in adopted} - present:
        log.warning("Host %s serves network %s without having been asked to.", host_id, network_id)
        connection.execute(
            insert(servers).values(
                host_id=host_id, network_id=network_id, state="stopping", since_ms=now_ms, detail=detail
            )
        )
    replication.expect(connection, adopted)
    return bool(adopted)


def _rewinds(connection: Connection, statuses: Mapping[str, HookStatus], first_seen: Iterable[str]) -> str | None:
    """What shows that hosts know of a later history than this database, which then is an older copy of itself; None
    where nothing does.

    A host at a higher revision is proof. A host that has another set at a revision of ours may also have been tampered
    with: it counts only when this manager sees it for the first time, as a copy is not put in place below a manager
    that goes on.
    """
    epoch = replication.epoch_of(connection)
    has = {
        (host_id, state.subnet): state
        for host_id, status in statuses.items()
        for state in status.subnets
        if state.epoch == epoch
    }
    if not has:
        return None
    ids = {subnet_id for _, subnet_id in has}
    ours = {
        row.id: row
        for row in connection.execute(
            select(subnets_table.c.id, subnets_table.c.revision, subnets_table.c.digest).where(
                subnets_table.c.id.in_(ids)
            )
        )
    }
    digests = _digests(connection, has.values(), ours)
    for (host_id, subnet_id), state in sorted(has.items()):
        row = ours.get(subnet_id)
        if row is None:
            continue
        if state.revision > row.revision:
            return _evidence(host_id, state, row.revision)
        known = digests.get((subnet_id, state.revision))
        if host_id in first_seen and known is not None and known != state.digest:
            return _evidence(host_id, state, row.revision)
    return None


@dataclass(frozen=True, kw_only=True)
class _Unknown:
    """What a host serves that this database knows nothing of: reservations that another history made, of `subnets`, and
    of `strays`, which are not here at all."""

    host: str
    subnets: list[int]
    strays: list[int]

    @property
    def evidence(self) -> str:
        """A sentence."""
        return (
            f"Host {self.host} serves reservations of subnets {', '.join(map(str, self.subnets + self.strays))} that "
            "this database knows nothing of. It served another installation, or the database was lost, or is older "
            "than an earlier restore."
        )


def _unknown(connection: Connection, statuses: Mapping[str, HookStatus]) -> list[_Unknown]:
    """What the hosts have in their configurations, with reservations that are not of our history. What has none harms
    nobody; what is not in the configuration is not served, and replaced before it is."""
    served = {
        host_id: [each for each in status.subnets if each.count and each.subnet in status.managed]
        for host_id, status in statuses.items()
    }
    ids = {state.subnet for states in served.values() for state in states}
    known = set(connection.execute(select(subnets_table.c.id).where(subnets_table.c.id.in_(ids))).scalars())
    epoch = replication.epoch_of(connection)
    found = [
        _Unknown(
            host=host_id,
            subnets=[each.subnet for each in states if each.subnet in known and each.is_of_another_history(epoch)],
            strays=[each.subnet for each in states if each.subnet not in known],
        )
        for host_id, states in sorted(served.items())
    ]
    return [each for each in found if each.subnets or each.strays]


def _beware(connection: Connection, now_ms: int, since_ms: int, statuses: Mapping[str, HookStatus]) -> bool:
    """Has nothing promised anew where hosts serve what this database knows nothing of; returns whether anything was. A
    new epoch of our own is none of it: with that all subnets recover already."""
    began = False
    for each in _unknown(connection, statuses):
        if each.strays:
            strays = ", ".join(map(str, each.strays))
            connection.execute(update(hosts).where(hosts.c.id == each.host).values(strays=strays))
        began |= lineage.begin_recovery(
            connection,
            now_ms=now_ms,
            since_ms=since_ms,
            host_id=each.host,
            subnet_ids=each.subnets,
            evidence=each.evidence,
        )
    return began


def _evidence(host_id: str, state: SubnetState, revision: int) -> str:
    if state.revision > revision:
        return f"Host {host_id} has subnet {state.subnet} at revision {state.revision}, we only at {revision}."
    return f"Host {host_id} has other reservations of subnet {state.subnet} at revision {state.revision} than we had."


def _digests(
    connection: Connection, states: Iterable[SubnetState], ours: Mapping[int, AnyRow]
) -> dict[tuple[int, int], str]:
    """The digests of subnets at the revisions that hosts have, as far as the log still tells."""
    found = {(row.id, row.revision): row.digest for row in ours.values()}
    asked = {(each.subnet, each.revision) for each in states} - found.keys()
    older = [key for key in asked if key[0] in ours and 0 < key[1] < ours[key[0]].revision]
    for start in range(0, len(older), _AT_ONCE):
        key = tuple_(reservation_log.c.subnet_id, reservation_log.c.revision)
        for row in connection.execute(
            select(reservation_log.c.subnet_id, reservation_log.c.revision, reservation_log.c.digest).where(
                key.in_(older[start : start + _AT_ONCE])
            )
        ):
            found[row.subnet_id, row.revision] = row.digest
    return found | {(subnet_id, 0): EMPTY_DIGEST for subnet_id in ours}


def _compare(connection: Connection, answers: Mapping[str, Answer]) -> bool:
    """Corrects what hosts are known to have confirmed by what they say that they have. Returns whether it had to."""
    epoch = replication.epoch_of(connection)
    states = {
        (host_id, state.subnet): state
        for host_id, answer in answers.items()
        if answer.status is not None
        for state in answer.status.subnets
        if state.epoch == epoch
    }
    rows = connection.execute(
        select(server_subnets, subnets_table.c.id, subnets_table.c.revision, subnets_table.c.digest, servers.c.state)
        .join(subnets_table, subnets_table.c.id == server_subnets.c.subnet_id)
        .outerjoin(
            servers,
            (servers.c.host_id == server_subnets.c.host_id) & (servers.c.network_id == subnets_table.c.network_id),
        )
        .where(server_subnets.c.host_id.in_(answers))
    ).all()
    digests = _digests(connection, states.values(), {row.id: row for row in rows})
    corrected = False
    for row in rows:
        answer = answers[row.host_id]
        if row.confirmed_ms is not None and row.confirmed_ms >= answer.asked_ms:
            continue  # confirmed while the hook answered
        if row.state == "stopping" and answer.status is not None and row.subnet_id not in answer.status.managed:
            continue  # it has stopped, and forgot what it had, as it should
        has = _confirmed_by(states.get((row.host_id, row.subnet_id)), row, digests)
        if has == row.confirmed_revision:
            continue
        if row.confirmed_revision is not None:
            log.warning(
                "Host %s has subnet %d at revision %s, and not at %d as it confirmed.",
                row.host_id,
                row.subnet_id,
                "unknown" if has is None else has,
                row.confirmed_revision,
            )
        connection.execute(
            update(server_subnets)
            .where(server_subnets.c.host_id == row.host_id, server_subnets.c.subnet_id == row.subnet_id)
            .values(confirmed_revision=has)
        )
        corrected = True
    return corrected


def _confirmed_by(state: SubnetState | None, row: Row[Any], digests: Mapping[tuple[int, int], str]) -> int | None:
    """The revision from which the host can go on by the log; None where it needs a full resync."""
    if state is None or state.revision > row.revision:
        return None
    known = digests.get((row.subnet_id, state.revision))
    if known is not None and known != state.digest:
        return None
    if state.revision == row.revision:
        return state.revision
    # One that was found wrong stays so until the resync.
    return None if row.confirmed_revision is None else state.revision
