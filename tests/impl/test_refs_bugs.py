"""Faults that real cache managers had, each with the calls that showed it and what has to come instead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import refs_env
from refs_env import committed, final, handles, in_use, outcome, refused, until, world
from stores import Place, asynchronous

from snapspec.impl.errors import Unavailable
from snapspec.impl.mounts import MountError, mount, mounted, mountpoints_below
from snapspec.impl.ref_errors import Invalid, Locked, NotFound, StoreError
from snapspec.impl.refs import ImmutableRef

pytestmark = pytest.mark.root

place = refs_env.place


# --- holds and handles


@asynchronous
async def test_a01_e_shares_the_parent_reference_of_m(place: Place) -> None:
    """When M's record goes with the finalize, E still holds the parent (REF-COMMIT-2)."""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        snap = await final(m, w, base)
        await base.release()
        assert await in_use(m) == {base.id: True, snap.id: True}
        assert (await m.prune()).rows == ()
        above = await snap.parent()
        assert above is not None
        assert w.shown(await above.mount()) == {"file": "one"}
        await m.close()


@pytest.mark.parametrize("ends", ["finalize", "get_mutable"])
@asynchronous
async def test_a02_e_shares_the_parent_reference_of_m_after_a_restart(ends: str, place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        mutable = await m.new(base)
        snap = await mutable.commit()
        await m.close()
        m = await w.manager()
        if ends == "finalize":
            kept = await m.get(snap.id)
            await kept.finalize()
            mounts = await kept.mount()
        else:
            mounts = await (await m.get_mutable(mutable.id)).mount()
        assert (await in_use(m))[base.id]
        assert (await m.prune()).rows == ()
        assert w.shown(mounts) == {"file": "one"}
        await m.close()


@pytest.mark.parametrize("restart", [False, True])
@asynchronous
async def test_a04_get_mutable_while_e_is_held(restart: bool, place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.write(await mutable.mount(), file="one")
        snap = await mutable.commit()
        await snap.release()
        if restart:
            await m.close()
            m = await w.manager()
        held = await m.get(snap.id)
        await refused(m.get_mutable(mutable.id), Locked)
        assert w.shown(await held.mount()) == {"file": "one"}
        assert (await m.get(snap.id)).id == snap.id
        await m.close()


@asynchronous
async def test_a05_each_get_of_m_mints_a_new_e(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        snap = await mutable.commit()
        await snap.release()
        for _ in range(2):
            again = await m.get(mutable.id)
            assert again.id == snap.id
            await again.release()
        assert set(await w.entries()) == {mutable.id, snap.id}
        again = await m.get(mutable.id)
        await again.finalize()
        await m.close()


@asynchronous
async def test_a07_a_failed_new_keeps_its_reference_on_the_parent(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w)
        for call in ("commit", "prepare", "write"):
            w.ports.plan = {call: "before"}
            await refused(m.new(base), StoreError if call == "write" else Unavailable)
            w.ports.plan = {}
            assert handles(m)[base.id] == 1
        await base.release()
        assert not (await in_use(m))[base.id]
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a21_use_after_release(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        snap = await mutable.commit()
        await snap.release()
        reopened = await m.get_mutable(mutable.id)
        for call in (snap.mount(), snap.size(), snap.parent(), snap.finalize(), m.new(snap), mutable.commit(), mutable.mount()):
            await refused(call, Invalid)
        await reopened.release()
        for call in (reopened.commit(), reopened.mount(), reopened.size(), reopened.parent()):
            await refused(call, Invalid)
        await m.close()


# --- the equal pair


@asynchronous
async def test_b01_commit_twice(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        first, second = await asyncio.gather(mutable.commit(), mutable.commit(), return_exceptions=True)
        assert isinstance(first, ImmutableRef)
        assert type(second) is Invalid
        await refused(mutable.commit(), Invalid)
        assert [row.id for row in await m.disk_usage()] == [first.id]
        await first.finalize()
        assert await w.keys() == {first.id: "committed"}
        await m.close()


@pytest.mark.parametrize("restart", [False, True])
@asynchronous
async def test_b02_a_half_done_finalize_is_permanent(restart: bool, place: Place) -> None:
    """The driver has committed, the metadata were not written: every later call goes on from there (REF-FINAL-3)."""
    async with world(place) as w:
        for later in ("finalize", "mount", "new", "get"):
            m = await w.manager()
            snap = await committed(m, w, file="one")
            (mutable,) = await w.keys()
            w.ports.plan["write"] = "before"
            await refused(snap.finalize(), StoreError)
            w.ports.plan.clear()
            if restart:
                w.ports.dead = True
                m = await w.manager()
                snap = await m.get(snap.id)
            if later == "finalize":
                await snap.finalize()
            elif later == "mount":
                assert w.shown(await snap.mount(readonly=False)) == {"file": "one"}
            elif later == "new":
                await (await m.new(snap)).release()
            else:
                await (await m.get(snap.id)).release()
            await refused(m.get_mutable(mutable), NotFound)
            assert mutable not in await w.entries()
            assert "equal" not in (await w.entries())[snap.id]
            await snap.release()
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_b03_a_window_with_a_dead_m(place: Place) -> None:
    """M is NotFound as soon as the finalize has answered, by every path, and before a restart as after."""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w)
        (mutable,) = await w.keys()
        await m.close()
        m = await w.manager()
        snap = await m.get(snap.id)
        calls = [asyncio.create_task(outcome(call)) for call in (snap.finalize(), m.get_mutable(mutable), m.get(mutable))]
        await asyncio.gather(*calls)
        for call in (m.get_mutable(mutable), m.get(mutable)):
            assert type(await refused(call, NotFound)) is NotFound
        assert [row.id for row in await m.disk_usage()] == [snap.id]
        await m.close()


@asynchronous
async def test_b13_a_writable_mount_of_e_finalizes_and_is_read_only(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        (mutable,) = await w.keys()
        mounts = await snap.mount(readonly=False)
        assert w.refuses_writes(mounts)
        assert w.shown(mounts) == {"file": "one"}
        await refused(m.get_mutable(mutable), NotFound)
        assert (await w.keys())[snap.id] == "committed"
        await m.close()


# --- views and lists


@asynchronous
async def test_c01_the_view_goes_with_the_first_release(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        one = await final(m, w, file="one")
        two = await m.get(one.id)
        mounts = await two.mount()
        assert mounts == await one.mount()
        await one.release()
        assert "view" in (await w.keys()).values()
        assert w.shown(mounts) == {"file": "one"}
        await two.release()
        assert "view" not in (await w.keys()).values()
        await m.close()


@pytest.mark.parametrize("moment", ["before", "after"])
@asynchronous
async def test_c02_a_view_that_cannot_be_removed_blocks_the_release(moment: str, place: Place) -> None:
    """The release succeeds; the view is removed by the next prune, or by the next start (REF-HANDLE-2)."""
    async with world(place) as w:
        for restart in (False, True):
            m = await w.manager()
            snap = await final(m, w, file="one")
            await snap.mount()
            w.ports.plan["remove"] = moment
            await snap.release()
            w.ports.plan.clear()
            assert handles(m) == {snap.id: 0}
            assert not (await in_use(m))[snap.id]
            again = await m.get(snap.id)
            assert w.shown(await again.mount()) == {"file": "one"}
            await again.release()
            if restart:
                await m.close()
                m = await w.manager()
                assert await w.keys() == {snap.id: "committed"}
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_c03_views_are_orphaned_by_a_crash(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await final(m, w, file="one")
        await snap.mount()
        assert "view" in (await w.keys()).values()
        w.ports.dead = True
        m = await w.manager()
        assert await w.keys() == {snap.id: "committed"}
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_c04_a_read_only_list_still_owns_an_upper_directory(place: Place) -> None:
    """M with a parent, mounted read-only and writable at the same time (REF-MOUNT-1)."""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new(await committed(m, w, file="one"))
        writable, readonly = await mutable.mount(), await mutable.mount(readonly=True)
        assert w.refuses_writes(readonly)
        other = place.directory / "other"
        other.mkdir()
        w.write(writable, second="two")
        with mounted(readonly, str(other)):
            assert (other / "second").read_text() == "two"
            with mounted(writable, place.target) as root:
                Path(root, "third").write_text("three")
        snap = await mutable.commit()
        assert w.refuses_writes(await snap.mount())
        assert w.shown(await snap.mount()) == {"file": "one", "second": "two", "third": "three"}
        await m.close()


@asynchronous
async def test_c08_read_only_is_written_into_a_list_that_others_have(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new(await committed(m, w))
        writable = await mutable.mount()
        before = repr(writable)
        await mutable.mount(readonly=True)
        assert repr(writable) == before == repr(await mutable.mount())
        w.write(writable, file="one")
        w.write(await mutable.mount(), file="two")
        await m.close()


@asynchronous
async def test_c10_a_second_mount_hides_the_first(place: Place) -> None:
    """A list is mounted on a free directory only, so that all that was mounted is unmounted."""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        mounts = await mutable.mount()
        with mounted(mounts, place.target), pytest.raises(MountError, match="mounted already"):
            mount(mounts, place.target)
        assert mountpoints_below(place.target) == []
        await m.close()


# --- size


@asynchronous
async def test_d01_a_cancelled_waiter_breaks_size(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        go = w.ports.holds["usage"] = asyncio.Event()
        waiting = [asyncio.create_task(snap.size()) for _ in range(3)]
        await until(lambda: w.ports.count("usage") == 1)
        waiting[1].cancel()
        await asyncio.sleep(0)
        go.set()
        first, second, third = await asyncio.gather(*waiting, return_exceptions=True)
        assert type(second) is asyncio.CancelledError
        assert first == third == await snap.size()
        assert w.ports.count("usage") == 1
        await m.close()


@asynchronous
async def test_d02_a_size_that_cannot_be_stored_leaves_the_record_locked(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w)
        w.ports.plan["write"] = "before"
        await refused(snap.size(), StoreError)
        w.ports.plan.clear()
        await asyncio.wait_for(snap.finalize(), 5)
        await asyncio.wait_for(snap.release(), 5)
        await asyncio.wait_for((await m.new()).release(), 5)
        await asyncio.wait_for(w.nothing_left(m), 5)
        await m.close()


@asynchronous
async def test_d03_a_failing_size_beside_prune_unlocks_what_it_has_not_locked(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w)
        go = w.ports.holds["usage"] = asyncio.Event()
        w.ports.plan["usage"] = "before"
        size = asyncio.create_task(snap.size())
        await until(lambda: w.ports.count("usage") == 1)
        await snap.release()
        assert len((await m.prune()).rows) == 1
        go.set()
        await refused(size, Invalid)
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_d05_the_size_of_m_is_kept(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.write(await mutable.mount(), file="x" * 10)
        before = await mutable.size()
        w.write(await mutable.mount(), file="x" * 100_000)
        assert await mutable.size() >= 100_000 > before
        snap = await mutable.commit()
        assert await snap.size() >= 100_000
        await m.close()


@asynchronous
async def test_d06_an_idle_m_has_the_size_minus_one(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.write(await mutable.mount(), file="x" * 20_000)
        await mutable.release()
        (row,) = await m.disk_usage()
        assert row.size >= 20_000
        snap = await m.get(mutable.id)
        await snap.release()
        (row,) = await m.disk_usage()
        assert row.size >= 20_000
        await m.close()


@asynchronous
async def test_d07_disk_usage_keeps_a_reference_when_it_fails(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        snap = await final(m, w)
        await snap.release()
        w.ports.plan["usage"] = "before"
        await refused(m.disk_usage(), Unavailable)
        w.ports.plan.clear()
        assert handles(m) == {snap.id: 0}
        assert await in_use(m) == {snap.id: False}
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_e01_the_first_caller_gets_an_error_of_the_machinery(place: Place) -> None:
    """A caller comes at each step of the loop until the first one is answered: all get the size."""
    async with world(place) as w:
        m = await w.manager()
        for number in range(10):
            snap = await committed(m, w, file="one")
            callers = [asyncio.create_task(snap.size())]
            while not callers[0].done():
                await asyncio.sleep(0)
                callers.append(asyncio.create_task(snap.size()))
            assert set(await asyncio.gather(*callers)) == {await snap.size()}
            assert w.ports.count("usage") == number + 1
            assert len(callers) > 5
        await m.close()


@asynchronous
async def test_e04_a_late_caller_gets_the_cancellation_of_another(place: Place) -> None:
    """The only caller is cancelled, and the next one comes while the scan is ending for that."""
    async with world(place) as w:
        m = await w.manager()
        for late in range(10):
            snap = await committed(m, w, file="one")
            go = w.ports.holds["usage"] = asyncio.Event()
            scans = w.ports.count("usage")
            first = asyncio.create_task(snap.size())
            await until(lambda before=scans: w.ports.count("usage") > before)
            first.cancel()
            for _ in range(late):
                await asyncio.sleep(0)
            second = asyncio.create_task(snap.size())
            await asyncio.sleep(0)
            go.set()
            assert await second > 0
            assert first.cancelled()
        await m.close()


@asynchronous
async def test_e05_a_scan_is_never_over(place: Place) -> None:
    """After an answer, an error and a cancellation nothing is left that waits."""
    async with world(place) as w:
        m = await w.manager()
        here = asyncio.all_tasks()
        for end in ("answer", "error", "cancellation"):
            snap = await committed(m, w, file="one")
            go = w.ports.holds["usage"] = asyncio.Event()
            w.ports.plan = {"usage": "before"} if end == "error" else {}
            scans = w.ports.count("usage")
            callers = [asyncio.create_task(snap.size()) for _ in range(3)]
            await until(lambda before=scans: w.ports.count("usage") > before)
            assert len(asyncio.all_tasks() - here) == 4
            if end == "cancellation":
                for caller in callers:
                    caller.cancel()
            go.set()
            await asyncio.wait(callers)
            await until(lambda: asyncio.all_tasks() == here)
            assert {type(caller.exception()) for caller in callers if not caller.cancelled()} <= {type(None), Unavailable}
        w.ports.plan = {}
        await m.close()


@asynchronous
async def test_e09_sizes_of_different_records_share_one_call(place: Place) -> None:
    async with world(place) as w:
        m = await w.manager()
        small = await committed(m, w, file="x")
        large = await committed(m, w, file="x" * 100_000)
        go = w.ports.holds["usage"] = asyncio.Event()
        sizes = [asyncio.create_task(snap.size()) for snap in (small, large)]
        await until(lambda: w.ports.count("usage") == 2)
        go.set()
        assert await sizes[0] < 100_000 <= await sizes[1]
        await m.close()
