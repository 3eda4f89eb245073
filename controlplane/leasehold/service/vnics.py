"""vNICs: what the engine creates, moves, starts, stops and deletes."""

import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, delete, insert, or_, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.values import BadMac, Confirmation, Imported, Reassigned, Started, Vnic, VnicSpec, Wait
from leasehold.errors import (
    DatabaseBusy,
    FieldInvalid,
    InUse,
    MacsBad,
    NoIpamService,
    NoServer,
    NotConfirmed,
    VnicNotFound,
)
from leasehold.service import mac_pools, macs, networks, reservations, scopes, subnets
from leasehold.service.context import Context
from leasehold.store.database import AnyRow, Violation
from leasehold.store.tables import (
    addresses,
    hosts,
    mac_ranges,
    server_subnets,
    servers,
    subnet_mac_ranges,
    twins,
    vnics,
)
from leasehold.store.tables import mac_pools as mac_pools_table
from leasehold.store.tables import subnets as subnets_table


def put(ctx: Context, spec: VnicSpec, *, dry_run: bool = False) -> tuple[Vnic, bool]:
    """Creates or replaces a vNIC; the second value is True if it is new. A subnet brings its network.

    Raises ScopeNotFound, NetworkNotFound, SubnetNotFound, FieldInvalid for parts that do not fit each other,
    MacNotUnicast, MacTaken, MacPoolExhausted, WouldDuplicate, and InUse for a change of MAC, network or subnet while it
    runs.
    """
    with writing(ctx, dry_run) as connection:
        created = _row(connection, spec.id, lock=True) is None
        _put_all(ctx, connection, [spec])
        vnic = _vnics(connection, vnics.c.id == spec.id)[0]
    return vnic, created


def put_all(ctx: Context, specs: Sequence[VnicSpec], *, dry_run: bool = False) -> list[Vnic]:
    """Creates or replaces many vNICs, all or none of them; returns them by id. Those without a MAC get theirs
    ascending, in the order of their ids. Raises what `put` raises, and FieldInvalid for an id that comes twice."""
    _refuse_repetition(specs)
    with writing(ctx, dry_run) as connection:
        _put_all(ctx, connection, specs)
        return _vnics(connection, vnics.c.id.in_([spec.id for spec in specs]))


def take_in(
    ctx: Context, specs: Sequence[VnicSpec], *, reassign_bad_macs: bool = False, dry_run: bool = False
) -> Imported:
    """Imports vNICs with the MACs that they come with, all or none of them.

    A MAC is bad when there is none, when no card can own it, when it is in use where it must not be twice, and when it
    is outside every pool's ranges. With `reassign_bad_macs` such a vNIC gets a new one; without, one that has none gets
    one, one that is out of range is taken and reported, and the others raise MacsBad, which names them all.
    """
    with writing(ctx, dry_run) as connection:
        return take_in_with(ctx, connection, specs, reassign_bad_macs=reassign_bad_macs)


def take_in_with(
    ctx: Context, connection: Connection, specs: Sequence[VnicSpec], *, reassign_bad_macs: bool
) -> Imported:
    """What `take_in` does, as part of a transaction of `writing`."""
    _refuse_repetition(specs)
    bad = _bad_macs(connection, specs)
    if not reassign_bad_macs:
        _refuse_bad(connection, specs, bad)
    reassigned = {spec.id for spec in specs if bad.get(spec.id) and (reassign_bad_macs or spec.mac is None)}
    _put_all(
        ctx,
        connection,
        [replace(spec, mac=None) if spec.id in reassigned else spec for spec in specs],
        anew={spec.id for spec in specs if spec.id in reassigned and spec.mac is not None},
    )
    found = _vnics(connection, vnics.c.id.in_([spec.id for spec in specs]))
    of_id = {each.id: each for each in found}
    return Imported(
        vnics=tuple(found),
        reassigned=tuple(
            Reassigned(vnic=spec.id, before=spec.mac, after=of_id[spec.id].mac, reason=bad[spec.id])
            for spec in specs
            if spec.id in reassigned
        ),
        external=tuple(spec.id for spec in specs if bad.get(spec.id) == "out-of-range" and spec.id not in reassigned),
    )


