"""`leasehold lease`."""

from functools import partial

import click
from netaddr import IPAddress

from leasehold.cli.arguments import ID, IP, MAC
from leasehold.cli.opening import open_database
from leasehold.cli.paging import all_of
from leasehold.cli.printing import Columns, as_json_option, print_as, print_table
from leasehold.domain.addresses import Mac
from leasehold.domain.values import Lease
from leasehold.service import leases
from leasehold.web.leases import LeaseOut

_COLUMNS: Columns[Lease] = {
    "ip": lambda each: each.ip,
    "mac": lambda each: each.mac,
    "vnic": lambda each: each.vnic,
    "network": lambda each: each.network,
    "subnet": lambda each: each.subnet,
    "host": lambda each: each.host,
    "state": lambda each: each.state,
    "since": lambda each: each.since,
    "expires": lambda each: each.expires_at,
    "reserved": lambda each: each.is_reserved,
}


@click.group()
def lease() -> None:
    """Leases: what servers granted, as their events say."""


@lease.command("list")
@click.option("--subnet", type=click.IntRange(min=1), help="Only on this subnet.")
@click.option("--mac", type=MAC, help="Only of this MAC.")
@click.option("--ip", type=IP, help="Only of this address.")
@click.option("--host", type=ID, help="Only what this host's server told.")
@as_json_option
def list_leases(subnet: int | None, mac: Mac | None, ip: IPAddress | None, host: str | None, as_json: bool) -> None:
    """List leases by subnet, address and host. One past its time counts as expired."""
    read = partial(leases.list_leases, open_database(), subnet=subnet, mac=mac, ip=ip, host=host)
    found = all_of(read, leases.key_of)
    if as_json:
        print_as(list[LeaseOut], found)
    else:
        print_table(_COLUMNS, found)
