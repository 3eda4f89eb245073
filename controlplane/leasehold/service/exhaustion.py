"""Subnets that run out of addresses: told before, explained afterwards."""

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from leasehold.domain.subnets import within
from leasehold.errors import SubnetExhausted
from leasehold.service import events, subnets
from leasehold.service.context import Context, from_ms
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, leases, server_subnets


def warn(ctx: Context, connection: Connection, subnet: AnyRow, *, by: int, free: int, size: int) -> None:
    """Tells once when the subnet's free addresses came down to the mark, by so many, and when there are none left."""
    mark = max(size * ctx.settings.subnet_low_percent // 100, ctx.settings.subnet_low_count)
    data = {
        "subnet": subnet.id,
        "network": subnet.network_id,
        "cidr": subnet.cidr,
        "free": free,
        "size": size,
    }
    for event, level in (("subnet.low", mark), ("subnet.exhausted", 0)):
        if free <= level < free + by:
            events.emit(connection, ctx.now_ms(), event, f"subnets/{subnet.id}", data)


def exhausted(
    ctx: Context, connection: Connection, subnet: AnyRow, owing: Select[str], owed: ColumnElement[bool]
) -> SubnetExhausted:
    """The error for a subnet without a free address: what became of all, and when the next one is free. `owing` are the
    servers that an address waits for, `owed` says whether it waits at all."""
    counts: dict[str, int] = dict.fromkeys(("held", "draining", "cooling"), 0)
    counts.update(
        connection.execute(
            select(addresses.c.state, func.count())
            .where(addresses.c.subnet_id == subnet.id)
            .group_by(addresses.c.state)
        ).all()
    )
    next_ms = _next_free_ms(ctx, connection, subnet, owed)
    next_free_at = None if next_ms is None else from_ms(next_ms).isoformat(timespec="milliseconds")
    draining = select(addresses).where(addresses.c.subnet_id == subnet.id, addresses.c.state == "draining")
    waiting_for = sorted(
        connection.execute(
            select(server_subnets.c.host_id)
            .where(server_subnets.c.subnet_id == subnet.id)
            .where(draining.where(server_subnets.c.host_id.in_(owing)).exists())
        ).scalars()
    )
    when = "" if next_free_at is None else f" The next one is free at {next_free_at}."
    if waiting_for:
        when += f" Draining ones wait for {', '.join(waiting_for)} to confirm that they are not served there any more."
    return SubnetExhausted(
        f"Subnet {subnet.id} ({subnet.cidr}) has no free address: {counts['held']} are held, "
        f"{counts['draining']} draining and {counts['cooling']} cooling.{when} "
        "Stop vNICs that are not needed, or widen its ranges.",
        subnet=subnet.id,
        **counts,
        next_free_at=next_free_at,
        waiting_for=waiting_for,
    )


def too_small(subnet: AnyRow, *, wanted: int, size: int) -> SubnetExhausted:
    """The error for a new subnet that has no room for all that is to be on it."""
    return SubnetExhausted(
        f"{subnet.cidr} has {size} addresses to hand out, and {wanted} are held that would move there. Choose a larger "
        "CIDR, or wider ranges.",
        subnet=subnet.id,
        held=wanted,
        draining=0,
        cooling=0,
        next_free_at=None,
        waiting_for=[],
    )


def _next_free_ms(ctx: Context, connection: Connection, subnet: AnyRow, owed: ColumnElement[bool]) -> int | None:
    """When the first address that the subnet hands out is free again, as far as that is known: one that cools, or one
    that every server has confirmed and so is about to. None while all that are not held wait for servers."""
    declined = (
        select(func.max(leases.c.expires_ms))
        .where(
            leases.c.subnet_id == addresses.c.subnet_id,
            leases.c.offset == addresses.c.offset,
            leases.c.state == "declined",
        )
        .scalar_subquery()
    )
    rows = connection.execute(
        select(addresses.c.offset, addresses.c.free_at_ms, addresses.c.guest_lease_ms, declined)
        .where(addresses.c.subnet_id == subnet.id, addresses.c.state != "held")
        .where(or_(addresses.c.state == "cooling", ~owed))
        .order_by(addresses.c.free_at_ms.is_(None), addresses.c.free_at_ms, addresses.c.guest_lease_ms)
    )
    ranges = subnets.handed_out(connection, subnet)
    earliest: int | None = None
    for offset, free_at_ms, lease_ms, declined_until_ms in rows:
        cooled_ms = ctx.now_ms() + max(round(ctx.settings.cool_down_s * 1000), lease_ms)
        free_ms = cooled_ms if free_at_ms is None else int(free_at_ms)
        if earliest is not None and free_ms >= earliest:
            break
        if within(ranges, offset):
            free_ms = max(free_ms, declined_until_ms or 0)
            earliest = free_ms if earliest is None else min(earliest, free_ms)
    return earliest
