"""Drivers in this process that are opened again after each fault: on a file system in memory, where that is quick."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from snapspec.conformance.faults.leaks import MountPoint, mount_points
from snapspec.conformance.subjects.python import PythonSubject
from snapspec.conformance.subjects.reference import ReferenceSubject
from snapspec.impl import syscalls
from snapspec.impl.loopback import Pool, open_pool
from snapspec.impl.mounts import mountpoints_below, unmount
from snapspec.impl.ports import Snapshotter

#: What can be faulted: a driver that runs in the process of the kit.
InProcess = ReferenceSubject | PythonSubject

#: Bytes of the file system in memory. What a pool's image does not hold takes none.
MEMORY = 256 << 20

_MNT_DETACH = 2


def into_memory(directory: Path) -> None:
    """Mount a file system in memory on the empty directory. Raises OSError where that is refused."""
    syscalls.mount("snapspec", str(directory), "tmpfs", 0, f"mode=700,size={MEMORY}")


def is_in_memory(directory: Path) -> bool:
    """Whether there is one."""
    return MountPoint(str(directory), "tmpfs") in mount_points()


def out_of_memory(directory: Path) -> None:
    """Unmount it, if it is there; with it all that it held is gone."""
    if is_in_memory(directory):
        try:
            unmount(str(directory), patience=0.1)
        except OSError:  # a driver that was found to be wrong may hold files in it until this process ends
            for point in reversed(mountpoints_below(str(directory))):
                syscalls.umount2(point, _MNT_DETACH)


class _Lent:
    """A pool as the driver has it: a close of the driver closes it only when it is no longer `kept`."""

    def __init__(self, pool: Pool) -> None:
        self.kept = True
        self._pool = pool

    def __getattr__(self, name: str) -> object:
        return getattr(self._pool, name)

    def close(self) -> None:
        """As the driver calls it."""
        if not self.kept:
            self._pool.close()


class FaultedReference(ReferenceSubject):
    """The reference. It is opened again on the pool as it is, unless `whole` says that the pool is closed and opened too."""

    whole = False
    _lent: _Lent | None = None

    async def _open(self) -> Snapshotter:
        if not self.ground.pool:
            return await super()._open()
        if self._lent is not None:
            return await self._over(self._lent._pool.root, cast(Pool, self._lent))
        pool = await asyncio.to_thread(open_pool, str(self.directory), size=self.size, file_system=self.file_system)
        lent = _Lent(pool)
        try:
            driver = await self._over(pool.root, cast(Pool, lent))
        except BaseException:
            await asyncio.to_thread(pool.close)
            raise
        self._lent = lent
        return driver

    async def reopen(self, close_twice: bool) -> None:
        """Close, twice when asked, and open again on the same store."""
        if self._lent is not None and self.whole:
            self._lent.kept = False
        for _ in range(2 if close_twice else 1):
            await self.driver(0).close()
        if self._lent is not None and not self._lent.kept:
            self._lent = None
        self._driver = await self._open()

    async def stop(self) -> None:
        """Close the store and the pool."""
        if self._lent is not None:
            self._lent.kept = False
        await super().stop()
        self._lent = None
