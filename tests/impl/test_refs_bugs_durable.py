"""Faults that real cache managers had, continued: removal, calls at once, metadata, restarts."""

from __future__ import annotations

import asyncio

import pytest
import refs_env
from refs_env import Died, committed, final, handles, outcome, refused, until, world
from stores import Place, asynchronous

from snapspec.impl.errors import SnapshotError, Unavailable
from snapspec.impl.ref_errors import Invalid, NotFound, StoreError
from snapspec.impl.refs import ImmutableRef

pytestmark = pytest.mark.root

place = refs_env.place


# --- prune


@asynchronous
async def test_f01_prune_marks_what_is_in_use(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        held = await final(m, w, file="one")
        below = await m.new(held)
        idle = await m.new()
        await idle.release()
        assert [row.ids for row in (await m.prune()).rows] == [(idle.id,)]
        w.ports.dead = True
        m = await w.manager()
        assert set(handles(m)) == {held.id, below.id}
        assert w.shown(await (await m.get(held.id)).mount()) == {"file": "one"}
        await m.close()


@asynchronous
async def test_f05_prune_beside_everything_else(place: Place) -> None:
    """Removals beside calls that find, make and release records: no call fails, nothing is left (REF-PRUNE-1)."""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")

        async def builds(number: int) -> None:
            for _ in range(5):
                async with await m.get(base.id) as over, await m.new(over) as mutable:
                    snap = await mutable.commit()
                    assert await snap.size() >= 0
                    if number % 2:
                        await snap.finalize()
                    assert w.shown(await snap.mount()) == {"file": "one"}
                    await snap.release()

        async def prunes() -> None:
            while not all(task.done() for task in building):
                assert (await m.prune()).errors == ()
                await m.disk_usage()
                await asyncio.sleep(0.002)

        building = [asyncio.create_task(builds(number)) for number in range(4)]
        await asyncio.gather(*building, prunes(), prunes())
        await base.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_f13_two_prunes_at_once(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        top = await final(m, w)
        made = {top.id}
        for _ in range(5):
            async with top:
                top = await final(m, w, top)
                made.add(top.id)
        await top.release()
        pruned = await asyncio.gather(*(m.prune() for _ in range(3)))
        assert all(one.errors == () for one in pruned)
        ids = [id for one in pruned for row in one.rows for id in row.ids]
        assert len(ids) == len(made)
        assert set(ids) == made
        assert await w.keys() == {}
        await m.close()


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("moment", ["die before", "die after"])
@asynchronous
async def test_f15_a_start_brings_a_marked_record_back(moment: str, pair: bool, place: Place) -> None:
    """The mark is durable, the snapshot was not removed: the start finishes it, for both halves."""
    async with world(place) as w:
        m = await w.manager()
        snap = await (committed if pair else final)(m, w, file="one")
        records = {known.id for known in m.records()}
        await snap.release()
        w.ports.plan["remove"] = moment
        with pytest.raises(Died):
            await m.prune()
        m = await w.manager()
        assert m.records() == ()
        for id in records:
            await refused(m.get(id), NotFound)
        assert await w.keys() == await w.entries() == {}
        await m.close()


@asynchronous
async def test_f17_get_of_a_record_between_its_mark_and_its_removal(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w)
        (mutable,) = await w.keys()
        await snap.release()
        go = w.ports.holds["remove"] = asyncio.Event()
        prune = asyncio.create_task(m.prune())
        await until(lambda: w.ports.count("remove") == 1)
        await refused(m.get(snap.id), NotFound)
        waiting = [asyncio.create_task(outcome(call)) for call in (m.get(mutable), m.get_mutable(mutable))]
        assert await m.disk_usage() == ()
        go.set()
        assert len((await prune).rows) == 1
        assert [type(error) for error in await asyncio.gather(*waiting)] == [NotFound, NotFound]
        await m.close()


# --- locks


@asynchronous
async def test_g01_finalize_and_get_at_once(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        for _ in range(10):
            snap = await committed(m, w)
            (mutable,) = (known.equal for known in m.records() if known.id == snap.id)
            calls = [snap.mount(readonly=False), m.get(snap.id), m.get(mutable), snap.finalize(), m.get(snap.id), m.disk_usage()]
            answers = await asyncio.gather(*(outcome(call) for call in calls))
            assert not any(isinstance(answer, SnapshotError | Invalid) for answer in answers)
            for answer in (*answers, snap):
                if isinstance(answer, ImmutableRef):
                    assert answer.id == snap.id
                    await answer.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_g03_release_of_the_child_and_more_handles_on_the_parent_at_once(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w)
        for _ in range(10):
            child = await m.new(base)
            answers = await asyncio.gather(child.parent(), child.release(), m.get(base.id), m.prune(), base.parent())
            for answer in answers:
                if isinstance(answer, ImmutableRef):
                    await answer.release()
            assert handles(m)[base.id] == 1
        await base.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_g11_a_failed_finalize_hangs_the_next_call(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w)
        (mutable,) = await w.keys()
        await w.driver.remove(mutable)
        await refused(snap.finalize(), SnapshotError)
        async with await asyncio.wait_for(m.new(), 5) as other:
            await asyncio.wait_for(other.mount(), 5)
        await asyncio.wait_for(snap.release(), 5)
        await asyncio.wait_for(w.nothing_left(m), 5)
        await m.close()


# --- records, snapshots and metadata


@asynchronous
async def test_h01_a_failed_commit_leaves_a_record(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w)
        mutable = await m.new(base)
        before, entries = m.records(), await w.entries()
        for moment in ("before", "before"):
            w.ports.plan["write"] = moment
            await refused(mutable.commit(), StoreError)
            w.ports.plan.clear()
            assert m.records() == before
            assert await w.entries() == entries
        snap = await mutable.commit()
        for handle in (snap, base):
            await handle.release()
        await w.nothing_left(m)
        await m.close()


@pytest.mark.parametrize("end", ["before", "die before"])
@asynchronous
async def test_h02_metadata_are_deleted_before_the_snapshot(end: str, place: Place) -> None:
    """The removal of the snapshot fails, or the process dies there: the metadata still name it, and it goes later."""
    async with world(place) as w:
        m = await w.manager()
        snap = await final(m, w)
        await snap.release()
        w.ports.plan["remove"] = end
        if end == "before":
            assert [type(error) for error in (await m.prune()).errors] == [Unavailable]
            w.ports.plan.clear()
        else:
            with pytest.raises(Died):
                await m.prune()
        assert await w.keys() == {snap.id: "committed"}
        assert snap.id in await w.entries()
        if end == "die before":
            m = await w.manager()
        await refused(m.get(snap.id), NotFound)
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_h05_a_new_that_fails_after_the_driver_made_the_snapshot_leaves_it(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        w.ports.plan = {3: "before"}  # load, the note, prepare, the record
        await refused(m.new(), StoreError)
        assert w.ports.log[3] == "write r1=mutable"
        assert await w.keys() == await w.entries() == {}
        assert m.records() == ()
        w.ports.plan = {"prepare": "after", "remove": "before"}
        await refused(m.new(), Unavailable)
        w.ports.plan = {}
        assert set(await w.keys()) == set(await w.entries()) == {"r2"}
        await w.nothing_left(m)
        await m.close()


# --- restarts


@asynchronous
async def test_i01_new_is_not_kept(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.write(await mutable.mount(), file="one")
        await mutable.release()
        w.ports.dead = True
        m = await w.manager()
        assert [(row.id, row.mutable) for row in await m.disk_usage()] == [(mutable.id, True)]
        assert w.shown(await (await m.get_mutable(mutable.id)).mount()) == {"file": "one"}
        await m.close()


@pytest.mark.parametrize(("call", "moment"), [("commit", "before"), ("commit", "after"), ("write", "before"), ("write", "after")])
@asynchronous
async def test_i02_a_crash_inside_finalize(call: str, moment: str, place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        size = await snap.size()
        (mutable,) = await w.keys()
        w.ports.plan[call] = f"die {moment}"
        with pytest.raises(Died):
            await snap.finalize()
        m = await w.manager()
        moved = (call, moment) != ("commit", "before")
        assert [row.id for row in await m.disk_usage()] == [snap.id if moved else mutable]
        again = await m.get(snap.id)
        assert await again.size() == size
        if moved:
            await refused(m.get_mutable(mutable), NotFound)
        await again.finalize()
        async with await m.new(again) as child:
            assert w.shown(await child.mount()) == {"file": "one"}
        assert w.shown(await again.mount()) == {"file": "one"}
        await again.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_i04_an_error_at_the_start_loses_records_for_ever(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        child = await m.new(base)
        await m.close()
        entries = await w.entries() if w.store is None else None
        for call, error in (("stat", Unavailable), ("load", StoreError)):
            await refused(w.manager(**{call: "before"}), error)
            entries = entries or await w.entries()
            assert await w.entries() == entries
        m = await w.manager()
        assert set(handles(m)) == {base.id, child.id}
        assert w.shown(await (await m.get_mutable(child.id)).mount()) == {"file": "one"}
        await m.close()


@asynchronous
async def test_j02_memory_is_ahead_of_the_disk(place: Place) -> None:
    """What a failed write should have changed is as before, in memory and after a restart."""
    async with world(place) as w:
        for call in ("get_mutable", "get", "prune", "commit"):
            m = await w.manager()
            mutable = await m.new()
            snap = None if call in ("get", "commit") else await mutable.commit()
            if call != "commit":
                await (snap or mutable).release()
            before, entries = m.records(), await w.entries()
            w.ports.plan["write"] = "before"
            if call == "prune":
                pruned = await m.prune()
                assert pruned.rows == ()
                assert {type(error) for error in pruned.errors} == {StoreError}
            elif call == "commit":
                await refused(mutable.commit(), StoreError)
            else:
                await refused(m.get_mutable(mutable.id) if call == "get_mutable" else m.get(mutable.id), StoreError)
            w.ports.plan.clear()
            assert m.records() == before
            assert await w.entries() == entries
            w.ports.dead = True
            m = await w.manager()
            assert set(handles(m)) == {known.id for known in before}
            assert await w.entries() == entries
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_j03_changes_of_a_failed_write_are_lost_and_the_next_one_says_it_worked(place: Place) -> None:
    """What a call has answered is durable; what failed is made by the retry."""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.ports.plan["write"] = "before"
        await refused(mutable.commit(), StoreError)
        w.ports.plan.clear()
        snap = await mutable.commit()
        w.ports.plan["write"] = "before"
        await refused(snap.size(), StoreError)
        await refused(snap.finalize(), StoreError)
        w.ports.plan.clear()
        size = await snap.size()
        await snap.finalize()
        w.ports.dead = True
        m = await w.manager()
        again = await m.get(snap.id)
        scans = w.ports.count("usage")
        assert await again.size() == size
        assert w.ports.count("usage") == scans
        assert set(await w.entries()) == {snap.id}
        await m.close()
