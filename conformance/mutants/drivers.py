"""Exhibits of drivers that answer wrongly: the reference with one fault each. What loses or mixes up data is in `stores`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from snapspec.conformance.mutants import Exhibit, stores
from snapspec.impl.base import Build
from snapspec.impl.errors import NotFound
from snapspec.impl.loopback import Pool
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record
from snapspec.model.filters import Filter
from snapspec.model.values import Info, Kind, Labels, Mount, Usage, labels_of

# --- calls that do not end


class CommitHoldsTheWriter(OverlaySnapshotter):
    """Writers come one after another, and a commit of a missing key does not let the next one come."""

    def __init__(self, root: str, pool: Pool | None = None, *, userxattr: bool = False) -> None:
        super().__init__(root, pool, userxattr=userxattr)
        self._writer = asyncio.Lock()

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        async with self._writer:
            return await super().prepare(key, parent, labels)

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        await self._writer.acquire()
        try:
            await super().commit(name, key, labels, parent)
        except NotFound:
            raise
        except BaseException:
            self._writer.release()
            raise
        self._writer.release()


class UsageHoldsAReader(OverlaySnapshotter):
    """Usage of a missing key leaves a reader, whose pages are not used again: the write that needs more pages waits for it."""

    def __init__(self, root: str, pool: Pool | None = None, *, userxattr: bool = False) -> None:
        super().__init__(root, pool, userxattr=userxattr)
        self._readers = 0
        self._pages = 4

    async def usage(self, key: str) -> Usage:
        try:
            return await super().usage(key)
        except NotFound:
            self._readers += 1
            raise

    async def _create(self, kind: Kind, key: str, parent: str, labels: Labels) -> tuple[Mount, ...]:
        if self._readers:
            self._pages -= 1
        if not self._pages:
            await asyncio.Event().wait()
        return await super()._create(kind, key, parent, labels)


# --- commit


class CommitTakesViews(OverlaySnapshotter):
    """A view can be committed."""

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        record = self._records.find(key)
        if record is not None and record.kind is Kind.VIEW and name and self._records.find(name) is None:
            return record
        return super()._check_commit(name, key, labels, parent)


class CommitTakesAnyParent(OverlaySnapshotter):
    """A parent that is given at commit is taken when it is active or a view."""

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        above = self._records.find(parent)
        taken = above is not None and above.kind is not Kind.COMMITTED
        return super()._check_commit(name, key, labels, "" if taken else parent)


class CommitDropsLabels(OverlaySnapshotter):
    """The labels that a commit gives are not kept."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        return super()._commit(name, key, (), parent, synced)


class CommitKeepsLabels(OverlaySnapshotter):
    """The committed snapshot has the labels of the active one too."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        kept = dict(self._known(key).labels)
        return super()._commit(name, key, labels_of(kept | dict(labels)), parent, synced)


class CommitKeepsCreated(OverlaySnapshotter):
    """The committed snapshot is as old as the active one was."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        active = self._known(key)
        done = super()._commit(name, key, labels, parent, synced)
        with self._records.write():
            self._records._change("UPDATE snapshots SET created = ? WHERE id = ?", active.created, active.id)
        return done


# --- prepare, mounts


class TwoSpaces(OverlaySnapshotter):
    """Keys and names do not meet: a key may be a name that is taken."""

    def _insert(self, kind: Kind, key: str, parent: str, labels: Labels, build: Build) -> tuple[Mount, ...]:
        taken = self._records.find(key)
        if taken is not None and taken.kind is Kind.COMMITTED and key != parent:
            with self._records.write():
                self._records._change("UPDATE snapshots SET name = ? WHERE id = ?", f"name/{key}".encode(), taken.id)
        return super()._insert(kind, key, parent, labels, build)


class CommittedHasMounts(OverlaySnapshotter):
    """Mounts of a committed snapshot gives the layer, read-only."""

    def _mounts_of(self, key: str) -> tuple[Mount, ...]:
        record = self._known(key)
        return self._bind(record.id, "ro") if record.kind is Kind.COMMITTED else super()._mounts_of(key)


# --- update, walk, usage


class UpdateMerges(OverlaySnapshotter):
    """An update without a mask keeps the labels that it does not name."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        before = dict(self._known(info.name).labels)
        return super()._update(info if paths else replace(info, labels=labels_of(before | dict(info.labels))), paths)


class MaskIgnored(OverlaySnapshotter):
    """An update with a mask replaces all labels."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        return super()._update(info, ("labels", *paths))


