"""A headless Chromium, driven over its own protocol on two pipes: no port is opened, and nothing else need be installed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

NO_CHROMIUM = "" if CHROMIUM else "needs Chromium: apt-get install chromium"

#: How long an answer may take.
DEADLINE = 30.0

_FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-features=Translate,MediaRouter,OptimizationHints", "--hide-scrollbars", "--no-zygote", "--window-size=1200,900"),
)


class Browser:
    """One page of a browser. `urls` are those that were asked for, `errors` what was said on the console or thrown."""

    def __init__(self, pid: int, to: int, back: int) -> None:
        self.pid = pid
        self.urls: list[str] = []
        self.errors: list[str] = []
        self._to, self._back = to, back
        self._read = b""
        self._number = 0
        self._session = ""
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol; gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]

    def open(self, path: Path) -> None:
        """Show the file, and wait until it is there."""
        self.urls, self.errors, self._loaded = [], [], False
        self.send("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """What the expression comes to in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def key(self, name: str, text: str = "") -> None:
        """Press a key and let it go."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        params = {"key": name, "code": "Space" if name == " " else name, "windowsVirtualKeyCode": codes.get(name, 0)}
        self.send(
            "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **params, **({"text": text} if text else {})
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", **params)

    def look(self, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """The size of the window, and which colours its user prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        printed = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        return base64.b64decode(printed["data"])

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + DEADLINE
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._back], [], [], max(0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._back, 1 << 20)
            assert piece, "the browser has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        self._note(answer.get("method", ""), answer.get("params", {}))
        return answer

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.urls.append(params["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.errors.append(json.dumps(params)[:600])


@contextmanager
def started(directory: Path) -> Iterator[Browser]:
    """A browser, whose profile is in `directory`, for as long as the block lasts."""
    assert CHROMIUM is not None, NO_CHROMIUM
    arguments = [CHROMIUM, *_FLAGS, f"--user-data-dir={directory / 'profile'}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    theirs, to = _high_pipe()
    back, answers = _high_pipe()
    quiet = os.open(os.devnull, os.O_RDWR)
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs, 3),
        (os.POSIX_SPAWN_DUP2, answers, 4),
        *((os.POSIX_SPAWN_DUP2, quiet, number) for number in range(3)),
    ]
    environment = dict(os.environ, HOME=str(directory), DBUS_SESSION_BUS_ADDRESS="disabled:")
    pid = os.posix_spawn(CHROMIUM, arguments, environment, file_actions=actions, setsid=True)
    for number in (theirs, answers, quiet):
        os.close(number)
    try:
        yield Browser(pid, to, back)
    finally:
        os.close(to)  # it ends when nobody can ask it for anything
        _ended(pid)
        os.close(back)


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends have none of the numbers that the browser is given; they are not inherited as they are."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _ended(pid: int) -> None:
    """Wait for the end of the process, which leads a session of its own; one that does not end is killed with all of it."""
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
