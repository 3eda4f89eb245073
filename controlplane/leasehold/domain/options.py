"""DHCP options that a subnet gives its guests: what each code takes, and its octets on the wire.

Leasehold encodes them itself, so that one check and one form serve every Kea release, also for options that a release
has no definition of. Sources: RFC 2132 and the IANA registry "BOOTP Vendor Extensions and DHCP Options"; names and
types as in the Kea 2.2 Administrator Reference Manual, "List of standard DHCPv4 options".
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netaddr import AddrFormatError, IPAddress, IPNetwork

from leasehold.errors import FieldInvalid

OptionType = Literal["ipv4", "uint8", "uint16", "uint32", "int32", "boolean", "string", "fqdn", "octets"]
Scalar = bool | int | str
OptionValue = Scalar | tuple[Scalar, ...]

MAX_OCTETS = 255
"""A longer option needs RFC 3396, which not every guest knows."""

_SHOWN = 100


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What the option of a code is called, and what it takes; `array`: one or more of it."""

    code: int
    name: str
    type: OptionType
    array: bool = False


@dataclass(frozen=True, kw_only=True)
class DhcpOption:
    """One option with its value, checked; `name` is None for a code that has no definition here."""

    code: int
    name: str | None
    type: OptionType
    value: OptionValue

    @property
    def octets(self) -> bytes:
        """Its value on the wire."""
        items = self.value if isinstance(self.value, tuple) else (self.value,)
        return b"".join(_KINDS[self.type].encode(each) for each in items)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where packets to a destination go. A gateway of 0.0.0.0 means that it is on the link (RFC 3442)."""

    destination: IPNetwork
    gateway: IPAddress


def parse_option(
    field: str, value: object, *, code: int | None = None, name: str | None = None, type: str | None = None
) -> DhcpOption:
    """An option by code or name. One that has no definition here takes octets as hexadecimal digits, or what `type`
    says. Raises FieldInvalid that names the part of `field` that is wrong."""
    definition = _definition(field, code, name)
    number = definition.code if definition is not None else code
    if number is None:
        raise _refused(field, None, "needs a code or a name")
    if number in _OWNED:
        raise _refused(f"{field}.{'name' if code is None else 'code'}", name if code is None else code, _OWNED[number])
    if definition is None:
        kind = _kind(f"{field}.type", type or "octets")
        is_array = isinstance(value, list | tuple)
    else:
        kind, is_array = definition.type, definition.array
        if type not in (None, kind):
            raise _refused(f"{field}.type", type, f"option {definition.name} ({number}) is of type {kind}")
    option = DhcpOption(
        code=number,
        name=None if definition is None else definition.name,
        type=kind,
        value=_value(f"{field}.value", value, kind, is_array),
    )
    if number in _PAIRS and len(option.octets) % 8:
        raise _refused(f"{field}.value", value, "should be pairs of addresses")
    if not 0 < len(option.octets) <= MAX_OCTETS:
        raise _refused(f"{field}.value", value, f"takes {len(option.octets)} octets, and 1 to {MAX_OCTETS} fit")
    return option


def definition_of(name: str) -> Definition | None:
    """The option that has this name; None where none has."""
    return _BY_NAME.get(name)


def encode_routes(routes: Iterable[Route], default: IPAddress | None) -> bytes:
    """Option 121. Guests that take it ignore option 3, so that the default route is in it too (RFC 3442)."""
    every = [(route.destination, route.gateway) for route in routes]
    if every and default is not None:
        every.append((IPNetwork("0.0.0.0/0"), default))
    return b"".join(
        bytes([destination.prefixlen])
        + int(destination.first).to_bytes(4, "big")[: (destination.prefixlen + 7) // 8]
        + int(gateway).to_bytes(4, "big")
        for destination, gateway in every
    )


def _definition(field: str, code: int | None, name: str | None) -> Definition | None:
    by_name = None if name is None else definition_of(name)
    if name is not None and by_name is None:
        raise _refused(f"{field}.name", name, "is no option that is known here. Say its code, and its value as octets")
    if code is not None and not 1 <= code <= 254:
        raise _refused(f"{field}.code", code, "should be from 1 to 254")
    if by_name is not None and code not in (None, by_name.code):
        raise _refused(f"{field}.code", code, f"option {name} has code {by_name.code}")
    return by_name or (None if code is None else DEFINITIONS.get(code))


def _kind(field: str, text: str) -> OptionType:
    for known in _KINDS:
        if known == text:
            return known
    raise _refused(field, text, f"is no type of options. The types are {', '.join(_KINDS)}")


def _value(field: str, value: object, kind: OptionType, is_array: bool) -> OptionValue:
    if not is_array:
        return _KINDS[kind].check(field, value)
    if not isinstance(value, list | tuple) or not value:
        raise _refused(field, value, "should be a list with at least one value")
    return tuple(_KINDS[kind].check(f"{field}.{index}", each) for index, each in enumerate(value))


@dataclass(frozen=True)
class _Kind:
    check: Callable[[str, object], Scalar]
    encode: Callable[[Any], bytes]


def _ipv4(field: str, value: object) -> Scalar:
    try:
        # One spelling of each address: inet_aton's others are a trap.
        if isinstance(value, str) and str(IPAddress(value, 4)) == value:
            return value
    except (AddrFormatError, ValueError):
        pass
    raise _refused(field, value, "should be an IPv4 address, like 192.0.2.10")


def _integer(first: int, last: int) -> Callable[[str, object], Scalar]:
    def check(field: str, value: object) -> Scalar:
        if isinstance(value, int) and not isinstance(value, bool) and first <= value <= last:
            return value
        raise _refused(field, value, f"should be a number from {first} to {last}")

    return check


def _boolean(field: str, value: object) -> Scalar:
    if isinstance(value, bool):
        return value
    raise _refused(field, value, "should be true or false")


def _matching(pattern: str, reason: str) -> Callable[[str, object], Scalar]:
    def check(field: str, value: object) -> Scalar:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII):
            return value
        raise _refused(field, value, reason)

    return check


def _labels(name: str) -> bytes:
    """A domain name in DNS's wire format (RFC 1035, 3.1), uncompressed."""
    labels = name.rstrip(".").split(".")
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels) + b"\0"


