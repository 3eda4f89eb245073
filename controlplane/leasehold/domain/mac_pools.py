"""Rules of MAC pools: ranges that are sound, and what a change of them brings and takes away."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.extents import Extent, without
from leasehold.errors import MacPoolInvalid, RangeInvalid, RangeNotUnicast, RangesOverlap

_GROUP_BIT_BLOCK = 1 << 40
"""MACs come in blocks of 2**40 of one first octet; the odd ones are multicast (IEEE Std 802-2014, 8.2)."""


def check_ranges(ranges: Sequence[MacRange], where: str = "ranges") -> None:
    """Raises what `check_each` raises, and RangesOverlap for two that share MACs. Adjacent ranges are fine."""
    check_each(ranges, where)
    for before, after in pairwise(sorted(ranges)):
        if after.first <= before.last:
            raise RangesOverlap(
                f"{where}: {before} and {after} overlap. Join them to one, or let one begin behind the other.",
                ranges=[{"from": str(each.first), "to": str(each.last)} for each in (before, after)],
            )


def check_each(ranges: Sequence[MacRange], where: str) -> None:
    """Raises MacPoolInvalid for none, RangeInvalid for one that ends before it begins, RangeNotUnicast for one that
    holds what no card can own. `where` is the field that errors name."""
    if not ranges:
        raise MacPoolInvalid(
            f"{where}: there is none. Name at least one range of MACs that the pool hands out.", field=where, value=[]
        )
    for index, each in enumerate(ranges):
        field = f"{where}[{index}]"
        if each.first > each.last:
            raise RangeInvalid(
                f"{field}: the range from {each.first} to {each.last} ends before it begins. Swap its ends.",
                field=field,
                **{"from": str(each.first), "to": str(each.last)},
            )
        unicast = unicast_parts(each)
        if unicast != [each]:
            parts = ", ".join(map(str, unicast)) or "nothing"
            raise RangeNotUnicast(
                f"{field}: {each} holds MACs that no network card can own, multicast ones or all zero. "
                f"Its unicast part is {parts}: name that instead.",
                field=field,
                unicast=[{"from": str(part.first), "to": str(part.last)} for part in unicast],
            )


def unicast_parts(whole: MacRange) -> list[MacRange]:
    """What of a range network cards can own, ascending."""
    parts: list[MacRange] = []
    for octet in range(whole.first.value >> 40, (whole.last.value >> 40) + 1):
        if octet & 1:
            continue
        first = max(whole.first.value, octet * _GROUP_BIT_BLOCK, 1)
        last = min(whole.last.value, (octet + 1) * _GROUP_BIT_BLOCK - 1)
        if first <= last:
            parts.append(MacRange(Mac(first), Mac(last)))
    return parts


def joined(ranges: Iterable[MacRange]) -> list[MacRange]:
    """The same MACs without any of them twice: ranges that overlap become one. Each has to begin before it ends."""
    apart: list[MacRange] = []
    for each in sorted(ranges):
        if apart and each.first <= apart[-1].last:
            apart[-1] = MacRange(apart[-1].first, max(apart[-1].last, each.last))
        else:
            apart.append(each)
    return apart


def difference(ranges: Iterable[MacRange], others: Iterable[MacRange]) -> list[Extent]:
    """The numbers of `ranges` that are in none of `others`, as ascending extents."""
    return without(sorted({_extent(each) for each in ranges}), map(_extent, others))


def _extent(each: MacRange) -> Extent:
    return each.first.value, each.last.value
