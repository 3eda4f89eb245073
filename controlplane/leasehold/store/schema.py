"""Brings a database to the schema of this release, and says at which it is."""

from functools import cache

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from leasehold.store.database import Database, lock

_UPGRADES = 0x6C68_7570  # an advisory lock's


def upgrade(database: Database) -> None:
    """Runs the migrations that are missing, all in one transaction; of several processes one at a time."""
    config = _config()
    with database.write() as connection:
        lock(connection, _UPGRADES, shared=False)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@cache
def head() -> str | None:
    """The schema that this release works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def revision(connection: Connection) -> str | None:
    """The schema that the database is at; None for one that was never set up."""
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "leasehold.store:migrations")
    config.attributes["configure_logger"] = False
    return config
