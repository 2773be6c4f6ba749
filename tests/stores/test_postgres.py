"""Stores on PostgreSQL refuse what would give half an installation."""

from pathlib import Path

import psycopg
import pytest

from assay.errors import Conflict, Invalid
from assay.settings import Settings
from assay.stores.choice import stores_for
from assay.stores.postgres import migrate


def test_a_transfer_that_has_not_finished__is_not_served(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=postgres_url, data_dir=str(tmp_path))
    migrate(settings)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE transfer (begun_at timestamptz NOT NULL, finished_at timestamptz)")
        connection.execute("INSERT INTO transfer VALUES ('2026-11-21 10:00+00', NULL)")
        with pytest.raises(Conflict, match=r"begun at 2026-11-21 10:00 UTC .* run assay transfer again"):
            stores_for(settings).open()
        connection.execute("UPDATE transfer SET finished_at = begun_at")
    stores = stores_for(settings)
    stores.open()
    stores.close()


def test_events_in_another_postgresql__are_refused(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=postgres_url, events_url=postgres_url + "_other", data_dir=str(tmp_path))
    with pytest.raises(Invalid, match=r"EVENTS_URL.*leave it empty"):
        stores_for(settings).open()
