"""No answer leaves a managed subnet with an address that is not its client's; what is let through and what is not."""

import pytest

from hook_in_kea.conftest import Served
from lab.dhcp import Type


def test_a_reservation_of_keas_own_on_a_managed_subnet_is_not_even_offered(served: Served) -> None:
    with served.client("02:00:00:00:ff:01") as client:
        assert client.discover() is None
    served.change(7, {"02:00:00:00:ff:01": "192.0.2.20"})
    before = served.host.status()["rejections"]["doubt"]
    with served.client("02:00:00:00:ff:01") as client:
        assert client.discover() is None
        answer = client.request("192.0.2.99")
        assert answer is None or answer.type is Type.NAK
    assert served.host.status()["rejections"]["doubt"] >= before + 1
    assert served.host.command("lease4-get", ip_address="192.0.2.99")["result"] == 3
    served.change(7, unset=("02:00:00:00:ff:01",))


def test_another_clients_address_is_refused(served: Served) -> None:
    ann, bob = served.mac(), served.mac()
    served.change(7, {ann: "192.0.2.21", bob: "192.0.2.22"})
    with served.client(ann) as client:
        answer = client.request("192.0.2.22")
        assert answer is not None
        assert answer.type is Type.NAK


def test_many_clients_one_after_the_other_get_their_own(served: Served) -> None:
    """Each packet's look-up may use what the one before it left."""
    wanted = {served.mac(): f"192.0.2.{number}" for number in range(100, 130)}
    served.change(7, wanted)
    for mac, address in wanted.items():
        with served.client(mac) as client:
            assert served.bound(client).yiaddr == address


@pytest.mark.parametrize(("subnet", "address"), [(8, "198.51.100.10"), (9, "203.0.113.10")])
def test_each_subnet_of_a_shared_network_serves_its_own(served: Served, subnet: int, address: str) -> None:
    mac = served.mac()
    served.change(subnet, {mac: address})
    with served.client(mac, "green") as client:
        server = served.bound(client).server or ""
        answer = client.renew(address)
        assert answer is not None
        assert answer.type is Type.ACK
        client.release(address, server)
    served.wait_until_told(address, "assigned", "renewed", "released")
    assert {event["subnet"] for event in served.events(address)} == {subnet}


def test_a_client_on_both_subnets_of_a_shared_network_gets_one_of_its_addresses(served: Served) -> None:
    mac = served.mac()
    served.change(8, {mac: "198.51.100.11"})
    served.change(9, {mac: "203.0.113.11"})
    with served.client(mac, "green") as client:
        assert served.bound(client).yiaddr in ("198.51.100.11", "203.0.113.11")


def test_a_stranger_on_a_shared_network_gets_no_answer(served: Served) -> None:
    with served.client(served.mac(), "green") as client:
        assert client.discover() is None
        assert client.request("203.0.113.12") is None


def test_a_withdrawn_client_of_a_shared_networks_second_subnet_gets_nak(served: Served) -> None:
    mac = served.mac()
    served.change(9, {mac: "203.0.113.13"})
    with served.client(mac, "green") as client:
        served.bound(client)
        served.change(9, unset=(mac,))
        answer = client.renew("203.0.113.13")
        assert answer is not None
        assert answer.type is Type.NAK
        assert client.discover() is None
    assert served.host.command("lease4-get", ip_address="203.0.113.13")["result"] == 3


def test_subnets_of_shared_networks_are_managed(served: Served) -> None:
    assert sorted(served.host.status()["managed-subnets"]) == [7, 8, 9, 10]
