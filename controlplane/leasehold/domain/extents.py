"""Sets of integers as extents: first and last, both inclusive."""

from collections.abc import Iterable

Extent = tuple[int, int]


def without(extents: Iterable[Extent], holes: Iterable[Extent]) -> list[Extent]:
    """What of ascending extents is in none of the holes, ascending; in time of as many as there are of both."""
    left: list[Extent] = []
    ascending = sorted(holes)
    passed = 0
    for first, last in extents:
        while passed < len(ascending) and ascending[passed][1] < first:
            passed += 1
        at = passed
        while at < len(ascending) and ascending[at][0] <= last:
            hole_first, hole_last = ascending[at]
            if first < hole_first:
                left.append((first, hole_first - 1))
            first = max(first, hole_last + 1)
            at += 1
        if first <= last:
            left.append((first, last))
    return left


def gaps(extent: Extent, taken: Iterable[int]) -> list[Extent]:
    """What of an extent is left without the `taken` numbers."""
    return without([extent], ((each, each) for each in taken))
