"""The seed: a manager that behaves as the code of 2017 did, wherever the spec departs from that.

What it does, by the lines of the seed as appendix A of spec.md counts them; in brackets the exhibit that has this fault alone.

- 37-38, 98-100: each record has a lock of its own, also the halves of a pair, and holds it while the driver works
- 44-45, 121-129: the id of a view stands in memory only [c03]
- 52-57, and the manager: get_mutable looks at M's handles only [a04]
- 64-72: an M that was measured once keeps that size [d05]
- 73-78: the driver's key is read before the wait and used after it [size-race]
- 82-87: a size is set before it is written [j02]; if that fails the lock stays locked [d02]
- 88-91: a waiter that is cancelled has no value, which is looked at first [d01]
- 92-97, 98-100: parent, mount, size and finalize do not ask whether the handle is open [a21]
- 101-105: M's old handle still mounts to write after a commit
- 152-158: a release waits for the manager's lock and for the record's
- 159-163: the first release takes the shared view along [c01]; if that fails the handle stays [c02]
- 168-171: with E's last handle M's goes
- 190-193: finalize removes M, in memory and then in the metadata; if that fails the link stays [b02]
- 194-197: the link goes in memory first, then in the metadata, by a second write [i02]
- 198-201: commit asks whether the record has any handle, not whether there is an E [b01]; so does get of M [a05]
- 204-206: E has M's hold on the parent [a01, a02]
- 211-219: E is known before it is written, and stays where that fails [h01]
- 212-214, and the manager: new writes nothing, neither a note nor a record [i01]
- 220-223: M's handle stays open
- 238-239: it can be released after the commit: M is idle then while E is held
- 251-254: a list is made read-only by ro alone [c04]

Of its neighbours: a new whose finalize fails goes on holding the parent [a07]; disk_usage shows -1 for what it does not know
[d06], and keeps a handle when it fails [d07]; a start takes each error of the driver for a loss [i04]; who joins a shared call
may be told that of others [e01, e04].

Not here: prune, which the seed has not (the reference's is used: it shows what the others do), and lists that are changed in
place (130-131, 255-258): the driver of the exhibit gives each caller its own, and a manager in Python gives out tuples.
"""

from __future__ import annotations

from dataclasses import replace

from snapspec.conformance.mutants import Exhibit, Managers
from snapspec.conformance.mutants.refs import (
    CommitsAgain,
    KeepsTheParent,
    LoadsOneHold,
    LocksByMAlone,
    OneHoldForBoth,
    ViewInMemory,
)
from snapspec.conformance.mutants.refs_durable import (
    DropsTheLost,
    EveryErrorIsALoss,
    LooksForMAlone,
    MemoryFirst,
    StartsFromM,
)
from snapspec.conformance.mutants.refs_size import (
    JoinsTheCancelled,
    KeepsWhatItMeasures,
    MinusOne,
    NothingForTheCancelled,
    RetryIsTold,
)
from snapspec.impl.ref_errors import Invalid
from snapspec.impl.refs import ImmutableRef, MutableRef, Record, Ref
from snapspec.impl.threads import given, whole
from snapspec.model.values import Mount


class SeedFlight(JoinsTheCancelled, RetryIsTold, NothingForTheCancelled):
    """The shared calls of 2017."""


