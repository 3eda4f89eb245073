"""Subnets: a CIDR on a network, and its addresses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, Select, and_, delete, func, insert, select, true
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import AddressRange, Mac, MacRange
from leasehold.domain.extents import Extent
from leasehold.domain.options import Route, parse_option
from leasehold.domain.replication import EMPTY_DIGEST
from leasehold.domain.subnets import assignable, check, offset_of, overlap, within
from leasehold.domain.values import Subnet, SubnetSpec, SubnetUsage
from leasehold.errors import AddressTaken, InUse, RangesOverlapSubnets, SubnetNotFound, SubnetOverlap
from leasehold.service import macs, networks
from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import (
    addresses,
    host_networks,
    leases,
    reservation_log,
    server_subnets,
    spaces,
    subnet_mac_ranges,
    subnets,
    vnics,
)
from leasehold.store.tables import networks as networks_table

_STATES = ("held", "draining", "cooling")


def create(ctx: Context, spec: SubnetSpec, *, dry_run: bool = False) -> Subnet:
    """A new subnet. Raises SubnetInvalid, RangeInvalid, RangeNotUnicast, RangesOverlap, NetworkNotFound, SubnetOverlap,
    RangesOverlapSubnets."""
    with ctx.db.write(dry_run=dry_run) as connection:
        if spec.mac_ranges:
            macs.change_rules(connection)
        subnet = get_in(connection, create_in(connection, spec))
    ctx.bell.ring()
    return subnet


def create_in(connection: Connection, spec: SubnetSpec) -> int:
    """What `create` does, as part of a transaction; returns the new subnet's id."""
    check(spec)
    lock_network(connection, spec.network)
    refuse_overlap(connection, spec)
    own = addresses_of_hosts(connection, spec.network)
    subnet_id: int = connection.execute(
        insert(subnets)
        .values(
            network_id=spec.network,
            space_id=extents.create_space(connection, assignable(spec, own)),
            revision=0,
            digest=EMPTY_DIGEST,
            settings_revision=1,
            **columns_of(spec),
        )
        .returning(subnets.c.id)
    ).scalar_one()
    tie_macs(connection, subnet_id, spec.mac_ranges)
    return subnet_id


def get(ctx: Context, subnet_id: int) -> Subnet:
    """Raises SubnetNotFound."""
    with ctx.db.read() as connection:
        return get_in(connection, subnet_id)


def get_in(connection: Connection, subnet_id: int) -> Subnet:
    """What `get` answers, as this transaction sees it."""
    found = _subnets(connection, subnets.c.id == subnet_id, 1)
    if not found:
        raise missing(subnet_id)
    return found[0]


def list_subnets(
    ctx: Context, network: str | None = None, *, limit: int | None = None, after: int | None = None
) -> list[Subnet]:
    """All, or those of one network, by id; up to `limit` behind the id `after`."""
    with ctx.db.read() as connection:
        return _subnets(
            connection,
            and_(
                true() if network is None else subnets.c.network_id == network,
                true() if after is None else subnets.c.id > after,
            ),
            limit,
        )


def delete_subnet(ctx: Context, subnet_id: int, *, dry_run: bool = False) -> None:
    """Raises SubnetNotFound, InUse while vNICs are on it or addresses of it are held, draining or cooling."""
    with ctx.db.write(dry_run=dry_run) as connection:
        row = require_alone(connection, subnet_id)
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
        delete_in(connection, row)
    ctx.bell.ring()


def delete_in(connection: Connection, row: AnyRow) -> None:
    """Forgets a subnet that has neither vNICs nor addresses."""
    connection.execute(delete(server_subnets).where(server_subnets.c.subnet_id == row.id))
    connection.execute(delete(reservation_log).where(reservation_log.c.subnet_id == row.id))
    connection.execute(delete(leases).where(leases.c.subnet_id == row.id))
    connection.execute(delete(subnets).where(subnets.c.id == row.id))
    extents.delete_space(connection, row.space_id)


def require(connection: Connection, subnet_id: int, *, lock: bool = False) -> AnyRow:
    """The subnet's row, with how many addresses it hands out (`size`) and how many of them are `free`; locked until the
    transaction ends if asked, which keeps nobody from naming it. Raises SubnetNotFound."""
    find = _find_locked if lock else _find
    return _found(subnet_id, find(connection, subnet_id=subnet_id).one_or_none())


