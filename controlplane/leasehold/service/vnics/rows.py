"""What is known of vNICs, and the transaction that changes them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Vnic
from leasehold.errors import DatabaseBusy, InUse, VnicNotFound
from leasehold.service import macs
from leasehold.service.bell import News
from leasehold.service.context import Context, from_ms
from leasehold.service.subnets import address_of
from leasehold.store.database import AnyRow, Violation, has_more_to_do
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import addresses, mac_ranges, networks, subnets, twins, vnics


def get(ctx: Context, vnic_id: str) -> Vnic:
    """Raises VnicNotFound."""
    with ctx.db.read() as connection:
        return known(connection, vnic_id)


def known(connection: Connection, vnic_id: str) -> Vnic:
    """What `get` answers, as this transaction sees it."""
    rows, theirs = _row(connection, vnic_id=vnic_id), _addresses(connection, vnic_id=vnic_id)
    if not rows:
        raise missing(vnic_id)
    pairs = _pairs(connection, vnic_id=vnic_id) if rows.one().has_twins else ()
    return _told(connection, rows, pairs, theirs)[0]


def list_vnics(ctx: Context, *, limit: int, after: str | None = None) -> list[Vnic]:
    """Up to `limit` vNICs behind the id `after`, by id."""
    with ctx.db.read() as connection:
        condition = True if after is None else vnics.c.id > after
        return read(connection, condition, limit)


@contextmanager
def writing(ctx: Context, dry_run: bool, *, changes_rules: bool = False) -> Iterator[Connection]:
    """A transaction, and the bell after it. Of two that claim a MAC or create a vNIC at once, one has to ask again.
    One that changes pools or scopes too says so at once."""
    try:
        with ctx.db.write(dry_run=dry_run) as connection:
            if changes_rules:
                macs.change_rules(connection)
            else:
                macs.share_rules(connection)
            yield connection
            # An address that comes or goes is an event too: without one nobody has to look.
            is_news = has_more_to_do(connection)
    except Violation as violation:
        if violation.constraint not in ("pk_macs", "pk_vnics", "fk_vnics_network_id", "fk_vnics_subnet_id"):
            raise
        raise DatabaseBusy(
            "Another call created the same vNIC, took the same MAC, or deleted the network or subnet at the same time, "
            "and nothing was changed. Ask again.",
            retry_after_s=1,
        ) from violation
    if is_news:
        ctx.bell.ring(News.LOG | News.EVENTS)


def refuse_change_while_running(row: AnyRow, changed: Sequence[str]) -> None:
    """Raises InUse that names the fields, if there are any and the vNIC runs."""
    if changed and row.running:
        raise InUse(
            f"vNIC {row.id} runs, so that its {' and '.join(changed)} cannot change in this way. Stop it first, or "
            f"use PATCH /v1/vnics/{row.id}, which has its address follow.",
            vnic=row.id,
            fields=list(changed),
        )


def find(connection: Connection, vnic_id: str, *, lock: bool = False) -> AnyRow | None:
    """The vNIC's row, locked until the transaction ends if asked; None if there is none. See `require`."""
    look = _locked if lock else _row
    return look(connection, vnic_id=vnic_id).one_or_none()


def require(connection: Connection, vnic_id: str) -> AnyRow:
    """The vNIC's row, locked until the transaction ends, as are its twins', which may take an address over or share it;
    with `ipam`, true for one on a subnet of a network with IPAM on, and `in_range`. Raises VnicNotFound."""
    if (alone := _locked_alone(connection, vnic_id=vnic_id).one_or_none()) is not None:
        return alone
    if (row := lock(connection, [vnic_id]).get(vnic_id)) is None:
        raise missing(vnic_id)
    return row


def lock(connection: Connection, vnic_ids: Iterable[str]) -> dict[str, AnyRow]:
    """Those of the vNICs that are here, by id, locked with their twins as `require` does, all of them at once."""
    ids = set(vnic_ids)
    pairs = select(twins).where(or_(among(connection, twins.c.vnic_id, ids), among(connection, twins.c.twin_id, ids)))
    concerned = ids.union(*connection.execute(pairs))
    query = _known().where(among(connection, vnics.c.id, concerned)).order_by(vnics.c.id).with_for_update(of=vnics)
    return {row.id: row for row in connection.execute(query) if row.id in ids}


def change(connection: Connection, vnic_id: str, **values: object) -> None:
    """Sets columns that a caller decides."""
    connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(revision=vnics.c.revision + 1, **values))


def missing(vnic_id: str) -> VnicNotFound:
    """The error for an unknown vNIC."""
    return VnicNotFound(f"There is no vNIC {vnic_id!r}. Create it with PUT /v1/vnics/{vnic_id}.", vnic=vnic_id)


