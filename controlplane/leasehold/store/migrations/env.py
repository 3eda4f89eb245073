"""Runs the migrations on the connection that `leasehold.store.schema` hands over."""

from alembic import context

from leasehold.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
)
context.run_migrations()
