"""Reservations as values: parsing from a command, their digest, and the packed form that the native store takes."""

import hashlib
import re
import socket
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Row = tuple[int, int, str]
"""A reservation: MAC as 48-bit integer, IPv4 address as 32-bit integer, hostname ("" is none)."""

MAX_SUBNET_ID = 2**32 - 2
"""Kea's SUBNET_ID_MAX; 0 is its global scope, 2^32 - 1 means unused."""

_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_FIRST_MULTICAST = 0xE000_0000
_FIELDS = ("hw-address", "ip-address", "hostname")


class InvalidField(ValueError):
    """A value that cannot be taken; the message names the field, the value and what is wrong with it."""


@dataclass(frozen=True)
class Batch:
    """Reservations of one subnet, no MAC twice, and the digest over them."""

    rows: list[Row]
    digest: int

    @property
    def macs(self) -> list[int]:
        """The MACs, in the order of the rows."""
        return [mac for mac, _, _ in self.rows]


@dataclass(frozen=True)
class Packed:
    """`count` records of `lh_reservation`, native byte order, and the blob of hostnames that they point into."""

    records: "array[int]"
    names: bytes

    @property
    def count(self) -> int:
        """The number of reservations."""
        return len(self.records) // _WORDS


_WORDS = 6  # 32-bit words in a lh_reservation: two of the MAC, address, offset, length, reserved


def parse_mac(value: object, field: str) -> int:
    """Six octets as "02:00:00:00:00:01", in either case; raises InvalidField."""
    if isinstance(value, str) and _MAC.fullmatch(value):
        return int(value.replace(":", ""), 16)
    raise InvalidField(f"{field}: {value!r} is not a MAC address of six octets like '02:00:00:00:00:01'")


def parse_address(value: object, field: str) -> int:
    """An IPv4 unicast address in dotted decimal; raises InvalidField."""
    if not isinstance(value, str):
        raise InvalidField(f"{field}: {value!r} is not an IPv4 address")
    try:
        # glibc's inet_pton takes one spelling of each address only, so that digests agree about it.
        address = int.from_bytes(socket.inet_pton(socket.AF_INET, value), "big")
    except (OSError, ValueError):
        raise InvalidField(f"{field}: {value!r} is not an IPv4 address") from None
    if address == 0 or address >= _FIRST_MULTICAST:
        raise InvalidField(f"{field}: {value!r} is not a unicast address")
    return address


def parse_hostname(value: object, field: str) -> str:
    """A domain name of ASCII letters, digits, hyphens and underscores, or ""; raises InvalidField.

    Kea 2.2 gives a hook the octets of other characters as if each were a character: they would not survive.
    """
    if isinstance(value, str) and (not value or _HOSTNAME.fullmatch(value)):
        return value
    raise InvalidField(f"{field}: {value!r} is not a domain name of ASCII letters, digits, hyphens and underscores")


def parse_set(items: object, field: str) -> Batch:
    """A list of maps of hw-address, ip-address and, where wanted, hostname; raises InvalidField."""
    rows: list[Row] = []
    digest = 0
    for index, item in enumerate(_list(items, field)):
        mac, address, hostname = parse_reservation(item, f"{field}[{index}]")
        rows.append((mac, address, hostname))
        digest ^= _part(item["hw-address"].lower(), item["ip-address"], hostname)
    batch = Batch(rows, digest)
    _refuse_repeated(batch.macs, field, ".hw-address")
    return batch


def parse_reservation(item: Any, field: str) -> Row:
    """A map of hw-address, ip-address and, where wanted, hostname; raises InvalidField."""
    if not isinstance(item, dict):
        raise InvalidField(f"{field}: {item!r} is not a map")
    try:
        mac = parse_mac(item["hw-address"], f"{field}.hw-address")
        address = parse_address(item["ip-address"], f"{field}.ip-address")
    except KeyError as error:
        raise InvalidField(f"{field}.{error.args[0]}: is missing") from None
    if len(item) == 2:
        return mac, address, ""
    for name in item:
        if name not in _FIELDS:
            raise InvalidField(f"{field}.{name}: is not kept by Leasehold; leave it out")
    return mac, address, parse_hostname(item["hostname"], f"{field}.hostname")


def parse_macs(items: object, field: str) -> list[int]:
    """A list of MACs, none twice; raises InvalidField."""
    macs = [parse_mac(item, f"{field}[{index}]") for index, item in enumerate(_list(items, field))]
    _refuse_repeated(macs, field, "")
    return macs


def mac_text(mac: int) -> str:
    """A MAC in the usual form, lower case."""
    return mac.to_bytes(6, "big").hex(":")


def address_text(address: int) -> str:
    """An IPv4 address in dotted decimal."""
    return socket.inet_ntoa(address.to_bytes(4, "big"))


def digest_of(rows: Iterable[Row]) -> int:
    """XOR over the rows of the first eight octets, big-endian, of SHA-256 of "MAC IP HOSTNAME"; 0 for no rows."""
    digest = 0
    for mac, address, hostname in rows:
        digest ^= _part(mac_text(mac), address_text(address), hostname)
    return digest


def digest_text(digest: int) -> str:
    """A digest as it is written: 16 lower-case hexadecimal digits."""
    return f"{digest:016x}"


def pack_rows(rows: Sequence[Row]) -> Packed:
    """Rows as the native store takes them."""
    return pack(
        [mac for mac, _, _ in rows],
        [address for _, address, _ in rows],
        [len(hostname) for _, _, hostname in rows],
        "".join([hostname for _, _, hostname in rows]),
    )


def pack(macs: list[int], addresses: list[int], lengths: list[int], names: str) -> Packed:
    """The same, column by column: `lengths` are those of the hostnames, `names` these one after another.

    Array slices, since a start of Kea waits for 100,000 of them.
    """
    halves = array("I", array("Q", macs).tobytes())
    records = array("I", bytes(4 * _WORDS * len(macs)))
    records[0::_WORDS] = halves[0::2]
    records[1::_WORDS] = halves[1::2]
    records[2::_WORDS] = array("I", addresses)
    if names:
        records[3::_WORDS] = array("I", accumulate(lengths, initial=0))[:-1]
        records[4::_WORDS] = array("I", lengths)
    return Packed(records, names.encode("ascii"))


def _part(mac: str, address: str, hostname: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{mac} {address} {hostname}".encode()).digest()[:8], "big")


def _list(items: object, field: str) -> list[Any]:
    if not isinstance(items, list):
        raise InvalidField(f"{field}: {items!r} is not a list")
    return items


def _refuse_repeated(macs: list[int], field: str, name: str) -> None:
    if len(set(macs)) == len(macs):
        return
    first: dict[int, int] = {}
    for index, mac in enumerate(macs):
        if mac in first:
            raise InvalidField(f"{field}[{index}]{name}: '{mac_text(mac)}' is in {field}[{first[mac]}] already")
        first[mac] = index
