"""Whether this process lives, and whether the control plane can do its work."""

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from leasehold.errors import DatabaseUnavailable, ProcessUnwell
from leasehold.service.context import Context
from leasehold.service.pulse import pulse
from leasehold.store import schema
from leasehold.store.tables import lineage


def check_process() -> None:
    """Raises ProcessUnwell when a loop ended that should turn, or stands still: only a restart helps then."""
    troubles = pulse.troubles()
    if troubles:
        raise ProcessUnwell(f"{' '.join(troubles)} Start this process anew.", troubles=troubles)


def check(ctx: Context) -> None:
    """Raises DatabaseUnavailable when the database does not answer, was never set up, or is at another release's
    schema."""
    try:
        with ctx.db.read() as connection:
            installed = connection.execute(select(lineage.c.epoch)).one_or_none()
            at = schema.revision(connection)
    except DBAPIError as error:
        raise DatabaseUnavailable(
            f"The database does not answer: {error.orig}. Look at LEASEHOLD_DATABASE_URL and at the database itself."
        ) from error
    if installed is None:
        raise DatabaseUnavailable("The database is empty: it was made anew while this process ran. Restart it.")
    if at != schema.head():
        raise DatabaseUnavailable(
            f"The database is at schema {at}, and this release works with {schema.head()}. Run one release on it: the "
            "newest brings it to its schema when it starts."
        )
