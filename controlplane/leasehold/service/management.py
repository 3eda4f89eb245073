"""Who serves which network: what the manager's loop asks and records, one transaction each.

A server is `starting` from the decision until its host has the reservations, then the subnets in its configuration, and
says so; `running` while the host answers; `unreachable` after it did not for `host_down_after_s`, and from then until
it is again at what is wanted; `stopping` until the host has said that the network is out of its configuration. As long
as there is a row in `server_subnets`, the host could serve the subnet, and addresses wait for it.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, Row, delete, insert, select, update

from leasehold.domain.placement import Candidate, Health, Served, place
from leasehold.domain.replication import HookStatus, SubnetState
from leasehold.domain.values import HostNetwork, ServerState
from leasehold.service import events, subnets
from leasehold.service.context import Context
from leasehold.service.replication import epoch_of
from leasehold.store.tables import host_networks, hosts, networks, server_subnets, servers
from leasehold.store.tables import subnets as subnets_table

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of asking a host: its hook's status, or the reason why there is none."""

    host: str
    asked_ms: int
    status: HookStatus | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The networks that a host is to have in its configuration; `stops` when servers there wait for their end."""

    served: tuple[Served, ...]
    stops: bool


@dataclass
class Sighting:
    """What this process last saw of a host: `reason` why it did not answer when it was last asked, at `asked_ms`;
    `silent_since_ms` when it was first asked in vain, and `silent_for_ms` from then to the last time. `goals` are the
    revisions that its servers must reach to count again."""

    asked_ms: int
    reason: str | None = None
    silent_since_ms: int | None = None
    silent_for_ms: int = 0
    boot: str | None = None
    managed: frozenset[int] = frozenset()
    refuses: bool = False
    goals: dict[int, int] = field(default_factory=dict)


@dataclass
class Watch:
    """What this process saw of the hosts. Nobody is down who was not asked in vain for long enough: a control plane
    that was away itself does not take the hosts for those that were."""

    hosts: dict[str, Sighting] = field(default_factory=dict)


def record_answers(ctx: Context, watch: Watch, answers: Iterable[Answer]) -> set[str]:
    """Keeps what hosts answered, and compares it with what they are known to have: what they confirmed and have no
    more, or have otherwise, is pushed again; a network that they serve unasked becomes a server that is stopping, so
    that addresses wait for it. Returns the hosts that answer again, or for the first time."""
    new = [each for each in map(_checked, answers) if _is_newer(watch, each)]
    if not new:
        return set()
    returned = set()
    for answer in new:
        before = watch.hosts.get(answer.host)
        watch.hosts[answer.host] = _sighted(before, answer, ctx.now_ms())
        if answer.status is not None and (before is None or before.reason is not None):
            returned.add(answer.host)
    statuses = {each.host: each.status for each in new if each.status is not None}
    with ctx.db.write() as connection:
        known = {
            row.id: row
            for row in connection.execute(
                select(hosts.c.id, hosts.c.unreachable_reason, hosts.c.boot_id).where(
                    hosts.c.id.in_([each.host for each in new])
                )
            )
        }
        connection.execute(update(hosts).where(hosts.c.id.in_(statuses)).values(answered_ms=ctx.now_ms()))
        changed = False
        for answer in new:
            row = known.get(answer.host)
            boot = None if answer.status is None else answer.status.boot
            if row is not None and (row.unreachable_reason, row.boot_id) != (answer.reason, boot or row.boot_id):
                connection.execute(
                    update(hosts)
                    .where(hosts.c.id == answer.host)
                    .values(unreachable_reason=answer.reason, boot_id=boot or row.boot_id)
                )
                changed = True
        here = {host_id: status for host_id, status in statuses.items() if host_id in known}
        changed |= _adopt(connection, ctx.now_ms(), here)
        changed |= _compare(connection, {each.host: each for each in new if each.host in here})
    if changed or returned:
        ctx.bell.ring()
    return returned


def record_unreachable(ctx: Context, host_id: str, reason: str) -> None:
    """A host did not answer: `start` need not wait for it. Its next status says that it is back."""
    with ctx.db.write() as connection:
        changed = connection.execute(
            update(hosts)
            .where(hosts.c.id == host_id, hosts.c.unreachable_reason.is_(None))
            .values(unreachable_reason=reason)
        ).rowcount
    if changed:
        ctx.bell.ring()


def plan(ctx: Context, watch: Watch) -> None:
    """Decides who serves which network from now on, and moves servers from state to state."""
    with ctx.db.read() as connection:
        decision = _Decision(ctx, connection, watch)
        if not decision.transitions and not decision.new_subnets:
            return
    with ctx.db.write() as connection:
        _Decision(ctx, connection, watch).carry_out(connection, ctx.now_ms())
    ctx.bell.ring()


def assignments(ctx: Context, watch: Watch) -> dict[str, Assignment]:
    """What each host is to have in its configuration, by host: for those that serve, are to stop, or still have
    something of ours. A subnet comes in once the host has its reservations: those that it had in an earlier life would
    serve addresses that are others' by now."""
    with ctx.db.read() as connection:
        states = connection.execute(select(servers.c.host_id, servers.c.state)).all()
        rows = connection.execute(
            select(
                servers.c.host_id,
                servers.c.network_id,
                host_networks.c.interface,
                host_networks.c.address,
                server_subnets.c.subnet_id,
                server_subnets.c.confirmed_revision,
            )
            .join(
                host_networks,
                (host_networks.c.host_id == servers.c.host_id) & (host_networks.c.network_id == servers.c.network_id),
            )
            .join(subnets_table, subnets_table.c.network_id == servers.c.network_id)
            .join(
                server_subnets,
                (server_subnets.c.host_id == servers.c.host_id) & (server_subnets.c.subnet_id == subnets_table.c.id),
            )
            .where(servers.c.state != "stopping")
            .order_by(servers.c.host_id, servers.c.network_id, server_subnets.c.subnet_id)
        ).all()
        specs = {row.id: subnets.spec_of(row) for row in connection.execute(select(subnets_table))}
    concerned = {host_id for host_id, _ in states} | {key for key, each in watch.hosts.items() if each.managed}
    stopping = {host_id for host_id, state in states if state == "stopping"}
    served: dict[str, dict[str, Served]] = {host_id: {} for host_id in concerned}
    for row in rows:
        sighting = watch.hosts.get(row.host_id)
        if row.confirmed_revision is None and (sighting is None or row.subnet_id not in sighting.managed):
            continue
        own = served[row.host_id]
        before = own[row.network_id].subnets if row.network_id in own else ()
        own[row.network_id] = Served(
            network=row.network_id,
            attachment=HostNetwork(interface=row.interface, address=IPAddress(row.address)),
            subnets=(*before, (row.subnet_id, specs[row.subnet_id])),
        )
    return {
        host_id: Assignment(served=tuple(own.values()), stops=host_id in stopping) for host_id, own in served.items()
    }


