"""Ask the server in this container how it is: exit 0 if it answers 200, else 1 and what it said.

The path is the only argument: `/health` (alive) or `/ready` (takes traffic).
"""

import http.client
import os
import sys


def main(path: str) -> int:
    """Ask once, straight to this machine: an HTTP proxy in the environment does not count here."""
    port = int(os.environ.get("ASSAY_PORT") or os.environ.get("PORT") or 8000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer on port {port}: {error!r}\n")
        return 1
    sys.stderr.write(f"{answer.status} {said}\n")
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
