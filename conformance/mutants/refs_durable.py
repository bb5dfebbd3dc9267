"""Exhibits of managers of refs, rows F to J: removal, locks, metadata, starts; each with one fault."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from snapspec.conformance.mutants import Exhibit
from snapspec.conformance.mutants.rows import buildkit, row
from snapspec.impl.errors import NotFound, SnapshotError
from snapspec.impl.manager import Manager, PrunedRow
from snapspec.impl.ref_errors import RefError
from snapspec.impl.refs import ImmutableRef, Ledger, MutableRef, Note, Record
from snapspec.impl.threads import given, whole
from snapspec.model.values import Kind

# --- prune


def _notes(record: Record) -> dict[str, Note]:
    """The marks of a removal."""
    return {half.id: Note(half.parent_id, dead=True) for half in record.halves[:1]}


def _changes(record: Record) -> dict[str, dict[str, str] | None]:
    """The write that marks."""
    notes = _notes(record)
    return {half.id: notes[half.id].entry() if half.id in notes else None for half in record.halves}


def _told(halves: tuple[Record, ...]) -> PrunedRow:
    return PrunedRow(tuple(half.id for half in halves), halves[-1].size)


class MarksAll(Manager):
    """prune marks what it looks at, and only then asks whether that is in use."""

    async def _remove(self, record: Record, rows: list[PrunedRow]) -> None:
        if not record.free and record.equal is None:
            async with self._ledger.section():
                await self._ledger.write(_changes(record))
        await super()._remove(record, rows)


class GetsWithoutLock(Manager):
    """get of an E does not wait for a removal that is under way: it gives what goes at the next moment."""

    async def get(self, id: str) -> ImmutableRef:
        with self._ledger.call():
            record = self._ledger.find(id)
            if not record.mutable:
                return self._ledger.give(record)
        return await super().get(id)


class ReportsWhatOthersRemove(Manager):
    """A prune reports what was free when it came there, whoever removes it then."""

    async def _remove(self, record: Record, rows: list[PrunedRow]) -> None:
        due, halves = record.free, record.halves
        await super()._remove(record, [])
        if due and record.gone:
            rows.append(_told(halves))


class TakesUpTheMarked(Manager):
    """A start takes a marked record for one like any other."""

    async def _take_up(self, entries: dict[str, dict[str, str]]) -> None:
        for id, entry in entries.items():
            if entry["kind"] == "note" and entry["parent"] in ("", *entries):
                try:
                    kind = (await self._ledger.snapshotter.stat(id)).kind
                except NotFound:
                    continue
                if kind is Kind.COMMITTED:
                    entry["kind"] = "immutable"
        await super()._take_up(entries)


class FoundUntilRemoved(Manager):
    """A marked record is found until its snapshot is gone."""

    async def _remove_free(self, record: Record, rows: list[PrunedRow]) -> None:
        ledger, halves = self._ledger, record.halves
        await ledger.discard_over(record.id)
        async with ledger.section():
            if not record.free:
                return
            notes = _notes(record)
            await ledger.write(_changes(record))
            rows.append(_told(halves))
            for half in halves:
                half.gone = True  # its size is not stored any more, but it is found
        try:
            with suppress(NotFound):
                await ledger.snapshotter.remove(halves[0].id)
        finally:
            ledger.notes.update(notes)
            for half in halves:
                ledger.drop(half)
        for id in notes:
            await ledger.discard(id)


# --- locks


class FinalWithoutSection(Ledger):
    """What a finalize changes in the records and the metadata waits for no other write, and none for it."""

    async def finalized(self, record: Record) -> None:
        mutable = record.halves[0]
        self.drop(mutable)
        record.equal, record.undecided = None, False
        try:
            await self.store.write({record.id: record.entry(), mutable.id: None})
        except RefError:
            self._unsure.update({record.id: None, mutable.id: None})
            raise


class ForgivesLostHolds(Ledger):
    """See `HoldsReadTooSoon`: a hold that is not there can go."""

    def drop(self, record: Record) -> None:
        if record.parent is not None:
            record.parent.children.setdefault(record)
        super().drop(record)


class HoldsReadTooSoon(Manager):
    """What holds the parent is read before a removal and put back, without the removed child, after it."""

    async def _remove_free(self, record: Record, rows: list[PrunedRow]) -> None:
        parent = record.parent
        held = dict(parent.children) if parent is not None else {}
        await super()._remove_free(record, rows)
        if parent is not None and record.gone:
            parent.children = {child: None for child in held if not child.gone}


# --- records, snapshots and metadata


class KnownBeforeWritten(Ledger):
    """E is known before it is written, and stays where that fails."""

    async def commit(self, mutable: Record) -> ImmutableRef:
        record = Record(self.new_id(), False, mutable.parent, mutable, lock=mutable.lock)
        self.add(record)
        await self.write({record.id: record.entry()})
        mutable.equal = record
        mutable.handles.clear()
        return self.give(record)


class MetadataFirst(Manager):
    """Of what prune removes the metadata go first, without a mark, and then the snapshot."""

    async def _remove_free(self, record: Record, rows: list[PrunedRow]) -> None:
        ledger, halves = self._ledger, record.halves
        await ledger.discard_over(record.id)
        async with ledger.section():
            if not record.free:
                return
            await ledger.write({half.id: None for half in halves})
            for half in halves:
                ledger.drop(half)
            rows.append(_told(halves))
        await ledger.snapshotter.remove(halves[0].id)


class LeavesThePrepared(Manager):
    """A new whose record cannot be written leaves the snapshot, and forgets it."""

    async def _make(self, parent: Record | None) -> MutableRef:
        ledger, record = self._ledger, Record(self._ledger.new_id(), True, parent)
        async with ledger.making(ledger.snapshotter.prepare, record.id, record.parent_id), ledger.section():
            try:
                return await given(self._enter(record))
            except RefError:
                ledger.notes.pop(record.id)
                await whole(ledger._settle(record.id))
                raise


class NeverWritesM(Manager):
    """new writes nothing: what was never committed is known to memory alone."""

    async def _enter(self, record: Record) -> MutableRef:
        await self._ledger.write({record.id: None})
        del self._ledger.notes[record.id]
        self._ledger.add(record)
        return self._ledger.give_mutable(record)


# --- starts


class LooksForMAlone(Ledger):
    """A start asks the driver for M's snapshot, and takes a pair whose M is gone for lost."""

    starting = True

    async def standing(self, record: Record) -> Record | None:
        half = await super().standing(record)
        return None if self.starting and half is not record.halves[0] else half


