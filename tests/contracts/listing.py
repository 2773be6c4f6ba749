"""How every event store lists events, as tests that each backend inherits."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.eventstore.base import Cursor, EventFilter, EventStore
from contracts.event_store import NOW, Feed, event


class ListingContract:
    """Inherit and give the fixture `store` (empty)."""

    def test_listing_is_newest_first_in_pages(self, store: EventStore, feed: Feed) -> None:
        feed.events(*(event(f"u{index % 3}", at=NOW + index // 4, id=f"e{index}") for index in range(20)))
        seen: list[str] = []
        after: Cursor | None = None
        while True:
            rows, after = store.events(EventFilter(), 7, after)
            seen.extend(row.event_id for row in rows)
            if after is None:
                break
        assert seen == [f"e{index}" for index in reversed(range(20))]

    def test_listing_filters(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10), ("b", 11))
        feed.events(
            event("a", "click", at=NOW, id="0"),
            event("b", at=NOW + 1, id="1", x=1, y=10),
            event("c", at=NOW + 2, id="2", x=1),
            event("c", at=NOW + 3, id="3"),
            event("a", at=NOW + 4, id="4", x=2),
        )

        def ids(**which: Any) -> str:
            rows, after = store.events(EventFilter(**which), 100)
            assert after is None
            return "".join(row.event_id for row in rows)

        assert ids() == "43210"
        assert ids(experiment_id=1) == "210"
        assert ids(experiment_id=1, variant_id=11) == "1"
        assert ids(experiment_id=1, variant_id=12) == ""
        assert ids(variant_id=11) == "1"
        assert ids(types=("click", "nothing")) == "0"
        assert ids(user_ids=("a", "c"), types=("purchase",)) == "432"
        assert ids(start=NOW + 1, end=NOW + 3) == "321"
        rows, _ = store.events(EventFilter(experiment_id=1), 100)
        assert [(row.variant_id, row.claimed_variant_id) for row in rows] == [
            (None, None),
            (11, 10),
            (10, None),
        ]

    def test_listing_finds_the_few_among_many_strangers(self, store: EventStore, feed: Feed) -> None:
        feed.assign(("a", 10))
        feed.events(event("a", at=NOW, id="old"), event("a", at=NOW + 1, id="older"))
        feed.events(*(event(f"u{index}", at=NOW + 10 + index) for index in range(9_000)))
        rows, after = store.events(EventFilter(experiment_id=1), 1)
        assert ([row.event_id for row in rows], after) == (["older"], Cursor(NOW + 1, rows[0].seq))
        rows, after = store.events(EventFilter(experiment_id=1), 1, after)
        assert ([row.event_id for row in rows], after) == (["old"], None)

    @given(
        user_id=st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=9
        ),
        properties=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        ),
        ascii_only=st.booleans(),
    )
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
        deadline=None,
        max_examples=50,
    )
    def test_events_come_back_as_sent(
        self, store: EventStore, user_id: str, properties: dict[str, Any], ascii_only: bool
    ) -> None:
        feed = Feed(store)
        feed.row = max(store.position().events // 65_536, 0)
        text = json.dumps(properties, ensure_ascii=ascii_only, indent=1)
        original = f"id {feed.row} {user_id}"
        feed.events(event(user_id, "a kind", at=NOW + 1, id=original, v=0.1, a=0.1, p=text, x=3, y=4))
        found = store.event(original, user_id)
        assert found is not None
        assert found[1:9] == (original, user_id, "a kind", NOW + 1, NOW, 0.1, 0.1, text)
        assert found[9:] == ({}, 3, None, 4)
        assert store.event(original, "somebody else") is None

    def test_an_event_is_found_in_every_spelling_of_its_id(self, store: EventStore, feed: Feed) -> None:
        canonical = "0199aaaa-bbbb-7000-8000-000000000001"
        feed.events(event("a", e=canonical, o=canonical.upper(), k=True))
        for spelling in (canonical, canonical.upper()):
            found = store.event(spelling)
            assert found is not None
            assert found.event_id == canonical.upper()
        assert store.event(canonical.replace("-", "")) is None
