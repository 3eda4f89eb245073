"""The reservation log, and the life of an address: free → held → draining → cooling → free.

Every change takes the next revision of its subnet and a row in the log, in the transaction of the change itself.
"""

from typing import Any

from netaddr import IPAddress
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import toggle
from leasehold.domain.subnets import address_at, offset_of, within
from leasehold.domain.values import Reservation
from leasehold.errors import AddressOutOfRange, AddressTaken, MacReserved, SubnetRetiring
from leasehold.service import events, exhaustion, lineage, subnets
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.tables import addresses, hosts, leases, reservation_log, server_subnets, twins, vnics
from leasehold.store.tables import subnets as subnets_table

_SWEEP_BATCH = 1000
_IS_UNREACHABLE = (
    select(hosts.c.id).where(hosts.c.id == server_subnets.c.host_id, hosts.c.unreachable_reason.is_not(None)).exists()
)


def list_reservations(ctx: Context, subnet_id: int, *, limit: int, after: IPAddress | None = None) -> list[Reservation]:
    """Up to `limit` reservations of the subnet behind address `after`, by address. Raises SubnetNotFound."""
    with ctx.db.read() as connection:
        spec = subnets.spec_of(subnets.require(connection, subnet_id))
        rows = connection.execute(
            select(addresses.c.offset, addresses.c.mac, addresses.c.vnic_id)
            .where(
                addresses.c.subnet_id == subnet_id,
                addresses.c.state == "held",
                addresses.c.offset > (-1 if after is None else offset_of(spec, after)),
            )
            .order_by(addresses.c.offset)
            .limit(limit)
        ).all()
    return [Reservation(ip=address_at(spec, row.offset), mac=Mac(row.mac), vnic=row.vnic_id) for row in rows]


def promise(
    ctx: Context, connection: Connection, subnet_id: int, vnic_id: str | None, mac: Mac, wanted: IPAddress | None
) -> None:
    """Makes sure that the vNIC, or without one the device with this MAC, holds an address of the subnet: the one that
    it has or had, else the one wanted, else the one that has been free longest. Where a twin holds one for their MAC,
    they share that.

    Raises SubnetRetiring, SubnetExhausted, AddressOutOfRange, AddressTaken, MacReserved.
    """
    subnet = subnets.require(connection, subnet_id, lock=True)
    spec = subnets.spec_of(subnet)
    found = (
        _of_device(connection, subnet_id=subnet_id, mac=mac.value)
        if vnic_id is None
        else _of_vnic(connection, subnet_id=subnet_id, vnic_id=vnic_id, mac=mac.value)
    )
    own = [row for row in found if row.vnic_id == vnic_id]
    # A server may still serve a draining address to the MAC that it was promised to, and so to no other.
    mine = [row for row in own if row.mac == mac.value or (row.state != "held" and not row.owed)]
    if any(row.state != "held" for row in mine):
        mine = [row for row in mine if row.state == "held" or subnets.hands_out(connection, subnet, row.offset)]
    kept = next((row for row in mine if wanted is None or address_at(spec, row.offset) == wanted), None)
    if kept is not None and kept.state == "held":
        return
    lineage.refuse_while_recovering(connection, subnet)
    refuse_retiring(subnet)
    for row in own:
        if row.state == "held":
            let_go(ctx, connection, subnet, row, guest_runs=True)
            subnet = subnets.require(connection, subnet_id)
    if any(_is_shared(subnet, row, wanted) for row in found if row.vnic_id != vnic_id):
        return
    offset = _take(ctx, connection, subnet, wanted) if kept is None else kept.offset
    revision = _log(connection, subnet, mac, offset, held=True)
    hold = _hold_new if kept is None else _hold_again
    hold(connection, subnet_id=subnet_id, offset=offset, mac=mac.value, vnic_id=vnic_id, revision=revision)
    tell(ctx, connection, "reservation.added", subnet, offset, mac, vnic_id)


def must_wait(connection: Connection, subnet_id: int, vnic_id: str, mac: Mac) -> bool:
    """True while it is worth waiting for the address that the vNIC had last: servers that answer have yet to confirm
    that they no longer serve it to another MAC, and no server that does not."""
    last = connection.execute(
        select(
            addresses.c.mac,
            _owed().label("owed"),
            _owing().where(_IS_UNREACHABLE).exists().label("held_up"),
        )
        .where(addresses.c.subnet_id == subnet_id, addresses.c.vnic_id == vnic_id, addresses.c.state == "draining")
        .order_by(addresses.c.revision.desc())
        .limit(1)
    ).one_or_none()
    return last is not None and last.mac != mac.value and bool(last.owed) and not last.held_up