class StartsFromM(Manager):
    """See `LooksForMAlone`."""

    async def _take_up(self, entries: dict[str, dict[str, str]]) -> None:
        await super()._take_up(entries)
        if isinstance(self._ledger, LooksForMAlone):
            self._ledger.starting = False


class EveryErrorIsALoss(Ledger):
    """What the driver cannot tell for the moment is taken for gone."""

    async def standing(self, record: Record) -> Record | None:
        try:
            return await super().standing(record)
        except SnapshotError:
            return None


class DropsTheLost(Manager):
    """A start removes the metadata of what is lost, and of all that was made over it. See `EveryErrorIsALoss`."""

    async def _take_up(self, entries: dict[str, dict[str, str]]) -> None:
        await super()._take_up(entries)
        ledger = self._ledger
        lost = [record for record in ledger.records.values() if record.lost]
        for record in lost:
            lost += [child for child in record.children if child not in lost]
        async with ledger.section():
            await ledger.write(dict.fromkeys((record.id for record in lost), None))
        for record in reversed(lost):
            ledger.drop(record)


# --- memory and disk


class MemoryFirst(Ledger):
    """get_mutable drops E in memory, and then writes; if that fails E is not back."""

    async def reopen(self, mutable: Record) -> MutableRef:
        equal = mutable.equal
        if equal is not None:
            self.drop(equal)
            mutable.equal = None
            await self.write({equal.id: None})
        return self.give_mutable(mutable)


