"""Signed-in sessions without a place to keep them: the cookie alone, understood by every process.

The catalog keeps only digests of keys, so that whoever reads it, or a copy of it, can sign in nowhere. A
cookie signed by a digest alone would give that away. So it holds the key itself, sealed under its digest:

* whoever has the cookie cannot read the key out of it without the catalog;
* whoever has the catalog cannot make a cookie without the key;
* a key that is revoked or has expired takes its sessions with it at once, on every machine.

The seal is encrypt-then-MAC: a SHAKE-256 stream, and HMAC-SHA-256 over everything, compared in constant time,
each under a key of its own.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from typing import NamedTuple

from assay.published import Key, KeyRing

#: A session ends when nothing was asked for so long.
LIFETIME = 12 * 3600 * 1_000_000
#: What is left of a session when its cookie is renewed.
_RENEW = LIFETIME - 3600 * 1_000_000
_HEAD = struct.Struct(">B8sQ16s")
_VERSION = 1
_TAG = 32
_LONGEST = 512


class Session(NamedTuple):
    """Who is signed in. `expires` is in microseconds; `csrf` must come with every form."""

    key: Key
    expires: int
    nonce: bytes
    csrf: str
    secret: bytes

    def due(self, now: int) -> bool:
        """Whether the cookie should be renewed."""
        return self.expires - now < _RENEW


class Sessions:
    """Seals and opens cookies against the keys in force."""

    def __init__(self) -> None:
        self._ring: KeyRing | None = None
        self._named: dict[bytes, Key] = {}

    def begin(self, secret: bytes, key: Key, now: int, nonce: bytes | None = None) -> str:
        """The cookie of a session that begins, or with its `nonce` goes on, at `now`."""
        nonce = secrets.token_bytes(16) if nonce is None else nonce
        head = _HEAD.pack(_VERSION, _purpose(key, b"name")[:8], now + LIFETIME, nonce)
        sealed = head + _mixed(key, nonce, secret)
        tag = hmac.digest(_purpose(key, b"sign"), sealed, "sha256")
        return base64.urlsafe_b64encode(sealed + tag).rstrip(b"=").decode()

    def open(self, cookie: str, keys: KeyRing, now: int) -> Session | None:
        """Who this cookie signs in at `now`; None for one that is wrong, expired, or of a key that ended."""
        if len(cookie) > 2 * _LONGEST:
            return None
        try:
            raw = base64.b64decode(cookie + "=" * (-len(cookie) % 4), altchars=b"-_", validate=True)
            version, name, expires, nonce = _HEAD.unpack_from(raw)
        except (binascii.Error, ValueError, struct.error):
            return None
        key = self._by_name(keys).get(name)
        if version != _VERSION or key is None or len(raw) < _HEAD.size + _TAG:
            return None
        sealed, tag = raw[:-_TAG], raw[-_TAG:]
        if not hmac.compare_digest(tag, hmac.digest(_purpose(key, b"sign"), sealed, "sha256")):
            return None
        secret = _mixed(key, nonce, sealed[_HEAD.size :])
        if expires <= now or keys.find(secret, now) != key:
            return None
        csrf = hmac.digest(_purpose(key, b"form"), nonce, "sha256").hex()
        return Session(key, expires, nonce, csrf, secret)

    def _by_name(self, keys: KeyRing) -> dict[bytes, Key]:
        if self._ring is not keys:
            self._named = {_purpose(key, b"name")[:8]: key for key in keys}
            self._ring = keys
        return self._named


def _purpose(key: Key, word: bytes) -> bytes:
    """A key of its own for each use, so that none tells anything about another."""
    return hmac.digest(key.digest, b"assay dashboard " + word, "sha256")


def _mixed(key: Key, nonce: bytes, text: bytes) -> bytes:
    """The text under the stream of this nonce; twice is the text itself."""
    stream = hashlib.shake_256(_purpose(key, b"seal") + nonce).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, stream, strict=True))
