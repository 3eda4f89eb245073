"""The laboratory itself, with Kea's own reservations and without our hook."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Host, Lab, Vm, wait_until
from lab.dhcp import Message, Type

KNOWN, UNKNOWN = "02:00:00:00:00:01", "02:00:00:00:00:02"
SUBNET: dict[str, Any] = {
    "id": 7,
    "subnet": "192.0.2.0/24",
    "valid-lifetime": 3600,
    "option-data": [
        {"name": "routers", "data": "192.0.2.1"},
        {"name": "domain-name-servers", "data": "192.0.2.53, 192.0.2.54"},
        {"name": "ntp-servers", "data": "192.0.2.123"},
        {"name": "domain-name", "data": "blue.example"},
    ],
    "reservations": [{"hw-address": KNOWN, "ip-address": "192.0.2.10"}],
}


@pytest.fixture(scope="module")
def hosts(module_lab: Lab) -> list[Host]:
    """Two hosts on the network `blue` that serve SUBNET."""
    module_lab.network("blue")
    hosts = [module_lab.host(f"host-{n}", {"blue": f"192.0.2.{n}/24"}) for n in (2, 3)]
    for host in hosts:
        host.install(hook=False, subnets=[SUBNET])
        host.start()
    return hosts


@pytest.fixture(scope="module")
def guest(module_lab: Lab, hosts: list[Host]) -> Vm:
    return module_lab.vm("guest", "blue", KNOWN)


@pytest.fixture
def client(guest: Vm) -> Iterator[Vm]:
    """The guest with a running DHCP client that is bound."""
    guest.start_client()
    guest.wait_for_lease()
    yield guest
    guest.stop_client()


def test_a_guest_gets_what_is_reserved_for_it(guest: Vm) -> None:
    lease = guest.dhcp()
    assert lease is not None
    assert lease.server in ("192.0.2.2", "192.0.2.3")
    assert (lease.address, lease.prefix_length, lease.lease_time_s) == ("192.0.2.10", 24, 3600)
    assert (lease.router, lease.domain) == ("192.0.2.1", "blue.example")
    assert (lease.dns, lease.ntp) == (("192.0.2.53", "192.0.2.54"), ("192.0.2.123",))
    assert guest.addresses() == ["192.0.2.10"]


def test_a_guest_without_a_reservation_gets_nothing(module_lab: Lab, hosts: list[Host]) -> None:
    assert module_lab.vm("stranger", "blue", UNKNOWN).dhcp(timeout_s=2) is None


def test_a_running_client_renews_when_told(client: Vm) -> None:
    assert client.wait_for("renew", after=client.renew())["ip"] == "192.0.2.10"


def test_a_released_lease_leaves_kea(client: Vm, hosts: list[Host]) -> None:
    client.release()

    def leases() -> int:
        answers = [
            host.command("lease4-get", subnet_id=7, identifier_type="hw-address", identifier=KNOWN) for host in hosts
        ]
        return sum(answer["result"] == 0 for answer in answers)

    wait_until(lambda: leases() < 2, 5, "a server without the lease")


def test_raw_messages_walk_through_dora(guest: Vm) -> None:
    with guest.raw_client() as raw:
        offer = raw.discover()
        assert offer is not None
        assert (offer.type, offer.yiaddr) == (Type.OFFER, "192.0.2.10")
        acknowledged = raw.select(offer)
        assert acknowledged is not None
        assert (acknowledged.type, acknowledged.server, acknowledged.lease_time_s) == (Type.ACK, offer.server, 3600)
        renewed = raw.renew("192.0.2.10")
        assert renewed is not None
        assert renewed.type == Type.ACK


def test_a_request_for_a_foreign_address_is_refused(guest: Vm) -> None:
    with guest.raw_client() as raw:
        answer = raw.request("192.0.2.99")
        assert answer is not None
        assert answer.type == Type.NAK


def test_silence_is_none(guest: Vm, hosts: list[Host]) -> None:
    with guest.raw_client(UNKNOWN) as raw:
        assert raw.discover(silence_s=0.5) is None


def test_a_cut_cable_silences_a_server(lab: Lab) -> None:
    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    host.install(hook=False, subnets=[SUBNET])
    host.start()
    with lab.vm("guest", "blue", KNOWN).raw_client() as raw:
        host.cut("blue")
        assert raw.discover(silence_s=0.5) is None
        host.mend("blue")
        wait_until(lambda: raw.discover(silence_s=0.2), 5, "an OFFER again")


def test_a_host_without_management_is_out_of_the_control_planes_reach(lab: Lab) -> None:
    host = lab.host("host-a", {})

    def reaches() -> bool:
        ping = [
            "python3",
            "-c",
            "import socket, sys; socket.create_connection((sys.argv[1], 8000), 0.5)",
            host.mgmt_address,
        ]
        return subprocess.run(lab.control.command(ping), capture_output=True, check=False).returncode == 0

    host.install(hook=False)
    host.start_agent()
    assert reaches()
    host.cut_management()
    assert not reaches()
    host.mend_management()
    wait_until(reaches, 5, "the control plane reaches the host again")


def test_a_killed_kea_starts_again_with_its_leases(lab: Lab) -> None:
    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    host.install(hook=False, subnets=[SUBNET])
    host.start()
    assert lab.vm("guest", "blue", KNOWN).dhcp() is not None
    host.kill()
    assert not host.kea_runs
    host.start()
    answer = host.command("lease4-get", ip_address="192.0.2.10")
    assert (answer["result"], answer["arguments"]["hw-address"]) == (0, KNOWN)


def test_a_capture_holds_what_crossed_the_wire(module_lab: Lab, guest: Vm) -> None:
    capture = module_lab.capture("blue")
    with guest.raw_client() as raw:
        offer = raw.discover()
        assert offer is not None

    def crossed() -> list[Message]:
        return [message for message in capture.messages() if message.xid == offer.xid]

    wait_until(lambda: {Type.DISCOVER, Type.OFFER} <= {message.type for message in crossed()}, 5, "both in the capture")
    capture.stop()


def test_perfdhcp_completes_what_it_offers(module_lab: Lab, hosts: list[Host]) -> None:
    load = module_lab.perfdhcp("blue", "192.0.2.200/24")
    result = load.run(rate=50, clients=1, seconds=1, first_mac=KNOWN)
    assert result.request_ack is not None
    assert result.discover_offer.received > 0
    assert result.request_ack.received > 0


@pytest.mark.parametrize(("username", "password"), [(None, "wrong"), ("wrong", None)])
def test_the_control_agent_wants_the_right_credentials(
    agent_host: Host, username: str | None, password: str | None
) -> None:
    body = b'{"command": "version-get", "service": ["dhcp4"]}'
    assert agent_host.post_to_agent(body, username=username, password=password).status_code == 401


def test_the_control_agent_reaches_kea(agent_host: Host) -> None:
    (answer,) = agent_host.post_to_agent(b'{"command": "version-get", "service": ["dhcp4"]}').json()
    assert (answer["result"], answer["text"]) == (0, "2.2.0")


@pytest.fixture(scope="module")
def agent_host(hosts: list[Host]) -> Host:
    hosts[0].start_agent()
    return hosts[0]
