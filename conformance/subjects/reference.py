"""`ref:overlay` and `ref:copy`: the reference, on a pool, a plain directory, or as a plain copy, as the machine permits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from snapspec.conformance.contents import Contents
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.machine import Surroundings
from snapspec.conformance.subjects.base import PortSubject
from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.errors import SnapshotError
from snapspec.impl.loopback import Pool, PoolError, open_pool
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.ports import Snapshotter
from snapspec.model.state import Measure, Profile


@dataclass(frozen=True, slots=True)
class Ground:
    """What the reference stands on: `driver` overlay or copy, a pool or a plain directory, and why."""

    driver: str
    pool: bool
    userxattr: bool
    why: str


def choose_ground(driver: str, plain: bool, surroundings: Surroundings) -> Ground:
    """The best that the machine permits for `driver`; `plain` asks for no pool."""
    root = surroundings.how == "root"
    if driver == "copy":
        return Ground("copy", False, False, "plain copies, as asked")
    if not surroundings.overlay.yes:
        why = f"plain copies, for overlay mounts are refused: {surroundings.reason}; {surroundings.overlay.why}"
        return Ground("copy", False, False, why)
    if root and not plain:
        return Ground("overlay", True, False, "overlay on a pool of its own")
    if root:
        return Ground("overlay", False, False, "overlay on a plain directory, as asked")
    return Ground("overlay", False, True, f"overlay on a plain directory, for there are no loop devices: {surroundings.reason}")


#: The drivers of the reference.
KINDS: dict[str, type[BaseSnapshotter]] = {"overlay": OverlaySnapshotter, "copy": CopySnapshotter}


class ReferenceSubject(PortSubject):
    """The reference in a directory of the run. `size` and `file_system` are those of the pool, `kind` is the driver's class."""

    reopens = True

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
        super().__init__(contents)
        self.name = name
        self.kind = kind or KINDS[ground.driver]
        self.directory = directory
        self.ground = ground
        self.size = size
        self.file_system = file_system
        self.note = f"{ground.why}, {file_system}" if ground.pool else ground.why
        self.profile = Profile(usage=Measure.LAYER if ground.driver == "overlay" else Measure.COPY)
        self._driver: Snapshotter | None = None

    def driver(self, space: int) -> Snapshotter:
        """The reference; it has one namespace."""
        if self._driver is None:
            raise CannotRun("the reference was not started: start the subject first")
        return self._driver

    async def start(self) -> None:
        """Open the store. CannotRun with the remedy when the machine refuses."""
        try:
            self._driver = await self._open()
        except (PoolError, SnapshotError) as error:
            raise CannotRun(f"the reference cannot be opened: {error}") from error

    async def _open(self) -> Snapshotter:
        if not self.ground.pool:
            return await self._over(str(self.directory), None)
        pool = await asyncio.to_thread(open_pool, str(self.directory), size=self.size, file_system=self.file_system)
        try:
            return await self._over(pool.root, pool)
        except BaseException:
            await asyncio.to_thread(pool.close)
            raise

    async def _over(self, root: str, pool: Pool | None) -> Snapshotter:
        attributes = {"userxattr": True} if self.ground.userxattr else {}
        driver = self.kind(root, pool, **attributes)
        await driver.open()
        return driver

    async def reopen(self, close_twice: bool) -> None:
        """Close, twice when asked, and open again on the same store."""
        await self.driver(0).close()
        if close_twice:
            await self.driver(0).close()
        self._driver = await self._open()

    async def stop(self) -> None:
        """Close the store; its directory is the run's to remove."""
        if self._driver is not None:
            await self._driver.close()