def provided(ctx: Context, watch: Watch, host_id: str, served: Sequence[Served]) -> None:
    """The host has these networks of ours in its configuration and no others: servers that were stopping have."""
    watch.hosts[host_id].refuses = False
    with ctx.db.write() as connection:
        stopped = list(
            connection.execute(
                delete(servers)
                .where(
                    servers.c.host_id == host_id,
                    servers.c.state == "stopping",
                    servers.c.network_id.not_in([each.network for each in served]),
                )
                .returning(servers.c.network_id)
            ).scalars()
        )
        connection.execute(
            delete(server_subnets).where(
                server_subnets.c.host_id == host_id,
                server_subnets.c.subnet_id.in_(
                    select(subnets_table.c.id).where(subnets_table.c.network_id.in_(stopped))
                ),
            )
        )
        for network_id in stopped:
            _tell(connection, ctx.now_ms(), "server.stopped", host_id, network_id, None)
    if stopped:
        ctx.bell.ring()


def refused(ctx: Context, watch: Watch, host_id: str, text: str) -> None:
    """The host's Kea did not take its configuration: servers there that do not run yet say why."""
    watch.hosts[host_id].refuses = True
    with ctx.db.write() as connection:
        connection.execute(
            update(servers).where(servers.c.host_id == host_id, servers.c.state != "running").values(detail=text)
        )


