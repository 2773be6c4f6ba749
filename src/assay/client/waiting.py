"""Waiting for what happens in the client's thread, from asyncio and from threads, and never for ever."""

import asyncio
import concurrent.futures
from typing import Any


async def ended(future: "concurrent.futures.Future[Any]", seconds: float) -> None:
    """Wait until a future has ended, however, or the time is up."""
    waiting = asyncio.wrap_future(future)
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        # One that has ended is not changed by this; whoever waits no longer must not be called back.
        waiting.cancel()
        if not waiting.cancelled():
            waiting.exception()  # looked at, so that nobody warns of it


def result(future: "concurrent.futures.Future[bool]") -> bool:
    """The result by now; False where there is none."""
    try:
        return future.result(0)
    except (TimeoutError, concurrent.futures.CancelledError):
        future.cancel()
        return False


def shielded(future: "concurrent.futures.Future[None]") -> "concurrent.futures.Future[None]":
    """A future that ends with another, and whose cancellation does not reach it."""
    own: concurrent.futures.Future[None] = concurrent.futures.Future()

    def follow(_: object) -> None:
        if own.set_running_or_notify_cancel():
            own.set_result(None)

    future.add_done_callback(follow)
    return own
