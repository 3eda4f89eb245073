"""Who serves which network: what the manager's loop asks and records, one transaction each.

A server is `starting` from the decision until its host has the reservations, then the subnets in its configuration,
and says so; `running` while the host answers, hears the network's guests and has any of its subnets, so that those
that are added come to a server that goes on running; `unreachable` after it did not answer or hear for
`host_down_after_s`, and from then until it is again at what it was; `stopping` until the host has said that the
network is out of its configuration. As long as there is a row in `server_subnets`, the host could serve the subnet,
and addresses wait for it: also one that hears no guests, since its link may be back at any time.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, Row, case, delete, insert, select, update

from leasehold.domain.placement import Candidate, Health, Served, place
from leasehold.domain.subnets import clashes
from leasehold.domain.values import HostNetwork, ServerState
from leasehold.service import events, lineage, replication, subnets
from leasehold.service import hosts as hosts_service
from leasehold.service.context import Context
from leasehold.service.sightings import Trouble, Watch, health_with
from leasehold.store.database import AnyRow, Violation
from leasehold.store.tables import host_networks, hosts, networks, server_subnets, servers
from leasehold.store.tables import subnets as subnets_table

log = logging.getLogger(__name__)

# Whoever deletes one of these waits for no decision, and a decision for none of them.
_GONE = {"fk_server_subnets_subnet_id", "fk_servers_network_id", "fk_servers_host_id"}

_CLASHES = "The host serves another network that shares addresses with this one. Attach another host to this network."


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The networks that a host is to have in its configuration, with the revision of each subnet's `settings`; `stops`
    when servers there wait for their end."""

    served: tuple[Served, ...]
    settings: Mapping[int, int]
    stops: bool


def plan(ctx: Context, watch: Watch) -> None:
    """Decides who serves which network from now on, and moves servers from state to state."""
    while not _planned(ctx, watch):
        log.info("A network, subnet or host went while it was decided who serves what: it is decided anew.")


def _planned(ctx: Context, watch: Watch) -> bool:
    """False where what was decided upon is gone meanwhile, and nothing was done."""
    with ctx.db.read() as connection:
        if _Decision(ctx, connection, watch).is_empty:
            return True
    try:
        with ctx.db.write() as connection:
            replication.change_servers(connection)
            _Decision(ctx, connection, watch).carry_out(connection, ctx.now_ms())
    except Violation as violation:
        if violation.constraint not in _GONE:
            raise
        return False
    ctx.bell.ring()
    return True


def assignments(ctx: Context, watch: Watch) -> dict[str, Assignment]:
    """What each host is to have in its configuration, by host: for those that serve, are to stop, or still have
    something of ours. A subnet comes in once the host has its reservations: those that it had in an earlier life would
    serve addresses that are others' by now."""
    with ctx.db.read() as connection:
        states = connection.execute(select(servers.c.host_id, servers.c.network_id, servers.c.state)).all()
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
        specs, revisions = {}, {}
        for row in connection.execute(select(subnets_table)):
            specs[row.id], revisions[row.id] = subnets.spec_of(row), row.settings_revision
    concerned = {row.host_id for row in states} | {key for key, each in watch.hosts.items() if each.managed}
    stopping = {row.host_id for row in states if row.state == "stopping"}
    clashing = clashes((each.network, each.cidr) for each in specs.values())
    yielding = {
        (row.host_id, row.network_id)
        for row in states
        if row.network_id in clashing
        and _yields(row, [each for each in states if each.host_id == row.host_id], clashing)
    }
    served: dict[str, dict[str, Served]] = {host_id: {} for host_id in concerned}
    for row in rows:
        sighting = watch.hosts.get(row.host_id)
        if (row.host_id, row.network_id) in yielding:
            continue
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
        host_id: Assignment(
            served=tuple(own.values()),
            settings={subnet_id: revisions[subnet_id] for each in own.values() for subnet_id, _ in each.subnets},
            stops=host_id in stopping,
        )
        for host_id, own in served.items()
    }


def _yields(server: AnyRow, others: Iterable[AnyRow], clashing: Mapping[str, set[str]]) -> bool:
    """Whether another server on the same host goes before this one, since their networks share addresses: a Kea knows
    each address once."""
    return any(
        other.network_id in clashing.get(server.network_id, ())
        and (other.state != "running", other.network_id) < (server.state != "running", server.network_id)
        for other in others
        if other.state != "stopping"
    )


