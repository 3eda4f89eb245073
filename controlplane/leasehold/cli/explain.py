"""`leasehold explain`."""

import click

from leasehold.cli.opening import open_database
from leasehold.cli.printing import Columns, as_json_option, print_as, print_table
from leasehold.domain.addresses import Mac, parse_ip
from leasehold.domain.explaining import Witness
from leasehold.errors import FieldInvalid
from leasehold.service import explain as explaining
from leasehold.web.explain import ExplanationOut


@click.command()
@click.argument("client", metavar="MAC|IP")
@as_json_option
def explain(client: str, as_json: bool) -> None:
    """Say why a client has, or has no, address, and what to do.

    The servers of its network are asked just now what they heard of it.
    """
    ctx = open_database()
    mac = _mac(client)
    found = explaining.of_mac(ctx, mac) if mac else explaining.of_address(ctx, parse_ip(client, "MAC|IP"))
    if as_json:
        print_as(list[ExplanationOut], found)
        return
    columns: Columns[Witness] = {
        "server": lambda each: each.host,
        "state": lambda each: each.state,
        "confirmed": lambda each: each.confirmed,
        "heard": lambda each: "\n".join(f"{it.message} {it.at:%H:%M:%S} on {it.subnet}" for it in each.heard),
        "turned away": lambda each: "\n".join(
            f"{it.reason} {it.at:%H:%M:%S} on {it.subnet}, {it.count} packets" for it in each.rejected
        ),
        "leases": lambda each: "\n".join(f"{it.ip} {it.state}" for it in each.leases),
        "does not answer": lambda each: each.failure,
    }
    for each in found:
        click.echo(each.verdict.sentence)
        click.echo(each.verdict.advice)
        if each.evidence.witnesses:
            print_table(columns, each.evidence.witnesses)


def _mac(text: str) -> Mac | None:
    try:
        return Mac.parse(text)
    except FieldInvalid:
        return None
