"""vNICs started, changed while they run, and stopped: an address promised, and confirmed by the servers that are to
serve it."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, Select, exists, select, true, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.subnets import serves
from leasehold.domain.values import Confirmation, ConfirmationState, Started, Vnic, VnicChange, Wait
from leasehold.errors import NoIpamService, NoServer, NotConfirmed, SubnetExhausted, SubnetRecovering, SubnetRetiring
from leasehold.service import reservations
from leasehold.service.bell import Due, News
from leasehold.service.context import Context
from leasehold.service.hosts import FAILURE_COUNTS_MS
from leasehold.service.vnics import changing, rows
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import addresses, hosts, lineage, server_subnets, servers, vnics
from leasehold.store.tables import networks as networks_table

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.25

_CHANGED = News.LOG | News.EVENTS
_STORED = News.PLAN | News.CONFIRMED


def start(
    ctx: Context, vnic_id: str, *, wait: Wait = "one", ip: IPAddress | None = None, dry_run: bool = False
) -> Started:
    """Promises the vNIC an address of its subnet, and waits until `wait` of the network's servers have it on disk.

    The promise holds from the commit on, and is pushed until it is confirmed, also when this call raises NotConfirmed
    or NoServer because that took longer than `start_budget_s`. A repeated call, for a migrated VM for one, answers the
    same address. Without a subnet, or where IPAM is off, it runs without IPAM service, and there is nothing to wait
    for; NoIpamService is raised only where `ip` asks for an address. Twins on one subnet share one address.

    Raises VnicNotFound, NoIpamService, SubnetExhausted, AddressOutOfRange, AddressTaken, MacReserved.
    """
    with ctx.db.write(dry_run=dry_run) as connection:
        row = rows.require(connection, vnic_id)
        start_in(ctx, connection, row, ip)
        heard = ctx.bell.heard(_STORED), ctx.bell.heard(News.FACTS)
        asked = _servers(connection, vnic_id=vnic_id)
        started = _started(rows.known(connection, vnic_id), row.ipam)
        awaited = _Awaited(*heard, list(asked))
    if dry_run:
        return started
    ctx.bell.due(*awaited.due(started))
    ctx.bell.ring(News.EVENTS)
    return _await_confirmation(ctx, started, wait, awaited)


def start_in(ctx: Context, connection: Connection, row: AnyRow, ip: IPAddress | None = None) -> None:
    """What `start` does, in a transaction that has locked the vNIC; without the waiting."""
    if row.ipam:
        reservations.promise(ctx, connection, row.subnet_id, row.id, Mac(row.mac), ip)
    elif ip is not None:
        why = "is on no subnet" if row.subnet_id is None else f"is on network {row.network_id}, where IPAM is off"
        raise NoIpamService(
            f"vNIC {row.id} {why}, so that it cannot have address {ip}. "
            + ("Put it on a subnet first." if row.subnet_id is None else "Turn ipam_enabled on there first."),
            vnic=row.id,
            network=row.network_id,
            ip=str(ip),
        )
    _set_running(connection, vnic_id=row.id)


def stop(ctx: Context, vnic_id: str, *, dry_run: bool = False) -> Vnic:
    """Withdraws the vNIC's address, which drains, cools, and then is free; the MAC stays. Raises VnicNotFound."""
    with ctx.db.write(dry_run=dry_run) as connection:
        rows.require(connection, vnic_id)
        stop_in(ctx, connection, vnic_id)
        vnic = rows.known(connection, vnic_id)
    ctx.bell.ring(_CHANGED)
    return vnic


def stop_in(ctx: Context, connection: Connection, vnic_id: str) -> None:
    """What `stop` does, in a transaction that has locked the vNIC."""
    reservations.withdraw(ctx, connection, vnic_id)
    connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(running=False))


