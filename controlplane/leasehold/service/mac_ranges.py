"""The ranges of MAC pools: what a change of them brings and takes away, and what they share."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, false, func, insert, or_, select

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.extents import Extent, gaps
from leasehold.domain.mac_pools import difference
from leasehold.domain.values import MacInUse, Overlap
from leasehold.errors import RangesOverlapPools
from leasehold.service import macs as macs_service
from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.tables import mac_pools, mac_ranges, macs, vnics

NAMED = 50
"""How many vNICs an answer names; it counts them all."""


def within(column: Any, ranges: Iterable[MacRange]) -> Any:
    """The condition that a column lies in one of the ranges."""
    return or_(false(), *(column.between(each.first.value, each.last.value) for each in ranges))


def as_range(extent: Extent) -> MacRange:
    """The range of these numbers."""
    return MacRange(Mac(extent[0]), Mac(extent[1]))


def _range_facts(each: MacRange) -> dict[str, str]:
    return {"from": str(each.first), "to": str(each.last)}


def of_pool(connection: Connection, pool_id: str) -> list[MacRange]:
    """The pool's ranges, ascending."""
    return [
        as_range((row.first, row.last))
        for row in connection.execute(
            select(mac_ranges).where(mac_ranges.c.mac_pool_id == pool_id).order_by(mac_ranges.c.first)
        )
    ]


def refuse_overlaps(connection: Connection, pool_id: str, ranges: Iterable[MacRange]) -> None:
    """Raises RangesOverlapPools that names the ranges of other pools which these overlap with."""
    found = [
        (each, row.name, row.mac_pool_id, as_range((row.first, row.last)))
        for each in ranges
        for row in connection.execute(
            select(mac_ranges, mac_pools.c.name)
            .join(mac_pools, mac_pools.c.id == mac_ranges.c.mac_pool_id)
            .where(
                mac_ranges.c.mac_pool_id != pool_id,
                mac_ranges.c.first <= each.last.value,
                mac_ranges.c.last >= each.first.value,
            )
            .order_by(mac_ranges.c.first)
        )
    ]
    if found:
        told = "; ".join(f"{each} with {other} of MAC pool {name}" for each, name, _, other in found)
        raise RangesOverlapPools(
            f"ranges: they overlap with other pools: {told}. Choose ranges that no pool has.",
            overlaps=[
                {"range": _range_facts(each), "mac_pool": other_id, "name": name, "other_range": _range_facts(other)}
                for each, name, other_id, other in found
            ],
        )


def replace(
    ctx: Context, connection: Connection, pool_id: str, before: Iterable[MacRange], after: Iterable[MacRange]
) -> list[Extent]:
    """Replaces the pool's ranges, and its free numbers with them; returns what it lost. Tells when few are left of a
    pool that had enough."""
    before, after = list(before), list(after)
    stock = macs_service.stock(connection, pool_id)
    lost = difference(before, after)
    for first, last in lost:
        extents.remove_extent(connection, stock.space_id, first, last)
    for extent in difference(after, before):
        known = connection.execute(select(macs.c.mac).where(macs.c.mac.between(*extent)).order_by(macs.c.mac)).scalars()
        size = extent[1] - extent[0] + 1
        extents.insert_extents(connection, stock.space_id, gaps(extent, known), size=size)
    connection.execute(delete(mac_ranges).where(mac_ranges.c.mac_pool_id == pool_id))
    connection.execute(
        insert(mac_ranges),
        [{"mac_pool_id": pool_id, "first": each.first.value, "last": each.last.value} for each in after],
    )
    if before:
        left = macs_service.stock(connection, pool_id)
        macs_service.tell_if_low(ctx, connection, stock, free=left.free, size=left.size)
    return lost


def in_use(connection: Connection, pool_id: str, lost: Sequence[Extent]) -> tuple[tuple[MacInUse, ...], int]:
    """The first of the MACs in `lost` that vNICs have under the pool's rules, and how many there are."""
    condition = (vnics.c.mac_pool_id == pool_id) & within(vnics.c.mac, map(as_range, lost))
    count: int = connection.execute(select(func.count()).select_from(vnics).where(condition)).scalar_one()
    rows = connection.execute(
        select(vnics.c.mac, vnics.c.id, vnics.c.vm).where(condition).order_by(vnics.c.mac, vnics.c.id).limit(NAMED)
    )
    return tuple(mac_in_use(row, ()) for row in rows), count


def mac_in_use(row: AnyRow, ranges: Iterable[MacRange]) -> MacInUse:
    """A vNIC's row as the MAC that it has, in or out of these ranges."""
    mac = Mac(row.mac)
    return MacInUse(mac=mac, vnic=row.id, vm=row.vm, in_range=any(mac in each for each in ranges))


def overlaps(ctx: Context) -> list[Overlap]:
    """Ranges of different pools that share MACs: imported ones, to be worked off, each pair once."""
    with ctx.db.read() as connection:
        return overlapping(connection)


def overlapping(connection: Connection) -> list[Overlap]:
    """What `overlaps` answers, as this transaction sees it."""
    one, other = mac_ranges.alias("one"), mac_ranges.alias("other")
    rows = connection.execute(
        select(one.c.mac_pool_id, one.c.first, one.c.last, other.c.mac_pool_id, other.c.first, other.c.last)
        .join(
            other,
            and_(
                one.c.mac_pool_id < other.c.mac_pool_id,
                one.c.first <= other.c.last,
                other.c.first <= one.c.last,
            ),
        )
        .order_by(one.c.first, other.c.first)
    ).all()
    return [
        Overlap(
            mac_pool=pool,
            range=as_range((first, last)),
            other_pool=other_pool,
            other_range=as_range((other_first, other_last)),
        )
        for pool, first, last, other_pool, other_first, other_last in rows
    ]