def provided(
    ctx: Context,
    watch: Watch,
    host_id: str,
    served: Sequence[Served],
    settings: Mapping[int, int] = MappingProxyType({}),
    refusals: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """The host has these networks of ours in its configuration and no others: servers that were stopping have, and who
    waits for new settings of a subnet, of these revisions, need not any more. `refusals` say of networks why its Kea
    did not take all that is wanted there."""
    with ctx.db.write() as connection:
        replication.change_servers(connection)
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
        changed = _keep_settings(connection, host_id, served, settings)
        _keep_refusals(ctx, connection, watch, host_id, refusals)
    watch.hosts[host_id].refusals = refusals
    if stopped or changed:
        ctx.bell.ring()


def _keep_settings(
    connection: Connection, host_id: str, served: Sequence[Served], revisions: Mapping[int, int]
) -> bool:
    """Writes which settings the host's Kea has; returns whether that is new. Settings that were changed while it took
    them are not counted: the next are on their way."""
    specs = {subnet_id: spec for each in served for subnet_id, spec in each.subnets}
    rows = connection.execute(select(server_subnets).where(server_subnets.c.host_id == host_id)).all()
    before = {row.subnet_id: (row.provided_revision, row.provided_cidr) for row in rows}
    after = before | dict.fromkeys(before.keys() - specs.keys(), (None, None))
    after |= {key: (revisions[key], str(spec.cidr)) for key, spec in specs.items() if spec is not None}
    new = {key: after[key] for key in sorted(before) if after[key] != before[key]}
    # A change of the CIDR waits for these rows, or is seen below.
    connection.execute(
        select(server_subnets.c.subnet_id)
        .where(server_subnets.c.host_id == host_id, server_subnets.c.subnet_id.in_(new))
        .order_by(server_subnets.c.subnet_id)
        .with_for_update()
    )
    current = dict(
        connection.execute(
            select(subnets_table.c.id, subnets_table.c.settings_revision).where(subnets_table.c.id.in_(new))
        ).all()
    )
    new = {key: (revision, cidr) for key, (revision, cidr) in new.items() if revision in (None, current.get(key))}
    for subnet_id, (revision, cidr) in new.items():
        _set_provided(connection, host_id, subnet_id, revision, cidr)
    return bool(new)


def _set_provided(connection: Connection, host_id: str, subnet_id: int, revision: int | None, cidr: str | None) -> None:
    connection.execute(
        update(server_subnets)
        .where(server_subnets.c.host_id == host_id, server_subnets.c.subnet_id == subnet_id)
        .values(provided_revision=revision, provided_cidr=cidr)
    )


def refused(ctx: Context, watch: Watch, host_id: str, network_ids: Iterable[str], text: str) -> None:
    """The host's Kea did not take a configuration with which these networks would be served as they are to be, and
    others stop: the servers there say why. Those that run go on with what they had."""
    with ctx.db.write() as connection:
        stopping = connection.execute(
            select(servers.c.network_id).where(servers.c.host_id == host_id, servers.c.state == "stopping")
        ).scalars()
        refusals = dict.fromkeys((*network_ids, *stopping), text)
        _keep_refusals(ctx, connection, watch, host_id, refusals)
    watch.hosts[host_id].refusals = refusals


def _keep_refusals(
    ctx: Context, connection: Connection, watch: Watch, host_id: str, refusals: Mapping[str, str]
) -> None:
    """Has the host's servers say why its Kea refuses their networks, and those that run say nothing once it does not
    any more; tells of each refusal when it begins."""
    sighting = watch.hosts[host_id]
    for row in connection.execute(select(servers).where(servers.c.host_id == host_id)).all():
        why = refusals.get(row.network_id)
        is_over = why is None and row.state == "running" and row.detail is not None
        is_new = why is not None and row.detail != why
        says_other = row.state == "unreachable" and sighting.trouble(row.network_id) is not None
        if (is_new and not says_other) or is_over:
            own = (servers.c.host_id == host_id) & (servers.c.network_id == row.network_id)
            connection.execute(update(servers).where(own).values(detail=why))
        if is_new and row.network_id not in sighting.refusals:
            log.warning("Host %s does not serve network %s as it should: %s", host_id, row.network_id, why)
            _tell(connection, ctx.now_ms(), "server.refused", host_id, row.network_id, why)


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
        self._ctx = ctx
        self._watch = watch
        self._hosts = {row.id: row for row in connection.execute(select(hosts))}
        self._subnets: dict[str, dict[int, int]] = {}
        cidrs = []
        for subnet_id, network_id, revision, cidr in connection.execute(
            select(subnets_table.c.id, subnets_table.c.network_id, subnets_table.c.revision, subnets_table.c.cidr)
        ):
            self._subnets.setdefault(network_id, {})[subnet_id] = revision
            cidrs.append((network_id, IPNetwork(cidr)))
        self._clashing = clashes(cidrs)
        self._attached: dict[str, dict[str, Row[Any]]] = {}
        for row in connection.execute(select(host_networks)):
            self._attached.setdefault(row.network_id, {})[row.host_id] = row
        self._servers: dict[str, dict[str, Row[Any]]] = {}
        for row in connection.execute(select(servers)):
            self._servers.setdefault(row.network_id, {})[row.host_id] = row
        self._at: dict[str, set[str]] = {}
        for network_id, of_network in self._servers.items():
            for host_id in of_network:
                self._at.setdefault(host_id, set()).add(network_id)
        self._progress: dict[tuple[str, int], Row[Any]] = {
            (row.host_id, row.subnet_id): row for row in connection.execute(select(server_subnets))
        }
        self._load = Counter(
            host_id
            for of_network in self._servers.values()
            for host_id, row in of_network.items()
            if row.state != "stopping"
        )
        self.transitions: list[_Transition] = []
        self.new_subnets: list[tuple[str, int]] = []
        self.lost_subnets: list[tuple[str, int]] = []
        self.returned = [row.id for row in self._hosts.values() if row.fenced_ms is not None and self._is_clean(row)]
        self.recovered = lineage.recovered(connection)
        for network in connection.execute(select(networks).order_by(networks.c.id)).all():
            self._decide(network, ctx.settings.ipam_servers)

    @property
    def is_empty(self) -> bool:
        """True when everything is to stay as it is."""
        return not (self.transitions or self.new_subnets or self.lost_subnets or self.returned or self.recovered)

    def carry_out(self, connection: Connection, now_ms: int) -> None:
        """Writes it, and tells of it."""
        for each in self.transitions:
            values = {"state": each.state, "detail": each.detail}
            since_ms = case((servers.c.state == each.state, servers.c.since_ms), else_=now_ms)
            own = (servers.c.host_id == each.host) & (servers.c.network_id == each.network)
            if not connection.execute(update(servers).where(own).values(since_ms=since_ms, **values)).rowcount:
                connection.execute(
                    insert(servers).values(host_id=each.host, network_id=each.network, since_ms=now_ms, **values)
                )
            if each.event is not None:
                _tell(connection, now_ms, each.event, each.host, each.network, each.detail)
        replication.expect(connection, self.new_subnets)
        for host_id, subnet_id in self.lost_subnets:
            _set_provided(connection, host_id, subnet_id, None, None)
        for host_id in self.returned:
            row = self._hosts[host_id]
            connection.execute(
                update(hosts)
                .where(hosts.c.id == host_id)
                .values(fenced_ms=None, returned_ms=now_ms, falls=max(1, row.falls))
            )
            events.emit(connection, now_ms, "host.returned", f"hosts/{host_id}", {"host": host_id})
        lineage.end_recovery(connection, self.recovered)

    def _decide(self, network: Row[Any], default_wanted: int) -> None:
        own_subnets = self._subnets.get(network.id, {})
        present = self._servers.get(network.id, {})
        candidates = self._attached.get(network.id, {}).keys() | present.keys()
        wanted = (network.ipam_servers or default_wanted) if network.ipam_enabled and own_subnets else 0
        if wanted and not candidates <= self._watch.hosts.keys():
            return  # who was not asked yet may be serving it
        placement = place(wanted, [self._candidate(host_id, network.id) for host_id in candidates])
        for host_id in placement.start:
            self._load[host_id] += 1
            self._at.setdefault(host_id, set()).add(network.id)
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
        trouble, health = self._trouble(server.host_id, server.network_id)
        if health == "up" and self._yields(server):
            if (server.state, server.detail) != ("starting", _CLASHES):
                self._move(server, "starting", _CLASHES, None)
            return
        if (
            health == "down"
            and trouble is not None
            and (server.state, server.detail) != ("unreachable", trouble.reason)
        ):
            event = None if server.state == "unreachable" else "server.unreachable"
            self._move(server, "unreachable", trouble.reason, event)
        if health != "up":
            return
        sighting = self._watch.hosts[server.host_id]
        progress = {
            key: self._progress[server.host_id, key] for key in own_subnets if (server.host_id, key) in self._progress
        }
        had = {key for key, each in progress.items() if each.provided_revision is not None}
        self.lost_subnets += [(server.host_id, key) for key in sorted(had - sighting.managed)]
        confirmed = {
            key: each.confirmed_revision
            for key, each in progress.items()
            if key in sighting.managed and each.confirmed_revision is not None
        }
        if server.state == "running":
            if confirmed:
                sighting.goals = {key: goal for key, goal in sighting.goals.items() if key not in own_subnets}
            else:
                why = sighting.refusals.get(server.network_id, "Its Kea has none of the network's subnets.")
                self._move(server, "starting", why, None)
            return
        goals = {key: sighting.goals.setdefault(key, revision) for key, revision in own_subnets.items()}
        # One that ran may still wait for subnets that were added since.
        needed = had if had and server.state == "unreachable" else own_subnets.keys()
        if all(confirmed.get(key, -1) >= goals[key] for key in needed):
            event = "server.recovered" if server.state == "unreachable" else "server.started"
            self._move(server, "running", sighting.refusals.get(server.network_id), event)

    def _move(self, server: Row[Any], state: ServerState, detail: str | None, event: str | None) -> None:
        self.transitions.append(_Transition(server.host_id, server.network_id, state, detail, event))

    def _expect(self, host_id: str, own_subnets: Iterable[int]) -> None:
        self.new_subnets += [(host_id, each) for each in own_subnets if (host_id, each) not in self._progress]

    def _candidate(self, host_id: str, network_id: str) -> Candidate:
        host = self._hosts[host_id]
        server = self._servers.get(network_id, {}).get(host_id)
        attachment = self._attached.get(network_id, {}).get(host_id)
        sighting = self._watch.hosts.get(host_id)
        _, health = self._trouble(host_id, network_id)
        return Candidate(
            host=host_id,
            health=health,
            attached=host.fenced_ms is None
            and attachment is not None
            and not (server is None and self._clashing.get(network_id, set()) & self._at.get(host_id, set())),
            refuses=sighting is not None and network_id in sighting.refusals,
            leaving=host.maintenance or (server is not None and self._yields(server)),
            held=any(
                hosts_service.held_back_until_ms(self._ctx, each) > self._ctx.now_ms()
                for each in (host, attachment)
                if each is not None
            ),
            state=None if server is None else server.state,
            load=self._load[host_id],
        )

    def _yields(self, server: AnyRow) -> bool:
        others = self._clashing.get(server.network_id, set()) & self._at.get(server.host_id, set())
        rows = (self._servers.get(other, {}).get(server.host_id) for other in others)
        return _yields(server, [row for row in rows if row is not None], self._clashing)

    def _trouble(self, host_id: str, network_id: str) -> tuple[Trouble | None, Health]:
        """What keeps the host from serving the network, and what to make of that."""
        sighting = self._watch.hosts.get(host_id)
        if sighting is None:
            return None, "doubtful"
        trouble = sighting.trouble(network_id)
        return trouble, health_with(trouble, self._ctx.settings.host_down_after_s)

    def _is_clean(self, fenced: AnyRow) -> bool:
        """True for a host that said since that it serves nothing of ours, and is not known to."""
        sighting = self._watch.hosts.get(fenced.id)
        return (
            sighting is not None
            and sighting.reason is None
            and sighting.asked_ms >= fenced.fenced_ms
            and not sighting.managed
            and not any(fenced.id in of_network for of_network in self._servers.values())
        )


def _tell(connection: Connection, now_ms: int, event: str, host_id: str, network_id: str, detail: str | None) -> None:
    events.emit(
        connection,
        now_ms,
        event,
        f"networks/{network_id}/servers/{host_id}",
        {"host": host_id, "network": network_id, "detail": detail},
    )
