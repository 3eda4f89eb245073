"""`leasehold network`."""

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
from leasehold.domain.values import Network
from leasehold.service import networks
from leasehold.web.networks import NetworkOut

_COLUMNS: Columns[Network] = {
    "id": lambda each: each.id,
    "ipam": lambda each: each.ipam_enabled,
    "servers wanted": lambda each: each.ipam_servers or "as set for all",
}
_network = click.argument("network_id", metavar="ID", type=ID)
_ipam = click.option("--ipam/--no-ipam", default=None, help="Whether its vNICs get addresses.")
_servers = click.option("--servers", type=int, help="IPAM servers that it wants.")


@click.group()
def network() -> None:
    """Networks, and how many IPAM servers they want."""


@network.command("list")
@as_json_option
def list_networks(as_json: bool) -> None:
    """List all networks."""
    found = networks.list_networks(open_database())
    if as_json:
        print_as(list[NetworkOut], found)
    else:
        print_table(_COLUMNS, found)


@network.command()
@_network
@as_json_option
def show(network_id: str, as_json: bool) -> None:
    """Show one network."""
    _print(networks.get(open_database(), network_id), as_json)


@network.command()
@_network
@_ipam
@_servers
@dry_run_option
@as_json_option
def put(network_id: str, ipam: bool | None, servers: int | None, dry_run: bool, as_json: bool) -> None:
    """Create or replace a network. Without --ipam it is off; without --servers the setting says how many."""
    found, _ = networks.put(open_database(), network_id, ipam_enabled=bool(ipam), ipam_servers=servers, dry_run=dry_run)
    _print(found, as_json, dry_run)


@network.command()
@_network
@_ipam
@_servers
@click.option("--default-servers", is_flag=True, help="Want as many servers as the setting says.")
@dry_run_option
@as_json_option
def change(
    network_id: str, ipam: bool | None, servers: int | None, default_servers: bool, dry_run: bool, as_json: bool
) -> None:
    """Change a network. What is left out stays."""
    if default_servers and servers is not None:
        raise click.UsageError("--servers and --default-servers contradict each other.")
    wanted: dict[str, object] = {} if ipam is None else {"ipam_enabled": ipam}
    if default_servers or servers is not None:
        wanted["ipam_servers"] = servers
    _print(networks.change(open_database(), network_id, wanted, dry_run=dry_run), as_json, dry_run)


@network.command()
@_network
@dry_run_option
def delete(network_id: str, dry_run: bool) -> None:
    """Delete a network that has no subnets, vNICs and servers."""
    networks.delete_network(open_database(), network_id, dry_run=dry_run)
    note_dry_run(dry_run)


def _print(found: Network, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(NetworkOut, found)
    else:
        print_fields(_COLUMNS, found)
        note_dry_run(dry_run)
