"""The manager, clause by clause, over real snapshotters and the real store: records, handles, the equal pair."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import refs_env
from refs_env import committed, handles, refused, world
from stores import Place, asynchronous

from snapspec.impl import errors
from snapspec.impl.errors import Unavailable
from snapspec.impl.manager import Manager, PrunedRow, Row, open_manager
from snapspec.impl.metadata import open_store
from snapspec.impl.ref_errors import Closed, Invalid, Locked, NotFound, StoreError
from snapspec.impl.refs import ImmutableRef, MutableRef

pytestmark = pytest.mark.root

place, plain = refs_env.place, refs_env.plain


# --- handles


@asynchronous
async def test_each_call_gives_a_handle_of_its_own(plain: Place) -> None:
    """REF-HANDLE-1, REF-HANDLE-2"""
    async with world(plain) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        others = [await m.get(base.id), await m.get(base.id)]
        child = await m.new(base)
        others.append(await child.parent() or base)
        others.append(await child.parent() or base)
        assert len({id(handle) for handle in [base, *others]}) == 5
        assert handles(m)[base.id] == 5
        await others[0].release()
        assert handles(m)[base.id] == 4
        for handle in (base, *others[1:]):
            assert handle.id == others[0].id
            assert await handle.size() > 0
        async with await m.get(base.id) as inside:
            assert handles(m)[inside.id] == 5
        assert handles(m)[base.id] == 4
        async with child as inner:
            snap = await inner.commit()
        assert handles(m) == {base.id: 4, child.id: 0, snap.id: 1}
        await m.close()


@asynchronous
async def test_a_release_of_a_handle_that_is_not_open_does_nothing_to_anybody(plain: Place) -> None:
    """REF-HANDLE-3"""
    async with world(plain) as w:
        m = await w.manager()
        first = await m.new()
        await first.release()
        later = await m.get_mutable(first.id)
        await first.release()
        assert handles(m) == {first.id: 1}
        snap = await later.commit()
        await later.release()
        await first.release()
        assert handles(m) == {first.id: 0, snap.id: 1}
        other = await m.get(snap.id)
        await snap.release()
        await snap.release()
        assert handles(m)[snap.id] == 1
        await other.release()
        last = await m.get_mutable(first.id)
        await snap.release()
        assert handles(m) == {first.id: 1}
        await last.release()
        await m.prune()
        await last.release()
        kept = await m.new()
        await m.close()
        await kept.release()
        await kept.release()
        m = await w.manager()
        assert [row.id for row in await m.disk_usage()] == [kept.id]
        await m.close()


async def each_call_is(error: type[Exception], mutable: list[MutableRef], immutable: list[ImmutableRef], m: Manager) -> None:
    """Every call on any of these handles gives this error, and their ids can be read."""
    for handle in mutable:
        await refused(handle.commit(), error)
    for final in immutable:
        await refused(final.finalize(), error)
        await refused(m.new(final), error)
    for either in (*mutable, *immutable):
        assert either.id in repr(either)
        await refused(either.mount(True), error)
        await refused(either.mount(False), error)
        await refused(either.size(), error)
        await refused(either.parent(), error)
        await either.release()


@asynchronous
async def test_calls_on_a_handle_that_is_not_open_are_invalid_also_when_its_record_is_gone(place: Place) -> None:
    """REF-HANDLE-4, REF-HANDLE-5, REF-ERROR-1"""
    async with world(place) as w:
        m = await w.manager()
        consumed = await m.new()
        idle = await consumed.commit()
        await idle.release()
        await each_call_is(Invalid, [consumed], [idle], m)
        final = await m.get(idle.id)
        await final.finalize()
        await final.release()
        released = await m.new()
        await released.release()
        before = m.records()
        await each_call_is(Invalid, [consumed, released], [idle, final], m)
        assert m.records() == before
        await m.prune()
        await each_call_is(Invalid, [consumed, released], [idle, final], m)
        ended = await m.new()
        old = await committed(m, w)
        await m.close()
        await each_call_is(Closed, [ended, consumed], [old, final], m)
        for call in (m.get(old.id), m.get_mutable(""), m.new(), m.disk_usage(), m.prune()):
            await refused(call, Closed)
        later = await w.manager()
        await refused(later.new(old), Invalid)
        await refused(later.new(idle), Invalid)
        await later.close()


@asynchronous
async def test_a_mutable_record_has_one_open_handle_and_one_e_at_most(plain: Place) -> None:
    """REF-HANDLE-6"""
    async with world(plain) as w:
        m = await w.manager()
        mutable = await m.new()
        await refused(m.get_mutable(mutable.id), Locked)
        snap = await mutable.commit()
        for _ in range(3):
            assert (await m.get(mutable.id)).id == snap.id
        assert handles(m) == {mutable.id: 0, snap.id: 4}
        await m.close()


# --- errors


@asynchronous
async def test_ids_that_no_record_has_are_not_found(plain: Place) -> None:
    """REF-ERROR-2, REF-PRUNE-4"""
    async with world(plain) as w:
        m = await w.manager()
        await w.driver.prepare("foreign")
        gone = await m.new()
        await gone.release()
        await m.prune()
        for id in ("", "absent", "foreign", gone.id):
            await refused(m.get(id), NotFound)
            await refused(m.get_mutable(id), NotFound)
        assert await m.disk_usage() == ()
        assert await w.keys() == {"foreign": "active"}
        await m.close()


@asynchronous
async def test_ids_are_never_the_same(plain: Place) -> None:
    """REF-ERROR-3: the manager's own source of ids."""
    async with world(plain) as w:
        store = await open_store(w.path)
        m = await open_manager(w.driver, store)
        made = [await m.new() for _ in range(20)]
        snaps = [await mutable.commit() for mutable in made]
        assert len({handle.id for handle in (*made, *snaps)}) == 40
        await m.close()