def move(
    ctx: Context,
    vnic_id: str,
    *,
    cluster: str | None,
    vm_pool: str | None = None,
    new_mac: bool = False,
    dry_run: bool = False,
) -> Vnic:
    """Moves a vNIC to another cluster or VM pool, and so under another MAC pool. It keeps its MAC, or with `new_mac`
    lets it go and gets one there, in one step.

    Raises VnicNotFound, ScopeNotFound, WouldDuplicate, MacPoolExhausted, InUse for a new MAC while it runs.
    """
    with writing(ctx, dry_run) as connection:
        row = _require(connection, vnic_id)
        pool_id = scopes.pool_for(connection, cluster=cluster, vm_pool=vm_pool)
        macs.lock(connection, [], [vnic_id], [pool_id])
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(cluster_id=cluster, vm_pool_id=vm_pool))
        if new_mac and pool_id != row.mac_pool_id:
            _refuse_change_while_running(row, ["mac"])
            (mac,) = macs.draw(ctx, connection, pool_id, [vnic_id], _mac_extents(connection, row.subnet_id))
            connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(mac=mac.value, mac_pool_id=pool_id))
            macs.release(ctx, connection, Mac(row.mac), row.id)
        elif pool_id != row.mac_pool_id:
            scopes.come_under(connection, pool_id, [vnic_id])
        return _vnics(connection, vnics.c.id == vnic_id)[0]


def make_twins(ctx: Context, vnic_id: str, twin_id: str, *, dry_run: bool = False) -> Vnic:
    """Gives the vNIC its twin's MAC, to share it on purpose: a standby, or the other node of a cluster. Its own cools.

    Raises VnicNotFound, FieldInvalid for a vNIC that would be its own twin, InUse while it runs, MacTaken when others
    have the MAC too.
    """
    if vnic_id == twin_id:
        raise FieldInvalid("twin: a vNIC is not its own twin. Name another.", field="twin", value=twin_id)
    with writing(ctx, dry_run) as connection:
        pair = sorted((vnic_id, twin_id))
        of_id = {each: _require(connection, each) for each in pair}
        row, twin = of_id[vnic_id], of_id[twin_id]
        macs.lock(connection, [], pair, [])
        known = connection.execute(
            select(twins).where(twins.c.vnic_id == pair[0], twins.c.twin_id == pair[1])
        ).one_or_none()
        if known is None:
            connection.execute(insert(twins).values(vnic_id=pair[0], twin_id=pair[1]))
        if row.mac != twin.mac:
            _refuse_change_while_running(row, ["mac"])
            macs.claim(ctx, connection, Mac(twin.mac), vnic_id, row.mac_pool_id, twin=twin_id)
            connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(mac=twin.mac))
            macs.release(ctx, connection, Mac(row.mac), row.id)
        return _vnics(connection, vnics.c.id == vnic_id)[0]


def part_twins(ctx: Context, vnic_id: str, twin_id: str, *, dry_run: bool = False) -> Vnic:
    """Ends that two vNICs are twins: the first gets a MAC of its own. Raises VnicNotFound, also when they are no twins,
    InUse while it runs, MacPoolExhausted."""
    with writing(ctx, dry_run) as connection:
        row = _require(connection, vnic_id)
        pair = sorted((vnic_id, twin_id))
        if not connection.execute(delete(twins).where(twins.c.vnic_id == pair[0], twins.c.twin_id == pair[1])).rowcount:
            raise VnicNotFound(
                f"vNIC {twin_id!r} is no twin of {vnic_id!r}. GET /v1/vnics/{vnic_id} lists its twins.", vnic=twin_id
            )
        _refuse_change_while_running(row, ["mac"])
        macs.lock(connection, [], [vnic_id], [row.mac_pool_id])
        (mac,) = macs.draw(ctx, connection, row.mac_pool_id, [vnic_id], _mac_extents(connection, row.subnet_id))
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(mac=mac.value))
        macs.release(ctx, connection, Mac(row.mac), row.id)
        return _vnics(connection, vnics.c.id == vnic_id)[0]


