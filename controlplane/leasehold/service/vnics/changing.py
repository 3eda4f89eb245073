"""vNICs created, replaced, changed, moved and deleted, each under the MAC pool of its scope."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Vnic, VnicChange, VnicSighting, VnicSpec
from leasehold.errors import FieldInvalid, RevisionMismatch
from leasehold.service import mac_pools, macs, networks, reservations, scopes, subnets
from leasehold.service.context import Context
from leasehold.service.vnics import rows
from leasehold.store.bulk import write_rows
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import subnet_mac_ranges, vnics
from leasehold.store.tables import subnets as subnets_table

WhileRunning = Literal["refuse", "follow"]
"""What becomes of a change of MAC, network or subnet while the vNIC runs: it is refused, or the address follows it."""

_NO_MAC = Mac(0)
_COLUMN = {"network": "network_id", "subnet": "subnet_id", "mac": "mac"}


def put(ctx: Context, spec: VnicSpec, *, dry_run: bool = False) -> tuple[Vnic, bool]:
    """Creates or replaces a vNIC; the second value is True if it is new. A subnet brings its network.

    Raises ScopeNotFound, NetworkNotFound, SubnetNotFound, FieldInvalid for parts that do not fit each other,
    MacNotUnicast, MacTaken, MacPoolExhausted, WouldDuplicate, and InUse for a change of MAC, network or subnet while it
    runs.
    """
    with rows.writing(ctx, dry_run) as connection:
        row = rows.find(connection, spec.id, lock=True)
        put_in(ctx, connection, [spec], {} if row is None else {row.id: row})
        vnic = rows.known(connection, spec.id)
    return vnic, row is None


def put_all(ctx: Context, specs: Sequence[VnicSpec], *, dry_run: bool = False) -> list[Vnic]:
    """Creates or replaces many vNICs, all or none of them; returns them by id. Those without a MAC get theirs
    ascending, in the order of their ids. Raises what `put` raises, and FieldInvalid for an id that comes twice."""
    refuse_repetition(specs)
    with rows.writing(ctx, dry_run) as connection:
        ids = [spec.id for spec in specs]
        put_in(ctx, connection, specs, rows.lock(connection, ids))
        return rows.read(connection, among(connection, vnics.c.id, ids))


def change_in(
    ctx: Context, connection: Connection, vnic_id: str, wanted: VnicChange, *, revision: int | None = None
) -> Vnic:
    """Changes the fields named, in a transaction of `writing`; of a vNIC that runs the address follows. `revision` is
    the one that the caller read. Raises VnicNotFound, RevisionMismatch, SubnetExhausted, MacReserved, and what `put`
    raises but InUse."""
    row = rows.require(connection, vnic_id)
    if revision is not None and revision != row.revision:
        raise RevisionMismatch(
            f"vNIC {vnic_id} is at revision {row.revision}, and not at {revision} as you read it. Read it again, and "
            "repeat your change on that.",
            vnic=vnic_id,
            expected=revision,
            revision=row.revision,
        )
    put_in(
        ctx,
        connection,
        [changed(row, wanted)],
        {vnic_id: row},
        anew={vnic_id} if "mac" in wanted and wanted["mac"] is None else (),
        while_running="follow",
    )
    return rows.known(connection, vnic_id)


def changed(row: AnyRow, wanted: VnicChange) -> VnicSpec:
    """The vNIC's row with the fields named as they are to be."""
    present = VnicSpec(
        id=row.id,
        vm=row.vm,
        name=row.name,
        cluster=row.cluster_id,
        vm_pool=row.vm_pool_id,
        network=row.network_id,
        subnet=row.subnet_id,
    )
    spec = replace(present, **wanted)
    if spec.subnet is not None and "network" not in wanted:
        return replace(spec, network=None)
    if spec.network != present.network and "subnet" not in wanted:
        return replace(spec, subnet=None)
    return spec


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
    with rows.writing(ctx, dry_run) as connection:
        row = rows.require(connection, vnic_id)
        pool_id = scopes.pool_for(connection, cluster=cluster, vm_pool=vm_pool)
        macs.lock(connection, [], [Mac(row.mac)], [pool_id])
        values = {"cluster_id": cluster, "vm_pool_id": vm_pool}
        if new_mac and pool_id != row.mac_pool_id:
            rows.refuse_change_while_running(row, ["mac"])
            (mac,) = macs.draw(ctx, connection, pool_id, [vnic_id], macs.tied_to(connection, row.subnet_id))
            rows.change(connection, vnic_id, **values, mac=mac.value, mac_pool_id=pool_id)
            macs.release(ctx, connection, Mac(row.mac), row.id)
        else:
            rows.change(connection, vnic_id, **values)
            if pool_id != row.mac_pool_id:
                scopes.come_under(connection, pool_id, [vnic_id])
        return rows.known(connection, vnic_id)


