"""MACs: drawn, claimed, let go. What is in use anywhere is in `macs`, and in no free extent of any pool.

Whoever changes MACs shares the rules, and whoever changes the rules has them alone; the order of locks is in
DECISIONS.md.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, delete, or_, select, true, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.extents import Extent
from leasehold.errors import MacPoolExhausted, MacTaken
from leasehold.service import events
from leasehold.service.context import Context
from leasehold.store import database, extents
from leasehold.store.bulk import write_rows
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import mac_pools, mac_ranges, macs, spaces, subnet_mac_ranges, twins, vnics

_SWEEP_BATCH = 1000
_RULES = 0x6D616373


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A vNIC that has a MAC, and the pool whose rules that is under."""

    vnic: str
    vm: str
    mac_pool: str
    allows_duplicates: bool

    def facts(self) -> dict[str, str]:
        """For an error's facts."""
        return {"vnic": self.vnic, "vm": self.vm, "mac_pool": self.mac_pool}


def share_rules(connection: Connection) -> None:
    """Keeps pools, their ranges, scopes, and what MACs are tied to subnets as they are until the transaction ends."""
    database.lock(connection, _RULES, shared=True)


def change_rules(connection: Connection) -> None:
    """Waits until no transaction is under way that counts on the rules, and has others wait."""
    database.lock(connection, _RULES, shared=False)


def lock(connection: Connection, wanted: Iterable[Mac], own: Iterable[Mac], pool_ids: Iterable[str]) -> None:
    """Locks the MACs that are wanted, those that vNICs have of their own or may have back, and then the spaces of the
    pools and of all that hold one of the wanted or overlap."""
    numbers = sorted({mac.value for mac in wanted})
    if known := {*numbers, *(mac.value for mac in own)}:
        connection.execute(
            select(macs.c.mac).where(among(connection, macs.c.mac, known)).order_by(macs.c.mac).with_for_update()
        )
    pools = sorted(pool_ids)
    if not numbers and len(pools) <= 1:
        # Whoever draws from one pool locks its spaces then, and no others.
        return
    mine, theirs = mac_ranges.alias("mine"), mac_ranges.alias("theirs")
    overlapping = (
        select(theirs.c.mac_pool_id)
        .join(mine, and_(mine.c.first <= theirs.c.last, theirs.c.first <= mine.c.last))
        .where(mine.c.mac_pool_id.in_(pools))
    )
    holding = {row.mac_pool_id for row in connection.execute(select(mac_ranges)) if _between(numbers, row)}
    connection.execute(
        select(spaces.c.id)
        .where(
            spaces.c.id.in_(
                select(mac_pools.c.space_id).where(
                    or_(mac_pools.c.id.in_([*pools, *holding]), mac_pools.c.id.in_(overlapping))
                )
            )
        )
        .order_by(spaces.c.id)
        .with_for_update()
    )


def draw(
    ctx: Context,
    connection: Connection,
    pool_id: str,
    vnic_ids: Sequence[str],
    within: Sequence[Extent] | None = None,
) -> list[Mac]:
    """Takes a free MAC of the pool for each vNIC, ascending; with `within` out of these parts of its ranges only.

    Raises MacPoolExhausted, and takes none, when there are fewer.
    """
    around = _pools_around(connection, pool_id=pool_id)
    (pool,) = (row for row in around if row.id == pool_id)
    wanted = len(vnic_ids)
    if within is None:
        taken = extents.take_any(connection, pool.space_id, wanted, locked=pool)
    else:
        taken = extents.take_within(connection, pool.space_id, within, wanted)
    if len(taken) < wanted:
        free = pool.free if within is None else len(taken)
        raise MacPoolExhausted(
            f"MAC pool {pool.name} has {free} free MACs{'' if within is None else ' for this subnet'}, and {wanted} "
            "are wanted. Add a range to it, or delete vNICs that are not needed. Nothing was taken.",
            mac_pool=pool.id,
            wanted=wanted,
            free=free,
        )
    if len(around) > 1:
        _take_from_others(connection, pool.id, taken)
    taken.sort()
    _hold(connection, zip(taken, vnic_ids, strict=True))
    tell_if_low(ctx, connection, pool, free=pool.free - wanted, size=pool.size)
    return [Mac(mac) for mac in taken]