def change(
    ctx: Context,
    vnic_id: str,
    wanted: VnicChange,
    *,
    revision: int | None = None,
    wait: Wait = "one",
    dry_run: bool = False,
) -> Started:
    """Changes the fields named. While the vNIC runs, its address follows: on another subnet it gets one of there, with
    another MAC it keeps its own, in the transaction of the change; then this waits as `start` does.

    With another MAC the address is its own again once every server has confirmed that the old MAC does not get it any
    more. Where a server that does not answer could still serve it, the new MAC gets another address.

    `revision` is the one that the caller read. Raises VnicNotFound, RevisionMismatch, ScopeNotFound, NetworkNotFound,
    SubnetNotFound, FieldInvalid, MacNotUnicast, MacTaken, MacPoolExhausted, WouldDuplicate, SubnetExhausted,
    MacReserved, with nothing changed, and NotConfirmed or NoServer as `start` does, with the change made.
    """
    with rows.writing(ctx, dry_run) as connection:
        before = rows.require(connection, vnic_id)
        vnic = changing.change_in(ctx, connection, vnic_id, wanted, revision=revision)
        started = _started(vnic, has_ipam(connection, vnic))
    follows = vnic.running and (before.subnet_id, before.mac) != (vnic.subnet, vnic.mac.value)
    return _await_confirmation(ctx, started, wait) if follows and not dry_run else started


def settle(ctx: Context) -> int:
    """Gives vNICs that run with another MAC than before their address back, once no server serves it to the old MAC any
    more, or another where that cannot be known; returns how many."""
    with ctx.db.read() as connection:
        waiting = connection.execute(_unsettled().distinct()).scalars().all()
    return sum(_settle(ctx, vnic_id) for vnic_id in waiting)


def unserved(connection: Connection, of: Iterable[str] | None = None) -> set[str]:
    """vNICs, or those of these, that run on a subnet with IPAM on and hold no address there."""
    held = exists().where(
        addresses.c.subnet_id == vnics.c.subnet_id, addresses.c.mac == vnics.c.mac, addresses.c.state == "held"
    )
    query = (
        select(vnics.c.id)
        .join(networks_table, networks_table.c.id == vnics.c.network_id)
        .where(vnics.c.running, vnics.c.subnet_id.is_not(None), networks_table.c.ipam_enabled, ~held)
    )
    if of is not None:
        query = query.where(among(connection, vnics.c.id, of))
    return set(connection.execute(query).scalars())


def is_settling(connection: Connection, row: AnyRow) -> bool:
    """True for a vNIC that runs, and has its address back once servers have confirmed that its old MAC does not get it
    any more."""
    return (
        row.running
        and row.subnet_id is not None
        and reservations.must_wait(connection, row.subnet_id, row.id, Mac(row.mac))
    )


def _settle(ctx: Context, vnic_id: str) -> bool:
    with ctx.db.read() as connection:
        row = connection.execute(select(vnics).where(vnics.c.id == vnic_id)).one_or_none()
        if not _may_settle(connection, row):
            return False
    try:
        with ctx.db.write() as connection:
            row = rows.find(connection, vnic_id, lock=True)
            if row is None or not _may_settle(connection, row):
                return False
            reservations.promise(ctx, connection, row.subnet_id, row.id, Mac(row.mac), None)
    except (SubnetExhausted, SubnetRecovering, SubnetRetiring) as error:
        log.warning("vNIC %s runs with another MAC, and waits for an address: %s", vnic_id, error)
        return False
    ctx.bell.ring()
    return True


def _may_settle(connection: Connection, row: AnyRow | None) -> bool:
    return (
        row is not None
        and connection.execute(_unsettled().where(vnics.c.id == row.id)).first() is not None
        and not reservations.must_wait(connection, row.subnet_id, row.id, Mac(row.mac))
    )


def _unsettled() -> Select[str]:
    """Ids of vNICs that run without an address, and had one of their subnet with another MAC."""
    held = addresses.alias("held")
    return (
        select(vnics.c.id)
        .join(addresses, (addresses.c.vnic_id == vnics.c.id) & (addresses.c.subnet_id == vnics.c.subnet_id))
        .join(networks_table, networks_table.c.id == vnics.c.network_id)
        .where(
            addresses.c.state.in_(("draining", "cooling")),
            vnics.c.running,
            networks_table.c.ipam_enabled,
            ~select(held.c.mac)
            .where(held.c.subnet_id == vnics.c.subnet_id, held.c.mac == vnics.c.mac, held.c.state == "held")
            .exists(),
        )
    )


