"""`leasehold doctor`."""

import click

from leasehold.cli.opening import open_database
from leasehold.cli.printing import Columns, as_json_option, note, print_as, print_fields
from leasehold.service import checkup
from leasehold.service.doctor import Finding
from leasehold.web.doctor import FindingOut

_FINDING: Columns[Finding] = {
    "code": lambda each: each.code,
    "where": lambda each: each.subject,
    "what": lambda each: each.sentence,
    "what to do": lambda each: each.mend,
}


@click.command()
@click.option("--servers/--no-servers", default=True, help="Ask the hosts too, and not only the database.")
@as_json_option
@click.pass_context
def doctor(click_context: click.Context, servers: bool, as_json: bool) -> None:
    """Look for what must never be, and say how to mend it.

    In the database, and on the servers. It changes nothing, and ends with 1 if it finds something.
    """
    found = checkup.check_up(open_database(), servers=servers)
    if as_json:
        print_as(list[FindingOut], found)
    elif not found:
        note("All is well.")
    else:
        for each in found:
            print_fields(_FINDING, each)
            click.echo()
        note(f"{len(found)} found.")
    click_context.exit(1 if found else 0)
