"""Subnets: a CIDR on a network, and its addresses."""

from typing import Any

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, delete, func, insert, select

from leasehold.domain.addresses import AddressRange, Mac, MacRange
from leasehold.domain.replication import EMPTY_DIGEST
from leasehold.domain.subnets import address_at, assignable, check, offset_of
from leasehold.domain.values import Subnet, SubnetSpec, SubnetUsage
from leasehold.errors import AddressTaken, InUse, SubnetNotFound, SubnetOverlap
from leasehold.service import networks
from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.tables import (
    addresses,
    host_networks,
    reservation_log,
    server_subnets,
    spaces,
    subnet_mac_ranges,
    subnets,
    vnics,
)
from leasehold.store.tables import networks as networks_table


def create(ctx: Context, spec: SubnetSpec) -> Subnet:
    """A new subnet. Raises SubnetInvalid, NetworkNotFound, SubnetOverlap."""
    check(spec)
    with ctx.db.write() as connection:
        networks.require(connection, spec.network)
        # Overlap is no rule that a unique index can hold, so that the network's row is locked while we look.
        connection.execute(select(networks_table.c.id).where(networks_table.c.id == spec.network).with_for_update())
        for row in connection.execute(select(subnets).where(subnets.c.network_id == spec.network)):
            other = IPNetwork(row.cidr)
            if other.first <= spec.cidr.last and spec.cidr.first <= other.last:
                raise SubnetOverlap(
                    f"{spec.cidr} overlaps with subnet {row.id} ({other}) of network {spec.network}. "
                    "Choose another CIDR, or delete that subnet.",
                    cidr=str(spec.cidr),
                    subnet=row.id,
                    other_cidr=str(other),
                )
        own = (
            IPAddress(text)
            for text in connection.execute(
                select(host_networks.c.address).where(host_networks.c.network_id == spec.network)
            ).scalars()
        )
        space_id = extents.create_space(connection, assignable(spec, own))
        subnet_id = connection.execute(
            insert(subnets)
            .values(
                network_id=spec.network,
                cidr=str(spec.cidr),
                gateway=None if spec.gateway is None else str(spec.gateway),
                dns=[str(each) for each in spec.dns],
                ntp=[str(each) for each in spec.ntp],
                domain=spec.domain,
                lease_time_s=spec.lease_time_s,
                ranges=[[str(each.first), str(each.last)] for each in spec.ranges],
                exclusions=[[str(each.first), str(each.last)] for each in spec.exclusions],
                space_id=space_id,
                revision=0,
                digest=EMPTY_DIGEST,
            )
            .returning(subnets.c.id)
        ).scalar_one()
        if spec.mac_ranges:
            connection.execute(
                insert(subnet_mac_ranges),
                [
                    {"subnet_id": subnet_id, "first": each.first.value, "last": each.last.value}
                    for each in spec.mac_ranges
                ],
            )
        subnet = _subnets(connection, subnets.c.id == subnet_id)[0]
    ctx.bell.ring()
    return subnet


def get(ctx: Context, subnet_id: int) -> Subnet:
    """Raises SubnetNotFound."""
    with ctx.db.read() as connection:
        found = _subnets(connection, subnets.c.id == subnet_id)
    if not found:
        raise missing(subnet_id)
    return found[0]


def list_subnets(ctx: Context, network: str | None = None) -> list[Subnet]:
    """All, or those of one network, by id."""
    with ctx.db.read() as connection:
        return _subnets(connection, True if network is None else subnets.c.network_id == network)


def delete_subnet(ctx: Context, subnet_id: int) -> None:
    """Raises SubnetNotFound, InUse while vNICs are on it or addresses of it are held, draining or cooling."""
    with ctx.db.write() as connection:
        row = require(connection, subnet_id, lock=True)
        on_it = list(connection.execute(select(vnics.c.id).where(vnics.c.subnet_id == subnet_id).limit(20)).scalars())
        if on_it:
            raise InUse(
                f"Subnet {subnet_id} has vNICs: {', '.join(on_it)}. Move or delete them first.",
                subnet=subnet_id,
                vnics=on_it,
            )
        states: dict[str, int] = dict(
            connection.execute(
                select(addresses.c.state, func.count())
                .where(addresses.c.subnet_id == subnet_id)
                .group_by(addresses.c.state)
            ).all()
        )
        if states:
            counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            raise InUse(
                f"Subnet {subnet_id} has addresses that are not free yet: {counts}. Ask again when they are.",
                subnet=subnet_id,
                **states,
            )
        connection.execute(delete(server_subnets).where(server_subnets.c.subnet_id == subnet_id))
        connection.execute(delete(reservation_log).where(reservation_log.c.subnet_id == subnet_id))
        connection.execute(delete(subnets).where(subnets.c.id == subnet_id))
        extents.delete_space(connection, row.space_id)
    ctx.bell.ring()


