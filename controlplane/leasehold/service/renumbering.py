"""Subnets that get another CIDR altogether: a new one takes the old one's place, and the old one drains."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, bindparam, select, update

from leasehold.domain.addresses import AddressRange, Mac
from leasehold.domain.extents import without
from leasehold.domain.replication import toggle
from leasehold.domain.subnets import offset_of, within
from leasehold.domain.values import Renumbered, RenumberedAddress, Subnet, SubnetSpec
from leasehold.service import exhaustion, lineage, reservations, subnet_changes, subnets
from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.bulk import write_rows
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, reservation_log, vnics
from leasehold.store.tables import subnets as subnets_table


def renumber(
    ctx: Context,
    subnet_id: int,
    cidr: IPNetwork,
    wanted: subnet_changes.SubnetChange,
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
        row = subnet_changes.locked(connection, subnet_id, revision, with_vnics=True)
        reservations.refuse_retiring(row)
        lineage.refuse_while_recovering(connection, row)
        present = subnets.get_in(connection, subnet_id)
        spec = replace(_moved(present, cidr), **wanted)
        subnets.tie_macs(connection, subnet_id, ())
        new_id = subnets.create_in(connection, spec)
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
    """Lets every held address of the old subnet go, and promises its holder one of the new subnet. With few statements
    whatever their number: nobody else can change either subnet meanwhile."""
    new = subnets.require(connection, new_id, lock=True)
    held = connection.execute(
        select(addresses)
        .where(addresses.c.subnet_id == old.id, addresses.c.state == "held")
        .order_by(addresses.c.offset)
    ).all()
    places = _take_places(ctx, connection, new, [row.offset for row in held])
    let_go = _log(connection, old, [(Mac(row.mac), row.offset) for row in held], held=False)
    if held:
        connection.execute(
            update(addresses)
            .where(addresses.c.subnet_id == old.id, addresses.c.offset == bindparam("at"))
            .values(state="draining", revision=bindparam("of"), guest_lease_ms=old.lease_time_s * 1000),
            [{"at": row.offset, "of": revision} for row, revision in zip(held, let_go, strict=True)],
        )
    promised = _log(connection, new, [(Mac(row.mac), places[row.offset]) for row in held], held=True)
    write_rows(
        connection,
        addresses,
        [getattr(addresses.c, name) for name in ("subnet_id", "offset", "state", "mac", "vnic_id", "revision")],
        [
            (new_id, places[row.offset], "held", row.mac, row.vnic_id, revision)
            for row, revision in zip(held, promised, strict=True)
        ],
    )
    moved = []
    for row in held:
        mac, place = Mac(row.mac), places[row.offset]
        reservations.tell(ctx, connection, "reservation.removed", old, row.offset, mac, row.vnic_id)
        reservations.tell(ctx, connection, "reservation.added", new, place, mac, row.vnic_id)
        before, after = subnets.address_of(old, row.offset), subnets.address_of(new, place)
        moved.append(RenumberedAddress(vnic=row.vnic_id, mac=mac, before=before, after=after))
    return tuple(moved)


def _take_places(ctx: Context, connection: Connection, new: AnyRow, offsets: Sequence[int]) -> dict[int, int]:
    """Takes an offset of the new subnet for each of these: the same where it is handed out, else one of those that are
    left, the lowest first. Raises SubnetExhausted."""
    ranges = subnets.handed_out(connection, new)
    same = [each for each in offsets if within(ranges, each)]
    for first, last in extents.runs(same):
        extents.take_within(connection, new.space_id, [(first, last)], last - first + 1)
    others = [each for each in offsets if not within(ranges, each)]
    left = extents.take_within(
        connection, new.space_id, without(ranges, extents.runs(same)) if others else [], len(others)
    )
    if len(left) < len(others):
        raise exhaustion.too_small(new, wanted=len(offsets), size=sum(last - first + 1 for first, last in ranges))
    if offsets:
        exhaustion.warn(ctx, connection, new, by=len(offsets), free=new.free - len(offsets), size=new.size)
    return dict(zip(same, same, strict=True)) | dict(zip(others, left, strict=True))


def _log(connection: Connection, subnet: AnyRow, entries: Sequence[tuple[Mac, int]], *, held: bool) -> list[int]:
    """Writes to the subnet's log that these reservations came or went; returns their revisions."""
    digest, rows = subnet.digest, []
    for revision, (mac, offset) in enumerate(entries, start=subnet.revision + 1):
        digest = toggle(digest, mac, subnets.address_of(subnet, offset))
        rows.append((subnet.id, revision, mac.value, offset if held else None, digest))
    columns = [getattr(reservation_log.c, name) for name in ("subnet_id", "revision", "mac", "offset", "digest")]
    write_rows(connection, reservation_log, columns, rows)
    connection.execute(
        update(subnets_table)
        .where(subnets_table.c.id == subnet.id)
        .values(revision=subnet.revision + len(rows), digest=digest)
    )
    return [revision for _, revision, *_ in rows]
