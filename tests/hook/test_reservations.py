"""Reservations as values."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hook.stand_in import unpack
from leasehold_hook.reservations import (
    InvalidField,
    address_text,
    digest_of,
    digest_text,
    mac_text,
    pack_rows,
    parse_macs,
    parse_set,
)

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**48 - 1), st.integers(1, 2**32 - 1), st.sampled_from(["", "a", "vm-1.example.org", "x" * 63])
    ),
    max_size=20,
)


def entry(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {"hw-address": "02:00:00:00:00:01", "ip-address": "192.0.2.10"}
    return fields | {name.replace("_", "-"): value for name, value in changes.items()}


def test_a_digest_is_the_first_eight_octets_of_sha256_of_mac_ip_and_hostname() -> None:
    expected = hashlib.sha256(b"02:00:00:00:00:01 192.0.2.10 a").hexdigest()[:16]
    assert digest_text(parse_set([entry(hostname="a")], "set").digest) == expected


def test_a_reservation_without_hostname_is_digested_with_a_space_at_its_end() -> None:
    expected = hashlib.sha256(b"02:00:00:00:00:01 192.0.2.10 ").hexdigest()[:16]
    assert digest_text(parse_set([entry()], "set").digest) == expected


def test_the_digest_of_nothing_is_zeros() -> None:
    assert digest_text(digest_of([])) == "0000000000000000"


def test_an_upper_case_mac_is_the_same_reservation() -> None:
    upper = parse_set([entry(hw_address="02:AB:CD:EF:00:01")], "set")
    assert upper == parse_set([entry(hw_address="02:ab:cd:ef:00:01")], "set")


@given(ROWS)
def test_the_digest_of_parsed_reservations_is_that_of_their_rows(rows: list[tuple[int, int, str]]) -> None:
    unicast = {mac: (mac, address % 0xDFFFFFFF + 1, name) for mac, address, name in rows}.values()
    batch = parse_set(
        [{"hw-address": mac_text(mac), "ip-address": address_text(ip), "hostname": name} for mac, ip, name in unicast],
        "set",
    )
    assert (batch.rows, batch.digest) == (list(unicast), digest_of(unicast))


@given(ROWS)
def test_packed_reservations_are_what_the_struct_in_the_header_says(rows: list[tuple[int, int, str]]) -> None:
    assert unpack(pack_rows(rows)) == rows


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (entry(ip_address="192.0.2.300"), "set[1].ip-address: '192.0.2.300' is not an IPv4 address"),
        (entry(ip_address="192.0.2.010"), "set[1].ip-address: '192.0.2.010' is not an IPv4 address"),
        (entry(ip_address="192.0.2"), "set[1].ip-address: '192.0.2' is not an IPv4 address"),
        (entry(ip_address="192.0.2.1\0"), "set[1].ip-address: '192.0.2.1\\x00' is not an IPv4 address"),
        (entry(ip_address="\ud800"), "set[1].ip-address: '\\ud800' is not an IPv4 address"),
        (entry(ip_address=3221225994), "set[1].ip-address: 3221225994 is not an IPv4 address"),
        (entry(ip_address="2001:db8::1"), "set[1].ip-address: '2001:db8::1' is not an IPv4 address"),
        (entry(ip_address="255.255.255.255"), "set[1].ip-address: '255.255.255.255' is not a unicast address"),
        (entry(ip_address=address_text(0)), f"set[1].ip-address: '{address_text(0)}' is not a unicast address"),
        (entry(ip_address="224.0.0.1"), "set[1].ip-address: '224.0.0.1' is not a unicast address"),
        (entry(hw_address="02:00:00:00:00"), "set[1].hw-address: '02:00:00:00:00' is not a MAC address"),
        (entry(hw_address="02:00:00:00:00:0g"), "set[1].hw-address: '02:00:00:00:00:0g' is not a MAC address"),
        (entry(hw_address="02:00:00:00:00:01\n"), "set[1].hw-address: '02:00:00:00:00:01\\n' is not a MAC address"),
        (entry(hw_address=None), "set[1].hw-address: None is not a MAC address"),
        (entry(hostname=None), "set[1].hostname: None is not a domain name"),
        (entry(hostname="a b"), "set[1].hostname: 'a b' is not a domain name"),
        (entry(hostname="-a"), "set[1].hostname: '-a' is not a domain name"),
        (entry(hostname="müller"), "set[1].hostname: 'müller' is not a domain name"),
        (entry(hostname="a." * 127 + "aa"), "set[1].hostname: "),
        (entry(option_data=[]), "set[1].option-data: is not kept by Leasehold"),
        ({"hw-address": "02:00:00:00:00:01"}, "set[1].ip-address: is missing"),
        ({}, "set[1].hw-address: is missing"),
        ("02:00:00:00:00:01", "set[1]: '02:00:00:00:00:01' is not a map"),
    ],
)
def test_a_bad_entry_is_refused_naming_index_field_and_value(item: Any, problem: str) -> None:
    good = entry(hw_address="02:00:00:00:00:ff", ip_address="192.0.2.99")
    with pytest.raises(InvalidField) as refused:
        parse_set([good, item], "set")
    assert str(refused.value).startswith(problem)


def test_a_mac_that_is_there_twice_is_refused_naming_both_places() -> None:
    with pytest.raises(InvalidField, match=r"set\[1\]\.hw-address: '02:00:00:00:00:01' is in set\[0\] already"):
        parse_set([entry(), entry(ip_address="192.0.2.11")], "set")


def test_a_mac_that_is_unset_twice_is_refused_naming_both_places() -> None:
    with pytest.raises(InvalidField, match=r"unset\[1\]: '02:00:00:00:00:01' is in unset\[0\] already"):
        parse_macs(["02:00:00:00:00:01"] * 2, "unset")


@pytest.mark.parametrize("items", [None, {}, "", 7])
def test_what_is_not_a_list_is_refused(items: object) -> None:
    with pytest.raises(InvalidField, match=r"^set: .* is not a list"):
        parse_set(items, "set")
