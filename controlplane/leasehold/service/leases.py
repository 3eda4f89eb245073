"""The lease state of each address and server, as events tell it.

A lease that is not what is reserved is told once, as `lease.diverged` with `status` raised, and once more when it
ended, cleared.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork
from sqlalchemy import ColumnElement, Connection, and_, false, or_, select, tuple_

from leasehold.domain.addresses import Mac
from leasehold.domain.lease_events import LeaseEvent
from leasehold.domain.values import Lease
from leasehold.service import conflicts
from leasehold.service.context import Context, from_ms
from leasehold.service.events import NewEvent
from leasehold.store.bulk import write_rows
from leasehold.store.database import AnyRow
from leasehold.store.sets import among
from leasehold.store.tables import addresses, server_subnets, vnics
from leasehold.store.tables import leases as leases_table
from leasehold.store.tables import subnets as subnets_table

DIVERGED = "lease.diverged"

# Clocks of hosts may differ so much from ours before a grant is taken for one that came after a confirmation.
CLOCKS_DIFFER_MS = 5_000
_STATE_AFTER = {
    "lease.assigned": "assigned",
    "lease.renewed": "assigned",
    "lease.released": "released",
    "lease.expired": "expired",
    "lease.declined": "declined",
}
Key = tuple[int, int]
"""A subnet's id, and an offset there."""
Owner = tuple[str | None, str | None]
"""A vNIC and its VM."""
NOBODY: Owner = (None, None)


@dataclass(frozen=True)
class Known:
    """A subnet as events name it: `first` is the integer of its network address."""

    id: int
    network: str
    first: int


@dataclass(slots=True)
class _Lease:
    mac: int
    state: str
    since_ms: int
    told_ms: int
    expires_ms: int | None
    diverged: bool

    def is_live(self, at_ms: int) -> bool:
        return self.state == "assigned" and (self.expires_ms is None or self.expires_ms > at_ms)


def known_subnets(connection: Connection, ids: Collection[int]) -> dict[int, Known]:
    """Those of these subnets that there are."""
    rows = connection.execute(
        select(subnets_table.c.id, subnets_table.c.network_id, subnets_table.c.cidr).where(
            among(connection, subnets_table.c.id, ids)
        )
    )
    return {row.id: Known(row.id, row.network_id, int(IPNetwork(row.cidr).first)) for row in rows}