def require_alone(connection: Connection, subnet_id: int) -> AnyRow:
    """The same row for whoever removes or retires it: locked so that nobody comes to name it, and those are waited for
    and seen who did in a transaction that had not ended. Raises SubnetNotFound."""
    return _found(subnet_id, _find_alone(connection, subnet_id=subnet_id).one_or_none())


def require_kept(connection: Connection, subnet_id: int) -> AnyRow:
    """The row of a subnet that is about to be named: until the transaction ends nobody removes or retires it, though it
    may change otherwise. Raises SubnetNotFound."""
    return _found(subnet_id, _find_kept(connection, subnet_id=subnet_id).one_or_none())


def lock(connection: Connection, subnet_ids: Iterable[int | None]) -> None:
    """Locks several subnets as `require` does; None stands for no subnet."""
    if ids := sorted({each for each in subnet_ids if each is not None}):
        own = among(connection, subnets.c.id, ids)
        connection.execute(select(subnets.c.id).where(own).order_by(subnets.c.id).with_for_update(key_share=True))


def missing(subnet_id: int) -> SubnetNotFound:
    """The error for an unknown subnet."""
    return SubnetNotFound(f"There is no subnet {subnet_id}. GET /v1/subnets lists those that are.", subnet=subnet_id)


def lock_network(connection: Connection, network_id: str) -> None:
    """Until the transaction ends, nobody else changes which subnets the network has and which addresses are its hosts'
    own: rules among them that no unique index can hold. Raises NetworkNotFound."""
    networks.require(connection, network_id, lock=True)


def refuse_overlap(connection: Connection, spec: SubnetSpec, own_id: int | None = None) -> None:
    """Raises SubnetOverlap if another subnet of the network, which is locked, shares addresses with this one."""
    for row in connection.execute(select(subnets).where(subnets.c.network_id == spec.network)):
        other = IPNetwork(row.cidr)
        if row.id != own_id and overlap(other, spec.cidr):
            raise SubnetOverlap(
                f"{spec.cidr} overlaps with subnet {row.id} ({other}) of network {spec.network}. "
                "Choose another CIDR, or delete that subnet.",
                cidr=str(spec.cidr),
                subnet=row.id,
                other_cidr=str(other),
            )


def addresses_of_hosts(connection: Connection, network_id: str) -> list[IPAddress]:
    """The hosts' own addresses on the network, which no subnet hands out."""
    own = select(host_networks.c.address).where(host_networks.c.network_id == network_id)
    return [IPAddress(text) for text in connection.execute(own).scalars()]


def handed_out(connection: Connection, row: AnyRow) -> list[Extent]:
    """Offsets that the subnet of this row hands out: free ones, and those in use that are in range."""
    return assignable(spec_of(row), addresses_of_hosts(connection, row.network_id))


def hands_out(connection: Connection, row: AnyRow, offset: int) -> bool:
    """Whether the subnet of this row hands the offset out."""
    return within(handed_out(connection, row), offset)


def lock_around(connection: Connection, places: Iterable[tuple[str, IPAddress]]) -> None:
    """Locks what `keep_from_vnics` and `return_to_vnics` change for these networks and addresses, all at once."""
    places = list(places)
    known = among(connection, networks_table.c.id, {network_id for network_id, _ in places})
    for network_id in connection.execute(select(networks_table.c.id).where(known).order_by(networks_table.c.id)):
        lock_network(connection, *network_id)
    on_them = select(subnets).where(among(connection, subnets.c.network_id, {network_id for network_id, _ in places}))
    rows = connection.execute(on_them).all()
    lock(connection, (row.id for row in rows if any(address in IPNetwork(row.cidr) for _, address in places)))


def keep_from_vnics(connection: Connection, network_id: str, address: IPAddress) -> None:
    """Takes a host's own address out of what the network's subnets hand out. Raises AddressTaken."""
    for row, offset in _subnets_around(connection, network_id, address):
        held = connection.execute(
            select(addresses).where(addresses.c.subnet_id == row.id, addresses.c.offset == offset)
        ).one_or_none()
        if held is not None:
            raise AddressTaken(
                f"{address} on subnet {row.id} ({row.cidr}) is {held.state} for {holder_of(held)}. "
                "Give the host another address, or have that one let go and wait until it is free.",
                ip=str(address),
                subnet=row.id,
                state=held.state,
                holder=held.vnic_id,
            )
        if _hands_out(row, offset):
            extents.remove_extent(connection, row.space_id, offset, offset)


