"""`leasehold server`, and `leasehold status`: who serves what."""

import click

from leasehold.cli.arguments import ID
from leasehold.cli.hosts import COLUMNS as HOSTS
from leasehold.cli.hosts import all_hosts
from leasehold.cli.opening import open_database
from leasehold.cli.printing import Columns, as_json_option, columns_of, print_as, print_fields, print_table
from leasehold.domain.values import Server, ServerSubnet
from leasehold.errors import HostNotFound
from leasehold.service import networks
from leasehold.service.context import Context
from leasehold.web.hosts import HostOut
from leasehold.web.networks import ServerOut
from leasehold.web.wire import Out

_COLUMNS: Columns[Server] = {
    "network": lambda each: each.network,
    "host": lambda each: each.host,
    "state": lambda each: each.state,
    "behind": lambda each: _behind(*each.subnets),
    "why": lambda each: each.detail,
}
_FIELDS: Columns[Server] = {**_COLUMNS, "since": lambda each: each.since}
_SUBNETS: Columns[ServerSubnet] = {
    "subnet": lambda each: each.subnet,
    "revision": lambda each: each.revision,
    "confirmed": lambda each: each.confirmed_revision,
    "confirmed at": lambda each: each.confirmed_at,
    "behind": lambda each: _behind(each),
}


class StatusOut(Out):
    """All hosts and all IPAM servers."""

    hosts: list[HostOut]
    servers: list[ServerOut]


@click.group()
def server() -> None:
    """IPAM servers: which host serves which network."""


@server.command("list")
@click.option("--network", "network_id", type=ID, help="Those of this network only.")
@as_json_option
def list_servers(network_id: str | None, as_json: bool) -> None:
    """List IPAM servers, and how far behind each is.

    That is, how many changes of reservations it has not confirmed yet, and whether its Kea has yet to take a subnet's
    settings."""
    ctx = open_database()
    found = _all(ctx) if network_id is None else networks.list_servers(ctx, network_id)
    if as_json:
        print_as(list[ServerOut], found)
    else:
        print_table(_COLUMNS, found)


@server.command()
@click.argument("network_id", metavar="NETWORK", type=ID)
@click.argument("host_id", metavar="HOST", type=ID)
@as_json_option
def show(network_id: str, host_id: str, as_json: bool) -> None:
    """Show one IPAM server, and how far it is with each subnet."""
    servers = networks.list_servers(open_database(), network_id)
    found = next((each for each in servers if each.host == host_id), None)
    if found is None:
        raise HostNotFound(
            f"Host {host_id!r} is no IPAM server of network {network_id}. "
            f"`leasehold server list --network {network_id}` has those that are.",
            host=host_id,
        )
    if as_json:
        print_as(ServerOut, found)
        return
    print_fields(_FIELDS, found)
    print_table(_SUBNETS, found.subnets, "Subnets")


@click.command()
@as_json_option
def status(as_json: bool) -> None:
    """Show how all hosts are, and which serves which network."""
    ctx = open_database()
    hosts, servers = all_hosts(ctx), _all(ctx)
    if as_json:
        print_as(StatusOut, {"hosts": hosts, "servers": servers})
        return
    print_table(columns_of(HOSTS, "id", "state", "holds up", "detail"), hosts)
    print_table(_COLUMNS, servers, "IPAM servers")


def _all(ctx: Context) -> list[Server]:
    return [each for network in networks.list_networks(ctx) for each in networks.list_servers(ctx, network.id)]


def _behind(*subnets: ServerSubnet) -> str | None:
    """How many changes are not confirmed, and whether settings were not taken; None where all are."""
    if any(each.confirmed_revision is None for each in subnets):
        return "everything"
    changes = sum(each.revision - (each.confirmed_revision or 0) for each in subnets)
    lacks_settings = any(each.provided_revision != each.settings_revision for each in subnets)
    lacking = [*([str(changes)] if changes else []), *(["settings"] if lacks_settings else [])]
    return ", ".join(lacking) or None
