"""Managers that lose or leave something when their process or the machine ends: each is the reference with one fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from broken_refs import Faulty

from snapspec.conformance.ref_history import Burst
from snapspec.impl.manager import Manager
from snapspec.impl.ref_errors import RefError
from snapspec.impl.refs import ImmutableRef, Ledger, MutableRef, Note, Record
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.tree import MakeFile

#: Seconds that a write comes after its answer.
BEHIND = 0.01


class MemoryAhead(Ledger):
    """commit changes memory and answers; its write follows, and when that fails nobody is told."""

    _behind: asyncio.Task[None] | None = None

    async def commit(self, mutable: Record) -> ImmutableRef:
        record = Record(self.new_id(), False, mutable.parent, mutable, lock=mutable.lock)
        self.add(record)
        mutable.equal = record
        mutable.handles.clear()
        self._behind = asyncio.create_task(self._follow(record))
        return ImmutableRef(self, record)

    async def _follow(self, record: Record) -> None:
        await asyncio.sleep(BEHIND)
        if record.gone:
            return
        try:
            await self.store.write({record.id: record.entry()})
        except RefError:
            return


class ViewUnnoted(Ledger):
    """No note names a view before it is made: it is known in memory only."""

    async def make_view(self, record: Record) -> None:
        id = self.new_id()
        record.mounts = tuple(await self.snapshotter.view(id, record.id))
        record.view = id
        self.notes[id] = Note(record.id)


class FinalizeLeftHalf(Manager):
    """A start does not look whether a finalize was cut off between the driver's commit and the metadata."""

    async def _take_up(self, entries: dict[str, dict[str, str]]) -> None:
        self._load(entries)
        for id in list(self._ledger.notes):
            await self._ledger.discard(id)


class RecordFirst(Manager):
    """new writes the record, then has its snapshot made; no note says so, and no start makes it good."""

    async def _make(self, parent: Record | None) -> MutableRef:
        ledger, record = self._ledger, Record(self._ledger.new_id(), True, parent)
        async with ledger.section():
            await ledger.write({record.id: record.entry()})
        await ledger.snapshotter.prepare(record.id, record.parent_id)
        ledger.add(record)
        return MutableRef(ledger, record)


_FILE = (MakeFile("f", b"x"),)
_PAIR: tuple[RefOperation, ...] = (ref_ops.New("m", "hm"), ref_ops.Write("hm", _FILE), ref_ops.Commit("hm", "e", "he"))


@dataclass(frozen=True, slots=True)
class Lossy(Faulty):
    """A fault, the calls that it needs, of which the last is cut short, and the clauses that may be named for it."""

    calls: tuple[RefOperation, ...]
    clauses: tuple[str, ...]

    @property
    def bursts(self) -> tuple[Burst, ...]:
        """The calls, one after the other."""
        return tuple(Burst((op,)) for op in self.calls)


MEMORY_AHEAD = Lossy("memory ahead of disk", MemoryAhead, Manager, _PAIR, ("REF-OPEN-1",))
VIEW_UNNOTED = Lossy(
    "view left behind by a crash",
    ViewUnnoted,
    Manager,
    (*_PAIR, ref_ops.Mount("he", readonly=False)),
    ("REF-OPEN-5", "REF-NOTE-1"),
)
FINALIZE_LEFT_HALF = Lossy("half-done finalize", Ledger, FinalizeLeftHalf, (*_PAIR, ref_ops.Finalize("he")), ("REF-OPEN-5",))
RECORD_FIRST = Lossy("metadata written before its snapshot", Ledger, RecordFirst, (ref_ops.New("m", "hm"),), ("REF-PRUNE-3",))

LOSSY = (MEMORY_AHEAD, VIEW_UNNOTED, FINALIZE_LEFT_HALF, RECORD_FIRST)
