"""Hosts: hypervisors with a Kea server, and the networks that they are attached to."""

from collections.abc import Mapping
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, delete, insert, select, update

from leasehold.domain.values import Host, HostNetwork
from leasehold.errors import AddressTaken, HostNotFound, InUse
from leasehold.service import subnets
from leasehold.service.context import Context, from_ms
from leasehold.store.database import AnyRow, Violation
from leasehold.store.tables import host_networks, hosts, servers


def put(
    ctx: Context,
    host_id: str,
    *,
    control_url: str,
    username: str,
    password: str,
    networks: Mapping[str, HostNetwork],
) -> tuple[Host, bool]:
    """Creates or replaces a host; the second value is True if it is new.

    Raises AddressTaken for an address that a vNIC or another host of the network has, InUse when a network is taken
    away that the host serves. A network may be named before it is created.
    """
    values = {"control_url": control_url, "username": username, "password": password}
    try:
        with ctx.db.write() as connection:
            created = not connection.execute(update(hosts).where(hosts.c.id == host_id).values(**values)).rowcount
            if created:
                connection.execute(insert(hosts).values(id=host_id, **values))
            _attach(connection, host_id, networks)
            host = _hosts(connection, hosts.c.id == host_id)[0]
    except Violation as violation:
        if violation.constraint != "uq_host_networks_network_id_address":
            raise
        taken = ", ".join(f"{each.address} on {name}" for name, each in networks.items())
        raise AddressTaken(
            f"One of the addresses of host {host_id} ({taken}) is another host's own. Give each host its own address.",
            host=host_id,
            ip=[str(each.address) for each in networks.values()],
        ) from violation
    ctx.bell.ring()
    return host, created


def get(ctx: Context, host_id: str) -> Host:
    """Raises HostNotFound."""
    with ctx.db.read() as connection:
        found = _hosts(connection, hosts.c.id == host_id)
    if not found:
        raise missing(host_id)
    return found[0]


def list_hosts(ctx: Context) -> list[Host]:
    """All, by id."""
    with ctx.db.read() as connection:
        return _hosts(connection, True)


def delete_host(ctx: Context, host_id: str) -> None:
    """Raises HostNotFound, InUse while the host serves a network."""
    with ctx.db.write() as connection:
        _attach(connection, host_id, {})
        if not connection.execute(delete(hosts).where(hosts.c.id == host_id)).rowcount:
            raise missing(host_id)
    ctx.bell.ring()


def missing(host_id: str) -> HostNotFound:
    """The error for an unknown host."""
    return HostNotFound(f"There is no host {host_id!r}. GET /v1/hosts lists those that are.", host=host_id)


def _attach(connection: Connection, host_id: str, wanted: Mapping[str, HostNetwork]) -> None:
    present = {
        row.network_id: HostNetwork(interface=row.interface, address=IPAddress(row.address))
        for row in connection.execute(select(host_networks).where(host_networks.c.host_id == host_id))
    }
    gone = sorted(present.keys() - wanted.keys())
    serving = connection.execute(
        select(servers.c.network_id).where(servers.c.host_id == host_id, servers.c.network_id.in_(gone))
    ).scalars()
    if left := list(serving):
        raise InUse(
            f"Host {host_id} serves {', '.join(left)}. Turn IPAM off there, or want fewer servers, before you take "
            "the network from the host.",
            host=host_id,
            networks=left,
        )
    for network_id, attachment in present.items():
        if wanted.get(network_id) != attachment:
            connection.execute(
                delete(host_networks).where(
                    host_networks.c.host_id == host_id, host_networks.c.network_id == network_id
                )
            )
            subnets.return_to_vnics(connection, network_id, attachment.address)
    for network_id, attachment in wanted.items():
        if present.get(network_id) != attachment:
            connection.execute(
                insert(host_networks).values(
                    host_id=host_id,
                    network_id=network_id,
                    interface=attachment.interface,
                    address=str(attachment.address),
                )
            )
            subnets.keep_from_vnics(connection, network_id, attachment.address)


def _hosts(connection: Connection, condition: Any) -> list[Host]:
    attachments: dict[str, dict[str, HostNetwork]] = {}
    for row in connection.execute(select(host_networks).join(hosts).where(condition)):
        attachment = HostNetwork(interface=row.interface, address=IPAddress(row.address))
        attachments.setdefault(row.host_id, {})[row.network_id] = attachment
    rows = connection.execute(select(hosts).where(condition).order_by(hosts.c.id))
    return [_host(row, attachments.get(row.id, {})) for row in rows]


def _host(row: AnyRow, attachments: Mapping[str, HostNetwork]) -> Host:
    return Host(
        id=row.id,
        control_url=row.control_url,
        username=row.username,
        password=row.password,
        networks=attachments,
        answered_at=None if row.answered_ms is None else from_ms(row.answered_ms),
        unreachable_reason=row.unreachable_reason,
    )