def get(ctx: Context, vnic_id: str) -> Vnic:
    """Raises VnicNotFound."""
    with ctx.db.read() as connection:
        found = _vnics(connection, vnics.c.id == vnic_id)
    if not found:
        raise _missing(vnic_id)
    return found[0]


def list_vnics(ctx: Context, *, limit: int, after: str | None = None) -> list[Vnic]:
    """Up to `limit` vNICs behind the id `after`, by id."""
    with ctx.db.read() as connection:
        condition = True if after is None else vnics.c.id > after
        return _vnics(connection, condition, limit)


def delete_vnic(ctx: Context, vnic_id: str, *, dry_run: bool = False) -> None:
    """Stops the vNIC and lets its MAC go, which cools: the same vNIC has it back until then. Raises VnicNotFound."""
    with writing(ctx, dry_run) as connection:
        row = _require(connection, vnic_id)
        macs.release(ctx, connection, Mac(row.mac), row.id)
        reservations.withdraw(connection, vnic_id)
        connection.execute(delete(vnics).where(vnics.c.id == vnic_id))


def start(ctx: Context, vnic_id: str, *, wait: Wait = "one", ip: IPAddress | None = None) -> Started:
    """Promises the vNIC an address of its subnet, and waits until `wait` of the network's servers have it on disk.

    The promise holds from the commit on, and is pushed until it is confirmed, also when this call raises NotConfirmed
    or NoServer because that took longer than `start_budget_s`. A repeated call, for a migrated VM for one, answers the
    same address. Raises VnicNotFound, NoIpamService, SubnetExhausted, AddressOutOfRange, AddressTaken, MacReserved.
    """
    with ctx.db.write() as connection:
        row = _require(connection, vnic_id)
        network = None if row.network_id is None else networks.require(connection, row.network_id)
        if row.subnet_id is None or network is None or not network.ipam_enabled:
            why = "is on no subnet" if row.subnet_id is None else f"is on network {row.network_id}, where IPAM is off"
            raise NoIpamService(
                f"vNIC {vnic_id} {why}, so that it has no address to start with. "
                + ("Put it on a subnet first." if row.subnet_id is None else "Turn ipam_enabled on there first."),
                vnic=vnic_id,
                network=row.network_id,
            )
        reservations.promise(connection, row.subnet_id, vnic_id, Mac(row.mac), ip)
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(running=True))
        vnic = _vnics(connection, vnics.c.id == vnic_id)[0]
    ctx.bell.ring()
    return _await_confirmation(ctx, vnic, wait)


def stop(ctx: Context, vnic_id: str) -> Vnic:
    """Withdraws the vNIC's address, which drains, cools, and then is free; the MAC stays. Raises VnicNotFound."""
    with ctx.db.write() as connection:
        _require(connection, vnic_id)
        reservations.withdraw(connection, vnic_id)
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(running=False))
        vnic = _vnics(connection, vnics.c.id == vnic_id)[0]
    ctx.bell.ring()
    return vnic


def _await_confirmation(ctx: Context, vnic: Vnic, wait: Wait) -> Started:
    deadline = time.monotonic() + ctx.settings.start_budget_s
    while True:
        seen = ctx.bell.count
        with ctx.db.read() as connection:
            confirmations = _confirmations(connection, vnic.id)
        if _is_enough(confirmations, wait):
            if vnic.ip is None:
                raise RuntimeError(f"vNIC {vnic.id} was promised an address and has none")
            return Started(vnic=vnic, ip=vnic.ip, mac=vnic.mac, servers=tuple(confirmations))
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or _is_hopeless(confirmations, wait):
            raise _not_confirmed(vnic, wait, confirmations)
        ctx.bell.wait(seen, remaining_s)


