"""Records, the handles on them, and the ledger that holds both to the metadata and to the driver (REF).

The driver knows a record's snapshot by the id of the record that made it: E's by M's id, until E is final.

Between two awaits code runs alone, so that memory needs no lock. What takes longer takes these, in this order:

1. `Record.lock`, one for each snapshot, shared by the halves of a pair. It is held while the driver finalizes the snapshot, makes
   a view of it or removes it, and by calls that have to know how that ended: get and get_mutable of M, prune.
2. `Ledger.section`, one for each manager. It is held from what a write of the metadata depends on to the change of memory that
   follows the write. No call of the driver is made under it.

A scan for a size holds none: a call that hangs in the driver holds up nothing but what needs that snapshot's end (REF-ERROR-5).
What comes after a point of no return, and what cleans up, is a `whole`: no cancellation ends it (REF-POINT-1).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self, TypeVar

from snapspec.impl import errors
from snapspec.impl.errors import SnapshotError
from snapspec.impl.flight import Flight
from snapspec.impl.metadata import Store
from snapspec.impl.mounts import read_only
from snapspec.impl.ports import Snapshotter
from snapspec.impl.ref_errors import Closed, Invalid, NotFound, RefError
from snapspec.impl.threads import given, whole
from snapspec.model.values import Kind, Mount

T = TypeVar("T")

#: A driver's prepare or view.
Make = Callable[[str, str], Awaitable[Sequence[Mount]]]

_log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """One record.

    `equal` is the other half of a pair (REF-PAIR-1). `children` are the holds of its children, E's as well as M's (REF-NEW-4,
    REF-COMMIT-2). `view` and `mounts` are what the handles of a final record share (REF-MOUNT-5). `claims` are the running calls
    of new over it: they keep it from being pruned, and nothing else. `undecided`: it is not known whether the driver has made it
    final (REF-FINAL-4). `lost`: its snapshot was absent at the start (REF-OPEN-3). `gone`: it is NotFound for ever.
    """

    id: str
    mutable: bool
    parent: Record | None = None
    equal: Record | None = None
    size: int | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    handles: dict[Ref, None] = field(default_factory=dict)
    children: dict[Record, None] = field(default_factory=dict)
    view: str = ""
    mounts: tuple[Mount, ...] = ()
    claims: int = 0
    undecided: bool = False
    lost: bool = False
    gone: bool = False

    @property
    def parent_id(self) -> str:
        """The parent's id, "" where there is none."""
        return "" if self.parent is None else self.parent.id

    @property
    def halves(self) -> tuple[Record, ...]:
        """The records over this one's snapshot, M before E; the first is the one that the driver knows it by."""
        if self.equal is None:
            return (self,)
        return (self, self.equal) if self.mutable else (self.equal, self)

    @property
    def free(self) -> bool:
        """Nothing keeps the record from being pruned (REF-PRUNE-1)."""
        return not any(half.gone or half.handles or half.children or half.claims for half in self.halves)

    def entry(self) -> dict[str, str]:
        """What the metadata keep of it; see `snapspec.impl.manager`."""
        entry = {"kind": "mutable" if self.mutable else "immutable", "parent": self.parent_id}
        if self.equal is not None and not self.mutable:
            entry["equal"] = self.equal.id
        if self.size is not None:
            entry["size"] = str(self.size)
        return entry


@dataclass(slots=True)
class Note:
    """A snapshot or view over `parent` that no record names. A dead one is to be removed: nothing will be made of it."""

    parent: str
    dead: bool = False

    def entry(self) -> dict[str, str]:
        """What the metadata keep of it."""
        return {"kind": "note", "parent": self.parent}