def has_ipam(connection: Connection, vnic: Vnic) -> bool:
    """True for one that is on a subnet of a network with IPAM on."""
    row = rows.find(connection, vnic.id)
    return row is not None and bool(row.ipam)


@dataclass(frozen=True)
class _Awaited:
    """The servers that are to confirm, as the database knew them, and what the bell had rung before that look."""

    stored: int
    facts: int
    servers: Sequence[AnyRow]

    def due(self, started: Started) -> Iterator[Due]:
        """The reservation, for each server that has not confirmed it."""
        for row in self.servers:
            if row.confirmed_revision is None or row.confirmed_revision < row.revision:
                yield Due(
                    host=row.host_id,
                    confirmed=row.confirmed_revision,
                    subnet=row.subnet_id,
                    epoch=row.epoch,
                    revision=row.revision,
                    mac=str(started.mac),
                    ip=str(started.ip),
                )

    def confirmations(self, ctx: Context, ip: IPAddress | None) -> tuple[Confirmation, ...]:
        """What was stored then of this address, or was told since."""
        told = [ctx.bell.told(each.host_id, each.subnet_id, each.epoch, self.facts) for each in self.servers]
        return tuple(_confirmation(*each, ip, ctx.now_ms()) for each in zip(self.servers, told, strict=True))


def _look(ctx: Context, connection: Connection, vnic_id: str) -> _Awaited:
    heard = ctx.bell.heard(_STORED), ctx.bell.heard(News.FACTS)
    return _Awaited(*heard, _servers(connection, vnic_id=vnic_id))


def _await_confirmation(ctx: Context, started: Started, wait: Wait, awaited: _Awaited | None = None) -> Started:
    """`awaited` is what the transaction of the promise saw, so that nobody has to look again at once."""
    deadline = time.monotonic() + ctx.settings.start_budget_s
    if started.ip is None:
        awaited = None
    while started.ipam and wait != "none":
        if awaited is None:
            if started.ip is None:
                _settle(ctx, started.vnic.id)
            with ctx.db.read() as connection:
                if started.ip is None:
                    vnic = rows.known(connection, started.vnic.id)
                    started = _started(vnic, has_ipam(connection, vnic))
                    if not started.ipam:
                        break
                awaited = _look(ctx, connection, started.vnic.id)
        heard = ctx.bell.heard(_STORED | News.FACTS)
        started = replace(started, servers=awaited.confirmations(ctx, started.ip))
        if _is_enough(started.servers, wait):
            break
        if ctx.bell.heard(_STORED) != awaited.stored:
            awaited = None
            continue
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or _is_hopeless(started.servers, wait):
            raise _not_confirmed(started, wait)
        # No bell tells that a host which was away is still away.
        in_doubt = any(each.state != "confirmed" and each.detail for each in started.servers)
        wait_s = min(remaining_s, _LOOK_AGAIN_S) if in_doubt else remaining_s
        if ctx.bell.wait(heard, wait_s, _STORED | News.FACTS) == heard:
            awaited = None
    return started


def _started(vnic: Vnic, has_ipam: bool) -> Started:
    """The vNIC with the address that it holds; without what the servers say of that."""
    ipam = vnic.running and has_ipam
    ip = vnic.ip if ipam and vnic.ip_state == "held" else None
    return Started(vnic=vnic, ipam=ipam, ip=ip, mac=vnic.mac, servers=())


def _is_enough(confirmations: Iterable[Confirmation], wait: Wait) -> bool:
    confirmed = [each.state == "confirmed" for each in confirmations]
    return any(confirmed) if wait == "one" else bool(confirmed) and all(confirmed)


def _is_hopeless(confirmations: Iterable[Confirmation], wait: Wait) -> bool:
    """True when waiting cannot help: the servers that would have to confirm were asked in vain a moment ago."""
    unreachable = [each.state == "unreachable" for each in confirmations]
    return bool(unreachable) and (all(unreachable) if wait == "one" else any(unreachable))