def _is_enough(confirmations: Iterable[Confirmation], wait: Wait) -> bool:
    if wait == "none":
        return True
    confirmed = [each.state == "confirmed" for each in confirmations]
    return any(confirmed) if wait == "one" else bool(confirmed) and all(confirmed)


def _is_hopeless(confirmations: list[Confirmation], wait: Wait) -> bool:
    """True when waiting cannot help: the servers that would have to confirm are known not to answer."""
    unreachable = [each.state == "unreachable" for each in confirmations]
    return bool(unreachable) and (all(unreachable) if wait == "one" else any(unreachable))


def _not_confirmed(vnic: Vnic, wait: Wait, confirmations: list[Confirmation]) -> NoServer | NotConfirmed:
    if not confirmations:
        return NoServer(
            f"No host serves network {vnic.network} yet. {vnic.ip} stays held for vNIC {vnic.id}, and is pushed as "
            "soon as one does. Attach a host that is up to the network, or ask again.",
            network=vnic.network,
            vnic=vnic.id,
            ip=str(vnic.ip),
            mac=str(vnic.mac),
        )
    late = [each for each in confirmations if each.state != "confirmed"]
    hosts_named = "; ".join(f"{each.host} ({each.detail or each.state})" for each in late)
    return NotConfirmed(
        f"{vnic.ip} is held for vNIC {vnic.id}, but {'no server has' if wait == 'one' else 'not all servers have'} "
        f"confirmed it yet: {hosts_named}. It is pushed by itself once they answer; ask again then.",
        vnic=vnic.id,
        ip=str(vnic.ip),
        mac=str(vnic.mac),
        hosts=[each.host for each in late],
        servers=[{"host": each.host, "state": each.state, "detail": each.detail} for each in confirmations],
    )


def _confirmations(connection: Connection, vnic_id: str) -> list[Confirmation]:
    """What each server that is to serve the vNIC's address says of it, by host."""
    rows = connection.execute(
        select(
            servers.c.host_id,
            servers.c.state,
            servers.c.detail,
            hosts.c.unreachable_reason,
            server_subnets.c.confirmed_revision,
            addresses.c.revision,
        )
        .select_from(addresses)
        .join(vnics, vnics.c.id == addresses.c.vnic_id)
        .join(servers, servers.c.network_id == vnics.c.network_id)
        .join(hosts, hosts.c.id == servers.c.host_id)
        .join(
            server_subnets,
            (server_subnets.c.host_id == servers.c.host_id) & (server_subnets.c.subnet_id == addresses.c.subnet_id),
            isouter=True,
        )
        .where(addresses.c.vnic_id == vnic_id, addresses.c.state == "held", servers.c.state != "stopping")
        .order_by(servers.c.host_id)
    )
    return [_confirmation(row) for row in rows]


def _confirmation(row: AnyRow) -> Confirmation:
    revision = row.confirmed_revision
    if row.state == "running" and revision is not None and revision >= row.revision:
        return Confirmation(host=row.host_id, state="confirmed", revision=revision, detail=None)
    if row.state == "unreachable" or row.unreachable_reason is not None:
        reason = row.unreachable_reason or row.detail
        return Confirmation(host=row.host_id, state="unreachable", revision=revision, detail=reason)
    return Confirmation(host=row.host_id, state="pending", revision=revision, detail=row.detail)


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


