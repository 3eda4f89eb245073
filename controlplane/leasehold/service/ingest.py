"""What hooks report of their servers' leases becomes events."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, insert, select, update

from leasehold.domain.lease_events import GAP, REJECTED, LeaseEvent, Line, Loss, Rejection, parse
from leasehold.service import counters, hosts, read_backs
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.service.events import NewEvent, append, queue_up
from leasehold.service.leases import NOBODY, Book, iso, known_subnets, owners
from leasehold.store.bulk import write_rows
from leasehold.store.tables import event_gaps, event_heads
from leasehold.store.tables import hosts as hosts_table

Range = tuple[int, int]
"""Sequence numbers from the first to the last."""


def ingest(ctx: Context, host_id: str, boot: str, boot_order: int, lines: Sequence[Mapping[str, Any]]) -> int:
    """Stores what the hook on a host reports of one life of its Kea, and answers the last sequence number stored: up to
    there it can forget. Lines that were stored before change nothing; numbers that are missing, and that the hook did
    not itself announce as lost, become an `events.gap` where they are missing.

    Raises HostNotFound, and FieldInvalid with nothing stored for a bad line.
    """
    parsed = parse(lines)
    with ctx.db.write() as connection:
        # The host's row is locked, so that two reports of one boot queue.
        known = select(hosts_table.c.id).where(hosts_table.c.id == host_id).with_for_update()
        if connection.execute(known).first() is None:
            raise hosts.missing(host_id)
        own_head = (event_heads.c.host_id == host_id) & (event_heads.c.boot == boot)
        head = connection.execute(select(event_heads.c.sequence).where(own_head)).scalar_one_or_none()
        fresh = [line for line in parsed if line.seq > (head or 0)]
        if not fresh:
            return head or 0
        queue_up(connection)
        now_ms = ctx.now_ms()
        report = _Report(connection, host_id, boot, fresh)
        append(connection, now_ms, report.events(head or 0, now_ms))
        last = fresh[-1].seq
        if head is None or report.lost:
            # Events of another life may be lost that nobody counted: those of its last moment.
            reason = "events were lost" if report.lost else read_backs.STARTED
            read_backs.want(connection, host_id, reason, now_ms)
        if head is None:
            connection.execute(
                insert(event_heads).values(host_id=host_id, boot=boot, boot_order=boot_order, sequence=last)
            )
        else:
            connection.execute(update(event_heads).where(own_head).values(boot_order=boot_order, sequence=last))
    for kind, count in report.counted.items():
        counters.events_received.labels(host_id, kind).inc(count)
    if report.lost:
        counters.events_lost.labels(host_id).inc(report.lost)
    ctx.bell.ring(News.EVENTS)
    return last


class _Report:
    """Fresh lines of one boot of a host, and what the control plane knows of the MACs and addresses in them."""

    def __init__(self, connection: Connection, host_id: str, boot: str, lines: Sequence[Line]) -> None:
        self._connection = connection
        self._host_id = host_id
        self._boot = boot
        self._lines = lines
        self._gap_subject = f"hosts/{host_id}/events"
        self._known = known_subnets(connection, {line.subnet for line in lines if not isinstance(line, Loss)})
        self._book = Book(connection, host_id, self._known, (line for line in lines if isinstance(line, LeaseEvent)))
        rejected = {
            (line.subnet, line.mac.value) for line in lines if isinstance(line, Rejection) and line.mac is not None
        }
        self._rejected = owners(connection, rejected)
        self._gaps: list[tuple[Range, bool]] = []
        self.lost = 0
        self.counted: Counter[str] = Counter()

    def events(self, head: int, now_ms: int) -> list[NewEvent]:
        """The lines as events, with a gap before each that does not follow the one before it."""
        found: list[NewEvent] = []
        for line in self._lines:
            if line.seq > head + 1 and (missing := _without((head + 1, line.seq - 1), self._announced)):
                found.append(self._gap(head + 1, line.seq - 1, missing, line.at_ms))
            found += self._described(line)
            head = line.seq
        gaps = [(self._host_id, self._boot, *gap, is_announced, now_ms) for gap, is_announced in self._gaps]
        write_rows(self._connection, event_gaps, list(event_gaps.c)[1:], gaps)
        return found + self._book.write(now_ms)

    def _described(self, line: Line) -> list[NewEvent]:
        origin = f'"host":{self._host},"boot":"{self._boot}","seq":{line.seq}'
        event_id = f"{self._boot}/{line.seq}"
        if isinstance(line, LeaseEvent):
            self.counted[line.type] += 1
            return self._book.take(line, event_id, origin)
        if isinstance(line, Rejection):
            self.counted[REJECTED] += 1
            return [self._rejection(line, event_id, origin)]
        self.counted[GAP] += 1
        return [self._loss(line, event_id, origin)]

    def _loss(self, line: Loss, event_id: str, origin: str) -> NewEvent:
        """What the hook announced, less what was missed here before it did."""
        told = 0
        if line.range is not None:
            told = min(line.lost, _size([line.range]) - _size(_without(line.range, self._missed)))
            self._gaps.append((line.range, True))
        self.lost += line.lost - told
        facts: dict[str, object] = {
            "lost": line.lost - told,
            "reason": line.reason,
            "first_seq": line.first_seq,
            "last_seq": line.last_seq,
        }
        if told:
            facts["told_before"] = told
        return NewEvent(event_id, GAP, self._gap_subject, line.at_ms, _joined(origin, facts))

    def _rejection(self, line: Rejection, event_id: str, origin: str) -> NewEvent:
        known = self._known.get(line.subnet)
        mac = None if line.mac is None else line.mac.value
        vnic, vm = NOBODY if mac is None else self._rejected.get((line.subnet, mac), NOBODY)
        facts = {
            "subnet": line.subnet,
            "network": None if known is None else known.network,
            "mac": None if line.mac is None else str(line.mac),
            "vnic": vnic,
            "vm": vm,
            "reason": line.reason,
            "count": line.count,
            "first_at": iso(line.first_ms),
            "last_at": iso(line.last_ms),
        }
        subject = f"subnets/{line.subnet}/clients" + ("" if line.mac is None else f"/{line.mac}")
        return NewEvent(event_id, REJECTED, subject, line.at_ms, _joined(origin, facts), mac=mac, vnic=vnic)

    @cached_property
    def _host(self) -> str:
        return json.dumps(self._host_id)

    def _gap(self, first: int, last: int, missing: list[Range], at_ms: int) -> NewEvent:
        self._gaps += [(each, False) for each in missing]
        self.lost += _size(missing)
        origin = f'"host":{self._host},"boot":"{self._boot}"'
        facts = {"lost": _size(missing), "reason": "missing", "first_seq": first, "last_seq": last}
        event_id = f"{self._boot}/{first}-{last}"
        return NewEvent(event_id, GAP, self._gap_subject, at_ms, _joined(origin, facts))

    @cached_property
    def _announced(self) -> list[Range]:
        """What the hook said it lost, in this report or before, ascending."""
        own = [line.range for line in self._lines if isinstance(line, Loss) and line.range is not None]
        return sorted(own + self._told(announced=True))

    @cached_property
    def _missed(self) -> list[Range]:
        """What was told to be missing before, ascending."""
        return sorted(self._told(announced=False))

    def _told(self, *, announced: bool) -> list[Range]:
        rows = self._connection.execute(
            select(event_gaps.c.first_seq, event_gaps.c.last_seq).where(
                event_gaps.c.host_id == self._host_id,
                event_gaps.c.boot == self._boot,
                event_gaps.c.announced == announced,
            )
        )
        return [(row.first_seq, row.last_seq) for row in rows]


def _without(whole: Range, parts: Iterable[Range]) -> list[Range]:
    """What is left of a range of numbers without these, which ascend."""
    first, last = whole
    left = []
    for start, end in parts:
        if start > last:
            break
        if start > first:
            left.append((first, start - 1))
        first = max(first, end + 1)
    return [*left, (first, last)] if first <= last else left


def _size(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _joined(origin: str, facts: Mapping[str, object]) -> str:
    return f"{{{origin},{json.dumps(facts, separators=(',', ':'))[1:]}"
