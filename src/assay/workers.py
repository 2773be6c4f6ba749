"""Several worker processes behind one listening socket, kept alive and replaced one by one.

The parent imports next to nothing and serves nothing: it forks, waits, and forks again. All workers accept
from the same socket, so that one that goes leaves no connection behind in a queue of its own.

* SIGTERM, SIGINT: all workers finish what they have accepted and end.
* SIGHUP: each worker is replaced by a new one that serves already when the old one is told to end, so that
  changed settings are taken up without a pause.
* A worker that dies is replaced at once; one that keeps dying, after growing pauses.
* A parent that dies takes its workers with it: they see its pipe close.
"""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from assay.durable.siblings import Siblings

#: What a worker runs: its place among its siblings and the pipe that closes when the parent is gone.
Run = Callable[[Siblings, int, int], int]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
#: The code of a signal from a terminal, which sends it to the workers as well. Told a second time they would
#: not finish what they have accepted.
_FROM_TERMINAL: Final = 0x80
#: Seconds: the pause before a worker that died is replaced grows from the first to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: A worker that lived so long was well.
_WELL: Final = 10.0
#: Seconds that a new worker may take until it serves.
_START: Final = 60.0
_TICK: Final = 0.1


class _Successor(NamedTuple):
    """A new worker that does not serve yet, whom it replaces, and until when it must serve."""

    pid: int
    replaces: int
    deadline: float


class Workers:
    """The parent of `count` workers, each running `run`.

    `grace` is how long a worker may take to end, in seconds. `close` lets go of what only the workers need,
    `delay` seconds after the end was asked for.
    """

    def __init__(
        self,
        run: Run,
        count: int,
        *,
        grace: float,
        close: Callable[[], None] = lambda: None,
        delay: float = 0.0,
    ) -> None:
        self._run = run
        self._count = count
        self._grace = grace
        self._close: Callable[[], None] | None = close
        self._delay = delay
        #: Workers yet to be replaced, the successor that has not served yet, and whether to begin anew then.
        self._outgoing: list[int] = []
        self._successor: _Successor | None = None
        self._again = False
        # Twice as many places, so that a successor can serve beside the one it replaces.
        self._siblings = Siblings(2 * count)
        self._alive: dict[int, int] = {}  # process to place
        self._born: dict[int, float] = {}
        self._leaving: dict[int, float] = {}  # told to end, when
        self._pipe = os.pipe()
        self._pause = _FIRST_PAUSE
        self._next_birth = 0.0
        self._ending: float | None = None

    def serve(self, ready: Callable[[], None]) -> int:
        """Run until told to stop; `ready` is called once all workers serve. The exit code.

        The first worker starts alone: what keeps it from serving is said once, and ends everything.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            first = self._fork()
            while not self._serves(first):
                self._tend()
                if first not in self._alive:
                    self._end_all(signal.SIGTERM)
                    return 0 if self._ending is not None else 1
            while self._ending is None and len(self._staff()) < self._count:
                self._fork()
            announced = False
            while self._alive:
                self._tend()
                if not announced and sum(map(self._serves, self._staff())) == self._count:
                    announced = True
                    ready()
                if self._ending is None:
                    self._refill()
                    self._replace()
                elif self._close is not None and time.monotonic() >= self._ending + self._delay:
                    self._close()
                    self._close = None
                self._remind()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return 0

    def _staff(self) -> list[int]:
        """Workers that have not been told to end."""
        return [pid for pid in self._alive if pid not in self._leaving]

    def _serves(self, pid: int) -> bool:
        return pid in self._alive and self._siblings.serving(self._alive[pid])

    def _tend(self) -> None:
        """Wait for a signal, a moment at most, and do what it asks for."""
        found = signal.sigtimedwait(_SIGNALS, _TICK)
        self._bury()
        if found is None:
            return
        if found.si_signo in {signal.SIGTERM, signal.SIGINT}:
            if self._ending is None:
                self._ending = time.monotonic()
            if found.si_code != _FROM_TERMINAL:
                self._end_all(signal.Signals(found.si_signo))
            for pid in self._alive:
                self._leaving.setdefault(pid, time.monotonic())
        elif found.si_signo == signal.SIGHUP:
            self._again = True

    def _end_all(self, sign: signal.Signals) -> None:
        for pid in list(self._alive):
            self._end(pid, sign)

    def _end(self, pid: int, sign: signal.Signals) -> None:
        self._leaving.setdefault(pid, time.monotonic())
        os.kill(pid, sign)

    def _remind(self) -> None:
        """Take away those who were told to end and have not in time."""
        for pid, told in list(self._leaving.items()):
            if pid in self._alive and time.monotonic() > told + self._grace:
                os.kill(pid, signal.SIGKILL)

    def _bury(self) -> None:
        """Take note of workers that have ended."""
        while self._alive:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            place = self._alive.pop(pid, None)
            if place is None:
                continue
            self._siblings.mark(place, serving=False)
            lived = time.monotonic() - self._born.pop(pid)
            if pid in self._leaving:
                del self._leaving[pid]
                continue
            if self._ending is None:
                sys.stderr.write(f"assay: worker {pid} ended by itself after {lived:.0f} s\n")
            self._pause = _FIRST_PAUSE if lived > _WELL else min(_LONGEST_PAUSE, 2 * self._pause)
            self._next_birth = time.monotonic() + (0.0 if lived > _WELL else self._pause)

    def _refill(self) -> None:
        staff, coming = self._staff(), self._successor
        wanted = self._count + (coming is not None and coming.pid in staff and coming.replaces in staff)
        if len(staff) < wanted and self._has_room() and time.monotonic() >= self._next_birth:
            self._fork()

    def _has_room(self) -> bool:
        return len(self._alive) < 2 * self._count

    def _replace(self) -> None:
        """One step of replacing workers: a successor must serve before its predecessor is told to end."""
        waiting = self._successor
        if waiting is not None:
            if self._serves(waiting.pid):
                if waiting.replaces in self._alive:
                    self._end(waiting.replaces, signal.SIGTERM)
            elif waiting.pid in self._alive and time.monotonic() < waiting.deadline:
                return
            else:
                sys.stderr.write("assay: a new worker does not serve; the old ones stay\n")
                if waiting.pid in self._alive:
                    self._end(waiting.pid, signal.SIGKILL)
                self._outgoing.clear()
                self._again = False
            self._successor = None
        if not self._outgoing and self._again:
            self._again = False
            self._outgoing = self._staff()
        while self._outgoing and self._outgoing[0] not in self._staff():
            del self._outgoing[0]  # it died, and was replaced
        if self._outgoing and self._has_room():
            old = self._outgoing.pop(0)
            self._successor = _Successor(self._fork(), old, time.monotonic() + _START)

    def _fork(self) -> int:
        place = next(each for each in range(2 * self._count) if each not in self._alive.values())
        self._siblings.mark(place, serving=False)
        pid = os.fork()
        if pid == 0:
            self._work(place)
        self._alive[pid] = place
        self._born[pid] = time.monotonic()
        return pid

    def _work(self, place: int) -> NoReturn:
        """The child: runs to its end and leaves without the parent's clean-up."""
        code = 1
        try:
            os.close(self._pipe[1])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            code = self._run(self._siblings, place, self._pipe[0])
        except KeyboardInterrupt:
            code = 0  # everything is finished; the server only says by which signal
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 - said here, because nobody above this frame is this process's
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises OSError when it cannot."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
