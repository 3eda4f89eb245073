"""What one network or subnet does to others whose host's Kea refuses it, on real hosts."""

import pytest
from netaddr import IPAddress, IPNetwork

from lab.host import Host
from leasehold.domain.values import HostNetwork, Subnet, SubnetSpec
from leasehold.errors import NotConfirmed
from leasehold.service import events, networks, subnet_changes, subnets
from worker.site import Site
from worker.test_manager import configured

GREEN = "198.51.100.0/24"
ADMINISTRATORS = {"id": 77, "subnet": GREEN}
"""With it there, Kea refuses ours."""


def names_dns(site: Site, host: Host, subnet: Subnet, dns: str) -> None:
    """Guests of the subnet are to hear of another server, and do."""
    subnet_changes.change(site.ctx, subnet.id, {"dns": (IPAddress(dns),)})
    site.until(lambda: dns in str(configured(host)[subnet.id]["option-data"]), "Kea has the new settings")


def told(site: Site, network: str) -> list[str]:
    subject = f"networks/{network}/servers/host-a"
    return [each.type for each in events.list_events(site.ctx, subject=subject, limit=100)]


def stop_ipam(site: Site, network: str) -> None:
    networks.put(site.ctx, network, ipam_enabled=False, ipam_servers=None)
    site.until(lambda: site.servers(network) == {}, "nobody serves the network any more")


def test_a_network_that_kea_refuses_keeps_no_other_from_being_served_changed_and_stopped(site: Site) -> None:
    site.add_network("green", GREEN)
    red = site.add_network("red", "203.0.113.0/24")
    addresses = {"green": "198.51.100.2/24", "red": "203.0.113.2/24"}
    host = site.add_host("host-a", subnets=[ADMINISTRATORS], also_on=addresses)
    blue = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    site.until(lambda: site.servers("red")["host-a"].state == "running", "red is served")
    site.until(lambda: site.details("green")["host-a"], "green says why")
    assert f"subnet with the prefix of '{GREEN}' already exists" in str(site.details("green")["host-a"])
    assert (site.details(), site.details("red")) == ({"host-a": None}, {"host-a": None})
    names_dns(site, host, blue, "192.0.2.53")
    stop_ipam(site, "blue")
    assert host.status()["managed-subnets"] == [red.id]
    names_dns(site, host, red, "203.0.113.53")
    assert [told(site, each) for each in ("green", "red")] == [["server.refused"], ["server.started"]]
    stop_ipam(site, "green")


def test_an_interface_that_is_not_there_keeps_no_other_network_from_being_changed_and_stopped(site: Site) -> None:
    green = site.add_network("green", GREEN)
    host = site.add_host("host-a", also_on={"green": "198.51.100.2/24"})
    blue = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    site.until(lambda: site.servers("green")["host-a"].state == "running", "green is served")
    before = configured(host)[green.id]
    nowhere = HostNetwork(interface="eth-nowhere", address=IPAddress("198.51.100.2"))
    site.register(host, attached={"green": nowhere})
    names_dns(site, host, blue, "192.0.2.53")
    assert configured(host)[green.id] == before
    stop_ipam(site, "blue")
    assert host.status()["managed-subnets"] == [green.id]
    stop_ipam(site, "green")


def test_a_subnet_that_kea_refuses_leaves_the_others_of_its_network_as_they_are(site: Site) -> None:
    host = site.add_host("host-a", subnets=[ADMINISTRATORS])
    first = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    since = site.servers()["host-a"].since
    refused = subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork(GREEN)))
    site.until(lambda: site.details()["host-a"], "it says why")
    assert site.started(1).servers[0].state == "confirmed"
    site.change_settings(start_budget_s=0)
    with pytest.raises(NotConfirmed, match="already exists"):
        site.started(2, subnet=refused)
    names_dns(site, host, first, "192.0.2.53")
    assert host.status()["managed-subnets"] == [first.id]
    assert (site.states(), site.servers()["host-a"].since) == ({"host-a": "running"}, since)
    assert told(site, "blue") == ["server.started", "server.refused"]


def test_a_server_that_begins_gives_the_addresses_of_subnets_that_kea_takes(site: Site) -> None:
    site.add_host("host-a", subnets=[ADMINISTRATORS])
    site.subnet()
    subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork(GREEN)))
    site.start()
    started = site.started(1)
    assert site.states() == {"host-a": "starting"}
    lease = site.lab.vm("guest", "blue", str(started.mac)).dhcp()
    assert lease is not None
    assert lease.address == str(started.ip)


def test_what_kea_refuses_whatever_is_in_it_is_said_of_what_was_to_change(site: Site) -> None:
    site.add_network("green", GREEN)
    host = site.add_host("host-a", also_on={"green": "198.51.100.2/24"})
    blue = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    site.until(lambda: site.servers("green")["host-a"].state == "running", "green is served")
    host.configuration.rename(host.configuration.with_suffix(".moved"))
    host.configuration.mkdir()
    before = configured(host)
    subnet_changes.change(site.ctx, blue.id, {"dns": (IPAddress("192.0.2.53"),)})
    site.until(lambda: site.details()["host-a"], "it says why")
    assert "config-write" in str(site.details()["host-a"])
    assert site.details("green") == {"host-a": None}
    assert configured(host) == before
    host.configuration.rmdir()
    site.until(lambda: site.details() == {"host-a": None}, "it was taken at last")
    assert "192.0.2.53" in str(configured(host)[blue.id]["option-data"])