@asynchronous
async def test_a_key_that_somebody_else_has_in_the_driver_is_left_to_him(place: Place) -> None:
    """REF-PRUNE-4, REF-NOTE-1"""
    async with world(place) as w:
        m = await w.manager()
        w.write(await w.driver.prepare("r1"), file="his")
        assert type(await refused(m.new(), errors.AlreadyExists)) is errors.AlreadyExists
        assert await w.entries() == {}
        mutable = await m.new()
        snap = await mutable.commit()
        await snap.finalize()
        await w.driver.view("r4")
        await refused(snap.mount(), errors.AlreadyExists)
        await snap.mount()
        await snap.release()
        await m.prune()
        assert w.shown(await w.driver.mounts("r1")) == {"file": "his"}
        assert await w.keys() == {"r1": "active", "r4": "view"}
        assert await w.entries() == {}
        await m.close()


# --- new, commit


@asynchronous
async def test_new_over_nothing_and_over_an_immutable_handle(place: Place) -> None:
    """REF-NEW-1, REF-NEW-2, REF-NEW-4, REF-PAIR-2"""
    async with world(place) as w:
        m = await w.manager()
        bare = await m.new()
        assert w.shown(await bare.mount()) == {}
        w.write(await bare.mount(), file="one")
        base = await bare.commit()
        child = await m.new(base)
        assert await w.keys() == {base.id: "committed", child.id: "active"}
        assert w.shown(await child.mount()) == {"file": "one"}
        w.write(await child.mount(), file="two")
        await base.release()
        assert (await m.prune()).rows == ()
        await refused(m.get(bare.id), NotFound)
        async with await child.commit() as snap, await m.new(snap) as grandchild:
            assert w.shown(await grandchild.mount(readonly=True)) == {"file": "two"}
        async with await m.get(base.id) as again:
            assert w.shown(await again.mount()) == {"file": "one"}
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_new_over_anything_else_is_invalid_and_finalizes_nothing(plain: Place) -> None:
    """REF-NEW-3, REF-ERROR-4"""
    async with world(plain) as w:
        m = await w.manager()
        mutable, snap = await m.new(), await committed(m, w)
        released = await m.get(snap.id)
        await released.release()
        other_store = await open_store(str(w.place.directory / "other.db"))
        other = await open_manager(w.driver, other_store)
        before = m.records()
        for wrong in (mutable, released, "text", snap.id, 7):
            await refused(m.new(wrong), Invalid)  # type: ignore[arg-type]  # wrong on purpose
        await refused(other.new(snap), Invalid)
        assert m.records() == before
        assert await w.keys() == {mutable.id: "active", "r2": "active"}
        await other.close()
        await m.close()


