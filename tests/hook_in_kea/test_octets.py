"""What the hook packs itself is, octet for octet, what Kea would send."""

import json
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Host, Lab
from lab.dhcp import Message, Option, Type, parse_frame
from lab.vm import INTERFACE, Vm
from lab.waiting import wait_until

MAC = "02:00:00:00:00:31"
ADDRESS = "192.0.2.31"
_ETHERTYPE_IPV4 = 0x0800
_SHORT = [
    {"name": "routers", "data": "192.0.2.254"},
    {"name": "domain-name-servers", "data": "192.0.2.53, 198.51.100.53"},
    {"name": "domain-name", "data": "blue.example"},
    {"name": "domain-search", "data": "blue.example, example.com", "always-send": True},
    {"name": "interface-mtu", "data": "1450", "always-send": True},
    {"code": 121, "space": "dhcp4", "data": "18c0000201c00002fe", "csv-format": False, "always-send": True},
    {"name": "vendor-encapsulated-options", "always-send": True},
    {"code": 1, "space": "vendor-encapsulated-options-space", "data": "aabb", "csv-format": False},
    {"name": "host-name", "data": "vm-31", "always-send": True},
]
_LONG = [
    *_SHORT,
    {"code": 224, "space": "dhcp4", "data": "ab" * 600, "csv-format": False, "always-send": True},
]
_LONGEST_UNSPLIT = [
    *_SHORT,
    {"code": 224, "space": "dhcp4", "data": "cd" * 253, "csv-format": False, "always-send": True},
]


@pytest.fixture(scope="module")
def host(module_lab: Lab) -> Host:
    module_lab.network("blue")
    return module_lab.host("host-a", {"blue": "192.0.2.2/24"})


@pytest.fixture(scope="module")
def guest(module_lab: Lab, host: Host) -> Vm:
    return module_lab.vm("guest", "blue", MAC)


@pytest.fixture
def started(host: Host) -> Iterator[None]:
    yield
    host.stop()


@pytest.mark.parametrize("options", [_SHORT, _LONGEST_UNSPLIT, _LONG], ids=["short", "longest", "split"])
@pytest.mark.parametrize("broadcast", [True, False], ids=["broadcast", "unicast"])
def test_an_answer_has_the_octets_that_kea_would_have_sent(
    host: Host, guest: Vm, started: None, options: list[dict[str, Any]], broadcast: bool
) -> None:
    ours = _answers(host, guest, options, broadcast, hook_is_last=True)
    host.stop()
    for left in (*host.directory.glob("kea-leases4.csv*"),):
        left.unlink()
    keas = _answers(host, guest, options, broadcast, hook_is_last=False)
    assert [answer.hex() for answer in ours] == [answer.hex() for answer in keas]


def _answers(
    host: Host, guest: Vm, options: list[dict[str, Any]], broadcast: bool, *, hook_is_last: bool
) -> list[bytes]:
    """An OFFER, an ACK, and a NAK."""
    subnet = {
        "id": 7,
        "subnet": "192.0.2.0/24",
        "valid-lifetime": 600,
        "renew-timer": 300,
        "rebind-timer": 525,
        "next-server": "192.0.2.69",
        "server-hostname": "boot.blue.example",
        "boot-file-name": "/boot/ipxe.efi",
        "option-data": options,
        "user-context": {"leasehold": {}},
    }

    def order(dhcp4: dict[str, Any]) -> None:
        if not hook_is_last:
            dhcp4["hooks-libraries"].reverse()

    host.install(subnets=[subnet], change=order)
    host.start()
    added = host.command(
        "reservation-add", reservation={"subnet-id": 7, "hw-address": MAC, "ip-address": ADDRESS, "hostname": "vm-31"}
    )
    assert added["result"] in (0, 1), json.dumps(added)
    asked = bytes([*range(1, 70), 119, 121, 224])

    def message(kind: Type, xid: int, **more: bytes) -> Message:
        told: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes([kind]), Option.PARAMETER_REQUEST_LIST: asked}
        told |= {Option[name]: value for name, value in more.items()}
        return Message(request=True, mac=MAC, xid=xid, broadcast=broadcast, options=told)

    server = socket.inet_aton("192.0.2.2")
    with _socket(guest) as heard, guest.raw_client() as client:

        def answer(request: Message) -> bytes:
            client.send(request)
            found = wait_until(lambda: _next(heard, request.xid), 20, f"an answer to {request}")
            assert found is not None
            return found

        return [
            answer(message(Type.DISCOVER, 0x31000001)),
            answer(message(Type.REQUEST, 0x31000002, REQUESTED_ADDRESS=socket.inet_aton(ADDRESS), SERVER_ID=server)),
            answer(message(Type.REQUEST, 0x31000003, REQUESTED_ADDRESS=socket.inet_aton("192.0.2.77"))),
        ]


def _socket(guest: Vm) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_IPV4))
        made.bind((INTERFACE, _ETHERTYPE_IPV4))
        return made

    return guest.namespace.within(make)


def _next(heard: socket.socket, xid: int) -> bytes | None:
    """The whole IPv4 packet of an answer, if one is there."""
    while select.select([heard], [], [], 0)[0]:
        frame = heard.recv(65535)
        answer = parse_frame(frame)
        if answer is not None and not answer.request and answer.xid == xid:
            return frame[14:]
    return None
