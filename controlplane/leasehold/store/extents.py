"""The allocator: free numbers of a space as extents `first`–`last`, for MACs and addresses alike.

Taking any, taking a given one, giving back and taking n at once each touch a bounded number of rows by the index on
(space, last), whatever the space's size and fill. A space's row is locked first, so that its changes queue. A cursor
moves ahead of what was taken, and a search begins at it: a number that was given back is not found again before all
others have had their turn.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.extents import Extent
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.tables import free_extents, spaces

_NO_END = 2**63 - 1


def create_space(connection: Connection, extents: Iterable[Extent]) -> int:
    """A new space with these free extents, which neither overlap nor touch; returns its id."""
    rows = list(extents)
    size = sum(last - first + 1 for first, last in rows)
    space_id: int = connection.execute(
        insert(spaces).values(cursor=0, free=size, size=size).returning(spaces.c.id)
    ).scalar_one()
    if rows:
        connection.execute(
            insert(free_extents), [{"space_id": space_id, "first": first, "last": last} for first, last in rows]
        )
    return space_id


def delete_space(connection: Connection, space_id: int) -> None:
    """Forgets a space and its extents."""
    connection.execute(delete(spaces).where(spaces.c.id == space_id))


def take_any(connection: Connection, space_id: int, count: int = 1, *, locked: AnyRow | None = None) -> list[int]:
    """Takes `count` free numbers, those that have been free longest first; takes none and returns [] if fewer are.
    `locked` has the space's `cursor` and `free`, where the caller has locked its row already."""
    space = _lock(connection, space_id) if locked is None else locked
    if space.free < count:
        return []
    taken, cursor = _take_from(connection, space_id, count, space.cursor, _NO_END)
    if len(taken) < count:
        rest, cursor = _take_from(connection, space_id, count - len(taken), 0, _NO_END)
        taken += rest
    _count_out(connection, space_id=space_id, cursor=cursor, count=count)
    return taken


def take_within(connection: Connection, space_id: int, extents: Iterable[Extent], count: int = 1) -> list[int]:
    """Takes up to `count` free numbers out of these extents only, the lowest first."""
    _lock(connection, space_id)
    taken: list[int] = []
    for first, last in extents:
        found, _ = _take_from(connection, space_id, count - len(taken), first, last)
        taken += found
    if taken:
        connection.execute(update(spaces).where(spaces.c.id == space_id).values(free=spaces.c.free - len(taken)))
    return taken


def take(connection: Connection, space_id: int, number: int) -> bool:
    """Takes this very number; False if it is not free."""
    _lock(connection, space_id)
    extent = _at_or_after(connection, space_id, number)
    if extent is None or extent.first > number:
        return False
    _carve(connection, space_id, extent, number, number)
    connection.execute(update(spaces).where(spaces.c.id == space_id).values(free=spaces.c.free - 1))
    return True


def take_all(connection: Connection, space_id: int, numbers: Iterable[int]) -> int:
    """Takes those of these numbers that are free; returns how many. One run of numbers costs as much as one number."""
    _lock(connection, space_id)
    count = 0
    for first, last in runs(numbers):
        taken, _ = _take_extents_from(connection, space_id, last - first + 1, first, last)
        count += sum(end - begin + 1 for begin, end in taken)
    connection.execute(update(spaces).where(spaces.c.id == space_id).values(free=spaces.c.free - count))
    return count


def give_back(connection: Connection, space_id: int, numbers: Iterable[int]) -> None:
    """Makes these numbers of the space free again. Raises ValueError, a bug, if one of them is free already."""
    insert_extents(connection, space_id, runs(numbers), size=0)


def insert_extents(connection: Connection, space_id: int, extents: Iterable[Extent], *, size: int) -> None:
    """Widens the space by `size` numbers, of which these extents are free."""
    _lock(connection, space_id)
    count = 0
    for first, last in extents:
        _merge(connection, space_id, first, last)
        count += last - first + 1
    connection.execute(
        update(spaces).where(spaces.c.id == space_id).values(free=spaces.c.free + count, size=spaces.c.size + size)
    )


def remove_extent(connection: Connection, space_id: int, first: int, last: int) -> None:
    """Narrows the space by `first`–`last`, whether free or not."""
    _lock(connection, space_id)
    taken, _ = _take_extents_from(connection, space_id, last - first + 1, first, last)
    count = sum(end - begin + 1 for begin, end in taken)
    connection.execute(
        update(spaces)
        .where(spaces.c.id == space_id)
        .values(free=spaces.c.free - count, size=spaces.c.size - (last - first + 1))
    )


