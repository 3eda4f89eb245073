"""Hosts that serve again after they did not, and databases that were replaced below them, on real Keas."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from netaddr import IPAddress

from lab import Lab
from lab.dhcp import Type
from lab.host import Host as LabHost
from lab.vm import Vm
from leasehold.domain.values import VnicSpec
from leasehold.errors import SubnetRecovering
from leasehold.service import events, fencing, hosts, lineage, networks, subnets, vnics
from leasehold.service.replication import epoch_of
from worker.site import Site


@pytest.fixture
def segment(site: Site, lab: Lab) -> Vm:
    """A place on the network for any number of guests."""
    return lab.vm("segment", "blue", "02:ff:00:00:00:01")


def acquire(segment: Vm, mac: object) -> str | None:
    """A guest's DORA; the address that was acknowledged, or None."""
    with segment.raw_client(str(mac)) as client:
        offer = client.discover(silence_s=2)
        answer = None if offer is None else client.select(offer, silence_s=2)
        return None if answer is None or answer.type is not Type.ACK else answer.yiaddr


def leases(host: LabHost) -> dict[str, str]:
    """The MACs that Kea has leases of, by address."""
    answer = host.command("lease4-get-all")
    return {each["ip-address"]: each["hw-address"] for each in answer.get("arguments", {"leases": []})["leases"]}


def epoch(site: Site) -> str:
    with site.ctx.db.read() as connection:
        return epoch_of(connection)


def swap(site: Site, mac_of: Callable[[str], object]) -> tuple[str, str]:
    """Lets vNICs 1 and 2 have each other's address; returns their MACs."""
    ips = {name: vnics.get(site.ctx, name).ip for name in ("vnic-1", "vnic-2")}
    for name in ips:
        vnics.delete_vnic(site.ctx, name)
    site.until(lambda: not subnets.list_subnets(site.ctx)[0].usage.draining, "nothing drains")
    site.until(lambda: not subnets.list_subnets(site.ctx)[0].usage.cooling, "nothing cools")
    (subnet,) = subnets.list_subnets(site.ctx)
    for name, other in (("vnic-3", "vnic-2"), ("vnic-4", "vnic-1")):
        vnics.put(site.ctx, VnicSpec(id=name, vm="vm", name="eth0", network="blue", subnet=subnet.id))
        vnics.start(site.ctx, name, ip=ips[other])
    return str(mac_of("vnic-3")), str(mac_of("vnic-4"))


def test_leases_of_an_earlier_life_do_not_stand_in_the_way_of_new_owners(site: Site, segment: Vm) -> None:
    """host-a served, stopped, and serves again: what it leased then is others' by now."""
    first = site.add_host("host-a")
    second = site.add_host("host-b")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    for number in (1, 2):
        start = site.started(number)
        assert acquire(segment, start.mac) == str(start.ip)
    assert len(leases(first)) == 2
    fencing.begin_maintenance(site.ctx, "host-a", by="test")
    site.wait_for(host_b="running")
    assert hosts.show(site.ctx, "host-a").state == "maintenance"
    new = swap(site, lambda name: vnics.get(site.ctx, name).mac)
    assert len(leases(first)) == 2
    assert not set(leases(first).values()) & set(new)
    fencing.activate(site.ctx, "host-a", by="test")
    fencing.begin_maintenance(site.ctx, "host-b", by="test")
    site.wait_for(host_a="running")
    second.cut("blue")
    promised = {str(each.mac): str(each.ip) for each in vnics.list_vnics(site.ctx, limit=9) if each.running}
    assert {mac: acquire(segment, mac) for mac in new} == promised
    assert leases(first) == {ip: mac for mac, ip in promised.items()}


