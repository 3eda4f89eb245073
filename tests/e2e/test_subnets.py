"""Several subnets on one network, their options, and their changes, with real guests."""

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.conftest import staged
from lab import Lab
from lab.dhcp import Message, Option, Type
from lab.stage import NETWORK, Stage
from lab.vm import Vm
from lab.waiting import wait_until

SECOND = {
    "network": NETWORK,
    "cidr": "203.0.113.0/24",
    "gateway": "203.0.113.1",
    "mtu": 1400,
    "routes": [{"destination": "10.0.0.0/8", "gateway": "203.0.113.9"}],
    "options": [
        {"name": "tftp-server-name", "value": "boot.example"},
        {"name": "domain-search", "value": ["a.example", "b.example"]},
        {"code": 224, "value": "0a0b"},
    ],
    "lease_time": 60,
}
ASKED_FOR = bytes([Option.SUBNET_MASK, Option.ROUTER, 26, 66, 119, 121, 224])

_names = (f"nic-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def stage(module_lab: Lab) -> Iterator[Stage]:
    """One host that serves a network, which gets its second subnet while a guest of the first has its address."""
    with staged(module_lab, hosts=1, servers=1) as stage:
        yield stage


@pytest.fixture(scope="module")
def second(stage: Stage) -> int:
    """The network's second subnet, served."""
    early = started(stage, stage.subnet)
    subnet: int = stage.post("/v1/subnets", **SECOND)["id"]
    wait_until(lambda: managed(stage) == {stage.subnet, subnet}, 20, "both subnets are served")
    assert leased(early) == promised(stage, early)
    return subnet


def managed(stage: Stage) -> set[int]:
    return set(stage.hosts[0].status()["managed-subnets"])


def started(stage: Stage, subnet: int) -> Vm:
    """A new vNIC's guest, which was started on the subnet."""
    name = next(_names)
    stage.vnic(name, subnet=subnet)
    stage.start(name)
    return stage.guest(name)


def promised(stage: Stage, guest: Vm) -> str:
    address: str = stage.get(f"/v1/vnics/{guest.name.removeprefix('vm-')}")["ip"]
    return address


def leased(guest: Vm) -> str | None:
    lease = guest.dhcp()
    return None if lease is None else lease.address


def acknowledged(guest: Vm, wanted: Callable[[Message], bool] = lambda _: True) -> Message:
    """The first answer to a REQUEST that is as wanted, with every option of `SECOND` asked for. While Kea takes a
    configuration over it answers nobody."""
    found = wait_until(
        lambda: next((each for each in (asked(guest),) if each is not None and wanted(each)), None), 30, "such an ACK"
    )
    assert found is not None
    return found


def asked(guest: Vm) -> Message | None:
    with guest.raw_client() as client:
        offer = client.exchange(
            client.message(Type.DISCOVER, options={Option.PARAMETER_REQUEST_LIST: ASKED_FOR}), silence_s=2
        )
        if offer is None:
            return None
        options: dict[int, bytes] = {
            Option.REQUESTED_ADDRESS: socket.inet_aton(offer.yiaddr),
            Option.SERVER_ID: offer.options[Option.SERVER_ID],
            Option.PARAMETER_REQUEST_LIST: ASKED_FOR,
        }
        answer = client.exchange(client.message(Type.REQUEST, options=options), silence_s=2)
        return answer if answer is not None and answer.type is Type.ACK else None


@pytest.mark.parametrize("order", ["first, second", "second, first"])
def test_a_guest_gets_its_address_on_whichever_subnet_it_is(stage: Stage, second: int, order: str) -> None:
    of_name: dict[str, Any] = {"first": (stage.subnet, "192.0.2.", 600), "second": (second, "203.0.113.", 60)}
    for name in order.split(", "):
        subnet, prefix, lease_time_s = of_name[name]
        guest = started(stage, subnet)
        lease = guest.dhcp()
        assert lease is not None
        assert (lease.address, lease.lease_time_s) == (promised(stage, guest), lease_time_s)
        assert lease.address.startswith(prefix)


def test_every_option_is_on_the_wire(stage: Stage, second: int) -> None:
    answer = acknowledged(started(stage, second))
    assert answer.addresses(Option.ROUTER) == ["203.0.113.1"]
    assert answer.addresses(Option.SUBNET_MASK) == ["255.255.255.0"]
    assert answer.options[26] == (1400).to_bytes(2, "big")
    assert answer.options[66] == b"boot.example"
    assert answer.options[119] == b"\x01a\x07example\x00\x01b\x07example\x00"
    assert answer.options[121].hex() == "080acb00710900cb007101"
    assert answer.options[224] == b"\x0a\x0b"


def test_a_change_of_settings_reaches_the_guests_and_loses_no_reservation(stage: Stage, second: int) -> None:
    guest = started(stage, second)
    address = promised(stage, guest)
    stage.patch(
        f"/v1/subnets/{second}", mtu=1300, options=[], ranges=[{"from": "203.0.113.200", "to": "203.0.113.210"}]
    )
    answer = acknowledged(guest, lambda each: each.options[26] == (1300).to_bytes(2, "big"))
    assert answer.yiaddr == address
    assert 66 not in answer.options
    assert promised(stage, started(stage, second)).startswith("203.0.113.20")
    stage.patch(f"/v1/subnets/{second}", ranges=[])


def test_a_cidr_may_begin_elsewhere_under_guests_that_run(stage: Stage, second: int) -> None:
    guest = started(stage, second)
    address = promised(stage, guest)
    assert leased(guest) == address
    stage.patch(f"/v1/subnets/{second}", cidr="203.0.112.0/23")
    answer = acknowledged(guest, lambda each: each.addresses(Option.SUBNET_MASK) == ["255.255.254.0"])
    assert answer.yiaddr == address
    late = started(stage, second)
    assert leased(late) == promised(stage, late)


def test_a_stranger_is_answered_on_neither_subnet(stage: Stage, second: int) -> None:
    stranger = stage.lab.vm(f"vm-{next(_names)}", NETWORK, "02:ff:00:00:00:01")
    with stranger.raw_client() as client:
        assert client.discover() is None
        assert client.request("203.0.113.77") is None


def test_a_guest_of_the_second_subnet_that_was_stopped_gets_nak(stage: Stage, second: int) -> None:
    guest = started(stage, second)
    address = promised(stage, guest)
    assert leased(guest) == address
    name = guest.name.removeprefix("vm-")
    stage.stop(name)
    wait_until(lambda: stage.get(f"/v1/vnics/{name}")["ip_state"] != "draining", 10, "the host confirmed the stop")
    with guest.raw_client() as client:
        answer = client.renew(address)
    assert answer is not None
    assert answer.type is Type.NAK


def test_a_renumbered_subnets_guests_have_their_new_addresses(stage: Stage, second: int) -> None:
    guest = started(stage, second)
    before = promised(stage, guest)
    assert leased(guest) == before
    done = stage.post(f"/v1/subnets/{second}/renumber", cidr="198.51.100.0/23")
    new = done["subnet"]["id"]
    wait_until(lambda: new in managed(stage), 20, "the new subnet is served")
    with guest.raw_client() as client:
        answer = client.renew(before)
    assert answer is not None
    assert answer.type is Type.NAK
    assert (
        leased(guest)
        == promised(stage, guest)
        == next(each["after"] for each in done["moved"] if each["before"] == before)
    )
    wait_until(
        lambda: [each["id"] for each in stage.get("/v1/subnets")["items"]] == [stage.subnet, new],
        120,
        "the old subnet is gone, now that a lease of it has ended for sure",
    )
    wait_until(lambda: managed(stage) == {stage.subnet, new}, 20, "it is not served any more")
    first = started(stage, stage.subnet)
    assert leased(first) == promised(stage, first)