class Ledger:
    """What one manager knows, and the ways to change it that keep memory, metadata and driver together (REF-POINT-3)."""

    def __init__(self, snapshotter: Snapshotter, store: Store, new_id: Callable[[], str], commit_keeps_lists: bool) -> None:
        self.snapshotter = snapshotter
        self.store = store
        self.new_id = new_id
        self.commit_keeps_lists = commit_keeps_lists
        self.closed = False
        self.records: dict[str, Record] = {}
        self.notes: dict[str, Note] = {}
        self._section = asyncio.Lock()
        self._unsure: dict[str, None] = {}
        self._flight: Flight[str, int] = Flight()
        self._calls = 0
        self._ended = asyncio.Event()

    # --- calls

    @contextmanager
    def call(self, late: bool = False) -> Iterator[None]:
        """One call, whose end close waits for (REF-CLOSE-1). Raises Closed, before all else (REF-ERROR-1), if not `late`."""
        if self.closed and not late:
            raise Closed("the manager is closed: open another one on the same store")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._ended.set()

    async def quiet(self) -> None:
        """Wait until no call is running."""
        while self._calls:
            self._ended.clear()
            await self._ended.wait()

    # --- handles

    def give(self, record: Record) -> ImmutableRef:
        """A handle on an immutable record."""
        return ImmutableRef(self, record)

    def give_mutable(self, record: Record) -> MutableRef:
        """The handle on a mutable record."""
        return MutableRef(self, record)

    # --- memory and metadata

    def find(self, id: str) -> Record:
        """The record of this id. Raises NotFound (REF-ERROR-2)."""
        record = self.records.get(id)
        if record is None or record.lost:
            raise NotFound(f"no record has the id {id!r}")
        return record

    def add(self, record: Record) -> None:
        """The record is known, and holds its parent."""
        self.records[record.id] = record
        if record.parent is not None:
            record.parent.children[record] = None

    def drop(self, record: Record) -> None:
        """The record is NotFound, and holds nothing."""
        record.gone = True
        del self.records[record.id]
        if record.parent is not None:
            del record.parent.children[record]

    @asynccontextmanager
    async def section(self) -> AsyncIterator[None]:
        """Here the metadata are known to be as memory has them, and nobody else writes (REF-POINT-3). Raises StoreError."""
        async with self._section:
            await self._settle()
            yield

    @asynccontextmanager
    async def pair(self, record: Record) -> AsyncIterator[None]:
        """The record's lock and the section, with nothing undecided; the record may be gone by then."""
        async with record.lock:
            await self.decide(record)
            async with self.section():
                yield

    @asynccontextmanager
    async def found(self, id: str) -> AsyncIterator[Record]:
        """The record of this id, under the section; a mutable one as in `pair`. Raises NotFound, StoreError, SnapshotError."""
        record = self.find(id)
        async with self.pair(record) if record.mutable else self.section():
            yield self.find(id)

    async def settle(self) -> None:
        """Bring up metadata that a failed write has left behind or in doubt. Raises StoreError."""
        if self._unsure:
            async with self.section():
                pass

    async def _settle(self, *changed: str) -> None:
        """Under the section: write what memory has of these ids, and of those that are unsure."""
        self._unsure.update(dict.fromkeys(changed))
        if self._unsure:
            known = {id: self.records.get(id) or self.notes.get(id) for id in self._unsure}
            await self.store.write({id: one.entry() if one is not None else None for id, one in known.items()})
            self._unsure.clear()

    async def write(self, changes: Mapping[str, dict[str, str] | None]) -> None:
        """Under the section: one atomic write, after which memory may follow (REF-POINT-3). Raises StoreError.

        After a failure it is read back. Where that fails too, the next section begins with writing what memory has.
        """
        self._unsure.update(dict.fromkeys(changes))
        try:
            await self.store.write(changes)
        except RefError:
            durable = await self.store.read(tuple(changes))
            if durable != {id: entry for id, entry in changes.items() if entry is not None}:
                self._unsure.clear()
                raise
        self._unsure.clear()

    # --- notes

    @asynccontextmanager
    async def making(self, call: Make, id: str, parent: str) -> AsyncIterator[tuple[Mount, ...]]:
        """`id`, made by the driver over `parent` and noted before (REF-NOTE-1). If the block fails it is removed again.

        Raises StoreError, SnapshotError.
        """
        try:
            await whole(self._note(id, parent))
            try:
                mounts = tuple(await call(id, parent))
            except errors.AlreadyExists:
                await whole(self._forget(id))  # it is somebody else's: not ours to remove (REF-PRUNE-4)
                raise
            yield mounts
        except BaseException:
            await whole(self.clean(id))
            raise

    async def _note(self, id: str, parent: str) -> None:
        async with self.section():
            note = Note(parent)
            await self.write({id: note.entry()})
            self.notes[id] = note

    async def discard(self, id: str) -> None:
        """Remove from the driver what the note of `id` names, and what other dead notes name on top of it; then the note.

        Raises SnapshotError and StoreError; then the note stays, for prune and the next start.
        """
        if id not in self.notes:
            return
        self.notes[id].dead = True
        await self.settle()  # whatever went wrong before, it is a note that names the snapshot
        await self.discard_over(id)
        with suppress(errors.NotFound):
            await self.snapshotter.remove(id)
        await self._forget(id)

    async def _forget(self, id: str) -> None:
        """The note is gone, at the latest when the metadata are next brought up. Raises StoreError."""
        async with self._section:
            self.notes.pop(id, None)
            await self._settle(id)

    async def discard_over(self, parent: str) -> None:
        """Discard the dead notes of snapshots over `parent`."""
        for id in [id for id, note in self.notes.items() if note.dead and note.parent == parent]:
            await self.discard(id)

    async def clean(self, id: str) -> None:
        """Discard `id` as far as that can be done now: no call fails for what it leaves behind (REF-HANDLE-2)."""
        try:
            await self.discard(id)
        except (SnapshotError, RefError) as error:
            _log.warning("%s is left for prune: %s", id, error)

    # --- the equal pair

    async def commit(self, mutable: Record) -> ImmutableRef:
        """Under the section: E, with a handle; M's handle is consumed (REF-COMMIT-1)."""
        record = Record(self.new_id(), False, mutable.parent, mutable, lock=mutable.lock)
        await self.write({record.id: record.entry()})
        self.add(record)
        mutable.equal = record
        mutable.handles.clear()
        return self.give(record)

    async def reopen(self, mutable: Record) -> MutableRef:
        """Under the section: a handle on M; its E is gone (REF-MUT-3)."""
        if mutable.equal is not None:
            await self.write({mutable.equal.id: None})
            self.drop(mutable.equal)
            mutable.equal = None
        return self.give_mutable(mutable)

    async def finalize(self, record: Record) -> None:
        """Under the lock of a pair: the driver commits M's snapshot under E's id (REF-FINAL-1).

        The reference's own commit makes the content durable first (REF-FINAL-5): nothing is left to do for that here. One that
        fails may have taken place all the same (REF-FINAL-3).
        """
        record.undecided = True
        try:
            await self.snapshotter.commit(record.id, record.halves[0].id)
        except SnapshotError:
            await self._find_out(record)
            if record.equal is not None:
                raise
        else:
            await self.finalized(record)

    async def finalized(self, record: Record) -> None:
        """The driver has committed E: it is final, whether or not the metadata can be brought up (REF-FINAL-3)."""
        async with self._section:
            mutable = record.halves[0]
            self.drop(mutable)
            record.equal, record.undecided = None, False
            await self._settle(record.id, mutable.id)

    async def decide(self, record: Record) -> None:
        """Under the lock: nothing about the record's pair is undecided afterwards."""
        final = record.halves[-1]
        if final.undecided:
            await whole(self._find_out(final))

    async def _find_out(self, final: Record) -> None:
        """Under the lock: whether the driver has finalized the pair (REF-FINAL-4). Raises SnapshotError, StoreError."""
        half = await self.standing(final)
        if half is final:
            await self.finalized(final)
        final.undecided = False
        if half is None:
            raise SnapshotError(f"the driver has lost the snapshot of {final.id}: release its handles and prune")

    async def standing(self, record: Record) -> Record | None:
        """The half that the driver has the snapshot of: E when it is final, else M; None when there is neither."""
        for half in reversed(record.halves):
            with suppress(errors.NotFound):
                if (await self.snapshotter.stat(half.id)).kind is (Kind.ACTIVE if half.mutable else Kind.COMMITTED):
                    return half
        return None

    # --- size

    async def size(self, record: Record) -> int:
        """The size of an immutable record, measured once (REF-SIZE-1, REF-SIZE-3)."""
        if record.size is not None:
            return record.size
        return await self._flight.run(record.id, lambda: self._measure(record))

    async def _measure(self, record: Record) -> int:
        return await whole(self._keep(record, await self.usage(record)))

    async def _keep(self, record: Record, size: int) -> int:
        """The size, stored before it is told (REF-SIZE-2); the first one stays."""
        async with self.section():
            if record.gone:  # what was measured may have been somebody else's by then (REF-SIZE-4)
                raise NotFound(f"{record.id} was removed while it was measured")
            if record.size is None:
                await self.write({record.id: record.entry() | {"size": str(size)}})
                record.size = size
            return record.size

    async def usage(self, record: Record) -> int:
        """What the driver counts for the record's snapshot, also when a finalize moves it meanwhile (REF-SIZE-4)."""
        key = record.halves[0].id
        try:
            return (await self.snapshotter.usage(key)).size
        except errors.NotFound:
            final = record.equal if record.mutable else record
            if final is None or final.id == key:
                raise
        return (await self.snapshotter.usage(final.id)).size

    # --- views

    async def make_view(self, record: Record) -> None:
        """Under the lock: the view of a final record (REF-MOUNT-5). Raises StoreError, SnapshotError."""
        id = self.new_id()
        async with self.making(self.snapshotter.view, id, record.id) as record.mounts:
            record.view = id
        if not record.handles:  # the last one was released meanwhile, and found no view
            await self.clean(self.part(record))

    def part(self, record: Record) -> str:
        """Take the view, if there is one, from the record. Gives its id; its note is dead."""
        view, record.view = record.view, ""
        if view:
            self.notes[view].dead = True
        return view


