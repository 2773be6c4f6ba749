"""Every error Assay raises on purpose.

::

    AssayError
    ├── Refused            the caller can fix it
    │   ├── Invalid          422  a field is wrong; `errors` names each
    │   ├── Malformed        400  the body is not what its content type says
    │   ├── TooLarge         413  a limit is exceeded; the message names it
    │   ├── UnsupportedType  415  the content type is not understood
    │   ├── Unauthorized     401  no key, or a wrong one
    │   ├── Forbidden        403  right key, wrong role
    │   └── NotFound         404
    ├── Conflict           409  the state forbids it
    │   └── Stale          412  somebody else changed it first
    └── Unavailable        503  try again after `retry_after` seconds

`code` is a stable snake_case word that clients may branch on; `detail` is one sentence for a person.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One thing wrong with a request: where (`variants[1].allocation`), and what would be right."""

    path: str
    message: str


class AssayError(Exception):
    """Base of all deliberate errors; carries what the problem+json answer needs."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = tuple(errors)


class Refused(AssayError):  # noqa: N818 - the names read as sentences: raise Refused(...)
    """The caller can fix it."""

    status = 400
    title = "Bad request"
    default_code = "bad_request"


class Invalid(Refused):
    """A field of the request has a value that cannot be accepted."""

    status = 422
    title = "Unprocessable content"
    default_code = "invalid"

    @classmethod
    def field(cls, path: str, message: str, *, code: str | None = None) -> "Invalid":
        """One wrong field, named."""
        return cls(f"{path}: {message}", code=code, errors=(FieldError(path, message),))


class Malformed(Refused):
    """The body cannot be read as what its content type says."""

    status = 400
    title = "Malformed request"
    default_code = "malformed"


class TooLarge(Refused):
    """A limit on size or number is exceeded."""

    status = 413
    title = "Content too large"
    default_code = "too_large"


class UnsupportedType(Refused):
    """The content type or encoding of the body is not understood."""

    status = 415
    title = "Unsupported media type"
    default_code = "unsupported_media_type"


class Unauthorized(Refused):
    """No key was sent, or one that is unknown, revoked or expired."""

    status = 401
    title = "Unauthorized"
    default_code = "unauthorized"


class Forbidden(Refused):
    """The key is good but its role may not do this."""

    status = 403
    title = "Forbidden"
    default_code = "forbidden"


class NotFound(Refused):
    """There is no such thing."""

    status = 404
    title = "Not found"
    default_code = "not_found"


class Conflict(AssayError):  # noqa: N818
    """The present state forbids it."""

    status = 409
    title = "Conflict"
    default_code = "conflict"


class Stale(Conflict):
    """The caller's version is not the current one: somebody else changed it first."""

    status = 412
    title = "Precondition failed"
    default_code = "stale_version"


class Unavailable(AssayError):  # noqa: N818
    """It cannot be done now; the same request may be repeated after `retry_after` seconds."""

    status = 503
    title = "Service unavailable"
    default_code = "unavailable"

    def __init__(self, detail: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after
