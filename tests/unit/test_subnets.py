"""What fits together in a subnet, and what it hands out."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from leasehold.domain.addresses import AddressRange
from leasehold.domain.options import Route, parse_option
from leasehold.domain.subnets import assignable, check, clashes
from leasehold.domain.values import SubnetSpec
from leasehold.errors import RangeInvalid, SubnetInvalid


def ip(text: str) -> IPAddress:
    return IPAddress(text)


def span(first: str, last: str) -> AddressRange:
    return AddressRange(ip(first), ip(last))


def route(destination: str, gateway: str) -> Route:
    return Route(destination=IPNetwork(destination), gateway=ip(gateway))


def spec(cidr: str = "192.0.2.0/24", **fields: Any) -> SubnetSpec:
    return SubnetSpec(network="blue", cidr=IPNetwork(cidr), **fields)


def test_network_broadcast_and_gateway_are_never_handed_out() -> None:
    assert assignable(spec(gateway=ip("192.0.2.1"))) == [(2, 254)]


def test_exclusions_and_host_addresses_are_holes() -> None:
    given_spec = spec(gateway=ip("192.0.2.254"), exclusions=(span("192.0.2.10", "192.0.2.19"),))
    assert assignable(given_spec, [ip("192.0.2.2")]) == [(1, 1), (3, 9), (20, 253)]


def test_adjacent_ranges_become_one_extent() -> None:
    assert assignable(spec(ranges=(span("192.0.2.20", "192.0.2.29"), span("192.0.2.10", "192.0.2.19")))) == [(10, 29)]


def test_ranges_that_touch_the_ends_leave_network_and_broadcast_out() -> None:
    assert assignable(spec(ranges=(span("192.0.2.0", "192.0.2.255"),))) == [(1, 254)]


offsets = st.integers(0, 63)


@given(
    st.lists(st.tuples(offsets, offsets).map(sorted), max_size=3),
    st.lists(st.tuples(offsets, offsets).map(sorted), max_size=4),
    st.lists(offsets, max_size=4),
)
def test_assignable_is_ranges_without_the_rest(
    ranges: list[list[int]], exclusions: list[list[int]], taken: list[int]
) -> None:
    base = int(ip("192.0.2.0"))

    def address(offset: int) -> IPAddress:
        return IPAddress(base + offset)

    disjoint: list[list[int]] = []
    for each in sorted(ranges):
        if not disjoint or disjoint[-1][1] < each[0]:
            disjoint.append(each)
    wanted = {n for low, high in disjoint for n in range(low, high + 1)} if disjoint else set(range(64))
    wanted -= {0, 63, *taken}
    wanted -= {n for low, high in exclusions for n in range(low, high + 1)}
    extents = assignable(
        spec(
            "192.0.2.0/26",
            ranges=tuple(AddressRange(address(low), address(high)) for low, high in disjoint),
            exclusions=tuple(AddressRange(address(low), address(high)) for low, high in exclusions),
        ),
        [address(n) for n in taken],
    )
    assert {n for first, last in extents for n in range(first, last + 1)} == wanted
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(extents))


def test_a_range_never_ends_before_it_begins() -> None:
    with pytest.raises(RangeInvalid):
        span("192.0.2.9", "192.0.2.3")


@pytest.mark.parametrize(
    ("field", "subnet"),
    [
        ("cidr", spec("2001:db8::/64")),
        ("cidr", spec("192.0.2.0/31")),
        ("cidr", spec("224.0.0.0/24")),
        ("cidr", spec("127.0.0.0/8")),
        ("cidr", spec("64.0.0.0/2")),
        ("cidr", spec("240.0.0.0/24")),
        ("cidr", spec("0.0.0.0/8")),
        ("dns", spec(dns=(ip("0.0.0.0"),))),  # noqa: S104
        ("ntp", spec(ntp=(ip("224.0.1.1"),))),
        ("mtu", spec(mtu=67)),
        ("mtu", spec(mtu=65536)),
        ("routes.0.destination", spec(routes=(route("0.0.0.0/0", "192.0.2.9"),))),
        ("routes.0.gateway", spec(routes=(route("10.0.0.0/8", "198.51.100.9"),))),
        ("routes.0.gateway", spec(routes=(route("10.0.0.0/8", "192.0.2.255"),))),
        ("routes.0", spec(routes=(route("2001:db8::/32", "192.0.2.9"),))),
        ("routes.1.destination", spec(routes=(route("10.0.0.0/8", "192.0.2.9"),) * 2)),
        ("routes", spec(routes=tuple(route(f"10.0.{number}.128/25", "192.0.2.9") for number in range(29)))),
        ("options.1", spec(options=(parse_option("o", "a", code=66), parse_option("o", "b", code=66)))),
        ("gateway", spec(gateway=ip("198.51.100.1"))),
        ("gateway", spec(gateway=ip("192.0.2.0"))),
        ("gateway", spec(gateway=ip("192.0.2.255"))),
        ("dns", spec(dns=(ip("2001:db8::1"),))),
        ("ntp", spec(ntp=(ip("2001:db8::1"),))),
        ("lease_time", spec(lease_time_s=0)),
        ("ranges", spec(ranges=(span("192.0.2.9", "192.0.3.9"),))),
        ("ranges", spec(ranges=(span("192.0.2.1", "192.0.2.9"), span("192.0.2.9", "192.0.2.20")))),
        ("exclusions", spec(exclusions=(span("192.0.1.9", "192.0.2.9"),))),
    ],
)
def test_what_does_not_fit_is_named(field: str, subnet: SubnetSpec) -> None:
    with pytest.raises(SubnetInvalid) as refusal:
        check(subnet)
    assert refusal.value.facts["field"] == field


def test_a_route_may_be_on_the_link() -> None:
    check(spec(routes=(route("10.0.0.0/8", "0.0.0.0"),)))  # noqa: S104


def test_a_slash_30_has_one_address_beside_its_gateway() -> None:
    small = spec("192.0.2.0/30", gateway=ip("192.0.2.1"))
    check(small)
    assert assignable(small) == [(2, 2)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 31), st.integers(27, 32)), max_size=8))
def test_networks_clash_that_share_an_address(named: list[tuple[str, int, int]]) -> None:
    cidrs = [(name, IPNetwork(f"192.0.2.{number}/{width}").cidr) for name, number, width in named]
    expected: dict[str, set[str]] = {}
    for one, cidr in cidrs:
        for other, other_cidr in cidrs:
            if one != other and set(cidr) & set(other_cidr):
                expected.setdefault(one, set()).add(other)
    assert clashes(cidrs) == expected
