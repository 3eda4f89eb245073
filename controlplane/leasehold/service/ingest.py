"""What hooks report of their servers' leases becomes events."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, insert, select, tuple_, update

from leasehold.domain.addresses import Mac
from leasehold.domain.lease_events import GAP, REJECTED, LeaseEvent, Line, Loss, Rejection, parse
from leasehold.domain.subnets import address_at, offset_of
from leasehold.service import hosts, subnets
from leasehold.service.bell import News
from leasehold.service.context import Context, from_ms
from leasehold.service.events import NewEvent, append
from leasehold.store.tables import addresses, event_heads, events, vnics
from leasehold.store.tables import hosts as hosts_table
from leasehold.store.tables import subnets as subnets_table

_ANNOUNCEMENTS_READ = 100

Owner = tuple[str | None, str | None]
"""A vNIC and its VM."""


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
        report = _Report(connection, host_id, boot, fresh)
        append(connection, ctx.now_ms(), report.events(head or 0))
        last = fresh[-1].seq
        if head is None:
            connection.execute(
                insert(event_heads).values(host_id=host_id, boot=boot, boot_order=boot_order, sequence=last)
            )
        else:
            connection.execute(update(event_heads).where(own_head).values(sequence=last))
    ctx.bell.ring(News.EVENTS)
    return last


class _Report:
    """Fresh lines of one boot of a host, and what the control plane knows of the MACs and addresses in them."""

    def __init__(self, connection: Connection, host_id: str, boot: str, lines: Sequence[Line]) -> None:
        self._connection = connection
        self._host_id = host_id
        self._boot = boot
        self._lines = lines
        touched = {line.subnet for line in lines if not isinstance(line, Loss)}
        self._subnets = {
            row.id: subnets.spec_of(row)
            for row in connection.execute(select(subnets_table).where(subnets_table.c.id.in_(touched)))
        }
        self._promised = self._promises()
        self._present = self._vnics()

    def events(self, head: int) -> list[NewEvent]:
        """The lines as events, with a gap before each that does not follow the one before it."""
        described = []
        for line in self._lines:
            if line.seq > head + 1 and (missing := self._unannounced(head + 1, line.seq - 1)):
                described.append(self._gap(head + 1, line.seq - 1, missing, line.at_ms))
            described.append(self._described(line))
            head = line.seq
        return described

    def _described(self, line: Line) -> NewEvent:
        common: dict[str, object] = {"host": self._host_id, "boot": self._boot, "seq": line.seq}
        if isinstance(line, Loss):
            kind, subject = GAP, self._gap_subject
            data: Mapping[str, object] = {
                "lost": line.lost,
                "reason": line.reason,
                "first_seq": line.first_seq,
                "last_seq": line.last_seq,
            }
        else:
            spec = self._subnets.get(line.subnet)
            vnic, vm = self._owner(line)
            where = {"subnet": line.subnet, "network": None if spec is None else spec.network}
            who = {"mac": None if line.mac is None else str(line.mac), "vnic": vnic, "vm": vm}
            if isinstance(line, Rejection):
                kind = REJECTED
                subject = f"subnets/{line.subnet}/clients" + ("" if line.mac is None else f"/{line.mac}")
                data = (
                    where
                    | who
                    | {
                        "reason": line.reason,
                        "count": line.count,
                        "first_at": _iso(line.first_ms),
                        "last_at": _iso(line.last_ms),
                    }
                )
            else:
                kind, subject = line.type, f"subnets/{line.subnet}/addresses/{line.ip}"
                data = (
                    where
                    | {"ip": str(line.ip)}
                    | who
                    | {
                        "lease_time_s": line.lease_time_s,
                        "expires_at": (
                            None
                            if line.seen_s is None or line.lease_time_s is None
                            else _iso((line.seen_s + line.lease_time_s) * 1000)
                        ),
                    }
                )
        return NewEvent(
            id=f"{self._boot}/{line.seq}", type=kind, subject=subject, time_ms=line.at_ms, data={**common, **data}
        )

    @property
    def _gap_subject(self) -> str:
        return f"hosts/{self._host_id}/events"

    def _gap(self, first: int, last: int, lost: int, at_ms: int) -> NewEvent:
        return NewEvent(
            id=f"{self._boot}/{first}-{last}",
            type=GAP,
            subject=self._gap_subject,
            time_ms=at_ms,
            data={
                "host": self._host_id,
                "boot": self._boot,
                "lost": lost,
                "reason": "missing",
                "first_seq": first,
                "last_seq": last,
            },
        )

    def _unannounced(self, first: int, last: int) -> int:
        """How many of these sequence numbers the hook did not announce as lost itself."""
        missing = 0
        for start, end in self._announced:
            if end >= first:
                missing += max(0, min(start, last + 1) - first)
                first = end + 1
        return missing + max(0, last + 1 - first)

    @cached_property
    def _announced(self) -> list[tuple[int, int]]:
        """Ranges of sequence numbers that the hook said it lost, in this report or lately, ascending."""
        told = self._connection.execute(
            select(events.c.data)
            .where(events.c.subject == self._gap_subject)
            .order_by(events.c.sequence.desc())
            .limit(_ANNOUNCEMENTS_READ)
        ).scalars()
        ranges = [(data["first_seq"], data["last_seq"]) for data in told if data["boot"] == self._boot]
        ranges += [(line.first_seq, line.last_seq) for line in self._lines if isinstance(line, Loss)]
        return sorted((first, last) for first, last in ranges if first is not None and last is not None)

    def _owner(self, line: LeaseEvent | Rejection) -> Owner:
        """Of the promise of this address to this MAC, else the vNIC that has the MAC on this subnet."""
        if line.mac is None:
            return None, None
        owner = self._promised.get((line.subnet, line.ip, line.mac)) if isinstance(line, LeaseEvent) else None
        return owner or self._present.get((line.subnet, line.mac), (None, None))

    def _promises(self) -> dict[tuple[int, IPAddress, Mac], Owner]:
        wanted = {
            (line.subnet, offset_of(spec, line.ip))
            for line in self._lines
            if isinstance(line, LeaseEvent) and (spec := self._subnets.get(line.subnet)) and line.ip in spec.cidr
        }
        rows = self._connection.execute(
            select(addresses.c.subnet_id, addresses.c.offset, addresses.c.mac, addresses.c.vnic_id, vnics.c.vm)
            .join(vnics, vnics.c.id == addresses.c.vnic_id, isouter=True)
            .where(tuple_(addresses.c.subnet_id, addresses.c.offset).in_(wanted))
        )
        return {
            (row.subnet_id, address_at(self._subnets[row.subnet_id], row.offset), Mac(row.mac)): (
                row.vnic_id,
                row.vm,
            )
            for row in rows
        }

    def _vnics(self) -> dict[tuple[int, Mac], Owner]:
        macs = {line.mac.value for line in self._lines if not isinstance(line, Loss) and line.mac is not None}
        rows = self._connection.execute(
            select(vnics.c.subnet_id, vnics.c.mac, vnics.c.id, vnics.c.vm).where(vnics.c.mac.in_(macs))
        )
        return {(row.subnet_id, Mac(row.mac)): (row.id, row.vm) for row in rows}


def _iso(instant_ms: int) -> str:
    return from_ms(instant_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
