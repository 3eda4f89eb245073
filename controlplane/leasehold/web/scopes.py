"""`/v1/data-centers`, `/v1/clusters`, `/v1/vm-pools`: alike, but for what is above them."""

from leasehold.domain.values import Scope, ScopeKind
from leasehold.errors import MacPoolNotFound, ScopeInUse, ScopeNotFound, WouldDuplicate
from leasehold.service import scopes
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.wire import Id, In, Listing, Out, Page, PageOut, PageQuery, WriteQuery, id_key

routes = Routes("scopes")
_scopes = Listing[Scope, str]("scopes", lambda each: each.id, id_key)


class DataCenterIn(In):
    """A data center. `mac_pool` null: the default."""

    mac_pool: Id | None = None


class ScopeIn(In):
    """A cluster, with the data center that it is in, or a VM pool, with its cluster. `mac_pool` null: the parent's."""

    parent: Id | None = None
    mac_pool: Id | None = None


class ScopeOut(Out):
    """A data center, cluster or VM pool. `effective_mac_pool` is where its vNICs get their MACs from: its own pool,
    else its parent's, else the default."""

    id: str
    parent: str | None
    mac_pool: str | None
    effective_mac_pool: str


class ScopePage(PageOut[ScopeOut]):
    """Part of a list of scopes."""


_PUT_ERRORS = [ScopeNotFound, MacPoolNotFound, WouldDuplicate]


@routes.on(
    "PUT", "/data-centers/<scope_id>", roles=WRITERS, answer=ScopeOut, statuses=(200, 201), errors=_PUT_ERRORS[1:]
)
def put_data_center(ctx: Context, scope_id: Id, query: WriteQuery, body: DataCenterIn) -> Reply[Scope]:
    """Creates or replaces a data center. Its vNICs keep their MACs, under the rules of the pool that is theirs now."""
    return _put(ctx, "data_center", scope_id, query, None, body.mac_pool)


@routes.on("PUT", "/clusters/<scope_id>", roles=WRITERS, answer=ScopeOut, statuses=(200, 201), errors=_PUT_ERRORS)
def put_cluster(ctx: Context, scope_id: Id, query: WriteQuery, body: ScopeIn) -> Reply[Scope]:
    """Creates or replaces a cluster. Its vNICs keep their MACs, under the rules of the pool that is theirs now."""
    return _put(ctx, "cluster", scope_id, query, body.parent, body.mac_pool)


@routes.on("PUT", "/vm-pools/<scope_id>", roles=WRITERS, answer=ScopeOut, statuses=(200, 201), errors=_PUT_ERRORS)
def put_vm_pool(ctx: Context, scope_id: Id, query: WriteQuery, body: ScopeIn) -> Reply[Scope]:
    """Creates or replaces a VM pool. Its vNICs keep their MACs, under the rules of the pool that is theirs now."""
    return _put(ctx, "vm_pool", scope_id, query, body.parent, body.mac_pool)


@routes.on("GET", "/data-centers", roles=READERS, answer=ScopePage)
def list_data_centers(ctx: Context, query: PageQuery) -> Page[Scope]:
    """Every data center, by id."""
    return _scopes.page_of(query, scopes.list_scopes(ctx, "data_center"))


@routes.on("GET", "/clusters", roles=READERS, answer=ScopePage)
def list_clusters(ctx: Context, query: PageQuery) -> Page[Scope]:
    """Every cluster, by id."""
    return _scopes.page_of(query, scopes.list_scopes(ctx, "cluster"))


@routes.on("GET", "/vm-pools", roles=READERS, answer=ScopePage)
def list_vm_pools(ctx: Context, query: PageQuery) -> Page[Scope]:
    """Every VM pool, by id."""
    return _scopes.page_of(query, scopes.list_scopes(ctx, "vm_pool"))


@routes.on("GET", "/data-centers/<scope_id>", roles=READERS, answer=ScopeOut, errors=[ScopeNotFound])
def get_data_center(ctx: Context, scope_id: Id) -> Scope:
    """One data center."""
    return scopes.get(ctx, "data_center", scope_id)


@routes.on("GET", "/clusters/<scope_id>", roles=READERS, answer=ScopeOut, errors=[ScopeNotFound])
def get_cluster(ctx: Context, scope_id: Id) -> Scope:
    """One cluster."""
    return scopes.get(ctx, "cluster", scope_id)


@routes.on("GET", "/vm-pools/<scope_id>", roles=READERS, answer=ScopeOut, errors=[ScopeNotFound])
def get_vm_pool(ctx: Context, scope_id: Id) -> Scope:
    """One VM pool."""
    return scopes.get(ctx, "vm_pool", scope_id)


@routes.on("DELETE", "/data-centers/<scope_id>", roles=WRITERS, errors=[ScopeNotFound, ScopeInUse])
def delete_data_center(ctx: Context, scope_id: Id, query: WriteQuery) -> None:
    """Deletes a data center without clusters."""
    scopes.delete_scope(ctx, "data_center", scope_id, dry_run=query.dry_run)


@routes.on("DELETE", "/clusters/<scope_id>", roles=WRITERS, errors=[ScopeNotFound, ScopeInUse])
def delete_cluster(ctx: Context, scope_id: Id, query: WriteQuery) -> None:
    """Deletes a cluster without VM pools and vNICs."""
    scopes.delete_scope(ctx, "cluster", scope_id, dry_run=query.dry_run)


@routes.on("DELETE", "/vm-pools/<scope_id>", roles=WRITERS, errors=[ScopeNotFound, ScopeInUse])
def delete_vm_pool(ctx: Context, scope_id: Id, query: WriteQuery) -> None:
    """Deletes a VM pool without vNICs."""
    scopes.delete_scope(ctx, "vm_pool", scope_id, dry_run=query.dry_run)


def _put(
    ctx: Context, kind: ScopeKind, scope_id: str, query: WriteQuery, parent: str | None, mac_pool: str | None
) -> Reply[Scope]:
    scope, created = scopes.put(ctx, kind, scope_id, parent=parent, mac_pool=mac_pool, dry_run=query.dry_run)
    path = f"/v1/{kind.replace('_', '-')}s/{scope_id}"
    return Reply.put(scope, created and not query.dry_run, path)