class QueueEmptiedFirst(Ledger):
    """What is to be written is forgotten before it is: the retry of a write that failed writes nothing, and succeeds."""

    _emptied: tuple[object, ...] = ()

    async def write(self, changes: Mapping[str, dict[str, str] | None]) -> None:
        if None in changes.values():
            await super().write(changes)
        elif changes not in self._emptied:
            try:
                await super().write(changes)
            except RefError:
                self._emptied += (changes,)
                raise


# --- all of them


REFS_DURABLE: tuple[Exhibit, ...] = (
    row(
        "f01",
        "prune marks records in use too: they are gone after a restart",
        buildkit("87f43efda (#543)", "2018-07"),
        "REF-OPEN-1",
        "REF-PRUNE-1",
        manager=MarksAll,
    ),
    row(
        "f05",
        "prune removes what get takes up meanwhile",
        buildkit("5429fe1b6 (#2177)", "2021-06"),
        "REF-PRUNE-1",
        "REF-PRUNE-3",
        manager=GetsWithoutLock,
    ),
    row(
        "f13",
        "two prunes report the same record",
        buildkit("1c9b9c995 (#249)", "2017-12"),
        "REF-PRUNE-3",
        manager=ReportsWhatOthersRemove,
    ),
    row(
        "f15",
        "a start brings back what was marked for removal",
        "BuildKit before its mark, 63ce64346 (#249), 2017-12",
        "REF-OPEN-2",
        "REF-PRUNE-2",
        manager=TakesUpTheMarked,
    ),
    row(
        "f17",
        "a marked record is found until its snapshot is gone",
        buildkit("f3af4fbbf (#249)", "2017-12"),
        "REF-PRUNE-2",
        "REF-PRUNE-1",
        manager=FoundUntilRemoved,
    ),
    row(
        "g01",
        "finalize changes the records and the metadata while others are at them",
        buildkit("4a9142223 (#130)", "2017-09"),
        "REF-OPEN-1",
        "REF-SIZE-2",
        ledger=FinalWithoutSection,
    ),
    row(
        "g03",
        "the parent's holds are changed while another call adds one",
        buildkit("195589044 (#1256)", "2019-11"),
        "REF-NEW-4",
        "REF-PRUNE-1",
        ledger=ForgivesLostHolds,
        manager=HoldsReadTooSoon,
    ),
    row("h01", "a commit that fails leaves a record", "BuildKit, partly unfixed", "REF-COMMIT-4", ledger=KnownBeforeWritten),
    row(
        "h02",
        "metadata are deleted before the snapshot",
        buildkit("63ce64346 (#249)", "2017-12"),
        "REF-NOTE-1",
        "REF-PRUNE-2",
        manager=MetadataFirst,
    ),
    row(
        "h05",
        "a new that fails after the driver's prepare leaves the snapshot",
        buildkit("b9ec2bc4d", "2019"),
        "REF-NOTE-1",
        "REF-POINT-2",
        manager=LeavesThePrepared,
    ),
    row(
        "i01",
        "new is not written: a restart loses it, and its snapshot stays",
        buildkit("38ac00090 (#87)", "2017-07"),
        "REF-NOTE-1",
        "REF-OPEN-1",
        manager=NeverWritesM,
    ),
    row(
        "i02",
        "after a crash inside finalize the start loses E",
        buildkit("eb935e525 (#2564)", "2022-01"),
        "REF-OPEN-2",
        "REF-OPEN-1",
        ledger=LooksForMAlone,
        manager=StartsFromM,
    ),
    row(
        "i04",
        "a passing error of the driver at the start removes records for ever",
        "BuildKit, unfixed",
        "REF-OPEN-4",
        "REF-NOTE-1",
        ledger=EveryErrorIsALoss,
        manager=DropsTheLost,
    ),
    row(
        "j02",
        "memory keeps what a failed write did not store",
        "BuildKit, unfixed",
        "REF-POINT-3",
        "REF-POINT-1",
        ledger=MemoryFirst,
    ),
    row(
        "j03",
        "what a write failed to store is never written again",
        "BuildKit, unfixed",
        "REF-OPEN-1",
        "REF-SIZE-2",
        ledger=QueueEmptiedFirst,
    ),
)
