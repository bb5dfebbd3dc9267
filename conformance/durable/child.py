"""The reference as a process of its own, which can be killed: calls go to it and answers come back over a pair of sockets.

The process has the kit's mount namespace: what it has mounted is there when it is killed, as it would be on a machine.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pkgutil import resolve_name
from typing import Any

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.errors import SnapshotError
from snapspec.impl.loopback import PoolError, open_pool
from snapspec.impl.ports import Snapshotter
from snapspec.model.values import Info, Mount, Usage

#: How the driver is opened: its class as "module:Class", its directory, `userxattr`, and the size and file system of its pool.
How = tuple[str, str, bool, int, str]

#: The number of the first word of the child: that it is ready, or why it cannot be.
READY = 0


class Gone(ConnectionError):
    """The child has ended under a call or before it."""


def path_of(kind: type[object]) -> str:
    """How that class is named to the child."""
    return f"{kind.__module__}:{kind.__qualname__}"


# --- in the kit


class Child:
    """The snapshotter port, over the kit's end of the pair. Raises Gone where no answer comes."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writer = writer
        self._numbers = itertools.count(READY + 1)
        self._waiting: dict[int, asyncio.Future[Any]] = {READY: asyncio.get_running_loop().create_future()}
        self.ready = self._waiting[READY]
        self._listening = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                number, value = await _receive(reader)
                waiting = self._waiting.pop(number)
                if not waiting.done():
                    waiting.set_result(value)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(Gone("the process has ended"))
        self._waiting.clear()

    async def ask(self, name: str, *arguments: Any) -> Any:
        """What the call `name` answers there. Raises Gone, and the SnapshotError that is the answer."""
        if self._listening.done():
            raise Gone("the process has ended before the call")
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        _send(self._writer, (number, name, arguments))
        value = await answer
        if isinstance(value, BaseException):
            raise value
        return value

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self.ask("prepare", key, parent, dict(labels or {}))
        return mounts

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self.ask("view", key, parent, dict(labels or {}))
        return mounts

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """See the port."""
        await self.ask("commit", name, key, dict(labels or {}), parent)

    async def remove(self, key: str) -> None:
        """See the port."""
        await self.ask("remove", key)

    async def mounts(self, key: str) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self.ask("mounts", key)
        return mounts

    async def stat(self, key: str) -> Info:
        """See the port."""
        info: Info = await self.ask("stat", key)
        return info

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """See the port."""
        after: Info = await self.ask("update", info, tuple(paths))
        return after

    async def usage(self, key: str) -> Usage:
        """See the port."""
        usage: Usage = await self.ask("usage", key)
        return usage

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """See the port."""
        for info in await self.ask("walk", tuple(filters)):
            yield info

    async def cleanup(self) -> None:
        """See the port."""
        await self.ask("cleanup")

    async def close(self) -> None:
        """Close this end: a child that lives closes its store and ends."""
        self._writer.close()
        self._listening.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await self._listening


async def connect(ours: socket.socket) -> Child:
    """The child at the other end of the pair."""
    return Child(*await asyncio.open_connection(sock=ours))


def _send(writer: StreamWriter, message: object) -> None:
    body = pickle.dumps(message)
    writer.write(len(body).to_bytes(8, "big") + body)


async def _receive(reader: StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(8), "big")
    return pickle.loads(await reader.readexactly(length))  # from our own process, over a pair that nobody else has


# --- in the child


async def serve(opening: Awaitable[Any], theirs: socket.socket) -> None:
    """Open a driver, or what has the calls of one, say so, and answer until the kit closes its end; then close it.

    The same when the process is told to end.
    """
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        driver = await opening
    except (PoolError, SnapshotError) as error:
        _send(writer, (READY, str(error)))
        await writer.drain()
        return
    _send(writer, (READY, ""))
    answering = asyncio.create_task(_answer_all(driver, reader, writer))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, answering.cancel)
    with suppress(asyncio.CancelledError):
        await answering
    await driver.close()


async def opened(how: How) -> Snapshotter:
    kind, directory, userxattr, size, file_system = how
    pool = await asyncio.to_thread(partial(open_pool, directory, size=size, file_system=file_system)) if size else None
    attributes = {"userxattr": True} if userxattr else {}
    driver: BaseSnapshotter = resolve_name(kind)(pool.root if pool else directory, pool, **attributes)
    await driver.open()
    return driver


async def _answer_all(driver: Any, reader: StreamReader, writer: StreamWriter) -> None:
    async with asyncio.TaskGroup() as calls:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                number, name, arguments = await _receive(reader)
                calls.create_task(_answer(driver, writer, number, name, arguments))


async def _answer(driver: Any, writer: StreamWriter, number: int, name: str, arguments: tuple[Any, ...]) -> None:
    value: Any
    try:
        called = getattr(driver, name)(*arguments)
        value = [info async for info in called] if name == "walk" else await called
    except SnapshotError as error:
        value = error
    _send(writer, (number, value))


if __name__ == "__main__":
    *given, descriptor = sys.argv[1:]
    asked: How = (given[0], given[1], given[2] == "yes", int(given[3]), given[4])
    asyncio.run(serve(opened(asked), socket.socket(fileno=int(descriptor))))