def withdraw(ctx: Context, connection: Connection, vnic_id: str, *, guest_runs: bool = False) -> None:
    """Lets the addresses that the vNIC holds drain, but for one that a twin runs on, which is the twin's from then on.
    They stay its own until they are free; see `let_go`."""
    held = connection.execute(
        select(addresses)
        .where(addresses.c.vnic_id == vnic_id, addresses.c.state == "held")
        .order_by(addresses.c.subnet_id)
    ).all()
    for row in held:
        subnet = subnets.require(connection, row.subnet_id, lock=True)
        heir = connection.execute(
            select(vnics.c.id)
            .where(
                vnics.c.mac == row.mac,
                vnics.c.id != vnic_id,
                vnics.c.subnet_id == row.subnet_id,
                vnics.c.running,
                are_twins(vnics.c.id, vnic_id),
            )
            .order_by(vnics.c.id)
            .limit(1)
        ).scalar_one_or_none()
        if heir is None:
            let_go(ctx, connection, subnet, row, guest_runs=guest_runs)
        else:
            connection.execute(
                update(addresses)
                .where(addresses.c.subnet_id == row.subnet_id, addresses.c.offset == row.offset)
                .values(vnic_id=heir)
            )


def are_twins(one: ColumnElement[str], other: str | None) -> ColumnElement[bool]:
    """True where the vNIC in a column is a twin of the other."""
    return (
        select(twins.c.vnic_id)
        .where(
            or_(
                and_(twins.c.vnic_id == one, twins.c.twin_id == other),
                and_(twins.c.twin_id == one, twins.c.vnic_id == other),
            )
        )
        .exists()
    )


def sweep(ctx: Context) -> int:
    """Moves released addresses on: draining ones whose withdrawal every server has confirmed begin to cool, and cooling
    ones whose time has come are free. Returns how many moved."""
    movable = or_(
        and_(addresses.c.state == "draining", ~_owed()),
        and_(addresses.c.state == "cooling", _is_cool(ctx.now_ms())),
    )
    with ctx.db.read() as connection:
        unsettled = connection.execute(select(addresses.c.subnet_id).where(movable).distinct()).scalars().all()
    moved = sum(_sweep(ctx, subnet_id) for subnet_id in sorted(unsettled))
    if moved:
        ctx.bell.ring(News.CONFIRMED | News.EVENTS)
    return moved


def _sweep(ctx: Context, subnet_id: int) -> int:
    """What `sweep` does, for one subnet. Its row is locked first, as by whoever promises its addresses or changes its
    ranges."""
    now_ms = ctx.now_ms()
    cool_down_ms = round(ctx.settings.cool_down_s * 1000)
    own = addresses.c.subnet_id == subnet_id
    with ctx.db.write() as connection:
        subnet = connection.execute(
            select(subnets_table).where(subnets_table.c.id == subnet_id).with_for_update(key_share=True)
        ).one_or_none()
        if subnet is None:
            return 0
        moved = connection.execute(
            update(addresses)
            .where(own, addresses.c.state == "draining", ~_owed())
            .values(
                state="cooling",
                free_at_ms=case(
                    (addresses.c.guest_lease_ms > cool_down_ms, addresses.c.guest_lease_ms + now_ms),
                    else_=literal(now_ms + cool_down_ms, BigInteger),
                ),
            )
        ).rowcount
        is_due = own & (addresses.c.state == "cooling") & _is_cool(now_ms)
        due = list(
            connection.execute(
                select(addresses.c.offset).where(is_due).order_by(addresses.c.offset).limit(_SWEEP_BATCH)
            ).scalars()
        )
        if due:
            connection.execute(delete(addresses).where(own, addresses.c.offset.in_(due)))
            ranges = subnets.handed_out(connection, subnet)
            extents.give_back(connection, subnet.space_id, [each for each in due if within(ranges, each)])
    return int(moved) + len(due)


def _is_cool(now_ms: int) -> ColumnElement[bool]:
    """True for an address whose cool-down is over, and that no guest found in use by another machine within the time
    for which its server keeps it back."""
    declined = (
        select(leases.c.host_id)
        .where(
            leases.c.subnet_id == addresses.c.subnet_id,
            leases.c.offset == addresses.c.offset,
            leases.c.state == "declined",
            leases.c.expires_ms > now_ms,
        )
        .exists()
    )
    return and_(addresses.c.free_at_ms <= now_ms, ~declined)


