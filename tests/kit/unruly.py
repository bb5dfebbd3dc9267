"""Drivers that keep to the spec and yet disturb the kit's own process. Named like any other: `py:unruly:talkative`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.loopback import Pool, open_pool
from snapspec.model.state import Measure, Profile
from snapspec.model.values import Usage


class Factory:
    """Opens the driver on a pool in the given directory, new or as it was left."""

    profile = Profile(usage=Measure.COPY)

    def __init__(self, driver: type[CopySnapshotter]) -> None:
        self._driver = driver

    async def __call__(self, directory: Path) -> CopySnapshotter:
        pool = open_pool(str(directory), size=64 << 20)
        opened = self._driver(pool.root, pool)
        await opened.open()
        return opened


class Talkative(CopySnapshotter):
    """Prints, in both ways, more than a pipe holds, and what looks like a word of the kit's own."""

    async def remove(self, key: str) -> None:
        print('{"kind": "finding", "finding": {}}')
        print("x" * 100_000, file=sys.stderr)
        await super().remove(key)


class Leaving(CopySnapshotter):
    """Ends the process, as quietly as one that was told to end."""

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        os._exit(1)


class NotClosing(CopySnapshotter):
    """Cannot be closed, though all is done."""

    async def close(self) -> None:
        await super().close()
        raise RuntimeError("it was the last straw")


class NeverClosing(CopySnapshotter):
    """Closes, and then does not answer."""

    def __init__(self, root: str, pool: Pool | None = None) -> None:
        super().__init__(root, pool)
        self._never = asyncio.Event()

    async def close(self) -> None:
        await super().close()
        await self._never.wait()


class NeverMeasuring(CopySnapshotter):
    """Does not answer a call of usage."""

    async def usage(self, key: str) -> Usage:
        await asyncio.Event().wait()
        return await super().usage(key)


talkative = Factory(Talkative)
leaving = Factory(Leaving)
not_closing = Factory(NotClosing)
never_closing = Factory(NeverClosing)
never_measuring = Factory(NeverMeasuring)
