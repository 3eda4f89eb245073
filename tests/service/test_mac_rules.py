"""The rules of MAC pools, row by row: what is refused, with which error, code and facts, and what is accepted."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from netaddr import IPNetwork
from sqlalchemy import insert, select, update

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import MacPool, Reassigned, Subnet, SubnetSpec, Vnic, VnicSpec
from leasehold.errors import (
    Conflict,
    DefaultPoolKept,
    DuplicatesInUse,
    FieldInvalid,
    InUse,
    Invalid,
    LeaseholdError,
    MacNotUnicast,
    MacPoolExhausted,
    MacPoolInUse,
    MacPoolInvalid,
    MacPoolNotFound,
    MacsBad,
    MacTaken,
    NameTaken,
    NotFound,
    RangeInvalid,
    RangeNotUnicast,
    RangesOverlap,
    RangesOverlapPools,
    RevisionMismatch,
    ScopeInUse,
    ScopeNotFound,
    VnicNotFound,
    WouldDuplicate,
)
from leasehold.service import events, mac_pools, mac_ranges, macs, networks, scopes, subnets, vnics
from leasehold.service.context import DEFAULT_POOL, Context, open_context
from leasehold.service.mac_pools import PoolChange
from leasehold.store import extents
from leasehold.store import tables as t
from leasehold.store.database import Violation
from service.conftest import Clock

Facts = Mapping[str, object]


def mac(number: int) -> Mac:
    """02:00:00:00:00:00 and so many."""
    return Mac(0x02_00_00_00_00_00 + number)


def span(first: int, last: int) -> MacRange:
    return MacRange(mac(first), mac(last))


def told(each: MacRange) -> dict[str, str]:
    return {"from": str(each.first), "to": str(each.last)}


def holder(name: str, pool: str) -> dict[str, str]:
    return {"vnic": name, "vm": f"vm-{name}", "mac_pool": pool}


def a_pool(ctx: Context, name: str, *ranges: MacRange, allow_duplicates: bool = False) -> MacPool:
    return mac_pools.create(ctx, name=name, ranges=ranges, allow_duplicates=allow_duplicates)


def a_cluster(ctx: Context, name: str, pool: MacPool | None) -> None:
    scopes.put(ctx, "cluster", name, mac_pool=None if pool is None else pool.id)


def spec(name: str, number: int | None = None, **fields: Any) -> VnicSpec:
    return VnicSpec(id=name, vm=f"vm-{name}", name="eth0", mac=None if number is None else mac(number), **fields)


def a_vnic(ctx: Context, name: str, number: int | None = None, **fields: Any) -> Vnic:
    return vnics.put(ctx, spec(name, number, **fields))[0]


def a_subnet(ctx: Context, *mac_ranges: MacRange) -> Subnet:
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    return subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24"), mac_ranges=mac_ranges))


def usage(ctx: Context, pool: MacPool | str) -> tuple[int, int, int, int]:
    """Free, used, cooling, out of range."""
    numbers = mac_pools.get(ctx, pool if isinstance(pool, str) else pool.id).usage
    assert numbers.free + numbers.used + numbers.cooling == numbers.size
    return numbers.free, numbers.used, numbers.cooling, numbers.out_of_range


def snapshot(ctx: Context) -> dict[str, list[Any]]:
    """Every row of every table."""
    with ctx.db.read() as connection:
        return {table.name: sorted(map(repr, connection.execute(select(table)))) for table in t.metadata.sorted_tables}


def refused(
    ctx: Context, error: type[LeaseholdError], branch: type[LeaseholdError], code: str, act: Callable[[], object]
) -> Facts:
    """The call is refused with this error of this branch and this code, and changes nothing; returns its facts."""
    before = snapshot(ctx)
    with pytest.raises(error) as caught:
        act()
    assert type(caught.value) is error
    assert issubclass(error, branch)
    assert error.code == code
    assert snapshot(ctx) == before
    return caught.value.facts


@pytest.fixture
def red(ctx: Context) -> MacPool:
    """Ten MACs, no duplicates, at cluster red."""
    pool = a_pool(ctx, "red", span(0, 9))
    a_cluster(ctx, "red", pool)
    return pool


@pytest.fixture
def blue(ctx: Context) -> MacPool:
    """Ten other MACs, with duplicates, at clusters blue and navy."""
    pool = a_pool(ctx, "blue", span(20, 29), allow_duplicates=True)
    a_cluster(ctx, "blue", pool)
    a_cluster(ctx, "navy", pool)
    return pool


@pytest.fixture
def shared(ctx: Context, blue: MacPool) -> list[dict[str, object]]:
    """vNICs one and two share a MAC in pool blue; the duplicates as an error lists them."""
    a_vnic(ctx, "one", 20, cluster="blue")
    a_vnic(ctx, "two", 20, cluster="navy")
    return [{"mac": str(mac(20)), "holders": [holder("one", blue.id), holder("two", blue.id)]}]


# ---- The seed's history


def test_the_default_pool_is_one_large_local_unicast_range(ctx: Context) -> None:
    (pool,) = mac_pools.list_pools(ctx)
    (whole,) = pool.ranges
    assert (pool.default_pool, pool.allow_duplicates, pool.usage.size) == (True, False, 2**24)
    assert whole.last.value - whole.first.value + 1 == 2**24
    assert [each.value >> 40 & 3 for each in (whole.first, whole.last)] == [2, 2]


def test_the_default_range_can_be_changed(ctx: Context) -> None:
    mac_pools.change(ctx, DEFAULT_POOL, PoolChange(ranges=(span(0, 9),)))
    assert a_vnic(ctx, "a").mac in span(0, 9)


def test_it_works_with_no_scope_named(ctx: Context) -> None:
    vnic = a_vnic(ctx, "a")
    assert (vnic.mac_pool, vnic.cluster, vnic.vm_pool, vnic.in_range) == (DEFAULT_POOL, None, None, True)


def test_the_most_specific_scope_with_a_pool_decides(ctx: Context, red: MacPool, blue: MacPool) -> None:
    scopes.put(ctx, "data_center", "dc", mac_pool=red.id)
    scopes.put(ctx, "cluster", "plain", parent="dc")
    scopes.put(ctx, "cluster", "own", parent="dc", mac_pool=blue.id)
    scopes.put(ctx, "vm_pool", "inherits", parent="own")
    scopes.put(ctx, "vm_pool", "desktops", parent="own", mac_pool=red.id)
    a_cluster(ctx, "alone", None)
    found = [
        a_vnic(ctx, "a", cluster="plain"),
        a_vnic(ctx, "b", cluster="own"),
        a_vnic(ctx, "c", vm_pool="inherits"),
        a_vnic(ctx, "d", cluster="own", vm_pool="desktops"),
        a_vnic(ctx, "e", cluster="alone"),
    ]
    assert [each.mac_pool for each in found] == [red.id, blue.id, blue.id, red.id, DEFAULT_POOL]
    assert all(each.in_range for each in found)


def test_a_vnic_without_subnet_gets_the_one_whose_mac_range_holds_its_mac(ctx: Context) -> None:
    subnet = a_subnet(ctx, span(100, 109))
    inside, outside = a_vnic(ctx, "a", 105), a_vnic(ctx, "b", 110)
    assert [(each.network, each.subnet) for each in (inside, outside)] == [("blue", subnet.id), (None, None)]


def test_a_vnic_with_a_subnet_draws_from_its_mac_range(ctx: Context, red: MacPool) -> None:
    subnet = a_subnet(ctx, span(7, 8))
    drawn = [a_vnic(ctx, name, cluster="red", subnet=subnet.id).mac for name in "ab"]
    assert drawn == [mac(7), mac(8)]
    facts = refused(
        ctx, MacPoolExhausted, Conflict, "mac-pool-exhausted", lambda: a_vnic(ctx, "c", cluster="red", subnet=subnet.id)
    )
    assert facts == {"mac_pool": red.id, "wanted": 1, "free": 0}


def test_several_ranges_are_used_up_one_after_the_other(ctx: Context) -> None:
    pool = a_pool(ctx, "split", span(0, 1), span(50, 51))
    a_cluster(ctx, "c", pool)
    assert [a_vnic(ctx, name, cluster="c").mac for name in "abcd"] == [mac(0), mac(1), mac(50), mac(51)]


def test_duplicates_are_allowed_where_all_pools_allow_them(ctx: Context, shared: object, blue: MacPool) -> None:
    assert usage(ctx, blue) == (9, 1, 0, 0)


def test_allocation_skips_what_is_in_use_anywhere(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "foreign", 0)
    assert a_vnic(ctx, "a", cluster="red").mac == mac(1)
    assert usage(ctx, red) == (8, 2, 0, 0)


def test_a_pool_that_grows_over_macs_in_use_does_not_hand_them_out(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "stray", 10)
    mac_pools.change(ctx, red.id, PoolChange(ranges=(span(10, 11),)))
    assert a_vnic(ctx, "a", cluster="red").mac == mac(11)
    assert usage(ctx, red) == (0, 2, 0, 0)


# ---- Pools: names and ranges


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(ctx: Context, red: MacPool, name: str) -> None:
    for act in (
        lambda: a_pool(ctx, name, span(50, 59)),
        lambda: mac_pools.change(ctx, red.id, PoolChange(name=name)),
        lambda: mac_pools.split(ctx, red.id, name=name, ranges=[span(0, 1)]),
    ):
        assert refused(ctx, MacPoolInvalid, Invalid, "mac-pool-invalid", act) == {"field": "name", "value": name}


def test_a_pool_without_range_is_refused(ctx: Context, red: MacPool) -> None:
    for act in (lambda: a_pool(ctx, "new"), lambda: mac_pools.change(ctx, red.id, PoolChange(ranges=()))):
        assert refused(ctx, MacPoolInvalid, Invalid, "mac-pool-invalid", act) == {"field": "ranges", "value": []}


def test_a_name_is_taken_by_its_exact_case(ctx: Context, red: MacPool, blue: MacPool) -> None:
    for act in (
        lambda: a_pool(ctx, "red", span(50, 59)),
        lambda: mac_pools.change(ctx, blue.id, PoolChange(name="red")),
        lambda: mac_pools.split(ctx, blue.id, name="red", ranges=[span(20, 21)]),
    ):
        assert refused(ctx, NameTaken, Conflict, "name-taken", act) == {"name": "red"}
    assert a_pool(ctx, "Red", span(50, 59)).name == "Red"


@pytest.mark.parametrize("text", ["02-00-5E-10-00-0A", "0200.5e10.000a", "02005E10000A", "02:00:5e:10:00:0a"])
def test_every_form_of_a_mac_is_read_and_one_is_written(text: str) -> None:
    assert str(Mac.parse(text)) == "02:00:5e:10:00:0a"


@pytest.mark.parametrize(
    "text", ["", "02:00:5e:10:00", "02:00:5e:10:00:0g", "02:00-5e:10:00:0a", "02:00:5e:10:00:0a:0b"]
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        Mac.parse(text)
    assert caught.value.facts == {"field": "mac", "value": text}


def test_a_backward_range_is_refused_and_never_swapped(ctx: Context) -> None:
    facts = refused(ctx, RangeInvalid, Invalid, "range-invalid", lambda: a_pool(ctx, "new", span(0, 1), span(9, 5)))
    assert facts == {"field": "ranges[1]", "from": str(mac(9)), "to": str(mac(5))}


@pytest.mark.parametrize(
    ("first", "last", "unicast"),
    [
        (0x00FFFFFFFFFE, 0x010000000001, [("00:ff:ff:ff:ff:fe", "00:ff:ff:ff:ff:ff")]),
        (0x01FFFFFFFFFF, 0x020000000001, [("02:00:00:00:00:00", "02:00:00:00:00:01")]),
        (
            0x00FFFFFFFFFF,
            0x020000000000,
            [("00:ff:ff:ff:ff:ff", "00:ff:ff:ff:ff:ff"), ("02:00:00:00:00:00", "02:00:00:00:00:00")],
        ),
        (0x010000000000, 0x010000000001, []),
        (0, 2, [("00:00:00:00:00:01", "00:00:00:00:00:02")]),
    ],
)
def test_a_range_with_what_no_card_can_own_is_refused_and_never_clipped(
    ctx: Context, first: int, last: int, unicast: list[tuple[str, str]]
) -> None:
    whole = MacRange(Mac(first), Mac(last))
    facts = refused(ctx, RangeNotUnicast, Invalid, "range-not-unicast", lambda: a_pool(ctx, "new", whole))
    assert facts == {"field": "ranges[0]", "unicast": [{"from": begin, "to": end} for begin, end in unicast]}


@pytest.mark.parametrize("other", [span(50, 59), span(59, 60), span(53, 54)])
def test_ranges_of_a_pool_that_overlap_are_refused(ctx: Context, red: MacPool, other: MacRange) -> None:
    pair = (span(50, 59), other)
    for act in (
        lambda: a_pool(ctx, "new", *pair),
        lambda: mac_pools.change(ctx, red.id, PoolChange(ranges=pair)),
    ):
        facts = refused(ctx, RangesOverlap, Conflict, "ranges-overlap", act)
        assert facts == {"ranges": [told(each) for each in sorted(pair)]}


def test_adjacent_ranges_are_fine(ctx: Context, red: MacPool) -> None:
    assert a_pool(ctx, "new", span(10, 14), span(15, 19)).usage.size == 10


def test_an_overlap_with_other_pools_is_refused_on_creation_and_on_update(
    ctx: Context, red: MacPool, blue: MacPool
) -> None:
    wanted = span(9, 20)
    expected = [
        {"range": told(wanted), "mac_pool": pool.id, "name": pool.name, "other_range": told(pool.ranges[0])}
        for pool in (red, blue)
    ]
    other = a_pool(ctx, "other", span(50, 59))
    for act in (
        lambda: a_pool(ctx, "new", wanted),
        lambda: mac_pools.change(ctx, other.id, PoolChange(ranges=(wanted,))),
    ):
        facts = refused(ctx, RangesOverlapPools, Conflict, "ranges-overlap-pools", act)
        assert facts == {"overlaps": expected}


def test_patch_replaces_the_list_of_ranges_and_keeps_absent_fields(ctx: Context) -> None:
    pool = mac_pools.create(ctx, name="p", description="d", allow_duplicates=True, ranges=[span(0, 1), span(5, 6)])
    changed, _ = mac_pools.change(ctx, pool.id, PoolChange(ranges=(span(6, 8),)))
    assert (changed.name, changed.description, changed.allow_duplicates) == ("p", "d", True)
    assert changed.ranges == (span(6, 8),)
    renamed, _ = mac_pools.change(ctx, pool.id, PoolChange(name="q"))
    assert (renamed.name, renamed.ranges) == ("q", (span(6, 8),))


def test_a_pool_shrinks_under_macs_in_use_which_stay_and_are_counted(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "a", 1, cluster="red")
    a_vnic(ctx, "b", 8, cluster="red")
    dry, foreseen = mac_pools.change(ctx, red.id, PoolChange(ranges=(span(0, 4),)), dry_run=True)
    changed, effect = mac_pools.change(ctx, red.id, PoolChange(ranges=(span(0, 4),)))
    assert (dry, foreseen) == (changed, effect)
    assert [(each.mac, each.vnic, each.vm, each.in_range) for each in effect.out_of_range] == [
        (mac(8), "b", "vm-b", False)
    ]
    assert effect.out_of_range_count == 1
    assert usage(ctx, red) == (4, 1, 0, 1)
    assert [(each.vnic, each.in_range) for each in mac_pools.macs_in_use(ctx, red.id, limit=9)] == [
        ("a", True),
        ("b", False),
    ]
    assert vnics.get(ctx, "b").mac == mac(8)


def test_an_unknown_pool_is_told(ctx: Context) -> None:
    for act in (
        lambda: mac_pools.get(ctx, "none"),
        lambda: mac_pools.change(ctx, "none", PoolChange(name="x")),
        lambda: mac_pools.delete_pool(ctx, "none"),
        lambda: scopes.put(ctx, "cluster", "c", mac_pool="none"),
    ):
        assert refused(ctx, MacPoolNotFound, NotFound, "mac-pool-not-found", act) == {"mac_pool": "none"}


def test_a_change_on_an_old_revision_is_refused(ctx: Context, red: MacPool) -> None:
    changed, _ = mac_pools.change(ctx, red.id, PoolChange(description="mine"), revision=red.revision)
    assert changed.revision == red.revision + 1
    facts = refused(
        ctx,
        RevisionMismatch,
        Conflict,
        "revision-mismatch",
        lambda: mac_pools.change(ctx, red.id, PoolChange(description="theirs"), revision=red.revision),
    )
    assert facts == {"mac_pool": red.id, "expected": red.revision, "revision": changed.revision}


# ---- The default pool, deletion


def test_there_is_no_second_default(ctx: Context, red: MacPool) -> None:
    assert not red.default_pool
    with pytest.raises(Violation, match="uq_mac_pools_default_pool"), ctx.db.write() as connection:
        connection.execute(update(t.mac_pools).where(t.mac_pools.c.id == red.id).values(default_pool=True))


def test_another_pool_becomes_the_default_by_one_call(ctx: Context, red: MacPool) -> None:
    assert mac_pools.make_default(ctx, red.id).default_pool
    assert [pool.id for pool in mac_pools.list_pools(ctx) if pool.default_pool] == [red.id]
    assert a_vnic(ctx, "a").mac_pool == red.id


def test_the_default_pool_is_neither_deleted_nor_merged_away(ctx: Context, red: MacPool) -> None:
    for act in (lambda: mac_pools.delete_pool(ctx, DEFAULT_POOL), lambda: mac_pools.merge(ctx, red.id, DEFAULT_POOL)):
        facts = refused(ctx, DefaultPoolKept, Conflict, "default-pool-kept", act)
        assert facts == {"mac_pool": DEFAULT_POOL}


def test_a_pool_in_use_is_not_deleted(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "a", cluster="red")
    facts = refused(ctx, MacPoolInUse, Conflict, "mac-pool-in-use", lambda: mac_pools.delete_pool(ctx, red.id))
    assert facts == {"mac_pool": red.id, "scopes": ["clusters/red"], "vnics": ["a"]}


def test_a_pool_that_nobody_needs_is_deleted_and_its_range_is_free_for_others(ctx: Context) -> None:
    mac_pools.delete_pool(ctx, a_pool(ctx, "old", span(0, 9)).id)
    assert a_pool(ctx, "new", span(0, 9)).usage.free == 10


# ---- MACs


def test_a_pool_with_too_few_free_macs_refuses_and_nothing_is_taken(ctx: Context, red: MacPool) -> None:
    facts = refused(
        ctx,
        MacPoolExhausted,
        Conflict,
        "mac-pool-exhausted",
        lambda: vnics.put_all(ctx, [spec(f"v{n:02}", cluster="red") for n in range(11)]),
    )
    assert facts == {"mac_pool": red.id, "wanted": 11, "free": 10}
    assert usage(ctx, red) == (10, 0, 0, 0)


@pytest.mark.parametrize(("number", "in_range"), [(5, True), (70, False)])
def test_an_unused_explicit_mac_is_accepted_in_and_out_of_range(
    ctx: Context, red: MacPool, number: int, in_range: bool
) -> None:
    vnic = a_vnic(ctx, "a", number, cluster="red")
    assert (vnic.mac, vnic.mac_pool, vnic.in_range) == (mac(number), red.id, in_range)
    assert usage(ctx, red) == ((9, 1, 0, 0) if in_range else (10, 0, 0, 1))


@pytest.mark.parametrize(("first", "second"), [("red", "red"), ("red", "blue"), ("blue", "red")])
def test_an_explicit_mac_in_use_is_refused_unless_both_sides_allow_it(
    ctx: Context, red: MacPool, blue: MacPool, first: str, second: str
) -> None:
    held = a_vnic(ctx, "a", 70, cluster=first)
    facts = refused(ctx, MacTaken, Conflict, "mac-taken", lambda: a_vnic(ctx, "b", 70, cluster=second))
    assert facts == {"mac": str(mac(70)), "holders": [holder("a", held.mac_pool)]}


@pytest.mark.parametrize("value", [0x01_00_5E_00_00_01, 0xFF_FF_FF_FF_FF_FF, 0])
def test_an_explicit_mac_that_no_card_can_own_is_refused(ctx: Context, value: int) -> None:
    wanted = VnicSpec(id="a", vm="vm", name="eth0", mac=Mac(value))
    facts = refused(ctx, MacNotUnicast, Invalid, "mac-not-unicast", lambda: vnics.put(ctx, wanted))
    assert facts == {"field": "mac", "mac": str(Mac(value))}


def test_duplicates_in_use_keep_a_pool_allowing_them(
    ctx: Context, blue: MacPool, shared: list[dict[str, object]]
) -> None:
    facts = refused(
        ctx,
        DuplicatesInUse,
        Conflict,
        "duplicates-in-use",
        lambda: mac_pools.change(ctx, blue.id, PoolChange(allow_duplicates=False)),
    )
    assert facts == {"mac_pool": blue.id, "duplicates": shared}
    vnics.delete_vnic(ctx, "two")
    assert not mac_pools.change(ctx, blue.id, PoolChange(allow_duplicates=False))[0].allow_duplicates


def test_freeing_an_unknown_vnic_is_told(ctx: Context) -> None:
    facts = refused(ctx, VnicNotFound, NotFound, "vnic-not-found", lambda: vnics.delete_vnic(ctx, "none"))
    assert facts == {"vnic": "none"}


def test_the_same_vnic_regains_its_mac_while_it_cools(ctx: Context, clock: Clock, red: MacPool) -> None:
    before = a_vnic(ctx, "a", cluster="red").mac
    vnics.delete_vnic(ctx, "a")
    assert usage(ctx, red) == (9, 0, 1, 0)
    clock.advance(59)
    macs.sweep(ctx)
    assert a_vnic(ctx, "b", cluster="red").mac != before
    assert a_vnic(ctx, "a", cluster="red").mac == before


def test_who_lets_a_shared_mac_go_last_regains_it(ctx: Context, shared: object) -> None:
    for name in ("two", "one"):
        vnics.delete_vnic(ctx, name)
    assert a_vnic(ctx, "one", cluster="blue").mac == mac(20)


def test_a_mac_that_has_cooled_is_free(ctx: Context, clock: Clock, red: MacPool) -> None:
    a_vnic(ctx, "a", cluster="red")
    vnics.delete_vnic(ctx, "a")
    clock.advance(60)
    assert macs.sweep(ctx) == 1
    assert usage(ctx, red) == (10, 0, 0, 0)


def test_after_a_restart_what_is_committed_is_in_use(ctx: Context, clock: Clock, red: MacPool) -> None:
    a_vnic(ctx, "a", cluster="red")
    before = snapshot(ctx)
    again = open_context(ctx.settings, clock)
    assert snapshot(again) == before
    assert a_vnic(again, "b", cluster="red").mac == mac(1)
    again.db.dispose()


def test_a_running_vnic_keeps_its_mac(ctx: Context, red: MacPool, blue: MacPool) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", cluster="red", subnet=subnet.id)
    vnics.start(ctx, "a", wait="none")
    for act in (
        lambda: a_vnic(ctx, "a", 5, cluster="red", subnet=subnet.id),
        lambda: vnics.move(ctx, "a", cluster="blue", new_mac=True),
    ):
        assert refused(ctx, InUse, Conflict, "in-use", act) == {"vnic": "a", "fields": ["mac"]}


# ---- Scopes, moves


def test_a_cluster_is_to_be_known_also_where_the_vm_pool_decides(ctx: Context, red: MacPool) -> None:
    scopes.put(ctx, "vm_pool", "desktops", mac_pool=red.id)
    with pytest.raises(ScopeNotFound):
        vnics.put(ctx, spec("a", cluster="unknown", vm_pool="desktops"))


def test_an_unknown_scope_is_told(ctx: Context) -> None:
    for act in (lambda: a_vnic(ctx, "a", cluster="none"), lambda: scopes.delete_scope(ctx, "cluster", "none")):
        facts = refused(ctx, ScopeNotFound, NotFound, "scope-not-found", act)
        assert facts == {"kind": "cluster", "scope": "none"}


def test_a_scope_in_use_is_not_deleted(ctx: Context, red: MacPool) -> None:
    scopes.put(ctx, "vm_pool", "desktops", parent="red")
    a_vnic(ctx, "a", cluster="red")
    facts = refused(ctx, ScopeInUse, Conflict, "scope-in-use", lambda: scopes.delete_scope(ctx, "cluster", "red"))
    assert facts == {"kind": "cluster", "scope": "red", "children": ["VM pool desktops"], "vnics": ["a"]}


def test_a_scope_with_another_pool_brings_its_vnics_under_its_rules(ctx: Context, red: MacPool, blue: MacPool) -> None:
    before = a_vnic(ctx, "a", cluster="red")
    scopes.put(ctx, "cluster", "red", mac_pool=blue.id)
    after = vnics.get(ctx, "a")
    assert (after.mac, after.mac_pool, after.in_range) == (before.mac, blue.id, False)


def test_a_scope_change_that_would_duplicate_is_refused(
    ctx: Context, red: MacPool, shared: list[dict[str, object]]
) -> None:
    facts = refused(
        ctx, WouldDuplicate, Conflict, "would-duplicate", lambda: scopes.put(ctx, "cluster", "blue", mac_pool=red.id)
    )
    assert facts == {"duplicates": shared}


def test_a_move_that_would_duplicate_is_refused(ctx: Context, red: MacPool, shared: list[dict[str, object]]) -> None:
    facts = refused(ctx, WouldDuplicate, Conflict, "would-duplicate", lambda: vnics.move(ctx, "one", cluster="red"))
    assert facts == {"duplicates": shared}


def test_a_bulk_change_that_would_duplicate_is_refused(ctx: Context, red: MacPool, blue: MacPool) -> None:
    """The one that moves away, and the one that comes, are of the same call."""
    a_vnic(ctx, "a", 20, cluster="blue")
    facts = refused(
        ctx,
        WouldDuplicate,
        Conflict,
        "would-duplicate",
        lambda: vnics.put_all(ctx, [spec("a", cluster="red"), spec("b", 20, cluster="blue")]),
    )
    both = [holder("a", blue.id), holder("b", blue.id)]
    assert facts == {"duplicates": [{"mac": str(mac(20)), "holders": both}]}


def test_a_move_frees_there_and_takes_here(ctx: Context, red: MacPool, blue: MacPool) -> None:
    a_vnic(ctx, "a", cluster="red")
    moved = vnics.move(ctx, "a", cluster="blue", new_mac=True)
    assert (moved.mac, moved.mac_pool, moved.in_range) == (mac(20), blue.id, True)
    assert (usage(ctx, red), usage(ctx, blue)) == ((9, 0, 1, 0), (9, 1, 0, 0))


def test_a_moved_vnic_keeps_its_mac_and_is_freed_where_that_belongs(
    ctx: Context, clock: Clock, red: MacPool, blue: MacPool
) -> None:
    before = a_vnic(ctx, "a", cluster="red")
    moved = vnics.move(ctx, "a", cluster="blue")
    assert (moved.mac, moved.mac_pool, moved.in_range) == (before.mac, blue.id, False)
    vnics.delete_vnic(ctx, "a")
    clock.advance(60)
    macs.sweep(ctx)
    assert (usage(ctx, red), usage(ctx, blue)) == ((10, 0, 0, 0), (10, 0, 0, 0))


# ---- Twins


def test_twins_share_a_mac_on_purpose(ctx: Context, red: MacPool) -> None:
    kept = a_vnic(ctx, "a", cluster="red").mac
    a_vnic(ctx, "b", cluster="red")
    twin = vnics.make_twins(ctx, "b", "a")
    assert (twin.mac, twin.twins, vnics.get(ctx, "a").twins) == (kept, ("a",), ("b",))
    assert usage(ctx, red) == (8, 1, 1, 0)


def test_a_vnic_is_not_its_own_twin(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "a")
    facts = refused(ctx, FieldInvalid, Invalid, "field-invalid", lambda: vnics.make_twins(ctx, "a", "a"))
    assert facts == {"field": "twin", "value": "a"}


def test_a_third_that_is_twin_of_one_only_is_refused(ctx: Context, red: MacPool) -> None:
    for name in "abc":
        a_vnic(ctx, name, cluster="red")
    shared = vnics.make_twins(ctx, "b", "a").mac
    facts = refused(ctx, MacTaken, Conflict, "mac-taken", lambda: vnics.make_twins(ctx, "c", "a"))
    assert facts == {"mac": str(shared), "holders": [holder("a", red.id), holder("b", red.id)]}


def test_parted_twins_have_macs_of_their_own(ctx: Context, red: MacPool) -> None:
    for name in "ab":
        a_vnic(ctx, name, cluster="red")
    vnics.make_twins(ctx, "b", "a")
    parted = vnics.part_twins(ctx, "b", "a")
    assert (parted.mac, parted.twins) == (mac(2), ())
    assert refused(ctx, VnicNotFound, NotFound, "vnic-not-found", lambda: vnics.part_twins(ctx, "b", "a")) == {
        "vnic": "a"
    }


def test_a_vnic_that_changes_its_mac_is_no_twin_any_more(ctx: Context, red: MacPool) -> None:
    for name in "ab":
        a_vnic(ctx, name, cluster="red")
    vnics.make_twins(ctx, "b", "a")
    assert a_vnic(ctx, "b", 9, cluster="red").twins == ()
    assert vnics.get(ctx, "a").twins == ()


def test_twins_are_no_duplicates(ctx: Context, red: MacPool, blue: MacPool) -> None:
    for name in "ab":
        a_vnic(ctx, name, cluster="blue")
    vnics.make_twins(ctx, "b", "a")
    assert vnics.move(ctx, "b", cluster="red").mac_pool == red.id
    assert not mac_pools.change(ctx, blue.id, PoolChange(allow_duplicates=False))[0].allow_duplicates


# ---- Bulk


def test_bulk_allocation_is_sorted(ctx: Context, red: MacPool) -> None:
    made = vnics.put_all(ctx, [spec(name, cluster="red") for name in "cab"])
    assert [(each.id, each.mac) for each in made] == [("a", mac(0)), ("b", mac(1)), ("c", mac(2))]


def test_bulk_is_all_or_nothing(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "held", 5, cluster="red")
    facts = refused(
        ctx,
        MacTaken,
        Conflict,
        "mac-taken",
        lambda: vnics.put_all(ctx, [spec("a", cluster="red"), spec("b", 5, cluster="red")]),
    )
    assert facts == {"mac": str(mac(5)), "holders": [holder("held", red.id)]}


def test_two_of_a_bulk_with_one_mac_are_told_of_each_other(ctx: Context, red: MacPool, blue: MacPool) -> None:
    twice = [spec("a", 5, cluster="red"), spec("b", 5, cluster="red")]
    facts = refused(ctx, MacTaken, Conflict, "mac-taken", lambda: vnics.put_all(ctx, twice))
    assert facts == {"mac": str(mac(5)), "holders": [holder("a", red.id)]}
    made = vnics.put_all(ctx, [spec("a", 25, cluster="blue"), spec("b", 25, cluster="navy")])
    assert [each.mac for each in made] == [mac(25)] * 2


def test_a_vnic_that_comes_twice_is_refused(ctx: Context) -> None:
    for act in (
        lambda: vnics.put_all(ctx, [spec("a"), spec("a")]),
        lambda: vnics.take_in(ctx, [spec("a"), spec("a")]),
    ):
        assert refused(ctx, FieldInvalid, Invalid, "field-invalid", act) == {"field": "vnics", "value": ["a"]}


# ---- Import


def test_an_import_without_reassignment_fills_the_empty_and_reports_the_external(ctx: Context, red: MacPool) -> None:
    done = vnics.take_in(ctx, [spec("a", cluster="red"), spec("b", 70, cluster="red"), spec("c", 5, cluster="red")])
    assert done.reassigned == (Reassigned(vnic="a", before=None, after=mac(0), reason="empty"),)
    assert done.external == ("b",)
    assert [each.mac for each in done.vnics] == [mac(0), mac(70), mac(5)]


def test_an_import_without_reassignment_names_every_holder(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "held", 5, cluster="red")
    multicast = VnicSpec(id="m", vm="vm-m", name="eth0", cluster="red", mac=Mac(0x01_00_5E_00_00_01))
    wanted = [spec("a", 5, cluster="red"), multicast, spec("b", 6, cluster="red"), spec("c", 6, cluster="red")]
    facts = refused(ctx, MacsBad, Conflict, "macs-bad", lambda: vnics.take_in(ctx, wanted))
    assert facts == {
        "bad": [
            {"vnic": "a", "mac": str(mac(5)), "reason": "in-use", "holders": [holder("held", red.id)]},
            {"vnic": "m", "mac": "01:00:5e:00:00:01", "reason": "not-unicast", "holders": []},
            {"vnic": "c", "mac": str(mac(6)), "reason": "in-use", "holders": [holder("b", red.id)]},
        ]
    }


def test_an_import_with_reassignment_maps_old_to_new(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "held", 5, cluster="red")
    wanted = [spec("a", 5, cluster="red"), spec("b", 70, cluster="red"), spec("c", cluster="red"), spec("d", 6)]
    done = vnics.take_in(ctx, wanted, reassign_bad_macs=True)
    assert done.reassigned == (
        Reassigned(vnic="a", before=mac(5), after=mac(0), reason="in-use"),
        Reassigned(vnic="b", before=mac(70), after=mac(1), reason="out-of-range"),
        Reassigned(vnic="c", before=None, after=mac(2), reason="empty"),
    )
    assert done.external == ()
    assert vnics.get(ctx, "d").mac == mac(6)


def test_a_bad_mac_that_the_vnic_had_before_is_not_its_new_one(ctx: Context, red: MacPool) -> None:
    a_vnic(ctx, "a", 70, cluster="red")
    vnics.delete_vnic(ctx, "a")
    done = vnics.take_in(ctx, [spec("a", 70, cluster="red")], reassign_bad_macs=True)
    assert done.reassigned == (Reassigned(vnic="a", before=mac(70), after=mac(0), reason="out-of-range"),)


def test_an_import_may_duplicate_where_all_pools_allow_it(ctx: Context, blue: MacPool) -> None:
    done = vnics.take_in(ctx, [spec("a", 20, cluster="blue"), spec("b", 20, cluster="navy")])
    assert ([each.mac for each in done.vnics], done.reassigned) == ([mac(20)] * 2, ())


def test_of_an_import_one_that_allows_duplicates_does_not_share_with_one_that_does_not(
    ctx: Context, red: MacPool, blue: MacPool
) -> None:
    wanted = [spec("a", 5, cluster="red"), spec("b", 5, cluster="blue")]
    facts = refused(ctx, MacsBad, Conflict, "macs-bad", lambda: vnics.take_in(ctx, wanted))
    assert facts == {"bad": [{"vnic": "b", "mac": str(mac(5)), "reason": "in-use", "holders": [holder("a", red.id)]}]}


def test_a_repeated_import_changes_nothing(ctx: Context, red: MacPool) -> None:
    for name in "ab":
        a_vnic(ctx, name, cluster="red")
    vnics.make_twins(ctx, "b", "a")
    before = snapshot(ctx)
    assert vnics.take_in(ctx, [spec("a", 0, cluster="red"), spec("b", 0, cluster="red")]).reassigned == ()
    assert snapshot(ctx) == before


# ---- Split, merge, grow


def test_a_split_takes_ranges_and_their_vnics_along(ctx: Context, blue: MacPool) -> None:
    a_vnic(ctx, "a", 21, cluster="blue")
    a_vnic(ctx, "b", 26, cluster="blue")
    vnics.delete_vnic(ctx, a_vnic(ctx, "c", 27, cluster="blue").id)
    new = mac_pools.split(ctx, blue.id, name="part", ranges=[span(25, 29)])
    assert (new.ranges, new.allow_duplicates, new.default_pool) == ((span(25, 29),), True, False)
    assert (usage(ctx, blue), usage(ctx, new)) == ((4, 1, 0, 0), (3, 1, 1, 0))
    assert [vnics.get(ctx, name).mac_pool for name in "ab"] == [blue.id, new.id]


@pytest.mark.parametrize("part", [span(0, 9), span(5, 10), span(50, 51)])
def test_a_split_gives_a_part_of_its_own_only(ctx: Context, red: MacPool, part: MacRange) -> None:
    facts = refused(
        ctx, RangeInvalid, Invalid, "range-invalid", lambda: mac_pools.split(ctx, red.id, name="part", ranges=[part])
    )
    assert facts == {"field": "ranges", "mac_pool": red.id}


def test_a_merge_takes_over_ranges_vnics_and_scopes(ctx: Context, red: MacPool, blue: MacPool) -> None:
    a_vnic(ctx, "a", cluster="red")
    merged = mac_pools.merge(ctx, blue.id, red.id)
    assert (merged.ranges, usage(ctx, blue)) == ((span(0, 9), span(20, 29)), (19, 1, 0, 0))
    assert vnics.get(ctx, "a").mac_pool == blue.id
    assert scopes.get(ctx, "cluster", "red").mac_pool == blue.id
    with pytest.raises(MacPoolNotFound):
        mac_pools.get(ctx, red.id)


def test_a_merge_that_would_duplicate_is_refused(
    ctx: Context, red: MacPool, blue: MacPool, shared: list[dict[str, object]]
) -> None:
    facts = refused(ctx, WouldDuplicate, Conflict, "would-duplicate", lambda: mac_pools.merge(ctx, red.id, blue.id))
    assert facts == {"duplicates": shared}


def test_a_merge_with_itself_is_refused(ctx: Context, red: MacPool) -> None:
    facts = refused(ctx, MacPoolInvalid, Invalid, "mac-pool-invalid", lambda: mac_pools.merge(ctx, red.id, red.id))
    assert facts == {"field": "from", "value": red.id}


def test_a_pool_grows_while_it_is_used(ctx: Context, red: MacPool) -> None:
    vnics.put_all(ctx, [spec(f"v{n}", cluster="red") for n in range(10)])
    mac_pools.change(ctx, red.id, PoolChange(ranges=(span(0, 12),)))
    assert a_vnic(ctx, "w", cluster="red").mac == mac(10)
    assert usage(ctx, red) == (2, 11, 0, 0)


# ---- Dry runs


def test_a_dry_run_answers_and_changes_nothing(ctx: Context, red: MacPool, blue: MacPool) -> None:
    for name in "abc":
        a_vnic(ctx, name, cluster="red")
    vnics.make_twins(ctx, "b", "a")
    a_cluster(ctx, "idle", None)
    spare = a_pool(ctx, "spare", span(90, 99))
    before = snapshot(ctx)
    answers = [
        mac_pools.create(ctx, name="new", ranges=[span(60, 69)], dry_run=True).usage.size,
        mac_pools.change(ctx, red.id, PoolChange(ranges=(span(1, 9),)), dry_run=True)[1].out_of_range_count,
        mac_pools.make_default(ctx, red.id, dry_run=True).default_pool,
        mac_pools.split(ctx, red.id, name="part", ranges=[span(0, 4)], dry_run=True).usage.used,
        mac_pools.merge(ctx, blue.id, red.id, dry_run=True).usage.size,
        scopes.put(ctx, "cluster", "red", mac_pool=blue.id, dry_run=True)[0].effective_mac_pool,
        vnics.put(ctx, spec("d", cluster="red"), dry_run=True)[0].mac,
        [each.mac for each in vnics.put_all(ctx, [spec("d", cluster="red"), spec("e", cluster="red")], dry_run=True)],
        vnics.take_in(ctx, [spec("d", 0, cluster="red")], reassign_bad_macs=True, dry_run=True).reassigned[0].after,
        vnics.move(ctx, "c", cluster="blue", new_mac=True, dry_run=True).mac,
        vnics.part_twins(ctx, "b", "a", dry_run=True).mac,
    ]
    mac_pools.delete_pool(ctx, spare.id, dry_run=True)
    scopes.delete_scope(ctx, "cluster", "idle", dry_run=True)
    vnics.delete_vnic(ctx, "c", dry_run=True)
    assert answers == [10, 2, True, 2, 20, blue.id, mac(3), [mac(3), mac(4)], mac(3), mac(20), mac(3)]
    assert snapshot(ctx) == before


# ---- Events


def told_of(ctx: Context, pool: MacPool) -> list[tuple[str, object, object]]:
    found = events.list_events(ctx, limit=100, subject=f"mac-pools/{pool.id}")
    return [(each.type, each.data["free"], each.data["size"]) for each in found]


def test_few_left_is_told_once_on_crossing_the_mark_and_none_left_at_the_end(ctx: Context) -> None:
    pool = a_pool(ctx, "many", span(0, 199))
    a_cluster(ctx, "many", pool)
    vnics.put_all(ctx, [spec(f"v{n:03}", cluster="many") for n in range(179)])
    assert told_of(ctx, pool) == []
    a_vnic(ctx, "x", cluster="many")
    low = ("mac_pool.low", 20, 200)
    assert told_of(ctx, pool) == [low]
    vnics.put_all(ctx, [spec(f"w{n:03}", cluster="many") for n in range(19)])
    assert told_of(ctx, pool) == [low]
    a_vnic(ctx, "y", cluster="many")
    assert told_of(ctx, pool) == [low, ("mac_pool.exhausted", 0, 200)]


def test_the_mark_is_never_below_the_count_that_is_set(ctx: Context) -> None:
    pool = a_pool(ctx, "some", span(0, 19))
    a_cluster(ctx, "some", pool)
    vnics.put_all(ctx, [spec(f"v{n:03}", cluster="some") for n in range(9)])
    assert told_of(ctx, pool) == []
    a_vnic(ctx, "x", cluster="some")
    assert told_of(ctx, pool) == [("mac_pool.low", 10, 20)]


def test_explicit_macs_count_too(ctx: Context) -> None:
    pool = a_pool(ctx, "some", span(0, 11))
    for number in range(12):
        vnics.put(ctx, spec(f"v{number:03}", number))
    assert told_of(ctx, pool) == [("mac_pool.low", 10, 12), ("mac_pool.exhausted", 0, 12)]


def test_ranges_that_go_and_leave_few_are_told_too(ctx: Context) -> None:
    shrunk, cut = a_pool(ctx, "shrunk", span(0, 39)), a_pool(ctx, "cut", span(100, 139))
    a_cluster(ctx, "cut", cut)
    vnics.put_all(ctx, [spec(f"v{n}", 130 + n, cluster="cut") for n in range(10)])
    mac_pools.change(ctx, shrunk.id, PoolChange(ranges=(span(0, 4),)), dry_run=True)
    mac_pools.change(ctx, shrunk.id, PoolChange(ranges=(span(0, 10),)))
    assert told_of(ctx, shrunk) == []
    mac_pools.change(ctx, shrunk.id, PoolChange(ranges=(span(0, 4),)))
    mac_pools.change(ctx, shrunk.id, PoolChange(ranges=(span(0, 3),)))
    mac_pools.split(ctx, cut.id, name="part", ranges=[span(100, 129)])
    assert told_of(ctx, shrunk) == [("mac_pool.low", 5, 5)]
    assert told_of(ctx, cut) == [("mac_pool.low", 0, 10), ("mac_pool.exhausted", 0, 10)]


def test_a_refused_or_dry_call_tells_nothing(ctx: Context, red: MacPool) -> None:
    all_ten = [spec(f"v{n}", cluster="red") for n in range(10)]
    vnics.put_all(ctx, all_ten, dry_run=True)
    with pytest.raises(VnicNotFound):
        vnics.move(ctx, "none", cluster="red")
    assert told_of(ctx, red) == []


# ---- Legacy overlaps


@pytest.fixture
def legacy(ctx: Context, red: MacPool) -> MacPool:
    """A pool of ten MACs, of which five are pool red's too, as an import may leave it."""
    pool = a_pool(ctx, "legacy", span(10, 14))
    a_cluster(ctx, "legacy", pool)
    with ctx.db.write() as connection:
        connection.execute(insert(t.mac_ranges).values(mac_pool_id=pool.id, first=mac(5).value, last=mac(9).value))
        space = connection.execute(select(t.mac_pools.c.space_id).where(t.mac_pools.c.id == pool.id)).scalar_one()
        extents.insert_extents(connection, space, [(mac(5).value, mac(9).value)], size=5)
    return pool


