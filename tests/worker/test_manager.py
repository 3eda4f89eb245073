"""Who serves a network, on real hosts."""

import json
from dataclasses import replace
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork

from lab.host import Host
from leasehold.domain.addresses import AddressRange, Mac
from leasehold.domain.values import Subnet, SubnetSpec
from leasehold.errors import NotConfirmed
from leasehold.kea.commands import Commands
from leasehold.kea.provider import KeaDhcpProvider
from leasehold.kea.transport import Transport
from leasehold.service import events, hosts, networks, subnet_changes, subnets, vnics
from leasehold.service.devices import ReservationLog
from worker.site import Site


def marked(subnet: Subnet) -> dict[str, object]:
    """The subnet as an earlier life of the control plane left it in a host's Kea."""
    return {
        "id": subnet.id,
        "subnet": str(subnet.cidr),
        "interface": "eth-blue",
        "user-context": {"leasehold": {"network": "blue"}},
    }


def test_a_network_with_a_subnet_is_served(site: Site) -> None:
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    assert host.status()["managed-subnets"] == [subnet.id]


def test_a_network_whose_link_was_down_when_kea_was_configured_is_served_once_it_is_up(site: Site) -> None:
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.cut("blue")
    # The kernel tells of a lost link within a second (Documentation/networking/operstates.rst).
    site.until(lambda: "LOWER_UP" not in host.namespace.ip("link", "show", "eth-blue"), "the lost link")
    host.restart()
    site.wait_for(host_a="unreachable")
    assert site.servers()["host-a"].detail == "interface eth-blue has no link"
    host.mend("blue")
    site.wait_for(host_a="running")
    started = site.started(1)
    guest = site.lab.vm("guest", "blue", str(started.mac))
    lease = guest.dhcp()
    assert lease is not None
    assert lease.address == str(started.ip)


def test_no_more_hosts_serve_than_are_wanted(site: Site) -> None:
    for name in ("host-a", "host-b", "host-c"):
        site.add_host(name)
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.subnet()
    site.start()
    site.wait_for(host_a="running", host_b="running")
    assert site.hosts["host-c"].status()["managed-subnets"] == []


def test_start_answers_when_the_host_has_the_reservation(site: Site) -> None:
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    start = site.started(1)
    answer = host.command("reservation-get", subnet_id=subnet.id, ip_address=str(start.ip))
    assert answer["arguments"]["hw-address"] == str(start.mac)


def test_a_stopped_vnics_address_becomes_free_again(site: Site) -> None:
    site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.started(1)
    vnics.stop(site.ctx, "vnic-1")
    site.until(lambda: subnets.get(site.ctx, subnet.id).usage.free == subnet.usage.free, "the address is free")


def test_a_network_without_ipam_is_served_nowhere(site: Site) -> None:
    host = site.add_host("host-a")
    site.subnet()
    before = json.dumps(host.command("config-get"))
    site.start()
    site.wait_for(host_a="running")
    networks.put(site.ctx, "blue", ipam_enabled=False, ipam_servers=None)
    site.wait_for()
    assert json.dumps(host.command("config-get")) == before


def test_a_second_subnet_is_served_too(site: Site) -> None:
    host = site.add_host("host-a")
    first = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    before = replace(site.servers()["host-a"], subnets=())
    second = subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    site.until(
        lambda: (
            [each.subnet for each in site.servers()["host-a"].subnets if each.provided_revision is not None]
            == [first.id, second.id]
        ),
        "the server has all",
    )
    assert host.status()["managed-subnets"] == [first.id, second.id]
    assert replace(site.servers()["host-a"], subnets=()) == before
    assert [each.type for each in events.list_events(site.ctx, limit=100)] == ["server.started"]


def test_a_start_in_a_part_that_a_subnet_has_just_got_is_ready_when_the_host_serves_that(site: Site) -> None:
    site.change_settings(manage_interval_s=60)
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    late = AddressRange(IPAddress("192.0.3.10"), IPAddress("192.0.3.20"))
    subnet_changes.change(site.ctx, subnet.id, {"cidr": IPNetwork("192.0.2.0/23"), "ranges": (late,)})
    assert site.started(1).ip == late.first
    assert configured(host)[subnet.id]["subnet"] == "192.0.2.0/23"


def test_a_subnet_that_was_deleted_goes(site: Site) -> None:
    host = site.add_host("host-a")
    first = site.subnet()
    second = subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    site.start()
    site.wait_for(host_a="running")
    subnets.delete_subnet(site.ctx, second.id)
    site.until(lambda: host.status()["managed-subnets"] == [first.id], "only the first is served")


def test_a_killed_host_is_replaced(site: Site) -> None:
    site.add_host("host-a")
    site.add_host("host-b")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    site.hosts["host-a"].kill()
    site.wait_for(host_a="stopping", host_b="running")


