"""Small broken drivers beside those of the museum: each is the reference with one fault, named as `py:broken:shared_upper`."""

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
from snapspec.model.values import Kind, Labels, Mount


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


class CommitToItsOwnKey(CopySnapshotter):
    """Names and keys are told apart: an active snapshot can be committed to the key that it has."""

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        record = self._records.find(key)
        if name and name == key and record is not None and record.kind is Kind.ACTIVE:
            return record
        return super()._check_commit(name, key, labels, parent)


# --- reopening


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
commit_to_its_own_key = Factory(CommitToItsOwnKey)
reopen_loses_views = Factory(ReopenLosesViews)


def plain_lock_left(directory: Path) -> Plain:
    """Opened in a thread, for the kit's own loop runs here."""
    driver = Plain(directory)
    opening = Thread(target=driver.open)
    opening.start()
    opening.join()
    return driver


plain_lock_left.profile = Profile(usage=Measure.COPY)
