"""A driver as seen by a tenant: all names bear a prefix that the tenant does not see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from snapspec.impl.ports import Snapshotter
from snapspec.model.values import Info, Mount, Usage


class Prefixed:
    """The snapshotter `driver`, in which there are only the names with `prefix`. Filters of walk may not speak of names."""

    def __init__(self, driver: Snapshotter, prefix: str) -> None:
        self._driver = driver
        self._prefix = prefix

    def _key(self, key: str) -> str:
        return self._prefix + key if key else ""

    def _own(self, info: Info) -> Info:
        return replace(info, name=info.name.removeprefix(self._prefix), parent=info.parent.removeprefix(self._prefix))

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        return await self._driver.prepare(self._key(key), self._key(parent), labels)

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        return await self._driver.view(self._key(key), self._key(parent), labels)

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """See the port."""
        await self._driver.commit(self._key(name), self._key(key), labels, self._key(parent))

    async def remove(self, key: str) -> None:
        """See the port."""
        await self._driver.remove(self._key(key))

    async def mounts(self, key: str) -> Sequence[Mount]:
        """See the port."""
        return await self._driver.mounts(self._key(key))

    async def stat(self, key: str) -> Info:
        """See the port."""
        return self._own(await self._driver.stat(self._key(key)))

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """See the port."""
        asked = replace(info, name=self._key(info.name), parent=self._key(info.parent))
        return self._own(await self._driver.update(asked, paths))

    async def usage(self, key: str) -> Usage:
        """See the port."""
        return await self._driver.usage(self._key(key))

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """See the port."""
        async for info in self._driver.walk(filters):
            if info.name.startswith(self._prefix):
                yield self._own(info)

    async def cleanup(self) -> None:
        """See the port."""
        await self._driver.cleanup()

    async def close(self) -> None:
        """Nothing: the driver is its owner's to close."""