def delete_vnic(ctx: Context, vnic_id: str, *, dry_run: bool = False) -> None:
    """Stops the vNIC and lets its MAC go, which cools: the same vNIC has it back until then. Raises VnicNotFound."""
    with rows.writing(ctx, dry_run) as connection:
        delete_in(ctx, connection, rows.require(connection, vnic_id))


def delete_in(ctx: Context, connection: Connection, row: AnyRow) -> None:
    """What `delete_vnic` does, in a transaction of `writing` that has locked the vNIC."""
    # While its twins are known as such: one of them may take the address over.
    reservations.withdraw(ctx, connection, row.id)
    macs.release(ctx, connection, Mac(row.mac), row.id)
    _delete(connection, vnic_id=row.id)


def put_in(
    ctx: Context,
    connection: Connection,
    specs: Sequence[VnicSpec],
    present: Mapping[str, AnyRow],
    anew: Container[str] = (),
    while_running: WhileRunning = "refuse",
    starting: Container[str] = (),
) -> None:
    """What `put_all` does, in a transaction of `writing` that has locked those of the vNICs that are `present`. Those
    of `anew` get a new MAC even if they have one; those of `starting` are about to be started, in this transaction."""
    running = [spec for spec in specs if spec.id in starting or (spec.id in present and present[spec.id].running)]
    _lock_subnets(connection, running, present)
    # A thousand vNICs of one call are of few scopes and networks.
    pool_for = cache(partial(scopes.pool_for, connection))
    network_of = cache(partial(_network_of, connection))
    targets = [
        _Target(
            spec=spec,
            pool=pool_for(cluster=spec.cluster, vm_pool=spec.vm_pool),
            network=network_of(spec.network, spec.subnet),
            subnet=spec.subnet,
            row=present.get(spec.id),
        )
        for spec in sorted(specs, key=lambda spec: spec.id)
    ]
    new = [each.spec.id for each in targets if each.row is None]
    returning = macs.may_regain(connection, new) if new else []
    _lock_macs(connection, targets, anew, [mac for _, mac in returning])
    _give_macs(ctx, connection, targets, anew, {vnic_id for vnic_id, _ in returning})
    _settle_subnets(connection, targets)
    altered = [each for each in targets if each.row is not None and each.changes]
    for target in altered:
        fields = [field for field, column in _COLUMN.items() if column in target.changes]
        if while_running == "refuse" and target.row is not None:
            rows.refuse_change_while_running(target.row, fields)
    _write(connection, targets, altered)
    if seen_again := [row.id for row in present.values() if row.missing_ms is not None]:
        connection.execute(update(vnics).where(among(connection, vnics.c.id, seen_again)).values(missing_ms=None))
    for target in altered:
        row = target.row
        if row is not None and row.running and target.changes.keys() & _COLUMN.values():
            _follow(ctx, connection, row, target)
        if row is not None and "mac" in target.changes:
            macs.release(ctx, connection, Mac(row.mac), row.id)
    # Only now does the database show all who have a MAC.
    coming: dict[str, list[str]] = {}
    for target in targets:
        if target.row is not None and target.row.mac_pool_id != target.pool:
            coming.setdefault(target.pool, []).append(target.spec.id)
    for pool_id, of_pool in sorted(coming.items()):
        scopes.come_under(connection, pool_id, of_pool)


def refuse_repetition(specs: Iterable[VnicSpec | VnicSighting]) -> None:
    """Raises FieldInvalid for an id that comes twice."""
    twice = sorted(name for name, count in Counter(spec.id for spec in specs).items() if count > 1)
    if twice:
        raise FieldInvalid(
            f"vnics: {', '.join(twice)} comes more than once. Name each vNIC once.", field="vnics", value=twice
        )


