"""`leasehold import ovirt-macs`."""

from typing import BinaryIO

import click

from leasehold.cli.arguments import FILE, name_of
from leasehold.cli.mac_pools import COLUMNS as POOLS
from leasehold.cli.mac_pools import OVERLAPS
from leasehold.cli.opening import open_database
from leasehold.cli.ovirt_files import joined, read
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    dry_run_option,
    note,
    note_dry_run,
    print_as,
    print_table,
)
from leasehold.cli.vnics import COLUMNS as VNICS
from leasehold.cli.vnics import REASSIGNED
from leasehold.domain.values import ScopeKind, Vnic
from leasehold.service import ovirt
from leasehold.service.ovirt import EngineImported, SharedMac
from leasehold.web.mac_pools import MacPoolOut, OverlapOut
from leasehold.web.scopes import ScopeOut
from leasehold.web.vnics import ImportedOut, VnicOut
from leasehold.web.wire import MacText, Out


class RenamedOut(Out):
    """A pool whose name another has here already."""

    mac_pool: str
    before: str
    after: str


class HolderOut(Out):
    """A vNIC that has a MAC, and the pool whose rules that is under."""

    vnic: str
    vm: str
    mac_pool: str


class SharedMacOut(Out):
    """A MAC that several vNICs have, as their pools allow."""

    mac: MacText
    holders: list[HolderOut]


class ImportedScopeOut(ScopeOut):
    """A scope and what it is."""

    kind: ScopeKind


class EngineImportedOut(Out):
    """What came, and what is to be worked off."""

    mac_pools: list[MacPoolOut]
    engine_default: str | None
    renamed: list[RenamedOut]
    joined: list[str]
    overlaps: list[OverlapOut]
    scopes: list[ImportedScopeOut]
    vnics: ImportedOut
    duplicates: list[SharedMacOut]
    strays: list[VnicOut]


_DUPLICATES: Columns[SharedMac] = {
    "mac": lambda each: each.mac,
    "holders": lambda each: "\n".join(
        f"vNIC {holder.vnic} of VM {holder.vm} (MAC pool {holder.mac_pool})" for holder in each.holders
    ),
}


@click.group("import")
def import_group() -> None:
    """Take over what another system has."""


@import_group.command("ovirt-macs")
@click.argument("files", metavar="FILE...", type=FILE, nargs=-1, required=True)
@click.option("--reassign-bad-macs", is_flag=True, help="Give new MACs for those in use, out of range or not unicast.")
@dry_run_option
@as_json_option
def ovirt_macs(files: tuple[BinaryIO, ...], reassign_bad_macs: bool, dry_run: bool, as_json: bool) -> None:
    """Take over MAC pools, clusters and NICs of an oVirt engine.

    All of it or nothing.

    FILE is what its REST API answers as XML or JSON for /macpools, /datacenters, /clusters and /vms?follow=nics: one
    file with all of it, or several; - is stdin. Everything keeps the engine's ids.
    """
    engine = joined([read(file.read(), name_of(file)) for file in files])
    done = ovirt.take_in(open_database(), engine, reassign_bad_macs=reassign_bad_macs, dry_run=dry_run)
    if as_json:
        print_as(EngineImportedOut, done)
    else:
        _print(done)
        note_dry_run(dry_run)


def _print(done: EngineImported) -> None:
    print_table(POOLS, done.mac_pools, "MAC pools")
    if done.duplicates:
        print_table(_DUPLICATES, done.duplicates, "Duplicates that the pools allow")
    if done.overlaps:
        print_table(OVERLAPS, done.overlaps, "Overlaps, kept")
    if done.strays:
        external = set(done.vnics.external)
        columns: Columns[Vnic] = {**VNICS, "in another pool's": lambda each: each.id not in external}
        print_table(columns, done.strays, "Strays: MACs outside the ranges of their pools")
    if done.vnics.reassigned:
        print_table(REASSIGNED, done.vnics.reassigned, "New MACs")
    for each in done.renamed:
        note(f"Warning: a MAC pool {each.before!r} is here already, so that {each.mac_pool} is named {each.after!r}.")
    for pool_id in done.joined:
        note(f"Warning: ranges of MAC pool {pool_id} overlapped each other, and are joined.")
    if done.overlaps:
        note(
            f"Warning: {len(done.overlaps)} overlaps between MAC pools are kept. "
            "`leasehold mac-pool overlaps` lists those that are left to work off."
        )
    if done.engine_default is not None and not any(each.default_pool for each in done.mac_pools):
        note(
            f"MAC pool {done.engine_default} was the engine's default, and is not ours. "
            f"`leasehold mac-pool make-default {done.engine_default}` makes it so."
        )
    note(f"{len(done.mac_pools)} MAC pools, {len(done.scopes)} scopes and {len(done.vnics.vnics)} vNICs.")
