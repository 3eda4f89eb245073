"""Rules of a subnet: what fits together, and which of its addresses can be handed out. Offsets count from the network
address."""

import itertools
from collections.abc import Iterable

from netaddr import IPAddress

from leasehold.domain.addresses import AddressRange
from leasehold.domain.values import SubnetSpec
from leasehold.errors import SubnetInvalid

MAX_LEASE_TIME_S = 2**31 - 1


def check(spec: SubnetSpec) -> None:
    """Raises SubnetInvalid for the first part that does not fit the others."""
    if spec.cidr.version != 4:
        raise _misfit(spec, "cidr", spec.cidr, "is not IPv4. Leasehold serves IPv4 subnets.")
    if spec.cidr.is_multicast() or spec.cidr.is_loopback() or spec.cidr.first == 0:
        raise _misfit(spec, "cidr", spec.cidr, "holds no addresses that a guest can have.")
    if spec.cidr.prefixlen > 30:
        raise _misfit(spec, "cidr", spec.cidr, "has no address left for a guest. Use a prefix of 30 or shorter.")
    if not 60 <= spec.lease_time_s <= MAX_LEASE_TIME_S:
        raise _misfit(spec, "lease_time", spec.lease_time_s, f"is not between 60 and {MAX_LEASE_TIME_S} seconds.")
    if spec.gateway is not None and offset_of(spec, spec.gateway) not in _hosts(spec):
        raise _misfit(spec, "gateway", spec.gateway, f"is not a host address of {spec.cidr}.")
    for field, servers in (("dns", spec.dns), ("ntp", spec.ntp)):
        for server in servers:
            if server.version != 4:
                raise _misfit(spec, field, server, "is not an IPv4 address, and DHCPv4 cannot carry it.")
    for field, ranges in (("ranges", spec.ranges), ("exclusions", spec.exclusions)):
        for each in ranges:
            if each.first not in spec.cidr or each.last not in spec.cidr:
                raise _misfit(spec, field, each, f"is not inside of {spec.cidr}.")
    _check_disjoint(spec)


def offset_of(spec: SubnetSpec, address: IPAddress) -> int:
    """How far the address is from the network address; negative or too large for one that is outside."""
    return int(address) - int(spec.cidr.first)


def address_at(spec: SubnetSpec, offset: int) -> IPAddress:
    """The address at an offset."""
    return IPAddress(int(spec.cidr.first) + offset, spec.cidr.version)


def assignable(spec: SubnetSpec, taken: Iterable[IPAddress] = ()) -> list[tuple[int, int]]:
    """Extents of offsets that vNICs can have: the ranges (or everything) without network and broadcast address,
    gateway, exclusions, and the `taken` addresses, ascending and never touching."""
    hosts = _hosts(spec)
    extents = sorted(_offsets(spec, each) for each in spec.ranges) or [(hosts.start, hosts.stop - 1)]
    holes = [(0, 0), (hosts.stop, hosts.stop), *(_offsets(spec, each) for each in spec.exclusions)]
    holes += [(offset_of(spec, each),) * 2 for each in (spec.gateway, *taken) if each is not None]
    for hole in holes:
        extents = [part for extent in extents for part in _without(extent, hole)]
    return _joined(extents)


def _joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in extents:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _without(extent: tuple[int, int], hole: tuple[int, int]) -> list[tuple[int, int]]:
    (first, last), (hole_first, hole_last) = extent, hole
    if hole_last < first or last < hole_first:
        return [extent]
    parts = [(first, hole_first - 1), (hole_last + 1, last)]
    return [part for part in parts if part[0] <= part[1]]


def _hosts(spec: SubnetSpec) -> range:
    """Offsets of host addresses: all but network and broadcast address (RFC 1122, 3.2.1.3)."""
    return range(1, spec.cidr.size - 1)


def _offsets(spec: SubnetSpec, each: AddressRange) -> tuple[int, int]:
    return offset_of(spec, each.first), offset_of(spec, each.last)


def _check_disjoint(spec: SubnetSpec) -> None:
    ordered = sorted(spec.ranges)
    for before, after in itertools.pairwise(ordered):
        if after.first <= before.last:
            raise _misfit(spec, "ranges", after, f"overlaps with the range {before}.")


def _misfit(spec: SubnetSpec, field: str, value: object, why: str) -> SubnetInvalid:
    return SubnetInvalid(f"{field}: {value} {why}", cidr=str(spec.cidr), field=field, value=str(value))
