"""What the tests of the snapshotters share: a place to open one on, and looks at it from outside."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.copy import open_copy
from snapspec.impl.errors import SnapshotError
from snapspec.impl.loopback import open_pool
from snapspec.impl.mounts import mounted
from snapspec.impl.overlay import open_overlay
from snapspec.model.values import Info, Kind, Mount, Usage

Arguments = ParamSpec("Arguments")

MEBIBYTE = 1 << 20


def asynchronous(test: Callable[Arguments, Awaitable[None]]) -> Callable[Arguments, None]:
    """The test as pytest calls it: in a loop of its own. It fails too when it leaves a task, or an error that is only logged."""

    @functools.wraps(test)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        asyncio.run(_watched(test(*args, **kwargs)))

    return wrapper


async def _watched(test: Awaitable[None]) -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
    await test
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not logged, f"errors that nobody saw: {logged}"


@dataclass(frozen=True)
class Place:
    """Where a snapshotter is opened: `kind` is overlay on a plain directory, overlay on a pool, or copy on a plain directory."""

    kind: str
    directory: Path
    file_system: str = "ext4"
    size: int = 64 * MEBIBYTE

    @property
    def root(self) -> Path:
        """The root of the snapshotter; on a pool it can be seen while it is open."""
        return self.directory / "p" / "mnt" if self.kind == "pool" else self.directory / "s"

    @property
    def target(self) -> str:
        """A directory to mount on."""
        path = self.directory / "m"
        path.mkdir(exist_ok=True)
        return str(path)

    async def open(self) -> BaseSnapshotter:
        """The snapshotter, new or again."""
        if self.kind == "copy":
            return await open_copy(str(self.root))
        if self.kind == "plain":
            return await open_overlay(str(self.root))
        pool = open_pool(str(self.directory / "p"), size=self.size, file_system=self.file_system)
        return await open_overlay(pool.root, pool=pool)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[BaseSnapshotter]:
        """The snapshotter for the length of a block."""
        store = await self.open()
        try:
            yield store
        finally:
            await store.close()

    def left(self) -> dict[str, list[str]]:
        """What is in the three folders of the root, by name."""
        return {name: sorted(os.listdir(self.root / name)) for name in ("s", "new", "trash")}


KINDS = ("plain", "pool", "copy")


def source(mounts: Sequence[Mount]) -> Path:
    """Where writes through a mount list end up: the upper directory, or the source of the bind."""
    (mount,) = mounts
    upper = [option[9:] for option in mount.options if option.startswith("upperdir=")]
    return Path(upper[0] if upper else mount.source)


async def layer(store: BaseSnapshotter, name: str, parent: str = "", **files: str) -> None:
    """A committed snapshot with these files of its own, written without a mount: they are new names."""
    directory = source(await store.prepare(f"making {name}", parent))
    for file, text in files.items():
        (directory / file).write_text(text)
    await store.commit(name, f"making {name}")


def shown(mounts: Sequence[Mount], place: Place) -> dict[str, str]:
    """The files that a mount list shows, with their text."""
    with mounted(mounts, place.target) as root:
        return {
            os.path.relpath(os.path.join(directory, file), root): Path(directory, file).read_text()
            for directory, _, files in os.walk(root)
            for file in files
        }


async def records(store: BaseSnapshotter) -> list[Info]:
    """Every record."""
    return [info async for info in store.walk()]


async def names(store: BaseSnapshotter) -> list[str]:
    """Every key."""
    return [info.name for info in await records(store)]


async def state(store: BaseSnapshotter) -> dict[str, tuple[Info, Usage, tuple[Mount, ...]]]:
    """All that can be seen of every snapshot."""
    return {
        info.name: (
            info,
            await store.usage(info.name),
            () if info.kind is Kind.COMMITTED else tuple(await store.mounts(info.name)),
        )
        for info in await records(store)
    }


def du(directory: Path) -> Usage:
    """What coreutils say that a directory takes."""

    def total(*options: str) -> int:
        done = subprocess.run(["du", "-s", *options, str(directory)], check=True, capture_output=True, text=True)
        return int(done.stdout.split()[0])

    return Usage(total("--block-size=1"), total("--inodes"))


async def refusal(call: Awaitable[object]) -> str:
    """The class of the error that a call gives, "" when it works; an error says what is wrong."""
    try:
        await call
    except SnapshotError as error:
        return error.error.value if str(error) else "an error without words"
    return ""


async def refused(call: Awaitable[object], error: type[SnapshotError]) -> SnapshotError:
    """The error of a call that must give one of exactly this class."""
    with pytest.raises(error) as caught:
        await call
    assert type(caught.value) is error
    return caught.value
