"""The digest by which control plane and hook compare their reservations."""

from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import (
    EMPTY_DIGEST,
    Batch,
    Entry,
    Resync,
    SubnetState,
    digest_of,
    joined,
    mending,
    toggle,
)

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


sets = st.dictionaries(st.integers(1, 9), st.integers(1, 9), max_size=9).map(
    lambda addresses: {mac: address for address, mac in {address: mac for mac, address in addresses.items()}.items()}
)


def as_entries(reservations: dict[int, int]) -> tuple[Entry, ...]:
    return tuple((Mac(mac), IPAddress(address), None) for mac, address in reservations.items())


@given(sets, sets, st.integers(1, 4), st.sampled_from(["", "old", "new", "new being mended"]))
def test_steps_lead_from_any_set_to_any_other(
    before: dict[int, int], wanted: dict[int, int], size: int, epoch: str
) -> None:
    """Each is small, is taken from where the one before ended, and never has an address at two MACs; what stays is
    never touched."""
    state = SubnetState(subnet=7, epoch=epoch, revision=5, count=len(before), digest="")
    resync = Resync(subnet=7, epoch="new", revision=3, digest="", reservations=as_entries(wanted))
    present = {Mac(mac): IPAddress(address) for mac, address in before.items()}
    epoch_now, revision_now = state.epoch, state.revision
    for step in mending(resync, state, as_entries(before), size):
        assert len(step.set) + len(step.unset) <= size
        assert (step.from_epoch, step.base) == (epoch_now, revision_now)
        for mac in step.unset:
            del present[mac]
        present |= {mac: address for mac, address, _ in step.set}
        assert len(set(present.values())) == len(present)
        touched = {mac for mac, _, _ in step.set} | set(step.unset)
        assert not touched & {Mac(mac) for mac in before if before.get(mac) == wanted.get(mac)}
        epoch_now, revision_now = step.epoch, step.revision
    assert present == {mac: address for mac, address, _ in resync.reservations}
    assert (epoch_now, revision_now) == ("new", 3)


def change(base: int, comes: int | None = None, goes: int | None = None) -> Batch:
    entries = () if comes is None else ((Mac(comes), IPAddress(comes), None),)
    macs = () if goes is None else (Mac(goes),)
    return Batch(subnet=7, epoch="e", base=base, revision=base + 1, set=entries, unset=macs)


def test_batches_that_follow_one_another_are_one() -> None:
    """In whichever order they are known; the last word on each MAC counts."""
    one = joined(
        [change(6, comes=2), change(4, comes=1), change(5, goes=1), change(7, goes=2), change(8, comes=1)], 4, 9
    )
    assert one is not None
    assert (one.base, one.revision, one.set, one.unset) == (4, 9, ((Mac(1), IPAddress(1), None),), (Mac(2),))


def test_a_gap_ends_what_is_joined() -> None:
    one = joined([change(4, comes=1), change(6, comes=2)], 4, 9)
    assert one == change(4, comes=1)


def test_nothing_is_joined_where_nothing_begins() -> None:
    assert joined([change(5, comes=1)], 4, 9) is None


def test_no_more_is_joined_than_a_host_is_to_take_at_once() -> None:
    one = joined([change(base, comes=base) for base in range(10)], 0, 3)
    assert one is not None
    assert (one.revision, len(one.set)) == (3, 3)
