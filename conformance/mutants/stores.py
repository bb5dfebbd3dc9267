"""Exhibits of drivers that lose, mix up or give away what they store: the reference with one fault each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from snapspec.impl.layout import make_directory
from snapspec.impl.loopback import Pool
from snapspec.impl.mounts import remove_tree
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record
from snapspec.model.values import Kind, Labels, Mount, labels_of

# --- remove


class _RemoveOver(OverlaySnapshotter):
    """A parent can be removed when each of its children is one of `over`; they are left without one."""

    over: tuple[Kind, ...] = tuple(Kind)

    def _unlist(self, key: str) -> int:
        record = self._known(key)
        with self._records.write():
            if all(child.kind in self.over for child in self._records.all() if child.parent_id == record.id):
                self._records._change("UPDATE snapshots SET parent = NULL WHERE parent = ?", record.id)
        return super()._unlist(key)


class RemoveOverChildren(_RemoveOver):
    """Remove does not ask for children."""


class RemoveOverActives(_RemoveOver):
    """Remove asks for children that are views or committed only."""

    over = (Kind.ACTIVE,)


class RemoveOverViews(_RemoveOver):
    """Remove asks for children that are active or committed only."""

    over = (Kind.VIEW,)


class RemoveDeletesFirst(OverlaySnapshotter):
    """Remove deletes the data, and then finds that there are children."""

    def _unlist(self, key: str) -> int:
        self._empty(self._known(key))
        return super()._unlist(key)

    def _empty(self, record: Record) -> None:
        _empty(self._layout.fs(record.id))


def _empty(directory: str) -> None:
    remove_tree(directory)
    make_directory(directory, 0o755)


# --- prepare


class StagingLeft(OverlaySnapshotter):
    """A prepare that fails leaves its directory below `new`, where nobody looks again."""

    def _build(self, record: Record) -> str:
        path = self._layout.start()
        make_directory(f"{path}/fs", 0o755)
        if record.parent_id is not None and record.kind is Kind.ACTIVE:
            self._inherit(path, record.parent_id)
        return path

    def _sweep(self) -> list[str]:
        self._making = self._layout.started()
        return super()._sweep()


# --- mounts


class ViewsLackRo(OverlaySnapshotter):
    """The list of a view does not say that it is only to be read."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        (mount,) = super()._mount_list(record)
        return (replace(mount, options=tuple("rw" if option == "ro" else option for option in mount.options)),)


class ActivesHaveRo(OverlaySnapshotter):
    """The list of an active snapshot says that it is only to be read."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        (mount,) = super()._mount_list(record)
        return (replace(mount, options=(*(option for option in mount.options if option not in ("rw", "ro")), "ro")),)


def _lowers(mounts: tuple[Mount, ...], change: Callable[[list[str]], list[str]]) -> tuple[Mount, ...]:
    """The list with its lower directories changed."""
    (mount,) = mounts
    *others, last = mount.options
    if not last.startswith("lowerdir="):
        return mounts
    changed = ":".join(change(last.removeprefix("lowerdir=").split(":")))
    return (replace(mount, options=(*others, f"lowerdir={changed}")),)


class LowersReversed(OverlaySnapshotter):
    """The lower directories stand farthest parent first."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        return _lowers(super()._mount_list(record), lambda lowers: lowers[::-1])


class LowestDropped(OverlaySnapshotter):
    """Of several lower directories the farthest is forgotten."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        return _lowers(super()._mount_list(record), lambda lowers: lowers[: max(1, len(lowers) - 1)])


class TopOfThreeDropped(OverlaySnapshotter):
    """From three lower directories on, the nearest is forgotten."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        return _lowers(super()._mount_list(record), lambda lowers: lowers[1:] if len(lowers) >= 3 else lowers)


def _without_index(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    (mount,) = mounts
    return (replace(mount, options=tuple(option for option in mount.options if option != "index=off")),)


class LaterListDiffers(OverlaySnapshotter):
    """The list that mounts gives lacks an option of the one that prepare gave."""

    def _mounts_of(self, key: str) -> tuple[Mount, ...]:
        return _without_index(super()._mounts_of(key))


class ListOfTheNextLife(OverlaySnapshotter):
    """The list lacks an option once the store was opened again."""

    def __init__(self, root: str, pool: Pool | None = None, *, userxattr: bool = False) -> None:
        super().__init__(root, pool, userxattr=userxattr)
        self._older: set[int] = set()

    def _load(self) -> None:
        super()._load()
        self._older = self._layout.numbers()

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        mounts = super()._mount_list(record)
        return _without_index(mounts) if record.id in self._older else mounts


# --- close and open


class CloseRemovesContent(OverlaySnapshotter):
    """Close takes away what is in the snapshots."""

    def _stop(self) -> None:
        if self._root >= 0:
            for number in self._layout.numbers():
                _empty(self._layout.fs(number))
        super()._stop()


class OpensOnce(OverlaySnapshotter):
    """A directory that is there already when the store is opened is in the way."""

    def _load(self) -> None:
        os.mkdir(f"{self._layout.root}/s", 0o700)
        super()._load()


class NeedsEachDirectory(OverlaySnapshotter):
    """A directory that is empty is not kept at close, and the store does not open without it."""

    def _load(self) -> None:
        if os.path.lexists(self._layout.records):
            os.listdir(f"{self._layout.root}/trash")
        super()._load()

    def _stop(self) -> None:
        with suppress(OSError):
            os.rmdir(f"{self._layout.root}/trash")
        super()._stop()


class CommitUnsynced(OverlaySnapshotter):
    """A commit records what it has not brought to the disk."""

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        wanted: Labels = labels_of(labels or {})
        with self._call():
            record = await self._in_order(self._check_commit, name, key, wanted, parent)
            await self._in_order(self._commit, name, key, wanted, parent, record.id)
