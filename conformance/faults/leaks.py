"""What a fault may leave behind: open files, mounts, loop devices, files in the driver's directory."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Seconds that the kernel takes at most to let go of a loop device.
PATIENCE = 2.0

#: Files that sqlite has beside its own while it is in use.
_OF_SQLITE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A line of the mount table: where, and what kind of file system."""

    point: str
    type: str


def mount_points() -> list[MountPoint]:
    """The mounts of this process, each after those that it stands on."""
    lines = Path("/proc/thread-self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [MountPoint(line.split(" ")[4], line.partition(" - ")[2].split(" ")[0]) for line in lines]


def mount_of(path: str) -> MountPoint:
    """The mount that holds `path`."""
    above = [m for m in mount_points() if m.point == "/" or path == m.point or path.startswith(f"{m.point}/")]
    return max(reversed(above), key=lambda mount: len(mount.point))


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds: descriptors by what they are open on, mounts, and loop devices by their file."""

    files: Counter[str]
    mounts: Counter[str]
    loops: Counter[str]

    def beyond(self, before: Held) -> list[str]:
        """What was not held before."""
        return [
            *(f"an open descriptor of {name}" for name in (self.files - before.files).elements()),
            *(f"a mount on {point}" for point in (self.mounts - before.mounts).elements()),
            *(f"a loop device on {file}" for file in (self.loops - before.loops).elements()),
        ]


def held(directory: Path) -> Held:
    """What the process holds now; of loop devices those on files below `directory`."""
    return Held(Counter(_descriptors()), Counter(mount.point for mount in mount_points()), Counter(_loops(directory)))


def leaked(directory: Path, before: Held) -> str:
    """What is held beyond what was before; the kernel lets go of a loop device a moment later."""
    deadline = time.monotonic() + PATIENCE
    while (now := held(directory)).loops - before.loops and time.monotonic() < deadline:
        time.sleep(0.01)
    return ", ".join(now.beyond(before))


def _descriptors() -> list[str]:
    names = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return names


def _loops(directory: Path) -> list[str]:
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached since it was listed
            file = entry.read_text(errors="surrogateescape").rstrip("\n")
            if file.startswith(f"{directory}/"):
                found.append(file)
    return found


def entries(directory: Path, without: Collection[str] = ()) -> Counter[str]:
    """How many entries there are in the driver's directory, by the directory below it that they are in.

    Directories `without` which are not looked into: those that the kernel works in.
    """
    found: Counter[str] = Counter()
    for above, directories, files in os.walk(directory):
        place = os.path.relpath(above, directory)
        found[place] = len(directories) + sum(not name.endswith(_OF_SQLITE) for name in files)
        directories[:] = [name for name in directories if os.path.join(above, name) not in without]
    return found