class MaskNeedsLabels(OverlaySnapshotter):
    """A label that a mask names has to be there already."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        there = {"labels", *(f"labels.{key}" for key, _ in self._known(info.name).labels)}
        if any(path.startswith("labels.") and path not in there for path in paths):
            raise NotFound(f"{info.name!r} does not have a label of {paths}")
        return super()._update(info, paths)


class UpdateMovesCreated(OverlaySnapshotter):
    """An update makes the snapshot new."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        after = super()._update(info, paths)
        with self._records.write():
            self._records._change("UPDATE snapshots SET created = updated WHERE name = ?", info.name.encode())
        return replace(after, created=after.updated)


class UpdateKeepsUpdated(OverlaySnapshotter):
    """An update does not show in the times."""

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        before = self._known(info.name)
        after = super()._update(info, paths)
        with self._records.write():
            self._records._change("UPDATE snapshots SET updated = ? WHERE id = ?", before.updated, before.id)
        return replace(after, updated=before.updated)


class EmptyParentMatchesNothing(OverlaySnapshotter):
    """A filter for snapshots without a parent matches none."""

    def _matching(self, filters: list[Filter]) -> list[Info]:
        kept = [f for f in filters if not any((s.path, s.operator, s.value) == (("parent",), "==", "") for s in f)]
        return super()._matching(kept) if kept or not filters else []


class UsageOfViews(OverlaySnapshotter):
    """A view takes what its parent takes."""

    async def usage(self, key: str) -> Usage:
        info = await self.stat(key)
        return await super().usage(info.parent if info.kind is Kind.VIEW and info.parent else key)


class NegativeUsageOfViews(OverlaySnapshotter):
    """What a view has is counted from its parent's, of which nothing is there."""

    async def usage(self, key: str) -> Usage:
        info = await self.stat(key)
        if info.kind is not Kind.VIEW or not info.parent:
            return await super().usage(key)
        above = await super().usage(info.parent)
        return Usage(-above.size, -above.inodes)


class UnknownUsageOfViews(OverlaySnapshotter):
    """What a view takes is not known."""

    async def usage(self, key: str) -> Usage:
        return Usage(-1, -1) if (await self.stat(key)).kind is Kind.VIEW else await super().usage(key)


class UsageOfTheChain(OverlaySnapshotter):
    """Usage counts all parents too."""

    async def usage(self, key: str) -> Usage:
        info = await self.stat(key)
        own = await super().usage(key)
        above = await self.usage(info.parent) if info.parent and info.kind is not Kind.VIEW else Usage(0, 0)
        return Usage(own.size + above.size, own.inodes + above.inodes)


#: Where the list names no thread.
SEVERAL = "drivers of third parties"