class SeedLedger(OneHoldForBoth, ViewInMemory, MemoryFirst, LooksForMAlone, EveryErrorIsALoss):
    """Records, metadata and driver as they went together in the seed."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the same arguments
        self._flight = SeedFlight()

    def give(self, record: Record) -> ImmutableRef:
        return SeedImmutable(self, record)

    def give_mutable(self, record: Record) -> MutableRef:
        return SeedMutable(self, record)

    async def commit(self, mutable: Record) -> ImmutableRef:
        """Lines 198-223."""
        if not mutable.mutable:
            raise Invalid("invalid mutable")
        record = Record(self.new_id(), False, mutable.parent, mutable)
        self.add(record)
        await self.store.write({mutable.id: mutable.entry()})
        await self.store.write({record.id: record.entry()})
        mutable.equal = record
        return self.give(record)

    async def finalize(self, record: Record) -> None:
        """Lines 181-197."""
        mutable = record.halves[0]
        await self.snapshotter.commit(record.id, mutable.id)
        if not mutable.gone:
            self.drop(mutable)
        await self.store.write({mutable.id: None})
        record.equal = None
        await self.store.write({record.id: record.entry()})

    async def _measure(self, record: Record) -> int:
        """Lines 64-91."""
        async with record.lock:
            if record.size is not None:
                return record.size
            key = record.halves[0].id
        size = (await self.snapshotter.usage(key)).size
        await record.lock.acquire()
        record.size = size
        await self.store.write({record.id: record.entry()})
        record.lock.release()
        return size


class _Unasked(Ref):
    """Lines 92-100: nobody asks whether a handle is open."""

    def _check(self) -> None:
        """All handles are."""


class SeedMutable(_Unasked, MutableRef):
    """Lines 27-33, 198-245."""

    async def commit(self) -> ImmutableRef:
        with self._ledger.call():
            async with self._ledger.section(), self._record.lock:
                if not self._record.handles:
                    raise Invalid("invalid mutable")
                return await given(self._ledger.commit(self._record))

    async def release(self) -> None:
        async with self._ledger.section(), self._record.lock:
            self._record.handles.pop(self, None)

    async def mount(self, readonly: bool = False) -> tuple[Mount, ...]:
        with self._ledger.call():
            async with self._record.lock:
                mounts = tuple(await self._ledger.snapshotter.mounts(self.id))
            return _with_ro(mounts) if readonly else mounts

    async def size(self) -> int:
        with self._ledger.call():
            return await self._ledger._flight.run(self.id, lambda: self._ledger._measure(self._record))


class SeedImmutable(_Unasked, ImmutableRef):
    """Lines 18-26, 98-180."""

    async def release(self) -> None:
        record, ledger = self._record, self._ledger
        with ledger.call(late=True):
            async with ledger.section(), record.lock:
                await whole(self._release(record))

    async def _release(self, record: Record) -> None:
        if record.view:
            await self._ledger.snapshotter.remove(record.view)
            record.view = ""
        record.handles.pop(self, None)
        if not record.handles and record.equal is not None:
            record.equal.handles.clear()

    async def final(self) -> Record:
        async with self._record.lock:
            if self._record.equal is not None:
                await whole(self._ledger.finalize(self._record))
        return self._record

    async def mount(self, readonly: bool = True) -> tuple[Mount, ...]:
        record, ledger = self._record, self._ledger
        with ledger.call():
            async with record.lock:
                if record.equal is not None and readonly:
                    return _with_ro(tuple(await ledger.snapshotter.mounts(record.equal.id)))
                if record.equal is not None:
                    await whole(ledger.finalize(record))
                if not record.view:
                    await whole(ledger.make_view(record))
                return record.mounts


def _with_ro(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Lines 246-257."""
    return tuple(replace(m, options=(*(o for o in m.options if o != "rw"), "ro")) for m in mounts)


class SeedManager(
    KeepsTheParent, LocksByMAlone, CommitsAgain, KeepsWhatItMeasures, MinusOne, StartsFromM, DropsTheLost, LoadsOneHold
):
    """The manager that the seed leans on."""

    async def _make(self, parent: Record | None) -> MutableRef:
        ledger, record = self._ledger, Record(self._ledger.new_id(), True, parent)
        await ledger.snapshotter.prepare(record.id, record.parent_id)
        ledger.add(record)
        return ledger.give_mutable(record)


class NotingManager(SeedManager):
    """The same, but that new is written as the reference writes it: that is found by the first call and hides all else."""

    async def _make(self, parent: Record | None) -> MutableRef:
        return await super(SeedManager, self)._make(parent)


_WHERE = "BuildKit's cache/refs.go and its neighbours, 2017-07"

SEED: tuple[Exhibit, ...] = (
    Exhibit(
        "seed",
        "the code of 2017, in every point where the spec departs from it",
        _WHERE,
        ("REF-NOTE-1", "REF-OPEN-1"),
        over="model:",
        manager=Managers(SeedLedger, SeedManager),
    ),
    Exhibit(
        "seed-noted",
        "the same, but that new is written at once",
        _WHERE,
        ("REF-COMMIT-1", "REF-HANDLE-4", "REF-USAGE-3"),
        over="model:",
        manager=Managers(SeedLedger, NotingManager),
    ),
)
