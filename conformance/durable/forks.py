"""A process that has loaded all that another needs, and forks it: one that is killed again and again begins in no time."""

from __future__ import annotations

import array
import ctypes
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from snapspec.conformance.durable.process import Process
from snapspec.conformance.errors import CannotRun

#: Seconds that a fork has to end once its end was asked for.
PATIENCE = 10.0

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


# --- in the kit


class Forked:
    """A process that was forked, known by a descriptor: no other process is ever meant by that."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether the process has ended within so many seconds."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self, after: float = 0.0) -> None:
        """In `after` seconds end it by SIGKILL; returns when it is gone."""
        time.sleep(after)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        if not self.ended(PATIENCE):
            raise CannotRun("a process that was killed does not end: its file system hangs, look at the kernel's log")

    def forget(self) -> None:
        """Give the descriptor up, when the process has ended."""
        os.close(self._descriptor)


class Forks:
    """The process that forks, of the module `module`, which calls `serve_forks`. What all write goes to the file `log`."""

    def __init__(self, module: str, log: Path) -> None:
        optimized = ["-O"] if sys.flags.optimize else []
        self.process = Process((sys.executable, *optimized, "-m", module), log)
        self._ours: socket.socket | None = None

    def start(self) -> None:
        """Start it. In the main thread (see `Process.start`)."""
        self._ours, theirs = socket.socketpair()
        with theirs:
            self.process.start(str(theirs.fileno()), pass_fds=(theirs.fileno(),))

    def fork(self, theirs: socket.socket, asked: object) -> Forked:
        """One more process, which is given the socket and what is `asked`. CannotRun when none can be had."""
        assert self._ours is not None, "start comes first"
        try:
            socket.send_fds(self._ours, [pickle.dumps(asked)], [theirs.fileno()])
            _, descriptors, _, _ = socket.recv_fds(self._ours, 1, 1)
        except OSError:
            descriptors = []
        if not descriptors:
            raise CannotRun(f"the kit's own process is gone ({self.process.last_words()}): run again")
        return Forked(descriptors[0])

    def end(self) -> None:
        """End it, and every fork with it."""
        if self._ours is not None:
            self._ours.close()
        self.process.end(kill=True)


# --- in the process that forks


def serve_forks(channel: socket.socket, main: Callable[[socket.socket, object], object]) -> None:
    """Fork as often as the kit asks, until it closes its end: `main` runs in the fork, with the socket and what was asked."""
    while True:
        raw, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 1)
        if not raw:
            return
        theirs = socket.socket(fileno=descriptors[0])
        asked = pickle.loads(raw)  # from our own process, over a pair that nobody else has
        _reap()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            channel.close()
            _become(parent, main, theirs, asked)
        theirs.close()
        descriptor = os.pidfd_open(pid)  # of no other process: this one is not reaped before the next is asked for
        channel.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        os.close(descriptor)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become(parent: int, main: Callable[[socket.socket, object], object], theirs: socket.socket, asked: object) -> NoReturn:
    """Run `main` and end, whatever comes; and end with the process that forked this one."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() == parent:
            main(theirs, asked)
            status = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)
