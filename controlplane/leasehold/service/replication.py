"""How far each server is with each subnet's reservation log, what it needs next, and what waits for it.

A row in `server_subnets` means: this host could serve this subnet. A row without a confirmed revision means that it
could serve whatever it has from earlier. Addresses wait for these rows, and for nothing else.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, Update, delete, func, insert, or_, select, true, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import Batch, Resync
from leasehold.domain.subnets import address_at
from leasehold.domain.values import AwaitedAddress, HeldUp
from leasehold.service.bell import Fact, News
from leasehold.service.context import Context
from leasehold.service.subnets import address_of, spec_of
from leasehold.store.database import AnyRow, lock
from leasehold.store.prepared import prepared
from leasehold.store.tables import addresses, lineage, reservation_log, server_subnets, servers, subnets

_SERVERS_LOCK = 4_020_002
_EPOCH_LOCK = 0x6C68_6570
_FIRST_FEW = 5
_STEP = 250
_PRUNE_BATCH = 5000

# A server that is to stop gets what the log has after what it confirmed, and no set any more: that could come after its
# hook forgot the subnet, and would lie there for a configuration that is late.
_BEHIND = or_(
    server_subnets.c.confirmed_revision.is_(None) & servers.c.state.is_distinct_from("stopping"),
    server_subnets.c.confirmed_revision < subnets.c.revision,
)

_OWED = or_(
    server_subnets.c.confirmed_revision.is_(None),
    server_subnets.c.confirmed_revision < addresses.c.revision,
)


def lagging(ctx: Context, wanted: Collection[str] | None = None) -> dict[str, dict[int, Batch | None]]:
    """Host ids, of those wanted, with the subnets that they have not confirmed whole, each with the batch that is next;
    None where that is for `next_step` to find out."""
    behind: dict[str, dict[int, Batch | None]] = {}
    batches: dict[tuple[int, int], Batch | None] = {}
    with ctx.db.read() as connection:
        for row in _lagging(connection):
            if wanted is not None and row.host_id not in wanted:
                continue
            batch = None
            if row.confirmed_revision is not None:
                # Hosts that are at the same revision lack the same.
                at = row.id, row.confirmed_revision
                if at not in batches:
                    batches[at] = _batch(connection, row, row.epoch, log_step(ctx))
                batch = batches[at]
            behind.setdefault(row.host_id, {})[row.id] = batch
    return behind


def log_step(ctx: Context) -> int:
    """How many reservations may change in one command to a host that serves: Kea hears no guest while it carries out a
    command, and its socket's buffer is full after some 80 ms of 1,000 DORA/s."""
    return min(ctx.settings.push_batch, _STEP)


def next_step(ctx: Context, host_id: str, subnet_id: int) -> Batch | Resync | None:
    """What brings the host nearer to the subnet's present state: some log entries, up to `log_step` of them, the whole
    set, or nothing, when it is there, is to stop, or does not serve the subnet any more."""
    with ctx.db.read() as connection:
        row = _progress(connection, host_id=host_id, subnet_id=subnet_id).one_or_none()
        if row is None:
            return None
        if row.confirmed_revision is None:
            return _resync(connection, row, row.epoch)
        batch = _batch(connection, row, row.epoch, log_step(ctx))
        return batch if batch or row.state == "stopping" else _resync(connection, row, row.epoch)


def confirm(ctx: Context, host_id: str, subnet_id: int, epoch: str, revision: int) -> None:
    """The host has all of the subnet's reservations at this revision on disk, wherever it was before. Of another epoch,
    it means nothing.

    Whoever waits is told before it is stored, and that does not wait for the disk: what is lost here with the power,
    hosts say again when they are asked.
    """
    ctx.bell.tell(Fact(host=host_id, subnet=subnet_id, epoch=epoch, revision=revision))
    with ctx.db.write(durable=False) as connection:
        keep_epoch(connection)
        if epoch != _epoch(connection).scalar_one():
            return
        _confirm(connection, host_id=host_id, subnet_id=subnet_id, revision=revision, now_ms=ctx.now_ms())
    ctx.bell.ring()


@dataclass(frozen=True, kw_only=True)
class Advance:
    """A host that was at revision `base` of a subnet, as is stored, has it at `revision` on disk."""

    subnet: int
    epoch: str
    base: int
    revision: int


def tell(ctx: Context, host_id: str, advance: Advance) -> None:
    """Whoever waits is told of it. `store` keeps it, later: what is lost meanwhile, hosts say again when asked."""
    ctx.bell.tell(Fact(host=host_id, subnet=advance.subnet, epoch=advance.epoch, revision=advance.revision))


