"""Copying drivers with several faults at once, on a plain directory, named as `py:three:three`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.errors import NotFound
from snapspec.model.state import Measure, Profile
from snapspec.model.values import Info, Kind, Mount, Usage


class Factory:
    """Opens the driver in the given directory, new or as it was left."""

    profile = Profile(usage=Measure.COPY)

    def __init__(self, driver: type[CopySnapshotter]) -> None:
        self._driver = driver

    async def __call__(self, directory: Path) -> CopySnapshotter:
        opened = self._driver(str(directory))
        await opened.open()
        return opened


class StatWithoutLabels(CopySnapshotter):
    """SNAP-LABEL-1."""

    async def stat(self, key: str) -> Info:
        return replace(await super().stat(key), labels=())


class ViewsTakeRoom(CopySnapshotter):
    """SNAP-USAGE-2."""

    async def usage(self, key: str) -> Usage:
        told = await super().usage(key)
        return Usage(4096, 1) if (await super().stat(key)).kind is Kind.VIEW else told


class MountsElsewhere(CopySnapshotter):
    """SNAP-MOUNTS-3: a list that is asked for again is another one."""

    async def mounts(self, key: str) -> Sequence[Mount]:
        (mount,) = await super().mounts(key)
        return (replace(mount, options=(*mount.options, "nodev")),)


class RemovesGladly(CopySnapshotter):
    """SNAP-REMOVE-1."""

    async def remove(self, key: str) -> None:
        try:
            await super().remove(key)
        except NotFound:
            if not key:
                raise


class Three(StatWithoutLabels, ViewsTakeRoom, RemovesGladly):
    """Three faults that have nothing to do with each other."""


class Hangs(StatWithoutLabels, MountsElsewhere):
    """A cleanup never answers; and two other faults."""

    async def cleanup(self) -> None:
        await asyncio.Event().wait()


right = Factory(CopySnapshotter)
one = Factory(StatWithoutLabels)
views = Factory(ViewsTakeRoom)
three = Factory(Three)
hangs = Factory(Hangs)
