"""The engine's full list: what is new, other, missing, back again, and what runs."""

from typing import Any

import pytest
from netaddr import IPAddress

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import Imported, Synced, Updated, VnicSighting, VnicSpec
from leasehold.errors import FieldInvalid, NetworkNotFound
from leasehold.service import doctor, mac_pools, networks, reservations, scopes, vnics
from leasehold.service.context import Context
from service.conftest import Clock
from service.test_life_of_an_address import a_server, a_subnet, a_vnic, push, start

MAC = Mac.parse("02:00:00:00:00:99")
GRACE_S = 600


def seen(name: str, *, running: bool | None = None, **fields: Any) -> VnicSighting:
    told = {"vm": f"vm-{name}", "name": "eth0"} | fields
    return VnicSighting(id=name, fields=told, running=running)  # type: ignore[arg-type]


def sync(ctx: Context, *sightings: VnicSighting, **options: Any) -> Synced:
    return vnics.sync(ctx, sightings, **options)


def names(ctx: Context) -> list[str]:
    return [each.id for each in vnics.list_vnics(ctx, limit=100)]


def test_a_list_that_is_as_it_is_here_changes_nothing(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    mac = a_vnic(ctx, "a", subnet).mac
    a_vnic(ctx, "b", None)
    start(ctx, "a")
    before = vnics.list_vnics(ctx, limit=10)
    same = (seen("a", running=True, mac=mac, subnet=subnet.id), seen("b", running=False))
    assert sync(ctx, *same) == Synced(unchanged=2)
    assert vnics.list_vnics(ctx, limit=10) == before


def test_unknown_ones_are_created_and_started(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    found = sync(ctx, seen("a", mac=MAC, subnet=subnet.id, running=True), seen("b"))
    assert found == Synced(created=("a", "b"), external=("a",), started=("a",))
    assert (vnics.get(ctx, "a").mac, str(vnics.get(ctx, "a").ip)) == (MAC, "192.0.2.1")
    assert not vnics.get(ctx, "b").running


def test_what_changed_is_told_by_its_fields_and_what_is_not_said_stays(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    before = a_vnic(ctx, "a", subnet)
    found = sync(ctx, seen("a", vm="other", mac=MAC))
    assert found == Synced(updated=(Updated(vnic="a", fields=("vm", "mac")),), external=("a",))
    after = vnics.get(ctx, "a")
    assert (after.vm, after.mac, after.subnet) == ("other", MAC, before.subnet)


def test_the_address_of_what_runs_follows(ctx: Context) -> None:
    here, there = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    a_vnic(ctx, "a", here)
    start(ctx, "a")
    sync(ctx, seen("a", subnet=there.id))
    assert (str(vnics.get(ctx, "a").ip), vnics.get(ctx, "a").ip_state) == ("198.51.100.1", "held")
    reservations.sweep(ctx)
    assert doctor.examine(ctx) == []


def test_a_missing_one_is_let_go_on_the_second_sighting_after_the_grace_time(ctx: Context, clock: Clock) -> None:
    a_vnic(ctx, "a", None)
    a_vnic(ctx, "b", None)
    assert sync(ctx, seen("b")) == Synced(marked=("a",), unchanged=1)
    assert vnics.get(ctx, "a").missing_since == clock.now
    clock.advance(GRACE_S - 1)
    assert sync(ctx, seen("b")) == Synced(missing=("a",), unchanged=1)
    clock.advance(1)
    assert sync(ctx, seen("b"), dry_run=True) == Synced(deleted=("a",), unchanged=1)
    assert names(ctx) == ["a", "b"]
    assert sync(ctx, seen("b")) == Synced(deleted=("a",), unchanged=1)
    assert names(ctx) == ["b"]
    assert sync(ctx, seen("b")) == Synced(unchanged=1)


def test_one_sighting_however_late_lets_nothing_go(ctx: Context, clock: Clock) -> None:
    a_vnic(ctx, "a", None)
    clock.advance(10 * GRACE_S)
    assert sync(ctx, allow_empty=True) == Synced(marked=("a",))
    assert names(ctx) == ["a"]


def test_one_that_is_back_is_unmarked(ctx: Context, clock: Clock) -> None:
    a_vnic(ctx, "a", None)
    sync(ctx, allow_empty=True)
    assert sync(ctx, seen("a")) == Synced(returned=("a",))
    assert vnics.get(ctx, "a").missing_since is None
    clock.advance(GRACE_S)
    assert sync(ctx, allow_empty=True) == Synced(marked=("a",))


@pytest.mark.parametrize("touch", ["put", "start", "change"])
def test_one_that_the_engine_touches_is_not_missing(ctx: Context, clock: Clock, touch: str) -> None:
    a_vnic(ctx, "a", None)
    sync(ctx, allow_empty=True)
    if touch == "put":
        a_vnic(ctx, "a", None)
    elif touch == "start":
        vnics.start(ctx, "a")
    else:
        vnics.change(ctx, "a", {"name": "eth1"})
    clock.advance(GRACE_S)
    assert sync(ctx, allow_empty=True) == Synced(marked=("a",))


def test_a_missing_one_that_runs_gives_its_address_back(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    sync(ctx, allow_empty=True)
    assert vnics.get(ctx, "a").ip_state == "held"
    clock.advance(GRACE_S)
    sync(ctx, allow_empty=True)
    assert names(ctx) == []
    reservations.sweep(ctx)
    assert doctor.examine(ctx) == []


def test_an_empty_list_is_refused_unless_it_is_meant(ctx: Context) -> None:
    a_vnic(ctx, "a", None)
    with pytest.raises(FieldInvalid, match="allow_empty"):
        sync(ctx)
    assert vnics.get(ctx, "a").missing_since is None


def test_what_does_not_run_is_stopped_and_what_runs_is_started(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "down", subnet)
    a_vnic(ctx, "up", subnet)
    a_vnic(ctx, "left", subnet)
    for name in ("down", "left"):
        start(ctx, name)
    found = sync(ctx, seen("down", running=False), seen("up", running=True), seen("left"))
    assert found == Synced(started=("up",), stopped=("down",), unchanged=1)
    assert [vnics.get(ctx, name).ip_state for name in ("down", "up", "left")] == ["draining", "held", "held"]


def test_what_runs_without_an_address_gets_one(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    vnics.start(ctx, "a")
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    assert sync(ctx, seen("a", running=True)) == Synced(started=("a",))
    assert vnics.get(ctx, "a").ip_state == "held"


def test_what_waits_since_its_mac_changed_is_left_to_wait(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    found = sync(ctx, seen("a", mac=MAC, running=True))
    assert (found.started, vnics.get(ctx, "a").ip_state) == ((), "draining")
    push(ctx, "one", subnet)
    assert vnics.settle(ctx) == 1
    assert str(vnics.get(ctx, "a").ip) == first


def test_a_full_subnet_keeps_one_from_its_address_and_none_from_the_sync(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/30", gateway=IPAddress("192.0.2.1"))
    found = sync(ctx, *(seen(name, subnet=subnet.id, running=True) for name in "ab"))
    assert (found.created, found.started) == (("a", "b"), ("a",))
    (refused,) = found.not_started
    assert (refused.vnic, refused.code) == ("b", "subnet-exhausted")


def test_a_mac_in_use_is_refused_for_its_vnic_alone(ctx: Context) -> None:
    a_vnic(ctx, "a", None, str(MAC))
    mac = a_vnic(ctx, "b", None).mac
    found = sync(ctx, seen("a"), seen("b", vm="other", mac=MAC), seen("c", mac=MAC), seen("d"))
    assert [(each.vnic, each.mac, each.reason, each.holders) for each in found.refused] == [
        ("b", MAC, "in-use", ("a",)),
        ("c", MAC, "in-use", ("a",)),
    ]
    assert (found.created, found.updated) == (("d",), (Updated(vnic="b", fields=("vm",)),))
    assert vnics.get(ctx, "b").mac == mac


def test_a_mac_in_use_is_replaced_if_asked(ctx: Context) -> None:
    a_vnic(ctx, "a", None, str(MAC))
    found = sync(ctx, seen("a"), seen("c", mac=MAC), reassign_bad_macs=True)
    (new,) = found.reassigned
    assert (new.vnic, new.before, new.after) == ("c", MAC, vnics.get(ctx, "c").mac)
    assert new.after != MAC


def test_a_dry_run_says_all_and_does_nothing(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    for name in "abc":
        a_vnic(ctx, name, subnet)
    start(ctx, "a")
    before = vnics.list_vnics(ctx, limit=10)
    wanted = (seen("a", running=False), seen("b", vm="other", running=True), seen("d", mac=MAC))
    would = sync(ctx, *wanted, dry_run=True)
    assert vnics.list_vnics(ctx, limit=10) == before
    assert sync(ctx, *wanted) == would == Synced(
        created=("d",),
        updated=(Updated(vnic="b", fields=("vm",)),),
        external=("d",),
        marked=("c",),
        started=("b",),
        stopped=("a",),
    )  # fmt: skip


def test_what_does_not_fit_stops_its_step_and_changes_nothing_of_it(ctx: Context) -> None:
    with pytest.raises(NetworkNotFound):
        sync(ctx, seen("a"), seen("b", network="none"))
    assert names(ctx) == []


def test_an_id_that_comes_twice_is_refused(ctx: Context) -> None:
    with pytest.raises(FieldInvalid, match="more than once"):
        sync(ctx, seen("a"), seen("a"))


# ---- as many as an engine has


def test_forty_thousand_at_once(ctx: Context) -> None:
    """More than SQLite takes parameters in a statement (32,766): imported, seen again, and missing."""
    pool = mac_pools.create(ctx, name="large", ranges=[MacRange(Mac(0x020000000000), Mac(0x02000000FFFF))])
    scopes.put(ctx, "cluster", "c", mac_pool=pool.id)
    specs = [
        VnicSpec(id=f"v{n:05}", vm="vm", name="nic", cluster="c", mac=Mac(0x020000000000 + n) if n < 39_000 else None)
        for n in range(40_000)
    ]
    imported = vnics.take_in(ctx, specs)
    assert isinstance(imported, Imported)
    assert len({each.mac for each in imported.vnics}) == 40_000
    usage = mac_pools.get(ctx, pool.id).usage
    assert (usage.used, usage.free) == (40_000, 2**16 - 40_000)
    listed = [VnicSighting(id=each.id, fields={"vm": "vm", "name": "nic"}) for each in specs[:-1]]
    assert vnics.sync(ctx, listed) == Synced(marked=("v39999",), unchanged=39_999)
