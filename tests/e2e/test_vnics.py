"""What a guest gets from real Kea servers when its vNIC changes while it runs, and what its old MAC or address gets."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.conftest import staged
from lab.dhcp import Type
from lab.lab import Lab
from lab.stage import NETWORK, Stage
from lab.vm import Vm
from lab.waiting import wait_until

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def pair(module_lab: Lab) -> Iterator[Stage]:
    """Two hosts that both serve, and a second subnet on their network."""
    with staged(module_lab, hosts=2, servers=2) as stage:
        stage.post("/v1/subnets", network=NETWORK, cidr="198.51.100.0/24", gateway="198.51.100.254")
        yield stage


@pytest.fixture
def name() -> str:
    """A vNIC's name that no other test has."""
    return f"nic-{next(_numbers)}"


def change(stage: Stage, name: str, **fields: Any) -> dict[str, Any]:
    """A PATCH that waits for all servers."""
    response = stage.api.patch(f"/v1/vnics/{name}", json=fields, params={"wait": "all"})
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


def switched_on(stage: Stage, name: str) -> Vm:
    """The vNIC's guest, with the lease that was promised to it."""
    stage.vnic(name)
    promised = stage.start(name)["ip"]
    guest = stage.guest(name)
    lease = guest.dhcp()
    assert lease is not None
    assert lease.address == promised
    return guest


def is_refused(guest: Vm, address: str) -> bool:
    """True if the guest's MAC gets a NAK for the address, and no offer of any."""
    with guest.raw_client() as client:
        answer = client.renew(address)
        return answer is not None and answer.type is Type.NAK and client.discover() is None


def test_the_new_mac_gets_the_address_and_the_old_one_is_refused(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    new_mac = f"02:fe:00:00:00:{next(_numbers):02x}"
    changed = change(pair, name, mac=new_mac)
    assert (changed["ip"], {each["state"] for each in changed["servers"]}) == (address, {"confirmed"})
    renewed = pair.lab.vm(f"vm-{name}-new", NETWORK, new_mac)
    for asked, other in (pair.hosts, reversed(pair.hosts)):
        other.cut(NETWORK)
        try:
            lease = renewed.dhcp()
            assert lease is not None
            assert (lease.address, lease.server) == (address, asked.addresses[NETWORK])
            assert is_refused(guest, address)
        finally:
            other.mend(NETWORK)


def test_with_a_server_cut_off_the_new_mac_gets_another_address(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    new_mac = f"02:fe:00:00:00:{next(_numbers):02x}"
    pair.hosts[1].cut_management()
    try:
        wait_until(lambda: "unreachable" in str(pair.servers()), 20, "the cut is noticed")
        response = pair.api.patch(f"/v1/vnics/{name}", json={"mac": new_mac})
        assert response.is_success, response.text
        promised = response.json()["ip"]
        assert promised not in (None, address)
        renewed = pair.lab.vm(f"vm-{name}-new", NETWORK, new_mac)
        lease = renewed.dhcp()
        assert lease is not None
        assert lease.address == promised
    finally:
        pair.hosts[1].mend_management()
    wait_until(lambda: len(pair.running()) == 2, 30, "both servers run again")


def test_on_another_subnet_the_guest_gets_an_address_of_there(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    (other,) = (each["id"] for each in pair.get("/v1/subnets")["items"] if each["id"] != pair.subnet)
    changed = change(pair, name, subnet=other)
    assert changed["vnic"]["subnet"] == other
    with guest.raw_client() as client:
        answer = client.renew(address)
        assert answer is not None
        assert answer.type is Type.NAK
    lease = guest.dhcp()
    assert lease is not None
    assert (lease.address, lease.router) == (changed["ip"], "198.51.100.254")


def test_off_its_subnet_the_guest_is_refused(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    assert change(pair, name, subnet=None)["ipam"] is False
    wait_until(lambda: pair.get(f"/v1/vnics/{name}")["ip_state"] != "draining", 10, "both servers confirmed")
    assert is_refused(guest, address)


def test_a_migrated_guest_renews_what_it_has(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    assert pair.start(name)["ip"] == address
    with guest.raw_client() as client:
        answer = client.renew(address)
        assert answer is not None
        assert answer.type is Type.ACK


def test_a_standby_twin_is_served_on_when_the_other_stops(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    standby = f"{name}-standby"
    pair.vnic(standby)
    pair.post(f"/v1/vnics/{standby}/twins", twin=name)
    assert pair.start(standby)["ip"] == address
    pair.stop(name)
    with guest.raw_client() as client:
        answer = client.renew(address)
        assert answer is not None
        assert answer.type is Type.ACK
    pair.stop(standby)
    wait_until(lambda: pair.get(f"/v1/vnics/{standby}")["ip_state"] != "draining", 10, "both servers confirmed")
    assert is_refused(guest, address)


def test_a_deleted_vnics_guest_is_refused(pair: Stage, name: str) -> None:
    guest = switched_on(pair, name)
    (address,) = guest.addresses()
    revision = pair.get(f"/v1/subnets/{pair.subnet}")["revision"]
    assert pair.api.delete(f"/v1/vnics/{name}").is_success

    def confirmed() -> bool:
        return all(
            each["confirmed_revision"] is not None and each["confirmed_revision"] > revision
            for server in pair.servers()
            for each in server["subnets"]
            if each["subnet"] == pair.subnet
        )

    wait_until(confirmed, 10, "both servers confirmed the removal")
    assert is_refused(guest, address)


def test_the_doctor_finds_what_somebody_did_to_a_server_and_nothing_else(pair: Stage, name: str) -> None:
    switched_on(pair, name)
    assert pair.control.cli("doctor") == []
    meddled = {"ip-address": "192.0.2.150", "hw-address": "02:ff:00:00:00:77", "subnet-id": pair.subnet}
    pair.hosts[0].command("lease4-add", **meddled)
    (found,) = pair.get("/v1/doctor")["items"]
    assert (found["code"], found["subject"]) == (
        "lease-of-nobody",
        f"hosts/{pair.hosts[0].id}/subnets/{pair.subnet}/addresses/192.0.2.150",
    )
    pair.hosts[0].command("lease4-del", **{"ip-address": "192.0.2.150"})
    assert pair.get("/v1/doctor")["items"] == []


@pytest.mark.parametrize("whose", ["Kea", "Leasehold"])
def test_a_configuration_that_somebody_changed_is_told_and_a_restart_mends_it(pair: Stage, whose: str) -> None:
    host = pair.hosts[0]
    running = host.command("config-get")["arguments"]["Dhcp4"]
    (network,) = running["shared-networks"]
    network["subnet4"][0]["option-data"] = [{"name": "routers", "data": "192.0.2.99"}]
    host.command("config-set", Dhcp4=running)
    host.command("config-write")
    (found,) = pair.get("/v1/doctor")["items"]
    assert (found["code"], found["subject"]) == ("configuration-differs", f"hosts/{host.id}")
    assert f"option-data of subnet {pair.subnet}" in found["sentence"]
    if whose == "Kea":
        host.restart()
    else:
        pair.control.stop()
        pair.control.start()
    wait_until(lambda: pair.get("/v1/doctor")["items"] == [], 30, "all is well")
