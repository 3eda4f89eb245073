"""Sets of integers as extents."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.extents import Extent, gaps, without

numbers = st.integers(0, 31)
spans = st.lists(st.tuples(numbers, numbers).map(lambda each: (min(each), max(each))), max_size=6)


def members(extents: list[Extent]) -> set[int]:
    return {number for first, last in extents for number in range(first, last + 1)}


@given(spans, spans)
def test_what_is_left_is_in_the_extents_and_in_no_hole(extents: list[Extent], holes: list[Extent]) -> None:
    left = without(sorted(extents), holes)
    assert members(left) == members(extents) - members(holes)
    assert all(first <= last for first, last in left)


@given(st.lists(st.integers(0, 63), unique=True).map(sorted), spans)
def test_extents_that_are_apart_and_ascend_stay_so(bounds: list[int], holes: list[Extent]) -> None:
    apart = list(zip(bounds[::2], bounds[1::2], strict=False))
    assert all(before[1] < after[0] for before, after in pairwise(without(apart, holes)))


@given(st.tuples(numbers, numbers).map(lambda each: (min(each), max(each))), st.sets(numbers))
def test_gaps_are_what_nobody_took(extent: Extent, taken: set[int]) -> None:
    assert members(gaps(extent, sorted(taken))) == members([extent]) - taken
