"""`leasehold status` and `leasehold duties`."""

import click

from leasehold.cli.opening import open_database
from leasehold.cli.printing import Columns, as_json_option, print_json, print_table
from leasehold.domain.values import Host
from leasehold.service import hosts, networks
from leasehold.service.duties import Holder, holders


@click.command()
@as_json_option
def status(as_json: bool) -> None:
    """Show which host serves which network, and which do not answer."""
    ctx = open_database()
    known = hosts.list_hosts(ctx)
    servers = [server for each in networks.list_networks(ctx) for server in networks.list_servers(ctx, each.id)]
    serves = {each.id: [server for server in servers if server.host == each.id] for each in known}
    if as_json:
        print_json(
            [
                {
                    "host": each.id,
                    "answered_at": each.answered_at,
                    "unreachable_reason": each.unreachable_reason,
                    "networks": {server.network: server.state for server in serves[each.id]},
                }
                for each in known
            ]
        )
        return
    columns: Columns[Host] = {
        "host": lambda each: each.id,
        "answered": lambda each: (
            "never" if each.answered_at is None else each.answered_at.isoformat(timespec="seconds")
        ),
        "unreachable": lambda each: each.unreachable_reason,
        "networks": lambda each: ", ".join(f"{server.network} ({server.state})" for server in serves[each.id]),
    }
    print_table(columns, known)


@click.command()
@as_json_option
def duties(as_json: bool) -> None:
    """Show which process manages, pushes to each host and delivers to each webhook, as the last one that took it over.

    A holder whose process ended is listed until another one takes over.
    """
    found = holders(open_database())
    if as_json:
        print_json([vars(each) for each in found])
        return
    columns: Columns[Holder] = {
        "duty": lambda each: each.duty,
        "machine": lambda each: each.machine,
        "process": lambda each: str(each.pid),
        "term": lambda each: str(each.term),
        "since": lambda each: each.since.isoformat(timespec="seconds"),
    }
    print_table(columns, found)
