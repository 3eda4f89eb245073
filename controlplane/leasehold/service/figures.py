"""What monitoring watches, read from the database at one instant: as cheap as can be, since it is asked every few
seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import and_, func, select

from leasehold.service.context import Context
from leasehold.store.tables import (
    addresses,
    deliveries,
    events,
    hosts,
    mac_pools,
    networks,
    server_subnets,
    servers,
    spaces,
    subnets,
    vnics,
    webhooks,
)

SERVER_STATES = ("starting", "running", "unreachable", "stopping")


@dataclass(frozen=True, kw_only=True)
class Stock:
    """Numbers of a MAC pool or subnet by state: together its size."""

    id: str
    name: str
    network: str | None
    by_state: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Lag:
    """How many revisions of a subnet a server has not confirmed, None where it has confirmed none; `has_settings` says
    whether its Kea has the subnet with the settings that it is to have."""

    host: str
    subnet: int
    cidr: str
    network: str
    revisions: int | None
    has_settings: bool


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A host, whether it answers, and when it last did, in seconds since the Unix epoch."""

    host: str
    answers: bool
    answered_s: float | None


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What a webhook is still to be told: events behind its position, and deliveries by state."""

    webhook: str
    state: str
    behind: int
    by_state: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All of it. `servers` counts by network and state, `wanted` is by network, `vnics` by whether they run, `events`
    is how many there ever were."""

    mac_pools: tuple[Stock, ...]
    subnets: tuple[Stock, ...]
    servers: Mapping[tuple[str, str], int]
    wanted: Mapping[str, int]
    lags: tuple[Lag, ...]
    hosts: tuple[Reach, ...]
    vnics: Mapping[bool, int]
    webhooks: tuple[Queue, ...]
    events: int


def read(ctx: Context) -> Figures:
    """The figures of this instant."""
    with ctx.db.read() as connection:
        pools = tuple(
            Stock(
                id=row.id,
                name=row.name,
                network=None,
                by_state={"free": row.free, "taken": row.size - row.free},
            )
            for row in connection.execute(
                select(mac_pools.c.id, mac_pools.c.name, spaces.c.size, spaces.c.free)
                .join(spaces, spaces.c.id == mac_pools.c.space_id)
                .order_by(mac_pools.c.id)
            )
        )
        unsettled: dict[tuple[int, str], int] = {
            (subnet_id, state): count
            for subnet_id, state, count in connection.execute(
                select(addresses.c.subnet_id, addresses.c.state, func.count())
                .where(addresses.c.state != "held")
                .group_by(addresses.c.subnet_id, addresses.c.state)
            )
        }
        of_subnets = []
        has_subnet = set()
        for row in connection.execute(
            select(subnets.c.id, subnets.c.cidr, subnets.c.network_id, spaces.c.size, spaces.c.free)
            .join(spaces, spaces.c.id == subnets.c.space_id)
            .order_by(subnets.c.id)
        ):
            has_subnet.add(row.network_id)
            draining, cooling = unsettled.get((row.id, "draining"), 0), unsettled.get((row.id, "cooling"), 0)
            held = max(0, row.size - row.free - draining - cooling)
            by_state = {"free": row.free, "held": held, "draining": draining, "cooling": cooling}
            of_subnets.append(Stock(id=str(row.id), name=row.cidr, network=row.network_id, by_state=by_state))
        wanted = {
            row.id: (row.ipam_servers or ctx.settings.ipam_servers) if row.ipam_enabled and row.id in has_subnet else 0
            for row in connection.execute(select(networks).order_by(networks.c.id))
        }
        counted = {(network_id, state): 0 for network_id in wanted for state in SERVER_STATES}
        counted |= {
            (network_id, state): count
            for network_id, state, count in connection.execute(
                select(servers.c.network_id, servers.c.state, func.count()).group_by(
                    servers.c.network_id, servers.c.state
                )
            )
        }
        lags = tuple(
            Lag(
                host=row.host_id,
                subnet=row.id,
                cidr=row.cidr,
                network=row.network_id,
                revisions=None if row.confirmed_revision is None else row.revision - row.confirmed_revision,
                has_settings=row.provided_revision == row.settings_revision,
            )
            for row in connection.execute(
                select(
                    servers.c.host_id,
                    subnets.c.id,
                    subnets.c.cidr,
                    subnets.c.network_id,
                    subnets.c.revision,
                    subnets.c.settings_revision,
                    server_subnets.c.confirmed_revision,
                    server_subnets.c.provided_revision,
                )
                .join(subnets, subnets.c.network_id == servers.c.network_id)
                .join(
                    server_subnets,
                    and_(
                        server_subnets.c.host_id == servers.c.host_id,
                        server_subnets.c.subnet_id == subnets.c.id,
                    ),
                    isouter=True,
                )
                .where(servers.c.state != "stopping")
                .order_by(servers.c.host_id, subnets.c.id)
            )
        )
        reached = tuple(
            Reach(
                host=row.id,
                answers=row.answered_ms is not None and row.unreachable_reason is None,
                answered_s=None if row.answered_ms is None else row.answered_ms / 1000,
            )
            for row in connection.execute(
                select(hosts.c.id, hosts.c.answered_ms, hosts.c.unreachable_reason).order_by(hosts.c.id)
            )
        )
        running = dict.fromkeys((False, True), 0)
        running.update(connection.execute(select(vnics.c.running, func.count()).group_by(vnics.c.running)).all())
        last: int = connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one()
        told: dict[tuple[str, str], int] = {
            (webhook_id, state): count
            for webhook_id, state, count in connection.execute(
                select(deliveries.c.webhook_id, deliveries.c.state, func.count()).group_by(
                    deliveries.c.webhook_id, deliveries.c.state
                )
            )
        }
        queues = tuple(
            Queue(
                webhook=row.id,
                state=row.state,
                behind=max(0, last - row.position),
                by_state={state: told.get((row.id, state), 0) for state in ("waiting", "dead")},
            )
            for row in connection.execute(
                select(webhooks.c.id, webhooks.c.state, webhooks.c.position).order_by(webhooks.c.id)
            )
        )
        return Figures(
            mac_pools=pools,
            subnets=tuple(of_subnets),
            servers=counted,
            wanted=wanted,
            lags=lags,
            hosts=reached,
            vnics=running,
            webhooks=queues,
            events=last,
        )