def _owed() -> ColumnElement[bool]:
    """True for an address whose last change a server has yet to confirm, as far as servers are known."""
    recovering = (
        select(subnets_table.c.id)
        .where(subnets_table.c.id == addresses.c.subnet_id, subnets_table.c.recovering_since_ms.is_not(None))
        .exists()
    )
    return or_(_owing().exists(), recovering)


def _owing() -> Select[str]:
    """The servers that have yet to confirm the last change of an address."""
    return select(server_subnets.c.host_id).where(
        server_subnets.c.subnet_id == addresses.c.subnet_id,
        or_(
            server_subnets.c.confirmed_revision.is_(None),
            server_subnets.c.confirmed_revision < addresses.c.revision,
        ),
    )


def let_go(ctx: Context, connection: Connection, subnet: AnyRow, row: AnyRow, *, guest_runs: bool) -> None:
    """Lets the held address of this row drain. The subnet's row is locked.

    A guest that runs on uses the address until it asks to renew it, and one that cannot ask until its lease ends. So
    the address cools for as long as a lease lasts, or the one that is known, where it is of a time with longer ones.
    """
    guest_lease_ms = 0
    if guest_runs:
        expires_ms = _lease_end(connection, subnet_id=row.subnet_id, offset=row.offset).scalar_one() or 0
        guest_lease_ms = max(subnet.lease_time_s * 1000, expires_ms - ctx.now_ms())
    revision = _log(connection, subnet, Mac(row.mac), row.offset, held=False)
    connection.execute(
        update(addresses)
        .where(addresses.c.subnet_id == row.subnet_id, addresses.c.offset == row.offset)
        .values(state="draining", revision=revision, guest_lease_ms=guest_lease_ms)
    )
    tell(ctx, connection, "reservation.removed", subnet, row.offset, Mac(row.mac), row.vnic_id)


def tell(
    ctx: Context, connection: Connection, event: str, subnet: AnyRow, offset: int, mac: Mac, vnic_id: str | None
) -> None:
    """Tells of a reservation that came or went."""
    ip = str(subnets.address_of(subnet, offset))
    data = {"subnet": subnet.id, "network": subnet.network_id, "ip": ip, "mac": str(mac), "vnic": vnic_id}
    events.emit(connection, ctx.now_ms(), event, f"subnets/{subnet.id}/reservations/{ip}", data)


def refuse_retiring(subnet: AnyRow) -> None:
    """Raises SubnetRetiring for a subnet that was renumbered."""
    if subnet.successor_id is not None:
        raise SubnetRetiring(
            f"Subnet {subnet.id} ({subnet.cidr}) was renumbered to subnet {subnet.successor_id}, and hands nothing out "
            f"any more. Name {subnet.successor_id} instead.",
            subnet=subnet.id,
            successor=subnet.successor_id,
        )


def _log(connection: Connection, subnet: AnyRow, mac: Mac, offset: int, *, held: bool) -> int:
    """Takes the next revision of the subnet, whose row the caller has locked, for a reservation that comes or goes."""
    digest = toggle(subnet.digest, mac, subnets.address_of(subnet, offset))
    revision: int = subnet.revision + 1
    _set_revision(connection, subnet_id=subnet.id, revision=revision, digest=digest)
    _insert_entry(
        connection,
        subnet_id=subnet.id,
        revision=revision,
        mac=mac.value,
        offset=offset if held else None,
        digest=digest,
    )
    return revision


def _take(ctx: Context, connection: Connection, subnet: AnyRow, wanted: IPAddress | None) -> int:
    spec = subnets.spec_of(subnet)
    if wanted is None:
        taken = extents.take_any(connection, subnet.space_id, locked=subnet)
        if not taken:
            raise exhaustion.exhausted(ctx, connection, subnet, _owing(), _owed())
        exhaustion.warn(ctx, connection, subnet, by=1, free=subnet.free - 1, size=subnet.size)
        return taken[0]
    offset = offset_of(spec, wanted)
    if extents.take(connection, subnet.space_id, offset):
        exhaustion.warn(ctx, connection, subnet, by=1, free=subnet.free - 1, size=subnet.size)
        return offset
    row = connection.execute(
        select(addresses).where(addresses.c.subnet_id == subnet.id, addresses.c.offset == offset)
    ).one_or_none()
    if row is None:
        raise AddressOutOfRange(
            f"{wanted} is not handed out on subnet {subnet.id} ({spec.cidr}): it is outside of its ranges, excluded, "
            "the gateway, or a host's own. Ask for another, or for none to get the next free one.",
            ip=str(wanted),
            subnet=subnet.id,
        )
    raise AddressTaken(
        f"{wanted} on subnet {subnet.id} ({spec.cidr}) is {row.state} for {subnets.holder_of(row)}. "
        "Ask for another, or for none to get the next free one.",
        ip=str(wanted),
        subnet=subnet.id,
        state=row.state,
        holder=row.vnic_id,
    )