def _put_all(ctx: Context, connection: Connection, specs: Sequence[VnicSpec], anew: Container[str] = ()) -> None:
    """Creates or replaces; those of `anew` get a new MAC even if they have one."""
    present = {
        row.id: row
        for row in connection.execute(
            select(vnics).where(vnics.c.id.in_([spec.id for spec in specs])).order_by(vnics.c.id).with_for_update()
        )
    }
    # A thousand vNICs of one call are of few scopes.
    pool_for = cache(partial(scopes.pool_for, connection))
    targets = [
        _target(connection, spec, pool_for(cluster=spec.cluster, vm_pool=spec.vm_pool))
        for spec in sorted(specs, key=lambda spec: spec.id)
    ]
    allowing = set(connection.execute(select(mac_pools_table.c.id).where(mac_pools_table.c.allow_duplicates)).scalars())
    _lock_macs(connection, targets, present, anew)
    returning = macs.may_regain(connection, [spec.id for spec in specs if spec.id not in present])
    taking: dict[Mac, list[macs.Holder]] = {}
    drawing: dict[tuple[str, int | None], list[_Target]] = {}
    # By MAC: two that take the same new ones in different orders would wait for each other.
    for target in sorted(targets, key=lambda target: target.spec.mac or Mac(0)):
        row = present.get(target.spec.id)
        if target.spec.mac is not None:
            if row is None or row.mac != target.spec.mac.value:
                beside = taking.setdefault(target.spec.mac, [])
                macs.claim(ctx, connection, target.spec.mac, target.spec.id, target.pool, beside=beside)
                beside.append(target.holder(allowing))
            target.mac = target.spec.mac
        elif row is not None and row.id not in anew:
            target.mac = Mac(row.mac)
        elif (
            target.spec.id in returning
            and target.spec.id not in anew
            and (regained := macs.regain(connection, target.spec.id)) is not None
        ):
            target.mac = regained
            taking[regained] = [target.holder(allowing)]
        else:
            drawing.setdefault((target.pool, target.subnet), []).append(target)
    for (pool_id, subnet_id), wanting in sorted(drawing.items(), key=lambda each: (each[0][0], each[0][1] or 0)):
        ids = [target.spec.id for target in wanting]
        drawn = macs.draw(ctx, connection, pool_id, ids, _mac_extents(connection, subnet_id))
        for target, mac in zip(wanting, drawn, strict=True):
            target.mac = mac
    new = []
    for target in targets:
        row = present.get(target.spec.id)
        values = target.values(connection)
        if row is None:
            new.append({"id": target.spec.id, "mac_pool_id": target.pool, "running": False, **values})
            continue
        _refuse_change_while_running(
            row, [name for name in ("network", "subnet", "mac") if getattr(row, _COLUMN[name]) != values[_COLUMN[name]]]
        )
        connection.execute(update(vnics).where(vnics.c.id == row.id).values(**values))
        if row.mac != values["mac"]:
            macs.release(ctx, connection, Mac(row.mac), row.id)
    if new:
        connection.execute(insert(vnics), new)
    # Only now does the database show all who have a MAC.
    for target in targets:
        row = present.get(target.spec.id)
        if row is not None and row.mac_pool_id != target.pool:
            scopes.come_under(connection, target.pool, [row.id])


def _lock_macs(
    connection: Connection, targets: Sequence["_Target"], present: Mapping[str, AnyRow], anew: Container[str]
) -> None:
    """Locks what `_put_all` is about to change, unless that is nothing."""
    changing = [
        each
        for each in targets
        if (row := present.get(each.spec.id)) is None
        or each.spec.id in anew
        or each.pool != row.mac_pool_id
        or each.spec.mac not in (None, Mac(row.mac))
    ]
    if changing:
        named = [each.spec.mac for each in changing if each.spec.mac is not None]
        macs.lock(connection, named, [each.spec.id for each in changing], {each.pool for each in changing})


_COLUMN = {"network": "network_id", "subnet": "subnet_id", "mac": "mac"}


