"""Changes of a subnet while it is in use: its settings and its size. What is more is in `renumbering`.

What is in use keeps its address through all of them. Offsets count from the network address, so that a CIDR that begins
elsewhere moves every offset, and no address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, Table, case, false, func, or_, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.extents import Extent, gaps, without
from leasehold.domain.subnets import address_at, assignable, check, common, offset_of
from leasehold.domain.values import AddressInUse, Subnet, SubnetEffect, SubnetSpec
from leasehold.errors import InUse, RevisionMismatch
from leasehold.service import exhaustion, macs, subnets
from leasehold.service.context import Context
from leasehold.service.events import queue_up
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, free_extents, leases, metadata, server_subnets, spaces, vnics
from leasehold.store.tables import subnets as subnets_table

_NAMED = 50
"""How many addresses an answer names; it counts them all."""
_ASIDE = 2**40
"""Farther than any offset: where rows wait while others still have the offsets that are to be theirs."""

SubnetChange = Mapping[str, Any]
"""Fields of a SubnetSpec that a caller changes, but for the network."""


def change(
    ctx: Context, subnet_id: int, wanted: SubnetChange, *, revision: int | None = None, dry_run: bool = False
) -> tuple[Subnet, SubnetEffect]:
    """Changes a subnet while vNICs run; returns it, and the addresses in use that are out of its ranges by this change:
    they stay with their holders until these let them go.

    `revision` is the settings' that the caller read. Raises SubnetNotFound, RevisionMismatch, SubnetInvalid,
    SubnetOverlap, RangeInvalid, RangeNotUnicast, RangesOverlap, RangesOverlapSubnets, and InUse for a CIDR or gateway
    that would take an address away that is in use.
    """
    with ctx.db.write(dry_run=dry_run) as connection:
        if wanted.get("mac_ranges"):
            macs.change_rules(connection)
        row = locked(connection, subnet_id, revision)
        before = subnets.spec_of(row)
        spec = replace(before, **wanted)
        check(spec)
        if spec.cidr != before.cidr:
            subnets.refuse_overlap(connection, spec, subnet_id)
            _narrow(connection, subnet_id, spec.cidr)
        _refuse_loss(connection, row, before, spec)
        shift = int(before.cidr.first) - int(spec.cidr.first)
        hosts = subnets.addresses_of_hosts(connection, row.network_id)
        if shift:
            _shift(connection, row, shift)
            _shift_free(connection, row, shift)
        old = [(first + shift, last + shift) for first, last in assignable(before, hosts)]
        lost = _set_ranges(ctx, connection, row, old, assignable(spec, hosts))
        connection.execute(
            update(subnets_table)
            .where(subnets_table.c.id == subnet_id)
            .values(settings_revision=subnets_table.c.settings_revision + 1, **subnets.columns_of(spec))
        )
        if "mac_ranges" in wanted:
            subnets.tie_macs(connection, subnet_id, spec.mac_ranges)
        effect = SubnetEffect(**_in_use(connection, subnet_id, spec, _among(lost)))
        subnet = subnets.get_in(connection, subnet_id)
        if shift:
            # Events come in without waiting for the subnet. Whoever has their queue is alone with the leases, and
            # waits for nobody any more.
            queue_up(connection)
            _shift_in(connection, leases, row, shift)
    ctx.bell.ring()
    return subnet, effect


def _narrow(connection: Connection, subnet_id: int, cidr: IPNetwork) -> None:
    """From now on servers may take this CIDR at any time: what is outside, they are not known to serve any more."""
    provided = connection.execute(
        select(server_subnets.c.host_id, server_subnets.c.provided_cidr)
        .where(server_subnets.c.subnet_id == subnet_id, server_subnets.c.provided_cidr.is_not(None))
        .order_by(server_subnets.c.host_id)
        .with_for_update()
    ).all()
    for host_id, text in provided:
        both = common(IPNetwork(text), cidr)
        connection.execute(
            update(server_subnets)
            .where(server_subnets.c.subnet_id == subnet_id, server_subnets.c.host_id == host_id)
            .values(provided_cidr=None if both is None else str(both))
        )


def locked(connection: Connection, subnet_id: int, revision: int | None, *, with_vnics: bool = False) -> AnyRow:
    """The subnet's row, locked after its network. With its vNICs it is locked after those, as by whoever starts one of
    them, and so that none comes to it any more. Raises SubnetNotFound, RevisionMismatch, and DatabaseBusy when a vNIC
    that came meanwhile is being changed."""
    subnets.lock_network(connection, subnets.require(connection, subnet_id).network_id)
    if with_vnics:
        on_it = select(vnics.c.id).where(vnics.c.subnet_id == subnet_id).order_by(vnics.c.id)
        connection.execute(on_it.with_for_update())
        row = subnets.require_alone(connection, subnet_id)
        # Whoever has one that came in between may wait for the subnet: to wait for it now could be to wait in a circle.
        connection.execute(on_it.with_for_update(nowait=True))
    else:
        row = subnets.require(connection, subnet_id, lock=True)
    if revision is not None and revision != row.settings_revision:
        raise RevisionMismatch(
            f"Subnet {subnet_id} is at settings revision {row.settings_revision}, and not at {revision} as you read "
            "it. Read it again, and repeat your change on that.",
            subnet=subnet_id,
            expected=revision,
            revision=row.settings_revision,
        )
    return row


def _refuse_loss(connection: Connection, row: AnyRow, before: SubnetSpec, spec: SubnetSpec) -> None:
    """Raises InUse for addresses in use that nobody on the new subnet could have."""
    first, last = offset_of(before, IPAddress(spec.cidr.first)), offset_of(before, IPAddress(spec.cidr.last))
    outside = or_(
        addresses.c.offset <= first,
        addresses.c.offset >= last,
        false() if spec.gateway is None else addresses.c.offset == offset_of(before, spec.gateway),
    )
    found = _in_use(connection, row.id, before, outside)
    if not found["out_of_range_count"]:
        return
    named: Sequence[AddressInUse] = found["out_of_range"]
    told = ", ".join(
        f"{each.ip} ({each.state} for {f'MAC {each.mac}' if each.vnic is None else f'vNIC {each.vnic}'})"
        for each in named
    )
    raise InUse(
        f"Subnet {row.id} cannot be {spec.cidr} with gateway {spec.gateway}: {found['out_of_range_count']} addresses "
        f"in use would not be left: {told}. Stop these vNICs and wait until the addresses are free, or renumber the "
        f"subnet with POST /v1/subnets/{row.id}/renumber.",
        subnet=row.id,
        vnics=sorted({each.vnic for each in named if each.vnic is not None}),
        addresses=[
            {"ip": str(each.ip), "mac": str(each.mac), "vnic": each.vnic, "state": each.state} for each in named
        ],
        count=found["out_of_range_count"],
    )


def _shift(connection: Connection, row: AnyRow, by: int) -> None:
    """Moves every offset of the subnet, wherever it is kept, but for leases: the addresses stay the same."""
    for table in metadata.tables.values():
        if table is not leases and {"subnet_id", "offset"} <= set(table.columns.keys()):
            _shift_in(connection, table, row, by)


def _shift_in(connection: Connection, table: Table, row: AnyRow, by: int) -> None:
    for step in (by + _ASIDE, -_ASIDE):
        connection.execute(update(table).where(table.c.subnet_id == row.id).values(offset=table.c.offset + step))


def _shift_free(connection: Connection, row: AnyRow, by: int) -> None:
    own_free = free_extents.c.space_id == row.space_id
    for step in (by + _ASIDE, -_ASIDE):
        connection.execute(
            update(free_extents)
            .where(own_free)
            .values(first=free_extents.c.first + step, last=free_extents.c.last + step)
        )
    cursor = spaces.c.cursor + by
    connection.execute(
        update(spaces).where(spaces.c.id == row.space_id).values(cursor=case((cursor > 0, cursor), else_=0))
    )


def _set_ranges(
    ctx: Context, connection: Connection, row: AnyRow, before: Sequence[Extent], after: Sequence[Extent]
) -> list[Extent]:
    """Lets the subnet hand these offsets out instead of those; returns what it does not any more."""
    lost = without(before, after)
    for first, last in lost:
        extents.remove_extent(connection, row.space_id, first, last)
    for first, last in without(after, before):
        known = connection.execute(
            select(addresses.c.offset)
            .where(addresses.c.subnet_id == row.id, addresses.c.offset.between(first, last))
            .order_by(addresses.c.offset)
        ).scalars()
        extents.insert_extents(connection, row.space_id, gaps((first, last), known), size=last - first + 1)
    changed = subnets.require(connection, row.id)
    fewer = row.free - changed.free
    if fewer > 0:
        exhaustion.warn(ctx, connection, row, by=fewer, free=changed.free, size=changed.size)
    return lost


def _among(ranges: Iterable[Extent]) -> Any:
    return or_(false(), *(addresses.c.offset.between(first, last) for first, last in ranges))


def _in_use(connection: Connection, subnet_id: int, spec: SubnetSpec, condition: Any) -> dict[str, Any]:
    """The first of the subnet's addresses in use of which the condition holds, and how many there are."""
    where = (addresses.c.subnet_id == subnet_id) & condition
    count: int = connection.execute(select(func.count()).select_from(addresses).where(where)).scalar_one()
    rows = connection.execute(select(addresses).where(where).order_by(addresses.c.offset).limit(_NAMED))
    found = tuple(
        AddressInUse(ip=address_at(spec, each.offset), mac=Mac(each.mac), vnic=each.vnic_id, state=each.state)
        for each in rows
    )
    return {"out_of_range": found, "out_of_range_count": count}
