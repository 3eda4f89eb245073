"""What is wrong in the database, and how to mend it: the invariants I1, I2 and I7, and leaks.

Everything here holds after every transaction. The exception are findings that are `passing`: between a change and the
next sweep they are as it should be, and only what is found again after that is wrong.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, and_, func, or_, select

from leasehold.domain.addresses import Mac
from leasehold.domain.extents import Extent, without
from leasehold.domain.replication import digest_of
from leasehold.domain.subnets import address_at
from leasehold.service import replication, subnets
from leasehold.service.context import Context
from leasehold.service.vnics import starting as vnics_starting
from leasehold.store.database import AnyRow
from leasehold.store.tables import (
    addresses,
    free_extents,
    mac_pools,
    mac_ranges,
    macs,
    reservation_log,
    server_subnets,
    spaces,
    twins,
    vnics,
)
from leasehold.store.tables import subnets as subnets_table

_RESTORE = (
    "Nothing that Leasehold does leads to this: keep a copy of the database for its developers, and restore a backup "
    "if it is more than a few."
)
_NAMED = 100
"""Findings of one kind that are told of one pool or subnet."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong. `subject` is a path as in events, `sentence` says what, `mend` what to do."""

    code: str
    subject: str
    sentence: str
    mend: str
    passing: bool = False
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is the same finding by when it is found again."""
        return self.code, self.subject, self.sentence


def examine(ctx: Context) -> list[Finding]:
    """Looks at one snapshot of the whole database; changes nothing. It reads every address and MAC."""
    with ctx.db.read() as connection:
        return examine_in(connection, ctx.now_ms())


def examine_in(connection: Connection, now_ms: int) -> list[Finding]:
    """What `examine` finds, as this transaction sees it."""
    checks: tuple[Callable[[Connection], Iterator[Finding]], ...] = (
        _pools,
        _macs,
        _duplicates,
        _subnets,
        _digests,
        _holders,
        _without_address,
        _drained,
        partial(_overdue, now_ms=now_ms),
        _confirmed,
    )
    return [finding for check in checks for finding in check(connection)]


def _pools(connection: Connection) -> Iterator[Finding]:
    """I7 for MAC pools: each number of the ranges is either free or has a row, and never both."""
    taken = list(connection.execute(select(macs.c.mac).order_by(macs.c.mac)).scalars())
    for pool in connection.execute(select(mac_pools).order_by(mac_pools.c.id)).all():
        ranges = connection.execute(
            select(mac_ranges.c.first, mac_ranges.c.last)
            .where(mac_ranges.c.mac_pool_id == pool.id)
            .order_by(mac_ranges.c.first)
        ).all()
        whole = [(each.first, each.last) for each in ranges]
        within = taken[bisect_left(taken, whole[0][0]) : bisect_right(taken, whole[-1][1])]
        yield from _space(connection, pool.space_id, f"mac-pools/{pool.id}", whole, within, Mac)


def _subnets(connection: Connection) -> Iterator[Finding]:
    """I7 for subnets: free, held, draining and cooling addresses are exactly what it hands out."""
    for row in connection.execute(select(subnets_table).order_by(subnets_table.c.id)).all():
        spec = subnets.spec_of(row)
        taken = list(
            connection.execute(
                select(addresses.c.offset).where(addresses.c.subnet_id == row.id).order_by(addresses.c.offset)
            ).scalars()
        )
        whole = subnets.handed_out(connection, row)
        yield from _space(connection, row.space_id, f"subnets/{row.id}", whole, taken, partial(address_at, spec))


def _space(
    connection: Connection,
    space_id: int,
    subject: str,
    whole: list[Extent],
    taken: list[int],
    name: Callable[[int], object],
) -> Iterator[Finding]:
    """Compares what is free with what is handed out (`whole`) and not taken, all ascending."""
    free = [
        (row.first, row.last)
        for row in connection.execute(
            select(free_extents).where(free_extents.c.space_id == space_id).order_by(free_extents.c.first)
        )
    ]
    counted = connection.execute(select(spaces).where(spaces.c.id == space_id)).one()
    size, sum_free = (sum(last - first + 1 for first, last in extents) for extents in (whole, free))
    if counted.size != size or counted.free != sum_free:
        yield Finding(
            code="count-wrong",
            subject=subject,
            sentence=f"It counts {counted.free} free of {counted.size}, and has {sum_free} free of {size}.",
            mend=_RESTORE,
            facts={"counted": {"free": counted.free, "size": counted.size}, "is": {"free": sum_free, "size": size}},
        )
    for extent, other in itertools.pairwise(free):
        if other[0] <= extent[1]:
            yield Finding(
                code="free-twice",
                subject=subject,
                sentence=f"{name(other[0])} is free twice, and could be given to two.",
                mend=_RESTORE,
            )
    expected = without(whole, ((each, each) for each in taken))
    for first, last in without(expected, free)[:_NAMED]:
        yield Finding(
            code="lost",
            subject=subject,
            sentence=f"{name(first)} to {name(last)} is neither free nor in use, and is never given to anyone.",
            mend=_RESTORE,
            facts={"first": str(name(first)), "last": str(name(last))},
        )
    for first, last in without(free, expected)[:_NAMED]:
        yield Finding(
            code="free-and-taken",
            subject=subject,
            sentence=f"{name(first)} to {name(last)} is free although it is in use or not handed out here.",
            mend=_RESTORE,
            facts={"first": str(name(first)), "last": str(name(last))},
        )


def _macs(connection: Connection) -> Iterator[Finding]:
    """The row of a MAC counts the vNICs that have it."""
    having = select(vnics.c.mac, func.count().label("holders")).group_by(vnics.c.mac).subquery()
    count = func.coalesce(having.c.holders, 0)
    for row in connection.execute(
        select(macs, count.label("vnics"))
        .join(having, having.c.mac == macs.c.mac, isouter=True)
        .where(
            or_(
                macs.c.holders != count,
                and_(macs.c.holders == 0, macs.c.free_at_ms.is_(None)),
                and_(macs.c.holders > 0, macs.c.free_at_ms.is_not(None)),
            )
        )
        .order_by(macs.c.mac)
        .limit(_NAMED)
    ):
        when = "has no time at which it is free" if row.free_at_ms is None else "has a time at which it is free"
        yield Finding(
            code="mac-count-wrong",
            subject=f"macs/{Mac(row.mac)}",
            sentence=f"{row.vnics} vNICs have it; its row counts {row.holders}, and {when}.",
            mend=_RESTORE,
            facts={"holders": row.holders, "vnics": row.vnics},
        )


def _duplicates(connection: Connection) -> Iterator[Finding]:
    """I2: who shares a MAC is twins, or under pools that allow it."""
    paired = set(connection.execute(select(twins.c.vnic_id, twins.c.twin_id)).all())
    several = select(vnics.c.mac).group_by(vnics.c.mac).having(func.count() > 1)
    sharing: dict[int, list[AnyRow]] = {}
    for row in connection.execute(
        select(vnics.c.mac, vnics.c.id, mac_pools.c.allow_duplicates)
        .join(mac_pools, mac_pools.c.id == vnics.c.mac_pool_id)
        .where(vnics.c.mac.in_(several))
        .order_by(vnics.c.mac, vnics.c.id)
    ):
        sharing.setdefault(row.mac, []).append(row)
    for mac, rows in sharing.items():
        wrong = [
            (one.id, other.id)
            for index, one in enumerate(rows)
            for other in rows[index + 1 :]
            if (one.id, other.id) not in paired and not (one.allow_duplicates and other.allow_duplicates)
        ]
        for one, other in wrong[:_NAMED]:
            yield Finding(
                code="mac-twice",
                subject=f"macs/{Mac(mac)}",
                sentence=f"vNICs {one} and {other} have it, are no twins, and their pools do not both allow that.",
                mend=f'Give one of them another: PATCH /v1/vnics/{other} with {{"mac": null}}; or make them twins.',
                facts={"vnics": [one, other]},
            )


def _digests(connection: Connection) -> Iterator[Finding]:
    """A subnet's digest and revision are those of its reservations and of its log."""
    for row in connection.execute(select(subnets_table).order_by(subnets_table.c.id)).all():
        spec = subnets.spec_of(row)
        held = connection.execute(
            select(addresses.c.mac, addresses.c.offset).where(
                addresses.c.subnet_id == row.id, addresses.c.state == "held"
            )
        )
        digest = digest_of((Mac(each.mac), address_at(spec, each.offset), None) for each in held)
        last = connection.execute(
            select(reservation_log)
            .where(reservation_log.c.subnet_id == row.id)
            .order_by(reservation_log.c.revision.desc())
            .limit(1)
        ).one_or_none()
        ahead = connection.execute(
            select(func.max(addresses.c.revision)).where(addresses.c.subnet_id == row.id)
        ).scalar_one()
        if digest != row.digest:
            yield Finding(
                code="digest-wrong",
                subject=f"subnets/{row.id}",
                sentence=f"Its digest is {row.digest}, and that of its reservations {digest}: each server is sent all "
                "of them again and again.",
                mend=_RESTORE,
                facts={"digest": row.digest, "is": digest},
            )
        if last is not None and (last.revision, last.digest) != (row.revision, row.digest):
            yield Finding(
                code="log-wrong",
                subject=f"subnets/{row.id}",
                sentence=f"It is at revision {row.revision}, digest {row.digest}, and its log at {last.revision}, "
                f"digest {last.digest}.",
                mend=_RESTORE,
                facts={"revision": row.revision, "log": last.revision},
            )
        if ahead is not None and ahead > row.revision:
            yield Finding(
                code="log-wrong",
                subject=f"subnets/{row.id}",
                sentence=f"It is at revision {row.revision}, and one of its addresses at {ahead}.",
                mend=_RESTORE,
                facts={"revision": row.revision, "address": ahead},
            )