def claim_unused(ctx: Context, connection: Connection, wanted: Mapping[Mac, str]) -> set[Mac]:
    """Takes those of the MACs that nobody has and that do not cool, each for its vNIC, in or out of any pool's ranges;
    returns them. The cost grows with their number, and not faster. Raises MacNotUnicast, and takes none then."""
    if not wanted:
        return set()
    for mac in wanted:
        mac.require_unicast()
    known = among(connection, macs.c.mac, [mac.value for mac in wanted])
    present = set(connection.execute(select(macs.c.mac).where(known)).scalars())
    unused = sorted(mac.value for mac in wanted if mac.value not in present)
    if not unused:
        return set()
    of_pool: dict[int, tuple[AnyRow, list[int]]] = {}
    for row in connection.execute(
        select(mac_pools.c.id, mac_pools.c.name, mac_pools.c.space_id, spaces.c.size, spaces.c.free)
        .add_columns(mac_ranges.c.first, mac_ranges.c.last)
        .join(mac_ranges, mac_ranges.c.mac_pool_id == mac_pools.c.id)
        .join(spaces, spaces.c.id == mac_pools.c.space_id)
        .order_by(mac_pools.c.space_id, mac_ranges.c.first)
    ):
        if inside := _between(unused, row):
            of_pool.setdefault(row.space_id, (row, []))[1].extend(inside)
    for space_id, (pool, numbers) in of_pool.items():
        if taken := extents.take_all(connection, space_id, numbers):
            tell_if_low(ctx, connection, pool, free=pool.free - taken, size=pool.size)
    _hold(connection, ((mac, wanted[Mac(mac)]) for mac in unused))
    return {Mac(mac) for mac in unused}


def claim(
    ctx: Context,
    connection: Connection,
    mac: Mac,
    vnic_id: str,
    pool_id: str,
    *,
    twin: str | None = None,
    beside: Iterable[Holder] = (),
) -> None:
    """Takes this very MAC for the vNIC, under the rules of the pool, in or out of its ranges. `twin` is the vNIC that
    it is shared with on purpose; `beside` are those that took it in this transaction, and are not written yet.

    Raises MacNotUnicast, and MacTaken unless it is nobody's or all who have it and this one allow duplicates.
    """
    mac.require_unicast()
    # It was locked with the others, unless it came in between: to wait for it now could be to wait in a circle.
    row = connection.execute(select(macs).where(macs.c.mac == mac.value).with_for_update(nowait=True)).one_or_none()
    if row is None:
        for pool in _pools_with(connection, mac):
            if extents.take(connection, pool.space_id, mac.value):
                tell_if_low(ctx, connection, pool, free=pool.free - 1, size=pool.size)
        _hold(connection, [(mac.value, vnic_id)])
        return
    if row.holders:
        others = [*holders(connection, [mac]).get(mac, []), *beside]
        allowed: bool = connection.execute(
            select(mac_pools.c.allow_duplicates).where(mac_pools.c.id == pool_id)
        ).scalar_one()
        if not all(each.vnic == twin or (allowed and each.allows_duplicates) for each in others):
            raise taken(mac, others)
    connection.execute(
        update(macs)
        .where(macs.c.mac == mac.value)
        .values(holders=row.holders + 1, shared=row.holders > 0, vnic_id=vnic_id, free_at_ms=None)
    )


def may_regain(connection: Connection, vnic_ids: Sequence[str]) -> list[tuple[str, Mac]]:
    """Those of the vNICs that let a MAC go which cools, with that MAC."""
    found: Iterable[AnyRow]
    if len(vnic_ids) == 1:
        found = _cooling(connection, vnic_id=vnic_ids[0])
    else:
        found = connection.execute(_cooling_where(among(connection, macs.c.vnic_id, vnic_ids)))
    return [(row.vnic_id, Mac(row.mac)) for row in found]


def regain(connection: Connection, vnic_id: str, within: Sequence[Extent] | None = None) -> Mac | None:
    """Takes the MAC that the vNIC let go, while it cools, with `within` out of these only; None if there is none."""
    fitting = true() if within is None else or_(*(macs.c.mac.between(first, last) for first, last in within))
    mac: int | None = connection.execute(
        select(macs.c.mac)
        .where(macs.c.vnic_id == vnic_id, macs.c.holders == 0, fitting)
        .order_by(macs.c.free_at_ms.desc())
        .limit(1)
        .with_for_update(nowait=True)
    ).scalar_one_or_none()
    if mac is None:
        return None
    connection.execute(update(macs).where(macs.c.mac == mac).values(holders=1, free_at_ms=None))
    return Mac(mac)


def release(ctx: Context, connection: Connection, mac: Mac, vnic_id: str) -> None:
    """The vNIC lets the MAC go, and is no twin any more of those that keep it; when it was the last, the MAC cools."""
    _part_from_twins(connection, vnic_id=vnic_id, mac=mac.value)
    free_at_ms = ctx.now_ms() + round(ctx.settings.cool_down_s * 1000)
    _let_go(connection, mac=mac.value, vnic_id=vnic_id, free_at_ms=free_at_ms)


