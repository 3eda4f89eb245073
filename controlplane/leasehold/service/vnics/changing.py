"""vNICs created, replaced, moved and deleted, each under the MAC pool of its scope."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from sqlalchemy import Connection, delete, insert, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Vnic, VnicSpec
from leasehold.errors import FieldInvalid
from leasehold.service import macs, networks, reservations, scopes, subnets
from leasehold.service.context import Context
from leasehold.service.vnics import rows
from leasehold.store.database import AnyRow
from leasehold.store.tables import mac_pools, subnet_mac_ranges, vnics
from leasehold.store.tables import subnets as subnets_table


def put(ctx: Context, spec: VnicSpec, *, dry_run: bool = False) -> tuple[Vnic, bool]:
    """Creates or replaces a vNIC; the second value is True if it is new. A subnet brings its network.

    Raises ScopeNotFound, NetworkNotFound, SubnetNotFound, FieldInvalid for parts that do not fit each other,
    MacNotUnicast, MacTaken, MacPoolExhausted, WouldDuplicate, and InUse for a change of MAC, network or subnet while it
    runs.
    """
    with rows.writing(ctx, dry_run) as connection:
        created = rows.find(connection, spec.id, lock=True) is None
        put_in(ctx, connection, [spec])
        vnic = rows.read(connection, vnics.c.id == spec.id)[0]
    return vnic, created


def put_all(ctx: Context, specs: Sequence[VnicSpec], *, dry_run: bool = False) -> list[Vnic]:
    """Creates or replaces many vNICs, all or none of them; returns them by id. Those without a MAC get theirs
    ascending, in the order of their ids. Raises what `put` raises, and FieldInvalid for an id that comes twice."""
    refuse_repetition(specs)
    with rows.writing(ctx, dry_run) as connection:
        put_in(ctx, connection, specs)
        return rows.read(connection, vnics.c.id.in_([spec.id for spec in specs]))


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
        macs.lock(connection, [], [vnic_id], [pool_id])
        connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(cluster_id=cluster, vm_pool_id=vm_pool))
        if new_mac and pool_id != row.mac_pool_id:
            rows.refuse_change_while_running(row, ["mac"])
            (mac,) = macs.draw(ctx, connection, pool_id, [vnic_id], macs.tied_to(connection, row.subnet_id))
            connection.execute(update(vnics).where(vnics.c.id == vnic_id).values(mac=mac.value, mac_pool_id=pool_id))
            macs.release(ctx, connection, Mac(row.mac), row.id)
        elif pool_id != row.mac_pool_id:
            scopes.come_under(connection, pool_id, [vnic_id])
        return rows.read(connection, vnics.c.id == vnic_id)[0]


def delete_vnic(ctx: Context, vnic_id: str, *, dry_run: bool = False) -> None:
    """Stops the vNIC and lets its MAC go, which cools: the same vNIC has it back until then. Raises VnicNotFound."""
    with rows.writing(ctx, dry_run) as connection:
        row = rows.require(connection, vnic_id)
        macs.release(ctx, connection, Mac(row.mac), row.id)
        reservations.withdraw(connection, vnic_id)
        connection.execute(delete(vnics).where(vnics.c.id == vnic_id))


def put_in(ctx: Context, connection: Connection, specs: Sequence[VnicSpec], anew: Container[str] = ()) -> None:
    """What `put_all` does, in a transaction of `writing`; those of `anew` get a new MAC even if they have one."""
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
    allowing = set(connection.execute(select(mac_pools.c.id).where(mac_pools.c.allow_duplicates)).scalars())
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
        drawn = macs.draw(ctx, connection, pool_id, ids, macs.tied_to(connection, subnet_id))
        for target, mac in zip(wanting, drawn, strict=True):
            target.mac = mac
    new = []
    for target in targets:
        row = present.get(target.spec.id)
        values = target.values(connection)
        if row is None:
            new.append({"id": target.spec.id, "mac_pool_id": target.pool, "running": False, **values})
            continue
        rows.refuse_change_while_running(
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


def refuse_repetition(specs: Sequence[VnicSpec]) -> None:
    """Raises FieldInvalid for an id that comes twice."""
    twice = sorted(name for name, count in Counter(spec.id for spec in specs).items() if count > 1)
    if twice:
        raise FieldInvalid(
            f"vnics: {', '.join(twice)} comes more than once. Name each vNIC once.", field="vnics", value=twice
        )


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
