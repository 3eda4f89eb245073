"""Networks, and who serves them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, true, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.values import Network, Server, ServerSubnet
from leasehold.errors import DatabaseBusy, FieldInvalid, InUse, NetworkNotFound
from leasehold.service.context import Context, from_ms
from leasehold.store.database import AnyRow, Violation
from leasehold.store.prepared import prepared
from leasehold.store.tables import networks, server_subnets, servers, subnets, vnics

MAX_IPAM_SERVERS = 100


def put(
    ctx: Context, network_id: str, *, ipam_enabled: bool, ipam_servers: int | None, dry_run: bool = False
) -> tuple[Network, bool]:
    """Creates or replaces a network; the second value is True if it is new. Raises FieldInvalid."""
    network = Network(id=network_id, ipam_enabled=ipam_enabled, ipam_servers=ipam_servers)
    _check(network)
    values = {"ipam_enabled": ipam_enabled, "ipam_servers": ipam_servers}
    try:
        with ctx.db.write(dry_run=dry_run) as connection:
            changed = connection.execute(update(networks).where(networks.c.id == network_id).values(**values)).rowcount
            if not changed:
                connection.execute(insert(networks).values(id=network_id, **values))
    except Violation as violation:
        if violation.constraint != "pk_networks":
            raise
        raise DatabaseBusy(
            f"Another call created network {network_id} at the same time. Ask again.", retry_after_s=1
        ) from violation
    ctx.bell.ring()
    return network, not changed


def change(ctx: Context, network_id: str, wanted: Mapping[str, Any], *, dry_run: bool = False) -> Network:
    """Changes the fields of a network that are named. Raises NetworkNotFound, FieldInvalid."""
    with ctx.db.write(dry_run=dry_run) as connection:
        network = replace(_network(require(connection, network_id, lock=True)), **wanted)
        _check(network)
        connection.execute(
            update(networks)
            .where(networks.c.id == network_id)
            .values(ipam_enabled=network.ipam_enabled, ipam_servers=network.ipam_servers)
        )
    ctx.bell.ring()
    return network


def get(ctx: Context, network_id: str) -> Network:
    """Raises NetworkNotFound."""
    with ctx.db.read() as connection:
        return _network(require(connection, network_id))


def list_networks(ctx: Context, *, limit: int | None = None, after: str | None = None) -> list[Network]:
    """All, by id; up to `limit` behind the id `after`."""
    query = select(networks).where(true() if after is None else networks.c.id > after)
    with ctx.db.read() as connection:
        return [_network(row) for row in connection.execute(query.order_by(networks.c.id).limit(limit))]


def delete_network(ctx: Context, network_id: str, *, dry_run: bool = False) -> None:
    """Raises NetworkNotFound, InUse while it has subnets, vNICs or servers."""
    with ctx.db.write(dry_run=dry_run) as connection:
        _found(network_id, _find_alone(connection, network_id=network_id).one_or_none())
        for table, column, what in (
            (subnets, subnets.c.id, "subnets"),
            (vnics, vnics.c.id, "vnics"),
            (servers, servers.c.host_id, "servers"),
        ):
            holders = connection.execute(select(column).where(table.c.network_id == network_id).limit(20)).scalars()
            if found := list(holders):
                raise InUse(
                    f"Network {network_id} still has {what}: {', '.join(map(str, found))}. "
                    + (
                        "IPAM must be off and its servers stopped first." if what == "servers" else "Delete them first."
                    ),
                    network=network_id,
                    **{what: found},
                )
        connection.execute(delete(networks).where(networks.c.id == network_id))


def list_servers(ctx: Context, network_id: str) -> list[Server]:
    """The network's IPAM servers by host, with how far each is. Raises NetworkNotFound."""
    with ctx.db.read() as connection:
        require(connection, network_id)
        progress = connection.execute(
            select(server_subnets, subnets.c.revision, subnets.c.settings_revision)
            .join(subnets, subnets.c.id == server_subnets.c.subnet_id)
            .where(subnets.c.network_id == network_id)
            .order_by(server_subnets.c.subnet_id)
        ).all()
        rows = connection.execute(
            select(servers).where(servers.c.network_id == network_id).order_by(servers.c.host_id)
        ).all()
    return [
        Server(
            host=row.host_id,
            network=network_id,
            state=row.state,
            since=from_ms(row.since_ms),
            detail=row.detail,
            subnets=tuple(
                ServerSubnet(
                    subnet=each.subnet_id,
                    confirmed_revision=each.confirmed_revision,
                    revision=each.revision,
                    provided_revision=each.provided_revision,
                    settings_revision=each.settings_revision,
                    confirmed_at=None if each.confirmed_ms is None else from_ms(each.confirmed_ms),
                )
                for each in progress
                if each.host_id == row.host_id
            ),
        )
        for row in rows
    ]


def require(connection: Connection, network_id: str, *, lock: bool = False) -> AnyRow:
    """The network's row, locked until the transaction ends if asked, which keeps nobody from naming it; raises
    NetworkNotFound."""
    find = _find_locked if lock else _find
    return _found(network_id, find(connection, network_id=network_id).one_or_none())


def _found(network_id: str, row: AnyRow | None) -> AnyRow:
    if row is None:
        raise NetworkNotFound(
            f"There is no network {network_id!r}. Create it first with PUT /v1/networks/{network_id}.",
            network=network_id,
        )
    return row


def _network(row: AnyRow) -> Network:
    return Network(id=row.id, ipam_enabled=row.ipam_enabled, ipam_servers=row.ipam_servers)


def _check(network: Network) -> None:
    wanted = network.ipam_servers
    if wanted is not None and not 1 <= wanted <= MAX_IPAM_SERVERS:
        raise FieldInvalid(
            f"ipam_servers: {wanted} is not between 1 and {MAX_IPAM_SERVERS}. "
            "To have no servers at all, set ipam_enabled to false.",
            field="ipam_servers",
            value=wanted,
        )


@prepared
def _find(network_id: Any) -> Executable:
    return select(networks).where(networks.c.id == network_id)


@prepared
def _find_locked(network_id: Any) -> Executable:
    return select(networks).where(networks.c.id == network_id).with_for_update(key_share=True)


@prepared
def _find_alone(network_id: Any) -> Executable:
    """Nobody comes to name it, and those are waited for who did in a transaction that had not ended."""
    return select(networks).where(networks.c.id == network_id).with_for_update()
