"""Exhibits of managers of refs, rows D and E: size, and the calls that share a scan; each with one fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from snapspec.conformance.mutants import Exhibit
from snapspec.conformance.mutants.rows import buildkit, row
from snapspec.impl.errors import Canceled, NotFound, SnapshotError
from snapspec.impl.flight import Flight, _Run
from snapspec.impl.manager import Manager
from snapspec.impl.ref_errors import RefError
from snapspec.impl.refs import Ledger, MutableRef, Record

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

REFS_SIZE: tuple[Exhibit, ...] = (
    row(
        "d01",
        "a waiter for a size that is cancelled has no value, which is looked at first",
        buildkit("8cd41468c (#1511)", "2020-05"),
        "REF-SIZE-5",
        "REF-ERROR-1",
        ledger=flying(NothingForTheCancelled),
    ),
    row(
        "d02",
        "a size that cannot be stored leaves a lock locked",
        buildkit("a7e72f85e (#357)", "2018-04"),
        "REF-ERROR-5",
        ledger=SizeLeavesTheLock,
    ),
    row(
        "d03",
        "a failed size of a record that is gone unlocks what it has not locked",
        buildkit("a7e72f85e (#357)", "2018-04"),
        "REF-SIZE-4",
        "REF-ERROR-1",
        ledger=UnlocksTheUnlocked,
    ),
    row(
        "d05",
        "the size of an M is stored at the first question",
        buildkit("a9f1980eb (#2316)", "2021"),
        "REF-SIZE-6",
        "REF-SIZE-4",
        ledger=KeepsSizesOfM,
    ),
    row(
        "d06",
        "disk_usage shows an idle M with -1 bytes",
        buildkit("2ef097182 (#76)", "2017-07"),
        "REF-USAGE-3",
        manager=MinusOne,
    ),
    row(
        "d07",
        "a disk_usage that fails keeps a handle",
        buildkit("f1223ede9 (#3851)", "2023-05"),
        "REF-USAGE-3",
        "REF-USAGE-2",
        "REF-PRUNE-1",
        manager=KeepsWhatItMeasures,
    ),
    row(
        "e01",
        "who began a shared call is told to ask again",
        buildkit("5cbe15436 (#88)", "2017-07"),
        "REF-SIZE-5",
        "REF-USAGE-3",
        ledger=flying(RetryIsTold),
    ),
    row(
        "e04",
        "who joins late is told the cancellation of others",
        buildkit("e56e7ba46 (#1891)", "2020-12"),
        "REF-SIZE-5",
        "REF-USAGE-3",
        ledger=flying(JoinsTheCancelled),
    ),
    row(
        "e05",
        "what waits for the end of a scan waits for ever",
        buildkit("463fc8d1b (#1316)", "2020-01"),
        "REF-CLOSE-1",
        ledger=NeverOver,
    ),
    row(
        "e09",
        "sizes of different records share one call",
        buildkit("23ec51611 (#2273)", "2021-07"),
        "REF-SIZE-2",
        "REF-SIZE-4",
        ledger=OneFlightForAll,
    ),
    row(
        "size-race",
        "size reads the driver's key before it waits and uses it after a finalize",
        "the seed, lines 70-92",
        "REF-SIZE-4",
        "REF-USAGE-3",
        ledger=UsageOfTheKeyThatWas,
    ),
)
