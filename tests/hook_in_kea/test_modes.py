"""`unknown-clients` other than `reject`."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import Host, Lab
from lab.dhcp import RawClient, Type

KNOWN, STRANGER, THIRD = "02:00:00:00:00:41", "02:00:00:00:00:42", "02:00:00:00:00:43"
Serve = Callable[[str], Host]


@pytest.fixture
def serve(lab: Lab) -> Serve:
    """Starts a server that treats unknown clients so; its subnet has a pool of two addresses, one of them reserved."""
    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    subnet: dict[str, Any] = {
        "id": 7,
        "subnet": "192.0.2.0/24",
        "pools": [{"pool": "192.0.2.40 - 192.0.2.41"}],
        "user-context": {"leasehold": {}},
    }

    def start(mode: str) -> Host:
        host.install(subnets=[subnet], parameters={"unknown-clients": mode})
        host.start()
        reservation = {"subnet-id": 7, "hw-address": KNOWN, "ip-address": "192.0.2.40"}
        assert host.command("reservation-add", reservation=reservation)["result"] == 0
        return host

    return start


@pytest.fixture
def client(lab: Lab, serve: Serve) -> Iterator[Callable[[str], RawClient]]:
    """A client of its own for each MAC."""
    guest = lab.vm("guest", "blue", "02:00:00:00:00:40")
    made: list[RawClient] = []

    def make(mac: str) -> RawClient:
        made.append(guest.raw_client(mac))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def test_allowed_strangers_get_addresses_but_never_a_reserved_one(
    serve: Serve, client: Callable[[str], RawClient]
) -> None:
    host = serve("allow")
    offers = [client(mac).discover() for mac in (STRANGER, THIRD)]
    assert {offer.yiaddr for offer in offers if offer} <= {"192.0.2.41"}
    stranger = client(STRANGER)
    for _ in range(3):  # Kea tries the pool's addresses in turn
        offer = stranger.discover(0.5)
        if offer is not None:
            answer = stranger.select(offer)
            assert answer is not None
            assert (answer.type, answer.yiaddr) == (Type.ACK, "192.0.2.41")
            break
    else:
        raise AssertionError("the stranger got no address")
    answer = stranger.request("192.0.2.40", silence_s=0.5)
    assert answer is None or answer.type is Type.NAK
    assert host.command("lease4-get", ip_address="192.0.2.40")["result"] == 3
    owner = client(KNOWN)
    offer = owner.discover(10)
    assert offer is not None
    assert offer.yiaddr == "192.0.2.40"


def test_nak_answers_every_strangers_request_and_no_discover(serve: Serve, client: Callable[[str], RawClient]) -> None:
    serve("nak")
    stranger = client(STRANGER)
    answer = stranger.request("192.0.2.41", silence_s=10)
    assert answer is not None
    assert answer.type is Type.NAK
    assert stranger.discover() is None


def test_drop_is_silent_also_for_the_withdrawn(serve: Serve, client: Callable[[str], RawClient]) -> None:
    host = serve("drop")
    owner = client(KNOWN)
    offer = owner.discover(10)
    assert offer is not None
    assert owner.select(offer, 10) is not None
    assert host.command("reservation-del", subnet_id=7, ip_address="192.0.2.40")["result"] == 0
    assert owner.renew("192.0.2.40") is None


@pytest.mark.parametrize(("mode", "answer"), [("reject", None), ("drop", None), ("nak", Type.NAK)])
def test_on_a_link_whose_network_it_does_not_have_it_says_nothing_unless_it_is_the_only_server(
    lab: Lab, mode: str, answer: Type | None
) -> None:
    """Kea alone refuses a renewal there, although others that have the network would grant it."""
    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    elsewhere = {"id": 7, "subnet": "198.51.100.0/24", "user-context": {"leasehold": {}}}
    host.install(subnets=[elsewhere], parameters={"unknown-clients": mode})
    host.start()
    with lab.vm("guest", "blue", KNOWN).raw_client() as client:
        heard = client.renew("192.0.2.40", 0.5, server="192.0.2.2")
    assert (None if heard is None else heard.type) == answer
    assert host.kea_runs


def test_a_guest_that_reboots_keeps_its_address_at_a_server_that_never_granted_it(
    serve: Serve, client: Callable[[str], RawClient]
) -> None:
    """INIT-REBOOT: another of the network's servers has its lease, and both have the reservation."""
    serve("reject")
    answer = client(KNOWN).request("192.0.2.40")
    assert answer is not None
    assert (answer.type, answer.yiaddr) == (Type.ACK, "192.0.2.40")
    refusal = client(KNOWN).request("192.0.2.41")
    assert refusal is None or refusal.type == Type.NAK