def test_a_host_that_comes_back_after_it_was_replaced_stops_serving(site: Site) -> None:
    first = site.add_host("host-a")
    site.add_host("host-b")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    first.kill()
    site.wait_for(host_a="stopping", host_b="running")
    first.start()
    site.wait_for(host_b="running")
    assert first.status()["managed-subnets"] == []


def test_addresses_wait_for_a_host_that_could_still_serve_them(site: Site) -> None:
    first = site.add_host("host-a")
    site.add_host("host-b")
    subnet = site.subnet()
    site.start()
    site.started(1)
    first.kill()
    site.wait_for(host_a="stopping", host_b="running")
    vnics.stop(site.ctx, "vnic-1")
    site.until(
        lambda: site.servers()["host-b"].subnets[0].confirmed_revision == subnets.get(site.ctx, subnet.id).revision,
        "the other host has the removal",
    )
    assert subnets.get(site.ctx, subnet.id).usage.draining == 1
    first.start()
    site.until(lambda: subnets.get(site.ctx, subnet.id).usage.free == subnet.usage.free, "the address is free")


def test_a_killed_host_without_replacement_comes_back(site: Site) -> None:
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.kill()
    site.wait_for(host_a="unreachable")
    host.start()
    site.wait_for(host_a="running")


def test_start_names_the_host_that_does_not_answer(site: Site) -> None:
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.stop_agent()
    with pytest.raises(NotConfirmed) as raised:
        site.started(1)
    assert raised.value.facts["hosts"] == ["host-a"]
    assert vnics.get(site.ctx, "vnic-1").ip_state == "held"


def test_what_could_not_be_pushed_is_pushed_when_the_host_returns(site: Site) -> None:
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.stop_agent()
    with pytest.raises(NotConfirmed):
        site.started(1)
    host.start_agent()
    promised = str(vnics.get(site.ctx, "vnic-1").ip)
    site.until(
        lambda: host.command("reservation-get", subnet_id=subnet.id, ip_address=promised)["result"] == 0,
        "the reservation is on the host",
    )


def test_a_restarted_control_plane_swaps_no_server(site: Site) -> None:
    """Also where the host that serves does not answer at first, and others that could serve do."""
    for name in ("host-a", "host-b", "host-c"):
        site.add_host(name)
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    since = site.servers()["host-a"].since
    site.stop()
    site.hosts["host-a"].stop_agent()
    site.change_settings(host_down_after_s=60)
    restarted_at = site.ctx.clock()
    site.start()
    site.until(
        lambda: all(site.answered_since(name, restarted_at) for name in ("host-b", "host-c")), "the others answered"
    )
    site.until(lambda: hosts.get(site.ctx, "host-a").unreachable_reason, "host-a was asked")
    site.hosts["host-a"].start_agent()
    site.until(lambda: hosts.get(site.ctx, "host-a").unreachable_reason is None, "host-a answers again")
    site.started(1)
    assert site.states() == {"host-a": "running"}
    assert site.servers()["host-a"].since == since


def test_hosts_that_carry_the_mark_are_preferred_when_the_database_knows_of_none(site: Site) -> None:
    """As after a loss of the database: nothing but the hosts can tell who serves what."""
    subnet = site.subnet()
    site.add_host("host-a")
    site.add_host("host-b")
    site.add_host("host-c", subnets=[marked(subnet)])
    site.start()
    site.wait_for(host_c="running")


def test_a_host_that_serves_unasked_stops(site: Site) -> None:
    site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    stray = site.add_host("host-b", subnets=[marked(subnet)])
    site.until(lambda: stray.status()["managed-subnets"] == [], "it does not serve any more")
    site.wait_for(host_a="running")


def test_a_host_whose_kea_refuses_is_replaced_and_says_why(site: Site) -> None:
    """It has a subnet of the administrator's with the same prefix."""
    site.add_host("host-a", subnets=[{"id": 77, "subnet": "192.0.2.0/24"}])
    site.subnet()
    site.start()
    site.until(lambda: site.details().get("host-a"), "it says why")
    why = str(site.details()["host-a"])
    assert "Kea on host host-a refused config-test: subnet with the prefix of '192.0.2.0/24' already exists" in why
    site.add_host("host-b")
    site.until(lambda: site.states().get("host-b") == "running", "another host serves")
    assert site.hosts["host-a"].status()["managed-subnets"] == []


def test_a_server_whose_kea_refuses_new_settings_goes_on_and_says_why_until_it_takes_them(site: Site) -> None:
    host = site.add_host("host-a", subnets=[{"id": 77, "subnet": "192.0.2.0/23"}])
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    subnet_changes.change(site.ctx, subnet.id, {"cidr": IPNetwork("192.0.2.0/23")})
    site.until(lambda: site.details()["host-a"], "it says why")
    why = str(site.details()["host-a"])
    assert "subnet with the prefix of '192.0.2.0/23' already exists" in why
    assert site.started(1, wait="all").servers[0].state == "confirmed"
    assert configured(host)[subnet.id]["subnet"] == "192.0.2.0/24"
    told = events.list_events(site.ctx, subject="networks/blue/servers/host-a", limit=100)
    assert [(each.type, each.data["detail"]) for each in told] == [("server.started", None), ("server.refused", why)]
    subnet_changes.change(site.ctx, subnet.id, {"cidr": IPNetwork("192.0.2.0/22")})
    site.until(lambda: configured(host)[subnet.id]["subnet"] == "192.0.2.0/22", "it took them")
    site.until(lambda: site.details() == {"host-a": None}, "it does not say so any more")
    assert site.states() == {"host-a": "running"}