def require(connection: Connection, subnet_id: int, *, lock: bool = False) -> AnyRow:
    """The subnet's row, locked until the transaction ends if asked; raises SubnetNotFound."""
    query = select(subnets).where(subnets.c.id == subnet_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise missing(subnet_id)
    return row


def missing(subnet_id: int) -> SubnetNotFound:
    """The error for an unknown subnet."""
    return SubnetNotFound(f"There is no subnet {subnet_id}. GET /v1/subnets lists those that are.", subnet=subnet_id)


def spec_of(row: AnyRow) -> SubnetSpec:
    """The caller's part of a subnet's row."""
    return SubnetSpec(**_spec_fields(row))


def keep_from_vnics(connection: Connection, network_id: str, address: IPAddress) -> None:
    """Takes a host's own address out of what the network's subnets hand out. Raises AddressTaken."""
    for row, spec, offset in _assignable_in(connection, network_id, address):
        if not extents.take(connection, row.space_id, offset):
            held = connection.execute(
                select(addresses.c.vnic_id, addresses.c.state).where(
                    addresses.c.subnet_id == row.id, addresses.c.offset == offset
                )
            ).one()
            raise AddressTaken(
                f"{address} on subnet {row.id} ({spec.cidr}) is {held.state} for vNIC {held.vnic_id}. "
                "Give the host another address, or stop that vNIC and wait until its address is free.",
                ip=str(address),
                subnet=row.id,
                state=held.state,
                holder=held.vnic_id,
            )
        extents.resize(connection, row.space_id, -1)


def return_to_vnics(connection: Connection, network_id: str, address: IPAddress) -> None:
    """Makes an address that `keep_from_vnics` took free for vNICs again."""
    for row, _, offset in _assignable_in(connection, network_id, address):
        extents.give_back(connection, row.space_id, [offset])
        extents.resize(connection, row.space_id, 1)


def _assignable_in(connection: Connection, network_id: str, address: IPAddress) -> list[tuple[AnyRow, SubnetSpec, int]]:
    """Subnets of the network that would hand the address out, with its offset there."""
    found = []
    for row in connection.execute(select(subnets).where(subnets.c.network_id == network_id)).all():
        spec = spec_of(row)
        offset = offset_of(spec, address)
        if any(first <= offset <= last for first, last in assignable(spec)):
            found.append((row, spec, offset))
    return found


def _spec_fields(row: AnyRow) -> dict[str, Any]:
    return {
        "network": row.network_id,
        "cidr": IPNetwork(row.cidr),
        "gateway": None if row.gateway is None else IPAddress(row.gateway),
        "dns": tuple(map(IPAddress, row.dns)),
        "ntp": tuple(map(IPAddress, row.ntp)),
        "domain": row.domain,
        "lease_time_s": row.lease_time_s,
        "ranges": tuple(AddressRange(IPAddress(first), IPAddress(last)) for first, last in row.ranges),
        "exclusions": tuple(AddressRange(IPAddress(first), IPAddress(last)) for first, last in row.exclusions),
    }


def _subnets(connection: Connection, condition: Any) -> list[Subnet]:
    rows = connection.execute(
        select(subnets, spaces.c.free, spaces.c.size)
        .join(spaces, spaces.c.id == subnets.c.space_id)
        .where(condition)
        .order_by(subnets.c.id)
    ).all()
    counts: dict[tuple[int, str], int] = {
        (subnet_id, state): count
        for subnet_id, state, count in connection.execute(
            select(addresses.c.subnet_id, addresses.c.state, func.count())
            .join(subnets, subnets.c.id == addresses.c.subnet_id)
            .where(condition)
            .group_by(addresses.c.subnet_id, addresses.c.state)
        )
    }
    tied: dict[int, list[MacRange]] = {}
    for tie in connection.execute(
        select(subnet_mac_ranges)
        .where(subnet_mac_ranges.c.subnet_id.in_([row.id for row in rows]))
        .order_by(subnet_mac_ranges.c.first)
    ):
        tied.setdefault(tie.subnet_id, []).append(MacRange(Mac(tie.first), Mac(tie.last)))
    return [
        Subnet(
            **_spec_fields(row),
            mac_ranges=tuple(tied.get(row.id, ())),
            id=row.id,
            revision=row.revision,
            usage=SubnetUsage(
                size=row.size,
                free=row.free,
                held=counts.get((row.id, "held"), 0),
                draining=counts.get((row.id, "draining"), 0),
                cooling=counts.get((row.id, "cooling"), 0),
            ),
        )
        for row in rows
    ]


def address_of(row: AnyRow, offset: int) -> IPAddress:
    """The address at an offset of a subnet's row."""
    return address_at(spec_of(row), offset)
