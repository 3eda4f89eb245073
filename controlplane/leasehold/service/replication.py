"""How far each server is with each subnet's reservation log, and what it needs next."""

from typing import Any

from sqlalchemy import Connection, or_, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import Batch, Resync
from leasehold.domain.subnets import address_at
from leasehold.service.context import Context
from leasehold.service.subnets import spec_of
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, lineage, reservation_log, server_subnets, subnets

_BEHIND = or_(
    server_subnets.c.confirmed_revision.is_(None),
    server_subnets.c.confirmed_revision < subnets.c.revision,
)


def lagging(ctx: Context) -> dict[str, list[int]]:
    """Host ids with the subnets that they have not confirmed whole."""
    behind: dict[str, list[int]] = {}
    with ctx.db.read() as connection:
        for host_id, subnet_id in connection.execute(
            select(server_subnets.c.host_id, server_subnets.c.subnet_id)
            .join(subnets, subnets.c.id == server_subnets.c.subnet_id)
            .where(_BEHIND)
            .order_by(server_subnets.c.host_id, server_subnets.c.subnet_id)
        ):
            behind.setdefault(host_id, []).append(subnet_id)
    return behind


def next_step(ctx: Context, host_id: str, subnet_id: int) -> Batch | Resync | None:
    """What brings the host nearer to the subnet's present state: up to `push_batch` log entries, the whole set, or
    nothing, when it is there or does not serve the subnet any more."""
    with ctx.db.read() as connection:
        row = connection.execute(
            select(subnets, server_subnets.c.confirmed_revision)
            .join(server_subnets, subnets.c.id == server_subnets.c.subnet_id)
            .where(server_subnets.c.host_id == host_id, subnets.c.id == subnet_id, _BEHIND)
        ).one_or_none()
        if row is None:
            return None
        epoch = epoch_of(connection)
        if row.confirmed_revision is None:
            return _resync(connection, row, epoch)
        return _batch(connection, row, epoch, ctx.settings.push_batch) or _resync(connection, row, epoch)


def confirm(ctx: Context, host_id: str, subnet_id: int, epoch: str, revision: int) -> None:
    """The host has the subnet's reservations at this revision on disk. Of another epoch, it means nothing."""
    with ctx.db.write() as connection:
        if epoch != epoch_of(connection):
            return
        connection.execute(_state_of(host_id, subnet_id).values(confirmed_revision=revision, confirmed_ms=ctx.now_ms()))
    ctx.bell.ring()


def forget(ctx: Context, host_id: str, subnet_id: int) -> None:
    """The host has another state than it confirmed: its next step is a full resync."""
    with ctx.db.write() as connection:
        connection.execute(_state_of(host_id, subnet_id).values(confirmed_revision=None))
    ctx.bell.ring()


def epoch_of(connection: Connection) -> str:
    """The identity of this database's history."""
    epoch: str = connection.execute(select(lineage.c.epoch)).scalar_one()
    return epoch


def _state_of(host_id: str, subnet_id: int) -> Any:
    return update(server_subnets).where(server_subnets.c.host_id == host_id, server_subnets.c.subnet_id == subnet_id)


def _batch(connection: Connection, row: AnyRow, epoch: str, limit: int) -> Batch | None:
    """The log after what was confirmed, the last entry of each MAC; None where the log does not reach back so far."""
    entries = connection.execute(
        select(reservation_log.c.revision, reservation_log.c.mac, reservation_log.c.offset)
        .where(reservation_log.c.subnet_id == row.id, reservation_log.c.revision > row.confirmed_revision)
        .order_by(reservation_log.c.revision)
        .limit(limit)
    ).all()
    if not entries or entries[0].revision != row.confirmed_revision + 1:
        return None
    spec = spec_of(row)
    last = {entry.mac: entry.offset for entry in entries}
    return Batch(
        subnet=row.id,
        epoch=epoch,
        base=row.confirmed_revision,
        revision=entries[-1].revision,
        set=tuple((Mac(mac), address_at(spec, offset), None) for mac, offset in last.items() if offset is not None),
        unset=tuple(Mac(mac) for mac, offset in last.items() if offset is None),
    )


def _resync(connection: Connection, row: AnyRow, epoch: str) -> Resync:
    spec = spec_of(row)
    held = connection.execute(
        select(addresses.c.mac, addresses.c.offset)
        .where(addresses.c.subnet_id == row.id, addresses.c.state == "held")
        .order_by(addresses.c.offset)
    ).all()
    return Resync(
        subnet=row.id,
        epoch=epoch,
        revision=row.revision,
        reservations=tuple((Mac(each.mac), address_at(spec, each.offset), None) for each in held),
    )
