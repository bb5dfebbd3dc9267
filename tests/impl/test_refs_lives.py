"""Close and start, calls that wait for each other, metadata in doubt: over real snapshotters and the real store."""

from __future__ import annotations

import asyncio
import gc

import pytest
import refs_env
from refs_env import Died, committed, handles, refused, until, world
from stores import Place, asynchronous

from snapspec.impl import errors
from snapspec.impl.errors import SnapshotError, Unavailable
from snapspec.impl.manager import open_manager
from snapspec.impl.metadata import open_store
from snapspec.impl.ref_errors import Closed, Invalid, Locked, NotFound, StoreError

pytestmark = pytest.mark.root

place, plain = refs_env.place, refs_env.plain


# --- close, start


@asynchronous
async def test_records_survive_a_restart_and_handles_do_not(place: Place) -> None:
    """REF-OPEN-1, REF-CLOSE-1"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        mutable = await m.new(base)
        w.write(await mutable.mount(), other="two")
        snap = await committed(m, w, base, third="three")
        await snap.size()
        before = [(k.id, k.mutable, k.parent, k.equal, k.size) for k in m.records()]
        await m.close()
        await m.close()
        m = await w.manager()
        assert sorted((k.id, k.mutable, k.parent, k.equal, k.size) for k in m.records()) == sorted(before)
        assert set(handles(m).values()) == {0}
        assert w.shown(await (await m.get(snap.id)).mount()) == {"file": "one", "third": "three"}
        assert w.shown(await (await m.get_mutable(mutable.id)).mount()) == {"file": "one", "other": "two"}
        await m.close()


@asynchronous
async def test_close_lets_running_calls_end(plain: Place) -> None:
    """REF-CLOSE-1"""
    async with world(plain) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        held = [w.ports.holds.setdefault(name, asyncio.Event()) for name in ("prepare", "usage")]
        new, size = asyncio.create_task(m.new()), asyncio.create_task(base.size())
        await until(lambda: w.ports.count("prepare") == 2 and w.ports.count("usage") == 1)
        closing = asyncio.create_task(m.close())
        await asyncio.sleep(0)
        await refused(m.new(), Closed)
        await refused(base.size(), Closed)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        for event in held:
            event.set()
        made = await new
        assert await size > 0
        await m.close()
        await refused(made.mount(), Closed)
        m = await w.manager()
        assert made.id in handles(m)
        await m.close()


@asynchronous
async def test_a_close_that_fails_can_be_made_again(plain: Place) -> None:
    async with world(plain) as w:
        m = await w.manager(close="before")
        mutable = await m.new()
        await refused(m.close(), StoreError)
        await refused(m.new(), Closed)
        await refused(open_store(w.path), Locked)
        w.ports.plan.clear()
        await m.close()
        await m.close()
        assert w.ports.count("close") == 3
        m = await w.manager()
        assert set(handles(m)) == {mutable.id}
        await m.close()


@asynchronous
async def test_a_second_manager_on_the_store_is_refused(place: Place) -> None:
    """REF-CLOSE-2"""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        await refused(open_store(w.path), Locked)
        assert w.shown(await snap.mount()) == {"file": "one"}
        await m.close()
        await (await open_store(w.path)).close()


@asynchronous
async def test_a_second_manager_on_the_same_store_object_is_refused_and_touches_nothing(place: Place) -> None:
    """REF-CLOSE-2: it is free again after a start that failed, and after a close."""
    async with world(place) as w:
        store = await open_store(w.path)
        await store.write({"r1": {"of": "something else"}})
        await refused(open_manager(w.driver, store), StoreError)
        await store.write({"r1": None})
        m = await open_manager(w.driver, store)
        snap = await committed(m, w, file="one")
        await snap.finalize()
        mounts = await snap.mount()
        entries, keys = await store.load(), await w.keys()
        await refused(open_manager(w.driver, store), Locked)
        assert (await store.load(), await w.keys()) == (entries, keys), "the note of the view among them"
        assert w.shown(mounts) == {"file": "one"}
        await m.close()
        await refused(open_manager(w.driver, store), Closed)
        m = await w.manager()
        assert set(handles(m)) == {snap.id}
        await m.close()


@asynchronous
async def test_a_close_that_fails_when_its_caller_has_left_is_reported_to_the_next(plain: Place) -> None:
    """REF-CLOSE-1; that nothing is only logged is seen to by `asynchronous`."""
    async with world(plain) as w:
        m = await w.manager(close="before")
        go = w.ports.holds["close"] = asyncio.Event()
        closing = asyncio.create_task(m.close())
        await until(lambda: w.ports.count("close") == 1)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        go.set()
        await until(lambda: w.ports.failed == 1)
        await asyncio.sleep(0.01)
        del m._closing
        gc.collect()
        m._closing = None
        w.ports.plan.clear()
        await m.close()


@asynchronous
async def test_what_failed_and_may_be_durable_all_the_same_does_not_survive_a_close(plain: Place) -> None:
    """REF-COMMIT-4, REF-POINT-3: the commit's write took place and could not be read back; close undoes it, or fails too."""
    async with world(plain) as w:
        m = await w.manager()
        mutable = await m.new()
        w.ports.plan = {"write": "after", "read": "before"}
        await refused(mutable.commit(), StoreError)
        assert len(await w.entries()) == 2
        w.ports.plan = {"write": "before"}
        await refused(m.close(), StoreError)
        assert w.ports.count("close") == 0
        w.ports.plan = {}
        await m.close()
        m = await w.manager()
        assert set(await w.entries()) == set(handles(m)) == {mutable.id}
        await m.close()


