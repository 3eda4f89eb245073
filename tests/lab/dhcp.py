"""DHCPv4 messages, octet by octet, for the exact cases that a well-behaved client never shows.

RFC 2131 for the messages (figure 1, and table 5 for what a client fills in), RFC 2132 for the options.
"""

import ipaddress
import random
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from lab.namespace import Namespace

NO_ADDRESS = str(ipaddress.IPv4Address(0))
_MAGIC = b"\x63\x82\x53\x63"
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_BROADCAST_FLAG = 0x8000
_ETHERTYPE_IPV4 = 0x0800
_PROTOCOL_UDP = 17
_SERVER_PORT, _CLIENT_PORT = 67, 68


class Type(IntEnum):
    """DHCP message types (RFC 2132, section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """Options by their codes (RFC 2132)."""

    SUBNET_MASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    DOMAIN_NAME = 15
    NTP = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_REQUEST_LIST = 55
    MESSAGE = 56
    CLIENT_ID = 61


_ASKED_FOR = bytes([Option.SUBNET_MASK, Option.ROUTER, Option.DNS, Option.DOMAIN_NAME, Option.NTP, Option.LEASE_TIME])


@dataclass(frozen=True, kw_only=True)
class Message:
    """One DHCPv4 message. Addresses are dotted text, MACs lower case with colons, options raw octets by code."""

    request: bool
    mac: str
    xid: int
    ciaddr: str = NO_ADDRESS
    yiaddr: str = NO_ADDRESS
    siaddr: str = NO_ADDRESS
    giaddr: str = NO_ADDRESS
    broadcast: bool = False
    options: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def type(self) -> Type:
        """The message type; raises KeyError for a BOOTP message, which has none."""
        return Type(self.options[Option.MESSAGE_TYPE][0])

    @property
    def server(self) -> str | None:
        """The server identifier."""
        return next(iter(self.addresses(Option.SERVER_ID)), None)

    @property
    def lease_time_s(self) -> int | None:
        octets = self.options.get(Option.LEASE_TIME)
        return int.from_bytes(octets, "big") if octets is not None else None

    def addresses(self, option: int) -> list[str]:
        """The addresses in an option that is a list of them; empty without it."""
        octets = self.options.get(option, b"")
        return [str(ipaddress.IPv4Address(octets[start : start + 4])) for start in range(0, len(octets), 4)]

    def encode(self) -> bytes:
        """The message as it crosses the wire, padded to BOOTP's least length of 300 octets."""
        options = b"".join(bytes([code, len(value)]) + value for code, value in self.options.items()) + b"\xff"
        addresses = (socket.inet_aton(address) for address in (self.ciaddr, self.yiaddr, self.siaddr, self.giaddr))
        fixed = _FIXED.pack(
            1 if self.request else 2, 1, 6, 0, self.xid, 0, _BROADCAST_FLAG if self.broadcast else 0,
            *addresses, _mac_octets(self.mac), b"", b"", _MAGIC,
        )  # fmt: skip
        return (fixed + options).ljust(300, b"\0")

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Raises ValueError for what is not a DHCP message over Ethernet."""
        if len(octets) < _FIXED.size:
            raise ValueError(f"{len(octets)} octets are too few for DHCP")
        fields = _FIXED.unpack_from(octets)
        operation, _, _, _, xid, _, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, _, _, magic = fields
        if magic != _MAGIC:
            raise ValueError(f"no DHCP: magic cookie {magic.hex()}")
        return cls(
            request=operation == 1,
            mac=chaddr[:6].hex(":"),
            xid=xid,
            ciaddr=socket.inet_ntoa(ciaddr),
            yiaddr=socket.inet_ntoa(yiaddr),
            siaddr=socket.inet_ntoa(siaddr),
            giaddr=socket.inet_ntoa(giaddr),
            broadcast=bool(flags & _BROADCAST_FLAG),
            options=_decode_options(octets[_FIXED.size :]),
        )


class RawClient:
    """Sends single DHCP messages from `interface` in `namespace`, as the client `mac`, and hears the answers.

    It keeps no state: each call says which message, with which addresses. Usable as a context manager.
    """

    def __init__(self, namespace: Namespace, interface: str, mac: str) -> None:
        self.mac = mac
        self._socket = namespace.within(lambda: _open(interface))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def discover(self, silence_s: float = 1) -> Message | None:
        """DISCOVER; the first OFFER, or None after `silence_s` seconds without one."""
        return self.exchange(self.message(Type.DISCOVER), silence_s)

    def select(self, offer: Message, silence_s: float = 1) -> Message | None:
        """REQUEST in SELECTING: takes `offer`. The ACK or NAK, or None."""
        return self.request(offer.yiaddr, server=offer.server, xid=offer.xid, silence_s=silence_s)

    def request(
        self, address: str, *, server: str | None = None, xid: int | None = None, silence_s: float = 1
    ) -> Message | None:
        """REQUEST for `address`: with `server` as in SELECTING, without as in INIT-REBOOT. The ACK or NAK, or None."""
        options: dict[int, bytes] = {Option.REQUESTED_ADDRESS: socket.inet_aton(address)}
        if server is not None:
            options[Option.SERVER_ID] = socket.inet_aton(server)
        return self.exchange(self.message(Type.REQUEST, xid=xid, options=options), silence_s)

    def renew(self, address: str, silence_s: float = 1, *, server: str | None = None) -> Message | None:
        """REQUEST as in REBINDING, `address` in ciaddr, to everybody; with `server` as in RENEWING, to that address
        alone. The ACK or NAK, or None. This socket hears what comes to any address on its wire.
        """
        message = self.message(Type.REQUEST, ciaddr=address)
        self.send(message, to=server)
        return next(iter(self.answers(message, silence_s, at_most=1)), None)

    def release(self, address: str, server: str) -> None:
        """RELEASE, which nobody answers."""
        self.send(self.message(Type.RELEASE, ciaddr=address, options={Option.SERVER_ID: socket.inet_aton(server)}))

    def decline(self, address: str, server: str) -> None:
        """DECLINE, which nobody answers."""
        options: dict[int, bytes] = {
            Option.REQUESTED_ADDRESS: socket.inet_aton(address),
            Option.SERVER_ID: socket.inet_aton(server),
        }
        self.send(self.message(Type.DECLINE, options=options))

    def message(
        self,
        kind: Type,
        *,
        ciaddr: str = NO_ADDRESS,
        xid: int | None = None,
        options: Mapping[int, bytes] | None = None,
    ) -> Message:
        """A message of this client; a random transaction id unless told, and the usual parameter request list."""
        usual: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes([kind]), Option.PARAMETER_REQUEST_LIST: _ASKED_FOR}
        return Message(
            request=True,
            mac=self.mac,
            xid=random.getrandbits(32) if xid is None else xid,
            ciaddr=ciaddr,
            broadcast=True,
            options=usual | dict(options or {}),
        )

    def exchange(self, message: Message, silence_s: float) -> Message | None:
        """Send; the first answer to it, or None after `silence_s` seconds without one."""
        self.send(message)
        return next(iter(self.answers(message, silence_s, at_most=1)), None)

    def send(self, message: Message, *, to: str | None = None) -> None:
        """Broadcast a message, as an interface without an address does (RFC 2131, section 4.1); or send it `to` one."""
        self._socket.send(_frame(self.mac, message.encode(), to or "255.255.255.255"))

    def answers(self, message: Message, silence_s: float, at_most: int | None = None) -> list[Message]:
        """What servers answer to `message` within `silence_s` seconds, until there are `at_most` answers."""
        heard: list[Message] = []
        deadline = time.monotonic() + silence_s
        while at_most is None or len(heard) < at_most:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._socket], [], [], left_s)[0]:
                break
            answer = parse_frame(self._socket.recv(65535))
            if answer is not None and _answers(answer, message):
                heard.append(answer)
        return heard


def _answers(answer: Message, message: Message) -> bool:
    """Whether `answer` is one to `message`. A second server's late OFFER has the transaction id of the REQUEST too."""
    same_exchange = not answer.request and (answer.xid, answer.mac) == (message.xid, message.mac)
    return same_exchange and (answer.type == Type.OFFER) == (message.type == Type.DISCOVER)


