"""Rules of a subnet: what fits together, and which of its addresses can be handed out. Offsets count from the network
address."""

import itertools
from collections.abc import Iterable
from functools import lru_cache

from netaddr import IPAddress, IPNetwork

from leasehold.domain.addresses import AddressRange
from leasehold.domain.extents import Extent, without
from leasehold.domain.mac_pools import check_ranges
from leasehold.domain.options import MAX_OCTETS, encode_routes
from leasehold.domain.values import SubnetSpec
from leasehold.errors import SubnetInvalid

MAX_LEASE_TIME_S = 2**31 - 1
LEAST_MTU, MOST_MTU = 68, 2**16 - 1
"""RFC 2132, 5.1."""

_NO_GUESTS = tuple(map(IPNetwork, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))
_UNICAST = AddressRange(IPAddress("1.0.0.0"), IPAddress("223.255.255.255"))
_ON_LINK = IPAddress(0, 4)


def check(spec: SubnetSpec) -> None:
    """Raises SubnetInvalid for the first part that does not fit the others, and RangeInvalid, RangeNotUnicast,
    RangesOverlap for MACs that no pool could have in its ranges either."""
    if spec.cidr.version != 4:
        raise _misfit(spec, "cidr", spec.cidr, "is not IPv4. Leasehold serves IPv4 subnets.")
    if any(overlap(spec.cidr, each) for each in _NO_GUESTS):
        raise _misfit(spec, "cidr", spec.cidr, "holds no addresses that a guest can have.")
    if spec.cidr.prefixlen > 30:
        raise _misfit(spec, "cidr", spec.cidr, "has no address left for a guest. Use a prefix of 30 or shorter.")
    if not 60 <= spec.lease_time_s <= MAX_LEASE_TIME_S:
        raise _misfit(spec, "lease_time", spec.lease_time_s, f"is not between 60 and {MAX_LEASE_TIME_S} seconds.")
    if spec.gateway is not None and not is_host(spec, spec.gateway):
        raise _misfit(spec, "gateway", spec.gateway, f"is not a host address of {spec.cidr}.")
    for field, servers in (("dns", spec.dns), ("ntp", spec.ntp)):
        for server in servers:
            if server.version != 4:
                raise _misfit(spec, field, server, "is not an IPv4 address, and DHCPv4 cannot carry it.")
            if not _UNICAST.first <= server <= _UNICAST.last:
                raise _misfit(spec, field, server, "is no address that a server can have.")
    for field, ranges in (("ranges", spec.ranges), ("exclusions", spec.exclusions)):
        for each in ranges:
            if each.first not in spec.cidr or each.last not in spec.cidr:
                raise _misfit(spec, field, each, f"is not inside of {spec.cidr}.")
    _check_disjoint(spec)
    _check_routes(spec)
    if spec.mtu is not None and not LEAST_MTU <= spec.mtu <= MOST_MTU:
        raise _misfit(spec, "mtu", spec.mtu, f"is not between {LEAST_MTU} and {MOST_MTU} octets.")
    codes = [option.code for option in spec.options]
    for index, option in enumerate(spec.options):
        if option.code in codes[:index]:
            raise _misfit(spec, f"options.{index}", option.name or option.code, "comes twice. Say each option once.")
    if spec.mac_ranges:
        check_ranges(spec.mac_ranges, "mac_ranges")


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether two networks share addresses."""
    return bool(one.version == other.version and one.first <= other.last and other.first <= one.last)


def common(one: IPNetwork, other: IPNetwork) -> IPNetwork | None:
    """What is in both: CIDRs lie within each other or apart."""
    if not overlap(one, other):
        return None
    return min(one, other, key=lambda each: each.size)


def clashes(cidrs: Iterable[tuple[str, IPNetwork]]) -> dict[str, set[str]]:
    """Networks by name that share addresses with others, with those others. A name may come with several CIDRs."""
    found: dict[str, set[str]] = {}
    around: list[tuple[str, IPNetwork]] = []
    # CIDRs lie within each other or apart.
    for name, cidr in sorted(cidrs, key=lambda each: (each[1].first, -each[1].last)):
        while around and around[-1][1].last < cidr.first:
            around.pop()
        for other, _ in around:
            if other != name:
                found.setdefault(name, set()).add(other)
                found.setdefault(other, set()).add(name)
        around.append((name, cidr))
    return found


def is_host(spec: SubnetSpec, address: IPAddress) -> bool:
    """Whether something on the subnet can have the address: it is inside, and not network or broadcast address."""
    return address.version == spec.cidr.version and offset_of(spec, address) in _hosts(spec)


def serves(cidr: str | None, address: IPAddress) -> bool:
    """Whether a server that has the subnet with this CIDR, or not at all, can give a guest the address."""
    return cidr is not None and int(address) in _guests(cidr)


def offset_of(spec: SubnetSpec, address: IPAddress) -> int:
    """How far the address is from the network address; negative or too large for one that is outside."""
    return int(address) - int(spec.cidr.first)


def address_at(spec: SubnetSpec, offset: int) -> IPAddress:
    """The address at an offset."""
    return IPAddress(int(spec.cidr.first) + offset, spec.cidr.version)


def assignable(spec: SubnetSpec, taken: Iterable[IPAddress] = ()) -> list[Extent]:
    """Extents of offsets that vNICs can have: the ranges (or everything) without network and broadcast address,
    gateway, exclusions, and the `taken` addresses, ascending and never touching."""
    hosts = _hosts(spec)
    extents = sorted(_offsets(spec, each) for each in spec.ranges) or [(hosts.start, hosts.stop - 1)]
    holes = [(0, 0), (hosts.stop, hosts.stop), *(_offsets(spec, each) for each in spec.exclusions)]
    holes += [(offset_of(spec, each),) * 2 for each in (spec.gateway, *taken) if each is not None]
    return _joined(without(extents, holes))


def within(extents: Iterable[Extent], offset: int) -> bool:
    """Whether the offset is in one of the extents."""
    return any(first <= offset <= last for first, last in extents)


def _joined(extents: list[Extent]) -> list[Extent]:
    joined: list[Extent] = []
    for first, last in extents:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


@lru_cache(4096)
def _guests(cidr: str) -> range:
    network = IPNetwork(cidr)
    return range(network.first + 1, network.last)


def _hosts(spec: SubnetSpec) -> range:
    """Offsets of host addresses: all but network and broadcast address (RFC 1122, 3.2.1.3)."""
    return range(1, spec.cidr.size - 1)


def _offsets(spec: SubnetSpec, each: AddressRange) -> Extent:
    return offset_of(spec, each.first), offset_of(spec, each.last)


def _check_disjoint(spec: SubnetSpec) -> None:
    ordered = sorted(spec.ranges)
    for before, after in itertools.pairwise(ordered):
        if after.first <= before.last:
            raise _misfit(spec, "ranges", after, f"overlaps with the range {before}.")


def _check_routes(spec: SubnetSpec) -> None:
    seen = set()
    for index, route in enumerate(spec.routes):
        where = f"routes.{index}"
        if route.destination.version != 4 or route.gateway.version != 4:
            raise _misfit(spec, where, route.destination, "is not IPv4, and DHCPv4 cannot carry it.")
        if route.destination.prefixlen == 0:
            raise _misfit(spec, f"{where}.destination", route.destination, "is the default route. Set gateway instead.")
        if route.destination in seen:
            raise _misfit(spec, f"{where}.destination", route.destination, "comes twice. Say each destination once.")
        if route.gateway != _ON_LINK and not is_host(spec, route.gateway):
            raise _misfit(spec, f"{where}.gateway", route.gateway, f"is not a host address of {spec.cidr}.")
        seen.add(route.destination)
    length = len(encode_routes(spec.routes, spec.gateway))
    if length > MAX_OCTETS:
        why = f"take {length} octets with the default route, and no more than {MAX_OCTETS} fit into option 121."
        raise _misfit(spec, "routes", len(spec.routes), why)


def _misfit(spec: SubnetSpec, field: str, value: object, why: str) -> SubnetInvalid:
    return SubnetInvalid(f"{field}: {value} {why}", cidr=str(spec.cidr), field=field, value=str(value))
