"""MAC pools: created, changed while allocations run, split, merged, deleted."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, false, func, insert, select, tuple_, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.mac_pools import check_ranges, difference
from leasehold.domain.values import Effect, MacInUse, MacPool, PoolUsage
from leasehold.errors import (
    DefaultPoolKept,
    DuplicatesInUse,
    MacPoolInUse,
    MacPoolInvalid,
    MacPoolNotFound,
    NameTaken,
    RangeInvalid,
    RevisionMismatch,
    WouldDuplicate,
)
from leasehold.service import mac_ranges
from leasehold.service import macs as macs_service
from leasehold.service.context import Context
from leasehold.service.macs import Holder
from leasehold.store import extents
from leasehold.store.database import AnyRow, Violation
from leasehold.store.prepared import prepared
from leasehold.store.tables import mac_pools, macs, scopes, spaces, vnics


@dataclass(frozen=True, kw_only=True)
class PoolChange:
    """What a caller changes; None leaves a field as it is. `ranges` replaces the whole list."""

    name: str | None = None
    description: str | None = None
    allow_duplicates: bool | None = None
    ranges: tuple[MacRange, ...] | None = None


def list_pools(ctx: Context) -> list[MacPool]:
    """All, by name."""
    with ctx.db.read() as connection:
        return _pools(connection, None)


def get(ctx: Context, pool_id: str) -> MacPool:
    """Raises MacPoolNotFound."""
    with ctx.db.read() as connection:
        return get_in(connection, pool_id)


def get_in(connection: Connection, pool_id: str) -> MacPool:
    """What `get` answers, as this transaction sees it."""
    require(connection, pool_id)
    return _pools(connection, pool_id)[0]


def create(
    ctx: Context,
    *,
    name: str,
    description: str = "",
    allow_duplicates: bool = False,
    ranges: Sequence[MacRange],
    dry_run: bool = False,
) -> MacPool:
    """A new pool, never the default. Raises MacPoolInvalid, RangeInvalid, RangeNotUnicast, RangesOverlap, NameTaken,
    RangesOverlapPools."""
    _check_name(name)
    check_ranges(ranges)
    pool_id = str(uuid.uuid4())
    with naming(name), ctx.db.write(dry_run=dry_run) as connection:
        _lock_ranges(connection)
        mac_ranges.refuse_overlaps(connection, pool_id, ranges)
        _insert(connection, pool_id, name, description, allow_duplicates)
        mac_ranges.replace(ctx, connection, pool_id, (), ranges)
        return _pools(connection, pool_id)[0]


def change(
    ctx: Context, pool_id: str, wanted: PoolChange, *, revision: int | None = None, dry_run: bool = False
) -> tuple[MacPool, Effect]:
    """Changes a pool while allocations run; returns it, and the MACs that are out of its ranges by this change: they
    stay with their vNICs.

    `revision` is the one that the caller read. Raises MacPoolNotFound, RevisionMismatch, MacPoolInvalid, RangeInvalid,
    RangeNotUnicast, RangesOverlap, RangesOverlapPools, NameTaken, DuplicatesInUse.
    """
    if wanted.name is not None:
        _check_name(wanted.name)
    if wanted.ranges is not None:
        check_ranges(wanted.ranges)
    with naming(wanted.name or ""), ctx.db.write(dry_run=dry_run) as connection:
        _lock_ranges(connection)
        pool = require(connection, pool_id, lock=True)
        if revision is not None and revision != pool.revision:
            raise RevisionMismatch(
                f"MAC pool {pool.name} is at revision {pool.revision}, and not at {revision} as you read it. Read it "
                "again, and repeat your change on that.",
                mac_pool=pool_id,
                expected=revision,
                revision=pool.revision,
            )
        if wanted.allow_duplicates is False:
            _refuse_duplicates_in_use(connection, pool)
        strays: tuple[MacInUse, ...] = ()
        count = 0
        if wanted.ranges is not None:
            before = mac_ranges.of_pool(connection, pool_id)
            mac_ranges.refuse_overlaps(connection, pool_id, [each for each in wanted.ranges if each not in before])
            lost = mac_ranges.replace(ctx, connection, pool_id, before, wanted.ranges)
            strays, count = mac_ranges.in_use(connection, pool_id, lost)
        values = {
            field: value
            for field, value in (
                ("name", wanted.name),
                ("description", wanted.description),
                ("allow_duplicates", wanted.allow_duplicates),
            )
            if value is not None
        }
        connection.execute(
            update(mac_pools).where(mac_pools.c.id == pool_id).values(revision=mac_pools.c.revision + 1, **values)
        )
        return _pools(connection, pool_id)[0], Effect(out_of_range=strays, out_of_range_count=count)


def make_default(ctx: Context, pool_id: str, *, dry_run: bool = False) -> MacPool:
    """Makes the pool the one for whatever has no scope with a pool of its own. Raises MacPoolNotFound."""
    with ctx.db.write(dry_run=dry_run) as connection:
        _lock_ranges(connection)
        pool = require(connection, pool_id, lock=True)
        if not pool.default_pool:
            connection.execute(
                update(mac_pools)
                .where(mac_pools.c.default_pool.is_(True))
                .values(default_pool=False, revision=mac_pools.c.revision + 1)
            )
            connection.execute(
                update(mac_pools)
                .where(mac_pools.c.id == pool_id)
                .values(default_pool=True, revision=mac_pools.c.revision + 1)
            )
        return _pools(connection, pool_id)[0]


def split(
    ctx: Context, pool_id: str, *, name: str, description: str = "", ranges: Sequence[MacRange], dry_run: bool = False
) -> MacPool:
    """Makes a new pool of a part of this one's ranges, with the MACs in use there, under the same rule for duplicates.

    Raises MacPoolNotFound, MacPoolInvalid, RangeInvalid for a part that is not this pool's, or all of it,
    RangesOverlap, NameTaken.
    """
    _check_name(name)
    check_ranges(ranges)
    new_id = str(uuid.uuid4())
    with naming(name), ctx.db.write(dry_run=dry_run) as connection:
        _lock_ranges(connection)
        pool = require(connection, pool_id, lock=True)
        before = mac_ranges.of_pool(connection, pool_id)
        foreign = difference(ranges, before)
        left = difference(before, ranges)
        if foreign or not left:
            named = ", ".join(map(str, map(mac_ranges.as_range, foreign))) or "all of it"
            raise RangeInvalid(
                f"ranges: MAC pool {pool.name} cannot give {named} away. Name a part of its ranges: "
                f"{', '.join(map(str, before))}.",
                field="ranges",
                mac_pool=pool_id,
            )
        _insert(connection, new_id, name, description, pool.allow_duplicates)
        mac_ranges.replace(ctx, connection, pool_id, before, [mac_ranges.as_range(each) for each in left])
        mac_ranges.replace(ctx, connection, new_id, (), ranges)
        _put_under(connection, new_id, (vnics.c.mac_pool_id == pool_id) & mac_ranges.within(vnics.c.mac, ranges))
        _touch(connection, pool_id)
        return _pools(connection, new_id)[0]


def merge(ctx: Context, pool_id: str, from_id: str, *, dry_run: bool = False) -> MacPool:
    """Takes over the ranges, vNICs and scopes of another pool, which is gone then.

    Raises MacPoolNotFound, MacPoolInvalid for a merge with itself, DefaultPoolKept, WouldDuplicate.
    """
    if pool_id == from_id:
        raise MacPoolInvalid(
            "from: a MAC pool cannot be merged with itself. Name another.", field="from", value=from_id
        )
    with ctx.db.write(dry_run=dry_run) as connection:
        _lock_ranges(connection)
        pool = require(connection, pool_id, lock=True)
        source = require(connection, from_id, lock=True)
        _keep_default(source)
        if not pool.allow_duplicates:
            refuse_duplicates(macs_service.duplicates_under(connection, from_id), f"MAC pool {pool.name}")
        before = mac_ranges.of_pool(connection, pool_id)
        moved = mac_ranges.of_pool(connection, from_id)
        _put_under(connection, pool_id, vnics.c.mac_pool_id == from_id)
        connection.execute(update(scopes).where(scopes.c.mac_pool_id == from_id).values(mac_pool_id=pool_id))
        _delete(connection, source)
        united = [*before, *(mac_ranges.as_range(each) for each in difference(moved, before))]
        mac_ranges.replace(ctx, connection, pool_id, before, united)
        _touch(connection, pool_id)
        return _pools(connection, pool_id)[0]


def delete_pool(ctx: Context, pool_id: str, *, dry_run: bool = False) -> None:
    """Raises MacPoolNotFound, DefaultPoolKept, MacPoolInUse while scopes or vNICs need it."""
    with ctx.db.write(dry_run=dry_run) as connection:
        _lock_ranges(connection)
        pool = require(connection, pool_id, lock=True)
        _keep_default(pool)
        assigned = [
            f"{kind}s/{scope_id}".replace("_", "-")
            for kind, scope_id in connection.execute(
                select(scopes.c.kind, scopes.c.id).where(scopes.c.mac_pool_id == pool_id).order_by(scopes.c.id)
            )
        ]
        of_vnics = list(
            connection.execute(
                select(vnics.c.id).where(vnics.c.mac_pool_id == pool_id).order_by(vnics.c.id).limit(mac_ranges.NAMED)
            ).scalars()
        )
        if assigned or of_vnics:
            needs = [f"scopes {', '.join(assigned)}"] if assigned else []
            needs += [f"vNICs {', '.join(of_vnics)}"] if of_vnics else []
            raise MacPoolInUse(
                f"MAC pool {pool.name} is needed by {' and '.join(needs)}. Give them another pool first, or merge it "
                "into another.",
                mac_pool=pool_id,
                scopes=assigned,
                vnics=of_vnics,
            )
        _delete(connection, pool)


def take_in(
    ctx: Context,
    connection: Connection,
    pool_id: str,
    *,
    name: str,
    description: str,
    allow_duplicates: bool,
    ranges: Sequence[MacRange],
) -> None:
    """Creates or replaces a pool under the id that it has elsewhere, as part of an import. What its ranges share with
    other pools is kept, and is free in all of them until one takes it. Never the default, unless it is so already.

    Raises DuplicatesInUse for a pool that is here already, and no longer allows the duplicates that it has.
    """
    _lock_ranges(connection)
    present = connection.execute(select(mac_pools).where(mac_pools.c.id == pool_id).with_for_update()).one_or_none()
    if present is None:
        _insert(connection, pool_id, name, description, allow_duplicates)
        mac_ranges.replace(ctx, connection, pool_id, (), ranges)
    else:
        if not allow_duplicates:
            _refuse_duplicates_in_use(connection, present)
        mac_ranges.replace(ctx, connection, pool_id, mac_ranges.of_pool(connection, pool_id), ranges)
        connection.execute(
            update(mac_pools)
            .where(mac_pools.c.id == pool_id)
            .values(
                name=name,
                description=description,
                allow_duplicates=allow_duplicates,
                revision=mac_pools.c.revision + 1,
            )
        )


def macs_in_use(ctx: Context, pool_id: str, *, limit: int, after: tuple[Mac, str] | None = None) -> list[MacInUse]:
    """Up to `limit` MACs behind that of the vNIC `after` that vNICs have under the pool's rules, ascending; a shared
    one comes once for each vNIC. Raises MacPoolNotFound."""
    behind: tuple[Any, ...] = (-1, "") if after is None else (after[0].value, after[1])
    with ctx.db.read() as connection:
        require(connection, pool_id)
        ranges = mac_ranges.of_pool(connection, pool_id)
        rows = connection.execute(
            select(vnics.c.mac, vnics.c.id, vnics.c.vm)
            .where(vnics.c.mac_pool_id == pool_id, tuple_(vnics.c.mac, vnics.c.id) > tuple_(*behind))
            .order_by(vnics.c.mac, vnics.c.id)
            .limit(limit)
        ).all()
    return [mac_ranges.mac_in_use(row, ranges) for row in rows]


def require(connection: Connection, pool_id: str, *, lock: bool = False) -> AnyRow:
    """The pool's row, locked until the transaction ends if asked; raises MacPoolNotFound."""
    query = select(mac_pools).where(mac_pools.c.id == pool_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise MacPoolNotFound(
            f"There is no MAC pool {pool_id!r}. GET /v1/mac-pools lists those that are.", mac_pool=pool_id
        )
    return row


def default_pool(connection: Connection) -> str:
    """The id of the default pool."""
    pool_id: str = _default(connection).scalar_one()
    return pool_id


def allowing_duplicates(connection: Connection) -> set[str]:
    """The ids of the pools that allow duplicates."""
    return set(connection.execute(select(mac_pools.c.id).where(mac_pools.c.allow_duplicates)).scalars())


def refuse_duplicates(duplicates: Mapping[Mac, list[Holder]], where: str) -> None:
    """Raises WouldDuplicate that names every MAC and its holders, unless there are none."""
    if duplicates:
        raise WouldDuplicate(
            f"{where} allows no duplicates, and would get {_told(duplicates)}. Give these vNICs MACs of their own "
            "first, or allow duplicates there.",
            duplicates=_facts(duplicates),
        )


def _check_name(name: str) -> None:
    if not name.strip():
        raise MacPoolInvalid("name: it is empty. Give the MAC pool a name.", field="name", value=name)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turns a violation of the name's uniqueness into NameTaken."""
    try:
        yield
    except Violation as violation:
        if violation.constraint != "uq_mac_pools_name":
            raise
        raise NameTaken(f"Another MAC pool is named {name!r}. Choose another name.", name=name) from violation


def _lock_ranges(connection: Connection) -> None:
    """Lets changes of pools queue, and none run beside a change of MACs: neither that ranges do not overlap, nor that
    a MAC is either free or known, is a rule that a unique index can hold."""
    macs_service.change_rules(connection)


def _insert(connection: Connection, pool_id: str, name: str, description: str, allow_duplicates: bool) -> None:
    """A new pool, without ranges yet."""
    connection.execute(
        insert(mac_pools).values(
            id=pool_id,
            name=name,
            description=description,
            allow_duplicates=allow_duplicates,
            default_pool=False,
            revision=1,
            space_id=extents.create_space(connection, []),
        )
    )


def _delete(connection: Connection, pool: AnyRow) -> None:
    connection.execute(delete(mac_pools).where(mac_pools.c.id == pool.id))
    extents.delete_space(connection, pool.space_id)


def _put_under(connection: Connection, pool_id: str, condition: Any) -> None:
    """Puts the vNICs of which the condition holds under the rules of the pool, locked by id as everywhere."""
    connection.execute(select(vnics.c.id).where(condition).order_by(vnics.c.id).with_for_update())
    connection.execute(update(vnics).where(condition).values(mac_pool_id=pool_id))


def _touch(connection: Connection, pool_id: str) -> None:
    connection.execute(update(mac_pools).where(mac_pools.c.id == pool_id).values(revision=mac_pools.c.revision + 1))


def _keep_default(pool: AnyRow) -> None:
    if pool.default_pool:
        raise DefaultPoolKept(
            f"MAC pool {pool.name} is the default, and stays. Make another pool the default first.", mac_pool=pool.id
        )


def _refuse_duplicates_in_use(connection: Connection, pool: AnyRow) -> None:
    duplicates = macs_service.duplicates_under(connection, pool.id)
    if duplicates:
        raise DuplicatesInUse(
            f"MAC pool {pool.name} has MACs in use more than once: {_told(duplicates)}. Give these vNICs MACs of their "
            "own first.",
            mac_pool=pool.id,
            duplicates=_facts(duplicates),
        )


def _told(duplicates: Mapping[Mac, list[Holder]]) -> str:
    return "; ".join(
        f"{mac} at {', '.join(f'vNIC {each.vnic} of VM {each.vm}' for each in own)}" for mac, own in duplicates.items()
    )


def _facts(duplicates: Mapping[Mac, list[Holder]]) -> list[dict[str, object]]:
    return [{"mac": str(mac), "holders": [each.facts() for each in own]} for mac, own in duplicates.items()]


def _pools(connection: Connection, pool_id: str | None) -> list[MacPool]:
    rows = connection.execute(
        select(mac_pools, spaces.c.free, spaces.c.size)
        .join(spaces, spaces.c.id == mac_pools.c.space_id)
        .where(mac_pools.c.id == pool_id if pool_id is not None else ~false())
        .order_by(mac_pools.c.name)
    ).all()
    return [_pool(connection, row) for row in rows]


def _pool(connection: Connection, row: AnyRow) -> MacPool:
    ranges = mac_ranges.of_pool(connection, row.id)
    cooling: int = connection.execute(
        select(func.count()).select_from(macs).where(macs.c.holders == 0, mac_ranges.within(macs.c.mac, ranges))
    ).scalar_one()
    outside: int = connection.execute(
        select(func.count())
        .select_from(vnics)
        .where(vnics.c.mac_pool_id == row.id, ~mac_ranges.within(vnics.c.mac, ranges))
    ).scalar_one()
    return MacPool(
        id=row.id,
        name=row.name,
        description=row.description,
        allow_duplicates=row.allow_duplicates,
        default_pool=row.default_pool,
        revision=row.revision,
        ranges=tuple(ranges),
        usage=PoolUsage(
            size=row.size,
            free=row.free,
            used=row.size - row.free - cooling,
            cooling=cooling,
            out_of_range=outside,
        ),
    )


@prepared
def _default() -> Executable:
    return select(mac_pools.c.id).where(mac_pools.c.default_pool)
