"""Whether the control plane can do its work."""

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from leasehold.errors import DatabaseUnavailable
from leasehold.service.context import Context
from leasehold.store.tables import lineage


def check(ctx: Context) -> None:
    """Raises DatabaseUnavailable when the database does not answer, or was never set up."""
    try:
        with ctx.db.read() as connection:
            installed = connection.execute(select(lineage.c.epoch)).one_or_none()
    except DBAPIError as error:
        raise DatabaseUnavailable(
            f"The database does not answer: {error.orig}. Look at LEASEHOLD_DATABASE_URL and at the database itself."
        ) from error
    if installed is None:
        raise DatabaseUnavailable("The database is empty. Run `leasehold db upgrade`.")