@asynchronous
async def test_commit_calls_no_driver_and_fixes_the_content(place: Place) -> None:
    """REF-COMMIT-1, REF-COMMIT-2, REF-COMMIT-3"""
    async with world(place) as w:
        m = await w.manager()
        base = await committed(m, w, file="one")
        mutable = await m.new(base)
        w.write(await mutable.mount(), other="two")
        calls = [line for line in w.ports.log if not line.startswith("write")]
        snap = await mutable.commit()
        assert [line for line in w.ports.log if not line.startswith("write")] == calls
        above = await snap.parent()
        assert above is not None
        assert above.id == base.id
        both = {"file": "one", "other": "two"}
        lists = [await snap.mount(), await snap.mount(readonly=True)]
        await snap.finalize()
        lists += [await snap.mount(), await snap.mount(readonly=False)]
        assert [w.shown(mounts) for mounts in lists] == [both] * 4
        for handle in (base, above, snap):
            await handle.release()
        child = await m.new(await m.get(snap.id))
        assert w.shown(await child.mount()) == both
        await m.close()


@asynchronous
async def test_a_commit_that_fails_leaves_the_handle_open_and_no_record(place: Place) -> None:
    """REF-COMMIT-4"""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        before = m.records()
        w.ports.plan["write"] = "before"
        await refused(mutable.commit(), StoreError)
        w.ports.plan.clear()
        assert m.records() == before
        assert set(await w.entries()) == {mutable.id}
        w.write(await mutable.mount(), file="one")
        snap = await mutable.commit()
        assert w.shown(await snap.mount()) == {"file": "one"}
        await snap.release()
        await w.nothing_left(m)
        await m.close()


# --- the equal pair, get, get_mutable


@asynchronous
async def test_a_pair_is_one_snapshot_one_row_and_goes_together(place: Place) -> None:
    """REF-PAIR-1, REF-PAIR-3, REF-USAGE-1, REF-PRUNE-3"""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        mutable = m.records()[0].id
        size = await snap.size()
        assert await w.keys() == {mutable: "active"}
        assert await m.disk_usage() == (Row(snap.id, "", False, True, size),)
        await snap.release()
        assert await m.disk_usage() == (Row(mutable, "", True, False, size),)
        pruned = await m.prune()
        assert pruned.rows == (PrunedRow((mutable, snap.id), size),)
        assert pruned.errors == ()
        for id in (mutable, snap.id):
            await refused(m.get(id), NotFound)
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_get(place: Place) -> None:
    """REF-GET-1 to REF-GET-4"""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        w.write(await mutable.mount(), file="one")
        await refused(m.get(mutable.id), Locked)
        await mutable.release()
        given = await m.get(mutable.id)
        assert given.id != mutable.id
        assert w.shown(await given.mount()) == {"file": "one"}
        held = await m.get(mutable.id)
        assert held.id == given.id
        await held.release()
        await given.release()
        assert handles(m) == {mutable.id: 0, given.id: 0}
        idle = await m.get(mutable.id)
        assert idle.id == given.id
        await idle.finalize()
        await refused(m.get(mutable.id), NotFound)
        assert (await m.get(idle.id)).id == idle.id
        await m.close()


@asynchronous
async def test_get_mutable(place: Place) -> None:
    """REF-MUT-1 to REF-MUT-3"""
    async with world(place) as w:
        m = await w.manager()
        mutable = await m.new()
        await refused(m.get_mutable(mutable.id), Locked)
        snap = await mutable.commit()
        await refused(m.get_mutable(snap.id), Invalid)
        await refused(m.get_mutable(mutable.id), Locked)
        assert (await m.get(snap.id)).id == snap.id, "the refusals changed nothing"
        await m.close()
        m = await w.manager()
        await refused(m.get_mutable(snap.id), Invalid)
        again = await m.get_mutable(mutable.id)
        await refused(m.get(snap.id), NotFound)
        await refused(m.get_mutable(snap.id), NotFound)
        assert set(await w.entries()) == {mutable.id}
        w.write(await again.mount(), file="one")
        await again.release()
        again = await m.get_mutable(mutable.id)
        assert w.shown(await again.mount()) == {"file": "one"}
        await m.close()