def store(ctx: Context, host_id: str, advances: Collection[Advance]) -> None:
    """Keeps what was told. An advance of another epoch, or from where the host is no more, since somebody found out
    meanwhile that it has another state, means nothing. This does not wait for the disk."""
    with ctx.db.write(durable=False) as connection:
        keep_epoch(connection)
        epoch, now_ms = _epoch(connection).scalar_one(), ctx.now_ms()
        stored = [
            _advance(
                connection,
                host_id=host_id,
                subnet_id=each.subnet,
                base=each.base,
                revision=each.revision,
                now_ms=now_ms,
            )
            for each in advances
            if each.epoch == epoch
        ]
        is_all = len([row for rows in stored for row in rows]) == len(advances)
    ctx.bell.ring(News.CONFIRMED if is_all else News.ALL)


def forget(ctx: Context, host_id: str, subnet_id: int) -> None:
    """The host has another state than it confirmed: its next step is a full resync."""
    with ctx.db.write() as connection:
        connection.execute(_state_of(host_id, subnet_id).values(confirmed_revision=None))
    ctx.bell.ring()


def keep_epoch(connection: Connection) -> None:
    """Until the transaction ends, nobody draws a new epoch: what is confirmed in this one is not taken for the next."""
    lock(connection, _EPOCH_LOCK, shared=True)


def change_epoch(connection: Connection) -> None:
    """Waits for all who keep the epoch, and has others wait who would."""
    lock(connection, _EPOCH_LOCK, shared=False)


def change_servers(connection: Connection) -> None:
    """Until the transaction ends, nobody else changes which hosts may serve what: a decision and a fencing, made at the
    same moment, would otherwise not know of each other."""
    lock(connection, _SERVERS_LOCK, shared=False)


def expect(connection: Connection, pairs: Collection[tuple[str, int]]) -> None:
    """Hosts may serve these subnets from now on, and need a full resync of each first."""
    if pairs:
        connection.execute(
            insert(server_subnets), [{"host_id": host_id, "subnet_id": subnet_id} for host_id, subnet_id in pairs]
        )


def owing(connection: Connection, subnet_id: int, revision: int) -> list[str]:
    """The hosts that hold up an address of the subnet that was withdrawn at this revision: they could still serve it to
    whom it was promised before."""
    return list(
        connection.execute(
            select(server_subnets.c.host_id)
            .where(
                server_subnets.c.subnet_id == subnet_id,
                or_(
                    server_subnets.c.confirmed_revision.is_(None),
                    server_subnets.c.confirmed_revision < revision,
                ),
            )
            .order_by(server_subnets.c.host_id)
        ).scalars()
    )


def held_up(
    connection: Connection, *, host_ids: Collection[str] | None = None, subnet_id: int | None = None
) -> dict[str, HeldUp]:
    """By host, the draining addresses that wait for it: of these hosts, or all; of this subnet, or all."""
    waits = (addresses.c.state == "draining") & _OWED
    if host_ids is not None:
        waits &= server_subnets.c.host_id.in_(host_ids)
    if subnet_id is not None:
        waits &= addresses.c.subnet_id == subnet_id
    joined = addresses.join(server_subnets, server_subnets.c.subnet_id == addresses.c.subnet_id)
    counts: dict[str, int] = dict(
        connection.execute(
            select(server_subnets.c.host_id, func.count())
            .select_from(joined)
            .where(waits)
            .group_by(server_subnets.c.host_id)
            .order_by(server_subnets.c.host_id)
        ).all()
    )
    found = {}
    for host_id, count in counts.items():
        first = connection.execute(
            select(addresses.c.offset, addresses.c.vnic_id, subnets)
            .select_from(joined.join(subnets, subnets.c.id == addresses.c.subnet_id))
            .where(waits, server_subnets.c.host_id == host_id)
            .order_by(addresses.c.subnet_id, addresses.c.offset)
            .limit(_FIRST_FEW)
        ).all()
        found[host_id] = HeldUp(
            count=count,
            first=tuple(
                AwaitedAddress(subnet=row.id, ip=address_at(spec_of(row), row.offset), vnic=row.vnic_id)
                for row in first
            ),
        )
    return found


def epoch_of(connection: Connection) -> str:
    """The identity of this database's history."""
    epoch: str = connection.execute(select(lineage.c.epoch)).scalar_one()
    return epoch