class Ref(ABC):
    """A handle on a record. It is open from its making until it is released or consumed (REF-HANDLE-1).

    An async context manager: leaving the block releases it.
    """

    def __init__(self, ledger: Ledger, record: Record) -> None:
        self._ledger = ledger
        self._record = record
        record.handles[self] = None

    @property
    def id(self) -> str:
        """The id of the record, for ever (REF-HANDLE-5)."""
        return self._record.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    @abstractmethod
    async def release(self) -> None:
        """Close the handle: always, and when the call begins (REF-HANDLE-2). One that is not open stays so (REF-HANDLE-3)."""

    async def parent(self) -> ImmutableRef | None:
        """A handle on the parent, None where there is none (REF-PARENT-1). Raises Closed, Invalid; NotFound when it is lost."""
        with self._ledger.call():
            self._check()
            parent = self._record.parent
            return None if parent is None else self._ledger.give(self._ledger.find(parent.id))

    def belongs_to(self, ledger: Ledger) -> bool:
        """Whether this manager gave the handle."""
        return self._ledger is ledger

    def _check(self) -> None:
        """Raises Invalid when the handle is not open (REF-HANDLE-4)."""
        if self not in self._record.handles:
            raise Invalid(f"the handle on {self.id} is not open: get another one")

    async def _asked(self, question: Awaitable[T]) -> T:
        """What the driver answers; Invalid when the handle is no longer open by then, whatever the answer (REF-SIZE-4)."""
        try:
            answer = await question
        except (SnapshotError, RefError):
            self._check()
            raise
        self._check()
        return answer