@dataclass
class _Target:
    """A vNIC on its way: where it belongs, and the MAC once that is known."""

    spec: VnicSpec
    pool: str
    network: str | None
    subnet: int | None
    mac: Mac | None = None

    def holder(self, allowing: Container[str]) -> macs.Holder:
        """What it is to others that want its MAC, when these pools allow duplicates."""
        spec, pool = self.spec, self.pool
        return macs.Holder(vnic=spec.id, vm=spec.vm, mac_pool=pool, allows_duplicates=pool in allowing)

    def values(self, connection: Connection) -> dict[str, object]:
        """The columns that a caller decides. A vNIC without subnet gets the one that its MAC belongs to."""
        if self.mac is None:
            raise RuntimeError(f"vNIC {self.spec.id} was left without a MAC")
        network, subnet = self.network, self.subnet
        if subnet is None:
            network, subnet = _subnet_by_mac(connection, network, self.mac)
        return {
            "vm": self.spec.vm,
            "name": self.spec.name,
            "cluster_id": self.spec.cluster,
            "vm_pool_id": self.spec.vm_pool,
            "network_id": network,
            "subnet_id": subnet,
            "mac": self.mac.value,
        }


def _target(connection: Connection, spec: VnicSpec, pool: str) -> _Target:
    return _Target(
        spec=spec,
        pool=pool,
        network=_network_of(connection, spec.network, spec.subnet),
        subnet=spec.subnet,
    )


def _refuse_change_while_running(row: AnyRow, changed: Sequence[str]) -> None:
    if changed and row.running:
        raise InUse(
            f"vNIC {row.id} runs, so that its {' and '.join(changed)} cannot change. Stop it first.",
            vnic=row.id,
            fields=list(changed),
        )


def _refuse_repetition(specs: Sequence[VnicSpec]) -> None:
    twice = sorted(name for name, count in Counter(spec.id for spec in specs).items() if count > 1)
    if twice:
        raise FieldInvalid(
            f"vnics: {', '.join(twice)} comes more than once. Name each vNIC once.", field="vnics", value=twice
        )


def _bad_macs(connection: Connection, specs: Sequence[VnicSpec]) -> dict[str, BadMac]:
    """Why a vNIC's MAC is bad, by vNIC; the good ones are left out."""
    named = {spec.mac for spec in specs if spec.mac is not None}
    in_use = macs.holders(connection, named)
    in_range = macs.within_ranges(connection, named)
    bad: dict[str, BadMac] = {}
    seen: dict[Mac, bool] = {}
    paired = {frozenset((one, other)) for one, other in connection.execute(select(twins.c.vnic_id, twins.c.twin_id))}
    for spec in specs:
        if spec.mac is None:
            if _row(connection, spec.id) is None:
                bad[spec.id] = "empty"
            continue
        pool = mac_pools.require(connection, scopes.pool_for(connection, cluster=spec.cluster, vm_pool=spec.vm_pool))
        own = in_use.get(spec.mac, [])
        keeps = any(each.vnic == spec.id for each in own)
        others = [
            each for each in own if each.vnic != spec.id and not (keeps and frozenset((each.vnic, spec.id)) in paired)
        ]
        allowed = pool.allow_duplicates and all(each.allows_duplicates for each in others) and seen.get(spec.mac, True)
        if not spec.mac.is_unicast:
            bad[spec.id] = "not-unicast"
        elif not allowed and (others or (spec.mac in seen and not keeps)):
            bad[spec.id] = "in-use"
        elif spec.mac not in in_range:
            bad[spec.id] = "out-of-range"
        seen[spec.mac] = seen.get(spec.mac, True) and bool(pool.allow_duplicates)
    return bad


