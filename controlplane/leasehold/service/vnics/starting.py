"""vNICs started and stopped: an address promised, and confirmed by the servers that are to serve it."""

import time
from collections.abc import Iterable

from netaddr import IPAddress
from sqlalchemy import Connection, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Confirmation, Started, Vnic, Wait
from leasehold.errors import NoIpamService, NoServer, NotConfirmed
from leasehold.service import networks, reservations
from leasehold.service.context import Context
from leasehold.service.vnics import rows
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, hosts, server_subnets, servers, vnics


def start(ctx: Context, vnic_id: str, *, wait: Wait = "one", ip: IPAddress | None = None) -> Started:
    """Promises the vNIC an address of its subnet, and waits until `wait` of the network's servers have it on disk.

    The promise holds from the commit on, and is pushed until it is confirmed, also when this call raises NotConfirmed
    or NoServer because that took longer than `start_budget_s`. A repeated call, for a migrated VM for one, answers the
    same address. Raises VnicNotFound, NoIpamService, SubnetExhausted, AddressOutOfRange, AddressTaken, MacReserved.
    """
    with ctx.db.write() as connection:
        row = rows.require(connection, vnic_id)
        network = None if row.network_id is None else networks.require(connection, row.network_id)
        if row.subnet_id is None or network is None or not network.ipam_enabled:
            why = "is on no subnet" if row.subnet_id is None else f"is on network {row.network_id}, where IPAM is off"
            raise NoIpamService(
                f"vNIC {vnic_id} {why}, so that it has no address to start with. "
                + ("Put it on a subnet first." if row.subnet_id is None else "Turn ipam_enabled on there first."),
                vnic=vnic_id,
                network=row.network_id,
            )
        reservations.promise(connection, row.subnet_id, vnic_id, Mac(row.mac), ip)
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(running=True))
        vnic = rows.read(connection, vnics.c.id == vnic_id)[0]
    ctx.bell.ring()
    return _await_confirmation(ctx, vnic, wait)


def stop(ctx: Context, vnic_id: str) -> Vnic:
    """Withdraws the vNIC's address, which drains, cools, and then is free; the MAC stays. Raises VnicNotFound."""
    with ctx.db.write() as connection:
        rows.require(connection, vnic_id)
        reservations.withdraw(connection, vnic_id)
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(running=False))
        vnic = rows.read(connection, vnics.c.id == vnic_id)[0]
    ctx.bell.ring()
    return vnic


def _await_confirmation(ctx: Context, vnic: Vnic, wait: Wait) -> Started:
    deadline = time.monotonic() + ctx.settings.start_budget_s
    while True:
        seen = ctx.bell.count
        with ctx.db.read() as connection:
            confirmations = _confirmations(connection, vnic.id)
        if _is_enough(confirmations, wait):
            if vnic.ip is None:
                raise RuntimeError(f"vNIC {vnic.id} was promised an address and has none")
            return Started(vnic=vnic, ip=vnic.ip, mac=vnic.mac, servers=tuple(confirmations))
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or _is_hopeless(confirmations, wait):
            raise _not_confirmed(vnic, wait, confirmations)
        ctx.bell.wait(seen, remaining_s)


def _is_enough(confirmations: Iterable[Confirmation], wait: Wait) -> bool:
    if wait == "none":
        return True
    confirmed = [each.state == "confirmed" for each in confirmations]
    return any(confirmed) if wait == "one" else bool(confirmed) and all(confirmed)


def _is_hopeless(confirmations: list[Confirmation], wait: Wait) -> bool:
    """True when waiting cannot help: the servers that would have to confirm are known not to answer."""
    unreachable = [each.state == "unreachable" for each in confirmations]
    return bool(unreachable) and (all(unreachable) if wait == "one" else any(unreachable))


def _not_confirmed(vnic: Vnic, wait: Wait, confirmations: list[Confirmation]) -> NoServer | NotConfirmed:
    if not confirmations:
        return NoServer(
            f"No host serves network {vnic.network} yet. {vnic.ip} stays held for vNIC {vnic.id}, and is pushed as "
            "soon as one does. Attach a host that is up to the network, or ask again.",
            network=vnic.network,
            vnic=vnic.id,
            ip=str(vnic.ip),
            mac=str(vnic.mac),
        )
    late = [each for each in confirmations if each.state != "confirmed"]
    hosts_named = "; ".join(f"{each.host} ({each.detail or each.state})" for each in late)
    return NotConfirmed(
        f"{vnic.ip} is held for vNIC {vnic.id}, but {'no server has' if wait == 'one' else 'not all servers have'} "
        f"confirmed it yet: {hosts_named}. It is pushed by itself once they answer; ask again then.",
        vnic=vnic.id,
        ip=str(vnic.ip),
        mac=str(vnic.mac),
        hosts=[each.host for each in late],
        servers=[{"host": each.host, "state": each.state, "detail": each.detail} for each in confirmations],
    )


def _confirmations(connection: Connection, vnic_id: str) -> list[Confirmation]:
    """What each server that is to serve the vNIC's address says of it, by host."""
    rows = connection.execute(
        select(
            servers.c.host_id,
            servers.c.state,
            servers.c.detail,
            hosts.c.unreachable_reason,
            server_subnets.c.confirmed_revision,
            addresses.c.revision,
        )
        .select_from(addresses)
        .join(vnics, vnics.c.id == addresses.c.vnic_id)
        .join(servers, servers.c.network_id == vnics.c.network_id)
        .join(hosts, hosts.c.id == servers.c.host_id)
        .join(
            server_subnets,
            (server_subnets.c.host_id == servers.c.host_id) & (server_subnets.c.subnet_id == addresses.c.subnet_id),
            isouter=True,
        )
        .where(addresses.c.vnic_id == vnic_id, addresses.c.state == "held", servers.c.state != "stopping")
        .order_by(servers.c.host_id)
    )
    return [_confirmation(row) for row in rows]


def _confirmation(row: AnyRow) -> Confirmation:
    revision = row.confirmed_revision
    if row.state == "running" and revision is not None and revision >= row.revision:
        return Confirmation(host=row.host_id, state="confirmed", revision=revision, detail=None)
    if row.state == "unreachable" or row.unreachable_reason is not None:
        reason = row.unreachable_reason or row.detail
        return Confirmation(host=row.host_id, state="unreachable", revision=revision, detail=reason)
    return Confirmation(host=row.host_id, state="pending", revision=revision, detail=row.detail)
