"""The directories of a snapshotter below its root: `s/<id>` for each snapshot, `new` for what is being made, `trash` to delete.

A snapshot's directory is made complete below `new` and comes into place by one rename, and it leaves for `trash` by one rename:
after a crash it is whole or it is not there.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from contextlib import suppress

from snapspec.impl.errors import FailedPrecondition
from snapspec.impl.syscalls import file_system_magic

_PRIVATE = 0o700

#: ext4 and xfs: there what was done in directories reaches the disk in order, and before a file that is synced later. On others,
#: btrfs for one, a new directory may then be there without what is in it.
_ORDERED = {0xEF53, 0x58465342}
_ID = re.compile("[1-9][0-9]*")


class Layout:
    """The paths below `root` and the moves between them. Every method may raise OSError."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.records = os.path.join(self.root, "records.db")
        self._snapshots = os.path.join(self.root, "s")
        self._new = os.path.join(self.root, "new")
        self._trash = os.path.join(self.root, "trash")
        self._ordered = False

    def set_up(self) -> None:
        """Make what is missing. Raises FailedPrecondition when there are directories, but no records of what they are."""
        os.makedirs(self.root, _PRIVATE, exist_ok=True)
        self._ordered = file_system_magic(self.root) in _ORDERED
        known = os.path.lexists(self.records)
        for directory in (self._snapshots, self._new, self._trash):
            if not os.path.isdir(directory):
                make_directory(directory, _PRIVATE)
            elif not known and os.listdir(directory):
                raise FailedPrecondition(f"{directory} is not empty, but {self.records} is not there: choose an empty directory")
            # Inherited by what is made below, these would spoil the modes of the snapshots' roots.
            with suppress(OSError):
                os.removexattr(directory, "system.posix_acl_default")
            os.chmod(directory, _PRIVATE)

    def directory(self, number: int) -> str:
        """The directory of the snapshot with the id `number`."""
        return f"{self._snapshots}/{number}"

    def fs(self, number: int) -> str:
        """Where the files of the snapshot with the id `number` are."""
        return f"{self._snapshots}/{number}/fs"

    def work(self, number: int) -> str:
        """The work directory of the active snapshot with the id `number`."""
        return f"{self._snapshots}/{number}/work"

    def numbers(self) -> set[int]:
        """The ids that have a directory."""
        return {int(name) for name in os.listdir(self._snapshots) if _ID.fullmatch(name)}

    def start(self) -> str:
        """A new directory below `new`, to be filled and put into place."""
        path = tempfile.mkdtemp(prefix="", dir=self._new)
        try:
            os.chmod(path, _PRIVATE)
        except BaseException:
            os.rmdir(path)
            raise
        return path

    def started(self) -> set[str]:
        """The directories below `new`."""
        return {f"{self._new}/{name}" for name in os.listdir(self._new)}

    def put(self, path: str, number: int) -> str:
        """Make `path` the directory of the id `number`, which has none; the place where it now is."""
        place = self.directory(number)
        os.rename(path, place)
        return place

    def keep(self, place: str) -> None:
        """Have the new directory `place`, which is in its place, on the disk no later than what is synced from now on."""
        if not self._ordered:
            for path in (*(f"{place}/{name}" for name in os.listdir(place)), place):
                _sync(path)

    def scrap(self, path: str) -> str:
        """Move `path` away to be deleted; the place where it now is."""
        place = f"{self._trash}/{os.path.basename(path)}"
        if os.path.lexists(place):
            place = f"{place}-{time.time_ns()}"
        os.rename(path, place)
        return place

    def scrapped(self) -> list[str]:
        """The directories that wait to be deleted."""
        return [f"{self._trash}/{name}" for name in sorted(os.listdir(self._trash))]

    def left(self) -> set[int]:
        """The ids of which something is left, in place or in the trash."""
        names = (os.path.basename(path).partition("-")[0] for path in self.scrapped())
        return self.numbers() | {int(name) for name in names if _ID.fullmatch(name)}


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: str, mode: int) -> None:
    """A new directory with exactly this mode, whatever the umask."""
    os.mkdir(path, mode)
    os.chmod(path, mode)
