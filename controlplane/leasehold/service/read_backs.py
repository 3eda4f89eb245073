"""What events of leases were missed, after a crash or a gap: derived from the leases that a server has on file.

A wish is a row, so that it outlives whoever was about to fulfil it. The leases are read between a snapshot of the
state that events told, and the arrival of all events up to then: a lease that no event changed meanwhile is as the file
has it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from leasehold.domain.lease_events import LeaseEvent, LeaseFound
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.service.events import append, queue_up
from leasehold.service.leases import Book, Key, Known, known_subnets
from leasehold.service.settling import derived, derived_id, derived_origin
from leasehold.store.sets import among
from leasehold.store.tables import event_heads, hosts, read_backs, subnets
from leasehold.store.tables import leases as leases_table

REASON = "read back"
STARTED = "Kea was started anew"
_IS_SILENT = hosts.c.boot_id.is_not(None) & ~(
    select(event_heads.c.boot)
    .where(event_heads.c.host_id == hosts.c.id, event_heads.c.boot == hosts.c.boot_id)
    .exists()
)

_AT_ONCE = 1_000


class Told(NamedTuple):
    """A lease as events told it, the last one at `told_ms`."""

    mac: int
    state: str
    told_ms: int
    expires_ms: int | None


@dataclass(frozen=True)
class Snapshot:
    """What events had told of the leases at a host, when the wish was `wanted_ms` old at most."""

    host: str
    wanted_ms: int
    told: dict[Key, Told]


def want(connection: Connection, host_id: str, reason: str, now_ms: int) -> None:
    """From now on the host's leases are to be read back."""
    changed = update(read_backs).where(read_backs.c.host_id == host_id)
    if not connection.execute(changed.values(reason=reason, wanted_ms=now_ms)).rowcount:
        connection.execute(insert(read_backs).values(host_id=host_id, reason=reason, wanted_ms=now_ms))


def wanted(ctx: Context) -> list[str]:
    """The hosts whose leases are to be read back, the one that waits longest first: also those whose Kea was seen to be
    started anew, and has reported nothing since."""
    with ctx.db.read() as connection:
        silent = connection.execute(select(hosts.c.id).where(_IS_SILENT)).scalars().all()
    for host_id in silent:
        _notice(ctx, host_id)
    with ctx.db.read() as connection:
        return list(
            connection.execute(
                select(read_backs.c.host_id).order_by(read_backs.c.wanted_ms, read_backs.c.host_id)
            ).scalars()
        )


def _notice(ctx: Context, host_id: str) -> None:
    with ctx.db.write() as connection:
        row = connection.execute(select(hosts.c.boot_id).where(hosts.c.id == host_id, _IS_SILENT).with_for_update())
        if (boot := row.scalar_one_or_none()) is not None:
            connection.execute(insert(event_heads).values(host_id=host_id, boot=boot, boot_order=0, sequence=0))
            want(connection, host_id, STARTED, ctx.now_ms())


def snapshot(ctx: Context, host_id: str) -> Snapshot | None:
    """To be taken before the leases are read; None when nobody wants them any more."""
    with ctx.db.read() as connection:
        wish = connection.execute(
            select(read_backs.c.wanted_ms).where(read_backs.c.host_id == host_id)
        ).scalar_one_or_none()
        return None if wish is None else Snapshot(host_id, wish, _told(connection, host_id))


def head(ctx: Context, host_id: str, boot: str) -> int:
    """The last event of that life of the host's Kea that came here; 0 before the first."""
    with ctx.db.read() as connection:
        sequence: int | None = connection.execute(
            select(event_heads.c.sequence).where(event_heads.c.host_id == host_id, event_heads.c.boot == boot)
        ).scalar_one_or_none()
        return sequence or 0


def note(ctx: Context, host_id: str, detail: str) -> None:
    """Why it does not come about; for a person."""
    with ctx.db.write() as connection:
        connection.execute(update(read_backs).where(read_backs.c.host_id == host_id).values(detail=detail))