def parse_frame(frame: bytes) -> Message | None:
    """The DHCP message in an Ethernet frame; None for any other frame."""
    if len(frame) < 14 + 20 + 8 or int.from_bytes(frame[12:14], "big") != _ETHERTYPE_IPV4 or frame[23] != _PROTOCOL_UDP:
        return None
    udp = 14 + (frame[14] & 0x0F) * 4
    ports = struct.unpack_from("!HH", frame, udp)
    if not set(ports) & {_SERVER_PORT, _CLIENT_PORT}:
        return None
    return Message.decode(frame[udp + 8 :])


def _open(interface: str) -> socket.socket:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_IPV4))
    link.bind((interface, _ETHERTYPE_IPV4))
    return link


def _frame(source_mac: str, payload: bytes, destination: str) -> bytes:
    """`payload` in UDP 68 → 67, IPv4 0.0.0.0 → `destination`, Ethernet broadcast."""
    # A UDP checksum of zero means that there is none (RFC 768).
    udp = struct.pack("!HHHH", _CLIENT_PORT, _SERVER_PORT, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _PROTOCOL_UDP, 0, bytes(4), socket.inet_aton(destination)
    )
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    ethernet = b"\xff" * 6 + _mac_octets(source_mac) + struct.pack("!H", _ETHERTYPE_IPV4)
    return ethernet + header + udp


def _checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of octets."""
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac_octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _decode_options(octets: bytes) -> dict[int, bytes]:
    """Options up to the end option; parts of one option are put together (RFC 3396)."""
    options: dict[int, bytes] = {}
    at = 0
    while at < len(octets) and octets[at] != 255:
        if octets[at] == 0:
            at += 1
            continue
        length = octets[at + 1] if at + 1 < len(octets) else 0
        value = octets[at + 2 : at + 2 + length]
        if len(value) < max(length, 1):
            raise ValueError(f"DHCP option {octets[at]} is cut short")
        options[octets[at]] = options.get(octets[at], b"") + value
        at += 2 + length
    return options
