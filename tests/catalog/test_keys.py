"""When keys were last used, and what that costs the database."""

from datetime import timedelta
from pathlib import Path

import pytest

from assay.catalog import keys
from assay.catalog.checks import parse
from assay.catalog.database import Database, sqlite_url
from assay.errors import Unavailable
from assay.published import Key, Role
from catalog.conftest import NOON, Catalog


def _key(catalog: Catalog) -> Key:
    with catalog.write() as tx:
        row = keys.create(tx, parse(keys.KeyInput, {"name": "app"}))[0]
    return Key(row.id, "app", Role.CLIENT, b"")


def _used(catalog: Catalog) -> list[str | None]:
    with catalog.read() as tx:
        rows, _ = keys.page(tx)
        return [row.last_used_at.isoformat()[11:19] if row.last_used_at else None for row in rows]


def test_a_use_is_stored_at_once_and_then_every_minute(catalog: Catalog) -> None:
    key, uses = _key(catalog), keys.KeyUse()
    version = catalog.database.version()

    def use_and_flush(seconds: int) -> int:
        now = NOON + timedelta(seconds=seconds)
        uses.note(key, keys.microseconds(now) or 0)
        return uses.flush(catalog.database, now)

    assert [use_and_flush(at) for at in (0, 1, 59)] == [1, 0, 0]
    assert _used(catalog) == ["12:00:00"]
    # The last use is not lost because no other follows.
    assert uses.flush(catalog.database, NOON + timedelta(seconds=60)) == 1
    assert _used(catalog) == ["12:00:59"]
    assert uses.flush(catalog.database, NOON + timedelta(hours=1)) == 0
    assert catalog.database.version() == version


def test_another_process_that_saw_an_earlier_use_does_not_turn_it_back(catalog: Catalog) -> None:
    key = _key(catalog)
    for at in (30, 10):
        now = NOON + timedelta(seconds=at)
        uses = keys.KeyUse()
        uses.note(key, keys.microseconds(now) or 0)
        uses.flush(catalog.database, now)
    assert _used(catalog) == ["12:00:30"]


def test_keys_of_the_environment_have_no_row(catalog: Catalog) -> None:
    uses = keys.KeyUse()
    uses.note(Key(0, "environment key 1", Role.ADMIN, b""), 1)
    uses.note(None, 1)
    assert uses.flush(catalog.database, NOON) == 0


def test_what_cannot_be_stored_is_stored_next_time(catalog: Catalog, tmp_path: Path) -> None:
    key, uses = _key(catalog), keys.KeyUse()
    uses.note(key, keys.microseconds(NOON) or 0)
    broken = Database(sqlite_url(tmp_path / "no" / "such.db"), publish=lambda _tx, _now: None)
    with pytest.raises(Unavailable):
        uses.flush(broken, NOON)
    broken.close()
    assert uses.flush(catalog.database, NOON) == 1
    assert _used(catalog) == ["12:00:00"]
