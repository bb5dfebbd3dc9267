"""`snapspec serve` as a process of its own, for tests: started here and ended here."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

#: Seconds that a program may take for what takes it one or two.
PATIENCE = 60.0


class Server:
    """One server below one directory; it is killed when the process that started it dies. `said` is its first line."""

    def __init__(self, directory: Path, subject: str = "ref:overlay") -> None:
        self.socket = directory / "p.sock"
        self.address = f"unix://{self.socket}"
        self.root = directory / "root"
        self.log = directory / "log"
        self.subject = subject
        self.said = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it serves; fails with what it says. For the main thread: it dies with its thread."""
        assert threading.current_thread() is threading.main_thread(), "the server is killed when the thread that started it ends"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command(self.subject, self.socket, self.root)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert self.said.startswith(f"serves {self.subject} on {self.socket}: "), self.log.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send that signal, and wait for its end; the exit status. 0 when it does not run."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        return process.returncode


def command(subject: str, socket: Path, root: Path) -> list[str]:
    """The command that serves."""
    words = ["serve", subject, "--listen", str(socket), "--root", str(root)]
    return [sys.executable, "-m", "snapspec.conformance", *words]


def environment() -> dict[str, str]:
    """What a child needs to import the same sources."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextlib.contextmanager
def served(directory: Path, subject: str = "ref:overlay") -> Iterator[Server]:
    """A server below the empty `directory` (a short path), which ends without complaint when it is told to."""
    server = Server(directory, subject)
    server.start()
    try:
        yield server
    finally:
        status = server.end()
    assert (status, server.log.read_text()) == (0, "")
