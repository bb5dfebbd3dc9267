"""Lists, sizes, disk_usage and prune, clause by clause, over real snapshotters and the real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import refs_env
from refs_env import committed, handles, refused, until, world
from stores import Place, asynchronous

from snapspec.impl.errors import Unavailable
from snapspec.impl.manager import Manager, PrunedRow, Row
from snapspec.impl.mounts import mounted
from snapspec.impl.ref_errors import Invalid, NotFound, StoreError
from snapspec.impl.refs import ImmutableRef

pytestmark = pytest.mark.root

place, plain = refs_env.place, refs_env.plain


async def rows(manager: Manager) -> dict[str, Row]:
    return {row.id: row for row in await manager.disk_usage()}


# --- mount


@asynchronous
async def test_lists_of_m(place: Place) -> None:
    """REF-MOUNT-1, REF-MOUNT-7"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        for mutable in (await m.new(), await m.new(base)):
            w.write(await mutable.mount(), other="two")
            readonly = await mutable.mount(readonly=True)
            assert w.refuses_writes(readonly)
            assert w.shown(readonly)["other"] == "two"
            assert w.shown(readonly) == w.shown(await mutable.mount(readonly=False))
        await m.close()


@asynchronous
async def test_lists_of_e_are_read_only_and_the_writable_one_makes_it_final(place: Place) -> None:
    """REF-MOUNT-2, REF-MOUNT-3, REF-MOUNT-4"""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, await committed(m, w, file="one"), other="two")
        both = {"file": "one", "other": "two"}
        keys = await w.keys()
        assert w.refuses_writes(await snap.mount())
        assert w.shown(await snap.mount(readonly=True)) == both
        assert await w.keys() == keys, "nothing was finalized or viewed"
        assert w.refuses_writes(await snap.mount(readonly=False))
        assert w.shown(await snap.mount(readonly=False)) == both
        assert (await w.keys())[snap.id] == "committed"
        await m.close()


@asynchronous
async def test_over_a_driver_whose_commit_spoils_lists_a_mount_makes_e_final(plain: Place) -> None:
    """REF-MOUNT-4, the declared alternative."""
    async with world(plain) as w:
        w.keeps_lists = False
        m = await w.manager()
        snap = await committed(m, w, file="one")
        assert w.shown(await snap.mount(readonly=True)) == {"file": "one"}
        assert (await w.keys())[snap.id] == "committed"
        await m.close()


@asynchronous
async def test_the_view_is_shared_and_goes_with_the_last_handle(place: Place) -> None:
    """REF-MOUNT-5, REF-NOTE-1"""
    async with world(place) as w:
        m = await w.manager()
        one = await committed(m, w, file="one")
        two = await m.get(one.id)
        await one.finalize()
        lists = [await one.mount(), await two.mount(), await two.mount(readonly=False)]
        assert lists[0] == lists[1] == lists[2]
        assert sorted((await w.keys()).values()) == ["committed", "view"]
        (view,) = (id for id, entry in (await w.entries()).items() if entry["kind"] == "note")
        child = await m.new(one)
        await one.release()
        with mounted(lists[1], w.place.target) as root:
            assert Path(root, "file").read_text() == "one"
        assert view in await w.keys()
        await two.release()
        assert await w.keys() == {one.id: "committed", child.id: "active"}, "a child's hold does not keep the view"
        assert view not in await w.entries()
        again = await m.get(one.id)
        assert w.shown(await again.mount()) == {"file": "one"}
        await m.close()
        assert "view" not in (await w.keys()).values()


@asynchronous
async def test_a_list_stays_true_whatever_comes_later(place: Place) -> None:
    """REF-MOUNT-6: finalized, released by others, built upon, while it is mounted."""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        mine = await m.get(base.id)
        given = await mine.mount()
        kept = tuple(given)
        with mounted(given, w.place.target) as root:
            await base.finalize()
            child = await m.new(base)
            await base.release()
            await child.release()
            await m.prune()
            assert Path(root, "file").read_text() == "one"
        assert given == kept
        assert w.shown(given) == {"file": "one"}
        assert isinstance(given, tuple)
        await mine.release()
        await w.nothing_left(m)
        await m.close()


