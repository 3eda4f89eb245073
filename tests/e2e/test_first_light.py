"""From the engine's call to a DHCPACK out of a real Kea, and the lease event back as a webhook."""

import itertools

import httpx
import pytest

from lab.dhcp import Type
from lab.stage import NETWORK, Stage
from lab.waiting import wait_until

_names = (f"nic-{number}" for number in itertools.count())


@pytest.fixture
def name() -> str:
    """A vNIC's name that no other test has."""
    return next(_names)


@pytest.mark.parametrize("server", [0, 1])
def test_the_guest_gets_what_was_promised_from_each_server(pair: Stage, name: str, server: int) -> None:
    pair.vnic(name)
    promised = pair.start(name)
    asked, other = pair.hosts[server], pair.hosts[1 - server]
    other.cut(NETWORK)
    try:
        lease = pair.guest(name).dhcp()
    finally:
        other.mend(NETWORK)
    assert lease is not None
    assert lease.address == promised["ip"]
    assert (lease.router, lease.dns, lease.ntp) == ("192.0.2.254", ("192.0.2.53", "198.51.100.53"), ("192.0.2.123",))
    assert (lease.prefix_length, lease.domain, lease.lease_time_s) == (24, "blue.example", 600)
    assert lease.server == asked.addresses[NETWORK]


def test_a_client_without_a_reservation_gets_no_answer_at_all(pair: Stage, name: str) -> None:
    stranger = pair.lab.vm(f"vm-{name}", NETWORK, "02:ff:00:00:00:01")
    with stranger.raw_client() as client:
        assert client.discover() is None
        assert client.request("192.0.2.77") is None
        assert client.request("192.0.2.77", server=pair.hosts[0].addresses[NETWORK]) is None
        assert client.renew("192.0.2.77") is None


def test_the_guest_whose_reservation_was_withdrawn_gets_nak(pair: Stage, name: str) -> None:
    pair.vnic(name)
    promised = pair.start(name)
    guest = pair.guest(name)
    assert guest.dhcp() is not None
    pair.stop(name)
    wait_until(lambda: pair.get(f"/v1/vnics/{name}")["ip_state"] != "draining", 10, "both servers confirmed the stop")
    with guest.raw_client() as client:
        for answer in (client.renew(promised["ip"]), client.request(promised["ip"])):
            assert answer is not None
            assert answer.type is Type.NAK
        assert client.discover() is None


def test_a_running_guest_that_was_stopped_loses_its_address_at_the_next_renewal(pair: Stage, name: str) -> None:
    pair.vnic(name)
    pair.start(name)
    guest = pair.guest(name)
    guest.start_client()
    guest.wait_for_lease()
    pair.stop(name)
    wait_until(lambda: pair.get(f"/v1/vnics/{name}")["ip_state"] != "draining", 10, "both servers confirmed the stop")
    guest.renew()
    guest.wait_for("nak")


def test_two_guests_never_have_one_address(pair: Stage) -> None:
    names = [next(_names) for _ in range(4)]
    for name in names:
        pair.vnic(name)
    promised = [pair.start(name)["ip"] for name in names]
    leases = [pair.guest(name).dhcp() for name in names]
    assert [lease.address for lease in leases if lease] == promised
    assert len(set(promised)) == len(promised)


def test_every_lease_event_arrives_signed(pair: Stage, name: str) -> None:
    receiver = pair.subscribe()
    pair.vnic(name)
    promised = pair.start(name)
    guest = pair.guest(name)
    guest.start_client()
    guest.wait_for_lease()
    assigned = receiver.wait_for(
        lambda event: event["type"] == "lease.assigned" and event["data"]["mac"] == guest.mac, 10, "lease.assigned"
    )
    assert assigned["data"]["ip"] == promised["ip"]
    assert assigned["data"]["vnic"] == name
    assert assigned["data"]["vm"] == f"vm-{name}"
    guest.renew()
    receiver.wait_for(lambda event: event["type"] == "lease.renewed", 10, "lease.renewed")
    guest.release()
    receiver.wait_for(lambda event: event["type"] == "lease.released", 10, "lease.released")
    of_subject = [event for event in receiver.events if event["subject"] == assigned["subject"]]
    assert [event["sequence"] for event in of_subject] == sorted({event["sequence"] for event in of_subject})
    assert receiver.refused == []


def test_a_rejected_client_is_reported_once_for_many_packets(pair: Stage, name: str) -> None:
    receiver = pair.subscribe()
    mac = "02:ff:00:00:00:02"
    stranger = pair.lab.vm(f"vm-{name}", NETWORK, mac)
    with stranger.raw_client() as client:
        for _ in range(20):
            client.send(client.message(Type.DISCOVER))
    rejected = receiver.wait_for(
        lambda event: event["type"] == "client.rejected" and event["data"]["mac"] == mac, 30, "client.rejected"
    )
    assert rejected["data"]["reason"] == "unknown"
    assert rejected["data"]["count"] > 1


def test_an_address_is_not_given_to_another_while_a_server_may_still_serve_it(pair: Stage, name: str) -> None:
    cut_off = pair.hosts[1]
    pair.vnic(name)
    first = pair.start(name)["ip"]
    cut_off.cut_management()
    try:
        pair.stop(name)
        wait_until(lambda: "unreachable" in str(pair.servers()), 20, "the cut is noticed")
        assert pair.get(f"/v1/vnics/{name}")["ip_state"] == "draining"
        other = next(_names)
        pair.vnic(other)
        assert pair.start(other, wait="one")["ip"] != first
    finally:
        cut_off.mend_management()
    wait_until(lambda: pair.get(f"/v1/vnics/{name}")["ip"] is None, 30, "the address drains and cools")
    wait_until(lambda: len(pair.running()) == 2, 30, "both servers run again")


def test_a_problem_names_field_and_value(pair: Stage) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refusal:
        pair.put("/v1/vnics/x", vm="vm", name="nic", mac="01:00:5e:00:00:01")
    problem = refusal.value.response.json()
    assert refusal.value.response.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["code"], problem["mac"]) == (400, "mac-not-unicast", "01:00:5e:00:00:01")