@pytest.mark.parametrize("first", ["release", "close"])
@asynchronous
async def test_a_release_beside_close_is_waited_for_or_does_nothing(first: str, place: Place) -> None:
    """REF-CLOSE-1, REF-HANDLE-3: either way no view is left, and nothing comes after the store is closed."""
    async with world(place) as w:
        m = await w.manager()
        kept = [await committed(m, w, file=str(number)) for number in range(3)]
        for snap in kept:
            await snap.mount(readonly=False)
        go = w.ports.holds["remove"] = asyncio.Event()
        calls = [m.close(), kept[0].release()] if first == "close" else [kept[0].release(), m.close()]
        running = [asyncio.create_task(calls[0])]
        await until(lambda: w.ports.count("remove") == 1)
        running += [asyncio.create_task(call) for call in (calls[1], kept[2].release())]
        await asyncio.sleep(0.01)
        assert w.ports.count("remove") == (1 if first == "close" else 2)
        assert w.ports.count("close") == 0
        go.set()
        await asyncio.gather(*running)
        assert w.ports.log[-1] == "close "
        assert await w.keys() == {snap.id: "committed" for snap in kept}
        m = await w.manager()
        assert w.ports.count("remove") == 0
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_cancelled_release_takes_its_view_with_it_or_leaves_it_to_prune(place: Place) -> None:
    """REF-HANDLE-2, REF-NOTE-1: the handle is closed at once, whatever becomes of the rest."""
    async with world(place) as w:
        for fails in (False, True):
            m = await w.manager()
            snap = await committed(m, w, file="one")
            await snap.mount(readonly=False)
            go = w.ports.holds["remove"] = asyncio.Event()
            w.ports.plan = {"remove": "before"} if fails else {}
            release = asyncio.create_task(snap.release())
            await until(lambda: w.ports.count("remove") == 1)
            assert handles(m) == {snap.id: 0}
            release.cancel()
            again = await m.get(snap.id)
            mount = asyncio.create_task(again.mount())
            go.set()
            await asyncio.wait([release])
            assert release.cancelled()
            assert w.shown(await mount) == {"file": "one"}
            assert sum(kind == "view" for kind in (await w.keys()).values()) == 1 + fails
            w.ports.plan = {}
            await again.release()
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_a_start_finishes_what_was_left(place: Place) -> None:
    """REF-OPEN-2, REF-OPEN-5: a mark, notes of both kinds, a pair that the driver has finalized, an idle pair; children first."""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        moved, idle, removed = [await committed(m, w, base, **{name: name}) for name in ("moved", "idle", "removed")]
        mutable = {known.id: known.equal for known in m.records()}
        await removed.finalize()
        await m.close()
        driver, store = w.driver, await open_store(w.path)
        await driver.commit(moved.id, mutable[moved.id])
        await driver.view("view", removed.id)
        await driver.prepare("made", base.id)
        note = {"kind": "note", "parent": base.id}
        # The store tells them by id: the mark of the parent comes before the note of its child.
        await store.write({removed.id: note, "view": note | {"parent": removed.id}, "made": note, "never made": note})
        await driver.prepare("foreign", base.id)
        await store.close()

        m = await w.manager()
        assert {known.id: known.equal for known in m.records()} == {
            base.id: "",
            moved.id: "",
            idle.id: mutable[idle.id],
            mutable[idle.id]: idle.id,
        }
        assert set(await w.keys()) == {base.id, moved.id, mutable[idle.id], "foreign"}
        assert set(await w.entries()) == {base.id, moved.id, idle.id, mutable[idle.id]}
        assert "equal" not in (await w.entries())[moved.id]
        for id in (removed.id, mutable[moved.id]):
            await refused(m.get(id), NotFound)
        assert w.shown(await (await m.get(moved.id)).mount()) == {"file": "one", "moved": "moved"}
        await m.close()