def _refuse_bad(connection: Connection, specs: Sequence[VnicSpec], bad: Mapping[str, BadMac]) -> None:
    refused = [spec for spec in specs if spec.mac is not None and bad.get(spec.id) in ("in-use", "not-unicast")]
    if not refused:
        return
    own = macs.holders(connection, [spec.mac for spec in refused if spec.mac is not None])
    coming: dict[Mac | None, list[VnicSpec]] = {}
    for spec in specs:
        coming.setdefault(spec.mac, []).append(spec)
    facts = []
    told = []
    for spec in refused:
        others = [each for each in own.get(spec.mac or Mac(0), ()) if each.vnic != spec.id]
        known = {each.vnic for each in others} | {spec.id}
        others += [_coming_holder(connection, each) for each in coming[spec.mac] if each.id not in known]
        who = ", ".join(f"vNIC {each.vnic} of VM {each.vm}" for each in others)
        told.append(
            f"{spec.id}: {spec.mac} " + (f"is in use by {who}" if bad[spec.id] == "in-use" else "is not unicast")
        )
        facts.append(
            {
                "vnic": spec.id,
                "mac": str(spec.mac),
                "reason": bad[spec.id],
                "holders": [each.facts() for each in others],
            }
        )
    raise MacsBad(
        f"These MACs cannot be taken: {'; '.join(told)}. Import with reassign_bad_macs to give these vNICs new ones. "
        "Nothing was imported.",
        bad=facts,
    )


def _coming_holder(connection: Connection, spec: VnicSpec) -> macs.Holder:
    """What a vNIC of the same import is to others that come with its MAC."""
    pool = mac_pools.require(connection, scopes.pool_for(connection, cluster=spec.cluster, vm_pool=spec.vm_pool))
    return macs.Holder(vnic=spec.id, vm=spec.vm, mac_pool=pool.id, allows_duplicates=pool.allow_duplicates)


def _mac_extents(connection: Connection, subnet_id: int | None) -> list[tuple[int, int]] | None:
    """The MACs that are tied to the subnet; None where none are."""
    rows = connection.execute(
        select(subnet_mac_ranges.c.first, subnet_mac_ranges.c.last)
        .where(subnet_mac_ranges.c.subnet_id == subnet_id)
        .order_by(subnet_mac_ranges.c.first)
    ).all()
    return [(row.first, row.last) for row in rows] or None


def _subnet_by_mac(connection: Connection, network: str | None, mac: Mac) -> tuple[str | None, int | None]:
    """The subnet that the MAC is tied to, on this network or on any, with its network; else the network and None."""
    query = (
        select(subnets_table.c.network_id, subnets_table.c.id)
        .join(subnet_mac_ranges, subnet_mac_ranges.c.subnet_id == subnets_table.c.id)
        .where(subnet_mac_ranges.c.first <= mac.value, subnet_mac_ranges.c.last >= mac.value)
        .order_by(subnets_table.c.id)
        .limit(1)
    )
    if network is not None:
        query = query.where(subnets_table.c.network_id == network)
    found = connection.execute(query).one_or_none()
    return (network, None) if found is None else (found.network_id, found.id)


def _network_of(connection: Connection, network: str | None, subnet: int | None) -> str | None:
    if network is not None:
        networks.require(connection, network)
    if subnet is None:
        return network
    own: str = subnets.require(connection, subnet).network_id
    if network not in (None, own):
        raise FieldInvalid(
            f"subnet: {subnet} is on network {own}, not on {network}. "
            f"Name a subnet of {network}, or leave network out.",
            field="subnet",
            value=subnet,
        )
    return own


def _row(connection: Connection, vnic_id: str, *, lock: bool = False) -> AnyRow | None:
    query = select(vnics).where(vnics.c.id == vnic_id)
    return connection.execute(query.with_for_update() if lock else query).one_or_none()


def _require(connection: Connection, vnic_id: str) -> AnyRow:
    row = _row(connection, vnic_id, lock=True)
    if row is None:
        raise _missing(vnic_id)
    return row


def _missing(vnic_id: str) -> VnicNotFound:
    return VnicNotFound(f"There is no vNIC {vnic_id!r}. Create it with PUT /v1/vnics/{vnic_id}.", vnic=vnic_id)


def _vnics(connection: Connection, condition: Any, limit: int | None = None) -> list[Vnic]:
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
