"""`ref:overlay` and `ref:copy` at level durable: the reference in a process of its own, which is killed."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from snapspec.conformance.contents import Contents
from snapspec.conformance.durable.child import Gone, connect, path_of
from snapspec.conformance.durable.process import Process, drop_mounts
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.reference import Ground, ReferenceSubject
from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.errors import SnapshotError
from snapspec.impl.ports import Snapshotter

#: Runs the child; what tells this process to leave asserts out tells that one too.
_CHILD = (sys.executable, *(["-O"] if sys.flags.optimize else []), "-m", "snapspec.conformance.durable.child")


class KilledReference(ReferenceSubject):
    """The reference in a directory of the run, in a process that is killed in each history and started again."""

    reopens = False
    fresh = True
    restarts = "kill"

    def __init__(
        self,
        name: str,
        contents: Contents,
        directory: Path,
        ground: Ground,
        size: int,
        file_system: str,
        kind: type[BaseSnapshotter] | None = None,
    ) -> None:
        super().__init__(name, contents, directory, ground, size, file_system, kind)
        self.note = f"{self.note}, in a process that is killed"
        self.process = self._on(directory)
        self._stores = 1

    def _on(self, directory: Path) -> Process:
        pool = str(self.size if self.ground.pool else 0)
        how = (path_of(self.kind), str(directory), "yes" if self.ground.userxattr else "no", pool, self.file_system)
        return Process((*_CHILD, *how), directory.with_suffix(".log"))

    async def _open(self) -> Snapshotter:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process.start(str(theirs.fileno()), pass_fds=(theirs.fileno(),))
        child = await connect(ours)
        why = await child.ready
        if why:
            await child.close()
            raise SnapshotError(f"{self.process.last_words()}" if isinstance(why, Gone) else why)
        return child

    async def again(self) -> None:
        """Start the process once more, after it was ended. CannotRun when the store cannot be opened."""
        await self.driver(0).close()
        self._driver = None
        await self.start()

    async def renew(self) -> bool:
        """Kill the process and start one on an empty store."""
        await self.driver(0).close()
        await asyncio.to_thread(self.process.end, kill=True)
        drop_mounts(self.directory)
        self._stores += 1
        self.directory = self.directory.with_suffix(f".{self._stores}")
        self.directory.mkdir(0o700)
        self.process = self._on(self.directory)
        await self.start()
        return True

    async def reopen(self, close_twice: bool) -> None:
        """Never called: `reopens` is False."""
        raise CannotRun("the process is killed instead: replay this history at level core")

    async def stop(self) -> None:
        """Let the process close the store and end; its directory is the run's to remove."""
        await super().stop()
        await asyncio.to_thread(self.process.end, kill=False)
        drop_mounts(self.directory)