@asynchronous
async def test_a_record_whose_snapshot_is_absent_is_lost_until_it_is_back_or_pruned(place: Place) -> None:
    """REF-OPEN-3"""
    async with world(place) as w:
        m = await w.manager()
        snap, mutable, final = await committed(m, w, file="one"), await m.new(), await committed(m, w)
        await final.finalize()
        pair = {known.id: known.equal for known in m.records()}
        await m.close()
        entries = None
        for key in (pair[snap.id], mutable.id, final.id):
            await w.driver.remove(key)
        m = await w.manager()
        entries = entries or await w.entries()
        assert m.records() == ()
        assert await m.disk_usage() == ()
        for id in (snap.id, pair[snap.id], mutable.id, final.id):
            await refused(m.get(id), NotFound)
            await refused(m.get_mutable(id), NotFound)
        await m.close()
        w.write(await w.driver.prepare(mutable.id), file="back")
        m = await w.manager()
        assert await w.entries() == entries
        await w.driver.prepare("back")
        await w.driver.commit(snap.id, "back")
        assert w.shown(await (await m.get_mutable(mutable.id)).mount()) == {"file": "back"}
        pruned = await m.prune()
        assert {row.ids for row in pruned.rows} == {(pair[snap.id], snap.id), (final.id,)}
        assert set(await w.entries()) == set(await w.keys()) == {mutable.id}, "also what came back meanwhile"
        await m.close()


