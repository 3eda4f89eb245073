"""The digest by which control plane and hook compare their reservations."""

from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import EMPTY_DIGEST, Entry, digest_of, toggle

FIRST = (Mac.parse("02:00:00:00:00:01"), IPAddress("192.0.2.10"), "a")
SECOND = (Mac.parse("02:00:00:00:00:02"), IPAddress("192.0.2.11"), None)

entries = st.tuples(
    st.builds(Mac, st.integers(0, 2**48 - 1)),
    st.builds(lambda value: IPAddress(value, 4), st.integers(0, 2**32 - 1)),
    st.none() | st.text("abc-.", min_size=1),
)


def test_a_reservation_with_a_hostname() -> None:
    """printf '02:00:00:00:00:01 192.0.2.10 a' | sha256sum | cut -c1-16"""
    assert digest_of([FIRST]) == "2fade950b639fb66"


def test_a_reservation_without_a_hostname() -> None:
    """printf '02:00:00:00:00:02 192.0.2.11 ' | sha256sum | cut -c1-16"""
    assert digest_of([SECOND]) == "8aa5f548f88fe2cc"


def test_two_reservations() -> None:
    assert digest_of([FIRST, SECOND]) == "a5081c184eb619aa"


def test_no_reservation() -> None:
    assert digest_of([]) == EMPTY_DIGEST == "0000000000000000"


@given(st.lists(entries), entries)
def test_taking_out_undoes_putting_in(present: list[Entry], one: Entry) -> None:
    digest = digest_of(present)
    assert toggle(toggle(digest, *one), *one) == digest


@given(st.lists(entries).flatmap(lambda present: st.tuples(st.just(present), st.permutations(present))))
def test_order_does_not_matter(both: tuple[list[Entry], list[Entry]]) -> None:
    assert digest_of(both[0]) == digest_of(both[1])