def _is_shared(subnet: AnyRow, holder: AnyRow, wanted: IPAddress | None) -> bool:
    """True if who holds this address for the MAC is a twin. Raises MacReserved if it is another than the wanted one, or
    if it is no twin."""
    ip, mac = subnets.address_of(subnet, holder.offset), Mac(holder.mac)
    if holder.twin and wanted in (None, ip):
        return True
    who = "A device" if holder.vnic_id is None else f"vNIC {holder.vnic_id} of VM {holder.vm}"
    raise MacReserved(
        f"{who} already has the reservation of {ip} for {mac} on subnet {subnet.id}. "
        + (
            f"Twins share it: ask for {ip}, or for none."
            if holder.twin
            else "Stop or remove it first, give one of the two another MAC, or make them twins to share it."
        ),
        mac=str(mac),
        subnet=subnet.id,
        ip=str(ip),
        holder=holder.vnic_id,
        vm=holder.vm,
    )


@prepared
def _insert_entry(subnet_id: Any, revision: Any, mac: Any, offset: Any, digest: Any) -> Executable:
    return insert(reservation_log).values(subnet_id=subnet_id, revision=revision, mac=mac, offset=offset, digest=digest)


@prepared
def _hold_new(subnet_id: Any, offset: Any, mac: Any, vnic_id: Any, revision: Any) -> Executable:
    return insert(addresses).values(
        subnet_id=subnet_id, offset=offset, state="held", mac=mac, vnic_id=vnic_id, revision=revision
    )


@prepared
def _hold_again(subnet_id: Any, offset: Any, mac: Any, vnic_id: Any, revision: Any) -> Executable:
    """A row of an address that drains or cools."""
    return (
        update(addresses)
        .where(addresses.c.subnet_id == subnet_id, addresses.c.offset == offset)
        .values(state="held", mac=mac, vnic_id=vnic_id, revision=revision, free_at_ms=None, guest_lease_ms=0)
    )


@prepared
def _of_vnic(subnet_id: Any, vnic_id: Any, mac: Any) -> Executable:
    is_held_for_mac = (addresses.c.mac == mac) & (addresses.c.state == "held")
    is_twin = are_twins(addresses.c.vnic_id, vnic_id)
    return _concerned(subnet_id, or_(addresses.c.vnic_id == vnic_id, is_held_for_mac), is_twin)


@prepared
def _of_device(subnet_id: Any, mac: Any) -> Executable:
    is_held_or_its_own = or_(addresses.c.state == "held", addresses.c.vnic_id.is_(None))
    return _concerned(subnet_id, (addresses.c.mac == mac) & is_held_or_its_own, false())


def _concerned(subnet_id: Any, whose: ColumnElement[bool], is_twin: ColumnElement[bool]) -> Select[Any]:
    """The addresses that somebody has or had, and the one that another holds for the MAC; `vm` is that one's. Of
    several that it had it gets the last one back."""
    return (
        select(addresses, _owed().label("owed"), vnics.c.vm, is_twin.label("twin"))
        .join(vnics, vnics.c.id == addresses.c.vnic_id, isouter=True)
        .where(addresses.c.subnet_id == subnet_id, whose)
        .order_by(addresses.c.state != "held", addresses.c.revision.desc())
    )


@prepared
def _lease_end(subnet_id: Any, offset: Any) -> Executable:
    """The last instant for which a lease of the address is known."""
    own = (leases.c.subnet_id == subnet_id) & (leases.c.offset == offset)
    return select(func.max(leases.c.expires_ms).label("end")).where(own)


@prepared
def _set_revision(subnet_id: Any, revision: Any, digest: Any) -> Executable:
    return update(subnets_table).where(subnets_table.c.id == subnet_id).values(revision=revision, digest=digest)
