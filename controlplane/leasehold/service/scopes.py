"""Scopes: data centers, clusters and VM pools. The most specific with a MAC pool of its own wins, else the default."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from sqlalchemy import Connection, Select, case, delete, func, insert, select, update
from sqlalchemy.sql.base import Executable

from leasehold.domain.values import Scope, ScopeKind
from leasehold.errors import FieldInvalid, ScopeInUse, ScopeNotFound
from leasehold.service import mac_pools
from leasehold.service import macs as macs_service
from leasehold.service.context import Context
from leasehold.store.database import AnyRow
from leasehold.store.prepared import prepared
from leasehold.store.sets import among
from leasehold.store.tables import mac_pools as mac_pools_table
from leasehold.store.tables import scopes, vnics

PARENT: dict[ScopeKind, ScopeKind | None] = {"data_center": None, "cluster": "data_center", "vm_pool": "cluster"}
_WORDS: dict[ScopeKind, str] = {"data_center": "data center", "cluster": "cluster", "vm_pool": "VM pool"}
_NAMED = 50
_own, _above, _top = scopes.alias("own"), scopes.alias("above"), scopes.alias("top")


def put(
    ctx: Context,
    kind: ScopeKind,
    scope_id: str,
    *,
    parent: str | None = None,
    mac_pool: str | None = None,
    dry_run: bool = False,
) -> tuple[Scope, bool]:
    """Creates or replaces a scope; the second value is True if it is new. With another MAC pool, or below another
    parent, its vNICs keep their MACs, and come under the rules of the pool that is theirs from then on.

    Raises ScopeNotFound for an unknown parent, MacPoolNotFound, FieldInvalid for a data center with a parent and for a
    VM pool whose vNICs are of another cluster, WouldDuplicate.
    """
    with ctx.db.write(dry_run=dry_run) as connection:
        macs_service.change_rules(connection)
        return put_in(connection, kind, scope_id, parent=parent, mac_pool=mac_pool)


def put_in(
    connection: Connection, kind: ScopeKind, scope_id: str, *, parent: str | None, mac_pool: str | None
) -> tuple[Scope, bool]:
    """What `put` does, as part of this transaction."""
    above = PARENT[kind]
    if above is None and parent is not None:
        raise FieldInvalid("parent: a data center has none. Leave it out.", field="parent", value=parent)
    if above is not None and parent is not None:
        require(connection, above, parent)
    if mac_pool is not None:
        mac_pools.require(connection, mac_pool)
    own = (scopes.c.kind == kind) & (scopes.c.id == scope_id)
    values = {"parent_id": parent, "mac_pool_id": mac_pool}
    changed = connection.execute(update(scopes).where(own).values(**values)).rowcount
    if changed:
        _come_under_new_rules(connection, kind, scope_id)
    else:
        connection.execute(insert(scopes).values(kind=kind, id=scope_id, **values))
    return _scope(require(connection, kind, scope_id)), not changed


def exists(connection: Connection, kind: ScopeKind, scope_id: str) -> bool:
    """True if there is such a scope."""
    own = (scopes.c.kind == kind) & (scopes.c.id == scope_id)
    return connection.execute(select(scopes.c.id).where(own)).one_or_none() is not None


def get(ctx: Context, kind: ScopeKind, scope_id: str) -> Scope:
    """Raises ScopeNotFound."""
    with ctx.db.read() as connection:
        return _scope(require(connection, kind, scope_id))


def list_scopes(ctx: Context, kind: ScopeKind) -> list[Scope]:
    """All of a kind, by id."""
    with ctx.db.read() as connection:
        rows = connection.execute(_scopes().where(_own.c.kind == kind).order_by(_own.c.id)).all()
        return [_scope(row) for row in rows]


def delete_scope(ctx: Context, kind: ScopeKind, scope_id: str, *, dry_run: bool = False) -> None:
    """Raises ScopeNotFound, ScopeInUse while other scopes or vNICs are in it."""
    with ctx.db.write(dry_run=dry_run) as connection:
        macs_service.change_rules(connection)
        require(connection, kind, scope_id)
        children = [f"{_WORDS[each.kind]} {each.id}" for each in _children(connection, kind, scope_id)]
        inside = _vnics_in(connection, kind, [scope_id])[:_NAMED]
        if children or inside:
            named = ", ".join([*children, *(f"vNIC {each}" for each in inside)])
            raise ScopeInUse(
                f"{_WORDS[kind].capitalize()} {scope_id} has {named}. Move or delete them first.",
                kind=kind,
                scope=scope_id,
                children=children,
                vnics=inside,
            )
        connection.execute(delete(scopes).where(scopes.c.kind == kind, scopes.c.id == scope_id))


def pool_for(connection: Connection, *, cluster: str | None, vm_pool: str | None) -> str:
    """The id of the MAC pool for a vNIC of this cluster and VM pool. Raises ScopeNotFound, FieldInvalid for a VM pool
    of another cluster."""
    at = None if cluster is None else require(connection, "cluster", cluster)
    if vm_pool is not None:
        around = at
        at = require(connection, "vm_pool", vm_pool)
        if cluster is not None and at.parent_id is not None and at.parent_id != cluster:
            raise FieldInvalid(
                f"vm_pool: {vm_pool} is of cluster {at.parent_id}, not of {cluster}. Name one of {cluster}.",
                field="vm_pool",
                value=vm_pool,
            )
        if at.mac_pool_id is None and at.parent_id is None:
            at = around
    return mac_pools.default_pool(connection) if at is None else str(at.effective_pool_id)


def require(connection: Connection, kind: ScopeKind, scope_id: str) -> AnyRow:
    """The scope's row, with `effective_pool_id`: its own MAC pool, else the nearest above it, else the default. Raises
    ScopeNotFound."""
    row = _find(connection, kind=kind, scope_id=scope_id).one_or_none()
    if row is None:
        path = kind.replace("_", "-") + "s"
        raise ScopeNotFound(
            f"There is no {_WORDS[kind]} {scope_id!r}. Create it first with PUT /v1/{path}/{scope_id}.",
            kind=kind,
            scope=scope_id,
        )
    return row


def _scope(row: AnyRow) -> Scope:
    return Scope(
        kind=row.kind,
        id=row.id,
        parent=row.parent_id,
        mac_pool=row.mac_pool_id,
        effective_mac_pool=row.effective_pool_id,
    )


def _children(connection: Connection, kind: ScopeKind, scope_id: str) -> list[AnyRow]:
    below: list[ScopeKind] = [each for each, above in PARENT.items() if above == kind]
    return list(
        connection.execute(
            select(scopes).where(scopes.c.kind.in_(below), scopes.c.parent_id == scope_id).order_by(scopes.c.id)
        )
    )


def _vnics_in(connection: Connection, kind: Literal["cluster", "vm_pool", "data_center"], ids: list[str]) -> list[str]:
    """vNICs that name one of these scopes themselves."""
    if kind == "data_center":
        return []
    column = vnics.c.cluster_id if kind == "cluster" else vnics.c.vm_pool_id
    return list(connection.execute(select(vnics.c.id).where(column.in_(ids)).order_by(vnics.c.id)).scalars())


def _come_under_new_rules(connection: Connection, kind: ScopeKind, scope_id: str) -> None:
    """Puts the vNICs in and below the scope under the pool that is theirs now. Raises WouldDuplicate."""
    inside: set[str] = set()
    level: list[tuple[ScopeKind, str]] = [(kind, scope_id)]
    while level:
        for at, name in level:
            inside.update(_vnics_in(connection, at, [name]))
        level = [(each.kind, each.id) for at, name in level for each in _children(connection, at, name)]
    changed: dict[str, list[str]] = {}
    # Many vNICs are of few scopes.
    pool_of = cache(lambda cluster, vm_pool: pool_for(connection, cluster=cluster, vm_pool=vm_pool))
    own = select(vnics).where(among(connection, vnics.c.id, inside)).order_by(vnics.c.id).with_for_update()
    for row in connection.execute(own).all():
        pool_id = pool_of(row.cluster_id, row.vm_pool_id)
        if pool_id != row.mac_pool_id:
            changed.setdefault(pool_id, []).append(row.id)
    for pool_id, ids in sorted(changed.items()):
        come_under(connection, pool_id, ids)


def come_under(connection: Connection, pool_id: str, vnic_ids: Iterable[str]) -> None:
    """Puts vNICs with their MACs under the rules of a pool. Raises WouldDuplicate."""
    ids = list(vnic_ids)
    pool = mac_pools.require(connection, pool_id)
    if not pool.allow_duplicates:
        duplicates = macs_service.duplicates_under(connection, pool_id, ids)
        mac_pools.refuse_duplicates(duplicates, f"MAC pool {pool.name}")
    connection.execute(update(vnics).where(among(connection, vnics.c.id, ids)).values(mac_pool_id=pool_id))


def _scopes() -> Select[Any]:
    """Scopes, each with `effective_pool_id`."""
    default = select(mac_pools_table.c.id).where(mac_pools_table.c.default_pool).scalar_subquery()
    above = case(*((_own.c.kind == kind, parent) for kind, parent in PARENT.items() if parent is not None))
    pool = func.coalesce(_own.c.mac_pool_id, _above.c.mac_pool_id, _top.c.mac_pool_id, default)
    return (
        select(_own, pool.label("effective_pool_id"))
        .select_from(_own)
        .join(_above, (_above.c.kind == above) & (_above.c.id == _own.c.parent_id), isouter=True)
        .join(_top, (_top.c.kind == "data_center") & (_top.c.id == _above.c.parent_id), isouter=True)
    )


@prepared
def _find(kind: Any, scope_id: Any) -> Executable:
    return _scopes().where(_own.c.kind == kind, _own.c.id == scope_id)