def conclude(ctx: Context, before: Snapshot, found: Iterable[LeaseFound]) -> int:
    """Tells what was missed, and forgets the wish unless it was renewed meanwhile. `found` are all leases that the
    server had on file after the snapshot; all its events up to then have come. Returns how many events were missed."""
    with ctx.db.read() as connection:
        known = known_subnets(connection, list(connection.execute(select(subnets.c.id)).scalars()))
    on_file = {(each.subnet, each.address - known[each.subnet].first): each for each in found if each.subnet in known}
    keys = sorted({*on_file, *before.told})
    missed = 0
    for start in range(0, len(keys), _AT_ONCE):
        missed += _conclude(ctx, before, known, {key: on_file.get(key) for key in keys[start : start + _AT_ONCE]})
    with ctx.db.write() as connection:
        connection.execute(
            delete(read_backs).where(read_backs.c.host_id == before.host, read_backs.c.wanted_ms == before.wanted_ms)
        )
    return missed


def _conclude(ctx: Context, before: Snapshot, known: dict[int, Known], on_file: dict[Key, LeaseFound | None]) -> int:
    with ctx.db.write() as connection:
        queue_up(connection)
        now_ms = ctx.now_ms()
        told = _told(connection, before.host, on_file)
        events = [
            event
            for key, found in on_file.items()
            if key[0] in known and told.get(key) == before.told.get(key)
            for event in _missed(known[key[0]], key[1], told.get(key), found, now_ms)
        ]
        book = Book(connection, before.host, known, events)
        new = [
            each
            for event in events
            for each in book.take(event, derived_id(before.host, event), derived_origin(before.host, REASON))
        ]
        append(connection, now_ms, new + book.write(now_ms))
    if events:
        ctx.bell.ring(News.EVENTS)
    return len(events)


def _missed(known: Known, offset: int, told: Told | None, found: LeaseFound | None, now_ms: int) -> list[LeaseEvent]:
    """The event without which what was told is not what is on file; none where the two agree."""
    if found is None or found.state == "expired":
        if told is None or told.state != "assigned":
            return []
        is_over = found is not None or (told.expires_ms is not None and told.expires_ms <= now_ms)
        kind = "lease.expired" if is_over else "lease.released"
        return [derived(kind, known, offset, told.mac, now_ms)]
    mac = found.mac
    if mac is None and found.state == "declined" and told is not None:
        mac = told.mac  # Kea forgets whose it was
    if mac is None or (found.seen_s + found.lease_time_s) * 1000 <= now_ms:
        return []  # the end of one that is over will be reported when Kea has noticed
    seen_ms = found.seen_s * 1000
    kind = f"lease.{found.state}"
    if told is not None and told.state == found.state and told.mac == mac:
        if found.state == "declined" or told.told_ms >= seen_ms:  # Kea counts in seconds
            return []
        kind = "lease.renewed"
    return [derived(kind, known, offset, mac, seen_ms, found)]


def _told(connection: Connection, host_id: str, keys: Iterable[Key] | None = None) -> dict[Key, Told]:
    """By subnet and offset; of these only, where they are given."""
    query = select(leases_table).where(leases_table.c.host_id == host_id)
    if keys is None:
        rows = list(connection.execute(query).all())
    else:
        offsets: dict[int, set[int]] = {}
        for subnet_id, offset in keys:
            offsets.setdefault(subnet_id, set()).add(offset)
        rows = [
            row
            for subnet_id, of_subnet in offsets.items()
            for row in connection.execute(
                query.where(leases_table.c.subnet_id == subnet_id, among(connection, leases_table.c.offset, of_subnet))
            ).all()
        ]
    return {(row.subnet_id, row.offset): Told(row.mac, row.state, row.told_ms, row.expires_ms) for row in rows}
