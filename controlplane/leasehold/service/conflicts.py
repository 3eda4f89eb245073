"""MACs with which two vNICs hold a lease at once: told once as `mac.conflict` with `status` raised, and once more when
that is over, cleared."""

from collections.abc import Collection

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, delete, insert, or_, select, text

from leasehold.domain.addresses import Mac
from leasehold.service.events import NewEvent, new_event
from leasehold.store.sets import among
from leasehold.store.tables import addresses, mac_conflicts, macs, vnics
from leasehold.store.tables import leases as leases_table
from leasehold.store.tables import subnets as subnets_table

CONFLICT = "mac.conflict"


def compare(connection: Connection, now_ms: int, suspects: Collection[int]) -> list[NewEvent]:
    """Compares these MACs with the conflicts that were told, and keeps what there is now: returns `mac.conflict` for
    those where two vNICs hold a lease at once, raised, and for those where that is over, cleared."""
    if not suspects:
        return []
    told = set(
        connection.execute(
            select(mac_conflicts.c.mac).where(among(connection, mac_conflicts.c.mac, suspects))
        ).scalars()
    )
    shared = set(
        connection.execute(
            select(macs.c.mac).where(among(connection, macs.c.mac, suspects), text("macs.holders > 1"))
        ).scalars()
    )
    held = _held_at_once(connection, now_ms, shared)
    found = []
    for mac in sorted(held.keys() - told):
        connection.execute(insert(mac_conflicts).values(mac=mac, since_ms=now_ms))
        found.append(_conflict(now_ms, mac, "raised", held[mac]))
    for mac in sorted(told - held.keys()):
        connection.execute(delete(mac_conflicts).where(mac_conflicts.c.mac == mac))
        found.append(_conflict(now_ms, mac, "cleared", []))
    return found


def _conflict(now_ms: int, mac: int, status: str, held: list[dict[str, object]]) -> NewEvent:
    data = {"status": status, "mac": str(Mac(mac)), "leases": held}
    return new_event(now_ms, CONFLICT, f"macs/{Mac(mac)}", data)


def _held_at_once(connection: Connection, now_ms: int, suspects: set[int]) -> dict[int, list[dict[str, object]]]:
    """The leases of those MACs with which several vNICs hold one now, each as it is reserved."""
    if not suspects:
        return {}
    rows = connection.execute(
        select(
            leases_table.c.mac,
            leases_table.c.offset,
            leases_table.c.host_id,
            subnets_table.c.id,
            subnets_table.c.cidr,
            subnets_table.c.network_id,
            addresses.c.vnic_id,
            vnics.c.vm,
        )
        .join(
            addresses,
            (addresses.c.subnet_id == leases_table.c.subnet_id) & (addresses.c.offset == leases_table.c.offset),
        )
        .join(subnets_table, subnets_table.c.id == leases_table.c.subnet_id)
        .join(vnics, vnics.c.id == addresses.c.vnic_id, isouter=True)
        .where(
            among(connection, leases_table.c.mac, suspects),
            leases_table.c.state == "assigned",
            or_(leases_table.c.expires_ms.is_(None), leases_table.c.expires_ms > now_ms),
            addresses.c.state == "held",
            addresses.c.mac == leases_table.c.mac,
        )
        .order_by(leases_table.c.subnet_id, leases_table.c.offset, leases_table.c.host_id)
    )
    by_mac: dict[int, list[dict[str, object]]] = {}
    for row in rows:
        by_mac.setdefault(row.mac, []).append(
            {
                "subnet": row.id,
                "network": row.network_id,
                "ip": str(IPAddress(int(IPNetwork(row.cidr).first) + row.offset)),
                "host": row.host_id,
                "vnic": row.vnic_id,
                "vm": row.vm,
            }
        )
    return {mac: held for mac, held in by_mac.items() if len({each["vnic"] for each in held}) > 1}


def told(connection: Connection) -> list[int]:
    """The MACs whose conflict goes on, as far as was told."""
    return list(connection.execute(select(mac_conflicts.c.mac)).scalars())
