"""Hosts that serve what this database knows nothing of, and what is done until they have given it up.

A database that was restored from a backup knows less than the hosts, and begins a history of its own. Its epoch is the
identity of a history. Hosts take log entries of the epoch that they know only, so that a new one makes each of them get
everything anew. They may serve promises that were lost with the younger database: none of a subnet's addresses is
promised anew until every server of it has given those up. The same goes for the networks of a host that comes with
reservations of another history, which may be that of a database that was lost, or another installation's.
"""

import logging
import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Select, or_, select, update

from leasehold.errors import SubnetRecovering
from leasehold.service import events, replication
from leasehold.service.context import Context
from leasehold.store.database import AnyRow, at_end
from leasehold.store.tables import host_networks, hosts, lineage, server_subnets, subnets

log = logging.getLogger(__name__)


def begin_new_history(ctx: Context) -> None:
    """For a database that was restored from a backup: see `draw_epoch`."""
    with ctx.db.write() as connection:
        replication.change_servers(connection)
        draw_epoch(connection, ctx.now_ms(), "An administrator said that it was restored from a backup.")
    ctx.bell.ring()


def draw_epoch(connection: Connection, now_ms: int, evidence: str) -> None:
    """This database is an older copy of the one that the hosts know: it begins a history of its own, as soon as the
    transaction ends. In that, nothing counts as confirmed any more."""
    replication.change_epoch(connection)
    log.warning("The database is an older copy of itself, and begins a new history: %s", evidence)
    _lock(connection, select(subnets.c.id))
    connection.execute(update(server_subnets).values(confirmed_revision=None, confirmed_ms=None))
    connection.execute(update(subnets).values(recovering_since_ms=now_ms))
    # Events queue on the row of the epoch, and whoever has a subnet may be about to.
    at_end(connection, _set_epoch, str(uuid.uuid4()))
    events.emit(connection, now_ms, "database.rewound", "database", {"evidence": evidence})


def _set_epoch(connection: Connection, drawn: Sequence[str]) -> None:
    connection.execute(update(lineage).values(epoch=drawn[-1]))


def _lock(connection: Connection, subnet_ids: Select[int]) -> Sequence[int]:
    """Locks subnets in the one order in which all lock them who lock several; returns which."""
    return connection.execute(subnet_ids.order_by(subnets.c.id).with_for_update(key_share=True)).scalars().all()


def begin_recovery(
    connection: Connection, *, now_ms: int, since_ms: int, host_id: str, subnet_ids: Collection[int], evidence: str
) -> bool:
    """A host serves reservations that this database knows nothing of: nothing is promised anew on these subnets, nor on
    any network that the host is attached to, since the ids of another history may be others' here. For how long, see
    `awaited`; all hosts there are to have answered since `since_ms`. Returns whether anything was promised there yet.
    """
    found = _lock(connection, _promising(host_id, subnet_ids))
    if not found:
        return False
    log.warning("Nothing is promised on subnets %s for a while: %s", ", ".join(map(str, found)), evidence)
    connection.execute(update(subnets).where(subnets.c.id.in_(found)).values(recovering_since_ms=since_ms))
    for subnet_id in found:
        data = {"subnet": subnet_id, "host": host_id, "evidence": evidence}
        events.emit(connection, now_ms, "subnet.recovering", f"subnets/{subnet_id}", data)
    return True


def is_guarded(connection: Connection, host_id: str, subnet_ids: Collection[int]) -> bool:
    """Whether `begin_recovery` would find nothing to do."""
    return connection.execute(_promising(host_id, subnet_ids).limit(1)).first() is None


def _promising(host_id: str, subnet_ids: Collection[int]) -> Select[int]:
    attached = select(host_networks.c.network_id).where(host_networks.c.host_id == host_id)
    return select(subnets.c.id).where(
        or_(subnets.c.id.in_(subnet_ids), subnets.c.network_id.in_(attached)), subnets.c.recovering_since_ms.is_(None)
    )


def awaited(connection: Connection, subnet_id: int) -> list[str]:
    """The hosts that must say what they serve, or confirm everything anew, before a subnet that recovers hands out
    addresses again. A host that was declared dead is none of them."""
    beside = (
        select(hosts.c.id)
        .join(host_networks, host_networks.c.host_id == hosts.c.id)
        .join(subnets, subnets.c.network_id == host_networks.c.network_id)
        .where(subnets.c.id == subnet_id)
    )
    is_unheard = hosts.c.answered_ms.is_(None) | (hosts.c.answered_ms < subnets.c.recovering_since_ms)
    unheard = beside.where((hosts.c.fenced_ms.is_(None) & is_unheard) | hosts.c.strays.is_not(None))
    # What it has of any subnet may be this one's under another id.
    unconfirmed = select(server_subnets.c.host_id).where(
        or_(server_subnets.c.subnet_id == subnet_id, server_subnets.c.host_id.in_(beside)),
        server_subnets.c.confirmed_revision.is_(None),
    )
    return sorted(set(connection.execute(unheard.union(unconfirmed)).scalars()))


def refuse_while_recovering(connection: Connection, subnet: AnyRow) -> None:
    """Raises SubnetRecovering while servers of the subnet may serve what this database knows nothing of."""
    if subnet.recovering_since_ms is None:
        return
    waits_for = awaited(connection, subnet.id)
    raise SubnetRecovering(
        f"Subnet {subnet.id} hands out no address before every host on its network has given up what it may serve that "
        "is not known here: the database was restored, or lost, or a host has served another installation. It waits "
        f"for: {', '.join(waits_for) or 'the manager'}. If one of them is dead, see that it stays off, and fence it.",
        retry_after_s=2,
        subnet=subnet.id,
        hosts=waits_for,
    )


def recovered(connection: Connection) -> list[int]:
    """The subnets that recovered, and that nobody needs to wait for any more."""
    recovering = select(subnets.c.id).where(subnets.c.recovering_since_ms.is_not(None)).order_by(subnets.c.id)
    return [each for each in connection.execute(recovering).scalars().all() if not awaited(connection, each)]


def end_recovery(connection: Connection, subnet_ids: list[int]) -> None:
    """These subnets hand out addresses again."""
    if subnet_ids:
        _lock(connection, select(subnets.c.id).where(subnets.c.id.in_(subnet_ids)))
    connection.execute(update(subnets).where(subnets.c.id.in_(subnet_ids)).values(recovering_since_ms=None))