def _number(octets: int) -> Callable[[Any], bytes]:
    return lambda value: int(value).to_bytes(octets, "big", signed=value < 0)


_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_KINDS: Mapping[OptionType, _Kind] = {
    "ipv4": _Kind(_ipv4, lambda value: int(IPAddress(value)).to_bytes(4, "big")),
    "uint8": _Kind(_integer(0, 2**8 - 1), _number(1)),
    "uint16": _Kind(_integer(0, 2**16 - 1), _number(2)),
    "uint32": _Kind(_integer(0, 2**32 - 1), _number(4)),
    "int32": _Kind(_integer(-(2**31), 2**31 - 1), _number(4)),
    "boolean": _Kind(_boolean, _number(1)),
    "string": _Kind(
        _matching(r"[ -~]{1,255}", "should be 1 to 255 printable ASCII characters, and no control characters"),
        lambda value: str(value).encode("ascii"),
    ),
    "fqdn": _Kind(_matching(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?", "should be a domain name"), _labels),
    "octets": _Kind(
        _matching("([0-9A-Fa-f]{2}){1,255}", "should be 1 to 255 octets as hexadecimal digits, like 0a0b"),
        bytes.fromhex,
    ),
}


def _defined(text: str) -> dict[int, Definition]:
    definitions = {}
    for line in text.split("\n"):
        if line:
            code, name, kind = line.split()
            single = kind.removesuffix("[]")
            definitions[int(code)] = Definition(code=int(code), name=name, type=_kind("", single), array=single != kind)
    return definitions


def _refused(field: str, value: object, reason: str) -> FieldInvalid:
    shown = "" if value is None else f"{str(value)[:_SHOWN]!r} "
    return FieldInvalid(f"{field}: {shown}{reason}.", field=field, value=value)


DEFINITIONS: Mapping[int, Definition] = _defined("""
1 subnet-mask ipv4
2 time-offset int32
3 routers ipv4[]
4 time-servers ipv4[]
5 name-servers ipv4[]
6 domain-name-servers ipv4[]
7 log-servers ipv4[]
8 cookie-servers ipv4[]
9 lpr-servers ipv4[]
10 impress-servers ipv4[]
11 resource-location-servers ipv4[]
12 host-name string
13 boot-size uint16
14 merit-dump string
15 domain-name fqdn
16 swap-server ipv4
17 root-path string
18 extensions-path string
19 ip-forwarding boolean
20 non-local-source-routing boolean
21 policy-filter ipv4[]
22 max-dgram-reassembly uint16
23 default-ip-ttl uint8
24 path-mtu-aging-timeout uint32
25 path-mtu-plateau-table uint16[]
26 interface-mtu uint16
27 all-subnets-local boolean
28 broadcast-address ipv4
29 perform-mask-discovery boolean
30 mask-supplier boolean
31 router-discovery boolean
32 router-solicitation-address ipv4
33 static-routes ipv4[]
34 trailer-encapsulation boolean
35 arp-cache-timeout uint32
36 ieee802-3-encapsulation boolean
37 default-tcp-ttl uint8
38 tcp-keepalive-interval uint32
39 tcp-keepalive-garbage boolean
40 nis-domain string
41 nis-servers ipv4[]
42 ntp-servers ipv4[]
43 vendor-encapsulated-options octets
44 netbios-name-servers ipv4[]
45 netbios-dd-server ipv4[]
46 netbios-node-type uint8
47 netbios-scope string
48 font-servers ipv4[]
49 x-display-manager ipv4[]
60 vendor-class-identifier string
62 nwip-domain-name string
63 nwip-suboptions octets
64 nisplus-domain-name string
65 nisplus-servers ipv4[]
66 tftp-server-name string
67 boot-file-name string
68 mobile-ip-home-agent ipv4[]
69 smtp-server ipv4[]
70 pop-server ipv4[]
71 nntp-server ipv4[]
72 www-server ipv4[]
73 finger-server ipv4[]
74 irc-server ipv4[]
75 streettalk-server ipv4[]
76 streettalk-directory-assistance-server ipv4[]
85 nds-servers ipv4[]
86 nds-tree-name string
87 nds-context string
88 bcms-controller-names fqdn[]
89 bcms-controller-address ipv4[]
99 geoconf-civic octets
100 pcode string
101 tcode string
108 v6-only-preferred uint32
112 netinfo-server-address ipv4[]
113 netinfo-server-tag string
114 v4-captive-portal string
116 auto-config uint8
117 name-service-search uint16[]
119 domain-search fqdn[]
121 classless-static-route octets
136 pana-agent ipv4[]
137 v4-lost fqdn
138 capwap-ac-v4 ipv4[]
150 tftp-server-address ipv4[]
213 v4-access-domain fqdn
""")
_PAIRS = (21, 33)
_BY_NAME = {each.name: each for each in DEFINITIONS.values()}

_FIELDS = {1: "cidr", 3: "gateway", 6: "dns", 15: "domain", 26: "mtu", 42: "ntp", 51: "lease_time", 121: "routes"}
_PROTOCOL = (50, *range(52, 60), 61, 80, 81, 82, 90, 91, 92, 93, 94, 97, 118, *range(151, 158))
_OWNED: Mapping[int, str] = {
    **dict.fromkeys(_PROTOCOL, "is DHCP's own, and servers and guests fill it in themselves"),
    **{code: f"comes from the subnet's {field}. Set that instead" for code, field in _FIELDS.items()},
}
"""Options that the DHCP protocol (RFC 2131 and its extensions) or another field of the subnet fills in, and why."""
