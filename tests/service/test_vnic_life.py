"""What becomes of a vNIC's address when its MAC, network or subnet changes while it runs, and how twins share one."""

from typing import Any

import pytest
from netaddr import IPAddress
from sqlalchemy import update

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import Subnet, VnicChange, VnicSpec
from leasehold.errors import (
    InUse,
    MacReserved,
    NotConfirmed,
    RevisionMismatch,
    SubnetExhausted,
    VnicNotFound,
)
from leasehold.service import mac_pools, networks, reservations, scopes, subnets, vnics
from leasehold.service.context import Context
from leasehold.store.tables import hosts
from service.conftest import Clock
from service.statements import sent_to
from service.test_life_of_an_address import a_server, a_subnet, a_vnic, push, start

OTHER = Mac.parse("02:00:00:00:00:99")


def held(ctx: Context, subnet: Subnet) -> dict[str, str]:
    """The reservations of a subnet: MAC to address."""
    return {str(each.mac): str(each.ip) for each in reservations.list_reservations(ctx, subnet.id, limit=100)}


def change(ctx: Context, name: str, **options: Any) -> str | None:
    """The address that the vNIC holds after a change that nobody waits for."""
    wanted = VnicChange(**options)  # type: ignore[typeddict-item]
    ip = vnics.change(ctx, name, wanted, wait="none").ip
    return None if ip is None else str(ip)


def cut_off(ctx: Context, host: str, reason: str | None = "no route to host") -> None:
    with ctx.db.write() as connection:
        connection.execute(update(hosts).where(hosts.c.id == host).values(unreachable_reason=reason))


def catch_up(ctx: Context, host: str, subnet: Subnet) -> None:
    while push(ctx, host, subnet) is not None:
        pass


# ---- another MAC while it runs


