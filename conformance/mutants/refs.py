"""Exhibits of managers of refs, rows A to C: handles, pairs, views and lists; each with one fault.

Two rows of the list are no exhibits of their own. C10 (a mounter that mounts twice on one target) is about who mounts a list,
which here is the caller and not a manager. G11 (a driver whose failed commit leaves a transaction open) is the driver's s01.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from snapspec.conformance.mutants import Exhibit
from snapspec.conformance.mutants.rows import buildkit, row
from snapspec.impl.errors import NotFound
from snapspec.impl.manager import Manager
from snapspec.impl.ref_errors import Invalid, Locked, RefError
from snapspec.impl.refs import ImmutableRef, Ledger, MutableRef, Record
from snapspec.impl.threads import given, whole
from snapspec.model.values import Mount

# --- handles and holds


class OneHoldForBoth(Ledger):
    """E has no hold of its own on the parent: it goes with M's."""

    def add(self, record: Record) -> None:
        super().add(record)
        if record.parent is not None and record.equal is not None:
            del record.parent.children[record]

    def drop(self, record: Record) -> None:
        if record.parent is not None:
            record.parent.children.setdefault(record)
        super().drop(record)


class OneHoldForBothAtLoad(OneHoldForBoth):
    """The same for pairs that a start has found."""

    def add(self, record: Record) -> None:
        Ledger.add(self, record)


class LoadsOneHold(Manager):
    """See `OneHoldForBothAtLoad`."""

    def _load(self, entries: dict[str, dict[str, str]]) -> None:
        super()._load(entries)
        for record in self._ledger.records.values():
            if record.equal is not None and not record.mutable and record.parent is not None:
                del record.parent.children[record]


class LocksByMAlone(Manager):
    """get_mutable asks for M's handle, and not for those of E."""

    async def get_mutable(self, id: str) -> MutableRef:
        ledger = self._ledger
        with ledger.call():
            async with ledger.found(id) as record:
                if not record.mutable:
                    raise Invalid("immutable")
                if record.handles:
                    raise Locked("its handle is open")
                return await given(ledger.reopen(record))


class CommitsAgain(Manager):
    """get of an idle M commits, whether or not there is an E."""

    async def get(self, id: str) -> ImmutableRef:
        ledger = self._ledger
        with ledger.call():
            async with ledger.found(id) as record:
                if record.mutable and not record.handles:
                    return await given(ledger.commit(record))
        return await super().get(id)


class KeepsTheParent(Manager):
    """A new whose finalize fails goes on holding the parent."""

    async def new(self, parent: ImmutableRef | None = None) -> MutableRef:
        if not isinstance(parent, ImmutableRef) or not parent.belongs_to(self._ledger):
            return await super().new(parent)
        with self._ledger.call():
            parent._check()
            over = parent._record
            over.claims += 1
            await parent.final()
            try:
                return await self._make(over)
            finally:
                over.claims -= 1


class NeverAsks(ImmutableRef):
    """Nobody asks whether the handle is open."""

    def _check(self) -> None:
        """All handles are."""


class UsedAfterRelease(Ledger):
    """See `NeverAsks`."""

    def give(self, record: Record) -> ImmutableRef:
        return NeverAsks(self, record)


# --- the equal pair


class CommitsTwice(MutableRef):
    """commit does not ask whether M has been committed already."""

    def _check(self) -> None:
        if self._record.equal is None:
            super()._check()


class CommittedTwice(Ledger):
    """See `CommitsTwice`."""

    def give_mutable(self, record: Record) -> MutableRef:
        return CommitsTwice(self, record)


class HalfFinal(Ledger):
    """When M's metadata cannot be removed the link stays, and a retry commits a key that is gone. See `HalfFinalRef`."""

    def give(self, record: Record) -> ImmutableRef:
        return HalfFinalRef(self, record)

    async def finalize(self, record: Record) -> None:
        record.undecided = True
        try:
            await self.snapshotter.commit(record.id, record.halves[0].id)
            async with self.section():
                await self.write({record.halves[0].id: None, record.id: replace(record, equal=None).entry()})
                self.drop(record.halves[0])
                record.equal = None
        finally:
            record.undecided = False


