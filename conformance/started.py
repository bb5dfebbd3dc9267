"""A driver that the kit starts for a run and ends with it, whatever the level: the command of `--start`, or of a driver's file.

(At level durable each process of the run starts a driver of its own, for there it ends and begins again in each history.)
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snapspec.conformance.driver_file import SERVED
from snapspec.conformance.durable.process import Process, command, drop_mounts
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.address import Address, ending, parse
from snapspec.conformance.subjects.grpc import DIRECTORY, READY
from snapspec.conformance.workspace import Workspace

#: How many of its last lines are shown where it does not serve.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Started:
    """A driver that serves: its address, in which the directory of the run stands for DIRECTORY, and its process."""

    subject: str
    process: Process

    def ended(self) -> str:
        """How it has ended by itself, and its last words; empty as long as it runs."""
        return self.process.ended()

    def last_lines(self, count: int = SHOWN) -> list[str]:
        """The last of what it has written."""
        return self.process.last_lines(count)


def require_start(address: Address, start: str) -> None:
    """CannotRun, saying what is wrong, unless the subject is one that the command `start` can begin to serve."""
    if address.kind not in SERVED:
        raise CannotRun(f"the kit starts {address.text} by itself: leave --start out, it is for plugin: and containerd:")
    command(start)
    if (DIRECTORY in start) != address.place.startswith(f"{DIRECTORY}/"):
        raise CannotRun(f"{DIRECTORY} stands for one directory: write it in --start and at the beginning of the socket's path")


@contextmanager
def driver_started(subject: str, start: str, stop: str = "", deadline: float = READY) -> Iterator[Started]:
    """Inside, the command `start` serves the address `subject`; at the end, however that comes, it is gone.

    DIRECTORY stands for a new directory in `start`, `stop` and the address; the directory goes with the driver. It is ended by
    the command `stop` or else by SIGTERM, and after a while by SIGKILL, it and its group. CannotRun, with its last words, when it
    does not serve within `deadline` seconds or somebody serves that address already. For the main thread: a driver is killed
    when the thread that started it ends.
    """
    address = parse(subject)
    require_start(address, start)
    stop_words, _ = ending(stop, "")
    with Workspace.create() as workspace:
        here = workspace.scratch("driver")
        words = [[word.replace(DIRECTORY, str(here)) for word in text] for text in (command(start), stop_words)]
        place = address.place.replace(DIRECTORY, str(here))
        if _listens(place):
            raise CannotRun(f"somebody serves {place} already: end that, or name a socket that --start makes")
        process = Process(words[0], here.with_suffix(".log"), words[1])
        try:
            process.start()
            _wait_for(process, place, deadline)
            yield Started(subject.replace(DIRECTORY, str(here)), process)
        finally:
            _end(process, here)


def _end(process: Process, here: Path) -> None:
    try:
        process.end(kill=False)
    finally:
        drop_mounts(here)  # what it had mounted in its directory, which is to be removed


def _wait_for(process: Process, place: str, deadline: float) -> None:
    """Until somebody takes connections there. CannotRun when the process has ended, or takes too long."""
    until = time.monotonic() + deadline
    while not _listens(place):
        why = "it has ended by itself" if process.ended() else ""
        if not why and time.monotonic() > until:
            why = f"it does not within {deadline:g} s"
        if why:
            words = " / ".join(process.last_lines(SHOWN)) or "it has written nothing"
            raise CannotRun(f"the command of --start does not serve {place}: {why}: {words}; mend the command or the address")
        time.sleep(0.01)


def _listens(place: str) -> bool:
    """Whether somebody takes connections at the socket of that path."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.setblocking(False)
        try:
            knock.connect(place)
        except BlockingIOError:
            return True  # somebody is there, with more callers than he can take
        except OSError:
            return False
    return True