def resize(connection: Connection, space_id: int, by: int) -> None:
    """Says that the space hands out `by` numbers more (or fewer) in all."""
    connection.execute(update(spaces).where(spaces.c.id == space_id).values(size=spaces.c.size + by))


def runs(numbers: Iterable[int]) -> Iterator[Extent]:
    """The numbers, in any order, as ascending extents that do not touch."""
    ordered = sorted(numbers)
    start = 0
    for index in range(1, len(ordered) + 1):
        if index == len(ordered) or ordered[index] != ordered[index - 1] + 1:
            yield ordered[start], ordered[index - 1]
            start = index


def _take_from(connection: Connection, space_id: int, count: int, first: int, last: int) -> tuple[list[int], int]:
    """Takes up to `count` free numbers from `first` up to `last`; returns them, and where the next search begins."""
    extents, cursor = _take_extents_from(connection, space_id, count, first, last)
    return [number for begin, end in extents for number in range(begin, end + 1)], cursor


def _take_extents_from(
    connection: Connection, space_id: int, count: int, first: int, last: int
) -> tuple[list[Extent], int]:
    """The same as extents. Does not count them out of the space."""
    taken: list[Extent] = []
    while count > 0:
        extent = _at_or_after(connection, space_id, first)
        if extent is None or extent.first > last:
            break
        begin = max(extent.first, first)
        end = min(extent.last, last, begin + count - 1)
        _carve(connection, space_id, extent, begin, end)
        taken.append((begin, end))
        count -= end - begin + 1
        first = end + 1
    return taken, first


def _lock(connection: Connection, space_id: int) -> AnyRow:
    return _locked_space(connection, space_id=space_id).one()


def _at_or_after(connection: Connection, space_id: int, number: int) -> AnyRow | None:
    """The extent that holds `number`, else the next one."""
    return _next_extent(connection, space_id=space_id, number=number).one_or_none()


def _carve(connection: Connection, space_id: int, extent: AnyRow, first: int, last: int) -> None:
    """Takes `first`–`last` out of an extent that holds them, leaving what is before and behind."""
    if last < extent.last:
        _shorten(connection, space_id=space_id, last=extent.last, first=last + 1)
    else:
        _drop(connection, space_id=space_id, last=extent.last)
    if extent.first < first:
        connection.execute(insert(free_extents).values(space_id=space_id, first=extent.first, last=first - 1))


def _merge(connection: Connection, space_id: int, first: int, last: int) -> None:
    """Puts `first`–`last` in, joining the extents that it touches."""
    neighbours = connection.execute(
        select(free_extents.c.first, free_extents.c.last)
        .where(free_extents.c.space_id == space_id, free_extents.c.last >= first - 1)
        .order_by(free_extents.c.last)
        .limit(2)
    ).all()
    left = next((extent for extent in neighbours if extent.last == first - 1), None)
    right = next((extent for extent in neighbours if extent.last >= first), None)
    if right is not None and right.first <= last:
        raise ValueError(
            f"space {space_id}: {first} to {last} is given back, but {right.first} to {right.last} is free"
        )
    if left is not None:
        connection.execute(
            delete(free_extents).where(free_extents.c.space_id == space_id, free_extents.c.last == left.last)
        )
        first = left.first
    if right is not None and right.first == last + 1:
        connection.execute(
            update(free_extents)
            .where(free_extents.c.space_id == space_id, free_extents.c.last == right.last)
            .values(first=first)
        )
    else:
        connection.execute(insert(free_extents).values(space_id=space_id, first=first, last=last))


@prepared
def _locked_space(space_id: Any) -> Executable:
    return select(spaces.c.cursor, spaces.c.free).where(spaces.c.id == space_id).with_for_update()


@prepared
def _next_extent(space_id: Any, number: Any) -> Executable:
    return (
        select(free_extents.c.first, free_extents.c.last)
        .where(free_extents.c.space_id == space_id, free_extents.c.last >= number)
        .order_by(free_extents.c.last)
        .limit(1)
    )


@prepared
def _shorten(space_id: Any, last: Any, first: Any) -> Executable:
    row = (free_extents.c.space_id == space_id) & (free_extents.c.last == last)
    return update(free_extents).where(row).values(first=first)


@prepared
def _drop(space_id: Any, last: Any) -> Executable:
    return delete(free_extents).where(free_extents.c.space_id == space_id, free_extents.c.last == last)


@prepared
def _count_out(space_id: Any, cursor: Any, count: Any) -> Executable:
    return update(spaces).where(spaces.c.id == space_id).values(cursor=cursor, free=spaces.c.free - count)
