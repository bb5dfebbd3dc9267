"""The manager: records over a snapshotter and a metadata store, and the handles on them (REF).

The metadata hold one entry for each id. That of a record:

- `kind`: `mutable` or `immutable`
- `parent`: an id, or ""
- `equal`: with an E that is not final, M's id
- `size`: bytes, once it was measured

That of a note, with `kind` `note` and `parent`, names a snapshot or a view that no record names (REF-NOTE-1): one that is being
made, the view of a final record, or what is to be removed. The mark of a removal is this: a note in the record's place.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakSet

from snapspec.impl.errors import SnapshotError
from snapspec.impl.metadata import Store
from snapspec.impl.ports import Snapshotter
from snapspec.impl.ref_errors import Invalid, Locked, RefError, StoreError
from snapspec.impl.refs import ImmutableRef, Ledger, MutableRef, Note, Record
from snapspec.impl.threads import given, whole

#: The stores that have a manager: a store refuses a second opener of its file, but not of itself (REF-CLOSE-2).
_managed: WeakSet[Store] = WeakSet()


@dataclass(frozen=True, slots=True)
class Row:
    """What disk_usage tells of one snapshot (REF-USAGE-1). `parent` is "" where there is none."""

    id: str
    parent: str
    mutable: bool
    in_use: bool
    size: int


@dataclass(frozen=True, slots=True)
class PrunedRow:
    """A snapshot that prune removed: the ids of its records, M's before E's, and its size where it was known (REF-PRUNE-3)."""

    ids: tuple[str, ...]
    size: int | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What prune removed, and why it could not remove the rest, or not to the end."""

    rows: tuple[PrunedRow, ...]
    errors: tuple[Exception, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A record as it is in memory, for those who check the manager. `handles` counts the open ones."""

    id: str
    mutable: bool
    parent: str
    equal: str
    size: int | None
    handles: int


def _random_id() -> str:
    return uuid.uuid4().hex


async def open_manager(
    snapshotter: Snapshotter, store: Store, *, new_id: Callable[[], str] = _random_id, commit_keeps_lists: bool = True
) -> Manager:
    """The manager of the records in `store` over `snapshotter`, after what was left undone is done (REF-OPEN).

    `store` is this manager's alone, and closed with it; `snapshotter` stays open. `new_id` gives ids for records and views, none
    of them twice (REF-ERROR-3). `commit_keeps_lists`: mount lists stay good when the driver commits (REF-MOUNT-4). Raises Locked
    when `store` has a manager (REF-CLOSE-2), StoreError, and SnapshotError when the driver fails, also when it refuses to remove
    what was left; then no record has changed, and `store` stays open (REF-OPEN-4).
    """
    manager = Manager(Ledger(snapshotter, store, new_id, commit_keeps_lists))
    await manager.start()
    return manager


class Manager:
    """The calls of a manager. Made by `open_manager`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._closing: asyncio.Task[None] | None = None

    # --- new, get, get_mutable

    async def new(self, parent: ImmutableRef | None = None) -> MutableRef:
        """A handle on a new mutable record over `parent`, which becomes final (REF-NEW).

        Raises Closed, Invalid, StoreError, SnapshotError; the parent may have become final all the same (REF-POINT-2).
        """
        with self._ledger.call():
            if parent is None:
                return await self._make(None)  # REF-NEW-1
            if not isinstance(parent, ImmutableRef) or not parent.belongs_to(self._ledger):  # REF-NEW-3
                raise Invalid("the parent is no immutable handle of this manager: commit it, or get it here")
            over = await parent.final()  # REF-NEW-2
            over.claims += 1  # no prune has come in between: nothing was awaited since
            try:
                return await self._make(over)
            finally:
                over.claims -= 1

    async def _make(self, parent: Record | None) -> MutableRef:
        ledger, record = self._ledger, Record(self._ledger.new_id(), True, parent)
        async with ledger.making(ledger.snapshotter.prepare, record.id, record.parent_id), ledger.section():
            return await given(self._enter(record))

    async def _enter(self, record: Record) -> MutableRef:
        """The write that makes the record, in its note's place."""
        await self._ledger.write({record.id: record.entry()})
        del self._ledger.notes[record.id]
        self._ledger.add(record)
        return self._ledger.give_mutable(record)

    async def get(self, id: str) -> ImmutableRef:
        """A handle on an immutable record, or on the E of an idle mutable one (REF-GET).

        Raises Closed, NotFound, Locked, StoreError; SnapshotError when it cannot be told whether the record was finalized.
        """
        ledger = self._ledger
        with ledger.call():
            async with ledger.found(id) as record:
                if record.mutable and record.handles:  # REF-GET-2
                    raise Locked(f"{id} has an open handle: commit or release it first")
                final = record.halves[-1]
                if final.mutable:
                    return await given(ledger.commit(record))  # REF-GET-4
                return ledger.give(final)  # REF-GET-1, REF-GET-3

    async def get_mutable(self, id: str) -> MutableRef:
        """The handle on an idle mutable record; its E, if it has one, is gone (REF-MUT). Raises as `get` does, and Invalid."""
        ledger = self._ledger
        with ledger.call():
            async with ledger.found(id) as record:
                if not record.mutable:  # REF-MUT-1
                    raise Invalid(f"{id} is immutable: make a new record over it")
                if any(half.handles for half in record.halves):  # REF-MUT-2
                    raise Locked(f"{id} has an open handle, or what was committed of it has: release it first")
                return await given(ledger.reopen(record))

    # --- disk_usage

    async def disk_usage(self) -> tuple[Row, ...]:
        """One row for each snapshot, all of one moment of the call (REF-USAGE). Raises Closed, StoreError, SnapshotError."""
        ledger = self._ledger
        told: dict[Record, int] = {}
        with ledger.call():
            while True:
                async with ledger.section():
                    shown = [(record, self._size(record, told)) for record in self._shown()]
                    unknown = [record for record, size in shown if size is None]
                    if not unknown:
                        used = self._used()
                        return tuple(Row(r.id, r.parent_id, r.mutable, r in used, size or 0) for r, size in shown)
                for record in unknown:
                    await self._look(record, told)

    def _shown(self) -> list[Record]:
        """The record that stands for each snapshot: E while it has a handle or is final, else M (REF-PAIR-3)."""
        snapshots = dict.fromkeys(record.halves for record in self._ledger.records.values() if not record.lost)
        return [halves[-1] if halves[-1].handles else halves[0] for halves in snapshots]

    def _size(self, record: Record, told: dict[Record, int]) -> int | None:
        """The size to show; None when it is still to be found out, as is whether an idle pair is final."""
        final = record.halves[-1]
        if record.mutable and final.undecided:
            return None
        if record.mutable and record.handles:
            return 0
        return told.get(record) if final.mutable else final.size

    async def _look(self, record: Record, told: dict[Record, int]) -> None:
        ledger, final = self._ledger, record.halves[-1]
        try:
            if record.mutable and final.undecided:
                async with ledger.pair(record):
                    pass
            elif final.mutable:
                told[record] = await ledger.usage(record)
            else:
                await ledger.size(final)
        except (SnapshotError, RefError):
            if not final.gone:  # a race is not an error (REF-USAGE-3)
                raise

    def _used(self) -> set[Record]:
        """The records in use (REF-USAGE-2)."""
        used: set[Record] = set()
        for record in self._ledger.records.values():
            above: Record | None = record if record.handles else None
            while above is not None and above not in used:
                used.update(above.halves)
                above = above.parent
        return used

    # --- prune

    async def prune(self) -> Pruned:
        """Remove what is not in use, children first, and what was to be removed before (REF-PRUNE, REF-LEAK-1). Raises Closed."""
        ledger = self._ledger
        rows: list[PrunedRow] = []
        failures: list[Exception] = []

        async def attempt(work: Awaitable[None]) -> None:
            try:
                await work
            except (SnapshotError, RefError) as error:
                failures.append(error)

        with ledger.call():
            await attempt(ledger.settle())
            for id in [id for id, note in ledger.notes.items() if note.dead]:
                await attempt(whole(ledger.discard(id)))
            leaves = deque(record for record in ledger.records.values() if record is record.halves[-1] and not record.children)
            while leaves:
                record = leaves.popleft()
                await attempt(self._remove(record, rows))
                # Who removed the last child, this prune or another, does not matter: both are to find the parent gone.
                if record.parent is not None and not record.parent.children:
                    leaves.append(record.parent)
        return Pruned(tuple(rows), tuple(failures))

    async def _remove(self, record: Record, rows: list[PrunedRow]) -> None:
        if record.free:
            async with record.lock:
                await self._ledger.decide(record)
                await whole(self._remove_free(record, rows))

    async def _remove_free(self, record: Record, rows: list[PrunedRow]) -> None:
        """Under the lock: the mark, then the snapshot. What is left over the record has to go first."""
        ledger = self._ledger
        await ledger.discard_over(record.id)
        async with ledger.section():
            if not record.free:
                return
            halves = record.halves
            # The mark (REF-PRUNE-2). The driver knows the snapshot by one id; a lost one may come back under either.
            notes = {half.id: Note(half.parent_id, dead=True) for half in halves if half.lost or half is halves[0]}
            await ledger.write({half.id: notes[half.id].entry() if half.id in notes else None for half in halves})
            for half in halves:
                ledger.drop(half)
            ledger.notes.update(notes)
            rows.append(PrunedRow(tuple(half.id for half in halves), halves[-1].size))
        for id in notes:
            await ledger.discard(id)

    # --- start, close

    async def start(self) -> None:
        """Take up what the metadata hold and finish what was left (REF-OPEN-2). Raises as `open_manager` does."""
        store = self._ledger.store
        if store in _managed:
            raise Locked("the store has a manager: close that first, then open the store again")
        _managed.add(store)
        try:
            await self._take_up(await store.load())
        except BaseException:
            _managed.discard(store)
            raise

    async def _take_up(self, entries: dict[str, dict[str, str]]) -> None:
        """All is looked at before anything is changed (REF-OPEN-4); then each has its snapshot or is lost (REF-OPEN-5)."""
        ledger = self._ledger
        try:
            self._load(entries)
        except (KeyError, ValueError) as error:
            raise StoreError("the metadata are not those of a manager: open the store that belongs to this driver") from error
        firsts = [record for record in ledger.records.values() if record is record.halves[0]]
        standing = {record: await ledger.standing(record) for record in firsts}
        for id in list(ledger.notes):
            await ledger.discard(id)
        for record, half in standing.items():
            if half is None:  # REF-OPEN-3
                for each in record.halves:
                    each.lost = True
            elif half is not record:
                await ledger.finalized(half)

    def _load(self, entries: dict[str, dict[str, str]]) -> None:
        """Every record, without handles; pairs are idle (REF-OPEN-1)."""
        ledger = self._ledger
        kept = {id: entry for id, entry in entries.items() if entry["kind"] != "note"}
        ledger.notes = {id: Note(entry["parent"], dead=True) for id, entry in entries.items() if id not in kept}
        made = {id: Record(id, {"mutable": True, "immutable": False}[entry["kind"]]) for id, entry in kept.items()}
        for id, entry in kept.items():
            record = made[id]
            record.parent = made[entry["parent"]] if entry["parent"] else None
            record.size = int(entry["size"]) if "size" in entry else None
            if "equal" in entry:
                record.equal = made[entry["equal"]]
                record.equal.equal, record.lock = record, record.equal.lock
            ledger.add(record)

    async def close(self) -> None:
        """Let running calls end, then close the store; no handle stays open (REF-CLOSE-1). A second close waits for the first.

        Raises StoreError; then close once more. (Closed by itself, the store may bring back what has failed.)
        """
        self._ledger.closed = True
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self._shut())
            # Looked at, so that asyncio does not report an error as lost when the caller has left.
            self._closing.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        await asyncio.shield(self._closing)

    async def _shut(self) -> None:
        ledger = self._ledger
        await ledger.quiet()
        for record in ledger.records.values():
            record.handles.clear()
        for record in list(ledger.records.values()):
            await ledger.clean(ledger.part(record))
        await ledger.settle()  # what has failed is not to come back at the next start
        await ledger.store.close()
        _managed.discard(ledger.store)

    # --- for those who check the manager

    def records(self) -> tuple[Known, ...]:
        """The records as they are in memory, without those that are lost; no clause is about it."""
        return tuple(
            Known(r.id, r.mutable, r.parent_id, r.equal.id if r.equal is not None else "", r.size, len(r.handles))
            for r in self._ledger.records.values()
            if not r.lost
        )