def sweep(ctx: Context) -> int:
    """Makes MACs free whose time to cool is over; returns how many."""
    with ctx.db.write() as connection:
        share_rules(connection)
        due = [
            Mac(value)
            for value in connection.execute(
                select(macs.c.mac)
                .where(macs.c.free_at_ms <= ctx.now_ms())
                .order_by(macs.c.mac)
                .limit(_SWEEP_BATCH)
                .with_for_update(skip_locked=True)
            ).scalars()
        ]
        connection.execute(delete(macs).where(macs.c.mac.in_([mac.value for mac in due])))
        by_space: dict[int, list[int]] = {}
        for mac in due:
            for pool in _pools_with(connection, mac):
                by_space.setdefault(pool.space_id, []).append(mac.value)
        for space_id, numbers in sorted(by_space.items()):
            extents.give_back(connection, space_id, numbers)
    return len(due)


def stock(connection: Connection, pool_id: str) -> AnyRow:
    """The pool's `id`, `name`, `space_id`, and of its MACs the `size` and how many are `free`."""
    return connection.execute(
        select(mac_pools.c.id, mac_pools.c.name, mac_pools.c.space_id, spaces.c.size, spaces.c.free)
        .join(spaces, spaces.c.id == mac_pools.c.space_id)
        .where(mac_pools.c.id == pool_id)
    ).one()


def tell_if_low(ctx: Context, connection: Connection, before: AnyRow, *, free: int, size: int) -> None:
    """Tells once when a pool, whose stock was `before`, comes down to the mark, and when nothing is left."""
    data = {"mac_pool": before.id, "name": before.name, "free": free, "size": size}
    if free <= _mark(ctx, size) and before.free > _mark(ctx, before.size):
        events.emit(connection, ctx.now_ms(), "mac_pool.low", f"mac-pools/{before.id}", data)
    if free == 0 < before.free:
        events.emit(connection, ctx.now_ms(), "mac_pool.exhausted", f"mac-pools/{before.id}", data)