def _holders(connection: Connection) -> Iterator[Finding]:
    """I1, and leaks: an address is held for a vNIC that runs, is on that subnet, and has that MAC."""
    for row in connection.execute(
        select(addresses, vnics.c.id, vnics.c.running, vnics.c.mac.label("own_mac"), vnics.c.subnet_id.label("own"))
        .join(subnets_table, subnets_table.c.id == addresses.c.subnet_id)
        .join(vnics, vnics.c.id == addresses.c.vnic_id, isouter=True)
        .where(
            addresses.c.state == "held",
            addresses.c.vnic_id.is_not(None),
            or_(
                vnics.c.id.is_(None),
                ~vnics.c.running,
                vnics.c.mac != addresses.c.mac,
                and_(vnics.c.subnet_id.is_distinct_from(addresses.c.subnet_id), subnets_table.c.successor_id.is_(None)),
            ),
        )
        .order_by(addresses.c.subnet_id, addresses.c.offset)
        .limit(_NAMED)
    ).all():
        ip = subnets.address_of(subnets.require(connection, row.subnet_id), row.offset)
        if row.id is None:
            why, mend = "is gone", f"PUT /v1/vnics/{row.vnic_id} again, and DELETE it."
        elif not row.running:
            why, mend = "does not run", f"POST /v1/vnics/{row.vnic_id}/stop."
        elif row.own_mac != row.mac:
            why, mend = f"has MAC {Mac(row.own_mac)}", f"POST /v1/vnics/{row.vnic_id}/start."
        else:
            why, mend = f"is on subnet {row.own}", f"POST /v1/vnics/{row.vnic_id}/stop, and start."
        yield Finding(
            code="held-in-vain",
            subject=f"subnets/{row.subnet_id}/addresses/{ip}",
            sentence=f"It is held for MAC {Mac(row.mac)} of vNIC {row.vnic_id}, which {why}.",
            mend=mend,
            facts={"vnic": row.vnic_id, "mac": str(Mac(row.mac)), "ip": str(ip)},
        )


