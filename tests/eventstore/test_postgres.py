"""The PostgreSQL store keeps the contract."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from assay.eventstore.postgres import PostgresStore
from contracts.event_store import EventStoreContract
from contracts.imports import ImportContract
from postgresql import Postgres


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Callable[[], PostgresStore]]:
    with ExitStack() as opened:

        def empty() -> PostgresStore:
            store = PostgresStore(opened.enter_context(postgres.database()), memory="256MiB")
            opened.callback(store.close)
            store.prepare()
            return store

        yield empty


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url, memory="256MiB")
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def reopened(store: PostgresStore, postgres_url: str) -> Iterator[Callable[[], PostgresStore]]:
    with ExitStack() as opened:

        def reopened() -> PostgresStore:
            store.close()
            again = PostgresStore(postgres_url, memory="256MiB")
            opened.callback(again.close)
            again.prepare()
            return again

        yield reopened


class TestPostgres(EventStoreContract, ImportContract):
    """All of the contract."""
