"""`leasehold data-center`, `leasehold cluster`, `leasehold vm-pool`: alike, but for what is above them."""

import click

from leasehold.cli.arguments import ID
from leasehold.cli.opening import open_database
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    dry_run_option,
    note_dry_run,
    print_as,
    print_fields,
    print_table,
)
from leasehold.domain.values import Scope, ScopeKind
from leasehold.service import scopes
from leasehold.web.scopes import ScopeOut

_COLUMNS: Columns[Scope] = {
    "id": lambda each: each.id,
    "parent": lambda each: each.parent,
    "mac pool": lambda each: each.mac_pool,
    "effective mac pool": lambda each: each.effective_mac_pool,
}
_scope = click.argument("scope_id", metavar="ID", type=ID)


def _group(kind: ScopeKind, words: str) -> click.Group:
    group = click.Group(kind.replace("_", "-"), help=f"{words[0].upper()}{words[1:]}s, and the MAC pools they use.")
    above = scopes.PARENT[kind]

    @group.command("list", help=f"List all {words}s.")
    @as_json_option
    def list_all(as_json: bool) -> None:
        found = scopes.list_scopes(open_database(), kind)
        if as_json:
            print_as(list[ScopeOut], found)
        else:
            print_table(_COLUMNS, found)

    @group.command(help=f"Show one {words}.")
    @_scope
    @as_json_option
    def show(scope_id: str, as_json: bool) -> None:
        _print(scopes.get(open_database(), kind, scope_id), as_json)

    def put(scope_id: str, mac_pool: str | None, dry_run: bool, as_json: bool, parent: str | None = None) -> None:
        scope, _ = scopes.put(open_database(), kind, scope_id, parent=parent, mac_pool=mac_pool, dry_run=dry_run)
        _print(scope, as_json, dry_run)

    options = [
        _scope,
        click.option("--mac-pool", type=ID, help="Its own MAC pool; without, that of what is above it."),
        dry_run_option,
        as_json_option,
    ]
    if above is not None:
        options.append(click.option("--parent", type=ID, help=f"The {above.replace('_', ' ')} that it is in."))
    for option in reversed(options):
        put = option(put)
    group.command(
        "put",
        help=f"Create or replace a {words}. Its vNICs keep their MACs, under the rules of the pool that is theirs now.",
    )(put)

    @group.command(help=f"Delete a {words} that nothing is in.")
    @_scope
    @dry_run_option
    def delete(scope_id: str, dry_run: bool) -> None:
        scopes.delete_scope(open_database(), kind, scope_id, dry_run=dry_run)
        note_dry_run(dry_run)

    return group


def _print(scope: Scope, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(ScopeOut, scope)
    else:
        print_fields(_COLUMNS, scope)
        note_dry_run(dry_run)


data_center = _group("data_center", "data center")
cluster = _group("cluster", "cluster")
vm_pool = _group("vm_pool", "VM pool")
