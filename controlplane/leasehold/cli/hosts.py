"""`leasehold host`."""

from collections.abc import Callable
from functools import partial
from typing import TextIO

import click

from leasehold.cli.arguments import ID, checked
from leasehold.cli.opening import open_database
from leasehold.cli.paging import all_of
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    dry_run_option,
    note_dry_run,
    print_as,
    print_fields,
    print_table,
)
from leasehold.domain.values import AwaitedAddress, HostNetwork, HostView
from leasehold.errors import FieldInvalid, HostNotFound
from leasehold.service import fencing, hosts
from leasehold.service.context import Context
from leasehold.web.hosts import HostChangeIn, HostIn, HostOut

_BY = "leasehold host"

COLUMNS: Columns[HostView] = {
    "id": lambda each: each.id,
    "state": lambda each: each.state,
    "serves": lambda each: ", ".join(f"{server.network} ({server.state})" for server in each.servers),
    "holds up": lambda each: each.holds_up.count or None,
    "detail": lambda each: each.detail,
}
_FIELDS: Columns[HostView] = {
    **COLUMNS,
    "serves": lambda each: tuple(f"{server.network} ({server.state})" for server in each.servers),
    "holds up": lambda each: _addresses(each.holds_up.count, each.holds_up.first),
    "held back until": lambda each: each.held_back_until,
    "control url": lambda each: each.control_url,
    "username": lambda each: each.username,
    "networks": lambda each: tuple(
        f"{name}={attached.interface},{attached.address}" for name, attached in sorted(each.networks.items())
    ),
    "answered": lambda each: each.answered_at,
    "unreachable": lambda each: each.unreachable_reason,
}
_host = click.argument("host_id", metavar="ID", type=ID)


class AttachmentType(click.ParamType[tuple[str, HostNetwork]]):
    """NETWORK=INTERFACE,ADDRESS."""

    name = "network=interface,address"

    def convert(
        self, value: str | tuple[str, HostNetwork], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, HostNetwork]:
        """The network's id and how the host is attached; raises FieldInvalid."""
        if not isinstance(value, str):
            return value
        network, equals, rest = value.partition("=")
        interface, comma, address = rest.partition(",")
        if not (equals and comma):
            raise FieldInvalid(
                f"--network: {value!r} is no attachment. Write NETWORK=INTERFACE,ADDRESS, like blue=eth1,192.0.2.2.",
                field="--network",
                value=value,
            )
        body = checked(
            HostIn,
            {
                "control_url": "http://localhost/",
                "username": "",
                "password": "",
                "networks": {network: {"interface": interface, "address": address}},
            },
            "--network",
        )
        ((name, attached),) = body.networks.items()
        return name, HostNetwork(interface=attached.interface, address=attached.address)


_username = click.option("--username", help="For the Control Agent's basic authentication.")
_password_file = click.option(
    "--password-file", type=click.File("r"), help="A file with the password, - for stdin; it is not shown."
)
_attachments = click.option(
    "--network",
    "attachments",
    type=AttachmentType(),
    multiple=True,
    metavar="NETWORK=INTERFACE,ADDRESS",
    help="How it is attached to a network, with which address of its own; once for each.",
)


@click.group()
def host() -> None:
    """Hosts: hypervisors with a Kea server."""


@host.command("list")
@as_json_option
def list_hosts(as_json: bool) -> None:
    """List all hosts."""
    found = all_hosts(open_database())
    if as_json:
        print_as(list[HostOut], found)
    else:
        print_table(COLUMNS, found)


@host.command()
@_host
@as_json_option
def show(host_id: str, as_json: bool) -> None:
    """Show one host: what it serves, and what waits for it.

    `holds up` are draining addresses that it might still serve."""
    _print(hosts.show(open_database(), host_id), as_json)


