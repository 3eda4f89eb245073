"""`leasehold vnic`."""

from functools import partial
from typing import BinaryIO, cast

import click

from leasehold.cli.arguments import FILE, ID, MAC, checked, read_body
from leasehold.cli.opening import open_database
from leasehold.cli.paging import all_of
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    columns_of,
    dry_run_option,
    note,
    note_dry_run,
    print_as,
    print_fields,
    print_table,
)
from leasehold.domain.addresses import Mac
from leasehold.domain.values import Confirmation, Reassigned, Started, Synced, Vnic, Wait
from leasehold.service import vnics
from leasehold.web.vnics import (
    BulkIn,
    ImportedOut,
    ImportIn,
    NamedVnicIn,
    StartedOut,
    StartIn,
    SyncedOut,
    SyncIn,
    VnicOut,
    VnicPatch,
)

_FIELDS: Columns[Vnic] = {
    "id": lambda each: each.id,
    "vm": lambda each: each.vm,
    "name": lambda each: each.name,
    "cluster": lambda each: each.cluster,
    "vm pool": lambda each: each.vm_pool,
    "network": lambda each: each.network,
    "subnet": lambda each: each.subnet,
    "mac": lambda each: each.mac,
    "mac pool": lambda each: each.mac_pool,
    "in range": lambda each: each.in_range,
    "twins": lambda each: each.twins,
    "ip": lambda each: each.ip,
    "ip state": lambda each: each.ip_state,
    "running": lambda each: each.running,
    "missing since": lambda each: each.missing_since,
    "revision": lambda each: each.revision,
}
COLUMNS = columns_of(_FIELDS, "id", "vm", "name", "network", "subnet", "mac", "ip", "running")
REASSIGNED: Columns[Reassigned] = {
    "vnic": lambda each: each.vnic,
    "before": lambda each: each.before,
    "after": lambda each: each.after,
    "why": lambda each: each.reason,
}
_DIFFERENCE: Columns[tuple[str, str, str]] = {
    "what": lambda each: each[0],
    "vnic": lambda each: each[1],
    "more": lambda each: each[2],
}
_CONFIRMATION: Columns[Confirmation] = {
    "host": lambda each: each.host,
    "state": lambda each: each.state,
    "why": lambda each: each.detail,
}
_wait = click.option(
    "--wait",
    type=click.Choice(["one", "all", "none"]),
    default="one",
    show_default=True,
    help="How many servers must have confirmed the address.",
)
_vnic = click.argument("vnic_id", metavar="ID", type=ID)
_twin = click.argument("twin_id", metavar="TWIN", type=ID)
_cluster = click.option("--cluster", type=ID, help="The cluster that it is in.")
_vm_pool = click.option("--vm-pool", type=ID, help="The VM pool that it is in.")


@click.group()
def vnic() -> None:
    """vNICs: network interfaces of VMs, and their MACs."""


@vnic.command("list")
@click.option("--vm", help="Only those of this VM.")
@click.option("--network", type=ID, help="Only those on this network.")
@click.option("--subnet", type=click.IntRange(min=1), help="Only those on this subnet.")
@click.option("--running/--stopped", default=None, help="Only those that run, or that do not.")
@as_json_option
def list_vnics(as_json: bool, **wanted: object) -> None:
    """List vNICs: those for which all holds that is named."""
    named = {name: value for name, value in wanted.items() if value is not None}
    every = all_of(partial(vnics.list_vnics, open_database()), lambda each: each.id)
    _print_all([each for each in every if all(getattr(each, name) == named[name] for name in named)], as_json)


@vnic.command()
@_vnic
@as_json_option
def show(vnic_id: str, as_json: bool) -> None:
    """Show one vNIC."""
    _print(vnics.get(open_database(), vnic_id), as_json)