def test_a_host_without_the_interface_that_it_is_said_to_have_is_not_chosen_and_says_why(site: Site) -> None:
    bad = site.add_host("host-a")
    site.register(bad, interface="eth-nowhere")
    site.add_host("host-b")
    site.subnet()
    site.start()
    site.wait_for(host_b="running")
    site.until(lambda: "eth-nowhere does not exist" in str(hosts.show(site.ctx, "host-a").detail), "it says why")


def test_a_kea_without_our_hook_is_not_chosen(site: Site) -> None:
    site.add_host("host-a", hook=False)
    site.add_host("host-b")
    site.subnet()
    site.start()
    site.wait_for(host_b="running")


def test_a_control_url_that_leads_to_another_host_is_not_believed(site: Site) -> None:
    host = site.add_host("host-a")
    site.register(host, id="host-b", address="192.0.2.99")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.subnet()
    site.start()
    site.until(lambda: hosts.get(site.ctx, "host-b").unreachable_reason, "host-b was asked")
    assert "leads to the Kea of host 'host-a'" in str(hosts.get(site.ctx, "host-b").unreachable_reason)
    site.wait_for(host_a="running")


def test_a_host_that_lost_its_journal_gets_everything_again(site: Site) -> None:
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    for number in range(10):
        site.started(number)
    host.kill()
    for file in host.state_directory.glob("journal*"):
        file.unlink()
    host.start()
    site.until(
        lambda: [(each["subnet-id"], each["count"]) for each in host.status()["subnets"]] == [(subnet.id, 10)],
        "all reservations are there again",
    )


def test_reservations_that_somebody_changed_on_the_host_are_mended(site: Site) -> None:
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    start = site.started(1)
    assert host.command("reservation-del", subnet_id=subnet.id, ip_address=str(start.ip))["result"] == 0
    site.until(
        lambda: host.command("reservation-get", subnet_id=subnet.id, ip_address=str(start.ip))["result"] == 0,
        "the reservation is there again",
    )


def test_events_tell_of_a_servers_life(site: Site) -> None:
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.kill()
    site.wait_for(host_a="unreachable")
    host.start()
    site.wait_for(host_a="running")
    networks.put(site.ctx, "blue", ipam_enabled=False, ipam_servers=None)
    site.wait_for()
    told = events.list_events(site.ctx, limit=100)
    assert [each.type for each in told] == [
        "server.started",
        "server.unreachable",
        "server.recovered",
        "server.stopped",
    ]
    assert {each.subject for each in told} == {"networks/blue/servers/host-a"}


def test_what_a_provider_reserves_is_on_its_servers_also_on_one_that_comes_later(site: Site) -> None:
    """The seed's interface, with no engine around it."""
    first, second = site.add_host("host-a"), site.add_host("host-b")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    provider = KeaDhcpProvider(Commands(Transport(site.ctx.settings)), ReservationLog(site.ctx))
    named, other = Mac.parse("02:00:00:00:00:01"), Mac.parse("02:00:00:00:00:02")
    ip = provider.add_reservation(subnet.id, named, IPAddress("192.0.2.77"))
    chosen = provider.add_reservation(subnet.id, other)
    assert ip == IPAddress("192.0.2.77")
    both, one = {str(ip): str(named), str(chosen): str(other)}, {str(chosen): str(other)}
    site.until(lambda: served(first, subnet.id) == both, "the server has both")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.wait_for(host_a="running", host_b="running")
    assert served(second, subnet.id) == both
    provider.remove_reservation(subnet.id, ip)
    site.until(lambda: served(first, subnet.id) == served(second, subnet.id) == one, "one is gone on both")


def configured(host: Host) -> dict[int, dict[str, Any]]:
    """The subnets in the configuration that the host's Kea runs, by id."""
    dhcp4 = host.command("config-get")["arguments"]["Dhcp4"]
    shared = [subnet for network in dhcp4.get("shared-networks", []) for subnet in network["subnet4"]]
    return {each["id"]: each for each in [*dhcp4["subnet4"], *shared]}


def served(host: Host, subnet_id: int) -> dict[str, str]:
    """MACs by the addresses that the host's hook has for them."""
    answer = host.command("reservation-get-page", subnet_id=subnet_id, limit=100)
    return {each["ip-address"]: each["hw-address"] for each in answer.get("arguments", {}).get("hosts", [])}
