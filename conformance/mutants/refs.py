"""Exhibits of managers of refs, rows A to E: handles, pairs, views and lists, size, shared calls; each with one fault.

Two rows of the list are no exhibits of their own. C10 (a mounter that mounts twice on one target) is about who mounts a list, which
here is the caller and not a manager. G11 (a driver whose failed commit leaves a transaction open) is the fault of the driver s01.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from snapspec.conformance.mutants import Exhibit, Managers
from snapspec.impl.errors import Canceled, NotFound, SnapshotError
from snapspec.impl.flight import Flight, _Run
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
        self._dropping = asyncio.create_task(self._drop_later(record, mutable))

    async def _drop_later(self, record: Record, mutable: Record) -> None:
        with self.call(late=True), suppress(RefError):
            async with self._section:
                await self._settle(record.id)
            async with mutable.lock, self._section:
                self.drop(mutable)
                await self._settle(mutable.id)


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


# --- size


class NothingForTheCancelled(Flight[str, int]):
    """A waiter that leaves others behind has no value, and its value is looked at before its cancellation."""

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        try:
            return await super().run(key, work)
        except asyncio.CancelledError:
            if self._find(key) is not None:
                raise TypeError("no value is no number") from None
            raise


def flying(kind: type[Flight[str, int]]) -> type[Ledger]:
    """A ledger with shared calls of this kind."""

    class Flying(Ledger):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]  # the same arguments
            self._flight = kind()

    return Flying


class SizeLeavesTheLock(Ledger):
    """When a size cannot be stored, its lock stays locked."""

    async def _keep(self, record: Record, size: int) -> int:
        await self._section.acquire()
        await self._settle()
        if record.size is None and not record.gone:
            await self.write({record.id: record.entry() | {"size": str(size)}})
            record.size = size
        self._section.release()
        return size


class UnlocksTheUnlocked(Ledger):
    """A failed scan of a record that was removed meanwhile gives up a lock that it does not have."""

    async def _measure(self, record: Record) -> int:
        try:
            return await super()._measure(record)
        except (SnapshotError, RefError):
            if record.gone:
                record.lock.release()
            raise


class SizeOfMKept(MutableRef):
    """The size of an M is stored as if it were final."""

    async def size(self) -> int:
        with self._ledger.call():
            self._check()
            return await self._asked(self._ledger.size(self._record))


class KeepsSizesOfM(Ledger):
    """See `SizeOfMKept`."""

    def give_mutable(self, record: Record) -> MutableRef:
        return SizeOfMKept(self, record)


class MinusOne(Manager):
    """disk_usage shows the sign for an unknown size."""

    def _size(self, record: Record, told: dict[Record, int]) -> int | None:
        if record.halves[-1].mutable and not record.handles:
            return -1
        return super()._size(record, told)


class KeepsWhatItMeasures(Manager):
    """disk_usage has a handle on what it measures, and keeps it when that fails."""

    async def _look(self, record: Record, told: dict[Record, int]) -> None:
        try:
            await super()._look(record, told)
        except (SnapshotError, RefError):
            if not record.halves[-1].mutable:
                self._ledger.give(record.halves[-1])
            raise


class UsageOfTheKeyThatWas(Ledger):
    """The driver's key is read before the wait and used after it, and what is not there counts nothing."""

    async def usage(self, record: Record) -> int:
        try:
            return (await self.snapshotter.usage(record.halves[0].id)).size
        except NotFound:
            return 0


# --- shared calls


class RetryIsTold(Flight[str, int]):
    """Who began the run finds it taken down when others have shared it, and is told so: they alone know to ask again."""

    def __init__(self) -> None:
        super().__init__()
        self._shared: set[str] = set()

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        mine = self._find(key) is None
        if not mine:
            self._shared.add(key)
        value = await super().run(key, work)
        if mine and key in self._shared:
            self._shared.discard(key)
            raise Canceled("retry")
        return value


class JoinsTheCancelled(Flight[str, int]):
    """A run that all have left can be joined until it has ended, and gives the cancellation of others."""

    def _find(self, key: str) -> _Run[int] | None:
        return self._joinable.get(key)

    def _abandon(self, key: str, run: _Run[int]) -> None:
        run.task.cancel()


class NeverOver(Ledger):
    """What waits for the end of a scan's context waits for ever."""

    async def _measure(self, record: Record) -> int:
        self._waiting = asyncio.create_task(asyncio.Event().wait())
        return await super()._measure(record)


class OneFlightForAll(Ledger):
    """All sizes share one run, whatever record they are of."""

    async def size(self, record: Record) -> int:
        if record.size is not None:
            return record.size
        return await self._flight.run("size", lambda: self._measure(record))


# --- all of them


def _row(
    name: str,
    wrong: str,
    where: str,
    *clauses: str,
    ledger: type[Ledger] = Ledger,
    manager: type[Manager] = Manager,
    level: str = "core",
) -> Exhibit:
    return Exhibit(name, wrong, where, clauses, level, over="model:", manager=Managers(ledger, manager))


def _buildkit(commit: str, date: str) -> str:
    return f"BuildKit until {commit}, {date}"


