"""Managers with one fault each, put back on purpose: the kit must find every one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from snapspec.conformance.schedule import Budget
from snapspec.impl.errors import NotFound, SnapshotError
from snapspec.impl.flight import Flight
from snapspec.impl.manager import Manager
from snapspec.impl.metadata import Store
from snapspec.impl.ports import Snapshotter
from snapspec.impl.ref_errors import RefError
from snapspec.impl.refs import ImmutableRef, Ledger, MutableRef, Record
from snapspec.impl.threads import whole
from snapspec.model.values import Mount

# --- size


class RacedSize(Ledger):
    """The driver's key is read before the wait and used after it, and what is not there counts nothing."""

    async def usage(self, record: Record) -> int:
        try:
            return (await self.snapshotter.usage(record.halves[0].id)).size
        except NotFound:
            return 0


class InfectiousFlight(Flight[str, int]):
    """A waiter that is cancelled takes all others with it."""

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        run = self._find(key) or self._start(key, work)
        return await run.task


class InfectiousCancellation(Ledger):
    """See `InfectiousFlight`."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the same arguments
        self._flight = InfectiousFlight()


class EachScansAlone(Ledger):
    """Nobody shares a scan."""

    async def size(self, record: Record) -> int:
        return await self._measure(record) if record.size is None else record.size


class SizeOfTheOtherHalf(Ledger):
    """The size is stored under M's id."""

    async def _keep(self, record: Record, size: int) -> int:
        first = record.halves[0]
        async with self.section():
            first.size = size
            await self.write({first.id: first.entry()})
        return size


class KeptErrorFlight(Flight[str, int]):
    """The error of a scan is told to whoever asks later."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, Exception] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        if key in self._kept:
            raise self._kept[key]
        try:
            return await super().run(key, work)
        except (SnapshotError, RefError) as error:
            self._kept[key] = error.with_traceback(None)
            raise


class KeptError(Ledger):
    """See `KeptErrorFlight`."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the same arguments
        self._flight = KeptErrorFlight()


class LingeringFlight(Flight[str, int]):
    """The scan goes on when all who waited for it have left."""

    def _abandon(self, key: str, run: object) -> None:
        pass


class LingeringScan(Ledger):
    """See `LingeringFlight`."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the same arguments
        self._flight = LingeringFlight()


# --- the equal pair


class ReopenLeavesE(Ledger):
    """get_mutable gives the handle, and E stays."""

    async def reopen(self, mutable: Record) -> MutableRef:
        return MutableRef(self, mutable)


class FinalLeavesM(Ledger):
    """finalize leaves M's record."""

    async def finalized(self, record: Record) -> None:
        async with self._section:
            mutable = record.halves[0]
            record.equal, mutable.equal, record.undecided = None, None, False
            await self._settle(record.id, mutable.id)


class LateCommit(Ledger):
    """commit tells E before its metadata are written: the next write takes them along."""

    async def commit(self, mutable: Record) -> ImmutableRef:
        record = Record(self.new_id(), False, mutable.parent, mutable, lock=mutable.lock)
        self._unsure[record.id] = None
        self.add(record)
        mutable.equal = record
        mutable.handles.clear()
        return ImmutableRef(self, record)


class OpenAfterCommit(Ledger):
    """M's handle stays open at a commit."""

    async def commit(self, mutable: Record) -> ImmutableRef:
        handles = dict(mutable.handles)
        committed = await super().commit(mutable)
        mutable.handles.update(handles)
        return committed


# --- handles


class BrokenRef(ImmutableRef):
    """A handle with a fault, which commit gives."""

    @classmethod
    def on(cls, ledger: Ledger, record: Record) -> ImmutableRef:
        """The only handle on a record that was just committed."""
        record.handles.clear()
        return cls(ledger, record)


class ReleasedTwice(BrokenRef):
    """A second release closes somebody else's handle."""

    async def release(self) -> None:
        handles = self._record.handles
        if self not in handles and handles:
            del handles[next(iter(handles))]
        await super().release()


class ViewGoesFirst(BrokenRef):
    """The view goes with the first release."""

    async def release(self) -> None:
        record = self._record
        if self in record.handles and record.view:
            await whole(self._ledger.clean(self._ledger.part(record)))
        await super().release()


class Writable(BrokenRef):
    """A list of an E that is not final is M's own."""

    async def mount(self, readonly: bool = True) -> tuple[Mount, ...]:
        with self._ledger.call():
            self._check()
            if readonly and self._record.equal is not None:
                with suppress(NotFound):
                    return tuple(await self._asked(self._ledger.snapshotter.mounts(self._record.equal.id)))
        return await super().mount(readonly)


