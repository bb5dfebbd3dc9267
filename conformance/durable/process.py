"""The driver's process: started by the kit, ended by the kit, and gone with the kit."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from snapspec.conformance.errors import CannotRun
from snapspec.impl.mounts import mountpoints_below, unmount_top

#: Seconds that a process has to end when it is asked politely; then it is killed.
PATIENCE = 10.0

#: Of what a process has written the bytes that are looked at: its end.
_TAIL = 1 << 16

#: Becomes the command, once it is sure to be killed when the thread that started it ends, however that comes.
STARTER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("whoever started this has ended")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be started: {error.strerror}")
"""


def command(text: str, option: str = "--start") -> tuple[str, ...]:
    """The words of a command line, as a shell splits them. CannotRun, with the remedy, when there is no such program.

    `option` is how the user gives it.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CannotRun(f"the command {text!r} cannot be split into words ({error}): correct its quotes") from None
    if not words or shutil.which(words[0]) is None:
        raise CannotRun(f"the command {text!r} names no program that is here: write {option} 'PROGRAM ARGUMENT ...'")
    return tuple(words)


class Process:
    """A command that runs as one process after another, each leading a group of its own.

    What it writes goes to the file `log`. The command has to stay in the foreground: a process that leaves its group is not seen.
    `stop` and `kill` are commands that end it, in place of SIGTERM and of SIGKILL; their output goes there too.
    """

    def __init__(self, words: Sequence[str], log: Path, stop: Sequence[str] = (), kill: Sequence[str] = ()) -> None:
        self.words = tuple(words)
        self.log = log
        self._stop = tuple(stop)
        self._kill = tuple(kill)
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, *more: str, pass_fds: Sequence[int] = ()) -> None:
        """Start it, with `more` words at its end. In the main thread: it is killed when the thread that started it ends."""
        assert self._running is None, "it runs already"
        starter = [sys.executable, "-I", "-S", "-c", STARTER, str(os.getpid()), *self.words, *more]
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                starter, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds, process_group=0
            )

    @property
    def pid(self) -> int:
        """The id of the process that runs; 0 when none does."""
        return self._running.pid if self._running is not None else 0

    def ended(self) -> str:
        """How the process has ended by itself, and its last words; empty as long as it runs."""
        if self._running is None or not _wait(self._running.pid, 0.0):
            return "" if self._running is not None else "it was not started"
        return f"it has ended by itself: {self.last_words()}"

    def last_words(self) -> str:
        """The last line that it has written."""
        return next(iter(self.last_lines(1)), "it has written nothing")

    def last_lines(self, count: int) -> list[str]:
        """So many of the last lines that it has written, without those that are empty."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(-min(log.seek(0, os.SEEK_END), _TAIL), os.SEEK_END)
            lines = log.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-count:]

    def end(self, kill: bool, after: float = 0.0) -> None:
        """In `after` seconds end it and its group, by SIGKILL or politely; returns when it is gone, and when none runs.

        CannotRun when a command for that has failed, and it went on; it is gone then too.
        """
        process = self._running
        if process is None:
            return
        why = ""
        try:
            time.sleep(after)
            if not _wait(process.pid, 0.0):
                why = self._tell(process.pid, kill)
        finally:
            # Others of the group may have outlived it. It is not reaped yet, so that its number is nobody else's.
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            self._running = None
        if why:
            raise CannotRun(why)

    def _tell(self, pid: int, kill: bool) -> str:
        """Tell it to end, and wait for that a while; why the command for it has not done so, or an empty string."""
        words, why = self._kill if kill else self._stop, ""
        if words:
            why = self._run(words)
        elif kill:
            return ""  # by the SIGKILL that comes in any case
        else:
            _signal(pid, signal.SIGTERM)
        return "" if _wait(pid, PATIENCE) else why

    def _run(self, words: Sequence[str]) -> str:
        """Run a command to its end; what is wrong with it, with the remedy, or an empty string."""
        text = shlex.join(words)
        with self.log.open("ab") as log:
            try:
                told = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
            except OSError as error:
                return f"the command {text!r} cannot be started ({error.strerror}), and the driver goes on: correct it"
        ended = _wait(told.pid, PATIENCE)
        _signal(told.pid, signal.SIGKILL)
        status = told.wait()
        if ended and status == 0:
            return ""
        how = f"ends with status {status}" if ended else f"does not end in {PATIENCE:g} s"
        return f"the command {text!r} {how}, and the driver goes on: {self.last_words()}; correct it"


def drop_mounts(directory: Path) -> None:
    """Take down what a process that was killed has left mounted below `directory`, a directory of the run."""
    for point in reversed(mountpoints_below(str(directory))):
        unmount_top(point)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _wait(pid: int, seconds: float) -> bool:
    """Whether the child has ended within so many seconds. It is not reaped."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)