def read(connection: Connection, condition: Any, limit: int | None = None) -> list[Vnic]:
    """The vNICs of a condition, by id."""
    rows = connection.execute(_known().where(condition).order_by(vnics.c.id).limit(limit)).all()
    ids = [row.id for row in rows]
    pairs = or_(among(connection, twins.c.vnic_id, ids), among(connection, twins.c.twin_id, ids))
    return _told(
        connection,
        rows,
        connection.execute(select(twins).where(pairs)).all(),
        connection.execute(_addresses_where(among(connection, addresses.c.vnic_id, ids))).all(),
    )


def _told(
    connection: Connection,
    rows: Sequence[AnyRow],
    pairs: Sequence[AnyRow],
    theirs: Sequence[AnyRow],
) -> list[Vnic]:
    """The vNICs of these rows, with what other tables say of them: the twins, and the addresses, of which the first
    of a vNIC is its own."""
    paired: dict[str, set[str]] = {}
    for one, other in pairs:
        paired.setdefault(one, set()).add(other)
        paired.setdefault(other, set()).add(one)
    own: dict[str, AnyRow] = {}
    for row in theirs:
        own.setdefault(row.vnic_id, row)
    for row in rows:
        # Of twins that run on one subnet one holds the address, for all of them.
        if row.running and row.id in paired and (row.id not in own or own[row.id].state != "held"):
            theirs_too = (
                (addresses.c.subnet_id == row.subnet_id) & (addresses.c.mac == row.mac) & (addresses.c.state == "held")
            )
            shared = connection.execute(_addresses_where(theirs_too)).one_or_none()
            if shared is not None and shared.vnic_id in paired[row.id]:
                own[row.id] = shared
    return [
        Vnic(
            id=row.id,
            vm=row.vm,
            name=row.name,
            cluster=row.cluster_id,
            vm_pool=row.vm_pool_id,
            network=row.network_id,
            subnet=row.subnet_id,
            mac=Mac(row.mac),
            mac_pool=row.mac_pool_id,
            in_range=bool(row.in_range),
            twins=tuple(sorted(paired.get(row.id, ()))),
            running=row.running,
            ip=None if address is None else address_of(address, address.offset),
            ip_state=None if address is None else address.state,
            revision=row.revision,
            missing_since=None if row.missing_ms is None else from_ms(row.missing_ms),
        )
        for row in rows
        for address in (own.get(row.id),)
    ]


def _known() -> Select[Any]:
    """vNICs, each with `ipam`: whether it is on a subnet of a network with IPAM on, `in_range`: whether its MAC is in
    the ranges of its pool, and `has_twins`."""
    is_on = select(networks.c.id).where(networks.c.id == vnics.c.network_id, networks.c.ipam_enabled).exists()
    holds = vnics.c.mac.between(mac_ranges.c.first, mac_ranges.c.last)
    in_range = select(mac_ranges.c.last).where(mac_ranges.c.mac_pool_id == vnics.c.mac_pool_id, holds).exists()
    return select(
        vnics,
        and_(vnics.c.subnet_id.is_not(None), is_on).label("ipam"),
        in_range.label("in_range"),
        _has_twins(vnics.c.id).label("has_twins"),
    )


@prepared
def _row(vnic_id: Any) -> Executable:
    return _known().where(vnics.c.id == vnic_id)


@prepared
def _locked(vnic_id: Any) -> Executable:
    return _known().where(vnics.c.id == vnic_id).with_for_update(of=vnics)


@prepared
def _locked_alone(vnic_id: Any) -> Executable:
    """One that has no twins."""
    return _known().where(vnics.c.id == vnic_id, ~_has_twins(vnic_id)).with_for_update(of=vnics)


def _has_twins(vnic_id: Any) -> ColumnElement[bool]:
    return select(twins.c.vnic_id).where(or_(twins.c.vnic_id == vnic_id, twins.c.twin_id == vnic_id)).exists()


@prepared
def _pairs(vnic_id: Any) -> Executable:
    return select(twins).where(or_(twins.c.vnic_id == vnic_id, twins.c.twin_id == vnic_id))


@prepared
def _addresses(vnic_id: Any) -> Executable:
    return _addresses_where(addresses.c.vnic_id == vnic_id)


def _addresses_where(condition: ColumnElement[bool]) -> Executable:
    """Addresses, each with its subnet's `cidr`; of a vNIC's, the one that it has or had last comes first."""
    return (
        select(addresses, subnets.c.cidr)
        .join(subnets, subnets.c.id == addresses.c.subnet_id)
        .where(condition)
        .order_by(addresses.c.state != "held", addresses.c.free_at_ms.is_not(None), addresses.c.free_at_ms.desc())
    )
