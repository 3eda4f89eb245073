"""Hosts that are to serve nothing: in maintenance, by their own doing, or declared dead, without it."""

from sqlalchemy import delete, select, update

from leasehold.domain.values import HostView
from leasehold.errors import HostAnswers, HostFenced
from leasehold.service import events, hosts, replication
from leasehold.service.context import Context, from_ms
from leasehold.store.tables import hosts as hosts_table
from leasehold.store.tables import server_subnets, servers


def begin_maintenance(ctx: Context, host_id: str, *, by: str, dry_run: bool = False) -> HostView:
    """The host is to serve nothing: others begin to serve its networks, and only then it stops. Its state is `leaving`
    until then. Harmless when it is so already. Raises HostNotFound."""
    with hosts.changing(ctx, dry_run) as connection:
        if not hosts.require(connection, host_id).maintenance:
            connection.execute(update(hosts_table).where(hosts_table.c.id == host_id).values(maintenance=True))
            events.emit(connection, ctx.now_ms(), "host.maintenance", f"hosts/{host_id}", {"host": host_id, "by": by})
        return hosts.view(ctx, connection, host_id)


def activate(ctx: Context, host_id: str, *, by: str, dry_run: bool = False) -> HostView:
    """Ends the host's maintenance: it can be chosen to serve. Harmless when it is in none. Raises HostNotFound,
    HostFenced for one that was declared dead: it counts again by itself, when it is known to serve nothing."""
    with hosts.changing(ctx, dry_run) as connection:
        row = hosts.require(connection, host_id)
        if row.fenced_ms is not None:
            raise HostFenced(
                f"Host {host_id} was declared dead. It counts again by itself as soon as it answers and has stopped "
                "what it is not to serve; nothing needs to be activated.",
                host=host_id,
            )
        if row.maintenance:
            connection.execute(update(hosts_table).where(hosts_table.c.id == host_id).values(maintenance=False))
            events.emit(connection, ctx.now_ms(), "host.activated", f"hosts/{host_id}", {"host": host_id, "by": by})
        return hosts.view(ctx, connection, host_id)


def fence(ctx: Context, host_id: str, *, by: str, dry_run: bool = False) -> HostView:
    """An administrator's word that the host is dead, and serves nobody: no address waits for it any more, and others
    take its place. When it answers again, it is stripped of what it serves before it counts. Harmless when it was
    fenced already, and did not answer since. Raises HostNotFound, HostAnswers for a host that is not known to be away.
    """
    with hosts.changing(ctx, dry_run) as connection:
        row = hosts.require(connection, host_id)
        is_away = row.unreachable_reason is not None
        # What one that answered meanwhile may serve is in the books again.
        returned = row.fenced_ms is not None and row.answered_ms is not None and row.answered_ms >= row.fenced_ms
        if row.fenced_ms is None or (returned and is_away):
            if not is_away:
                answered_at = None if row.answered_ms is None else from_ms(row.answered_ms)
                raise HostAnswers(
                    f"Host {host_id} is not known to be dead: "
                    + (
                        "it was not asked yet. "
                        if answered_at is None
                        else f"it answered at {answered_at.isoformat(timespec='seconds')}. "
                    )
                    + "Use maintenance for a host that is to serve nothing; fence it when it is doubtful or down.",
                    host=host_id,
                    answered_at=None if answered_at is None else answered_at.isoformat(),
                )
            now_ms = ctx.now_ms()
            held_up = replication.held_up(connection, host_ids=[host_id])
            networks = list(
                connection.execute(
                    select(servers.c.network_id).where(servers.c.host_id == host_id).order_by(servers.c.network_id)
                ).scalars()
            )
            connection.execute(delete(servers).where(servers.c.host_id == host_id))
            connection.execute(delete(server_subnets).where(server_subnets.c.host_id == host_id))
            connection.execute(
                update(hosts_table).where(hosts_table.c.id == host_id).values(fenced_ms=now_ms, strays=None)
            )
            events.emit(
                connection,
                now_ms,
                "host.fenced",
                f"hosts/{host_id}",
                {
                    "host": host_id,
                    "by": by,
                    "networks": networks,
                    "held_up": held_up[host_id].count if host_id in held_up else 0,
                },
            )
        return hosts.view(ctx, connection, host_id)
