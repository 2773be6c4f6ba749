"""Sessions: what the cookie gives away, and to whom it opens."""

import base64
import hashlib

import pytest

from assay.dashboard.sessions import LIFETIME, Sessions
from assay.published import Key, KeyRing, Role

SECRET = b"assay_a-secret-that-nobody-knows"
NOW = 1_795_000_000_000_000


def _key(secret: bytes, number: int = 1, expires_at: int | None = None) -> Key:
    return Key(number, f"key {number}", Role.ADMIN, hashlib.sha256(secret).digest(), expires_at)


RING = KeyRing([_key(b"another", 2), _key(SECRET)])


def test_a_session_opens_on_every_machine_until_it_ends() -> None:
    cookie = Sessions().begin(SECRET, _key(SECRET), NOW)
    session = Sessions().open(cookie, RING, NOW + 1)
    assert session is not None
    assert (session.key.id, session.secret) == (1, SECRET)
    assert Sessions().open(cookie, RING, NOW + LIFETIME - 1) is not None
    assert Sessions().open(cookie, RING, NOW + LIFETIME) is None


def test_a_session_ends_with_its_key() -> None:
    sessions = Sessions()
    cookie = sessions.begin(SECRET, _key(SECRET), NOW)
    assert sessions.open(cookie, RING, NOW) is not None
    assert sessions.open(cookie, KeyRing([_key(b"another", 2)]), NOW) is None
    assert sessions.open(cookie, KeyRing([_key(SECRET, expires_at=NOW + 5)]), NOW + 5) is None


def test_the_cookie_does_not_hold_the_key_in_the_clear_nor_twice_alike() -> None:
    first, second = (Sessions().begin(SECRET, _key(SECRET), NOW) for _ in range(2))
    assert first != second
    raw = base64.urlsafe_b64decode(first + "==")
    assert SECRET not in raw
    assert hashlib.sha256(SECRET).digest() not in raw


def test_whoever_has_the_digest_alone_makes_no_session() -> None:
    key = _key(SECRET)
    forged = Sessions().begin(b"not the secret", key, NOW)
    assert Sessions().open(forged, RING, NOW) is None


def test_no_bit_of_a_cookie_can_be_changed() -> None:
    sessions = Sessions()
    raw = bytearray(base64.urlsafe_b64decode(sessions.begin(SECRET, _key(SECRET), NOW) + "=="))
    for place in range(len(raw)):
        raw[place] ^= 1
        cookie = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        assert sessions.open(cookie, RING, NOW) is None, place
        raw[place] ^= 1


@pytest.mark.parametrize("cookie", ["", "=", "x", "é", "A" * 43, "A" * 5000, "a.b.c", "\x00"])
def test_nonsense_is_no_session(cookie: str) -> None:
    assert Sessions().open(cookie, RING, NOW) is None


def test_a_renewed_session_keeps_the_tokens_of_open_pages() -> None:
    sessions = Sessions()
    before = sessions.open(sessions.begin(SECRET, _key(SECRET), NOW), RING, NOW)
    assert before is not None
    assert not before.due(NOW)
    assert before.due(NOW + 2 * 3600 * 1_000_000)
    after = sessions.open(sessions.begin(SECRET, before.key, NOW + 9, before.nonce), RING, NOW + 9)
    assert after is not None
    assert after.csrf == before.csrf