@dataclass(frozen=True)
class _Transition:
    host: str
    network: str
    state: ServerState
    detail: str | None
    event: str | None


class _Decision:
    """What is to change about servers, from one snapshot of the database and what was seen of the hosts."""

    def __init__(self, ctx: Context, connection: Connection, watch: Watch) -> None:
        self._watch = watch
        self._down_after_ms = ctx.settings.host_down_after_s * 1000
        self._subnets: dict[str, dict[int, int]] = {}
        for subnet_id, network_id, revision in connection.execute(
            select(subnets_table.c.id, subnets_table.c.network_id, subnets_table.c.revision)
        ):
            self._subnets.setdefault(network_id, {})[subnet_id] = revision
        self._attached: dict[str, set[str]] = {}
        for host_id, network_id in connection.execute(select(host_networks.c.host_id, host_networks.c.network_id)):
            self._attached.setdefault(network_id, set()).add(host_id)
        self._servers: dict[str, dict[str, Row[Any]]] = {}
        for row in connection.execute(select(servers)):
            self._servers.setdefault(row.network_id, {})[row.host_id] = row
        self._confirmed: dict[tuple[str, int], int | None] = {
            (row.host_id, row.subnet_id): row.confirmed_revision for row in connection.execute(select(server_subnets))
        }
        self._load = Counter(
            host_id
            for of_network in self._servers.values()
            for host_id, row in of_network.items()
            if row.state != "stopping"
        )
        self.transitions: list[_Transition] = []
        self.new_subnets: list[tuple[str, int]] = []
        for network in connection.execute(select(networks).order_by(networks.c.id)).all():
            self._decide(network, ctx.settings.ipam_servers)

    def carry_out(self, connection: Connection, now_ms: int) -> None:
        """Writes it, and tells of it."""
        for each in self.transitions:
            values = {"state": each.state, "since_ms": now_ms, "detail": each.detail}
            own = (servers.c.host_id == each.host) & (servers.c.network_id == each.network)
            if not connection.execute(update(servers).where(own).values(**values)).rowcount:
                connection.execute(insert(servers).values(host_id=each.host, network_id=each.network, **values))
            if each.event is not None:
                _tell(connection, now_ms, each.event, each.host, each.network, each.detail)
        _expect(connection, self.new_subnets)

    def _decide(self, network: Row[Any], default_wanted: int) -> None:
        own_subnets = self._subnets.get(network.id, {})
        present = self._servers.get(network.id, {})
        candidates = self._attached.get(network.id, set()) | present.keys()
        wanted = (network.ipam_servers or default_wanted) if network.ipam_enabled and own_subnets else 0
        if wanted and not candidates <= self._watch.hosts.keys():
            return  # who was not asked yet may be serving it
        placement = place(wanted, [self._candidate(host_id, network.id) for host_id in candidates])
        for host_id in placement.start:
            self._load[host_id] += 1
            self.transitions.append(_Transition(host_id, network.id, "starting", None, None))
            self._expect(host_id, own_subnets)
        for host_id in placement.stop:
            self._load[host_id] -= 1
            detail = "Other hosts serve the network." if wanted else "IPAM is off for the network, or it has no subnet."
            self.transitions.append(_Transition(host_id, network.id, "stopping", detail, None))
        for host_id, row in present.items():
            if row.state != "stopping" and host_id not in placement.stop:
                self._expect(host_id, own_subnets)
                self._settle(row, own_subnets)

    def _settle(self, server: Row[Any], own_subnets: Mapping[int, int]) -> None:
        """Moves a server that stays from state to state, by what was seen of its host."""
        health = self._health(server.host_id)
        if health == "down" and server.state != "unreachable":
            self._move(server, "unreachable", self._watch.hosts[server.host_id].reason, "server.unreachable")
        if health != "up":
            return
        sighting = self._watch.hosts[server.host_id]
        serves = own_subnets.keys() <= sighting.managed
        confirmed = {subnet_id: self._confirmed.get((server.host_id, subnet_id)) for subnet_id in own_subnets}
        if server.state == "running":
            if not serves or None in confirmed.values():
                self._move(server, "starting", "Its Kea has not all of the network's subnets yet.", None)
            else:
                sighting.goals = {key: goal for key, goal in sighting.goals.items() if key not in own_subnets}
            return
        goals = {key: sighting.goals.setdefault(key, revision) for key, revision in own_subnets.items()}
        if serves and all(each is not None and each >= goals[key] for key, each in confirmed.items()):
            event = "server.recovered" if server.state == "unreachable" else "server.started"
            self._move(server, "running", None, event)

    def _move(self, server: Row[Any], state: ServerState, detail: str | None, event: str | None) -> None:
        self.transitions.append(_Transition(server.host_id, server.network_id, state, detail, event))

    def _expect(self, host_id: str, own_subnets: Iterable[int]) -> None:
        self.new_subnets += [(host_id, each) for each in own_subnets if (host_id, each) not in self._confirmed]

    def _candidate(self, host_id: str, network_id: str) -> Candidate:
        server = self._servers.get(network_id, {}).get(host_id)
        sighting = self._watch.hosts.get(host_id)
        return Candidate(
            host=host_id,
            health=self._health(host_id),
            attached=host_id in self._attached.get(network_id, ()),
            refuses=sighting is not None and sighting.refuses,
            state=None if server is None else server.state,
            load=self._load[host_id],
        )

    def _health(self, host_id: str) -> Health:
        sighting = self._watch.hosts.get(host_id)
        if sighting is not None and sighting.reason is None:
            return "up"
        return "doubtful" if sighting is None or sighting.silent_for_ms < self._down_after_ms else "down"


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
            reason=None,
            silent_since_ms=None,
            silent_for_ms=0,
            boot=answer.status.boot,
            managed=answer.status.managed,
        )
    since_ms = answer.asked_ms if before.silent_since_ms is None else before.silent_since_ms
    return replace(
        before,
        asked_ms=answer.asked_ms,
        reason=answer.reason,
        silent_since_ms=since_ms,
        silent_for_ms=now_ms - since_ms,
        goals={},
    )


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
    _expect(connection, adopted)
    return bool(adopted)


