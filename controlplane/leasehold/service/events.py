"""Events: immutable facts in the order of their arrival. Hooks report theirs in batches, the control plane adds its
own; webhooks and readers follow."""

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from netaddr import IPAddress, IPNetwork
from sqlalchemy import ColumnElement, Connection, Row, func, select
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Event
from leasehold.service.context import Context, from_ms, to_ms
from leasehold.store.bulk import write_rows
from leasehold.store.database import at_end
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import event_subjects, events, lineage
from leasehold.store.tables import subnets as subnets_table

# A reader that looks for what is rare goes through the history in windows, so many events in one call.
_WINDOW = 50_000
_LOOKED_THROUGH = 1_000_000
_COLUMNS = (
    events.c.id,
    events.c.type,
    events.c.subject,
    events.c.sequence,
    events.c.time_ms,
    events.c.stored_ms,
    events.c.mac,
    events.c.vnic_id,
    events.c.data,
)


class NewEvent(NamedTuple):
    """An event that has no place yet. The same fact always gets the same `id`. `data` may be JSON text already.

    The events of an address bring their `sequence`, which service.leases counts; for others it is counted here. `mac`
    and `vnic` are whom it tells of, so that it is found by them.
    """

    id: str
    type: str
    subject: str
    time_ms: int
    data: Mapping[str, object] | str
    sequence: int | None = None
    mac: int | None = None
    vnic: str | None = None


def emit(connection: Connection, now_ms: int, kind: str, subject: str, data: Mapping[str, object]) -> None:
    """Adds an event of the control plane's own at the end of the transaction of what it tells of."""
    at_end(connection, _append_own, new_event(now_ms, kind, subject, data))


def _append_own(connection: Connection, own: Sequence[NewEvent]) -> None:
    append(connection, own[-1].time_ms, own)


def new_event(now_ms: int, kind: str, subject: str, data: Mapping[str, object]) -> NewEvent:
    """An event of the control plane's own, for `append`."""
    mac, vnic = data.get("mac"), data.get("vnic")
    return NewEvent(
        id=str(uuid.uuid4()),
        type=kind,
        subject=subject,
        time_ms=now_ms,
        data=data,
        mac=Mac.parse(mac).value if isinstance(mac, str) else None,
        vnic=vnic if isinstance(vnic, str) else None,
    )


def queue_up(connection: Connection) -> None:
    """Until the transaction ends, nobody else appends: whoever reads on from a position must not be overtaken by a
    lower one, and numbers within a subject are given one by one."""
    _locked_queue(connection)


def append(connection: Connection, now_ms: int, new: Sequence[NewEvent]) -> None:
    """Adds events behind all others, each with the next sequence number of its subject."""
    if not new:
        return
    queue_up(connection)
    last = _last_of_subjects(connection, {event.subject for event in new if event.sequence is None})
    rows = []
    for event in new:
        if (sequence := event.sequence) is None:
            sequence = last[event.subject] = last[event.subject] + 1
        text = event.data if isinstance(event.data, str) else json.dumps(event.data, separators=(",", ":"))
        rows.append((event.id, event.type, event.subject, sequence, event.time_ms, now_ms, event.mac, event.vnic, text))
    write_rows(connection, events, _COLUMNS, rows)
    counted = [(subject, sequence, now_ms) for subject, sequence in last.items()]
    write_rows(connection, event_subjects, list(event_subjects.c), counted, replace=True)


def _last_of_subjects(connection: Connection, subjects: Collection[str]) -> dict[str, int]:
    if not subjects:
        return {}
    if len(subjects) == 1:
        (subject,) = subjects
        return {subject: _last_of_subject(connection, subject=subject).scalar_one_or_none() or 0}
    rows = connection.execute(
        select(event_subjects.c.subject, event_subjects.c.sequence).where(
            among(connection, event_subjects.c.subject, subjects)
        )
    )
    return dict.fromkeys(subjects, 0) | {row.subject: row.sequence for row in rows}


@prepared
def _locked_queue() -> Executable:
    return select(lineage.c.id).with_for_update()


@prepared
def _last_of_subject(subject: Any) -> Executable:
    return select(event_subjects.c.sequence).where(event_subjects.c.subject == subject)


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
    vnic: str | None = None
    mac: Mac | None = None
    ip: IPAddress | None = None

    def conditions(self, connection: Connection) -> list[ColumnElement[bool]]:
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
        if self.vnic is not None:
            found.append(events.c.vnic_id == self.vnic)
        if self.mac is not None:
            found.append(events.c.mac == self.mac.value)
        if self.ip is not None:
            cidrs = connection.execute(select(subnets_table.c.id, subnets_table.c.cidr))
            holders = [row.id for row in cidrs if self.ip in IPNetwork(row.cidr)]
            kinds = ("addresses", "reservations")
            found.append(
                events.c.subject.in_([f"subnets/{each}/{kind}/{self.ip}" for each in holders for kind in kinds])
            )
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
        conditions = wanted.conditions(connection)
        end = min(last, after + _LOOKED_THROUGH)
        for first in range(after, end, _WINDOW):
            window_end = min(first + _WINDOW, end)
            rows = connection.execute(
                select(events)
                .where(events.c.position > first, events.c.position <= window_end, *conditions)
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