def prune(ctx: Context) -> int:
    """Forgets log entries that no server that answers needs any more, a batch of each subnet; returns how many. Of what
    servers that do not answer need, up to `reservation_log_most` are kept, and the last `reservation_log_least` always:
    by them hosts are checked that were away."""
    least, most = ctx.settings.reservation_log_least, ctx.settings.reservation_log_most
    with ctx.db.read() as connection:
        needed = dict(
            connection.execute(
                select(server_subnets.c.subnet_id, func.min(server_subnets.c.confirmed_revision)).group_by(
                    server_subnets.c.subnet_id
                )
            ).all()
        )
        # One look into the index for each subnet, and not one at each of its entries.
        first_of = select(func.min(reservation_log.c.revision)).where(reservation_log.c.subnet_id == subnets.c.id)
        firsts = connection.execute(
            select(subnets.c.id, first_of.correlate(subnets).scalar_subquery(), subnets.c.revision).where(
                subnets.c.revision > least
            )
        ).all()
    due = []
    for subnet_id, first, revision in firsts:
        confirmed = needed.get(subnet_id)
        cut = max(revision - most, min(revision - least, revision if confirmed is None else confirmed))
        if first is not None and first <= cut:
            due.append((subnet_id, min(cut, first + _PRUNE_BATCH - 1)))
    pruned = 0
    for subnet_id, last in due:
        with ctx.db.write() as connection:
            pruned += connection.execute(
                delete(reservation_log).where(
                    reservation_log.c.subnet_id == subnet_id, reservation_log.c.revision <= last
                )
            ).rowcount
    return pruned


def _state_of(host_id: str, subnet_id: int) -> Update:
    return update(server_subnets).where(server_subnets.c.host_id == host_id, server_subnets.c.subnet_id == subnet_id)


def _batch(connection: Connection, row: AnyRow, epoch: str, limit: int) -> Batch | None:
    """The log after what was confirmed, the last entry of each MAC; None where the log does not reach back so far."""
    entries = _entries(connection, subnet_id=row.id, after=row.confirmed_revision, limit=limit)
    if not entries or entries[0].revision != row.confirmed_revision + 1:
        return None
    last = {entry.mac: entry.offset for entry in entries}
    return Batch(
        subnet=row.id,
        epoch=epoch,
        base=row.confirmed_revision,
        revision=entries[-1].revision,
        set=tuple((Mac(mac), address_of(row, offset), None) for mac, offset in last.items() if offset is not None),
        unset=tuple(Mac(mac) for mac, offset in last.items() if offset is None),
    )


def _resync(connection: Connection, row: AnyRow, epoch: str) -> Resync:
    held = connection.execute(
        select(addresses.c.mac, addresses.c.offset)
        .where(addresses.c.subnet_id == row.id, addresses.c.state == "held")
        .order_by(addresses.c.offset)
    ).all()
    return Resync(
        subnet=row.id,
        epoch=epoch,
        revision=row.revision,
        digest=row.digest,
        reservations=tuple((Mac(each.mac), address_of(row, each.offset), None) for each in held),
    )


def _behind() -> Select[Any]:
    return (
        select(
            subnets.c.id,
            subnets.c.cidr,
            subnets.c.revision,
            subnets.c.digest,
            server_subnets.c.host_id,
            server_subnets.c.confirmed_revision,
            servers.c.state,
            lineage.c.epoch,
        )
        .join(server_subnets, subnets.c.id == server_subnets.c.subnet_id)
        .outerjoin(
            servers,
            (servers.c.host_id == server_subnets.c.host_id) & (servers.c.network_id == subnets.c.network_id),
        )
        .join(lineage, true())
        .where(_BEHIND)
        .order_by(server_subnets.c.host_id, subnets.c.id)
    )


@prepared
def _lagging() -> Executable:
    return _behind()


@prepared
def _progress(host_id: Any, subnet_id: Any) -> Select[Any]:
    return _behind().where(server_subnets.c.host_id == host_id, subnets.c.id == subnet_id)


@prepared
def _entries(subnet_id: Any, after: Any, limit: Any) -> Executable:
    return (
        select(reservation_log.c.revision, reservation_log.c.mac, reservation_log.c.offset)
        .where(reservation_log.c.subnet_id == subnet_id, reservation_log.c.revision > after)
        .order_by(reservation_log.c.revision)
        .limit(limit)
    )


@prepared
def _epoch() -> Executable:
    return select(lineage.c.epoch)


@prepared
def _confirm(host_id: Any, subnet_id: Any, revision: Any, now_ms: Any) -> Update:
    return _state_of(host_id, subnet_id).values(confirmed_revision=revision, confirmed_ms=now_ms)


@prepared
def _advance(host_id: Any, subnet_id: Any, base: Any, revision: Any, now_ms: Any) -> Executable:
    return (
        _state_of(host_id, subnet_id)
        .where(server_subnets.c.confirmed_revision == base)
        .values(confirmed_revision=revision, confirmed_ms=now_ms)
        .returning(server_subnets.c.subnet_id)
    )
