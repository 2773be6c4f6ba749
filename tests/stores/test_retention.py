"""Events whose time is over go by themselves, whatever holds them; the others stay."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from assay.events.event import Event, encode
from assay.events.timestamps import micros
from assay.eventstore.base import EventFilter
from assay.settings import Settings
from assay.stores.base import Stores
from assay.stores.choice import stores_for

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(params=["embedded", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Opens stores that keep page views for 90 days and everything else for 400."""

    def opened(retention: str) -> Stores:
        where = {"data_dir": str(tmp_path), "retention": retention}
        if request.param == "postgresql":
            where["database_url"] = request.getfixturevalue("postgres_url")
        stores = stores_for(Settings(**where))
        stores.open()
        request.addfinalizer(stores.close)
        return stores

    return opened


def store(stores: Stores, *events: tuple[str, int]) -> None:
    """Events of these types, so many days old."""
    bodies = []
    for place, (kind, days) in enumerate(events):
        at = micros(NOW - timedelta(days=days))
        event_id = f"00000000-0000-7000-8000-{place:012d}"
        bodies.append(Event(event_id, f"u{place}", kind, at, at))
    text = f'[{{"q":1,"i":0,"b":[{encode(bodies)}]}}]'
    stores.store.append((1 << 16 | 0xFFFF, 0), text)


def types(stores: Stores) -> list[str]:
    listed, _ = stores.store.events(EventFilter(), 100)
    return [event.type for event in listed]


def test_events_go_when_the_time_of_their_type_is_over(opened: Callable[[str], Stores]) -> None:
    stores = opened("page_view=90d,*=400d")
    store(stores, ("page_view", 89), ("page_view", 91), ("buy", 399), ("buy", 401), ("page_view", 500))
    stores.pass_on(NOW)
    assert types(stores) == ["page_view", "buy"]


def test_without_a_word_on_it_everything_is_kept(opened: Callable[[str], Stores]) -> None:
    stores = opened("")
    store(stores, ("page_view", 2000), ("buy", 1))
    stores.pass_on(NOW)
    assert types(stores) == ["buy", "page_view"]
