"""vNICs: what the engine creates, starts, stops and deletes."""

import time
from collections.abc import Iterable
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, delete, insert, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Confirmation, Started, Vnic, Wait
from leasehold.errors import FieldInvalid, InUse, NoIpamService, NoServer, NotConfirmed, VnicNotFound
from leasehold.service import mac_pools, networks, reservations, subnets
from leasehold.service.context import Context
from leasehold.store.database import AnyRow, Violation
from leasehold.store.tables import addresses, hosts, server_subnets, servers, vnics


def put(
    ctx: Context, vnic_id: str, *, vm: str, name: str, network: str | None, subnet: int | None, mac: Mac | None
) -> tuple[Vnic, bool]:
    """Creates or replaces a vNIC; the second value is True if it is new. Without `mac` it keeps the one it has, else
    gets one of the default pool. A subnet brings its network.

    Raises NetworkNotFound, SubnetNotFound, FieldInvalid for a subnet of another network, MacNotUnicast, MacTaken,
    MacPoolExhausted, and InUse for a change of MAC, network or subnet while it runs.
    """
    try:
        with ctx.db.write() as connection:
            network = _network_of(connection, network, subnet)
            present = _row(connection, vnic_id, lock=True)
            if present is None:
                new_mac, pool_id = (
                    mac_pools.draw(connection) if mac is None else (mac, mac_pools.claim(connection, mac))
                )
                connection.execute(
                    insert(vnics).values(
                        id=vnic_id,
                        vm=vm,
                        name=name,
                        network_id=network,
                        subnet_id=subnet,
                        mac=new_mac.value,
                        mac_pool_id=pool_id,
                        running=False,
                    )
                )
            else:
                _replace(connection, present, vm=vm, name=name, network=network, subnet=subnet, mac=mac)
            vnic = _vnics(connection, vnics.c.id == vnic_id)[0]
    except Violation as violation:
        raise _taken_meanwhile(ctx, violation, mac) from violation
    ctx.bell.ring()
    return vnic, present is None


def get(ctx: Context, vnic_id: str) -> Vnic:
    """Raises VnicNotFound."""
    with ctx.db.read() as connection:
        found = _vnics(connection, vnics.c.id == vnic_id)
    if not found:
        raise _missing(vnic_id)
    return found[0]


def list_vnics(ctx: Context, *, limit: int, after: str | None = None) -> list[Vnic]:
    """Up to `limit` vNICs behind the id `after`, by id."""
    with ctx.db.read() as connection:
        condition = True if after is None else vnics.c.id > after
        return _vnics(connection, condition, limit)


def delete_vnic(ctx: Context, vnic_id: str) -> None:
    """Stops the vNIC and gives its MAC back. Raises VnicNotFound."""
    with ctx.db.write() as connection:
        row = _require(connection, vnic_id)
        reservations.withdraw(connection, vnic_id)
        connection.execute(delete(vnics).where(vnics.c.id == vnic_id))
        mac_pools.give_back(connection, Mac(row.mac), row.mac_pool_id)
    ctx.bell.ring()


def start(ctx: Context, vnic_id: str, *, wait: Wait = "one", ip: IPAddress | None = None) -> Started:
    """Promises the vNIC an address of its subnet, and waits until `wait` of the network's servers have it on disk.

    The promise holds from the commit on, and is pushed until it is confirmed, also when this call raises NotConfirmed
    or NoServer because that took longer than `start_budget_s`. A repeated call, for a migrated VM for one, answers the
    same address. Raises VnicNotFound, NoIpamService, SubnetExhausted, AddressOutOfRange, AddressTaken, MacReserved.
    """
    with ctx.db.write() as connection:
        row = _require(connection, vnic_id)
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
        vnic = _vnics(connection, vnics.c.id == vnic_id)[0]
    ctx.bell.ring()
    return _await_confirmation(ctx, vnic, wait)


