"""What is known of vNICs, and the transaction that changes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, or_, select

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Vnic
from leasehold.errors import DatabaseBusy, InUse, VnicNotFound
from leasehold.service import macs, subnets
from leasehold.service.context import Context
from leasehold.store.database import AnyRow, Violation
from leasehold.store.tables import addresses, mac_ranges, twins, vnics


def get(ctx: Context, vnic_id: str) -> Vnic:
    """Raises VnicNotFound."""
    with ctx.db.read() as connection:
        found = read(connection, vnics.c.id == vnic_id)
    if not found:
        raise missing(vnic_id)
    return found[0]


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
    except Violation as violation:
        if violation.constraint not in ("pk_macs", "pk_vnics"):
            raise
        raise DatabaseBusy(
            "Another call created the same vNIC or took the same MAC at the same time, and nothing was changed. "
            "Ask again.",
            retry_after_s=1,
        ) from violation
    ctx.bell.ring()


def refuse_change_while_running(row: AnyRow, changed: Sequence[str]) -> None:
    """Raises InUse that names the fields, if there are any and the vNIC runs."""
    if changed and row.running:
        raise InUse(
            f"vNIC {row.id} runs, so that its {' and '.join(changed)} cannot change. Stop it first.",
            vnic=row.id,
            fields=list(changed),
        )


def find(connection: Connection, vnic_id: str, *, lock: bool = False) -> AnyRow | None:
    """The vNIC's row, locked until the transaction ends if asked; None if there is none."""
    query = select(vnics).where(vnics.c.id == vnic_id)
    return connection.execute(query.with_for_update() if lock else query).one_or_none()


def require(connection: Connection, vnic_id: str) -> AnyRow:
    """The vNIC's row, locked until the transaction ends; raises VnicNotFound."""
    row = find(connection, vnic_id, lock=True)
    if row is None:
        raise missing(vnic_id)
    return row


def missing(vnic_id: str) -> VnicNotFound:
    """The error for an unknown vNIC."""
    return VnicNotFound(f"There is no vNIC {vnic_id!r}. Create it with PUT /v1/vnics/{vnic_id}.", vnic=vnic_id)


def read(connection: Connection, condition: Any, limit: int | None = None) -> list[Vnic]:
    """The vNICs of a condition, by id."""
    rows = connection.execute(select(vnics).where(condition).order_by(vnics.c.id).limit(limit)).all()
    in_range = set(
        connection.execute(
            select(vnics.c.mac_pool_id, vnics.c.mac)
            .join(mac_ranges, mac_ranges.c.mac_pool_id == vnics.c.mac_pool_id)
            .where(
                vnics.c.id.in_([row.id for row in rows]),
                vnics.c.mac.between(mac_ranges.c.first, mac_ranges.c.last),
            )
        ).all()
    )
    paired: dict[str, set[str]] = {}
    ids = [row.id for row in rows]
    for one, other in connection.execute(select(twins).where(or_(twins.c.vnic_id.in_(ids), twins.c.twin_id.in_(ids)))):
        paired.setdefault(one, set()).add(other)
        paired.setdefault(other, set()).add(one)
    own: dict[str, AnyRow] = {}
    for row in connection.execute(
        select(addresses)
        .where(addresses.c.vnic_id.in_([row.id for row in rows]))
        .order_by(addresses.c.state != "held", addresses.c.free_at_ms.is_not(None), addresses.c.free_at_ms.desc())
    ):
        own.setdefault(row.vnic_id, row)
    held_on = {each.subnet_id for each in own.values()}
    of_subnet = {subnet_id: subnets.require(connection, subnet_id) for subnet_id in held_on}
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
            in_range=(row.mac_pool_id, row.mac) in in_range,
            twins=tuple(sorted(paired.get(row.id, ()))),
            running=row.running,
            ip=None if address is None else subnets.address_of(of_subnet[address.subnet_id], address.offset),
            ip_state=None if address is None else address.state,
        )
        for row in rows
        for address in (own.get(row.id),)
    ]