class Book:
    """The leases at one host that some events touch. `take` them one by one, then `write`.

    Whoever opens one has the place in the queue of events (service.events.queue_up).
    """

    def __init__(
        self, connection: Connection, host_id: str, known: Mapping[int, Known], touched: Iterable[LeaseEvent]
    ) -> None:
        self._connection = connection
        self._host_id = host_id
        self._known = known
        self._leases: dict[Key, _Lease] = {}
        self._sequences: dict[Key, int] = {}
        self._changed: dict[Key, _Lease] = {}
        self._granted: set[int] = set()
        self._instants: dict[int, str] = {}
        self._confirmed: dict[int, AnyRow] | None = None
        keys: dict[int, set[int]] = {}
        pairs = set()
        for event in touched:
            if (key := self.key(event)) is not None:
                keys.setdefault(key[0], set()).add(key[1])
                pairs.add((key, event.mac))
        self._promises = self._read_promises(keys)
        self._read_leases(keys)
        strangers = {(key[0], mac) for key, mac in pairs if not self._is_promised_to(key, mac)}
        self._present = owners(connection, strangers)

    def key(self, event: LeaseEvent) -> Key | None:
        """Where the book has the event's lease; None for a subnet that it does not know."""
        known = self._known.get(event.subnet)
        return None if known is None or event.version != 4 else (event.subnet, event.address - known.first)

    def take(self, event: LeaseEvent, event_id: str, origin: str) -> list[NewEvent]:
        """The event in the form that is stored, with alarms that it raises or clears behind it. `origin` are the first
        members of its data, as JSON."""
        key = self.key(event)
        subject = f"subnets/{event.subnet}/addresses/{event.ip}"
        if key is None:
            data = self._data(event, origin, "null", NOBODY)
            return [NewEvent(event_id, event.type, subject, event.at_ms, data, mac=event.mac)]
        owner = self._owner(key, event.mac)
        data = self._data(event, origin, json.dumps(self._known[event.subnet].network), owner)
        found = [NewEvent(event_id, event.type, subject, event.at_ms, data, self._next(key), event.mac, owner[0])]
        found += self._turn(key, event, subject, origin, owner)
        return found

    def write(self, now_ms: int) -> list[NewEvent]:
        """Keeps the leases as they are now. Returns the alarms of MACs that two vNICs hold leases with."""
        rows = [
            (
                *key,
                self._host_id,
                lease.mac,
                lease.state,
                lease.since_ms,
                lease.told_ms,
                lease.expires_ms,
                self._sequences[key],
                lease.diverged,
            )
            for key, lease in self._changed.items()
        ]
        # In the order of their keys: neighbours share a page.
        write_rows(self._connection, leases_table, list(leases_table.c), sorted(rows), replace=True)
        return conflicts.compare(self._connection, now_ms, self._granted)

    def lease(self, key: Key) -> _Lease | None:
        """As the book has it."""
        return self._leases.get(key)

    def _turn(self, key: Key, event: LeaseEvent, subject: str, origin: str, owner: Owner) -> list[NewEvent]:
        state = _STATE_AFTER[event.type]
        lease = self._leases.get(key)
        if state in ("released", "expired") and lease is not None and lease.mac != event.mac:
            self._changed[key] = lease  # the end of a lease before this one; its sequence number is taken
            return []
        reason = self._divergence(key, event) if state == "assigned" else None
        alarms = []
        if lease is not None and lease.diverged and (reason is None or lease.mac != event.mac):
            alarms.append(self._alarm(key, event, subject, origin, lease.mac, "cleared", None))
        if reason is not None and not (lease is not None and lease.diverged and lease.mac == event.mac):
            alarms.append(self._alarm(key, event, subject, origin, event.mac, "raised", reason))
        goes_on = (
            lease is not None
            and lease.mac == event.mac
            and lease.state == state
            and (state != "assigned" or lease.is_live(event.at_ms))
        )
        if state == "assigned":
            self._granted.add(event.mac)
        self._leases[key] = self._changed[key] = _Lease(
            event.mac,
            state,
            lease.since_ms if lease is not None and goes_on else event.at_ms,
            event.at_ms,
            event.expires_ms if state in ("assigned", "declined") else None,
            reason is not None,
        )
        return alarms

    def _divergence(self, key: Key, event: LeaseEvent) -> str | None:
        """Why the server should not have granted this, None if it was right to.

        What was reserved when it was granted, and withdrawn before this came, is right: that is so until the server has
        confirmed a revision without it.
        """
        promise = self._promises.get(key)
        if promise is not None and promise.mac == event.mac and promise.state == "held":
            return None
        if self._confirmed is None:
            rows = self._connection.execute(select(server_subnets).where(server_subnets.c.host_id == self._host_id))
            self._confirmed = {row.subnet_id: row for row in rows}
        server = self._confirmed.get(key[0])
        if server is None:
            return "this host is no server of the network"
        is_current = (
            server.confirmed_revision is not None
            and server.confirmed_ms is not None
            and event.at_ms > server.confirmed_ms + CLOCKS_DIFFER_MS
        )
        if not is_current:
            return None
        if promise is None:
            return "the address is not reserved"
        if promise.mac != event.mac:
            return "the address is reserved for another MAC"
        return "the reservation was withdrawn" if server.confirmed_revision >= promise.revision else None

    def _alarm(
        self, key: Key, event: LeaseEvent, subject: str, origin: str, mac: int, status: str, reason: str | None
    ) -> NewEvent:
        promise = self._promises.get(key)
        vnic, vm = self._owner(key, mac)
        sequence = self._next(key)
        facts = {
            "status": status,
            "reason": reason,
            "subnet": event.subnet,
            "network": self._known[event.subnet].network,
            "ip": event.ip,
            "mac": str(Mac(mac)),
            "vnic": vnic,
            "vm": vm,
            "reserved_for": None if promise is None or promise.state != "held" else str(Mac(promise.mac)),
        }
        data = f"{{{origin},{json.dumps(facts, separators=(',', ':'))[1:]}"
        event_id = f"{self._host_id}/{subject}/{sequence}"
        return NewEvent(event_id, DIVERGED, subject, event.at_ms, data, sequence, mac, vnic)

    def _data(self, event: LeaseEvent, origin: str, network: str, owner: Owner) -> str:
        vnic, vm = (json.dumps(each) if each is not None else "null" for each in owner)
        mac = f"{event.mac:012x}"
        text = f"{mac[:2]}:{mac[2:4]}:{mac[4:6]}:{mac[6:8]}:{mac[8:10]}:{mac[10:]}"
        lease_time_s = "null" if event.lease_time_s is None else event.lease_time_s
        return (
            f'{{{origin},"subnet":{event.subnet},"network":{network},"ip":"{event.ip}","mac":"{text}",'
            f'"vnic":{vnic},"vm":{vm},"lease_time_s":{lease_time_s},"expires_at":{self._instant(event)}}}'
        )

    def _instant(self, event: LeaseEvent) -> str:
        """When the lease ends, as JSON."""
        if event.seen_s is None or event.lease_time_s is None:
            return "null"
        ends_s = event.seen_s + event.lease_time_s
        text = self._instants.get(ends_s)
        if text is None:
            text = self._instants[ends_s] = f'"{iso(ends_s * 1000)}"'
        return text

    def _next(self, key: Key) -> int:
        sequence = self._sequences[key] = self._sequences.get(key, 0) + 1
        return sequence

    def _owner(self, key: Key, mac: int) -> Owner:
        """Of the promise of this address to this MAC, else the vNIC that has the MAC on this subnet."""
        promise = self._promises.get(key)
        if promise is not None and promise.mac == mac:
            return promise.vnic_id, promise.vm
        return self._present.get((key[0], mac), NOBODY)

    def _is_promised_to(self, key: Key, mac: int) -> bool:
        promise = self._promises.get(key)
        return promise is not None and promise.mac == mac

    def _read_promises(self, keys: Mapping[int, set[int]]) -> dict[Key, AnyRow]:
        found: dict[Key, AnyRow] = {}
        for subnet_id, offsets in keys.items():
            rows = self._connection.execute(
                select(
                    addresses.c.offset,
                    addresses.c.mac,
                    addresses.c.state,
                    addresses.c.revision,
                    addresses.c.vnic_id,
                    vnics.c.vm,
                )
                .join(vnics, vnics.c.id == addresses.c.vnic_id, isouter=True)
                .where(addresses.c.subnet_id == subnet_id, among(self._connection, addresses.c.offset, offsets))
            ).all()
            found |= {(subnet_id, row.offset): row for row in rows}
        return found

    def _read_leases(self, keys: Mapping[int, set[int]]) -> None:
        for subnet_id, offsets in keys.items():
            rows = self._connection.execute(
                select(leases_table).where(
                    leases_table.c.subnet_id == subnet_id,
                    among(self._connection, leases_table.c.offset, offsets),
                )
            ).all()
            for row in rows:
                key = (subnet_id, row.offset)
                self._sequences[key] = max(self._sequences.get(key, 0), row.sequence)
                if row.host_id == self._host_id:
                    self._leases[key] = _Lease(
                        row.mac, row.state, row.since_ms, row.told_ms, row.expires_ms, row.diverged
                    )


