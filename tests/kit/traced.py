"""A program that makes one history of calls with all fault points marked, for a look at it from outside.

A mark is a look at a path that is not there: `/mark/open` and `/mark/close` around a call of the driver, `/mark/in` and
`/mark/out` around what a point does. What sqlite does when a connection is closed is marked too: no error comes of that.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snapspec.conformance.contents import Contents
from snapspec.conformance.faults import points
from snapspec.conformance.faults.session import FaultSession
from snapspec.conformance.faults.subject import FaultedReference, into_memory
from snapspec.conformance.subjects.reference import Ground
from snapspec.impl.syscalls import enter_private_namespace
from snapspec.model import ops
from snapspec.model.tree import Link, MakeDirectory, MakeFile, MakeSymlink, SetXattr

CALLS = (
    ops.Prepare("a"),
    ops.Write(
        "a", (MakeDirectory("d"), MakeFile("d/f", b"x"), MakeSymlink("l", "f"), Link("g", "d/f"), SetXattr("d", "user.a", b"1"))
    ),
    ops.Usage("a"),
    ops.Commit("b", "a"),
    ops.Usage("b"),
    ops.Prepare("c", "b"),
    ops.View("v", "b"),
    ops.Update("c", (("k", "1"),)),
    ops.Prepare("c", "b"),
    ops.Remove("c"),
    ops.Remove("v"),
    ops.Cleanup(),
    ops.Reopen(),
    ops.Remove("b"),
    ops.Cleanup(),
)


def mark(name: str) -> None:
    os.path.lexists(f"/mark/{name}")


def marked(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        mark("in")
        try:
            return real(*args)
        finally:
            mark("out")

    return call


@contextmanager
def opened(window: points.Window) -> Iterator[None]:
    with real_opened(window):
        mark("open")
        try:
            yield
        finally:
            mark("close")


real_opened = points._opened


def closed(self: sqlite3.Connection) -> None:
    mark("in")
    sqlite3.Connection.close(self)
    mark("out")


def main(directory: Path, driver: str, pool: bool) -> None:
    enter_private_namespace()
    for name in ("store", "mnt"):
        (directory / name).mkdir()
    into_memory(directory / "store")
    points.Window.reach = marked_reach  # type: ignore[method-assign]
    points._opened = opened
    with points.watched(), asyncio.Runner() as runner:
        subject = FaultedReference(
            "x", Contents(directory / "mnt"), directory / "store", Ground(driver, pool, False, ""), 64 << 20, "ext4"
        )
        session = FaultSession(subject, runner)
        runner.run(subject.start())
        session.begin()
        for op in CALLS:
            session.do(op)
        session.stop()


real_reach = points.Window.reach


def marked_reach(self: points.Window, name: str, effect: Callable[[], Any], *rest: Any) -> Any:
    return real_reach(self, name, marked(effect), *rest)


if __name__ == "__main__":
    from snapspec.impl import sqlite

    sqlite.Database.close = closed  # type: ignore[method-assign]
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "pool")
