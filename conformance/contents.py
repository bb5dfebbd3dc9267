"""Content through mount lists: mount, change or read, unmount, on a directory of the kit's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.files import apply, scan
from snapspec.impl.mounts import MountError, mounted
from snapspec.model.nodes import Tree
from snapspec.model.replies import option
from snapspec.model.tree import Change
from snapspec.model.values import Mount


class Contents:
    """Mounts lists on `target`, an empty directory, or goes to a bind's source where nothing can be mounted (`mounts` False).

    `root`: a list that cannot be mounted is the driver's fault. Without root it may be for want of rights: then CannotRun.
    """

    def __init__(self, target: Path, *, mounts: bool = True, root: bool = True) -> None:
        self.target = str(target)
        self.mounts = mounts
        self.root = root
        self._one = Lock()

    async def write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        """Make the changes in order; gives `ok` or the name of the error for each (SNAP-CONTENT-2)."""
        return await asyncio.to_thread(self._write, mounts, changes)

    async def read(self, mounts: Sequence[Mount]) -> Tree:
        """The whole tree that the list shows (SNAP-CONTENT-1)."""
        return await asyncio.to_thread(self._read, mounts)

    def _write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        with self._shown(mounts) as directory:
            return tuple(apply(directory, change) for change in changes)

    def _read(self, mounts: Sequence[Mount]) -> Tree:
        with self._shown(mounts) as directory:
            return scan(directory)

    @contextmanager
    def _shown(self, mounts: Sequence[Mount]) -> Iterator[str]:
        """A directory that shows the list, for as long as the context lasts. One at a time: there is one target."""
        if self.mounts:
            with self._one, ExitStack() as stack:
                try:
                    directory = stack.enter_context(mounted(mounts, self.target))
                except (MountError, OSError) as error:
                    if self.root:
                        raise MountError(str(error)) from error
                    raise CannotRun(f"what the driver gives cannot be mounted without root ({error}): run as root") from error
                yield directory
        elif len(mounts) == 1 and mounts[0].type == "bind":
            yield mounts[0].source
        else:
            raise CannotRun(
                "this machine lets the kit mount nothing, and the driver's lists are no plain directories: run as root"
            )


def own_directory(mounts: Sequence[Mount]) -> str:
    """The directory that holds a snapshot's own layer, where the list that was given for it shows one; else empty."""
    for mount in mounts:
        place = option(mount, "upperdir") or (mount.source if mount.type == "bind" and "ro" not in mount.options else "")
        if place:
            return place
    return ""