class MutableRef(Ref):
    """The handle on a mutable record: the only open one (REF-HANDLE-6)."""

    #: Set when the commit that is under way is decided.
    _decided: asyncio.Event | None = None

    async def commit(self) -> ImmutableRef:
        """Consume the handle for one on E, the record of what is there now (REF-COMMIT). Raises Closed, Invalid, StoreError."""
        with self._ledger.call():
            self._check()
            async with self._ledger.section():
                self._check()
                self._decided = decided = asyncio.Event()
                try:
                    return await given(self._ledger.commit(self._record))
                finally:
                    self._decided = None
                    decided.set()

    async def release(self) -> None:
        """See `Ref`. It does not answer before a commit that is under way is decided: that may have been first (REF-COMMIT-4)."""
        self._record.handles.pop(self, None)
        if self._decided is not None:
            await self._decided.wait()

    async def mount(self, readonly: bool = False) -> tuple[Mount, ...]:
        """The snapshot's mount list (REF-MOUNT-1). Raises Closed, Invalid, SnapshotError."""
        with self._ledger.call():
            self._check()
            mounts = await self._asked(self._ledger.snapshotter.mounts(self.id))
            return read_only(mounts) if readonly else tuple(mounts)

    async def size(self) -> int:
        """What the snapshot takes for itself, measured now (REF-SIZE-6). Raises Closed, Invalid, SnapshotError."""
        with self._ledger.call():
            self._check()
            return await self._asked(self._ledger.usage(self._record))