class LockLeft(BrokenRef):
    """A cancelled finalize leaves the record's lock."""

    async def final(self) -> Record:
        self._check()
        record = self._record
        if record.equal is not None:
            await record.lock.acquire()
            if record.equal is not None:
                await whole(self._ledger.finalize(record))
            record.lock.release()
        return record


def committing(kind: type[BrokenRef]) -> type[Ledger]:
    """The ledger whose commit gives handles of this kind."""

    class Committing(Ledger):
        async def commit(self, mutable: Record) -> ImmutableRef:
            return kind.on(self, (await super().commit(mutable))._record)

    return Committing


# --- prune


class ChildrenForgotten(Ledger):
    """Nobody knows what is built on a record: prune takes it for the last one."""

    def add(self, record: Record) -> None:
        self.records[record.id] = record

    def drop(self, record: Record) -> None:
        record.gone = True
        del self.records[record.id]


class NewClaimsNothing(Manager):
    """prune may take the parent of a new that is under way."""

    async def new(self, parent: ImmutableRef | None = None) -> MutableRef:
        if parent is None:
            return await super().new()
        with self._ledger.call():
            return await self._make(await parent.final())


# --- all of them


@dataclass(frozen=True, slots=True)
class Faulty:
    """A manager with a fault: the classes that it is made of."""

    name: str
    ledger: type[Ledger]
    manager: type[Manager]

    async def open(
        self, driver: Snapshotter, store: Store, *, new_id: Callable[[], str], commit_keeps_lists: bool = True
    ) -> Manager:
        """A manager with the fault, as `open_manager` opens one without."""
        manager = self.manager(self.ledger(driver, store, new_id, commit_keeps_lists))
        await manager.start()
        return manager


@dataclass(frozen=True, slots=True)
class Broken(Faulty):
    """A fault, the scenario and the disturbances that show it, and the clauses that may be named for it."""

    scenario: str
    budget: Budget
    clauses: tuple[str, ...]


def _ledger(name: str, ledger: type[Ledger], scenario: str, *clauses: str, budget: Budget | None = None) -> Broken:
    return Broken(name, ledger, Manager, scenario, budget or Budget(), clauses)


def _manager(name: str, manager: type[Manager], scenario: str, *clauses: str) -> Broken:
    return Broken(name, Ledger, manager, scenario, Budget(), clauses)


SIZE_RACE = _ledger("size race", RacedSize, "size, size, finalize", "REF-SIZE-4")
CANCELLED_WAITER = _ledger(
    "cancelled waiter", InfectiousCancellation, "size, size, finalize", "REF-SIZE-5", budget=Budget(cancels=1)
)

BROKEN = (
    SIZE_RACE,
    CANCELLED_WAITER,
    _ledger("two scans at a time", EachScansAlone, "size, size, finalize", "REF-SIZE-3"),
    _ledger("size stored under M's id", SizeOfTheOtherHalf, "size, size, finalize", "REF-SIZE-4"),
    _ledger("error of a scan kept", KeptError, "size, size, finalize", "REF-SIZE-5", "REF-USAGE-3", budget=Budget(faults=1)),
    _ledger("scan for nobody", LingeringScan, "size, release, get_mutable", "REF-SIZE-5", budget=Budget(cancels=1)),
    _ledger("get_mutable leaves E", ReopenLeavesE, "size, release, get_mutable", "REF-MUT-3"),
    _ledger("finalize leaves M", FinalLeavesM, "size, size, finalize", "REF-FINAL-1"),
    _ledger("commit told before it is written", LateCommit, "commit, get, get_mutable", "REF-OPEN-1", budget=Budget(crash=True)),
    _ledger("handle valid after commit", OpenAfterCommit, "size of M, commit, release", "REF-COMMIT-1"),
    _ledger("release twice counts twice", committing(ReleasedTwice), "release, release, size", "REF-SIZE-1", "REF-HANDLE-3"),
    _ledger("view goes with the first release", committing(ViewGoesFirst), "mount, mount, release", "REF-COMMIT-3"),
    _ledger("list of an unfinalized E writable", committing(Writable), "size, finalize, mount", "REF-MOUNT-1"),
    _ledger(
        "lock left after a cancellation",
        committing(LockLeft),
        "finalize, finalize, release",
        "REF-ERROR-5",
        budget=Budget(cancels=1),
    ),
    _ledger("prune forgets children", ChildrenForgotten, "parent, release, prune", "REF-PRUNE-1"),
    _manager("prune takes a claimed record", NewClaimsNothing, "new over, release, prune", "REF-PRUNE-1"),
)
