"""The `leasehold` command. Its commands talk to the database directly; only `serve` and `api` listen."""

import click
from sqlalchemy import make_url

from leasehold.cli.doctor import doctor
from leasehold.cli.duties import duties
from leasehold.cli.events import events_group
from leasehold.cli.exits import Group
from leasehold.cli.explain import explain
from leasehold.cli.hosts import host
from leasehold.cli.leases import lease
from leasehold.cli.mac_pools import mac_pool
from leasehold.cli.networks import network
from leasehold.cli.opening import open_database
from leasehold.cli.ovirt import import_group
from leasehold.cli.printing import note
from leasehold.cli.scopes import cluster, data_center, vm_pool
from leasehold.cli.servers import server, status
from leasehold.cli.serving import api, serve, worker
from leasehold.cli.subnets import reservation, subnet
from leasehold.cli.tokens import token
from leasehold.cli.vnics import vnic
from leasehold.cli.webhooks import webhook
from leasehold.service import lineage


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leasehold")
def main() -> None:
    """MAC and IP addresses for virtual machines, served by Kea exactly as promised.

    Settings come from the environment: LEASEHOLD_DATABASE_URL and others; see controlplane/README.md.
    """


@main.group()
def db() -> None:
    """The database."""


@db.command("restored")
def restored() -> None:
    """Say that this database was restored from a backup.

    To be said before anything is started on it. It begins a new history: hosts get everything anew, and no address is
    promised anew before they gave up what they may serve of the time after the backup. Without this the first host that
    answers shows it.
    """
    lineage.begin_new_history(open_database())
    note("The database begins a new history.")


@db.command("upgrade")
def upgrade() -> None:
    """Bring the database to this release's schema.

    Where there is none, it is made first."""
    ctx = open_database()
    url = make_url(ctx.settings.database_url).render_as_string(hide_password=True)
    note(f"{url} has this release's schema.")


for _command in (
    doctor,
    serve,
    api,
    worker,
    token,
    status,
    explain,
    duties,
    network,
    subnet,
    reservation,
    mac_pool,
    data_center,
    cluster,
    vm_pool,
    vnic,
    lease,
    host,
    server,
    import_group,
    events_group,
    webhook,
):
    main.add_command(_command)
