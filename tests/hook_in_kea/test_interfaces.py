"""Where a real Kea can hear guests, as `leasehold-status` tells it."""

import pytest

from hook_in_kea.conftest import MANAGED, Served
from lab import Host, Lab
from lab.waiting import wait_until

_SOON_S = 20


@pytest.fixture
def host(lab: Lab) -> Host:
    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    interface = host.interfaces["blue"]
    host.install(subnets=[{"id": 7, "subnet": "192.0.2.0/24", "interface": interface, **MANAGED}])
    host.start()
    return host


def told(host: Host) -> object:
    """What is told of the interface on blue; "absent" if nothing is."""
    return host.status()["interfaces"].get(host.interfaces["blue"], "absent")


def wait_until_told(host: Host, fault: str | None) -> None:
    # The kernel tells of a link that came or went within a second (Documentation/networking/operstates.rst).
    wait_until(lambda: told(host) == fault, _SOON_S, f"the interface is told as {fault}")


def test_an_interface_that_guests_are_heard_on_has_no_fault(host: Host) -> None:
    assert told(host) is None


def test_subnets_that_name_no_interface_or_leave_it_to_their_shared_network_have_no_fault(served: Served) -> None:
    assert served.host.status()["interfaces"] == dict.fromkeys([*served.host.interfaces.values(), "mgmt"])


def test_a_lost_link_is_told_until_it_is_back(host: Host) -> None:
    host.cut("blue")
    wait_until_told(host, "no-link")
    host.mend("blue")
    wait_until_told(host, None)


def test_an_interface_that_is_switched_off_is_down(host: Host) -> None:
    host.namespace.ip("link", "set", host.interfaces["blue"], "down")
    assert told(host) == "down"


def test_an_interface_without_an_address_is_none_of_those_listed(host: Host) -> None:
    host.namespace.ip("address", "flush", "dev", host.interfaces["blue"])
    assert told(host) == "absent"


def test_an_interface_that_was_deleted_is_none_of_those_listed(host: Host) -> None:
    host.namespace.ip("link", "delete", host.interfaces["blue"])
    assert told(host) == "absent"


def test_an_interface_that_was_made_again_is_not_listened_on_until_kea_looks_again(host: Host) -> None:
    interface = host.interfaces["blue"]
    host.namespace.ip("link", "delete", interface)
    host.namespace.ip("link", "add", interface, "type", "veth", "peer", "name", "far")
    host.namespace.ip("link", "set", "far", "up")
    host.namespace.ip("address", "add", "192.0.2.2/24", "dev", interface)
    host.namespace.ip("link", "set", interface, "up")
    wait_until_told(host, "no-socket")
    assert host.command("config-reload")["result"] == 0
    assert told(host) is None


def test_an_interface_that_had_no_link_when_kea_was_configured_is_not_listened_on(host: Host) -> None:
    """This configuration does not have Kea try again."""
    host.cut("blue")
    wait_until_told(host, "no-link")
    host.restart()
    host.mend("blue")
    wait_until_told(host, "no-socket")


def test_an_interface_whose_driver_does_not_tell_of_its_link_counts_as_up(host: Host) -> None:
    host.namespace.ip("link", "add", "quiet", "type", "ifb")
    host.namespace.ip("address", "add", "198.51.100.2/24", "dev", "quiet")
    host.namespace.ip("link", "set", "quiet", "up")
    assert "state UNKNOWN" in host.namespace.ip("link", "show", "quiet")
    assert host.status()["interfaces"]["quiet"] is None