REFS: tuple[Exhibit, ...] = (
    _row(
        "a01",
        "E has M's hold on the parent, none of its own",
        _buildkit("63ce64346 (#249)", "2017-12"),
        "REF-COMMIT-2",
        "REF-PRUNE-1",
        ledger=OneHoldForBoth,
    ),
    _row(
        "a02",
        "the same for a pair that a start has found",
        _buildkit("757795e55, d73e62f87", "after 2017-12"),
        "REF-COMMIT-2",
        "REF-PRUNE-1",
        ledger=OneHoldForBothAtLoad,
        manager=LoadsOneHold,
    ),
    _row(
        "a04",
        "get_mutable looks at M's handle only, not at E's",
        _buildkit("2ef097182 (#76)", "2017-07"),
        "REF-MUT-2",
        manager=LocksByMAlone,
    ),
    _row(
        "a05",
        "each get of an idle M commits once more",
        _buildkit("8b09e89db (#79)", "2017-07"),
        "REF-GET-3",
        manager=CommitsAgain,
    ),
    _row(
        "a07",
        "a new whose finalize fails goes on holding the parent",
        "BuildKit, unfixed",
        "REF-POINT-2",
        "REF-PRUNE-1",
        manager=KeepsTheParent,
    ),
    _row(
        "a21", "a handle works after its release", "BuildKit, never checked", "REF-HANDLE-4", "REF-NEW-3", ledger=UsedAfterRelease
    ),
    _row(
        "b01",
        "commit does not ask whether M was committed",
        "BuildKit, unfixed",
        "REF-HANDLE-4",
        "REF-HANDLE-6",
        ledger=CommittedTwice,
    ),
    _row(
        "b02",
        "a finalize whose metadata cannot be written can never be done again",
        _buildkit("4a9142223 (#130)", "2017-09"),
        "REF-FINAL-3",
        "REF-NOTE-1",
        ledger=HalfFinal,
    ),
    _row(
        "b03",
        "M is found for a while after it was finalized",
        "BuildKit 4a9142223 until d4a82e458 (#199), 2017-09 to 2017-12",
        "REF-FINAL-1",
        "REF-PAIR-1",
        ledger=DropsMLater,
    ),
    _row(
        "b13",
        "mount to write of E does not finalize it",
        "BuildKit's documented semantics, which others have missed",
        "REF-MOUNT-3",
        ledger=NotFinalByMount,
    ),
    _row(
        "c01",
        "the shared view goes with the first release",
        _buildkit("41be7f1ab (#204)", "2017-12"),
        "REF-MOUNT-5",
        "REF-COMMIT-3",
        ledger=ViewOfTheFirst,
    ),
    _row(
        "c02",
        "a release fails, and the handle stays, when the view cannot be removed",
        _buildkit("41be7f1ab (#204)", "2017-12"),
        "REF-HANDLE-2",
        ledger=BlockedRelease,
    ),
    _row(
        "c03",
        "a view is known to nobody after a crash",
        _buildkit("7390a41a5 (#1176)", "2019-09"),
        "REF-NOTE-1",
        ledger=ViewInMemory,
    ),
    _row(
        "c04",
        "a list that was made read-only keeps its upper directory",
        _buildkit("7beb0bb72 (#1100)", "2019-07"),
        "REF-MOUNT-1",
        ledger=ReadOnlyWithUpper,
    ),
    _row(
        "c08",
        "a list is made read-only in place, for all who have it",
        _buildkit("9321ec2f8", "2021-10"),
        "REF-MOUNT-6",
        "REF-MOUNT-1",
        ledger=ReadOnlyForAll,
    ),
    _row(
        "d01",
        "a waiter for a size that is cancelled has no value, which is looked at first",
        _buildkit("8cd41468c (#1511)", "2020-05"),
        "REF-SIZE-5",
        "REF-ERROR-1",
        ledger=flying(NothingForTheCancelled),
    ),
    _row(
        "d02",
        "a size that cannot be stored leaves a lock locked",
        _buildkit("a7e72f85e (#357)", "2018-04"),
        "REF-ERROR-5",
        ledger=SizeLeavesTheLock,
    ),
    _row(
        "d03",
        "a failed size of a record that is gone unlocks what it has not locked",
        _buildkit("a7e72f85e (#357)", "2018-04"),
        "REF-SIZE-4",
        "REF-ERROR-1",
        ledger=UnlocksTheUnlocked,
    ),
    _row(
        "d05",
        "the size of an M is stored at the first question",
        _buildkit("a9f1980eb (#2316)", "2021"),
        "REF-SIZE-6",
        "REF-SIZE-4",
        ledger=KeepsSizesOfM,
    ),
    _row(
        "d06",
        "disk_usage shows an idle M with -1 bytes",
        _buildkit("2ef097182 (#76)", "2017-07"),
        "REF-USAGE-3",
        manager=MinusOne,
    ),
    _row(
        "d07",
        "a disk_usage that fails keeps a handle",
        _buildkit("f1223ede9 (#3851)", "2023-05"),
        "REF-USAGE-3",
        "REF-PRUNE-1",
        manager=KeepsWhatItMeasures,
    ),
    _row(
        "e01",
        "who began a shared call is told to ask again",
        _buildkit("5cbe15436 (#88)", "2017-07"),
        "REF-SIZE-5",
        "REF-USAGE-3",
        ledger=flying(RetryIsTold),
    ),
    _row(
        "e04",
        "who joins late is told the cancellation of others",
        _buildkit("e56e7ba46 (#1891)", "2020-12"),
        "REF-SIZE-5",
        "REF-USAGE-3",
        ledger=flying(JoinsTheCancelled),
    ),
    _row(
        "e05",
        "what waits for the end of a scan waits for ever",
        _buildkit("463fc8d1b (#1316)", "2020-01"),
        "REF-CLOSE-1",
        ledger=NeverOver,
    ),
    _row(
        "e09",
        "sizes of different records share one call",
        _buildkit("23ec51611 (#2273)", "2021-07"),
        "REF-SIZE-2",
        "REF-SIZE-4",
        ledger=OneFlightForAll,
    ),
    _row(
        "size-race",
        "size reads the driver's key before it waits and uses it after a finalize",
        "the seed, lines 70-92",
        "REF-SIZE-4",
        "REF-USAGE-3",
        ledger=UsageOfTheKeyThatWas,
    ),
)
