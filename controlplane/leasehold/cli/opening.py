"""The database that the environment names."""

import os

from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from leasehold.config import Settings
from leasehold.errors import DatabaseUnavailable, FieldInvalid
from leasehold.service.context import Context, open_context


def open_database(settings: Settings | None = None) -> Context:
    """Opens it, at this release's schema. Raises FieldInvalid for settings that do not fit, DatabaseUnavailable."""
    settings = settings or Settings.from_environment(os.environ)
    try:
        return open_context(settings)
    except (ArgumentError, NoSuchModuleError) as error:
        raise FieldInvalid(
            "LEASEHOLD_DATABASE_URL is no database URL that is known here. "
            "Write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME.",
            field="LEASEHOLD_DATABASE_URL",
        ) from error
    except (DatabaseUnavailable, DBAPIError, CommandError) as error:
        url = make_url(settings.database_url).render_as_string(hide_password=True)
        cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
        why = cause.orig if isinstance(cause, DBAPIError) else cause
        raise DatabaseUnavailable(f"The database {url} cannot be used: {why}.") from error