class HalfFinalRef(ImmutableRef):
    """To read, what is half final is mounted by a view."""

    async def mount(self, readonly: bool = True) -> tuple[Mount, ...]:
        try:
            return await super().mount(readonly)
        except NotFound:
            if not readonly:
                raise
            return await self._view()


class DropsMLater(Ledger):
    """M's record is removed in the background: until then it is found."""

    async def finalized(self, record: Record) -> None:
        mutable = record.halves[0]
        record.equal, mutable.equal, record.undecided = None, None, False
        mutable.claims += 1  # prune leaves it to what is to come
        self._dropping = asyncio.create_task(self._drop_later(record, mutable))

    async def _drop_later(self, record: Record, mutable: Record) -> None:
        changes = {record.id: record.entry(), mutable.id: None}
        with self.call(late=True):
            async with self._section:
                try:
                    await self.store.write(changes)
                except RefError:
                    self._unsure.update(dict.fromkeys(changes))
                self.drop(mutable)


class MountsWithoutFinalize(ImmutableRef):
    """mount to write gives M's list read-only, as mount to read does."""

    async def mount(self, readonly: bool = True) -> tuple[Mount, ...]:
        return await super().mount()


class NotFinalByMount(Ledger):
    """See `MountsWithoutFinalize`."""

    def give(self, record: Record) -> ImmutableRef:
        return MountsWithoutFinalize(self, record)


# --- views and lists


class TakesTheView(ImmutableRef):
    """Any release takes the shared view along."""

    async def release(self) -> None:
        record = self._record
        if self in record.handles:
            del record.handles[self]
            if record.view:
                with self._ledger.call(late=True):
                    await whole(self._ledger.clean(self._ledger.part(record)))


class ViewOfTheFirst(Ledger):
    """See `TakesTheView`."""

    def give(self, record: Record) -> ImmutableRef:
        return TakesTheView(self, record)


class ViewBeforeHandle(ImmutableRef):
    """The view is removed before the handle goes; if that fails the handle stays, and the release fails."""

    async def release(self) -> None:
        record = self._record
        if record.view and list(record.handles) == [self]:
            try:
                with self._ledger.call(late=True):
                    await whole(self._ledger.discard(record.view))
            except asyncio.CancelledError:
                record.handles.pop(self, None)
                raise
            finally:
                record.view = record.view if record.view in self._ledger.notes else ""
        await super().release()


class BlockedRelease(Ledger):
    """See `ViewBeforeHandle`."""

    def give(self, record: Record) -> ImmutableRef:
        return ViewBeforeHandle(self, record)


class ViewInMemory(Ledger):
    """Nothing but memory knows the id of a view."""

    async def make_view(self, record: Record) -> None:
        id = self.new_id()
        record.mounts = tuple(await self.snapshotter.view(id, record.id))
        record.view = id

    def part(self, record: Record) -> str:
        view, record.view = record.view, ""
        return view

    async def discard(self, id: str) -> None:
        if id not in self.notes and id:
            with suppress(NotFound):
                await self.snapshotter.remove(id)
        await super().discard(id)


class AddsRo(MutableRef):
    """A list is made read-only by one more option: an overlay keeps its upper and its work directory."""

    async def mount(self, readonly: bool = False) -> tuple[Mount, ...]:
        mounts = await super().mount()
        return tuple(replace(m, options=(*m.options, "ro")) for m in mounts) if readonly else mounts


class ReadOnlyWithUpper(Ledger):
    """See `AddsRo`."""

    def give_mutable(self, record: Record) -> MutableRef:
        return AddsRo(self, record)