# --- size, parent


@asynchronous
async def test_a_size_is_measured_once_and_for_ever(place: Place) -> None:
    """REF-SIZE-1, REF-SIZE-2"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="x" * 100_000)
        size = await base.size()
        if w.place.kind == "plain":
            child = await committed(m, w, base, other="y" * 10_000)
            assert 10_000 <= await child.size() < 100_000 <= size, "without the parent"
        assert (await w.entries())[base.id]["size"] == str(size)
        scans = w.ports.count("usage")
        await base.finalize()
        assert await base.size() == size
        assert await (await m.get(base.id)).size() == size
        assert w.ports.count("usage") == scans
        await m.close()
        m = await w.manager()
        base = await m.get(base.id)
        assert await base.size() == size
        assert w.ports.count("usage") == 0
        await m.close()


@asynchronous
async def test_a_size_that_cannot_be_stored_is_not_told(plain: Place) -> None:
    """REF-SIZE-2"""
    async with world(plain) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        w.ports.plan["write"] = "before"
        await refused(snap.size(), StoreError)
        await refused(snap.size(), StoreError)
        w.ports.plan.clear()
        assert "size" not in (await w.entries())[snap.id]
        assert str(await snap.size()) == (await w.entries())[snap.id]["size"]
        await m.close()


@asynchronous
async def test_a_thousand_calls_of_size_make_one_of_usage(place: Place) -> None:
    """REF-SIZE-3, REF-SIZE-5: half of them on handles of get, a third cancelled. When E is final a thousand more make none."""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="x" * 50_000)
        others = [await m.get(snap.id) for _ in range(500)]
        go = w.ports.holds["usage"] = asyncio.Event()
        calls = [asyncio.create_task(handle.size()) for other in others for handle in (snap, other)]
        await until(lambda: w.ports.count("usage") == 1)
        for call in calls[::3]:
            call.cancel()
        await asyncio.sleep(0)
        go.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers[::3]} == {asyncio.CancelledError}
        (size,) = {answer for number, answer in enumerate(answers) if number % 3}
        assert isinstance(size, int)
        assert size >= 50_000
        await snap.finalize()
        assert set(await asyncio.gather(*(handle.size() for other in others for handle in (snap, other)))) == {size}
        assert w.ports.count("usage") == 1
        assert (await w.entries())[snap.id]["size"] == str(size)
        await asyncio.gather(*(handle.release() for handle in (snap, *others)))
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_size_tells_the_truth_or_that_the_handle_is_not_open_whatever_happens_meanwhile(place: Place) -> None:
    """REF-SIZE-4"""
    async with world(place) as w:
        truth = 0
        for meanwhile in ("nothing", "finalize", "release", "reopen", "prune", "child"):
            m = await w.manager()
            snap = await committed(m, w, file="x" * 50_000)
            (mutable,) = await w.keys()
            go = w.ports.holds["usage"] = asyncio.Event()
            size = asyncio.create_task(snap.size())
            await until(lambda: w.ports.count("usage") == 1)
            if meanwhile == "finalize":
                await snap.finalize()
            elif meanwhile == "child":
                await (await m.new(snap)).release()
            elif meanwhile != "nothing":
                await snap.release()
            if meanwhile == "reopen":
                w.write(await (await m.get_mutable(mutable)).mount(), more="y" * 90_000)
            if meanwhile == "prune":
                assert len((await m.prune()).rows) == 1
            go.set()
            if meanwhile in ("release", "reopen", "prune"):
                await refused(size, Invalid)
            else:
                truth = truth or await size
                assert await size == truth >= 50_000
            sizes = {id: entry["size"] for id, entry in (await w.entries()).items() if "size" in entry}
            assert sizes in ({}, {snap.id: str(truth)}), "nothing under M's id"
            assert (meanwhile in ("reopen", "prune")) <= (sizes == {})
            await m.close()
            m = await w.manager()
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_an_error_of_the_scan_is_shared_by_those_who_waited_and_nobody_later(plain: Place) -> None:
    """REF-SIZE-5"""
    async with world(plain) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        go = w.ports.holds["usage"] = asyncio.Event()
        w.ports.plan["usage"] = "before"
        waiting = [asyncio.create_task(snap.size()) for _ in range(3)]
        await until(lambda: w.ports.count("usage") == 1)
        waiting[0].cancel()
        go.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, Unavailable, Unavailable]
        assert w.ports.count("usage") == 1
        w.ports.plan.clear()
        assert await snap.size() > 0
        await m.close()


@asynchronous
async def test_when_all_have_left_the_scan_is_cancelled_and_nobody_waits_for_it(plain: Place) -> None:
    """REF-SIZE-5"""
    async with world(plain) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        stuck = w.ports.holds["usage"] = asyncio.Event()
        waiting = [asyncio.create_task(snap.size()) for _ in range(3)]
        await until(lambda: w.ports.count("usage") == 1)
        for task in waiting:
            task.cancel()
        assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*waiting, return_exceptions=True))
        del w.ports.holds["usage"]
        assert await asyncio.wait_for(snap.size(), 5) > 0
        assert w.ports.count("usage") == 2
        stuck.set()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await m.close()


@asynchronous
async def test_the_size_of_an_open_m_is_measured_at_each_call(place: Place) -> None:
    """REF-SIZE-6"""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        first = await mutable.size()
        w.write(await mutable.mount(), file="x" * 100_000)
        second = await mutable.size()
        assert second - first >= 100_000
        assert w.ports.count("usage") == 2
        assert "size" not in (await w.entries())[mutable.id]
        go = w.ports.holds["usage"] = asyncio.Event()
        overtaken = asyncio.create_task(mutable.size())
        await until(lambda: w.ports.count("usage") == 3)
        snap = await mutable.commit()
        await snap.finalize()
        go.set()
        await refused(overtaken, Invalid)
        assert await snap.size() == second
        await m.close()


@asynchronous
async def test_parent(plain: Place) -> None:
    """REF-PARENT-1"""
    async with world(plain) as w:
        m = await w.manager()
        base = await committed(m, w)
        assert await base.parent() is None
        mutable = await m.new(base)
        snap = await committed(m, w, base)
        for handle in (mutable, snap):
            above = await handle.parent()
            assert isinstance(above, ImmutableRef)
            assert above.id == base.id
        assert handles(m)[base.id] == 3
        await m.close()


# --- disk_usage, prune


@asynchronous
async def test_disk_usage(place: Place) -> None:
    """REF-USAGE-1, REF-USAGE-2, REF-USAGE-3"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="x" * 10_000)
        middle = await committed(m, w, base)
        top = await m.new(middle)
        w.write(await top.mount(), file="y" * 20_000)
        idle = await m.new()
        await idle.release()
        snap = await committed(m, w, base, other="z")
        await snap.release()
        (pair,) = {known.equal for known in m.records() if known.id == snap.id}
        for handle in (base, middle):
            await handle.release()
        before, entries = m.records(), await w.entries()
        usage = await rows(m)
        assert {id: (r.parent, r.mutable, r.in_use) for id, r in usage.items()} == {
            base.id: ("", False, True),
            middle.id: (base.id, False, True),
            top.id: (middle.id, True, True),
            idle.id: ("", True, False),
            pair: (base.id, True, False),
        }
        assert usage[top.id].size == 0
        assert w.ports.count("usage") == 4, "an M in use is not measured"
        assert usage[base.id].size >= 10_000
        assert [known.id for known in m.records()] == [known.id for known in before]
        assert {id: {**entry, "size": ""} for id, entry in (await w.entries()).items()} == {
            id: {**entry, "size": ""} for id, entry in entries.items()
        }
        assert "size" not in (await w.entries())[idle.id]
        await top.release()
        later = await rows(m)
        assert later[top.id].size >= 20_000
        assert not any(row.in_use for row in later.values())
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_a_race_is_no_error_of_disk_usage_and_an_error_of_the_driver_is(plain: Place) -> None:
    """REF-USAGE-3"""
    async with world(plain) as w:
        for meanwhile in ("prune", "get_mutable", "finalize", "fail"):
            m = await w.manager()
            base = await committed(m, w, file="one")
            await base.release()
            (mutable,) = await w.keys()
            go = w.ports.holds["usage"] = asyncio.Event()
            if meanwhile == "fail":
                w.ports.plan["usage"] = "before"
            usage = asyncio.create_task(m.disk_usage())
            await until(lambda: w.ports.count("usage") == 1)
            if meanwhile == "prune":
                await m.prune()
            elif meanwhile == "get_mutable":
                await m.get_mutable(mutable)
            elif meanwhile == "finalize":
                await (await m.get(base.id)).finalize()
            go.set()
            if meanwhile == "fail":
                await refused(usage, Unavailable)
            else:
                shown = {"prune": [], "get_mutable": [(mutable, True, 0)], "finalize": [(base.id, True, 8192)]}[meanwhile]
                size = {row.id: row.size for row in await usage}
                assert [(row.id, row.in_use) for row in await usage] == [(id, used) for id, used, _ in shown]
                assert all((size[id] > 0) == (least > 0) for id, _, least in shown)
            await m.close()
            m = await w.manager()
            await w.nothing_left(m)
            await m.close()


