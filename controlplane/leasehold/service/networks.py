"""Networks, and who serves them."""

from sqlalchemy import Connection, delete, insert, select, update

from leasehold.domain.values import Network, Server, ServerSubnet
from leasehold.errors import FieldInvalid, InUse, NetworkNotFound
from leasehold.service.context import Context, from_ms
from leasehold.store.database import AnyRow
from leasehold.store.tables import networks, server_subnets, servers, subnets, vnics

MAX_IPAM_SERVERS = 100


def put(ctx: Context, network_id: str, *, ipam_enabled: bool, ipam_servers: int | None) -> tuple[Network, bool]:
    """Creates or replaces a network; the second value is True if it is new. Raises FieldInvalid."""
    if ipam_servers is not None and not 1 <= ipam_servers <= MAX_IPAM_SERVERS:
        raise FieldInvalid(
            f"ipam_servers: {ipam_servers} is not between 1 and {MAX_IPAM_SERVERS}. "
            "To have no servers at all, set ipam_enabled to false.",
            field="ipam_servers",
            value=ipam_servers,
        )
    values = {"ipam_enabled": ipam_enabled, "ipam_servers": ipam_servers}
    with ctx.db.write() as connection:
        changed = connection.execute(update(networks).where(networks.c.id == network_id).values(**values)).rowcount
        if not changed:
            connection.execute(insert(networks).values(id=network_id, **values))
    ctx.bell.ring()
    return Network(id=network_id, ipam_enabled=ipam_enabled, ipam_servers=ipam_servers), not changed


def get(ctx: Context, network_id: str) -> Network:
    """Raises NetworkNotFound."""
    with ctx.db.read() as connection:
        return _network(require(connection, network_id))


def list_networks(ctx: Context) -> list[Network]:
    """All, by id."""
    with ctx.db.read() as connection:
        return [_network(row) for row in connection.execute(select(networks).order_by(networks.c.id))]


def delete_network(ctx: Context, network_id: str) -> None:
    """Raises NetworkNotFound, InUse while it has subnets, vNICs or servers."""
    with ctx.db.write() as connection:
        require(connection, network_id)
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
            select(server_subnets, subnets.c.revision)
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
                    confirmed_at=None if each.confirmed_ms is None else from_ms(each.confirmed_ms),
                )
                for each in progress
                if each.host_id == row.host_id
            ),
        )
        for row in rows
    ]


def require(connection: Connection, network_id: str) -> AnyRow:
    """The network's row; raises NetworkNotFound."""
    row = connection.execute(select(networks).where(networks.c.id == network_id)).one_or_none()
    if row is None:
        raise NetworkNotFound(
            f"There is no network {network_id!r}. Create it first with PUT /v1/networks/{network_id}.",
            network=network_id,
        )
    return row


def _network(row: AnyRow) -> Network:
    return Network(id=row.id, ipam_enabled=row.ipam_enabled, ipam_servers=row.ipam_servers)
