"""Small broken drivers: each is the reference with one fault. Named like any other driver: `py:broken:view_is_writable`."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.errors import AlreadyExists, InvalidArgument
from snapspec.impl.layout import make_directory
from snapspec.impl.loopback import Pool, open_pool
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record
from snapspec.model.state import Measure, Profile
from snapspec.model.values import Info, Kind, Labels, Mount, Usage, labels_of


class Factory:
    """Opens a broken driver on a pool in the given directory, new or as it was left."""

    def __init__(self, driver: type[BaseSnapshotter]) -> None:
        self._driver = driver
        self.profile = Profile(usage=Measure.COPY if issubclass(driver, CopySnapshotter) else Measure.LAYER)

    async def __call__(self, directory: Path) -> BaseSnapshotter:
        return await _opened(self._driver, directory)


async def _opened(driver: type[BaseSnapshotter], directory: Path) -> BaseSnapshotter:
    pool = open_pool(str(directory), size=64 << 20)
    opened = driver(pool.root, pool)
    await opened.open()
    return opened


# --- prepare and view


class KeyBeforeParent(CopySnapshotter):
    """Looks at the key first, as containerd's metadata layer does."""

    def _check_new(self, key: str, parent: str, labels: Labels) -> Record | None:
        if self._records.find(key) is not None:
            raise AlreadyExists(f"snapshot {key!r} exists")
        return super()._check_new(key, parent, labels)


class KeyStaysTaken(CopySnapshotter):
    """A prepare that is refused for its parent leaves an empty snapshot behind."""

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        try:
            return await super().prepare(key, parent, labels)
        except InvalidArgument:
            if key:
                with suppress(AlreadyExists):
                    await super().prepare(key)
            raise


class SharedUpper(OverlaySnapshotter):
    """All active children of one parent write to the same directory."""

    def _path(self, record: Record, part: str) -> str:
        siblings = (r.id for r in self._records.all() if r.kind is Kind.ACTIVE and r.parent_id == record.parent_id)
        return super()._path(replace(record, id=min(siblings)), part)


class CopyOfLinks(CopySnapshotter):
    """The copy of the parent is made of hard links: what is written into the child is written into the parent."""

    def _copy(self, path: str, above: Record, stop: Event) -> None:
        make_directory(f"{path}/fs", 0o755)
        shutil.copytree(self._layout.fs(above.id), f"{path}/fs", symlinks=True, copy_function=os.link, dirs_exist_ok=True)


class ReturnedListGrows(CopySnapshotter):
    """Prepare gives out its own list, and commit changes it."""

    def __init__(self, root: str, pool: Pool | None = None) -> None:
        super().__init__(root, pool)
        self._lists: dict[str, list[Mount]] = {}

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        given = list(await super().prepare(key, parent, labels))
        self._lists[key] = given
        return given

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        await super().commit(name, key, labels, parent)
        self._lists.pop(key, []).clear()


# --- commit


class CommitTakesViews(CopySnapshotter):
    """A view can be committed."""

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        record = self._records.find(key)
        if record is not None and record.kind is Kind.VIEW and name and self._records.find(name) is None:
            return record
        return super()._check_commit(name, key, labels, parent)


class CommitKeepsLabels(CopySnapshotter):
    """The committed snapshot has the labels of the active one too."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        record = self._records.find(key)
        kept = dict(record.labels) if record is not None else {}
        return super()._commit(name, key, labels_of(kept | dict(labels)), parent, synced)


class CommitKeepsCreated(CopySnapshotter):
    """The committed snapshot is as old as the active one was."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        record = self._records.find(key)
        done = super()._commit(name, key, labels, parent, synced)
        if done and record is not None:
            with self._records.write():
                self._records._change("UPDATE snapshots SET created = ? WHERE id = ?", record.created, record.id)
        return done


class CommitToItsOwnKey(CopySnapshotter):
    """Names and keys are told apart: an active snapshot can be committed to the key that it has."""

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        record = self._records.find(key)
        if name and name == key and record is not None and record.kind is Kind.ACTIVE:
            return record
        return super()._check_commit(name, key, labels, parent)


class LockLeft(CopySnapshotter):
    """Calls that write hold a lock, and a commit that is refused does not let it go."""

    def __init__(self, root: str, pool: Pool | None = None) -> None:
        super().__init__(root, pool)
        self._lock = asyncio.Lock()

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        async with self._lock:
            return await super().prepare(key, parent, labels)

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        await self._lock.acquire()
        await super().commit(name, key, labels, parent)
        self._lock.release()


# --- remove


class RemoveOverViews(CopySnapshotter):
    """A parent whose children are all views can be removed; they are left without one."""

    def _unlist(self, key: str) -> int:
        record = self._known(key)
        with self._records.write():
            if not any(r.parent_id == record.id and r.kind is not Kind.VIEW for r in self._records.all()):
                self._records._change("UPDATE snapshots SET parent = NULL WHERE parent = ?", record.id)
        return super()._unlist(key)