def test_legacy_overlaps_are_listed_once_each_until_they_are_resolved(
    ctx: Context, red: MacPool, legacy: MacPool
) -> None:
    (found,) = mac_ranges.overlaps(ctx)
    one, other = sorted([(red.id, span(0, 9)), (legacy.id, span(5, 9))])
    assert ((found.mac_pool, found.range), (found.other_pool, found.other_range)) == (one, other)
    mac_pools.change(ctx, legacy.id, PoolChange(ranges=(span(10, 14),)))
    assert mac_ranges.overlaps(ctx) == []


def test_a_legacy_overlap_that_a_change_keeps_is_left_alone_and_a_new_one_is_refused(
    ctx: Context, red: MacPool, legacy: MacPool
) -> None:
    kept = PoolChange(name="heritage", ranges=(span(5, 9), span(10, 19)))
    assert mac_pools.change(ctx, legacy.id, kept)[0].ranges == (span(5, 9), span(10, 19))
    facts = refused(
        ctx,
        RangesOverlapPools,
        Conflict,
        "ranges-overlap-pools",
        lambda: mac_pools.change(ctx, legacy.id, PoolChange(ranges=(span(4, 9),))),
    )
    assert facts == {
        "overlaps": [{"range": told(span(4, 9)), "mac_pool": red.id, "name": "red", "other_range": told(span(0, 9))}]
    }


def test_a_mac_of_a_legacy_overlap_is_drawn_once_and_comes_back_to_both(
    ctx: Context, clock: Clock, red: MacPool, legacy: MacPool
) -> None:
    made = vnics.put_all(ctx, [spec(f"v{n:02}", cluster="legacy") for n in range(10)])
    assert {each.mac for each in made} == {mac(n) for n in range(5, 15)}
    assert (usage(ctx, red), usage(ctx, legacy)) == ((5, 5, 0, 0), (0, 10, 0, 0))
    for each in made:
        vnics.delete_vnic(ctx, each.id)
    clock.advance(60)
    macs.sweep(ctx)
    assert (usage(ctx, red), usage(ctx, legacy)) == ((10, 0, 0, 0), (10, 0, 0, 0))


def test_a_merge_of_overlapping_pools_joins_what_both_have(ctx: Context, red: MacPool, legacy: MacPool) -> None:
    a_vnic(ctx, "a", 7, cluster="legacy")
    assert mac_pools.merge(ctx, red.id, legacy.id).usage.size == 15
    assert usage(ctx, red) == (14, 1, 0, 0)
    assert mac_ranges.overlaps(ctx) == []
