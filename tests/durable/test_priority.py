"""Threads that give way do so alone, and with those they start."""

import os
import sys
import threading

import pytest

from assay.durable.priority import give_way


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_a_thread_gives_way_with_what_it_starts_and_nobody_else_does() -> None:
    before, seen = nice(), []

    def child() -> None:
        seen.append(nice())

    def parent() -> None:
        give_way()
        give_way()
        seen.append(nice())
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()

    thread = threading.Thread(target=parent)
    thread.start()
    thread.join()
    assert seen == [max(before, 10)] * 2
    assert nice() == before