def stop(ctx: Context, vnic_id: str) -> Vnic:
    """Withdraws the vNIC's address, which drains, cools, and then is free; the MAC stays. Raises VnicNotFound."""
    with ctx.db.write() as connection:
        _require(connection, vnic_id)
        reservations.withdraw(connection, vnic_id)
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(running=False))
        vnic = _vnics(connection, vnics.c.id == vnic_id)[0]
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


def _replace(
    connection: Connection,
    present: AnyRow,
    *,
    vm: str,
    name: str,
    network: str | None,
    subnet: int | None,
    mac: Mac | None,
) -> None:
    values: dict[str, object] = {"vm": vm, "name": name, "network_id": network, "subnet_id": subnet}
    changed = [
        field
        for field, before, after in (
            ("network", present.network_id, network),
            ("subnet", present.subnet_id, subnet),
            ("mac", present.mac, present.mac if mac is None else mac.value),
        )
        if before != after
    ]
    if changed and present.running:
        raise InUse(
            f"vNIC {present.id} runs, so that its {' and '.join(changed)} cannot change. Stop it first.",
            vnic=present.id,
            fields=changed,
        )
    if mac is not None and "mac" in changed:
        values |= {"mac": mac.value, "mac_pool_id": mac_pools.claim(connection, mac)}
        mac_pools.give_back(connection, Mac(present.mac), present.mac_pool_id)
    connection.execute(update(vnics).where(vnics.c.id == present.id).values(**values))


def _network_of(connection: Connection, network: str | None, subnet: int | None) -> str | None:
    if network is not None:
        networks.require(connection, network)
    if subnet is None:
        return network
    own: str = subnets.require(connection, subnet).network_id
    if network not in (None, own):
        raise FieldInvalid(
            f"subnet: {subnet} is on network {own}, not on {network}. "
            f"Name a subnet of {network}, or leave network out.",
            field="subnet",
            value=subnet,
        )
    return own


def _taken_meanwhile(ctx: Context, violation: Violation, mac: Mac | None) -> Exception:
    if violation.constraint != "uq_vnics_mac" or mac is None:
        return violation
    with ctx.db.read() as connection:
        holder = connection.execute(select(vnics.c.id, vnics.c.vm).where(vnics.c.mac == mac.value)).one()
    return mac_pools.taken(mac, holder)


def _row(connection: Connection, vnic_id: str, *, lock: bool = False) -> AnyRow | None:
    query = select(vnics).where(vnics.c.id == vnic_id)
    return connection.execute(query.with_for_update() if lock else query).one_or_none()


def _require(connection: Connection, vnic_id: str) -> AnyRow:
    row = _row(connection, vnic_id, lock=True)
    if row is None:
        raise _missing(vnic_id)
    return row


def _missing(vnic_id: str) -> VnicNotFound:
    return VnicNotFound(f"There is no vNIC {vnic_id!r}. Create it with PUT /v1/vnics/{vnic_id}.", vnic=vnic_id)


def _vnics(connection: Connection, condition: Any, limit: int | None = None) -> list[Vnic]:
    rows = connection.execute(select(vnics).where(condition).order_by(vnics.c.id).limit(limit)).all()
    own: dict[str, AnyRow] = {}
    for row in connection.execute(
        select(addresses)
        .where(addresses.c.vnic_id.in_([row.id for row in rows]))
        .order_by(addresses.c.state != "held", addresses.c.free_at_ms.is_not(None), addresses.c.free_at_ms.desc())
    ):
        own.setdefault(row.vnic_id, row)
    held_on = {each.subnet_id for each in own.values()}
    of_subnet = {subnet_id: subnets.require(connection, subnet_id) for subnet_id in held_on}
    return [
        Vnic(
            id=row.id,
            vm=row.vm,
            name=row.name,
            network=row.network_id,
            subnet=row.subnet_id,
            mac=Mac(row.mac),
            mac_pool=row.mac_pool_id,
            running=row.running,
            ip=None if address is None else subnets.address_of(of_subnet[address.subnet_id], address.offset),
            ip_state=None if address is None else address.state,
        )
        for row in rows
        for address in (own.get(row.id),)
    ]
