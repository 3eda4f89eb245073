"""DHCP options: what they take, and their octets on the wire."""

from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork

from leasehold.domain.options import DEFINITIONS, Route, encode_routes, parse_option
from leasehold.errors import FieldInvalid


@pytest.mark.parametrize(
    ("name", "value", "octets"),
    [
        ("tftp-server-name", "boot.example", b"boot.example"),
        ("time-offset", -3600, b"\xff\xff\xf1\xf0"),
        ("ip-forwarding", True, b"\x01"),
        ("default-ip-ttl", 64, b"\x40"),
        ("path-mtu-plateau-table", [68, 1500], b"\x00\x44\x05\xdc"),
        ("v6-only-preferred", 1800, b"\x00\x00\x07\x08"),
        ("log-servers", ["192.0.2.1", "192.0.2.2"], b"\xc0\x00\x02\x01\xc0\x00\x02\x02"),
        ("domain-search", ["a.example", "b.example."], b"\x01a\x07example\x00\x01b\x07example\x00"),
        ("vendor-encapsulated-options", "0104C0000201", b"\x01\x04\xc0\x00\x02\x01"),
        ("static-routes", ["192.0.2.0", "192.0.2.1"], b"\xc0\x00\x02\x00\xc0\x00\x02\x01"),
    ],
)
def test_an_option_by_its_name(name: str, value: Any, octets: bytes) -> None:
    option = parse_option("options.0", value, name=name)
    assert (option.name, option.octets) == (name, octets)
    assert parse_option("options.0", value, code=option.code) == option


def test_a_code_without_definition_takes_octets_or_what_its_type_says() -> None:
    assert parse_option("o", "0a0b", code=224).octets == b"\x0a\x0b"
    assert parse_option("o", ["192.0.2.1", "192.0.2.2"], code=225, type="ipv4").octets.hex() == "c0000201c0000202"
    assert parse_option("o", 7, code=226, type="uint16").octets == b"\x00\x07"


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("o", {"value": "x"}),
        ("o.code", {"code": 0, "value": "00"}),
        ("o.code", {"code": 255, "value": "00"}),
        ("o.name", {"name": "no-such-option", "value": "x"}),
        ("o.code", {"name": "tftp-server-name", "code": 67, "value": "x"}),
        ("o.type", {"name": "tftp-server-name", "type": "ipv4", "value": "x"}),
        ("o.type", {"code": 224, "type": "float", "value": "x"}),
        ("o.value", {"name": "tftp-server-name", "value": "a\nb"}),
        ("o.value", {"name": "tftp-server-name", "value": "a\x00"}),
        ("o.value", {"name": "tftp-server-name", "value": "ü"}),
        ("o.value", {"name": "tftp-server-name", "value": ""}),
        ("o.value", {"name": "tftp-server-name", "value": "x" * 256}),
        ("o.value", {"name": "tftp-server-name", "value": 7}),
        ("o.value", {"name": "tftp-server-name", "value": ["x"]}),
        ("o.value", {"name": "default-ip-ttl", "value": 256}),
        ("o.value", {"name": "default-ip-ttl", "value": True}),
        ("o.value", {"name": "default-ip-ttl", "value": "64"}),
        ("o.value", {"name": "ip-forwarding", "value": 1}),
        ("o.value", {"name": "log-servers", "value": "192.0.2.1"}),
        ("o.value", {"name": "log-servers", "value": []}),
        ("o.value.1", {"name": "log-servers", "value": ["192.0.2.1", "192.0.2"]}),
        ("o.value.0", {"name": "log-servers", "value": ["2001:db8::1"]}),
        ("o.value", {"name": "log-servers", "value": ["192.0.2.1"] * 64}),
        ("o.value", {"name": "static-routes", "value": ["192.0.2.1"]}),
        ("o.value.0", {"name": "domain-search", "value": ["a..b"]}),
        ("o.value.0", {"name": "domain-search", "value": [f"{'a' * 64}.example"]}),
        ("o.value", {"code": 224, "value": "0a0"}),
        ("o.value", {"code": 224, "value": "zz"}),
        ("o.value", {"code": 224, "value": None}),
    ],
)
def test_what_does_not_fit_is_named(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as refusal:
        parse_option("o", fields.pop("value"), **fields)
    assert refusal.value.facts["field"] == field


@pytest.mark.parametrize(
    ("code", "field"),
    [
        (1, "cidr"),
        (3, "gateway"),
        (6, "dns"),
        (15, "domain"),
        (26, "mtu"),
        (42, "ntp"),
        (51, "lease_time"),
        (121, "routes"),
    ],
)  # fmt: skip
def test_what_has_a_field_of_its_own_is_no_further_option(code: int, field: str) -> None:
    with pytest.raises(FieldInvalid, match=f"the subnet's {field}"):
        parse_option("o", "00", code=code)
    if code in DEFINITIONS:
        with pytest.raises(FieldInvalid, match=f"the subnet's {field}"):
            parse_option("o", "00", name=DEFINITIONS[code].name)


@pytest.mark.parametrize("code", [50, 53, 54, 55, 57, 58, 59, 61, 82])
def test_what_dhcp_fills_in_itself_is_refused(code: int) -> None:
    with pytest.raises(FieldInvalid):
        parse_option("o", "00", code=code)


def test_routes_bring_the_default_route_along() -> None:
    """RFC 3442: the example of its table, and that a client which takes option 121 ignores option 3."""
    routes = [
        Route(destination=IPNetwork(destination), gateway=IPAddress("192.0.2.1"))
        for destination in ("10.0.0.0/8", "10.17.0.0/16", "10.27.129.0/24", "10.229.0.128/25", "10.198.122.47/32")
    ]
    through = "c0000201"
    expected = f"080a{through}100a11{through}180a1b81{through}190ae50080{through}200ac67a2f{through}"
    assert encode_routes(routes, None).hex() == expected
    assert encode_routes(routes, IPAddress("192.0.2.254")).hex() == f"{expected}00c00002fe"
    assert encode_routes([], IPAddress("192.0.2.254")) == b""
