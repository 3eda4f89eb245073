"""Leases that ended without an event of their own."""

import json
from collections.abc import Sequence

from netaddr import IPAddress
from sqlalchemy import Connection, select

from leasehold.domain.lease_events import LeaseEvent, LeaseFound
from leasehold.service import conflicts
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.service.events import NewEvent, append, queue_up
from leasehold.service.leases import CLOCKS_DIFFER_MS, Book, Known, known_subnets
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, server_subnets
from leasehold.store.tables import leases as leases_table

_SETTLED_AT_ONCE = 1000


def settle(ctx: Context) -> int:
    """Ends what ended without an event of its own: a lease that a server deleted with its reservation, which becomes a
    derived `lease.released`; and alarms whose leases ran out. Returns how many there were."""
    with ctx.db.read() as connection:
        if not (_withdrawn(connection) or _outlived(connection, ctx.now_ms()) or conflicts.told(connection)):
            return 0
    with ctx.db.write() as connection:
        queue_up(connection)
        now_ms = ctx.now_ms()
        found = [
            each
            for type_, rows in (
                ("lease.released", _withdrawn(connection)),
                ("lease.expired", _outlived(connection, now_ms)),
            )
            for each in _ended(connection, now_ms, type_, rows)
        ]
        found += conflicts.compare(connection, now_ms, conflicts.told(connection))
        append(connection, now_ms, found)
    if found:
        ctx.bell.ring(News.EVENTS)
    return len(found)


def _ended(connection: Connection, now_ms: int, kind: str, rows: Sequence[AnyRow]) -> list[NewEvent]:
    by_host: dict[str, list[LeaseEvent]] = {}
    known = known_subnets(connection, {row.subnet_id for row in rows})
    for row in rows:
        event = derived(kind, known[row.subnet_id], row.offset, row.mac, now_ms)
        by_host.setdefault(row.host_id, []).append(event)
    found = []
    for host_id, ends in by_host.items():
        book = Book(connection, host_id, known, ends)
        reason = "withdrawn" if kind == "lease.released" else "time"
        for event in ends:
            found += book.take(event, derived_id(host_id, event), derived_origin(host_id, reason))
        found += book.write(now_ms)
    return found


def derived(kind: str, known: Known, offset: int, mac: int, at_ms: int, found: LeaseFound | None = None) -> LeaseEvent:
    """The event of a lease of which none was told; `found` is the lease that it tells of, where that is known."""
    address = known.first + offset
    lease_time_s, seen_s = (None, None) if found is None else (found.lease_time_s, found.seen_s)
    ip = str(IPAddress(address, 4))
    return LeaseEvent(0, kind, at_ms, known.id, ip, address, 4, mac, lease_time_s, seen_s)


def derived_id(host_id: str, event: LeaseEvent) -> str:
    """The same for the same fact, so that it is derived once."""
    return f"{host_id}/{event.subnet}/{event.ip}/{event.mac:012x}/{event.type}/{event.at_ms}"


def derived_origin(host_id: str, reason: str) -> str:
    """The first members of a derived event's data, as JSON."""
    return f'"host":{json.dumps(host_id)},"boot":null,"seq":null,"derived":true,"reason":{json.dumps(reason)}'


def _withdrawn(connection: Connection) -> Sequence[AnyRow]:
    """Leases whose server has confirmed that their reservation is gone: with it, it deleted them."""
    return connection.execute(
        select(leases_table)
        .join(
            addresses,
            (addresses.c.subnet_id == leases_table.c.subnet_id) & (addresses.c.offset == leases_table.c.offset),
        )
        .join(
            server_subnets,
            (server_subnets.c.subnet_id == leases_table.c.subnet_id)
            & (server_subnets.c.host_id == leases_table.c.host_id),
        )
        .where(
            addresses.c.state.in_(("draining", "cooling")),
            addresses.c.mac == leases_table.c.mac,
            server_subnets.c.confirmed_revision >= addresses.c.revision,
            server_subnets.c.confirmed_ms >= leases_table.c.told_ms - CLOCKS_DIFFER_MS,
            leases_table.c.state == "assigned",
            ~leases_table.c.diverged,
        )
        .limit(_SETTLED_AT_ONCE)
    ).all()


def _outlived(connection: Connection, now_ms: int) -> Sequence[AnyRow]:
    """Diverged leases that ran out."""
    return connection.execute(
        select(leases_table)
        .where(leases_table.c.diverged, leases_table.c.expires_ms <= now_ms - CLOCKS_DIFFER_MS)
        .limit(_SETTLED_AT_ONCE)
    ).all()