class ImmutableRef(Ref):
    """A handle on an immutable record."""

    async def finalize(self) -> None:
        """Make the record final (REF-FINAL). Raises Closed, Invalid, StoreError, SnapshotError; it may be final all the same."""
        with self._ledger.call():
            await self.final()
            await self._ledger.settle()

    async def final(self) -> Record:
        """The record, final and thus no half of a pair (REF-PAIR-2). The handle may have been released since this began."""
        self._check()
        record = self._record
        if record.equal is not None:  # else there is nothing to do (REF-FINAL-2)
            async with record.lock:
                self._check()
                if record.equal is not None:
                    await whole(self._ledger.finalize(record))
        return record

    async def release(self) -> None:
        """See `Ref`. The view goes with the last handle, if the driver lets it (REF-MOUNT-5)."""
        record = self._record
        if self in record.handles:
            del record.handles[self]
            if record.view and not record.handles:
                with self._ledger.call(late=True):
                    await whole(self._ledger.clean(self._ledger.part(record)))

    async def mount(self, readonly: bool = True) -> tuple[Mount, ...]:
        """A read-only list, whatever is asked (REF-MOUNT-2); `readonly=False` makes the record final (REF-MOUNT-3).

        Nobody can change what is given (REF-MOUNT-6). Raises Closed, Invalid, StoreError, SnapshotError; the record may have
        become final all the same.
        """
        with self._ledger.call():
            self._check()
            key = self._record.halves[0].id
            if readonly and key != self.id and self._ledger.commit_keeps_lists:  # REF-MOUNT-4
                with suppress(errors.NotFound):  # a finalize has moved it meanwhile
                    return read_only(await self._asked(self._ledger.snapshotter.mounts(key)))
            await self.final()
            return await self._view()

    async def _view(self) -> tuple[Mount, ...]:
        record = self._record
        if not record.view:
            async with record.lock:
                self._check()
                if not record.view:
                    await whole(self._ledger.make_view(record))
        self._check()
        return record.mounts

    async def size(self) -> int:
        """What the record's own layer takes, the same for ever (REF-SIZE). Raises Closed, Invalid, StoreError, SnapshotError."""
        with self._ledger.call():
            self._check()
            return await self._asked(self._ledger.size(self._record))
