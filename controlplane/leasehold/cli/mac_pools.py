"""`leasehold mac-pool`."""

from collections.abc import Iterable

import click

from leasehold.cli.arguments import ID, RANGE
from leasehold.cli.opening import open_database
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    columns_of,
    dry_run_option,
    note_dry_run,
    print_as,
    print_fields,
    print_table,
)
from leasehold.domain.addresses import MacRange
from leasehold.domain.values import MacInUse, MacPool, Overlap
from leasehold.service import mac_pools, mac_ranges
from leasehold.service.mac_pools import PoolChange
from leasehold.web.mac_pools import ChangedOut, MacInUseOut, MacPoolOut, OverlapOut

_ALL = 2**31 - 1


def _ranges(ranges: Iterable[MacRange]) -> tuple[str, ...]:
    return tuple(f"{each.first}-{each.last}" for each in ranges)


_FIELDS: Columns[MacPool] = {
    "id": lambda each: each.id,
    "name": lambda each: each.name,
    "description": lambda each: each.description,
    "ranges": lambda each: _ranges(each.ranges),
    "duplicates": lambda each: "allowed" if each.allow_duplicates else "refused",
    "default": lambda each: each.default_pool,
    "size": lambda each: each.usage.size,
    "free": lambda each: each.usage.free,
    "used": lambda each: each.usage.used,
    "cooling": lambda each: each.usage.cooling,
    "out of range": lambda each: each.usage.out_of_range,
    "revision": lambda each: each.revision,
}
COLUMNS = columns_of(_FIELDS, "id", "name", "ranges", "free", "used", "duplicates", "default")
_MACS: Columns[MacInUse] = {
    "mac": lambda each: each.mac,
    "vnic": lambda each: each.vnic,
    "vm": lambda each: each.vm,
    "in range": lambda each: each.in_range,
}
OVERLAPS: Columns[Overlap] = {
    "mac pool": lambda each: each.mac_pool,
    "range": lambda each: _ranges([each.range]),
    "other pool": lambda each: each.other_pool,
    "other range": lambda each: _ranges([each.other_range]),
}
_pool = click.argument("pool_id", metavar="ID", type=ID)
_ranges_option = click.option(
    "--range", "ranges", type=RANGE, multiple=True, required=True, metavar="FROM-TO", help="Its MACs; may be repeated."
)


@click.group("mac-pool")
def mac_pool() -> None:
    """MAC pools: named sets of MAC ranges."""


@mac_pool.command("list")
@as_json_option
def list_pools(as_json: bool) -> None:
    """List all pools."""
    found = mac_pools.list_pools(open_database())
    if as_json:
        print_as(list[MacPoolOut], found)
    else:
        print_table(COLUMNS, found)


@mac_pool.command()
@_pool
@as_json_option
def show(pool_id: str, as_json: bool) -> None:
    """Show one pool."""
    _print(mac_pools.get(open_database(), pool_id), as_json)


@mac_pool.command()
@click.option("--name", required=True, help="Its name, which no other pool has.")
@click.option("--description", default="", help="What it is for.")
@click.option("--allow-duplicates", is_flag=True, help="Let several vNICs have one MAC.")
@_ranges_option
@dry_run_option
@as_json_option
def create(
    name: str, description: str, allow_duplicates: bool, ranges: tuple[MacRange, ...], dry_run: bool, as_json: bool
) -> None:
    """Create a pool. Its ranges are no other pool's."""
    pool = mac_pools.create(
        open_database(),
        name=name,
        description=description,
        allow_duplicates=allow_duplicates,
        ranges=ranges,
        dry_run=dry_run,
    )
    _print(pool, as_json, dry_run)


@mac_pool.command()
@_pool
@click.option("--name", help="Another name.")
@click.option("--description", help="Another description.")
@click.option("--allow-duplicates/--refuse-duplicates", default=None, help="Whether several vNICs may have one MAC.")
@click.option(
    "--range", "ranges", type=RANGE, multiple=True, metavar="FROM-TO", help="Its new ranges; may be repeated."
)
@click.option("--revision", type=int, help="Change it only if it is still at this revision.")
@dry_run_option
@as_json_option
def change(
    pool_id: str,
    name: str | None,
    description: str | None,
    allow_duplicates: bool | None,
    ranges: tuple[MacRange, ...],
    revision: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change a pool while allocations run. What is left out stays; ranges replace the whole list.

    MACs in use that are outside of the new ranges stay with their vNICs, and are listed.
    """
    wanted = PoolChange(name=name, description=description, allow_duplicates=allow_duplicates, ranges=ranges or None)
    pool, effect = mac_pools.change(open_database(), pool_id, wanted, revision=revision, dry_run=dry_run)
    if as_json:
        print_as(
            ChangedOut,
            {
                "mac_pool": pool,
                "out_of_range": list(effect.out_of_range),
                "out_of_range_count": effect.out_of_range_count,
            },
        )
        return
    _print(pool, as_json, dry_run)
    if effect.out_of_range_count:
        title = f"Out of its ranges by this change, and still in use: {effect.out_of_range_count}"
        print_table(_MACS, effect.out_of_range, title)


@mac_pool.command()
@_pool
@dry_run_option
def delete(pool_id: str, dry_run: bool) -> None:
    """Delete a pool that nobody needs."""
    mac_pools.delete_pool(open_database(), pool_id, dry_run=dry_run)
    note_dry_run(dry_run)


@mac_pool.command("make-default")
@_pool
@dry_run_option
@as_json_option
def make_default(pool_id: str, dry_run: bool, as_json: bool) -> None:
    """Make it the default pool.

    That is, for whatever has no scope with a pool of its own."""
    _print(mac_pools.make_default(open_database(), pool_id, dry_run=dry_run), as_json, dry_run)


@mac_pool.command()
@_pool
@click.option("--name", required=True, help="The new pool's name.")
@click.option("--description", default="", help="What the new pool is for.")
@_ranges_option
@dry_run_option
@as_json_option
def split(
    pool_id: str, name: str, description: str, ranges: tuple[MacRange, ...], dry_run: bool, as_json: bool
) -> None:
    """Make a new pool of a part of this one's ranges.

    The MACs in use there come along."""
    pool = mac_pools.split(open_database(), pool_id, name=name, description=description, ranges=ranges, dry_run=dry_run)
    _print(pool, as_json, dry_run)


@mac_pool.command()
@_pool
@click.argument("source", metavar="FROM_ID", type=ID)
@dry_run_option
@as_json_option
def merge(pool_id: str, source: str, dry_run: bool, as_json: bool) -> None:
    """Take over all of another pool, which is gone then.

    That is, the ranges, vNICs and scopes of FROM_ID."""
    _print(mac_pools.merge(open_database(), pool_id, source, dry_run=dry_run), as_json, dry_run)


@mac_pool.command()
@_pool
@as_json_option
def macs(pool_id: str, as_json: bool) -> None:
    """List the MACs in use under its rules, in range or not."""
    found = mac_pools.macs_in_use(open_database(), pool_id, limit=_ALL)
    if as_json:
        print_as(list[MacInUseOut], found)
    else:
        print_table(_MACS, found)


@mac_pool.command()
@as_json_option
def overlaps(as_json: bool) -> None:
    """List ranges of different pools that share MACs.

    Such ranges were imported, and are to be worked off."""
    found = mac_ranges.overlaps(open_database())
    if as_json:
        print_as(list[OverlapOut], found)
    else:
        print_table(OVERLAPS, found)


def _print(pool: MacPool, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(MacPoolOut, pool)
    else:
        print_fields(_FIELDS, pool)
        note_dry_run(dry_run)
