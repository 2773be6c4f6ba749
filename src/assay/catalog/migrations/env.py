"""Run by Alembic with the connection that `assay.catalog.schema` hands over; there is no alembic.ini."""

from alembic import context

from assay.catalog.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,  # SQLite alters most things by copying the table
)
with context.begin_transaction():
    context.run_migrations()