@asynchronous
async def test_the_child_of_a_lost_record_has_no_parent_to_give(plain: Place) -> None:
    """REF-OPEN-3"""
    async with world(plain) as w:
        m = await w.manager()
        base = await committed(m, w)
        child = await m.new(base)
        await m.close()
        await w.driver.remove(child.id)
        await w.driver.remove(base.id)
        await w.driver.prepare(child.id)
        m = await w.manager()
        again = await m.get_mutable(child.id)
        await refused(again.parent(), NotFound)
        assert (await m.disk_usage())[0].parent == base.id
        await again.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_any_other_error_fails_the_start_and_nothing_has_changed(place: Place) -> None:
    """REF-OPEN-4"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        await committed(m, w, base)
        await base.mount()
        moved = await committed(m, w)
        (mutable,) = {known.equal for known in m.records() if known.id == moved.id}
        w.ports.plan["write"] = "before"
        await refused(moved.finalize(), StoreError)
        w.ports.dead = True
        assert mutable not in await w.keys()
        entries, keys = await w.entries(), await w.keys()
        for call, moment, error in (
            ("load", "before", StoreError),
            ("stat", "before", Unavailable),
            ("stat", "after", Unavailable),
            ("remove", "before", Unavailable),
        ):
            await refused(w.manager(**{call: moment}), error)
            assert w.ports.failed == 1
            assert await w.entries() == entries
            assert await w.keys() == keys
        await refused(w.manager(write="before"), StoreError)
        assert {id: e for id, e in (await w.entries()).items() if e["kind"] != "note"} == {
            id: e for id, e in entries.items() if e["kind"] != "note"
        }
        m = await w.manager()
        assert w.shown(await (await m.get(base.id)).mount()) == {"file": "one"}
        assert len(m.records()) == 4
        await m.close()


@asynchronous
async def test_a_leftover_that_cannot_be_removed_fails_each_start_until_it_can(place: Place) -> None:
    """REF-OPEN-4, REF-OPEN-5: a start that went on would leave a snapshot of ours without its record. The error says which."""
    async with world(place) as w:
        m = await w.manager()
        base, moved = await committed(m, w, file="one"), await committed(m, w)
        await base.finalize()
        removed = await committed(m, w, base)
        await removed.finalize()
        for handle in (base, removed):
            await handle.release()
        w.ports.plan["remove"] = "die before"
        with pytest.raises(Died):
            await m.prune()
        await w.driver.prepare("foreign", removed.id)
        await w.driver.commit(moved.id, next(id for id, kind in (await w.keys()).items() if kind == "active" and id != "foreign"))
        before = await w.entries(), await w.keys()
        for _ in range(3):
            error = await refused(w.manager(), errors.FailedPrecondition)
            assert removed.id in str(error)
            assert "remove them first" in str(error)
            assert (await w.entries(), await w.keys()) == before
        await w.driver.remove("foreign")
        m = await w.manager()
        assert set(handles(m)) == {base.id, moved.id}
        assert set(await w.entries()) == set(await w.keys()) == {base.id, moved.id}
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_store_of_something_else_fails_the_start(plain: Place) -> None:
    async with world(plain) as w:
        for entry in ({"kind": "mutable", "parent": "absent"}, {"kind": "immutable", "parent": "", "size": "much"}, {"of": "x"}):
            store = await open_store(w.path)
            await store.write({"r1": entry})
            await store.close()
            await refused(w.manager(), StoreError)
            assert await w.entries() == {"r1": entry}
            assert w.store is not None
            await w.store.close()


# --- locks, waiting


@asynchronous
async def test_calls_on_a_pair_wait_for_its_finalize_and_all_others_go_on(plain: Place) -> None:
    """REF-ERROR-5: a driver's call that hangs holds up only what needs the same point of no return."""
    async with world(plain) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        (mutable,) = await w.keys()
        go = w.ports.holds["commit"] = asyncio.Event()
        finalizing = asyncio.create_task(snap.finalize())
        await until(lambda: w.ports.count("commit") == 1)
        waiting: list[asyncio.Task[object]] = [
            asyncio.create_task(call) for call in (m.get(mutable), m.get_mutable(mutable), snap.finalize(), m.new(snap))
        ]
        other = await m.get(snap.id)
        assert await other.size() > 0
        assert w.shown(await other.mount()) == {"file": "one"}
        assert [row.id for row in await m.disk_usage()] == [snap.id]
        assert (await m.prune()).rows == ()
        assert await (await committed(m, w, file="two")).parent() is None
        await refused(m.get_mutable(snap.id), Invalid)
        await other.release()
        await snap.release()
        waiting.append(asyncio.create_task(m.prune()))
        usage = asyncio.create_task(m.disk_usage())
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in (*waiting, usage))
        go.set()
        await finalizing
        assert mutable not in {row.id for row in await usage}, "the finalize was before the release"
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:4]] == [NotFound, NotFound, Invalid, Invalid]
        await m.close()


