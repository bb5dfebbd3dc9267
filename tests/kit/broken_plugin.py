"""Proxy plugins with a fault that shows only when their process ends: the reference on a plain directory behind a socket.

`python broken_plugin.py DIRECTORY VARIANT SOCKET` serves until it is told to end. With the number of an open descriptor for the
socket it answers the kit as the reference's own process does, which starts sooner, for it needs no gRPC.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from snapspec.conformance.durable import child
from snapspec.impl.layout import make_directory
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record, Records
from snapspec.model.values import Kind, Labels, Usage

#: Seconds that a fault leaves open: about what a slow disk takes between two writes.
GAP = 0.05


class LateRecords(Records):
    """Changes are answered at once, and written when the store is closed."""

    @contextmanager
    def write(self) -> Iterator[None]:
        db = self._opened()
        if not db.in_transaction:
            db.execute("BEGIN IMMEDIATE")
        db.execute("SAVEPOINT change")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK TO change")
            raise
        finally:
            db.execute("RELEASE change")

    def close(self) -> None:
        if self._db is not None and self._db.in_transaction:
            self._db.execute("COMMIT")
        super().close()


class MemoryAhead(OverlaySnapshotter):
    """Calls are answered before the disk has them."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._records = LateRecords(self._layout.records)


class StagingLeft(OverlaySnapshotter):
    """Snapshots are made in one place, always the same; what a crash leaves there is in the way of the next one."""

    def _build(self, record: Record) -> str:
        path = f"{self._layout.root}/new/staging"
        make_directory(path, 0o700)
        make_directory(f"{path}/fs", 0o755)
        time.sleep(GAP)
        if record.parent_id is not None and record.kind is Kind.ACTIVE:
            self._inherit(path, record.parent_id)
        return path

    def _sweep(self) -> list[str]:
        return []


class ViewLeft(OverlaySnapshotter):
    """Usage of a committed snapshot is measured on a view of it, which a crash leaves behind."""

    async def usage(self, key: str) -> Usage:
        if (await self.stat(key)).kind is not Kind.COMMITTED:
            return await super().usage(key)
        await self.view(f"{key}-measured", key)
        try:
            await asyncio.sleep(GAP)
            return await super().usage(key)
        finally:
            await self.remove(f"{key}-measured")


class CommitInTwo(OverlaySnapshotter):
    """A commit makes the snapshot a committed one, and then gives it its name: two transactions."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        record = self._check_commit(name, key, labels, parent)
        with self._records.write():
            self._records.commit(record.id, key, labels)
        time.sleep(GAP)
        with self._records.write():
            self._records.commit(record.id, name, labels)
        return True


VARIANTS = {
    "right": OverlaySnapshotter,
    "memory-ahead": MemoryAhead,
    "staging-left": StagingLeft,
    "view-left": ViewLeft,
    "commit-in-two": CommitInTwo,
}


async def opened(directory: str, variant: str) -> OverlaySnapshotter:
    """The variant over the store in `directory`."""
    driver = VARIANTS[variant](directory)
    await driver.open()
    return driver


async def serve(directory: str, variant: str, address: str) -> None:
    """Serve the variant on the socket `address` until the process is told to end; then close it."""
    import grpc.aio

    from snapspec.conformance.service import Service

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    driver = await opened(directory, variant)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Service(driver).handler(),))
    server.add_insecure_port("unix:" + quote(address))  # read as a URI
    await server.start()
    await ended.wait()
    await server.stop(grace=5)
    await driver.close()


if __name__ == "__main__":
    store, name, where = sys.argv[1:]
    if where.isdigit():
        asyncio.run(child.serve(opened(store, name), socket.socket(fileno=int(where))))
    else:
        asyncio.run(serve(store, name, where))
