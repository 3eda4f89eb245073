"""`leasehold host` and `leasehold server`."""

from collections.abc import Callable, Iterator
from typing import TextIO

import click

from leasehold.cli.arguments import ID, checked
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
from leasehold.domain.values import AwaitedAddress, HostNetwork, HostView, Server, ServerSubnet
from leasehold.errors import FieldInvalid
from leasehold.service import fencing, hosts, networks
from leasehold.service.context import Context
from leasehold.web.hosts import HostIn, HostOut
from leasehold.web.networks import ServerOut

_AT_ONCE = 1000
_BY = "leasehold host"

_COLUMNS: Columns[HostView] = {
    "id": lambda each: each.id,
    "state": lambda each: each.state,
    "serves": lambda each: ", ".join(f"{server.network} ({server.state})" for server in each.servers),
    "holds up": lambda each: each.holds_up.count or None,
    "detail": lambda each: each.detail,
}
_FIELDS: Columns[HostView] = {
    **_COLUMNS,
    "holds up": lambda each: _addresses(each.holds_up.count, each.holds_up.first),
    "held back until": lambda each: each.held_back_until and each.held_back_until.isoformat(timespec="seconds"),
    "control url": lambda each: each.control_url,
    "username": lambda each: each.username,
    "networks": lambda each: ", ".join(
        f"{name} ({attached.interface}, {attached.address})" for name, attached in sorted(each.networks.items())
    ),
    "answered": lambda each: each.answered_at and each.answered_at.isoformat(timespec="seconds"),
    "unreachable": lambda each: each.unreachable_reason,
}
_SERVERS: Columns[Server] = {
    "network": lambda each: each.network,
    "host": lambda each: each.host,
    "state": lambda each: each.state,
    "since": lambda each: each.since.isoformat(timespec="seconds"),
    "behind": lambda each: _behind(each),
    "detail": lambda each: each.detail,
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


@click.group()
def host() -> None:
    """Hosts: hypervisors with a Kea server."""


@host.command("list")
@as_json_option
def list_hosts(as_json: bool) -> None:
    """List all hosts."""
    found = list(_all(open_database()))
    if as_json:
        print_as(list[HostOut], found)
    else:
        print_table(_COLUMNS, found)


@host.command()
@_host
@as_json_option
def show(host_id: str, as_json: bool) -> None:
    """Show one host: what it serves, and which draining addresses wait for it."""
    _print(hosts.show(open_database(), host_id), as_json)


@host.command()
@_host
@click.option("--control-url", required=True, help="The URL of its Kea Control Agent.")
@click.option("--username", default="", help="For the Control Agent's basic authentication.")
@click.option("--password-file", type=click.File("r"), help="A file with the password, `-` for stdin; it is not shown.")
@click.option(
    "--network", "attachments", type=AttachmentType(), multiple=True, help="NETWORK=INTERFACE,ADDRESS; once for each."
)
@dry_run_option
@as_json_option
def put(
    host_id: str,
    control_url: str,
    username: str,
    password_file: TextIO | None,
    attachments: tuple[tuple[str, HostNetwork], ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create or replace a host. What is left out has its default."""
    password = "" if password_file is None else password_file.read().rstrip("\n")
    body = checked(HostIn, {"control_url": control_url, "username": username, "password": password})
    found, _ = hosts.put(
        open_database(),
        host_id,
        control_url=body.control_url,
        username=body.username,
        password=body.password,
        networks=dict(attachments),
        dry_run=dry_run,
    )
    _print(found, as_json, dry_run)


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
    "Declare that a host which does not answer is dead and serves nobody. No address waits for it any more: said of a "
    "host that lives, this can put one address at two VMs.",
)


@click.group()
def server() -> None:
    """IPAM servers: which host serves which network."""


@server.command("list")
@click.option("--network", "network_id", type=ID, help="Those of this network only.")
@as_json_option
def list_servers(network_id: str | None, as_json: bool) -> None:
    """List IPAM servers, how far each is with reservations and settings, and what is wrong."""
    ctx = open_database()
    ids = [each.id for each in networks.list_networks(ctx)] if network_id is None else [network_id]
    found = [each for one in ids for each in networks.list_servers(ctx, one)]
    if as_json:
        print_as(list[ServerOut], found)
    else:
        print_table(_SERVERS, found)


def _all(ctx: Context) -> Iterator[HostView]:
    after: str | None = None
    while found := hosts.list_views(ctx, limit=_AT_ONCE, after=after):
        yield from found
        after = found[-1].id


def _behind(server: Server) -> str:
    late = [(each.subnet, ", ".join(_lacking(each))) for each in server.subnets]
    return "; ".join(f"subnet {subnet}: {lacking}" for subnet, lacking in late if lacking)


def _lacking(progress: ServerSubnet) -> Iterator[str]:
    if progress.confirmed_revision is None:
        yield "everything"
    elif progress.confirmed_revision != progress.revision:
        yield f"{progress.revision - progress.confirmed_revision} changes"
    if progress.provided_revision != progress.settings_revision:
        yield "settings"


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
