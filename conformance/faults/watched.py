"""A driver each of whose calls is made through something that watches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from snapspec.impl.ports import Snapshotter
from snapspec.model.values import Info, Mount, Usage

#: Makes one call; gives what it gives.
Through = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Watched:
    """The snapshotter `driver`, whose calls `through` makes."""

    def __init__(self, driver: Snapshotter, through: Through) -> None:
        self._driver = driver
        self._through = through

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self._through(partial(self._driver.prepare, key, parent, labels))
        return mounts

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self._through(partial(self._driver.view, key, parent, labels))
        return mounts

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """See the port."""
        await self._through(partial(self._driver.commit, name, key, labels, parent))

    async def remove(self, key: str) -> None:
        """See the port."""
        await self._through(partial(self._driver.remove, key))

    async def mounts(self, key: str) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self._through(partial(self._driver.mounts, key))
        return mounts

    async def stat(self, key: str) -> Info:
        """See the port."""
        info: Info = await self._through(partial(self._driver.stat, key))
        return info

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """See the port."""
        after: Info = await self._through(partial(self._driver.update, info, paths))
        return after

    async def usage(self, key: str) -> Usage:
        """See the port."""
        usage: Usage = await self._through(partial(self._driver.usage, key))
        return usage

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """See the port; all at once."""

        async def whole() -> list[Info]:
            return [info async for info in self._driver.walk(filters)]

        for info in await self._through(whole):
            yield info

    async def cleanup(self) -> None:
        """See the port."""
        await self._through(self._driver.cleanup)

    async def close(self) -> None:
        """See the port."""
        await self._through(self._driver.close)
