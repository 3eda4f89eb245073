"""`/v1/mac-pools`."""

from typing import Annotated

from pydantic import Field

from leasehold.domain.addresses import Mac
from leasehold.domain.values import MacInUse, MacPool
from leasehold.errors import (
    DefaultPoolFixed,
    DefaultPoolKept,
    DuplicatesInUse,
    MacPoolInUse,
    MacPoolInvalid,
    MacPoolNotFound,
    NameTaken,
    RangeInvalid,
    RangeNotUnicast,
    RangesOverlap,
    RangesOverlapPools,
    RevisionMismatch,
    WouldDuplicate,
)
from leasehold.service import mac_pools, mac_ranges
from leasehold.service.context import Context
from leasehold.service.mac_pools import PoolChange
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.wire import (
    Id,
    In,
    Listing,
    MacRangeIn,
    MacRangeOut,
    MacText,
    Out,
    Page,
    PageOut,
    PageQuery,
    Text,
    WriteQuery,
    id_key,
)


def _holder(key: str) -> tuple[Mac, str]:
    """A MAC and one vNIC that has it, out of a cursor. Raises ValueError or FieldInvalid for what no answer had."""
    mac, vnic = key.split(" ")
    return Mac.parse(mac), id_key(vnic)


def _holder_key(text: str) -> str:
    _holder(text)
    return text


routes = Routes("mac-pools")
_pools = Listing[MacPool, str]("mac-pools", lambda each: each.id, id_key)
_macs = Listing[MacInUse, str]("macs", lambda each: f"{each.mac} {each.vnic}", _holder_key)
_Ranges = Annotated[tuple[MacRangeIn, ...], Field(max_length=1024)]
_UNSOUND = (MacPoolInvalid, RangeInvalid, RangeNotUnicast, RangesOverlap, NameTaken)


class MacPoolIn(In):
    """A named set of MAC ranges. `default_pool` cannot be true: another call makes a pool the default."""

    name: Text
    description: Text = ""
    allow_duplicates: bool = False
    default_pool: bool = False
    ranges: _Ranges


class MacPoolPatch(In):
    """What is to change; fields left out stay. `ranges` replaces the whole list: MACs in use that are outside of it
    stay with their vNICs."""

    name: Text | None = None
    description: Text | None = None
    allow_duplicates: bool | None = None
    default_pool: bool | None = None
    ranges: _Ranges | None = None


class SplitIn(In):
    """A new pool, and the part of the ranges that it takes along."""

    name: Text
    description: Text = ""
    ranges: _Ranges


class MergeIn(In):
    """The pool whose ranges, vNICs and scopes are taken over; it is gone then."""

    source: Annotated[Id, Field(alias="from")]


class PoolUsageOut(Out):
    """Numbers of MACs. `size` is `free`, `used` and `cooling` together; `out_of_range` is counted apart."""

    size: int
    free: int
    used: int
    cooling: int
    out_of_range: int


class MacPoolOut(Out):
    """A named set of MAC ranges. `revision` rises with each change, and is its ETag."""

    id: str
    name: str
    description: str
    allow_duplicates: bool
    default_pool: bool
    revision: int
    ranges: list[MacRangeOut]
    usage: PoolUsageOut


class MacInUseOut(Out):
    """A MAC that a vNIC has under the pool's rules."""

    mac: MacText
    vnic: str
    vm: str
    in_range: bool


class MacPoolPage(PageOut[MacPoolOut]):
    """Part of the list of MAC pools."""


class MacInUsePage(PageOut[MacInUseOut]):
    """Part of the list of a pool's MACs in use."""


class ChangedOut(Out):
    """A changed pool. `out_of_range` are the first MACs in use that this change left out of its ranges, and
    `out_of_range_count` how many there are: they stay with their vNICs."""

    mac_pool: MacPoolOut
    out_of_range: list[MacInUseOut]
    out_of_range_count: int


class OverlapOut(Out):
    """Two ranges of different pools that share MACs."""

    mac_pool: str
    range: MacRangeOut
    other_pool: str
    other_range: MacRangeOut


class OverlapsOut(Out):
    """Every overlap between pools: imported ones, to be worked off."""

    items: list[OverlapOut]


class _Changed:
    """A changed pool and the effect of it, side by side."""

    def __init__(self, mac_pool: MacPool, out_of_range: tuple[MacInUse, ...], count: int) -> None:
        self.mac_pool = mac_pool
        self.out_of_range = list(out_of_range)
        self.out_of_range_count = count


@routes.on("GET", "/mac-pools", roles=READERS, answer=MacPoolPage)
def list_mac_pools(ctx: Context, query: PageQuery) -> Page[MacPool]:
    """Every MAC pool, by id."""
    return _pools.page_of(query, mac_pools.list_pools(ctx))


@routes.on(
    "POST",
    "/mac-pools",
    roles=WRITERS,
    keyed=True,
    answer=MacPoolOut,
    statuses=(201, 200),
    errors=[*_UNSOUND, RangesOverlapPools, DefaultPoolFixed],
)
def create_mac_pool(ctx: Context, query: WriteQuery, body: MacPoolIn) -> Reply[MacPool]:
    """Creates a MAC pool. A dry run answers 200 with the pool as it would be."""
    if body.default_pool:
        raise _default_fixed()
    pool = mac_pools.create(
        ctx,
        name=body.name,
        description=body.description,
        allow_duplicates=body.allow_duplicates,
        ranges=[each.value() for each in body.ranges],
        dry_run=query.dry_run,
    )
    return _created(pool, query)