@dataclass
class _Target:
    """A vNIC on its way: where it belongs, its row if it is here, and the MAC once that is known."""

    spec: VnicSpec
    pool: str
    network: str | None
    subnet: int | None
    row: AnyRow | None
    mac: Mac = _NO_MAC

    def holder(self, allowing: Container[str]) -> macs.Holder:
        """What it is to others that want its MAC, when these pools allow duplicates."""
        spec, pool = self.spec, self.pool
        return macs.Holder(vnic=spec.id, vm=spec.vm, mac_pool=pool, allows_duplicates=pool in allowing)

    @property
    def values(self) -> dict[str, object]:
        """The columns that a caller decides."""
        return {
            "vm": self.spec.vm,
            "name": self.spec.name,
            "cluster_id": self.spec.cluster,
            "vm_pool_id": self.spec.vm_pool,
            "network_id": self.network,
            "subnet_id": self.subnet,
            "mac": self.mac.value,
        }

    @property
    def changes(self) -> dict[str, object]:
        """Those of the columns that are another than before."""
        return {name: value for name, value in self.values.items() if getattr(self.row, name) != value}


def _lock_subnets(connection: Connection, running: Sequence[VnicSpec], present: Mapping[str, AnyRow]) -> None:
    """Locks the subnets that vNICs with addresses are on, or come to, or may come to by their MACs."""
    concerned = {spec.subnet for spec in running}
    if None in concerned:
        concerned.update(connection.execute(select(subnet_mac_ranges.c.subnet_id)).scalars())
    subnets.lock(connection, concerned | {present[spec.id].subnet_id for spec in running if spec.id in present})


def _lock_macs(
    connection: Connection, targets: Sequence[_Target], anew: Container[str], returning: Sequence[Mac]
) -> None:
    """Locks what `put_in` is about to change of MACs, unless that is nothing."""
    changing = [
        each
        for each in targets
        if each.row is None
        or each.spec.id in anew
        or each.pool != each.row.mac_pool_id
        or each.spec.mac not in (None, Mac(each.row.mac))
    ]
    if changing:
        named = [each.spec.mac for each in changing if each.spec.mac is not None]
        own = [Mac(each.row.mac) for each in changing if each.row is not None]
        macs.lock(connection, named, [*own, *returning], {each.pool for each in changing})


def _give_macs(
    ctx: Context, connection: Connection, targets: Sequence[_Target], anew: Container[str], returning: Container[str]
) -> None:
    """Gives each its MAC: the one that it names, else the one that it has, else the one that it let go lately and that
    its subnet takes, else one of its pool."""
    allowing = cache(partial(mac_pools.allowing_duplicates, connection))
    tied_to = cache(partial(macs.tied_to, connection))
    naming: dict[Mac, list[_Target]] = {}
    drawing: dict[tuple[str, int | None], list[_Target]] = {}
    taking: dict[Mac, list[macs.Holder]] = {}
    for target in targets:
        row, wanted = target.row, target.spec.mac
        if wanted is not None:
            target.mac = wanted
            if row is None or row.mac != wanted.value:
                naming.setdefault(wanted, []).append(target)
        elif row is not None and row.id not in anew:
            target.mac = Mac(row.mac)
        elif (
            target.spec.id in returning
            and target.spec.id not in anew
            and (regained := macs.regain(connection, target.spec.id, tied_to(target.subnet))) is not None
        ):
            target.mac = regained
            taking[regained] = [target.holder(allowing())]
        else:
            drawing.setdefault((target.pool, target.subnet), []).append(target)
    unused = macs.claim_unused(ctx, connection, {mac: first.spec.id for mac, (first, *_) in naming.items()})
    # By MAC: two that take the same new ones in different orders would wait for each other.
    for mac, claiming in sorted(naming.items()):
        beside = taking.setdefault(mac, [])
        for target in claiming:
            if mac not in unused or beside:
                macs.claim(ctx, connection, mac, target.spec.id, target.pool, beside=beside)
            beside.append(target.holder(allowing()))
    for (pool_id, subnet_id), wanting in sorted(drawing.items(), key=lambda each: (each[0][0], each[0][1] or 0)):
        ids = [target.spec.id for target in wanting]
        drawn = macs.draw(ctx, connection, pool_id, ids, tied_to(subnet_id))
        for target, mac in zip(wanting, drawn, strict=True):
            target.mac = mac