def test_a_host_that_was_cut_off_gives_up_what_was_released_before_it_counts(site: Site, segment: Vm) -> None:
    """Its leases are gone too, so that the address's next owner gets it there."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    start = site.started(1)
    assert acquire(segment, start.mac) == str(start.ip)
    host.stop_agent()
    site.wait_for(host_a="unreachable")
    vnics.stop(site.ctx, "vnic-1")
    assert subnets.get(site.ctx, subnet.id).usage.draining == 1
    host.start_agent()
    site.wait_for(host_a="running")
    assert leases(host) == {}
    assert acquire(segment, start.mac) is None


def test_maintenance_leaves_nothing_behind_and_activation_brings_no_swap(site: Site) -> None:
    first = site.add_host("host-a")
    site.add_host("host-b")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    site.started(1)
    fencing.begin_maintenance(site.ctx, "host-a", by="test")
    site.wait_for(host_b="running")
    assert first.status()["managed-subnets"] == []
    assert hosts.show(site.ctx, "host-a").state == "maintenance"
    since = site.servers()["host-b"].since
    fencing.activate(site.ctx, "host-a", by="test")
    asked_at = site.ctx.clock()
    site.until(lambda: site.answered_since("host-a", asked_at), "the manager made another pass")
    assert site.servers().keys() == {"host-b"}
    assert site.servers()["host-b"].since == since


def test_when_the_last_subnet_goes_its_servers_stop(site: Site) -> None:
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    subnets.delete_subnet(site.ctx, subnet.id)
    site.wait_for()
    assert host.status()["managed-subnets"] == []


def test_a_host_that_lost_a_subnet_by_mistake_gets_it_back_with_all_its_reservations(site: Site, segment: Vm) -> None:
    """Its hook forgot the reservations with the subnet, also where the old configuration is back before anybody saw."""
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    start = site.started(1)
    dhcp4 = host.command("config-get")["arguments"]["Dhcp4"]
    for mistaken in ([dhcp4 | {"subnet4": []}, dhcp4], [dhcp4 | {"subnet4": []}]):
        for each in mistaken:
            assert host.command("config-set", Dhcp4=each)["result"] == 0
        site.until(lambda: acquire(segment, start.mac) == str(start.ip), "the guest is served again")
        assert site.states() == {"host-a": "running"}
    assert site.started(2).ip is not None


def test_an_old_configuration_that_comes_late_has_a_stopped_host_serve_nobody(site: Site, segment: Vm) -> None:
    """Without the manager, which would take it back at the host's next status."""
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    start = site.started(1)
    assert acquire(segment, start.mac) == str(start.ip)
    late = host.command("config-get")["arguments"]["Dhcp4"]
    networks.put(site.ctx, "blue", ipam_enabled=False, ipam_servers=None)
    site.wait_for()
    site.stop()
    assert host.command("config-set", Dhcp4=late)["result"] == 0
    assert acquire(segment, start.mac) is None
    site.start()
    site.until(lambda: host.status()["managed-subnets"] == [], "it is stopped again")


def test_a_network_turned_off_while_its_host_is_away_is_stopped_there_when_it_returns(site: Site) -> None:
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.stop_agent()
    site.wait_for(host_a="unreachable")
    networks.put(site.ctx, "blue", ipam_enabled=False, ipam_servers=None)
    site.wait_for(host_a="stopping")
    host.start_agent()
    site.wait_for()
    assert host.status()["managed-subnets"] == []


def back_up(site: Site, path: Path) -> None:
    """A copy of the database as it is."""
    with (
        closing(sqlite3.connect(site.ctx.db.engine.url.database or "")) as live,
        closing(sqlite3.connect(path)) as copy,
    ):
        live.backup(copy)


def restore(site: Site, path: Path) -> None:
    """The database of that time again, with nothing running on it."""
    site.ctx.db.dispose()
    with (
        closing(sqlite3.connect(path)) as copy,
        closing(sqlite3.connect(site.ctx.db.engine.url.database or "")) as live,
    ):
        copy.backup(live)


@pytest.mark.parametrize("told", [True, False])
def test_a_restored_database_gives_nobody_what_the_hosts_still_serve(site: Site, tmp_path: Path, told: bool) -> None:
    """With and without an administrator's word: by itself everything converges, on a history of its own."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    kept = site.started(1)
    back_up(site, tmp_path / "backup")
    before = epoch(site)
    lost = site.started(2)
    site.stop()
    restore(site, tmp_path / "backup")
    vnics.put(site.ctx, VnicSpec(id="new", vm="vm", name="eth0", network="blue", subnet=subnet.id))
    if told:
        lineage.begin_new_history(site.ctx)
        with pytest.raises(SubnetRecovering):
            vnics.start(site.ctx, "new", ip=lost.ip)
    site.start()
    site.until(lambda: epoch(site) != before, "a new history begins")
    site.until(
        lambda: [(each["epoch"], each["count"]) for each in host.status()["subnets"]] == [(epoch(site), 1)],
        "the host has what is known, and no more",
    )

    def started() -> IPAddress | None:
        try:
            return vnics.start(site.ctx, "new", ip=lost.ip).ip
        except SubnetRecovering:
            return None

    site.until(started, "addresses are promised again")
    assert vnics.start(site.ctx, "vnic-1").ip == kept.ip
    assert [each.type for each in events.list_events(site.ctx, limit=100)].count("database.rewound") == 1
    served = host.command("reservation-get-page", subnet_id=subnet.id, limit=10)["arguments"]["hosts"]
    assert {each["ip-address"] for each in served} == {str(kept.ip), str(lost.ip)}