@routes.on("GET", "/mac-pools/overlaps", roles=READERS, answer=OverlapsOut)
def list_overlaps(ctx: Context) -> OverlapsOut:
    """Ranges of different pools that share MACs."""
    return OverlapsOut(items=[OverlapOut.model_validate(each) for each in mac_ranges.overlaps(ctx)])


@routes.on("GET", "/mac-pools/<pool_id>", roles=READERS, answer=MacPoolOut, errors=[MacPoolNotFound])
def get_mac_pool(ctx: Context, pool_id: Id) -> Reply[MacPool]:
    """One MAC pool."""
    pool = mac_pools.get(ctx, pool_id)
    return Reply(pool, revision=pool.revision)


@routes.on(
    "PATCH",
    "/mac-pools/<pool_id>",
    roles=WRITERS,
    answer=ChangedOut,
    errors=[*_UNSOUND, MacPoolNotFound, RangesOverlapPools, DefaultPoolFixed, DuplicatesInUse, RevisionMismatch],
)
def patch_mac_pool(
    ctx: Context, pool_id: Id, query: WriteQuery, body: MacPoolPatch, if_match: int | None
) -> Reply[_Changed]:
    """Changes a MAC pool while allocations run."""
    if body.default_pool is not None and body.default_pool != mac_pools.get(ctx, pool_id).default_pool:
        raise _default_fixed()
    wanted = PoolChange(
        name=body.name,
        description=body.description,
        allow_duplicates=body.allow_duplicates,
        ranges=None if body.ranges is None else tuple(each.value() for each in body.ranges),
    )
    pool, effect = mac_pools.change(ctx, pool_id, wanted, revision=if_match, dry_run=query.dry_run)
    return Reply(_Changed(pool, effect.out_of_range, effect.out_of_range_count), revision=pool.revision)


@routes.on("DELETE", "/mac-pools/<pool_id>", roles=WRITERS, errors=[MacPoolNotFound, DefaultPoolKept, MacPoolInUse])
def delete_mac_pool(ctx: Context, pool_id: Id, query: WriteQuery) -> None:
    """Deletes a MAC pool that nobody needs."""
    mac_pools.delete_pool(ctx, pool_id, dry_run=query.dry_run)


@routes.on("GET", "/mac-pools/<pool_id>/macs", roles=READERS, answer=MacInUsePage, errors=[MacPoolNotFound])
def list_macs(ctx: Context, pool_id: Id, query: PageQuery) -> Page[MacInUse]:
    """The MACs that vNICs have under the pool's rules, in range or not, ascending."""
    return _macs.page(
        query,
        lambda limit, after: mac_pools.macs_in_use(
            ctx, pool_id, limit=limit, after=None if after is None else _holder(after)
        ),
    )


@routes.on("POST", "/mac-pools/<pool_id>/make-default", roles=WRITERS, answer=MacPoolOut, errors=[MacPoolNotFound])
def make_default(ctx: Context, pool_id: Id, query: WriteQuery) -> Reply[MacPool]:
    """Makes the pool the one for whatever has no scope with a pool of its own. vNICs keep the MACs that they have."""
    pool = mac_pools.make_default(ctx, pool_id, dry_run=query.dry_run)
    return Reply(pool, revision=pool.revision)


@routes.on(
    "POST",
    "/mac-pools/<pool_id>/split",
    roles=WRITERS,
    keyed=True,
    answer=MacPoolOut,
    statuses=(201, 200),
    errors=[*_UNSOUND, MacPoolNotFound],
)
def split_mac_pool(ctx: Context, pool_id: Id, query: WriteQuery, body: SplitIn) -> Reply[MacPool]:
    """Makes a new pool of a part of this one's ranges, with the MACs in use there."""
    pool = mac_pools.split(
        ctx,
        pool_id,
        name=body.name,
        description=body.description,
        ranges=[each.value() for each in body.ranges],
        dry_run=query.dry_run,
    )
    return _created(pool, query)


@routes.on(
    "POST",
    "/mac-pools/<pool_id>/merge",
    roles=WRITERS,
    keyed=True,
    answer=MacPoolOut,
    errors=[MacPoolNotFound, MacPoolInvalid, DefaultPoolKept, WouldDuplicate],
)
def merge_mac_pool(ctx: Context, pool_id: Id, query: WriteQuery, body: MergeIn) -> Reply[MacPool]:
    """Takes over the ranges, vNICs and scopes of another pool, which is gone then."""
    pool = mac_pools.merge(ctx, pool_id, body.source, dry_run=query.dry_run)
    return Reply(pool, revision=pool.revision)


def _created(pool: MacPool, query: WriteQuery) -> Reply[MacPool]:
    if query.dry_run:
        return Reply(pool)
    return Reply(pool, 201, f"/v1/mac-pools/{pool.id}", pool.revision)


def _default_fixed() -> DefaultPoolFixed:
    return DefaultPoolFixed(
        "default_pool: which pool is the default does not change in passing. "
        "Use POST /v1/mac-pools/{id}/make-default for the pool that is to be it.",
        field="default_pool",
    )
