"""Where the power is cut: a pool on a tmpfs of the run, whose image the recorder serves or a cut has made.

All images come to one path, the pool's: the mount lists that a history was given hold there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.durable import InFlight, images
from snapspec.conformance.durable.recorder import Event, Recorder, recording
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.files import permits
from snapspec.conformance.subjects.reference import Ground, ReferenceSubject
from snapspec.impl import syscalls
from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.loopback import PoolError, open_pool
from snapspec.impl.mounts import attached_loop, unmount, unmount_top
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.ports import Snapshotter
from snapspec.model.replies import Reading

#: Bytes of a pool, by file system: a small one is quick to copy.
SIZES = {"ext4": 32 << 20, "xfs": 300 << 20, "btrfs": 128 << 20}

#: What looks at an image and changes nothing, and the Debian package that has it.
_CHECKERS = {
    "ext4": (("e2fsck", "-fn"), "e2fsprogs"),
    "xfs": (("xfs_repair", "-n", "-f"), "xfsprogs"),
    "btrfs": (("btrfs", "check", "--readonly"), "btrfs-progs"),
}


class PoweredSubject(ReferenceSubject):
    """A driver on a pool in `directory`. Each history has a store of its own, and names without a prefix."""

    overlapping = False
    """Calls are under way together: what one of them measures another one may be taking away."""

    def __init__(self, contents: Contents, directory: Path, driver: type[BaseSnapshotter], file_system: str) -> None:
        kind = "copy" if issubclass(driver, CopySnapshotter) else "overlay"
        ground = Ground(kind, True, False, f"{kind} on a pool whose power is cut")
        super().__init__("power", contents, directory, ground, SIZES[file_system], file_system, driver)

    def history_prefix(self, number: int) -> str:
        """None: names mean the same on an image as in the history."""
        return ""

    def forget_places(self, calls: Sequence[InFlight]) -> None:
        """Which of these calls came last is not known: nothing is taken for sure of the snapshots that they name."""
        for name in {name for call in calls for name in (getattr(call, "key", ""), getattr(call, "name", ""))}:
            self.forget(0, name)

    async def _usage(self, driver: Snapshotter, space: int, key: str) -> Reading:
        if self.overlapping:
            return Reading(await driver.usage(self._key(key)), None)
        return await super()._usage(driver, space, key)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the run happens: the tmpfs, the recorder, the event loop, and the class of the driver."""

    directory: Path
    recorder: Recorder
    runner: asyncio.Runner
    driver: type[BaseSnapshotter]
    limits: Limits
    file_system: str

    @property
    def image(self) -> Path:
        """The image of the pool."""
        return self.directory / "pool" / "pool.img"

    @property
    def template(self) -> Path:
        """The image of a pool that was never used."""
        return self.directory / "template.img"

    @property
    def whole(self) -> tuple[int, ...]:
        """The blocks that no cut tears."""
        return images.WHOLE[self.file_system]

    def subject(self) -> PoweredSubject:
        """A subject over the pool as its image is now."""
        return PoweredSubject(Contents(self.directory / "target"), self.directory / "pool", self.driver, self.file_system)

    def disk(self, events: tuple[Event, ...]) -> images.Disk:
        """The disk that was told the events, before the first of them."""
        return images.Disk(self.template, events, self.directory / "disk.img")

    def replayed(self) -> str:
        """Let the kernel replay the journal or log of the image; what the checker then finds, empty for nothing."""
        target = str(self.directory / "replayed")
        try:
            with attached_loop(str(self.image)) as device:
                syscalls.mount(device, target, self.file_system, syscalls.MS_NOATIME)
        except OSError as error:
            return f"it cannot be mounted: {error}"
        unmount_top(target)
        return self.checked()

    def checked(self) -> str:
        """What the checker of the file system finds in the image, empty for nothing."""
        (program, *options), package = _CHECKERS[self.file_system]
        found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if found is None:
            raise CannotRun(f"{program} is not on the path: install the Debian package {package}")
        words = [found, *options, str(self.image)]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        told = " ".join(done.stdout.split())[:300]
        return "" if done.returncode == 0 else f"{program} {' '.join(options)} ends with {done.returncode}: {told}"


@contextmanager
def place(
    directory: Path,
    driver: type[BaseSnapshotter] = OverlaySnapshotter,
    file_system: str = "ext4",
    without: frozenset[str] = frozenset(),
) -> Iterator[Place]:
    """The empty directory `directory` as a place, for as long as the block lasts; afterwards it is empty again.

    To be used in a private mount namespace, as root. CannotRun, with the remedy, where there is no recorder or no pool.
    """
    syscalls.mount("tmpfs", str(directory), "tmpfs", 0, "mode=700,size=2g")
    try:
        with recording(directory / "recorder") as recorder, asyncio.Runner() as runner:
            for name in ("target", "replayed"):
                (directory / name).mkdir()
            here = Place(directory, recorder, runner, driver, Limits(permits(str(directory)), without), file_system)
            try:
                _make(here)
                yield here
            finally:  # what failed in the midst may have left the pool mounted, on a file that the recorder serves
                for name in ("target", "replayed", "pool"):
                    unmount(str(directory / name))
    finally:
        unmount(str(directory))


def _make(here: Place) -> None:
    try:
        open_pool(str(here.image.parent), size=SIZES[here.file_system], file_system=here.file_system).close()
    except PoolError as error:
        raise CannotRun(f"power cuts need a pool: {error}") from error
    images.copy_sparse(here.image, here.template, zeros=False)