def _mark(ctx: Context, size: int) -> int:
    """At so many free MACs a pool of this size is low."""
    return max(size * ctx.settings.mac_pool_low_percent // 100, ctx.settings.mac_pool_low_count)


def holders(connection: Connection, wanted: Iterable[Mac]) -> dict[Mac, list[Holder]]:
    """Who has each of the MACs, by vNIC; MACs that nobody has are left out."""
    found: dict[Mac, list[Holder]] = {}
    for row in connection.execute(
        select(vnics.c.mac, vnics.c.id, vnics.c.vm, vnics.c.mac_pool_id, mac_pools.c.allow_duplicates)
        .join(mac_pools, mac_pools.c.id == vnics.c.mac_pool_id)
        .where(among(connection, vnics.c.mac, [mac.value for mac in wanted]))
        .order_by(vnics.c.mac, vnics.c.id)
    ):
        holder = Holder(vnic=row.id, vm=row.vm, mac_pool=row.mac_pool_id, allows_duplicates=row.allow_duplicates)
        found.setdefault(Mac(row.mac), []).append(holder)
    return found


def tied_to(connection: Connection, subnet_id: int | None) -> list[tuple[int, int]] | None:
    """The MACs that are tied to the subnet; None where none are."""
    if subnet_id is None:
        return None
    return [(row.first, row.last) for row in _ties(connection, subnet_id=subnet_id)] or None


def within_ranges(connection: Connection, wanted: Iterable[Mac]) -> set[Mac]:
    """Those of the MACs that lie within some pool's ranges."""
    numbers = sorted(mac.value for mac in wanted)
    return {Mac(number) for row in connection.execute(select(mac_ranges)) for number in _between(numbers, row)}


def duplicates_under(connection: Connection, pool_id: str, of: Iterable[str] | None = None) -> dict[Mac, list[Holder]]:
    """MACs that vNICs under the pool (or these vNICs, if they were under it) share with others that are not their
    twins, with all holders."""
    here = vnics.c.mac_pool_id == pool_id if of is None else among(connection, vnics.c.id, of)
    mine = select(vnics.c.mac).where(here)
    shared = [
        Mac(value)
        for value in connection.execute(
            select(macs.c.mac).where(macs.c.holders > 1, macs.c.mac.in_(mine)).order_by(macs.c.mac)
        ).scalars()
    ]
    paired = set(connection.execute(select(twins.c.vnic_id, twins.c.twin_id)).all()) if shared else set()
    return {
        mac: own
        for mac, own in holders(connection, shared).items()
        if not all((a.vnic, b.vnic) in paired for a in own for b in own if a.vnic < b.vnic)
    }


def taken(mac: Mac, own: Sequence[Holder]) -> MacTaken:
    """The error for a MAC that others have."""
    named = ", ".join(f"vNIC {each.vnic} of VM {each.vm} (MAC pool {each.mac_pool})" for each in own)
    return MacTaken(
        f"MAC {mac} is in use by {named}. Name another, or none to get a free one; to share it, all of its MAC pools "
        "must allow duplicates, or the vNICs be made twins.",
        mac=str(mac),
        holders=[each.facts() for each in own],
    )


def _between(ascending: Sequence[int], row: AnyRow) -> Sequence[int]:
    """Those of the numbers that are within the row's range."""
    return ascending[bisect_left(ascending, row.first) : bisect_right(ascending, row.last)]


def _pools_with(connection: Connection, mac: Mac) -> list[AnyRow]:
    """The pools in whose ranges the MAC lies, with their spaces: one, but for overlaps that were imported."""
    return list(
        connection.execute(
            select(mac_pools.c.id, mac_pools.c.name, mac_pools.c.space_id, spaces.c.size, spaces.c.free)
            .join(mac_ranges, mac_ranges.c.mac_pool_id == mac_pools.c.id)
            .join(spaces, spaces.c.id == mac_pools.c.space_id)
            .where(mac_ranges.c.first <= mac.value, mac_ranges.c.last >= mac.value)
            .distinct()
            .order_by(mac_pools.c.space_id)
        )
    )


def _take_from_others(connection: Connection, pool_id: str, numbers: Sequence[int]) -> None:
    """Takes the numbers out of pools that overlap with this one, as far as they are theirs."""
    others = connection.execute(
        select(mac_pools.c.space_id, mac_ranges.c.first, mac_ranges.c.last)
        .join(mac_ranges, mac_ranges.c.mac_pool_id == mac_pools.c.id)
        .where(mac_pools.c.id != pool_id, mac_ranges.c.first <= max(numbers), mac_ranges.c.last >= min(numbers))
        .order_by(mac_pools.c.space_id)
    ).all()
    for other in others:
        for number in numbers:
            if other.first <= number <= other.last:
                extents.take(connection, other.space_id, number)


def _hold(connection: Connection, taken: Iterable[tuple[int, str]]) -> None:
    """Writes that these MACs, of which there is no row yet, have these vNICs as their only holders."""
    columns = [macs.c.mac, macs.c.vnic_id, macs.c.holders, macs.c.shared]
    write_rows(connection, macs, columns, [(mac, vnic_id, 1, False) for mac, vnic_id in taken])


@prepared
def _pools_around(pool_id: Any) -> Executable:
    """The pool and those whose ranges overlap with its own, with their spaces, which are locked."""
    mine, theirs = mac_ranges.alias("mine"), mac_ranges.alias("theirs")
    overlapping = (
        select(theirs.c.mac_pool_id)
        .join(mine, and_(mine.c.first <= theirs.c.last, theirs.c.first <= mine.c.last))
        .where(mine.c.mac_pool_id == pool_id)
    )
    return (
        select(mac_pools.c.id, mac_pools.c.name, mac_pools.c.space_id, spaces.c.size, spaces.c.free, spaces.c.cursor)
        .join(spaces, spaces.c.id == mac_pools.c.space_id)
        .where(or_(mac_pools.c.id == pool_id, mac_pools.c.id.in_(overlapping)))
        .order_by(spaces.c.id)
        .with_for_update(of=spaces)
    )


@prepared
def _cooling(vnic_id: Any) -> Executable:
    return _cooling_where(macs.c.vnic_id == vnic_id)


def _cooling_where(whose: ColumnElement[bool]) -> Executable:
    return select(macs.c.vnic_id, macs.c.mac).where(whose, macs.c.holders == 0)


@prepared
def _ties(subnet_id: Any) -> Executable:
    return (
        select(subnet_mac_ranges.c.first, subnet_mac_ranges.c.last)
        .where(subnet_mac_ranges.c.subnet_id == subnet_id)
        .order_by(subnet_mac_ranges.c.first)
    )


@prepared
def _part_from_twins(vnic_id: Any, mac: Any) -> Executable:
    keeping = select(vnics.c.id).where(vnics.c.mac == mac, vnics.c.id != vnic_id)
    return delete(twins).where(
        or_(
            and_(twins.c.vnic_id == vnic_id, twins.c.twin_id.in_(keeping)),
            and_(twins.c.twin_id == vnic_id, twins.c.vnic_id.in_(keeping)),
        )
    )


@prepared
def _let_go(mac: Any, vnic_id: Any, free_at_ms: Any) -> Executable:
    is_last = macs.c.holders == 1
    return (
        update(macs)
        .where(macs.c.mac == mac)
        .values(
            holders=macs.c.holders - 1,
            shared=macs.c.holders > 2,
            vnic_id=case((is_last, vnic_id), else_=macs.c.vnic_id),
            free_at_ms=case((is_last, free_at_ms), else_=None),
        )
    )
