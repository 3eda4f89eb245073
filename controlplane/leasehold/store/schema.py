"""Brings a database to the schema of this release, and says at which it is."""

from alembic import command
from alembic.config import Config

from leasehold.store.database import Database, lock

_UPGRADES = 0x6C68_7570  # an advisory lock's


def upgrade(database: Database) -> None:
    """Runs the migrations that are missing, all in one transaction; of several processes one at a time."""
    config = Config()
    config.set_main_option("script_location", "leasehold.store:migrations")
    config.attributes["configure_logger"] = False
    with database.write() as connection:
        lock(connection, _UPGRADES, shared=False)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