def _not_confirmed(started: Started, wait: Wait) -> NoServer | NotConfirmed:
    vnic, ip = started.vnic, started.ip
    if ip is None:
        return NotConfirmed(
            f"vNIC {vnic.id} has MAC {vnic.mac} now, but not all servers have confirmed that its old MAC does not get "
            f"{vnic.ip} any more. It has its address back by itself once they have; ask again then.",
            vnic=vnic.id,
            ip=None,
            mac=str(vnic.mac),
            hosts=[],
            servers=[],
        )
    if not started.servers:
        return NoServer(
            f"No host serves network {vnic.network} yet. {ip} stays held for vNIC {vnic.id}, and is pushed as "
            "soon as one does. Attach a host that is up to the network, or ask again.",
            network=vnic.network,
            vnic=vnic.id,
            ip=str(ip),
            mac=str(vnic.mac),
        )
    late = [each for each in started.servers if each.state != "confirmed"]
    hosts_named = "; ".join(f"{each.host} ({each.detail or each.state})" for each in late)
    return NotConfirmed(
        f"{ip} is held for vNIC {vnic.id}, but {'no server has' if wait == 'one' else 'not all servers have'} "
        f"confirmed it yet: {hosts_named}. It is pushed by itself once they answer; ask again then.",
        vnic=vnic.id,
        ip=str(ip),
        mac=str(vnic.mac),
        hosts=[each.host for each in late],
        servers=[{"host": each.host, "state": each.state, "detail": each.detail} for each in started.servers],
    )


@prepared
def _servers(vnic_id: Any) -> Executable:
    """What each server that is to serve the vNIC's address says of it, by host."""
    return (
        select(
            servers.c.host_id,
            servers.c.state,
            servers.c.detail,
            hosts.c.unreachable_reason,
            hosts.c.failed_ms,
            server_subnets.c.confirmed_revision,
            server_subnets.c.provided_cidr,
            addresses.c.subnet_id,
            addresses.c.revision,
            lineage.c.epoch,
        )
        .select_from(vnics)
        # Not by vNIC: of twins one holds the address for all.
        .join(
            addresses,
            (addresses.c.subnet_id == vnics.c.subnet_id)
            & (addresses.c.mac == vnics.c.mac)
            & (addresses.c.state == "held"),
        )
        .join(lineage, true())
        .join(servers, servers.c.network_id == vnics.c.network_id)
        .join(hosts, hosts.c.id == servers.c.host_id)
        .join(
            server_subnets,
            (server_subnets.c.host_id == servers.c.host_id) & (server_subnets.c.subnet_id == addresses.c.subnet_id),
            isouter=True,
        )
        .where(vnics.c.id == vnic_id, servers.c.state != "stopping")
        .order_by(servers.c.host_id)
    )


@prepared
def _set_running(vnic_id: Any) -> Executable:
    return update(vnics).where(vnics.c.id == vnic_id).values(running=True, missing_ms=None)


def _confirmation(row: AnyRow, told: int | None, ip: IPAddress | None, now_ms: int) -> Confirmation:
    """What is stored of a server, or was told since. One whose Kea has not the CIDR yet that the address is in would
    answer nobody, with the reservation on disk; one that has, serves it, though it may still wait for other subnets."""
    revision = row.confirmed_revision if told is None else told
    has_it = row.state in ("running", "starting") and revision is not None and revision >= row.revision
    if has_it and ip is not None and serves(row.provided_cidr, ip):
        return Confirmation(host=row.host_id, state="confirmed", revision=revision, detail=None)
    if row.unreachable_reason is not None:
        # The manager asks again because of this start; a failure of long ago says little about now.
        lately = row.failed_ms is not None and now_ms - row.failed_ms < FAILURE_COUNTS_MS
        state: ConfirmationState = "unreachable" if lately else "pending"
        return Confirmation(host=row.host_id, state=state, revision=revision, detail=row.unreachable_reason)
    detail = row.detail or ("Its Kea has not taken the subnet's new CIDR yet." if has_it else None)
    return Confirmation(host=row.host_id, state="pending", revision=revision, detail=detail)