@host.command()
@_host
@click.option("--control-url", required=True, help="The URL of its Kea Control Agent.")
@_username
@_password_file
@_attachments
@dry_run_option
@as_json_option
def put(
    host_id: str,
    control_url: str,
    username: str | None,
    password_file: TextIO | None,
    attachments: tuple[tuple[str, HostNetwork], ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create or replace a host.

    It is attached to the networks that are named and no others. A user name and a password that are left out stay as
    they are, and a new host has none.
    """
    ctx = open_database()
    given = _given(control_url, username, password_file)
    networks = dict(attachments)
    try:
        found = hosts.change(ctx, host_id, values=given, networks=networks, dry_run=dry_run)
    except HostNotFound:
        new = {"username": "", "password": ""} | given
        found, _ = hosts.put(ctx, host_id, **new, networks=networks, dry_run=dry_run)
    _print(found, as_json, dry_run)


@host.command()
@_host
@click.option("--control-url", help="Another URL of its Kea Control Agent.")
@_username
@_password_file
@_attachments
@click.option(
    "--detach", "detached", type=ID, multiple=True, metavar="NETWORK", help="A network that it is taken from."
)
@dry_run_option
@as_json_option
def change(
    host_id: str,
    control_url: str | None,
    username: str | None,
    password_file: TextIO | None,
    attachments: tuple[tuple[str, HostNetwork], ...],
    detached: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change what is named of a host.

    The rest stays, also the networks that are not named."""
    ctx = open_database()
    present = hosts.get(ctx, host_id).networks
    for network in detached:
        if network not in present:
            raise FieldInvalid(
                f"--detach: host {host_id} is not attached to a network {network!r}. "
                f"`leasehold host show {host_id}` has those that it is attached to.",
                field="--detach",
                value=network,
            )
    kept = {name: attached for name, attached in present.items() if name not in detached}
    networks = kept | dict(attachments) if detached or attachments else None
    given = _given(control_url, username, password_file)
    _print(hosts.change(ctx, host_id, values=given, networks=networks, dry_run=dry_run), as_json, dry_run)


@host.command()
@_host
@dry_run_option
def delete(host_id: str, dry_run: bool) -> None:
    """Delete a host that serves no network."""
    hosts.delete_host(open_database(), host_id, dry_run=dry_run)
    note_dry_run(dry_run)


def _care(name: str, do: Callable[..., HostView], help: str) -> None:
    @host.command(name, help=help)
    @_host
    @dry_run_option
    @as_json_option
    def command(host_id: str, dry_run: bool, as_json: bool) -> None:
        _print(do(open_database(), host_id, by=_BY, dry_run=dry_run), as_json, dry_run)


_care(
    "maintenance",
    fencing.begin_maintenance,
    "Let others serve a host's networks, and then stop it there. Its state is leaving until it is maintenance.",
)
_care("activate", fencing.activate, "End a host's maintenance.")
_care(
    "fence",
    fencing.fence,
    "Declare that a host which does not answer is dead. No address waits for it any more: said of a "
    "host that lives, this can put one address at two VMs.",
)


def all_hosts(ctx: Context) -> list[HostView]:
    """Every host, by id."""
    return all_of(partial(hosts.list_views, ctx), lambda each: each.id)


def _given(control_url: str | None, username: str | None, password_file: TextIO | None) -> dict[str, str]:
    """Those that were named, as the service takes them; raises FieldInvalid."""
    password = None if password_file is None else password_file.read().rstrip("\n")
    body = checked(HostChangeIn, {"control_url": control_url, "username": username, "password": password})
    return body.model_dump(include={"control_url", "username", "password"}, exclude_none=True)


def _addresses(count: int, first: tuple[AwaitedAddress, ...]) -> str | None:
    if not count:
        return None
    named = ", ".join(str(each.ip) for each in first)
    return named if count == len(first) else f"{named} and {count - len(first)} more"


def _print(found: HostView, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(HostOut, found)
    else:
        print_fields(_FIELDS, found)
        note_dry_run(dry_run)
