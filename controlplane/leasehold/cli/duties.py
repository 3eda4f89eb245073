"""`leasehold duties`."""

import click

from leasehold.cli.opening import open_database
from leasehold.cli.printing import Columns, as_json_option, print_json, print_table
from leasehold.service.duties import Holder, holders

_COLUMNS: Columns[Holder] = {
    "duty": lambda each: each.duty,
    "machine": lambda each: each.machine,
    "process": lambda each: each.pid,
    "term": lambda each: each.term,
    "since": lambda each: each.since,
}


@click.command()
@as_json_option
def duties(as_json: bool) -> None:
    """Show which process manages, pushes and delivers.

    That is, pushes to each host and delivers to each webhook, as the last one that took it over. A holder whose process
    ended is listed until another one takes over.
    """
    found = holders(open_database())
    if as_json:
        print_json([vars(each) for each in found])
        return
    print_table(_COLUMNS, found)
