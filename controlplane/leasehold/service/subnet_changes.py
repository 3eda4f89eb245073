"""Changes of a subnet while it is in use: its settings, its size, and its renumbering.

What is in use keeps its address through all of them. Offsets count from the network address, so that a CIDR that begins
elsewhere moves every offset, and no address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, Table, case, false, func, or_, select, update

from leasehold.domain.addresses import AddressRange, Mac
from leasehold.domain.mac_pools import gaps
from leasehold.domain.subnets import Extent, address_at, assignable, check, offset_of, within, without
from leasehold.domain.values import AddressInUse, Renumbered, RenumberedAddress, Subnet, SubnetEffect, SubnetSpec
from leasehold.errors import InUse, RevisionMismatch
from leasehold.service import exhaustion, lineage, reservations, subnets
from leasehold.service.context import Context
from leasehold.service.events import queue_up
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, free_extents, leases, metadata, spaces, vnics
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
    SubnetOverlap, and InUse for a CIDR or gateway that would take an address away that is in use.
    """
    with ctx.db.write(dry_run=dry_run) as connection:
        row = _locked(connection, subnet_id, revision)
        before = subnets.spec_of(row)
        spec = replace(before, **wanted)
        check(spec)
        if spec.cidr != before.cidr:
            subnets.refuse_overlap(connection, spec, subnet_id)
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


def renumber(
    ctx: Context,
    subnet_id: int,
    cidr: IPNetwork,
    wanted: SubnetChange,
    *,
    revision: int | None = None,
    dry_run: bool = False,
) -> Renumbered:
    """Moves a subnet's vNICs and devices to a new subnet with this CIDR and the same settings, where each has the
    address at the same place if it is handed out there. What is `wanted` is said of the new one; gateway, ranges,
    exclusions and gateways of routes that are not are at the same places as in the old one.

    The old subnet hands nothing out any more; `remove_retired` removes it when its last address is free. Raises
    SubnetNotFound, RevisionMismatch, SubnetRetiring, SubnetInvalid, SubnetOverlap, SubnetExhausted, SubnetRecovering.
    """
    with ctx.db.write(dry_run=dry_run) as connection:
        row = _locked(connection, subnet_id, revision, with_vnics=True)
        reservations.refuse_retiring(row)
        lineage.refuse_while_recovering(connection, row)
        present = subnets.get_in(connection, subnet_id)
        spec = replace(_moved(present, cidr), **wanted)
        new_id = subnets.create_in(connection, spec)
        subnets.tie_macs(connection, subnet_id, ())
        connection.execute(
            update(subnets_table)
            .where(subnets_table.c.id == subnet_id)
            .values(settings_revision=subnets_table.c.settings_revision + 1, successor_id=new_id)
        )
        connection.execute(
            update(vnics).where(vnics.c.subnet_id == subnet_id).values(subnet_id=new_id, revision=vnics.c.revision + 1)
        )
        moved = _move_held(ctx, connection, row, new_id)
        renumbered = Renumbered(subnet=subnets.get_in(connection, new_id), moved=moved)
    ctx.bell.ring()
    return renumbered


def remove_retired(ctx: Context) -> int:
    """Removes renumbered subnets that neither vNICs nor addresses are left of; returns how many."""
    left = select(addresses.c.offset).where(addresses.c.subnet_id == subnets_table.c.id).exists()
    on_it = select(vnics.c.id).where(vnics.c.subnet_id == subnets_table.c.id).exists()
    is_done = subnets_table.c.successor_id.is_not(None) & ~left & ~on_it
    with ctx.db.read() as connection:
        done = (
            connection.execute(select(subnets_table.c.id).where(is_done).order_by(subnets_table.c.id)).scalars().all()
        )
    removed = 0
    for subnet_id in done:
        with ctx.db.write() as connection:
            own = subnets_table.c.id == subnet_id
            connection.execute(select(subnets_table.c.id).where(own).with_for_update())
            # Again, now that nobody can put a vNIC on it.
            row = connection.execute(select(subnets_table).where(own, is_done)).one_or_none()
            if row is not None:
                subnets.delete_in(connection, row)
                removed += 1
    if removed:
        ctx.bell.ring()
    return removed


def _locked(connection: Connection, subnet_id: int, revision: int | None, *, with_vnics: bool = False) -> AnyRow:
    """The subnet's row, locked after its network, and after its vNICs as by whoever starts one of them; raises
    SubnetNotFound, RevisionMismatch."""
    subnets.lock_network(connection, subnets.require(connection, subnet_id).network_id)
    if with_vnics:
        connection.execute(
            select(vnics.c.id).where(vnics.c.subnet_id == subnet_id).order_by(vnics.c.id).with_for_update()
        )
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
    free = select(spaces.c.free).where(spaces.c.id == row.space_id)
    free_before: int = connection.execute(free).scalar_one()
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
    fewer = free_before - connection.execute(free).scalar_one()
    if fewer > 0:
        exhaustion.warn(ctx, connection, row, by=fewer)
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


def _moved(subnet: Subnet, cidr: IPNetwork) -> SubnetSpec:
    """The subnet's settings with this CIDR, and what has a place in the old one at the same place in the new one."""

    def there(address: IPAddress) -> IPAddress:
        if address not in subnet.cidr:
            return address
        return IPAddress(int(cidr.first) + offset_of(subnet, address), cidr.version)

    def ranges(every: Iterable[AddressRange]) -> tuple[AddressRange, ...]:
        return tuple(AddressRange(there(each.first), there(each.last)) for each in every)

    return SubnetSpec(
        network=subnet.network,
        cidr=cidr,
        gateway=None if subnet.gateway is None else there(subnet.gateway),
        dns=subnet.dns,
        ntp=subnet.ntp,
        domain=subnet.domain,
        mtu=subnet.mtu,
        routes=tuple(replace(each, gateway=there(each.gateway)) for each in subnet.routes),
        options=subnet.options,
        lease_time_s=subnet.lease_time_s,
        ranges=ranges(subnet.ranges),
        exclusions=ranges(subnet.exclusions),
        mac_ranges=subnet.mac_ranges,
    )


def _move_held(ctx: Context, connection: Connection, old: AnyRow, new_id: int) -> tuple[RenumberedAddress, ...]:
    """Lets every held address of the old subnet go, and promises its holder one of the new subnet."""
    new = subnets.require(connection, new_id, lock=True)
    spec = subnets.spec_of(new)
    ranges = subnets.handed_out(connection, new)
    held = connection.execute(
        select(addresses)
        .where(addresses.c.subnet_id == old.id, addresses.c.state == "held")
        .order_by(addresses.c.offset)
    ).all()
    moved = []
    # Those that have no such place there take what the others leave.
    for row in sorted(held, key=lambda each: not within(ranges, each.offset)):
        wanted = address_at(spec, row.offset) if within(ranges, row.offset) else None
        reservations.let_go(ctx, connection, subnets.require(connection, old.id), row)
        reservations.promise(ctx, connection, new_id, row.vnic_id, Mac(row.mac), wanted)
        after: int = connection.execute(
            select(addresses.c.offset).where(
                addresses.c.subnet_id == new_id, addresses.c.mac == row.mac, addresses.c.state == "held"
            )
        ).scalar_one()
        moved.append(
            RenumberedAddress(
                vnic=row.vnic_id,
                mac=Mac(row.mac),
                before=subnets.address_of(old, row.offset),
                after=address_at(spec, after),
            )
        )
    return tuple(sorted(moved, key=lambda each: each.before))
