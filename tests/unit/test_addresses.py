"""MACs and addresses as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import EUI

from leasehold.domain.addresses import Mac, parse_cidr, parse_ip, random_local_range
from leasehold.errors import FieldInvalid, MacNotUnicast


@pytest.mark.parametrize("text", ["02:00:5E:10:00:0a", "02-00-5e-10-00-0A", "0200.5e10.000a", "02005E10000A"])
def test_every_written_form_is_the_same_mac(text: str) -> None:
    assert str(Mac.parse(text)) == "02:00:5e:10:00:0a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:5e:10:00",
        "02:00:5e:10:00:0a:0b",
        "02:00-5e:10:00:0a",
        "2:0:5e:10:0:a",
        "02:00:5e:10:00:0g",
        " 02005e10000a",
        "02005e10000a\n",
        "٠2:00:5e:10:00:0a",
    ],
)
def test_other_text_is_no_mac(text: str) -> None:
    with pytest.raises(FieldInvalid) as refusal:
        Mac.parse(text, "ranges[0].from")
    assert refusal.value.facts == {"field": "ranges[0].from", "value": text}


@given(st.integers(0, 2**48 - 1))
def test_text_and_value_are_each_others_inverse(value: int) -> None:
    assert Mac.parse(str(Mac(value))) == Mac(value)
    assert str(Mac(value)) == str(EUI(value, 48)).replace("-", ":").lower()


@pytest.mark.parametrize("text", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_multicast_and_zero_are_refused_for_a_card(text: str) -> None:
    with pytest.raises(MacNotUnicast):
        Mac.parse(text).require_unicast()


@given(st.integers(0, 2**22 - 1))
def test_a_drawn_range_is_local_unicast_and_has_2_to_24_macs(bits: int) -> None:
    drawn = random_local_range(bits)
    assert drawn.last.value - drawn.first.value + 1 == 2**24
    for mac in (drawn.first, drawn.last):
        first_octet = mac.value >> 40
        assert first_octet & 0b11 == 0b10


@given(st.integers(0, 2**22 - 1), st.integers(0, 2**22 - 1))
def test_different_draws_do_not_overlap(one: int, other: int) -> None:
    if one != other:
        assert random_local_range(one).first != random_local_range(other).first


@pytest.mark.parametrize("text", ["192.0.2.0", "192.0.2.0/33", "192.0.2/24", "a/24", "192.0.2.0/", "/24"])
def test_no_cidr(text: str) -> None:
    with pytest.raises(FieldInvalid):
        parse_cidr(text)


def test_host_bits_are_named_and_not_cut_off() -> None:
    with pytest.raises(FieldInvalid, match=r"Did you mean 192\.0\.2\.0/24"):
        parse_cidr("192.0.2.7/24")


@pytest.mark.parametrize("text", ["192.0.2", "192.0.2.256", "0x7f000001", "192.0.2.010", "", "1"])
def test_no_ip(text: str) -> None:
    with pytest.raises(FieldInvalid):
        parse_ip(text, "gateway")


@pytest.mark.parametrize("text", ["192.0.2.0/24", "192.0.2.0/255.255.255.0"])
def test_a_netmask_is_as_good_as_a_prefix_length(text: str) -> None:
    assert str(parse_cidr(text)) == "192.0.2.0/24"


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.0",
        "192.0.2.0/255.0.255.0",
        "192.0.2.0/0.0.0.255",
        "192.0.2.0/33",
        "192.0.2.0/024",
        "192.0.2.0/+24",
        "192.0.2.0/ 24",
        "192.0.2.0/2_4",
        "192.0.2.0/\u09e8\u09ea",
        "192.0.2/24",
        "192.0.2.0/24/24",
        "192.0.2.1/24",
        "/24",
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(FieldInvalid, match="cidr"):
        parse_cidr(text)
