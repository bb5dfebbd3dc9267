"""The snapshotter port: what the reference offers, and what it asks of a driver that it is put on top of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from snapspec.model.values import Info, Mount, Usage


class Snapshotter(Protocol):
    """A driver. Every call raises a `SnapshotError` or answers; when it has done either, its effect is decided.

    A cancelled call stays until its effect is decided, then raises `asyncio.CancelledError`.
    """

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """Make the active snapshot `key` over committed `parent` ("" for none); give its mount list (SNAP-PREPARE)."""
        ...

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """Make the read-only snapshot `key` over committed `parent` ("" for none); give its mount list (SNAP-VIEW)."""
        ...

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """Turn the active `key` into the committed `name` (SNAP-COMMIT)."""
        ...

    async def remove(self, key: str) -> None:
        """Remove `key`, which has no children (SNAP-REMOVE)."""
        ...

    async def mounts(self, key: str) -> Sequence[Mount]:
        """The mount list of an active snapshot or a view (SNAP-MOUNTS)."""
        ...

    async def stat(self, key: str) -> Info:
        """The record of `key` (SNAP-STAT)."""
        ...

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """Change the labels of `info.name`: all of them, or the `paths` `labels` and `labels.KEY` (SNAP-UPDATE)."""
        ...

    async def usage(self, key: str) -> Usage:
        """What `key` takes for itself (SNAP-USAGE)."""
        ...

    def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """The records that match any of `filters`, all without one (SNAP-WALK)."""
        ...

    async def cleanup(self) -> None:
        """Free what removed snapshots still hold (SNAP-CLEANUP)."""
        ...

    async def close(self) -> None:
        """Close the store; a second close does nothing (SNAP-CLOSE)."""
        ...