class OneList(MutableRef):
    """The handle has one list, and it is that one which is made read-only."""

    _list: tuple[Mount, ...] = ()

    async def mount(self, readonly: bool = False) -> tuple[Mount, ...]:
        self._list = self._list if self._list and not readonly else await super().mount(readonly)
        self._check()
        return self._list


class ReadOnlyForAll(Ledger):
    """See `OneList`."""

    def give_mutable(self, record: Record) -> MutableRef:
        return OneList(self, record)


# --- all of them

REFS: tuple[Exhibit, ...] = (
    row(
        "a01",
        "E has M's hold on the parent, none of its own",
        buildkit("63ce64346 (#249)", "2017-12"),
        "REF-COMMIT-2",
        "REF-PRUNE-1",
        ledger=OneHoldForBoth,
    ),
    row(
        "a02",
        "the same for a pair that a start has found",
        buildkit("757795e55, d73e62f87", "after 2017-12"),
        "REF-COMMIT-2",
        "REF-PRUNE-1",
        ledger=OneHoldForBothAtLoad,
        manager=LoadsOneHold,
    ),
    row(
        "a04",
        "get_mutable looks at M's handle only, not at E's",
        buildkit("2ef097182 (#76)", "2017-07"),
        "REF-MUT-2",
        manager=LocksByMAlone,
    ),
    row(
        "a05",
        "each get of an idle M commits once more",
        buildkit("8b09e89db (#79)", "2017-07"),
        "REF-GET-3",
        manager=CommitsAgain,
    ),
    row(
        "a07",
        "a new whose finalize fails goes on holding the parent",
        "BuildKit, unfixed",
        "REF-POINT-2",
        "REF-PRUNE-1",
        "REF-USAGE-1",
        manager=KeepsTheParent,
    ),
    row(
        "a21", "a handle works after its release", "BuildKit, never checked", "REF-HANDLE-4", "REF-NEW-3", ledger=UsedAfterRelease
    ),
    row(
        "b01",
        "commit does not ask whether M was committed",
        "BuildKit, unfixed",
        "REF-HANDLE-4",
        "REF-HANDLE-6",
        ledger=CommittedTwice,
    ),
    row(
        "b02",
        "a finalize whose metadata cannot be written can never be done again",
        buildkit("4a9142223 (#130)", "2017-09"),
        "REF-FINAL-3",
        "REF-NOTE-1",
        ledger=HalfFinal,
    ),
    row(
        "b03",
        "M is found for a while after it was finalized",
        "BuildKit 4a9142223 until d4a82e458 (#199), 2017-09 to 2017-12",
        "REF-FINAL-1",
        "REF-PAIR-1",
        ledger=DropsMLater,
    ),
    row(
        "b13",
        "mount to write of E does not finalize it",
        "BuildKit's documented semantics, which others have missed",
        "REF-MOUNT-3",
        ledger=NotFinalByMount,
    ),
    row(
        "c01",
        "the shared view goes with the first release",
        buildkit("41be7f1ab (#204)", "2017-12"),
        "REF-MOUNT-5",
        "REF-COMMIT-3",
        ledger=ViewOfTheFirst,
    ),
    row(
        "c02",
        "a release fails, and the handle stays, when the view cannot be removed",
        buildkit("41be7f1ab (#204)", "2017-12"),
        "REF-HANDLE-2",
        ledger=BlockedRelease,
    ),
    row(
        "c03",
        "a view is known to nobody after a crash",
        buildkit("7390a41a5 (#1176)", "2019-09"),
        "REF-NOTE-1",
        ledger=ViewInMemory,
    ),
    row(
        "c04",
        "a list that was made read-only keeps its upper directory",
        buildkit("7beb0bb72 (#1100)", "2019-07"),
        "REF-MOUNT-1",
        ledger=ReadOnlyWithUpper,
    ),
    row(
        "c08",
        "a list is made read-only in place, for all who have it",
        buildkit("9321ec2f8", "2021-10"),
        "REF-MOUNT-6",
        "REF-MOUNT-1",
        ledger=ReadOnlyForAll,
    ),
)