# --- mounts


class WritableViews(CopySnapshotter):
    """The list of a view is that of an active snapshot."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        if record.kind is not Kind.VIEW:
            return super()._mount_list(record)
        return self._bind(record.id if record.parent_id is None else record.parent_id, "rw")


class CommittedHasMounts(CopySnapshotter):
    """Mounts of a committed snapshot gives the layer, read-only."""

    def _mounts_of(self, key: str) -> tuple[Mount, ...]:
        record = self._known(key)
        return self._bind(record.id, "ro") if record.kind is Kind.COMMITTED else super()._mounts_of(key)


class LaterListDiffers(OverlaySnapshotter):
    """The list that mounts gives is not the one that prepare gave: it lacks an option."""

    def _mounts_of(self, key: str) -> tuple[Mount, ...]:
        (mount,) = super()._mounts_of(key)
        return (replace(mount, options=tuple(option for option in mount.options if option != "index=off")),)


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


class LowerDropped(OverlaySnapshotter):
    """From three lower directories on, the farthest is forgotten."""

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        return _lowers(super()._mount_list(record), lambda lowers: lowers[:-1] if len(lowers) >= 3 else lowers)


# --- usage, labels, reopening


class UsageOfTheChain(OverlaySnapshotter):
    """Usage counts all parents too."""

    async def usage(self, key: str) -> Usage:
        parent = (await self.stat(key)).parent
        above = await self.usage(parent) if parent else Usage(0, 0)
        own = await super().usage(key)
        return Usage(own.size + above.size, own.inodes + above.inodes)


class UsageOfViews(CopySnapshotter):
    """A view takes what its parent takes."""

    async def usage(self, key: str) -> Usage:
        info = await self.stat(key)
        return await super().usage(info.parent if info.kind is Kind.VIEW and info.parent else key)


class UpdateMerges(CopySnapshotter):
    """An update without a mask keeps the labels that it does not name."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        before = dict(self._known(info.name).labels)
        return super()._update(replace(info, labels=labels_of(before | dict(info.labels))) if not paths else info, paths)


class MaskIgnored(CopySnapshotter):
    """An update with a mask replaces all labels."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        return super()._update(info, ("labels", *paths))


class ReopenLosesViews(CopySnapshotter):
    """Views are kept in memory only."""

    def _load(self) -> None:
        super()._load()
        with self._records.write():
            self._records._change("DELETE FROM snapshots WHERE kind = 'view'")


# --- a driver without asyncio


class Plain:
    """A driver whose methods are plain. A remove that is refused leaves a lock held, so that the next one hangs in its thread."""

    def __init__(self, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._driver: object = None
        self._directory = directory
        self._turn = Lock()
        self._removing = Lock()

    def open(self) -> None:
        """Not in the thread of the kit's own loop."""
        self._driver = self._runner.run(_opened(CopySnapshotter, self._directory))

    def __getattr__(self, name: str) -> Callable[..., object]:
        return partial(self._run, name)

    def _run(self, name: str, *arguments: object) -> object:
        with self._turn:
            return self._runner.run(self._call(name, *arguments))

    async def _call(self, name: str, *arguments: object) -> object:
        called = getattr(self._driver, name)(*arguments)
        return [info async for info in called] if name == "walk" else await called

    def remove(self, key: str) -> None:
        """Without a `with`, which would have let the lock go."""
        self._removing.acquire()
        self._run("remove", key)
        self._removing.release()


# --- as they are named

key_before_parent = Factory(KeyBeforeParent)
key_stays_taken = Factory(KeyStaysTaken)
shared_upper = Factory(SharedUpper)
copy_of_links = Factory(CopyOfLinks)
returned_list_grows = Factory(ReturnedListGrows)
commit_takes_views = Factory(CommitTakesViews)
commit_keeps_labels = Factory(CommitKeepsLabels)
commit_keeps_created = Factory(CommitKeepsCreated)
commit_to_its_own_key = Factory(CommitToItsOwnKey)
lock_left = Factory(LockLeft)
remove_over_views = Factory(RemoveOverViews)
writable_views = Factory(WritableViews)
committed_has_mounts = Factory(CommittedHasMounts)
later_list_differs = Factory(LaterListDiffers)
lowers_reversed = Factory(LowersReversed)
lower_dropped = Factory(LowerDropped)
usage_of_the_chain = Factory(UsageOfTheChain)
usage_of_views = Factory(UsageOfViews)
update_merges = Factory(UpdateMerges)
mask_ignored = Factory(MaskIgnored)
reopen_loses_views = Factory(ReopenLosesViews)


def plain_lock_left(directory: Path) -> Plain:
    """Opened in a thread, for the kit's own loop runs here."""
    driver = Plain(directory)
    opening = Thread(target=driver.open)
    opening.start()
    opening.join()
    return driver


plain_lock_left.profile = lock_left.profile
