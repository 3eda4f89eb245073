"""MACs, IP addresses and ranges as values: parsed once at the edge, integers inside."""

import re
from dataclasses import dataclass
from typing import Self

from netaddr import AddrFormatError, IPAddress, IPNetwork

from leasehold.errors import FieldInvalid, MacNotUnicast, RangeInvalid

MAC_BITS = 48
_GROUP_BIT = 1 << 40  # least significant bit of the first octet: IEEE Std 802-2014, 8.2
_LOCAL_BIT = 1 << 41

_PREFIX_LENGTH = re.compile("0|[1-9][0-9]{0,2}", re.ASCII)
_MAC_FORMS = re.compile(
    r"(?:[0-9a-f]{2}(?P<sep>[:-])(?:[0-9a-f]{2}(?P=sep)){4}[0-9a-f]{2}"
    r"|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}"
    r"|[0-9a-f]{12})",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, order=True, slots=True)
class Mac:
    """A 48-bit MAC address; `value` is its six octets as one integer in network order."""

    value: int

    @classmethod
    def parse(cls, text: str, field: str = "mac") -> Self:
        """A MAC from six octets with colons, hyphens, three dotted groups, or bare; raises FieldInvalid."""
        if not _MAC_FORMS.fullmatch(text):
            raise FieldInvalid(
                f"{field}: {text!r} is not a MAC address. Write six octets, like 02:00:5e:10:00:01.",
                field=field,
                value=text,
            )
        return cls(int(re.sub("[:.-]", "", text), 16))

    def __str__(self) -> str:
        return self.value.to_bytes(6, "big").hex(":")

    @property
    def is_unicast(self) -> bool:
        """True for what a network card may own: not multicast, not all zero."""
        return not self.value & _GROUP_BIT and self.value != 0

    def require_unicast(self, field: str = "mac") -> Self:
        """Itself; raises MacNotUnicast for a multicast or all-zero MAC."""
        if not self.is_unicast:
            raise MacNotUnicast(
                f"{field}: {self} is {'multicast' if self.value else 'all zero'}, and no network card can own it. "
                "Name a unicast MAC: one whose first octet is even.",
                field=field,
                mac=str(self),
            )
        return self


@dataclass(frozen=True, order=True, slots=True)
class MacRange:
    """An inclusive range of MACs."""

    first: Mac
    last: Mac

    def __contains__(self, mac: Mac) -> bool:
        return self.first <= mac <= self.last

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


def random_local_range(random_bits: int) -> MacRange:
    """A locally administered unicast range of 2**24 MACs whose first three octets come from `random_bits`.

    22 of the bits are used, so that two installations collide with a chance of one in four million.
    """
    top = random_bits & 0x3FFFFF
    prefix = (top >> 16) << 18 | (top & 0xFFFF)  # keep the two lowest bits of the first octet for their flags
    first = (prefix << 24 | _LOCAL_BIT) & ~_GROUP_BIT
    return MacRange(Mac(first), Mac(first | 0xFFFFFF))


@dataclass(frozen=True, order=True, slots=True)
class AddressRange:
    """An inclusive range of IP addresses of one version."""

    first: IPAddress
    last: IPAddress

    def __post_init__(self) -> None:
        if self.first.version != self.last.version or self.first > self.last:
            raise RangeInvalid(
                f"The range from {self.first} to {self.last} ends before it begins. Swap its ends.",
                **{"from": str(self.first), "to": str(self.last)},
            )

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


def parse_ip(text: str, field: str) -> IPAddress:
    """An IPv4 address in four decimal octets, or an IPv6 address; raises FieldInvalid."""
    try:
        return IPAddress(text)
    except (AddrFormatError, ValueError, TypeError):
        raise FieldInvalid(
            f"{field}: {text!r} is not an IP address. Write one like 192.0.2.10.", field=field, value=text
        ) from None


def parse_cidr(text: str, field: str = "cidr") -> IPNetwork:
    """A network without host bits, as address and prefix length or netmask; raises FieldInvalid."""
    _, _, width = text.partition("/")
    try:
        # Only 1s and then 0s: netaddr takes a hostmask too, and numbers with spaces and signs.
        is_sound = _PREFIX_LENGTH.fullmatch(width) is not None or IPAddress(width, 4).is_netmask()
        network = IPNetwork(text) if is_sound else None
    except (AddrFormatError, ValueError, TypeError):
        network = None
    if network is None:
        raise FieldInvalid(
            f"{field}: {text!r} is not a network. Write address and prefix length, like 192.0.2.0/24.",
            field=field,
            value=text,
        )
    if network.ip != network.network:
        raise FieldInvalid(
            f"{field}: {text!r} has host bits set. Did you mean {network.cidr}?", field=field, value=text
        )
    return network