def return_to_vnics(connection: Connection, network_id: str, address: IPAddress) -> None:
    """Makes an address that `keep_from_vnics` took free for vNICs again."""
    for row, offset in _subnets_around(connection, network_id, address):
        if _hands_out(row, offset):
            extents.insert_extents(connection, row.space_id, [(offset, offset)], size=1)


def holder_of(address: AnyRow) -> str:
    """Who a row of `addresses` is promised to, for a sentence."""
    return f"MAC {Mac(address.mac)}" if address.vnic_id is None else f"vNIC {address.vnic_id}"


def tie_macs(connection: Connection, subnet_id: int, ranges: Sequence[MacRange]) -> None:
    """Ties these MACs to the subnet, and no others. Unless another subnet lets go of them in the same transaction, the
    caller has the rules alone: that MACs are tied to one subnet is none that a unique index can hold. Raises
    RangesOverlapSubnets."""
    connection.execute(delete(subnet_mac_ranges).where(subnet_mac_ranges.c.subnet_id == subnet_id))
    if ranges:
        _refuse_ties(connection, ranges)
        connection.execute(
            insert(subnet_mac_ranges),
            [{"subnet_id": subnet_id, "first": each.first.value, "last": each.last.value} for each in ranges],
        )


def columns_of(spec: SubnetSpec) -> dict[str, Any]:
    """What a subnet's row has of a spec, but for the network; `spec_of` is the way back."""
    return {
        "cidr": str(spec.cidr),
        "gateway": None if spec.gateway is None else str(spec.gateway),
        "dns": [str(each) for each in spec.dns],
        "ntp": [str(each) for each in spec.ntp],
        "domain": spec.domain,
        "mtu": spec.mtu,
        "routes": [[str(each.destination), str(each.gateway)] for each in spec.routes],
        "options": [{"code": each.code, "type": each.type, "value": each.value} for each in spec.options],
        "lease_time_s": spec.lease_time_s,
        "ranges": [[str(each.first), str(each.last)] for each in spec.ranges],
        "exclusions": [[str(each.first), str(each.last)] for each in spec.exclusions],
    }


def spec_of(row: AnyRow) -> SubnetSpec:
    """The caller's part of a subnet's row, without the MACs that are tied to it."""
    return SubnetSpec(**_spec_fields(row))


def address_of(row: AnyRow, offset: int) -> IPAddress:
    """The address at an offset of a subnet's row."""
    return IPAddress(int(IPNetwork(row.cidr).first) + offset, 4)


def _spec_fields(row: AnyRow) -> dict[str, Any]:
    return {
        "network": row.network_id,
        "cidr": IPNetwork(row.cidr),
        "gateway": None if row.gateway is None else IPAddress(row.gateway),
        "dns": tuple(map(IPAddress, row.dns)),
        "ntp": tuple(map(IPAddress, row.ntp)),
        "domain": row.domain,
        "mtu": row.mtu,
        "routes": tuple(
            Route(destination=IPNetwork(destination), gateway=IPAddress(gateway)) for destination, gateway in row.routes
        ),
        "options": tuple(
            parse_option("options", each["value"], code=each["code"], type=each["type"]) for each in row.options
        ),
        "lease_time_s": row.lease_time_s,
        "ranges": tuple(AddressRange(IPAddress(first), IPAddress(last)) for first, last in row.ranges),
        "exclusions": tuple(AddressRange(IPAddress(first), IPAddress(last)) for first, last in row.exclusions),
    }