def _compare(connection: Connection, answers: Mapping[str, Answer]) -> bool:
    """Corrects what hosts are known to have confirmed by what they say that they have. Returns whether it had to."""
    epoch = epoch_of(connection)
    states = {
        (host_id, state.subnet): state
        for host_id, answer in answers.items()
        if answer.status is not None
        for state in answer.status.subnets
    }
    corrected = False
    for row in connection.execute(
        select(server_subnets, subnets_table.c.revision, subnets_table.c.digest)
        .join(subnets_table, subnets_table.c.id == server_subnets.c.subnet_id)
        .where(server_subnets.c.host_id.in_(answers))
    ).all():
        answer = answers[row.host_id]
        if row.confirmed_ms is not None and row.confirmed_ms >= answer.asked_ms:
            continue  # confirmed while the hook answered
        has = _confirmed_by(states.get((row.host_id, row.subnet_id)), row, epoch)
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


def _confirmed_by(state: SubnetState | None, row: Row[Any], epoch: str) -> int | None:
    """The revision from which the host can go on by the log; None where it needs a full resync."""
    if state is None or state.epoch != epoch or state.revision > row.revision:
        return None
    if state.revision == row.revision:
        return state.revision if state.digest == row.digest else None
    # What it has at an older revision cannot be checked. One that was found wrong stays so until the resync.
    return None if row.confirmed_revision is None else state.revision


def _expect(connection: Connection, pairs: Collection[tuple[str, int]]) -> None:
    """Hosts may serve these subnets from now on, and need a full resync of each first."""
    if pairs:
        connection.execute(
            insert(server_subnets), [{"host_id": host_id, "subnet_id": subnet_id} for host_id, subnet_id in pairs]
        )


def _tell(connection: Connection, now_ms: int, event: str, host_id: str, network_id: str, detail: str | None) -> None:
    events.emit(
        connection,
        now_ms,
        event,
        f"networks/{network_id}/servers/{host_id}",
        {"host": host_id, "network": network_id, "detail": detail},
    )