def _without_address(connection: Connection) -> Iterator[Finding]:
    """vNICs that run on a subnet with IPAM, and have no address there."""
    for vnic_id in sorted(vnics_starting.unserved(connection))[:_NAMED]:
        yield Finding(
            code="without-address",
            subject=f"vnics/{vnic_id}",
            sentence="It runs, on a subnet with IPAM, and holds no address there.",
            mend=f"POST /v1/vnics/{vnic_id}/start: it started before IPAM was on, or waits since its MAC changed.",
            passing=True,
        )


def _drained(connection: Connection) -> Iterator[Finding]:
    """Addresses that drain although no server is waited for."""
    recovering = {
        row.id: row.recovering_since_ms is not None
        for row in connection.execute(select(subnets_table.c.id, subnets_table.c.recovering_since_ms))
    }
    for row in connection.execute(
        select(addresses.c.subnet_id, addresses.c.offset, addresses.c.revision)
        .where(addresses.c.state == "draining")
        .order_by(addresses.c.subnet_id, addresses.c.offset)
        .limit(_NAMED)
    ).all():
        if recovering[row.subnet_id] or replication.owing(connection, row.subnet_id, row.revision):
            continue
        ip = subnets.address_of(subnets.require(connection, row.subnet_id), row.offset)
        yield Finding(
            code="drains-for-nobody",
            subject=f"subnets/{row.subnet_id}/addresses/{ip}",
            sentence="It drains, and no server has yet to confirm anything.",
            mend="See that a worker runs: `leasehold serve` or `leasehold worker`.",
            passing=True,
        )


def _overdue(connection: Connection, now_ms: int) -> Iterator[Finding]:
    """Addresses and MACs that cool for longer than they have to."""
    for what, late in (
        ("addresses", select(func.count()).where(addresses.c.state == "cooling", addresses.c.free_at_ms <= now_ms)),
        ("macs", select(func.count()).where(macs.c.free_at_ms <= now_ms)),
    ):
        count = connection.execute(late).scalar_one()
        if count:
            yield Finding(
                code="cools-too-long",
                subject=what,
                sentence="Some cool although their time is over.",
                mend="See that a worker runs: `leasehold serve` or `leasehold worker`.",
                passing=True,
                facts={"count": count},
            )


def _confirmed(connection: Connection) -> Iterator[Finding]:
    """A server has confirmed nothing that there never was."""
    for row in connection.execute(
        select(server_subnets, subnets_table.c.revision)
        .join(subnets_table, subnets_table.c.id == server_subnets.c.subnet_id)
        .where(server_subnets.c.confirmed_revision > subnets_table.c.revision)
        .order_by(server_subnets.c.host_id, server_subnets.c.subnet_id)
    ):
        yield Finding(
            code="confirmed-ahead",
            subject=f"hosts/{row.host_id}",
            sentence=f"It has confirmed revision {row.confirmed_revision} of subnet {row.subnet_id}, which is at "
            f"{row.revision}: the database is older than what was pushed.",
            mend="See that a worker runs: it draws a new epoch, and has every host send what it has.",
            facts={"subnet": row.subnet_id, "confirmed_revision": row.confirmed_revision, "revision": row.revision},
        )