@asynchronous
async def test_a_release_does_not_answer_before_the_commit_that_is_under_way_is_decided(plain: Place) -> None:
    """REF-COMMIT-4, REF-HANDLE-2"""
    async with world(plain) as w:
        for fails in (False, True):
            m = await w.manager()
            mutable = await m.new()
            go = w.ports.holds["write"] = asyncio.Event()
            if fails:
                w.ports.plan["write"] = "before"
            writes = w.ports.count("write")
            commit = asyncio.create_task(mutable.commit())
            await until(lambda before=writes: w.ports.count("write") > before)
            releases = [asyncio.create_task(mutable.release()) for _ in range(2)]
            usage = asyncio.create_task(m.disk_usage())
            await asyncio.sleep(0.02)
            assert not releases[0].done()
            await refused(mutable.mount(), Invalid)
            go.set()
            w.ports.holds.clear()
            await asyncio.gather(*releases)
            if fails:
                await refused(commit, StoreError)
                assert handles(m) == {mutable.id: 0}
                assert [row.id for row in await usage] == [mutable.id]
            else:
                assert handles(m) == {mutable.id: 0, (await commit).id: 1}
                assert [row.in_use for row in await usage] == [True]
            w.ports.plan.clear()
            await m.close()
            m = await w.manager()
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_a_commit_finds_its_handle_released_while_it_waited(plain: Place) -> None:
    async with world(plain) as w:
        m = await w.manager()
        mutable = await m.new()
        go = w.ports.holds["write"] = asyncio.Event()
        writes = w.ports.count("write")
        first = asyncio.create_task(m.new())
        await until(lambda: w.ports.count("write") > writes)
        commit = asyncio.create_task(mutable.commit())
        await asyncio.sleep(0)
        await mutable.release()
        go.set()
        await refused(commit, Invalid)
        made = await first
        assert handles(m) == {mutable.id: 0, made.id: 1}
        await m.close()


@asynchronous
async def test_a_mount_whose_handle_is_released_meanwhile_leaves_no_view(place: Place) -> None:
    """REF-MOUNT-5"""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        await snap.finalize()
        go = w.ports.holds["view"] = asyncio.Event()
        mount = asyncio.create_task(snap.mount())
        await until(lambda: w.ports.count("view") == 1)
        await snap.release()
        go.set()
        await refused(mount, Invalid)
        assert await w.keys() == {snap.id: "committed"}
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_mount_goes_on_when_a_finalize_moves_the_snapshot_under_it(plain: Place) -> None:
    """REF-MOUNT-4"""
    async with world(plain) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        go = w.ports.holds["mounts"] = asyncio.Event()
        asked = w.ports.count("mounts")
        mount = asyncio.create_task(snap.mount())
        await until(lambda: w.ports.count("mounts") > asked)
        await snap.finalize()
        go.set()
        assert w.shown(await mount) == {"file": "one"}
        await m.close()


@asynchronous
async def test_metadata_that_cannot_be_read_back_are_written_again_before_the_next_answer(place: Place) -> None:
    """REF-POINT-3"""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.ports.plan.update({"write": "after", "read": "before"})
        await refused(mutable.commit(), StoreError)
        assert len(await w.entries()) == 2, "it is there all the same, and nobody knows"
        await refused(m.get(mutable.id), StoreError)
        await refused(m.disk_usage(), StoreError)
        assert (await m.prune()).errors
        w.ports.plan.clear()
        await refused(m.get(mutable.id), Locked)
        assert set(await w.entries()) == {mutable.id}
        w.ports.plan["write"] = "after"
        snap = await mutable.commit()
        assert set(await w.entries()) == {mutable.id, snap.id}, "read back, it has succeeded"
        w.ports.plan.clear()
        await snap.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_pair_of_which_the_driver_lost_the_snapshot_fails_and_can_be_pruned(plain: Place) -> None:
    async with world(plain) as w:
        m = await w.manager()
        snap = await committed(m, w)
        (mutable,) = await w.keys()
        await w.driver.remove(mutable)
        for call in (snap.finalize(), snap.mount(), snap.finalize(), m.new(snap)):
            assert "lost" in str(await refused(call, SnapshotError))
        await refused(snap.size(), errors.NotFound)
        await snap.release()
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_snapshot_is_removed_when_it_is_sure_that_a_note_names_it(place: Place) -> None:
    """REF-NOTE-1: the write of the record took place, nobody knows, and the process dies while new cleans up."""
    async with world(place) as w:
        m = await w.manager()
        w.ports.plan = {3: "after", "read": "before", "remove": "die after"}
        with pytest.raises(Died):
            await m.new()
        assert w.ports.log[3] == "write r1=mutable"
        assert (await w.entries())["r1"]["kind"] == "note"
        m = await w.manager()
        assert await w.entries() == await w.keys() == {}
        await m.close()