DRIVERS: tuple[Exhibit, ...] = (
    Exhibit(
        "s01",
        "commit of a missing key leaves a transaction open, and the next write waits for ever",
        "the naive driver, as the seed had it in 2017",
        ("SNAP-LIVE-1",),
        driver=CommitHoldsTheWriter,
    ),
    Exhibit(
        "s02",
        "usage of a missing key leaves a transaction open, and a later write waits for ever",
        "containerd #1724, fixed by #1730, 2017-11; again aufs #39, 2022-03",
        ("SNAP-LIVE-1",),
        driver=UsageHoldsAReader,
    ),
    Exhibit("s05", "commit takes a view", SEVERAL, ("SNAP-COMMIT-4",), driver=CommitTakesViews),
    Exhibit(
        "s06",
        "commit takes a parent that is active or a view",
        "containerd #12447, 2025-10",
        ("SNAP-COMMIT-6", "SNAP-COMMIT-7"),
        driver=CommitTakesAnyParent,
    ),
    Exhibit(
        "s08", "commit drops the labels that it is given", SEVERAL, ("SNAP-COMMIT-9", "SNAP-LABEL-1"), driver=CommitDropsLabels
    ),
    Exhibit(
        "s09a",
        "the committed snapshot keeps the labels of the active one",
        SEVERAL,
        ("SNAP-COMMIT-9", "SNAP-LABEL-1"),
        driver=CommitKeepsLabels,
    ),
    Exhibit(
        "s09b",
        "the committed snapshot keeps the time of the active one",
        SEVERAL,
        ("SNAP-COMMIT-10", "SNAP-TIME-1"),
        driver=CommitKeepsCreated,
    ),
    Exhibit("s11", "a filter for the empty parent never matches", SEVERAL, ("SNAP-WALK-2",), driver=EmptyParentMatchesNothing),
    Exhibit("s13a", "remove of a snapshot with children works", SEVERAL, ("SNAP-REMOVE-2",), driver=stores.RemoveOverChildren),
    Exhibit(
        "s13b",
        "remove of a snapshot with active children only works",
        SEVERAL,
        ("SNAP-REMOVE-2",),
        driver=stores.RemoveOverActives,
    ),
    Exhibit(
        "s13c",
        "remove of a snapshot with views only as children works",
        SEVERAL,
        ("SNAP-REMOVE-2",),
        driver=stores.RemoveOverViews,
    ),
    Exhibit(
        "s14",
        "remove deletes the data, then fails because of children",
        SEVERAL,
        ("SNAP-FAIL-1", "SNAP-CONTENT-1"),
        driver=stores.RemoveDeletesFirst,
    ),
    Exhibit(
        "s16",
        "a prepare that fails leaves its staging directory behind",
        SEVERAL,
        ("SNAP-FAULT-5",),
        "faults",
        driver=stores.StagingLeft,
    ),
    Exhibit("s20a", "the mounts of a view lack ro", SEVERAL, ("SNAP-MOUNTS-5", "SNAP-MOUNTS-8"), driver=stores.ViewsLackRo),
    Exhibit("s20b", "the mounts of an active snapshot have ro", SEVERAL, ("SNAP-MOUNTS-5",), driver=stores.ActivesHaveRo),
    Exhibit(
        "s22a",
        "lower directories in reverse order",
        "a mounter of containerd's snapshots, google/container-explorer #3",
        ("SNAP-MOUNTS-7", "SNAP-CONTENT-1"),
        driver=stores.LowersReversed,
    ),
    Exhibit("s22b", "one lower directory dropped", SEVERAL, ("SNAP-MOUNTS-6",), driver=stores.LowestDropped),
    Exhibit(
        "s22c", "the top lower directory dropped, from three on", SEVERAL, ("SNAP-MOUNTS-6",), driver=stores.TopOfThreeDropped
    ),
    Exhibit(
        "s25",
        "close removes content",
        "stargz-snapshotter #2126, fixed by #2127, 2025-09",
        ("SNAP-OPEN-1", "SNAP-CONTENT-1"),
        driver=stores.CloseRemovesContent,
    ),
    Exhibit(
        "s27a",
        "start-up fails because a directory is there already",
        SEVERAL,
        ("SNAP-OPEN-1", "SNAP-CLOSE-1"),
        driver=stores.OpensOnce,
    ),
    Exhibit(
        "s27b",
        "start-up fails because one directory is missing",
        SEVERAL,
        ("SNAP-OPEN-1",),
        driver=stores.NeedsEachDirectory,
    ),
    Exhibit("s28a", "usage of a view counts the parent", SEVERAL, ("SNAP-USAGE-2",), driver=UsageOfViews),
    Exhibit("s28b", "usage of a view is negative", SEVERAL, ("SNAP-USAGE-2", "SNAP-USAGE-4"), driver=NegativeUsageOfViews),
    Exhibit("s28c", "usage of a view is -1", SEVERAL, ("SNAP-USAGE-2", "SNAP-USAGE-4"), driver=UnknownUsageOfViews),
    Exhibit("s30", "usage counts the whole chain", SEVERAL, ("SNAP-USAGE-5", "SNAP-USAGE-6"), driver=UsageOfTheChain),
    Exhibit(
        "s31a", "update without a mask keeps the old labels", SEVERAL, ("SNAP-UPDATE-4", "SNAP-LABEL-1"), driver=UpdateMerges
    ),
    Exhibit("s31b", "update with a mask replaces all labels", SEVERAL, ("SNAP-UPDATE-5", "SNAP-LABEL-1"), driver=MaskIgnored),
    Exhibit("s31c", "update with the mask of an absent label fails", SEVERAL, ("SNAP-UPDATE-5",), driver=MaskNeedsLabels),
    Exhibit("s33a", "update moves created", SEVERAL, ("SNAP-TIME-4", "SNAP-UPDATE-8"), driver=UpdateMovesCreated),
    Exhibit("s33b", "update does not move updated", SEVERAL, ("SNAP-UPDATE-6", "SNAP-TIME-1"), driver=UpdateKeepsUpdated),
    Exhibit("s35", "key and name live in separate spaces", SEVERAL, ("SNAP-PREPARE-3", "SNAP-VIEW-3"), driver=TwoSpaces),
    Exhibit("s36", "mounts of a committed snapshot works", SEVERAL, ("SNAP-MOUNTS-2",), driver=CommittedHasMounts),
    Exhibit(
        "s38a", "mounts differs from the list that prepare gave", SEVERAL, ("SNAP-MOUNTS-3",), driver=stores.LaterListDiffers
    ),
    Exhibit(
        "s38b",
        "mounts differs from that list once the store was opened again",
        SEVERAL,
        ("SNAP-MOUNTS-3",),
        driver=stores.ListOfTheNextLife,
    ),
    Exhibit(
        "s40",
        "committed files are not flushed",
        "containerd #5854, and #14164 of the erofs driver, 2026-09",
        ("SNAP-POWER-2",),
        "durable",
        power=True,
        driver=stores.CommitUnsynced,
    ),
)