def _refuse_ties(connection: Connection, ranges: Sequence[MacRange]) -> None:
    """Raises RangesOverlapSubnets if MACs of these ranges are tied to a subnet."""
    found = [
        (each, MacRange(Mac(row.first), Mac(row.last)), row)
        for row in connection.execute(
            select(subnet_mac_ranges, subnets.c.cidr, subnets.c.network_id)
            .join(subnets, subnets.c.id == subnet_mac_ranges.c.subnet_id)
            .order_by(subnet_mac_ranges.c.first)
        )
        for each in ranges
        if each.first.value <= row.last and row.first <= each.last.value
    ]
    if found:
        told = "; ".join(f"{each} with {other} of subnet {row.subnet_id} ({row.cidr})" for each, other, row in found)
        raise RangesOverlapSubnets(
            f"mac_ranges: they overlap with other subnets': {told}. A MAC is tied to one subnet at most: choose ranges "
            "that no subnet has, or take them from that one first.",
            overlaps=[
                {
                    "range": {"from": str(each.first), "to": str(each.last)},
                    "subnet": row.subnet_id,
                    "cidr": row.cidr,
                    "network": row.network_id,
                    "other_range": {"from": str(other.first), "to": str(other.last)},
                }
                for each, other, row in found
            ],
        )


def _subnets_around(connection: Connection, network_id: str, address: IPAddress) -> list[tuple[AnyRow, int]]:
    """The network's subnets that the address is in, locked, with its offset there. The network need not be."""
    if connection.execute(select(networks_table.c.id).where(networks_table.c.id == network_id)).first() is None:
        return []
    lock_network(connection, network_id)
    rows = connection.execute(select(subnets).where(subnets.c.network_id == network_id).order_by(subnets.c.id)).all()
    inside = [row.id for row in rows if address in IPNetwork(row.cidr)]
    return [
        (row, offset_of(spec_of(row), address)) for row in (require(connection, each, lock=True) for each in inside)
    ]


def _hands_out(row: AnyRow, offset: int) -> bool:
    """Whether the subnet would hand this offset out, if it were no host's own."""
    return within(assignable(spec_of(row)), offset)


def _subnets(connection: Connection, condition: Any, limit: int | None) -> list[Subnet]:
    rows = connection.execute(_with_space().where(condition).order_by(subnets.c.id).limit(limit)).all()
    ids = [row.id for row in rows]
    counts: dict[tuple[int, str], int] = {
        (subnet_id, state): count
        for subnet_id, state, count in connection.execute(
            select(addresses.c.subnet_id, addresses.c.state, func.count())
            .where(addresses.c.subnet_id.in_(ids))
            .group_by(addresses.c.subnet_id, addresses.c.state)
        )
    }
    tied: dict[int, list[MacRange]] = {}
    for tie in connection.execute(
        select(subnet_mac_ranges).where(subnet_mac_ranges.c.subnet_id.in_(ids)).order_by(subnet_mac_ranges.c.first)
    ):
        tied.setdefault(tie.subnet_id, []).append(MacRange(Mac(tie.first), Mac(tie.last)))
    return [
        Subnet(
            **_spec_fields(row),
            mac_ranges=tuple(tied.get(row.id, ())),
            id=row.id,
            revision=row.revision,
            settings_revision=row.settings_revision,
            successor=row.successor_id,
            usage=_usage(row, {state: counts.get((row.id, state), 0) for state in _STATES}),
        )
        for row in rows
    ]


def _usage(row: AnyRow, counts: Mapping[str, int]) -> SubnetUsage:
    in_range = row.size - row.free
    return SubnetUsage(size=row.size, free=row.free, out_of_range=sum(counts.values()) - in_range, **counts)


def _found(subnet_id: int, row: AnyRow | None) -> AnyRow:
    if row is None:
        raise missing(subnet_id)
    return row


def _with_space() -> Select[Any]:
    return select(subnets, spaces.c.cursor, spaces.c.free, spaces.c.size).join(
        spaces, spaces.c.id == subnets.c.space_id
    )


@prepared
def _find(subnet_id: Any) -> Executable:
    return _with_space().where(subnets.c.id == subnet_id)


@prepared
def _find_locked(subnet_id: Any) -> Executable:
    # Not FOR UPDATE, for which whoever puts a vNIC on the subnet would have to wait.
    return _with_space().where(subnets.c.id == subnet_id).with_for_update(key_share=True)


@prepared
def _find_alone(subnet_id: Any) -> Executable:
    return _with_space().where(subnets.c.id == subnet_id).with_for_update()


@prepared
def _find_kept(subnet_id: Any) -> Executable:
    return select(subnets).where(subnets.c.id == subnet_id).with_for_update(read=True, key_share=True)