def owners(connection: Connection, pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], Owner]:
    """The vNICs that have a MAC on a subnet, by subnet and MAC."""
    if not pairs:
        return {}
    rows = connection.execute(
        select(vnics.c.subnet_id, vnics.c.mac, vnics.c.id, vnics.c.vm).where(
            among(connection, vnics.c.mac, {mac for _, mac in pairs})
        )
    )
    return {(row.subnet_id, row.mac): (row.id, row.vm) for row in rows if (row.subnet_id, row.mac) in pairs}


LeaseKey = tuple[int, int, str]
"""A subnet's id, an offset there, and a host: the order in which leases are listed."""


def list_leases(
    ctx: Context,
    *,
    limit: int,
    after: LeaseKey | None = None,
    subnet: int | None = None,
    mac: Mac | None = None,
    ip: IPAddress | None = None,
    host: str | None = None,
) -> list[Lease]:
    """Up to `limit` leases behind a key, by subnet, address and host: those for which everything holds that is given.
    One that is past its time counts as expired, also when no event said so."""
    now_ms = ctx.now_ms()
    own = tuple_(leases_table.c.subnet_id, leases_table.c.offset, leases_table.c.host_id)
    wanted: list[ColumnElement[bool]] = []
    if after is not None:
        wanted.append(own > tuple_(*after))
    if subnet is not None:
        wanted.append(leases_table.c.subnet_id == subnet)
    if mac is not None:
        wanted.append(leases_table.c.mac == mac.value)
    if host is not None:
        wanted.append(leases_table.c.host_id == host)
    with ctx.db.read() as connection:
        if ip is not None:
            places = [
                (row.id, int(ip) - int(cidr.first))
                for row in connection.execute(select(subnets_table.c.id, subnets_table.c.cidr))
                if ip in (cidr := IPNetwork(row.cidr))
            ]
            wanted.append(or_(false(), *(_is_at(*place) for place in places)))
        rows = connection.execute(
            select(
                leases_table,
                subnets_table.c.network_id,
                subnets_table.c.cidr,
                addresses.c.vnic_id,
                addresses.c.mac.label("promised_mac"),
                addresses.c.state.label("promise"),
            )
            .join(subnets_table, subnets_table.c.id == leases_table.c.subnet_id)
            .join(
                addresses,
                (addresses.c.subnet_id == leases_table.c.subnet_id) & (addresses.c.offset == leases_table.c.offset),
                isouter=True,
            )
            .where(*wanted)
            .order_by(leases_table.c.subnet_id, leases_table.c.offset, leases_table.c.host_id)
            .limit(limit)
        ).all()
    return [_lease_of(row, now_ms) for row in rows]


def key_of(lease: Lease) -> LeaseKey:
    """Its place in the list."""
    return lease.subnet, lease.offset, lease.host


def _is_at(subnet_id: int, offset: int) -> ColumnElement[bool]:
    return and_(leases_table.c.subnet_id == subnet_id, leases_table.c.offset == offset)


def _lease_of(row: AnyRow, now_ms: int) -> Lease:
    is_over = row.expires_ms is not None and row.expires_ms <= now_ms
    is_promised = row.promised_mac == row.mac
    return Lease(
        subnet=row.subnet_id,
        network=row.network_id,
        offset=row.offset,
        ip=IPAddress(int(IPNetwork(row.cidr).first) + row.offset, 4),
        host=row.host_id,
        mac=Mac(row.mac),
        vnic=row.vnic_id if is_promised else None,
        state="expired" if is_over else row.state,
        since=from_ms(row.expires_ms if is_over else row.since_ms),
        expires_at=None if row.expires_ms is None else from_ms(row.expires_ms),
        is_reserved=is_promised and row.promise == "held",
        diverged=row.diverged,
    )


def iso(instant_ms: int) -> str:
    """RFC 3339 with milliseconds."""
    return from_ms(instant_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
