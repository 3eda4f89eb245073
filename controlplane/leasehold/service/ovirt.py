"""Takes over the MAC pools, scopes and NICs of an oVirt engine, whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.mac_pools import check_each, joined
from leasehold.domain.values import Imported, MacPool, Overlap, Scope, ScopeKind, Vnic, VnicSpec
from leasehold.errors import MacPoolInvalid
from leasehold.service import mac_pools, mac_ranges, macs, scopes, vnics
from leasehold.service.context import Context
from leasehold.service.macs import Holder
from leasehold.store.sets import among
from leasehold.store.tables import mac_pools as mac_pools_table
from leasehold.store.tables import vnics as vnics_table

_SUFFIX = " (oVirt)"


@dataclass(frozen=True, kw_only=True)
class EnginePool:
    """A MAC pool as the engine has it: its ranges may overlap, each other and those of other pools."""

    id: str
    name: str
    description: str = ""
    allow_duplicates: bool = False
    default_pool: bool = False
    ranges: tuple[MacRange, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineScope:
    """A data center, cluster or VM pool of the engine."""

    kind: ScopeKind
    id: str
    parent: str | None = None
    mac_pool: str | None = None


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What an engine has. VM pools that `nics` name need not be in `scopes`, nor parents of those that are."""

    mac_pools: tuple[EnginePool, ...] = ()
    scopes: tuple[EngineScope, ...] = ()
    nics: tuple[VnicSpec, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """A pool whose name another pool has here already."""

    mac_pool: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class SharedMac:
    """A MAC that several vNICs have, as their pools allow."""

    mac: Mac
    holders: tuple[Holder, ...]


@dataclass(frozen=True, kw_only=True)
class EngineImported:
    """What came, and what is to be worked off.

    `joined` are the pools whose own ranges overlapped, and are one range now. `overlaps` are those of imported pools
    with others, which are kept. `strays` are vNICs whose MAC is outside the ranges of the pool that it is under;
    `vnics.external` names those of them that are outside every pool's. `engine_default` is the engine's default pool,
    which did not become ours.
    """

    mac_pools: tuple[MacPool, ...]
    engine_default: str | None
    renamed: tuple[Renamed, ...]
    joined: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    scopes: tuple[Scope, ...]
    vnics: Imported
    duplicates: tuple[SharedMac, ...]
    strays: tuple[Vnic, ...]


def take_in(ctx: Context, engine: Engine, *, reassign_bad_macs: bool = False, dry_run: bool = False) -> EngineImported:
    """Creates or replaces the engine's pools, scopes and vNICs under the engine's own ids, all or none of them.

    A cluster without a pool comes under the engine's default pool, as it does there; which pool is the default here
    does not change. vNICs that are here already keep their network and subnet. Raises MacPoolInvalid, RangeInvalid,
    RangeNotUnicast, NameTaken, MacPoolNotFound for a pool that a scope names and nobody has, DuplicatesInUse,
    WouldDuplicate, and what `vnics.take_in` raises.
    """
    for pool in engine.mac_pools:
        if not pool.name.strip():
            raise MacPoolInvalid(
                f"mac_pools.{pool.id}.name: it is empty. Give the MAC pool a name in the engine first.",
                field="name",
                value=pool.name,
            )
        check_each(pool.ranges, f"mac_pools.{pool.name}.ranges")
    default = next((pool.id for pool in engine.mac_pools if pool.default_pool), None)
    named = ", ".join(pool.name for pool in engine.mac_pools)
    with mac_pools.naming(named), vnics.writing(ctx, dry_run, changes_rules=True) as connection:
        renamed = _take_pools(ctx, connection, engine.mac_pools)
        taken = _take_scopes(connection, engine, default)
        imported = vnics.take_in_with(
            ctx, connection, _placed(connection, engine.nics), reassign_bad_macs=reassign_bad_macs
        )
        ids = {pool.id for pool in engine.mac_pools}
        shared = macs.holders(connection, {vnic.mac for vnic in imported.vnics})
        return EngineImported(
            mac_pools=tuple(mac_pools.get_in(connection, pool.id) for pool in engine.mac_pools),
            engine_default=default,
            renamed=renamed,
            joined=tuple(pool.id for pool in engine.mac_pools if len(joined(pool.ranges)) < len(pool.ranges)),
            overlaps=tuple(
                each for each in mac_ranges.overlapping(connection) if {each.mac_pool, each.other_pool} & ids
            ),
            scopes=taken,
            vnics=imported,
            duplicates=tuple(
                SharedMac(mac=mac, holders=tuple(own)) for mac, own in sorted(shared.items()) if len(own) > 1
            ),
            strays=tuple(vnic for vnic in imported.vnics if not vnic.in_range),
        )


def _take_pools(ctx: Context, connection: Connection, pools: Sequence[EnginePool]) -> tuple[Renamed, ...]:
    """Every engine calls its first pool "Default", as we do: a name that is another's here gets a suffix."""
    coming = {pool.id for pool in pools}
    others = {
        row.name
        for row in connection.execute(select(mac_pools_table.c.id, mac_pools_table.c.name))
        if row.id not in coming
    }
    renamed = []
    for pool in pools:
        name = pool.name
        if name in others:
            name += _SUFFIX
            renamed.append(Renamed(mac_pool=pool.id, before=pool.name, after=name))
        mac_pools.take_in(
            ctx,
            connection,
            pool.id,
            name=name,
            description=pool.description,
            allow_duplicates=pool.allow_duplicates,
            ranges=joined(pool.ranges),
        )
    return tuple(renamed)


def _take_scopes(connection: Connection, engine: Engine, default: str | None) -> tuple[Scope, ...]:
    """From the data centers down, so that each finds its parent. What is only named, and is here, stays as it is."""
    wanted = {(each.kind, each.id): each for each in _mentioned(engine)}
    described = {(each.kind, each.id): each for each in engine.scopes}
    taken = []
    for kind in scopes.PARENT:
        for key, each in sorted({**wanted, **described}.items()):
            if each.kind == kind and (key in described or not scopes.exists(connection, kind, each.id)):
                pool = each.mac_pool or (default if kind == "cluster" else None)
                scope, _ = scopes.put_in(connection, kind, each.id, parent=each.parent, mac_pool=pool)
                taken.append(scope)
    return tuple(taken)


def _mentioned(engine: Engine) -> list[EngineScope]:
    """The parents of scopes, and the clusters and VM pools of NICs."""
    found = []
    for scope in engine.scopes:
        above = scopes.PARENT[scope.kind]
        if above is not None and scope.parent is not None:
            found.append(EngineScope(kind=above, id=scope.parent))
    for nic in engine.nics:
        if nic.cluster is not None:
            found.append(EngineScope(kind="cluster", id=nic.cluster))
        if nic.vm_pool is not None:
            found.append(EngineScope(kind="vm_pool", id=nic.vm_pool, parent=nic.cluster))
    return found


def _placed(connection: Connection, nics: Sequence[VnicSpec]) -> list[VnicSpec]:
    """With the network and subnet that they have here already, of which the engine says nothing."""
    present = {
        row.id: row
        for row in connection.execute(
            select(vnics_table.c.id, vnics_table.c.network_id, vnics_table.c.subnet_id).where(
                among(connection, vnics_table.c.id, [nic.id for nic in nics])
            )
        )
    }
    return [
        replace(nic, network=present[nic.id].network_id, subnet=present[nic.id].subnet_id) if nic.id in present else nic
        for nic in nics
    ]