@asynchronous
async def test_prune_takes_what_is_idle_children_first_and_leaves_what_is_in_use(place: Place) -> None:
    """REF-PRUNE-1, REF-PRUNE-3"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        held = await committed(m, w, base)
        idle = await committed(m, w, base)
        below = await m.new(idle)
        size = await idle.size()
        for handle in (base, idle, below):
            await handle.release()
        pruned = await m.prune()
        assert pruned.errors == ()
        assert pruned.rows == (PrunedRow((below.id,), None), PrunedRow((idle.id,), size))
        assert set(await rows(m)) == {base.id, held.id}
        assert (await m.prune()).rows == ()
        await held.release()
        pruned = await m.prune()
        assert [row.ids[-1] for row in pruned.rows] == [held.id, base.id]
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_prune_goes_on_after_an_error_with_what_does_not_depend_on_it(place: Place) -> None:
    """REF-PRUNE-2, REF-PRUNE-3"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w)
        child = await m.new(base)
        other = await m.new()
        for handle in (base, child, other):
            await handle.release()
        w.ports.plan["remove"] = "before"
        pruned = await m.prune()
        assert {row.ids for row in pruned.rows} == {(child.id,), (other.id,)}, "marked, and gone for ever"
        assert [type(error) for error in pruned.errors] == [Unavailable] * 3
        assert set(handles(m)) == {base.id}, "the parent stands under what could not be removed"
        await refused(m.get(child.id), NotFound)
        w.ports.plan.clear()
        assert (await m.prune()).rows == (PrunedRow((base.id,), None),)
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_of_two_prunes_each_record_is_reported_by_one_and_gone_after_both(place: Place) -> None:
    """REF-PRUNE-3"""
    async with world(place) as w:
        m = await w.manager()
        made: set[str] = set()
        for _ in range(4):
            top = await committed(m, w)
            for _ in range(2):
                below, top = top, await committed(m, w, top)
                made.add(below.id)
                await below.release()
            made |= {known.id for known in m.records() if known.id == top.id or known.equal == top.id}
            await top.release()
        one, two = await asyncio.gather(m.prune(), m.prune())
        assert one.errors == two.errors == ()
        reported = [id for row in (*one.rows, *two.rows) for id in row.ids]
        assert sorted(reported) == sorted(made)
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_prune_leaves_the_parent_of_a_running_new(plain: Place) -> None:
    """REF-NEW-4, and REF-USAGE-2: for disk_usage nothing but handles and children counts."""
    async with world(plain) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        await base.finalize()
        go = w.ports.holds["prepare"] = asyncio.Event()
        new = asyncio.create_task(m.new(base))
        await until(lambda: w.ports.count("prepare") == 2)
        await base.release()
        assert not (await rows(m))[base.id].in_use
        assert (await m.prune()).rows == ()
        go.set()
        child = await new
        assert w.shown(await child.mount()) == {"file": "one"}
        await child.release()
        await w.nothing_left(m)
        await m.close()
