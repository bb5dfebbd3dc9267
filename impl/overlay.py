"""The overlay snapshotter: each snapshot is one layer in a directory of its own, and the kernel's overlay puts them together."""

from __future__ import annotations

import os

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.filetree import copy_metadata
from snapspec.impl.layout import make_directory
from snapspec.impl.loopback import Pool
from snapspec.impl.mounts import escape_layer
from snapspec.impl.records import Record
from snapspec.model.values import Kind, Mount

# What overlay itself writes on a layer's root says how that layer was mounted: it is not the parent's metadata.
_OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")

# Set, so that a layer reads the same whatever the kernel's defaults are, and never holds what only another mount understands.
_PLAIN = ("index=off", "redirect_dir=off", "metacopy=off")
# With userxattr the kernel switches redirects and metacopy off itself, and refuses to be told so.
_USER = ("index=off", "userxattr")


async def open_overlay(root: str, *, pool: Pool | None = None, userxattr: bool = False) -> OverlaySnapshotter:
    """The overlay snapshotter over the directory `root`, new or as it was left. It closes `pool`, which holds `root`, at its end.

    `userxattr`: overlay keeps its attributes in the user namespace of names, as it must in a user namespace.
    Raises FailedPrecondition when `root` is open elsewhere, of a newer version, or holds directories without records;
    ResourceExhausted when it is full; SnapshotError for what the system refuses. Then `pool` stays open.
    """
    snapshotter = OverlaySnapshotter(root, pool, userxattr=userxattr)
    await snapshotter.open()
    return snapshotter


class OverlaySnapshotter(BaseSnapshotter):
    """Layers in directories. A commit copies nothing and looks at no file; a mount list names every ancestor's layer."""

    def __init__(self, root: str, pool: Pool | None = None, *, userxattr: bool = False) -> None:
        super().__init__(root, pool)
        self._options = _USER if userxattr else _PLAIN

    def _inherit(self, path: str, parent: int) -> None:
        """The merged root is the upper one: it has to look like the parent's."""
        root = self._layout.fs(parent)
        copy_metadata(root, f"{path}/fs", os.lstat(root), without=_OVERLAYS_OWN)
        make_directory(f"{path}/work", 0o700)

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        active = record.kind is Kind.ACTIVE
        ancestors = self._records.ancestors(record.id)
        if not ancestors:
            return self._bind(record.id, "rw" if active else "ro")
        if not active and len(ancestors) == 1:  # overlay takes no single lower directory
            return self._bind(ancestors[0], "ro")
        own = (f"workdir={self._path(record, 'work')}", f"upperdir={self._path(record, 'fs')}") if active else ("ro",)
        lower = ":".join(escape_layer(self._layout.fs(number)) for number in ancestors)
        return (Mount("overlay", "overlay", (*self._options, *own, f"lowerdir={lower}")),)

    def _path(self, record: Record, part: str) -> str:
        return escape_layer(f"{self._layout.directory(record.id)}/{part}")
