"""MAC pools: where vNICs get their MACs, and who has them."""

from typing import Any

from sqlalchemy import Connection, false, func, or_, select

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import MacPool, PoolUsage
from leasehold.errors import MacPoolExhausted, MacPoolNotFound, MacTaken
from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.tables import mac_pools, mac_ranges, spaces, vnics


def list_pools(ctx: Context) -> list[MacPool]:
    """All, by name."""
    with ctx.db.read() as connection:
        return _pools(connection, True)


def get(ctx: Context, pool_id: str) -> MacPool:
    """Raises MacPoolNotFound."""
    with ctx.db.read() as connection:
        found = _pools(connection, mac_pools.c.id == pool_id)
    if not found:
        raise MacPoolNotFound(
            f"There is no MAC pool {pool_id!r}. GET /v1/mac-pools lists those that are.", mac_pool=pool_id
        )
    return found[0]


def draw(connection: Connection) -> tuple[Mac, str]:
    """Takes the MAC of the default pool that has been free longest; returns it with the pool's id. Raises
    MacPoolExhausted."""
    pool = connection.execute(
        select(mac_pools.c.id, mac_pools.c.name, mac_pools.c.space_id).where(mac_pools.c.default_pool.is_(True))
    ).one()
    taken = extents.take_any(connection, pool.space_id)
    if not taken:
        raise MacPoolExhausted(
            f"MAC pool {pool.name} has no free MAC. Add a range to it, or delete vNICs that are not needed.",
            mac_pool=pool.id,
            wanted=1,
            free=0,
        )
    return Mac(taken[0]), pool.id


def claim(connection: Connection, mac: Mac) -> str | None:
    """Takes this very MAC, out of the pool in whose ranges it lies, if any; returns that pool's id.

    Raises MacNotUnicast, MacTaken.
    """
    mac.require_unicast()
    pool = connection.execute(
        select(mac_pools.c.id, mac_pools.c.space_id)
        .join(mac_ranges, mac_ranges.c.mac_pool_id == mac_pools.c.id)
        .where(mac_ranges.c.first <= mac.value, mac_ranges.c.last >= mac.value)
    ).one_or_none()
    is_free = pool is None or extents.take(connection, pool.space_id, mac.value)
    holder = connection.execute(select(vnics.c.id, vnics.c.vm).where(vnics.c.mac == mac.value)).one_or_none()
    if holder is not None:
        raise taken(mac, holder)
    if not is_free:
        raise RuntimeError(f"{mac} is in use by no vNIC, and yet is not free in its MAC pool")
    return None if pool is None else str(pool.id)


def give_back(connection: Connection, mac: Mac, pool_id: str | None) -> None:
    """Lets a MAC go that `draw` or `claim` took."""
    if pool_id is not None:
        space_id = connection.execute(select(mac_pools.c.space_id).where(mac_pools.c.id == pool_id)).scalar_one()
        extents.give_back(connection, space_id, [mac.value])


def taken(mac: Mac, holder: AnyRow) -> MacTaken:
    """The error for a MAC that a vNIC (id, vm) has."""
    return MacTaken(
        f"MAC {mac} is in use by vNIC {holder.id} of VM {holder.vm}. Name another, or none to get a free one.",
        mac=str(mac),
        holder=holder.id,
        vm=holder.vm,
    )


def _pools(connection: Connection, condition: Any) -> list[MacPool]:
    ranges: dict[str, list[MacRange]] = {}
    for row in connection.execute(select(mac_ranges).join(mac_pools).where(condition).order_by(mac_ranges.c.first)):
        ranges.setdefault(row.mac_pool_id, []).append(MacRange(Mac(row.first), Mac(row.last)))
    within = or_(
        *(
            vnics.c.mac.between(each.first.value, each.last.value) & (vnics.c.mac_pool_id == pool_id)
            for pool_id, of_pool in ranges.items()
            for each in of_pool
        ),
        false(),
    )
    outside: dict[str, int] = dict(
        connection.execute(
            select(vnics.c.mac_pool_id, func.count())
            .where(vnics.c.mac_pool_id.is_not(None), ~within)
            .group_by(vnics.c.mac_pool_id)
        ).all()
    )
    rows = connection.execute(
        select(mac_pools, spaces.c.free, spaces.c.size)
        .join(spaces, spaces.c.id == mac_pools.c.space_id)
        .where(condition)
        .order_by(mac_pools.c.name)
    )
    return [
        MacPool(
            id=row.id,
            name=row.name,
            description=row.description,
            allow_duplicates=row.allow_duplicates,
            default_pool=row.default_pool,
            ranges=tuple(ranges.get(row.id, ())),
            usage=PoolUsage(
                size=row.size, free=row.free, used=row.size - row.free, out_of_range=outside.get(row.id, 0)
            ),
        )
        for row in rows
    ]