def test_with_another_mac_the_address_is_kept_once_every_server_let_the_old_one_go(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    for host in ("one", "two"):
        a_server(ctx, host, subnet)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    for host in ("one", "two"):
        catch_up(ctx, host, subnet)
    assert change(ctx, "a", mac=OTHER) is None
    assert (held(ctx, subnet), vnics.settle(ctx)) == ({}, 0)
    catch_up(ctx, "one", subnet)
    assert (held(ctx, subnet), vnics.settle(ctx)) == ({}, 0)
    catch_up(ctx, "two", subnet)
    assert (vnics.settle(ctx), vnics.settle(ctx)) == (1, 0)
    assert held(ctx, subnet) == {str(OTHER): first}
    assert vnics.get(ctx, "a").running


def test_a_change_of_mac_waits_for_the_servers_and_then_says_so(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    with pytest.raises(NotConfirmed, match="old MAC") as refusal:
        vnics.change(ctx, "a", {"mac": OTHER})
    assert refusal.value.facts["ip"] is None
    catch_up(ctx, "one", subnet)
    with pytest.raises(NotConfirmed) as refusal:
        vnics.start(ctx, "a")
    assert refusal.value.facts["ip"] == first
    catch_up(ctx, "one", subnet)
    started = vnics.start(ctx, "a", wait="all")
    assert (str(started.ip), started.mac, started.servers[0].state) == (first, OTHER, "confirmed")


def test_a_server_that_does_not_answer_costs_the_address_and_not_the_service(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_server(ctx, "cut-off", subnet)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    cut_off(ctx, "cut-off")
    second = change(ctx, "a", mac=OTHER)
    assert second not in (None, first)
    assert held(ctx, subnet) == {str(OTHER): second}
    assert subnets.get(ctx, subnet.id).usage.draining == 1


def test_a_server_that_stops_answering_meanwhile_does_too(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    assert change(ctx, "a", mac=OTHER) is None
    cut_off(ctx, "one")
    assert vnics.settle(ctx) == 1
    assert held(ctx, subnet)[str(OTHER)] != first


def test_in_a_full_subnet_a_change_of_mac_waits_and_loses_nothing(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/30", gateway=IPAddress("192.0.2.1"))
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    assert change(ctx, "a", mac=OTHER) is None
    cut_off(ctx, "one")
    assert (vnics.settle(ctx), held(ctx, subnet)) == (0, {})
    cut_off(ctx, "one", None)
    catch_up(ctx, "one", subnet)
    assert vnics.settle(ctx) == 1
    assert held(ctx, subnet) == {str(OTHER): "192.0.2.2"}


def test_where_no_server_has_it_the_address_goes_over_at_once(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    assert change(ctx, "a", mac=OTHER) == first
    assert held(ctx, subnet) == {str(OTHER): first}


def test_a_change_back_before_the_servers_heard_of_it_restores_the_address(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    mac = a_vnic(ctx, "a", subnet).mac
    first = start(ctx, "a")
    assert change(ctx, "a", mac=OTHER) is None
    assert change(ctx, "a", mac=mac) == first
    assert held(ctx, subnet) == {str(mac): first}


def test_a_vnic_that_is_stopped_while_its_address_waits_gets_none(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    change(ctx, "a", mac=OTHER)
    vnics.stop(ctx, "a")
    catch_up(ctx, "one", subnet)
    assert (vnics.settle(ctx), held(ctx, subnet)) == (0, {})


def test_mac_none_draws_another(ctx: Context) -> None:
    mac = a_vnic(ctx, "a", None).mac
    assert vnics.change(ctx, "a", {"mac": None}).mac != mac
    assert vnics.change(ctx, "a", {"name": "eth1"}).vnic.name == "eth1"


# ---- another subnet while it runs


def test_on_another_subnet_it_has_an_address_of_there_in_one_step(ctx: Context) -> None:
    here, there = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    a_server(ctx, "one", here)
    mac = a_vnic(ctx, "a", here).mac
    start(ctx, "a")
    assert change(ctx, "a", subnet=there.id) == "198.51.100.1"
    assert (held(ctx, here), held(ctx, there)) == ({}, {str(mac): "198.51.100.1"})
    assert subnets.get(ctx, here.id).usage.draining == 1


def test_a_full_subnet_refuses_the_change_and_the_old_address_stays(ctx: Context) -> None:
    here, there = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/30", gateway=IPAddress("198.51.100.1"))
    mac = a_vnic(ctx, "a", here).mac
    a_vnic(ctx, "b", there)
    first = start(ctx, "a")
    start(ctx, "b")
    with pytest.raises(SubnetExhausted):
        change(ctx, "a", subnet=there.id)
    assert held(ctx, here) == {str(mac): first}
    assert vnics.get(ctx, "a").subnet == here.id


def test_off_its_subnet_it_runs_on_without_ipam_service(ctx: Context) -> None:
    here = a_subnet(ctx)
    a_vnic(ctx, "a", here)
    start(ctx, "a")
    changed = vnics.change(ctx, "a", {"subnet": None})
    assert (changed.ipam, changed.ip, changed.vnic.running, changed.vnic.network) == (False, None, True, "blue")
    assert held(ctx, here) == {}
    assert change(ctx, "a", subnet=here.id) is not None


def test_another_network_takes_it_off_its_subnet(ctx: Context) -> None:
    networks.put(ctx, "red", ipam_enabled=True, ipam_servers=1)
    a_vnic(ctx, "a", a_subnet(ctx))
    start(ctx, "a")
    changed = vnics.change(ctx, "a", {"network": "red"}).vnic
    assert (changed.network, changed.subnet) == ("red", None)


def test_a_dry_run_of_a_change_says_what_would_be_and_changes_nothing(ctx: Context) -> None:
    here, there = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    a_vnic(ctx, "a", here)
    start(ctx, "a")
    before = vnics.get(ctx, "a"), held(ctx, here)
    would = vnics.change(ctx, "a", {"subnet": there.id}, dry_run=True)
    assert str(would.ip) == "198.51.100.1"
    assert (vnics.get(ctx, "a"), held(ctx, here)) == before


def test_a_change_of_what_changed_meanwhile_is_refused(ctx: Context) -> None:
    read = a_vnic(ctx, "a", None)
    changed = vnics.change(ctx, "a", {"name": "eth1"}, revision=read.revision).vnic
    assert changed.revision == read.revision + 1
    with pytest.raises(RevisionMismatch) as refusal:
        vnics.change(ctx, "a", {"name": "eth2"}, revision=read.revision)
    assert refusal.value.facts == {"vnic": "a", "expected": 1, "revision": 2}


def test_what_changes_nothing_leaves_the_revision(ctx: Context) -> None:
    once = a_vnic(ctx, "a", None)
    assert a_vnic(ctx, "a", None) == once
    assert vnics.change(ctx, "a", {"name": once.name}).vnic == once


# ---- started again, and deleted


def test_a_migrated_vnic_keeps_its_address_while_the_rest_of_the_subnet_is_taken(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/30", gateway=IPAddress("192.0.2.1"))
    a_vnic(ctx, "a", subnet)
    assert [start(ctx, "a") for _ in range(3)] == ["192.0.2.2"] * 3


def test_a_vnic_deleted_while_it_runs_lets_address_and_mac_go(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    vnics.delete_vnic(ctx, "a")
    assert held(ctx, subnet) == {}
    assert subnets.get(ctx, subnet.id).usage.draining == 1
    with pytest.raises(VnicNotFound):
        vnics.start(ctx, "a")


def test_an_undone_snapshot_brings_mac_and_address_back(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    mac = a_vnic(ctx, "a", subnet).mac
    first = start(ctx, "a")
    vnics.delete_vnic(ctx, "a")
    a_vnic(ctx, "b", subnet)
    start(ctx, "b")
    assert a_vnic(ctx, "a", subnet).mac == mac
    assert start(ctx, "a") == first


# ---- the MAC that it had


def ranges(first: int, last: int) -> tuple[MacRange, ...]:
    return (MacRange(Mac(0x020000000000 + first), Mac(0x020000000000 + last)),)


def test_a_regained_mac_that_the_subnet_does_not_take_is_drawn_anew(ctx: Context, clock: Clock) -> None:
    pool = mac_pools.create(ctx, name="tied", ranges=ranges(0, 99))
    scopes.put(ctx, "cluster", "c", mac_pool=pool.id)
    tied = a_subnet(ctx, mac_ranges=ranges(50, 59))
    spec = VnicSpec(id="a", vm="vm", name="eth0", cluster="c")
    outside = vnics.put(ctx, spec)[0].mac
    vnics.delete_vnic(ctx, "a")
    named = VnicSpec(id="a", vm="vm", name="eth0", cluster="c", subnet=tied.id)
    assert vnics.put(ctx, named)[0].mac in ranges(50, 59)[0]
    clock.advance(1)
    vnics.delete_vnic(ctx, "a")
    assert vnics.put(ctx, named)[0].mac in ranges(50, 59)[0], "although it let the other go, too"
    assert outside not in ranges(50, 59)[0]


def test_a_regained_mac_comes_back_although_its_scope_has_another_pool_by_now(ctx: Context) -> None:
    first, second = (mac_pools.create(ctx, name=f"p{n}", ranges=ranges(n * 100, n * 100 + 99)) for n in range(2))
    scopes.put(ctx, "cluster", "c", mac_pool=first.id)
    spec = VnicSpec(id="a", vm="vm", name="eth0", cluster="c")
    mac = vnics.put(ctx, spec)[0].mac
    vnics.delete_vnic(ctx, "a")
    scopes.put(ctx, "cluster", "c", mac_pool=second.id)
    again = vnics.put(ctx, spec)[0]
    assert (again.mac, again.mac_pool, again.in_range) == (mac, second.id, False)


# ---- twins


def twins_on(ctx: Context, subnet: Subnet) -> Mac:
    mac = a_vnic(ctx, "a", subnet).mac
    a_vnic(ctx, "b", subnet)
    vnics.make_twins(ctx, "b", "a")
    return mac


def test_twins_on_one_subnet_share_one_address(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    mac = twins_on(ctx, subnet)
    assert start(ctx, "a") == start(ctx, "b") == start(ctx, "b")
    assert held(ctx, subnet) == {str(mac): "192.0.2.1"}
    assert [vnics.get(ctx, name).ip_state for name in "ab"] == ["held", "held"]
    assert subnets.get(ctx, subnet.id).revision == 1


@pytest.mark.parametrize("end", [vnics.stop, vnics.delete_vnic])
def test_the_address_stays_with_the_twin_that_runs_on(ctx: Context, end: Any) -> None:
    subnet = a_subnet(ctx)
    mac = twins_on(ctx, subnet)
    first = start(ctx, "a")
    start(ctx, "b")
    end(ctx, "a")
    assert held(ctx, subnet) == {str(mac): first}
    assert subnets.get(ctx, subnet.id).revision == 1, "no server has anything to do"
    assert str(vnics.get(ctx, "b").ip) == first
    end(ctx, "b")
    assert held(ctx, subnet) == {}


def test_a_twin_that_does_not_run_keeps_no_address(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    twins_on(ctx, subnet)
    start(ctx, "a")
    start(ctx, "b")
    vnics.stop(ctx, "b")
    vnics.stop(ctx, "a")
    assert held(ctx, subnet) == {}


def test_a_standby_twin_takes_the_address_over(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx)
    twins_on(ctx, subnet)
    first = start(ctx, "a")
    start(ctx, "b")
    vnics.stop(ctx, "a")
    reservations.sweep(ctx)
    clock.advance(3600)
    reservations.sweep(ctx)
    assert start(ctx, "b") == start(ctx, "a") == first


def test_a_twin_cannot_have_an_address_of_its_own_for_the_shared_mac(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    twins_on(ctx, subnet)
    start(ctx, "a")
    with pytest.raises(MacReserved) as refusal:
        start(ctx, "b", ip=IPAddress("192.0.2.7"))
    assert (refusal.value.facts["holder"], refusal.value.facts["ip"]) == ("a", "192.0.2.1")
    assert start(ctx, "b", ip=IPAddress("192.0.2.1")) == "192.0.2.1"


def test_who_is_no_twin_does_not_share(ctx: Context) -> None:
    pool = mac_pools.create(ctx, name="shared", ranges=ranges(0, 9), allow_duplicates=True)
    scopes.put(ctx, "cluster", "c", mac_pool=pool.id)
    subnet = a_subnet(ctx)
    for name in "ab":
        vnics.put(
            ctx,
            VnicSpec(id=name, vm="vm", name="eth0", cluster="c", subnet=subnet.id, mac=ranges(0, 0)[0].first),
        )
    start(ctx, "a")
    with pytest.raises(MacReserved, match="twins"):
        start(ctx, "b")
    assert not vnics.get(ctx, "b").running


def test_a_twin_on_another_subnet_has_an_address_of_its_own(ctx: Context) -> None:
    here, there = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    mac = a_vnic(ctx, "a", here).mac
    a_vnic(ctx, "b", there)
    vnics.make_twins(ctx, "b", "a")
    start(ctx, "a")
    start(ctx, "b")
    vnics.stop(ctx, "a")
    assert (held(ctx, here), held(ctx, there)) == ({}, {str(mac): "198.51.100.1"})


def test_a_put_while_it_runs_points_to_patch(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    with pytest.raises(InUse, match="PATCH /v1/vnics/a"):
        a_vnic(ctx, "a", None)


# ---- what it costs


def test_one_is_put_with_few_statements(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    scopes.put(ctx, "data_center", "dc")
    scopes.put(ctx, "cluster", "c", parent="dc")

    def sent(name: str) -> int:
        with sent_to(ctx.db.engine) as statements:
            vnics.put(ctx, VnicSpec(id=name, vm="vm", name="eth0", cluster="c", subnet=subnet.id))
        return len(statements)

    assert sent("a") <= 16
    assert sent("a") <= 7