def _settle_subnets(connection: Connection, targets: Sequence[_Target]) -> None:
    """A vNIC without subnet gets the one that its MAC is tied to, on its network or on any, with its network."""
    without = [each for each in targets if each.subnet is None]
    if not without or not _any_tie(connection):
        return
    for target in without:
        found = _subnet_tied_to(connection, mac=target.mac.value, network=target.network).one_or_none()
        # A renumbering takes the MACs along. One that was under way was waited for, and the new subnet is seen now.
        if found is not None and found.successor_id is not None:
            found = _subnet_tied_to(connection, mac=target.mac.value, network=target.network).one_or_none()
        if found is not None:
            reservations.refuse_retiring(found)
            target.network, target.subnet = found.network_id, found.id


def _write(connection: Connection, targets: Sequence[_Target], altered: Sequence[_Target]) -> None:
    new = [{"id": each.spec.id, "mac_pool_id": each.pool, **each.values} for each in targets if each.row is None]
    if new:
        columns = [vnics.c[name] for name in new[0]]
        rows_of_new = [(*each.values(), False, 1) for each in new]
        write_rows(connection, vnics, [*columns, vnics.c.running, vnics.c.revision], rows_of_new)
    for each in altered:
        _alter(connection, vnic_id=each.spec.id, **each.values)


def _follow(ctx: Context, connection: Connection, row: AnyRow, target: _Target) -> None:
    """Releases the address of a vNIC that runs, and reserves one where it is now, or for the MAC that it has now.

    With another MAC on the same subnet it keeps its address, but not before every server has confirmed that it no
    longer serves it to the old MAC: until then it has none, and `starting.settle` goes on with it.
    """
    reservations.withdraw(ctx, connection, row.id, guest_runs=True)
    if target.subnet is None or not networks.require(connection, str(target.network)).ipam_enabled:
        return
    if not reservations.must_wait(connection, target.subnet, row.id, target.mac):
        reservations.promise(ctx, connection, target.subnet, row.id, target.mac, None)


def _network_of(connection: Connection, network: str | None, subnet: int | None) -> str | None:
    if network is not None:
        networks.require(connection, network)
    if subnet is None:
        return network
    row = subnets.require_kept(connection, subnet)
    reservations.refuse_retiring(row)
    own: str = row.network_id
    if network not in (None, own):
        raise FieldInvalid(
            f"subnet: {subnet} is on network {own}, not on {network}. "
            f"Name a subnet of {network}, or leave network out.",
            field="subnet",
            value=subnet,
        )
    return own


@prepared
def _subnet_tied_to(mac: Any, network: Any) -> Executable:
    """The subnet that the MAC is tied to, on the network or with None on any, kept from being removed or renumbered."""
    return (
        select(subnets_table)
        .join(subnet_mac_ranges, subnet_mac_ranges.c.subnet_id == subnets_table.c.id)
        .where(
            subnet_mac_ranges.c.first <= mac,
            subnet_mac_ranges.c.last >= mac,
            subnets_table.c.network_id == func.coalesce(network, subnets_table.c.network_id),
        )
        .order_by(subnets_table.c.id)
        .limit(1)
        .with_for_update(of=subnets_table, read=True, key_share=True)
    )


@prepared
def _alter(
    vnic_id: Any, vm: Any, name: Any, cluster_id: Any, vm_pool_id: Any, network_id: Any, subnet_id: Any, mac: Any
) -> Executable:
    return (
        update(vnics)
        .where(vnics.c.id == vnic_id)
        .values(
            revision=vnics.c.revision + 1,
            vm=vm,
            name=name,
            cluster_id=cluster_id,
            vm_pool_id=vm_pool_id,
            network_id=network_id,
            subnet_id=subnet_id,
            mac=mac,
        )
    )


@prepared
def _any_tie() -> Executable:
    return select(subnet_mac_ranges.c.subnet_id).limit(1)


@prepared
def _delete(vnic_id: Any) -> Executable:
    return delete(vnics).where(vnics.c.id == vnic_id)
