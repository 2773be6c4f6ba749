"""Which stores the settings ask for. PostgreSQL's are imported only where they are."""

from importlib import import_module

from assay.durable.siblings import Sibling
from assay.settings import Settings
from assay.stores.base import Stores
from assay.stores.embedded import EmbeddedStores
from assay.stores.embedded import migrate as migrate_embedded


def stores_for(settings: Settings, sibling: Sibling | None = None) -> Stores:
    """The stores that the settings name, not yet open; `sibling` is this process among several."""
    if settings.postgres is None:
        return EmbeddedStores(settings)
    stores: Stores = import_module("assay.stores.postgres").PostgresStores(settings, sibling)
    return stores


def migrate(settings: Settings) -> str:
    """`assay migrate`: bring the database to the newest tables; what it is called."""
    if settings.postgres is None:
        return migrate_embedded(settings)
    name: str = import_module("assay.stores.postgres").migrate(settings)
    return name