# --- finalize


@asynchronous
async def test_finalize(place: Place) -> None:
    """REF-FINAL-1, REF-FINAL-2"""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        (mutable,) = await w.keys()
        await snap.finalize()
        assert await w.keys() == {snap.id: "committed"}
        assert set(await w.entries()) == {snap.id}
        for call in (m.get(mutable), m.get_mutable(mutable)):
            await refused(call, NotFound)
        calls = len(w.ports.log)
        await snap.finalize()
        await (await m.get(snap.id)).finalize()
        assert len(w.ports.log) == calls
        assert w.shown(await snap.mount()) == {"file": "one"}
        await m.close()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["commit", "write"])
@asynchronous
async def test_a_finalize_that_fails_is_whole_or_nothing_and_the_retry_succeeds(call: str, moment: str, place: Place) -> None:
    """REF-FINAL-3"""
    async with world(place) as w:
        m = await w.manager()
        snap = await committed(m, w, file="one")
        (mutable,) = await w.keys()
        w.ports.plan[call] = moment
        if (call, moment) == ("commit", "after"):
            await snap.finalize()  # what the driver did is found out
        else:
            await refused(snap.finalize(), Unavailable if call == "commit" else StoreError)
        w.ports.plan.clear()
        moved = (call, moment) != ("commit", "before")
        assert await w.keys() == ({snap.id: "committed"} if moved else {mutable: "active"})
        if moved:
            await refused(m.get_mutable(mutable), NotFound)
        assert await snap.finalize() is None
        assert w.shown(await snap.mount()) == {"file": "one"}
        assert {id for id, entry in (await w.entries()).items() if entry["kind"] != "note"} == {snap.id}
        await snap.release()
        await w.nothing_left(m)
        await m.close()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("held", [True, False])
@asynchronous
async def test_an_outcome_that_is_not_known_is_found_out_before_an_answer_depends_on_it(
    moment: str, held: bool, place: Place
) -> None:
    """REF-FINAL-4: the driver's commit fails, and so does the question what became of it."""

    async def asked(question: Callable[[Manager, ImmutableRef, str], Awaitable[object]]) -> object:
        async with world(place) as w:
            m = await w.manager()
            snap = await committed(m, w, file="one")
            (mutable,) = await w.keys()
            if not held:
                await snap.size()
            w.ports.plan.update({"commit": moment, "stat": "before"})
            await refused(snap.finalize(), Unavailable)
            if not held:
                await snap.release()
                await refused(m.disk_usage(), Unavailable)
                assert (await m.prune()).errors
                assert (await m.prune()).rows == ()
                await refused(m.get_mutable(mutable), Unavailable)
            await refused(m.get(mutable), Unavailable)
            w.ports.plan.clear()
            try:
                return await question(m, snap, mutable)
            except (NotFound, Locked) as error:
                return type(error)
            finally:
                async with await m.get(snap.id) if moment == "after" else await m.get(mutable) as again:
                    assert w.shown(await again.mount()) == {"file": "one"}
                await snap.release()
                await w.nothing_left(m)
                await m.close()

    moved = moment == "after"

    async def get(m: Manager, _: ImmutableRef, mutable: str) -> object:
        async with await m.get(mutable):
            return "an E"

    async def get_mutable(m: Manager, _: ImmutableRef, mutable: str) -> object:
        async with await m.get_mutable(mutable) as handle:
            return handle.id == mutable

    async def usage(m: Manager, snap: ImmutableRef, _: str) -> object:
        return [(row.id == snap.id, row.mutable) for row in await m.disk_usage()]

    async def mount(m: Manager, snap: ImmutableRef, _: str) -> object:
        async with await m.get(snap.id) as handle:
            return await handle.mount() is not None and await handle.size() > 0

    assert await asked(get) == (NotFound if moved else "an E")
    assert await asked(get_mutable) == (NotFound if moved else Locked if held else True)
    assert await asked(usage) == [(moved or held, not moved and not held)]
    assert await asked(mount) is True
