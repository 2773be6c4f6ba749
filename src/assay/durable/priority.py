"""Which threads get a core first when there are too few of them."""

import os
import sys
import threading
from typing import Final

#: The nice value of threads that work behind those who answer requests.
_BEHIND: Final = 10


def give_way() -> None:
    """Let others have the core first: the calling thread, and all it starts from now on, for good.

    Only Linux knows priorities of single threads; elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < _BEHIND:
        os.setpriority(os.PRIO_PROCESS, thread, _BEHIND)