@vnic.command()
@_vnic
@click.option("--vm", required=True, help="The VM that it is of.")
@click.option("--name", required=True, help="Its name in the VM.")
@_cluster
@_vm_pool
@click.option("--network", type=ID, help="The network that it is on; a subnet brings its own.")
@click.option("--subnet", type=int, help="The number of the subnet that its address is from.")
@click.option("--mac", type=MAC, help="This very MAC; without, the one that it has, or one of its MAC pool.")
@dry_run_option
@as_json_option
def put(
    vnic_id: str,
    vm: str,
    name: str,
    cluster: str | None,
    vm_pool: str | None,
    network: str | None,
    subnet: int | None,
    mac: Mac | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create or replace a vNIC. What is left out has its default."""
    body = checked(
        NamedVnicIn,
        {
            "id": vnic_id,
            "vm": vm,
            "name": name,
            "cluster": cluster,
            "vm_pool": vm_pool,
            "network": network,
            "subnet": subnet,
            "mac": mac,
        },
    )
    found, _ = vnics.put(open_database(), body.spec(body.id), dry_run=dry_run)
    _print(found, as_json, dry_run)


@vnic.command()
@_vnic
@_cluster
@_vm_pool
@click.option("--new-mac", is_flag=True, help="Give it a MAC of the pool there, if that is another.")
@dry_run_option
@as_json_option
def move(vnic_id: str, cluster: str | None, vm_pool: str | None, new_mac: bool, dry_run: bool, as_json: bool) -> None:
    """Move a vNIC to another cluster or VM pool.

    And so under another MAC pool; it keeps its MAC, unless told otherwise."""
    found = vnics.move(open_database(), vnic_id, cluster=cluster, vm_pool=vm_pool, new_mac=new_mac, dry_run=dry_run)
    _print(found, as_json, dry_run)


@vnic.command()
@_vnic
@dry_run_option
def delete(vnic_id: str, dry_run: bool) -> None:
    """Delete a vNIC. Its MAC cools: the same vNIC has it back until then."""
    vnics.delete_vnic(open_database(), vnic_id, dry_run=dry_run)
    note_dry_run(dry_run)


@vnic.command()
@_vnic
@_twin
@dry_run_option
@as_json_option
def twin(vnic_id: str, twin_id: str, dry_run: bool, as_json: bool) -> None:
    """Give the vNIC the MAC of TWIN, to share it on purpose."""
    _print(vnics.make_twins(open_database(), vnic_id, twin_id, dry_run=dry_run), as_json, dry_run)


@vnic.command()
@_vnic
@_twin
@dry_run_option
@as_json_option
def untwin(vnic_id: str, twin_id: str, dry_run: bool, as_json: bool) -> None:
    """End that two vNICs are twins: ID gets a MAC of its own."""
    _print(vnics.part_twins(open_database(), vnic_id, twin_id, dry_run=dry_run), as_json, dry_run)


@vnic.command()
@click.argument("file", type=FILE)
@dry_run_option
@as_json_option
def bulk(file: BinaryIO, dry_run: bool, as_json: bool) -> None:
    """Create or replace the vNICs of FILE, all or none.

    FILE is JSON as POST /v1/vnics/bulk takes it; - is stdin."""
    body = read_body(BulkIn, file)
    found = vnics.put_all(open_database(), [each.spec(each.id) for each in body.vnics], dry_run=dry_run)
    _print_all(found, as_json, dry_run)


@vnic.command("import")
@click.argument("file", type=FILE)
@click.option("--reassign-bad-macs", is_flag=True, help="Give new MACs for bad ones, also if FILE does not say so.")
@dry_run_option
@as_json_option
def import_vnics(file: BinaryIO, reassign_bad_macs: bool, dry_run: bool, as_json: bool) -> None:
    """Import the vNICs of FILE with their MACs, all or none.

    FILE is JSON as POST /v1/vnics/import takes it; - is stdin."""
    body = read_body(ImportIn, file)
    imported = vnics.take_in(
        open_database(),
        [each.spec(each.id) for each in body.vnics],
        reassign_bad_macs=reassign_bad_macs or body.reassign_bad_macs,
        dry_run=dry_run,
    )
    if as_json:
        print_as(ImportedOut, imported)
        return
    print_table(COLUMNS, imported.vnics)
    if imported.reassigned:
        print_table(REASSIGNED, imported.reassigned, "New MACs")
    if imported.external:
        outside = set(imported.external)
        print_table(COLUMNS, [each for each in imported.vnics if each.id in outside], "Outside every pool's ranges")
    note_dry_run(dry_run)


@vnic.command()
@click.argument("file", type=FILE)
@click.option("--reassign-bad-macs", is_flag=True, help="Give new MACs for bad ones, also if FILE does not say so.")
@click.option("--allow-empty", is_flag=True, help="Take an empty list for what it says: the engine has no vNIC.")
@dry_run_option
@as_json_option
def sync(file: BinaryIO, reassign_bad_macs: bool, allow_empty: bool, dry_run: bool, as_json: bool) -> None:
    """Bring vNICs in step with the engine's full list in FILE.

    FILE is JSON as POST /v1/vnics/sync takes it; - is stdin."""
    body = read_body(SyncIn, file)
    synced = vnics.sync(
        open_database(),
        [each.sighting() for each in body.vnics],
        reassign_bad_macs=reassign_bad_macs or body.reassign_bad_macs,
        allow_empty=allow_empty,
        dry_run=dry_run,
    )
    if as_json:
        print_as(SyncedOut, synced)
        return
    print_table(_DIFFERENCE, _differences(synced))
    note(f"{synced.unchanged} vNICs are as the engine has them.")
    note_dry_run(dry_run)


@vnic.command()
@_vnic
@click.option("--vm", help="The VM that it is of.")
@click.option("--name", help="Its name in the VM.")
@_cluster
@_vm_pool
@click.option("--network", type=ID, help="The network that it is on; takes it off a subnet of another.")
@click.option("--subnet", type=int, help="The number of the subnet that its address is from.")
@click.option("--mac", type=MAC, help="This very MAC.")
@click.option("--new-mac", is_flag=True, help="Another MAC, of its MAC pool.")
@click.option(
    "--clear",
    "cleared",
    multiple=True,
    type=click.Choice(["cluster", "vm-pool", "network", "subnet"]),
    help="Take it out of its cluster or VM pool, or off its network or subnet; may be repeated.",
)
@click.option("--revision", type=int, help="Only if it is still at this revision.")
@_wait
@dry_run_option
@as_json_option
def change(
    vnic_id: str,
    new_mac: bool,
    cleared: tuple[str, ...],
    revision: int | None,
    wait: str,
    dry_run: bool,
    as_json: bool,
    **named: object,
) -> None:
    """Change what is named of a vNIC. While it runs, its address follows."""
    wanted = {name: value for name, value in named.items() if value is not None}
    none = dict.fromkeys([*(each.replace("-", "_") for each in cleared), *(["mac"] if new_mac else [])])
    if twice := sorted(none.keys() & wanted.keys()):
        raise click.UsageError(f"One option sets {', '.join(twice)}, and another one takes it away.")
    body = checked(VnicPatch, wanted | none)
    found = vnics.change(
        open_database(), vnic_id, body.change(), revision=revision, wait=cast(Wait, wait), dry_run=dry_run
    )
    _print_started(found, as_json, dry_run)


@vnic.command()
@_vnic
@click.option("--ip", help="This very address.")
@_wait
@dry_run_option
@as_json_option
def start(vnic_id: str, ip: str | None, wait: str, dry_run: bool, as_json: bool) -> None:
    """Promise a vNIC an address, and wait until servers have it on disk."""
    body = checked(StartIn, {"wait": wait, "ip": ip})
    found = vnics.start(open_database(), vnic_id, wait=body.wait, ip=body.ip, dry_run=dry_run)
    _print_started(found, as_json, dry_run)


@vnic.command()
@_vnic
@dry_run_option
@as_json_option
def stop(vnic_id: str, dry_run: bool, as_json: bool) -> None:
    """Withdraw a vNIC's address; the MAC stays."""
    _print(vnics.stop(open_database(), vnic_id, dry_run=dry_run), as_json, dry_run)


def _differences(synced: Synced) -> list[tuple[str, str, str]]:
    """A line for each difference: what, which vNIC, and more."""
    plain = ("created", "returned", "external", "marked", "missing", "deleted", "started", "stopped")
    lines = [(name, vnic_id, "") for name in plain for vnic_id in getattr(synced, name)]
    lines += [("updated", each.vnic, ", ".join(each.fields)) for each in synced.updated]
    lines += [("reassigned", each.vnic, f"{each.before} to {each.after}: {each.reason}") for each in synced.reassigned]
    lines += [
        ("refused", each.vnic, f"{each.mac}: {each.reason} {', '.join(each.holders)}".strip())
        for each in synced.refused
    ]
    lines += [("not started", each.vnic, each.detail) for each in synced.not_started]
    return sorted(lines)


def _print_started(found: Started, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_as(StartedOut, found)
        return
    print_fields(_FIELDS, found.vnic)
    if found.servers:
        print_table(_CONFIRMATION, found.servers, "Servers")
    note_dry_run(dry_run)


def _print_all(found: list[Vnic], as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(list[VnicOut], found)
    else:
        print_table(COLUMNS, found)
        note_dry_run(dry_run)


def _print(found: Vnic, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(VnicOut, found)
    else:
        print_fields(_FIELDS, found)
        note_dry_run(dry_run)
