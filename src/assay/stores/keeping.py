"""Where the first key is kept."""

import os

from assay.errors import Unavailable
from assay.settings import Settings


def keep_key(settings: Settings, secret: str) -> None:
    """Write the secret into the data directory, readable by its owner alone.

    Raises `Unavailable` when it cannot be kept there.
    """
    path = settings.data / "admin.key"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise Unavailable(
            f"The admin key cannot be kept in {path}: {error.strerror}.", code="admin_key"
        ) from error
