"""A recorder before the proxy plugin of the tests, each a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plugin import __file__ as PLUGIN


@dataclass
class Recorded:
    """The sockets, the recording, and the two processes."""

    plugin: Path
    socket: Path
    out: Path
    driver: subprocess.Popen[str]
    recorder: subprocess.Popen[str]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End the recorder; gives its exit status and what it wrote to stderr."""
        self.recorder.send_signal(number)
        _, errors = self.recorder.communicate(timeout=30)
        return self.recorder.returncode, errors


@contextmanager
def recorder(upstream: Path, socket: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A recorder, ready; it is killed afterwards if it runs still."""
    command = ["record", "--listen", str(socket), "--upstream", str(upstream), "--out", str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "snapspec.conformance", *command], stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("recording: ")
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def recorded(directory: Path, variant: str = "right", out: Path | None = None) -> Iterator[Recorded]:
    """Both processes, ready; they are ended afterwards."""
    plugin, socket, out = directory / "p.sock", directory / "r.sock", out or directory / "recording"
    (directory / "store").mkdir()
    command = [sys.executable, PLUGIN, str(plugin), str(directory / "store"), variant]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        try:
            with recorder(plugin, socket, out) as process:
                yield Recorded(plugin, socket, out, driver, process)
        finally:
            driver.kill()
