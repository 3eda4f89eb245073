"""Events: immutable facts in the order of their arrival. Hooks report theirs in batches, the control plane adds its
own; webhooks and readers follow."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, String, column, func, insert, select, values

from leasehold.domain.values import Event
from leasehold.service.context import Context, from_ms, to_ms
from leasehold.store.database import at_end
from leasehold.store.tables import events, lineage

# A reader that looks for what is rare goes through the history in windows, so many events in one call.
_WINDOW = 50_000
_LOOKED_THROUGH = 1_000_000


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event that has no place yet. The same fact always gets the same `id`."""

    id: str
    type: str
    subject: str
    time_ms: int
    data: Mapping[str, object]


def emit(connection: Connection, now_ms: int, kind: str, subject: str, data: Mapping[str, object]) -> None:
    """Adds an event of the control plane's own at the end of the transaction of what it tells of."""
    event = NewEvent(id=str(uuid.uuid4()), type=kind, subject=subject, time_ms=now_ms, data=data)
    at_end(connection, _append_own, event)


def _append_own(connection: Connection, own: Sequence[NewEvent]) -> None:
    append(connection, own[-1].time_ms, own)


def append(connection: Connection, now_ms: int, new: Sequence[NewEvent]) -> None:
    """Adds events behind all others, each with the next sequence number of its subject."""
    # Appends queue on this row: whoever reads on from a position must not be overtaken by a lower one.
    connection.execute(select(lineage.c.id).with_for_update())
    named = values(column("subject", String), name="named").data([(each,) for each in {e.subject for e in new}])
    subjects = named.cte("subjects")
    last: dict[str, int] = {
        subject: sequence or 0
        for subject, sequence in connection.execute(
            select(
                subjects.c.subject,
                select(func.max(events.c.sequence)).where(events.c.subject == subjects.c.subject).scalar_subquery(),
            )
        )
    }
    rows = []
    for event in new:
        last[event.subject] += 1
        rows.append(
            {
                "id": event.id,
                "type": event.type,
                "subject": event.subject,
                "sequence": last[event.subject],
                "time_ms": event.time_ms,
                "stored_ms": now_ms,
                "data": event.data,
            }
        )
    connection.execute(insert(events), rows)


def list_events(
    ctx: Context, *, after_position: int = 0, limit: int, types: Collection[str] = (), subject: str | None = None
) -> list[Event]:
    """Up to `limit` events behind a position, in order; of these types and this subject only, where they are named."""
    return find(ctx, Filter(types=frozenset(types), subject=subject), after=after_position, limit=limit).events


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events: those for which everything holds that is given."""

    types: Collection[str] = ()
    subject: str | None = None
    subject_prefix: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same for a query."""
        found: list[ColumnElement[bool]] = []
        if self.types:
            found.append(events.c.type.in_(sorted(self.types)))
        if self.subject is not None:
            found.append(events.c.subject == self.subject)
        if self.subject_prefix is not None:
            # LIKE knows no upper and lower case on SQLite.
            found.append(func.substr(events.c.subject, 1, len(self.subject_prefix)) == self.subject_prefix)
        if self.since is not None:
            found.append(events.c.time_ms >= to_ms(self.since))
        if self.until is not None:
            found.append(events.c.time_ms < to_ms(self.until))
        return found


@dataclass(frozen=True)
class Found:
    """Events in order, of all up to position `looked_to`; `is_all` when there are no others behind them now."""

    events: list[Event]
    looked_to: int
    is_all: bool


def find(ctx: Context, wanted: Filter, *, after: int, limit: int) -> Found:
    """Up to `limit` events behind a position. One call looks through a bounded part of the history, and so may find
    fewer although there are more."""
    found: list[Event] = []
    with ctx.db.read() as connection:
        last = last_position(connection)
        end = min(last, after + _LOOKED_THROUGH)
        for first in range(after, end, _WINDOW):
            window_end = min(first + _WINDOW, end)
            rows = connection.execute(
                select(events)
                .where(events.c.position > first, events.c.position <= window_end, *wanted.conditions())
                .order_by(events.c.position)
                .limit(limit - len(found))
            )
            found += map(event_of, rows)
            if len(found) == limit:
                return Found(found, found[-1].position, found[-1].position == last)
    return Found(found, max(after, end), end >= last or after >= last)


def last_position(connection: Connection) -> int:
    """The position of the last event; 0 before the first."""
    position: int = connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one()
    return position


def event_of(row: Row[Any]) -> Event:
    """The event of a row of the table."""
    return Event(
        position=row.position,
        id=row.id,
        type=row.type,
        subject=row.subject,
        sequence=row.sequence,
        time=from_ms(row.time_ms),
        data=row.data,
    )
