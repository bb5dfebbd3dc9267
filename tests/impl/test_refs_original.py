"""The two scenarios that refs began with: the life cycle of a manager, and a lazy commit over two restarts.

All is real: overlay on a loop pool, and copies; a store in sqlite; content is written and read through mounts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from refs_env import refused, world
from stores import Place, asynchronous

from snapspec.impl.manager import Manager
from snapspec.impl.ref_errors import Closed, Invalid, Locked, NotFound

pytestmark = pytest.mark.root


@pytest.fixture(params=["pool", "copy"])
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


async def counted(manager: Manager) -> tuple[int, int]:
    """How many snapshots are in use, and how many are not."""
    rows = await manager.disk_usage()
    assert len({row.id for row in rows}) == len(rows)
    used = sum(row.in_use for row in rows)
    return used, len(rows) - used


@asynchronous
async def test_life_cycle(place: Place) -> None:
    """New, commit, back to mutable, commit again, finalize, children: who may have what, and what is in use at each step."""
    async with world(place) as w:
        m = await w.manager()
        await refused(m.get("absent"), NotFound)
        await refused(m.get_mutable("absent"), NotFound)
        assert await counted(m) == (0, 0)

        active = await m.new()
        assert await active.parent() is None
        w.write(await active.mount(), first="one")
        assert w.refuses_writes(await active.mount(readonly=True))
        await refused(m.get(active.id), Locked)
        await refused(m.get_mutable(active.id), Locked)
        assert await counted(m) == (1, 0)

        snap = await active.commit()
        assert snap.id != active.id
        assert await counted(m) == (1, 0), "one snapshot, of two records"
        await refused(active.commit(), Invalid)
        await refused(m.get_mutable(active.id), Locked)
        await refused(m.get_mutable(snap.id), Invalid)
        assert w.shown(await snap.mount()) == {"first": "one"}
        await snap.release()
        assert await counted(m) == (0, 1)

        active = await m.get_mutable(active.id)
        assert await counted(m) == (1, 0)
        await refused(m.get(snap.id), NotFound)
        w.write(await active.mount(), second="two")
        snap = await active.commit()
        await snap.finalize()
        assert await counted(m) == (1, 0)
        await refused(m.get_mutable(active.id), NotFound)
        await refused(m.get(active.id), NotFound)
        await refused(m.get_mutable(snap.id), Invalid)

        again = await m.get(snap.id)
        assert again is not snap
        await snap.release()
        assert await counted(m) == (1, 0), "another handle is open"
        both = {"first": "one", "second": "two"}
        assert w.shown(await again.mount()) == both
        child = await m.new(again)
        assert w.shown(await child.mount()) == both
        w.write(await child.mount(), third="three")
        assert await counted(m) == (2, 0)
        top = await child.commit()
        await again.release()
        assert await counted(m) == (2, 0), "a child in use uses its parent"
        assert w.shown(await top.mount()) == {**both, "third": "three"}
        async with await top.parent() or top as below:
            assert below.id == snap.id
            assert w.shown(await below.mount()) == both, "the child's writes are the child's own"
        await top.release()
        assert await counted(m) == (0, 2)

        await m.close()
        await refused(m.get(top.id), Closed)
        assert await w.keys() == {snap.id: "committed", child.id: "active"}, "a close keeps all"
        m = await w.manager()
        assert await counted(m) == (0, 2)
        await w.nothing_left(m)
        await m.close()


@asynchronous
async def test_lazy_commit(place: Place) -> None:
    """The driver commits when that is needed, and not before; until then the way back to M is open, over restarts too."""
    async with world(place) as w:
        m = await w.manager()
        active = await m.new()
        w.write(await active.mount(), file="one")
        snap = await active.commit()
        assert await w.keys() == {active.id: "active"}, "the driver has not been asked"
        other = await m.get(snap.id)
        await snap.release()
        await refused(m.get_mutable(active.id), Locked)
        await other.release()

        # Back to M: E is gone, and the next one is another.
        reopened = await m.get_mutable(active.id)
        assert reopened.id == active.id
        await refused(m.get(snap.id), NotFound)
        w.write(await reopened.mount(), file="two")
        second = await reopened.commit()
        assert second.id != snap.id
        await refused(m.get(snap.id), NotFound)
        assert w.shown(await second.mount()) == {"file": "two"}

        # Finalized: there is no way back.
        await second.finalize()
        await second.finalize()
        assert await w.keys() == {second.id: "committed"}
        await refused(m.get_mutable(active.id), NotFound)
        assert w.shown(await second.mount()) == {"file": "two"}
        await second.release()

        # A restart in between: the pair comes back idle, with what is known of it.
        active = await m.new()
        w.write(await active.mount(), file="three")
        snap = await active.commit()
        size = await snap.size()
        await m.close()
        m = await w.manager()
        assert {row.id: row.in_use for row in await m.disk_usage()} == {second.id: False, active.id: False}
        again = await m.get(snap.id)
        assert await again.size() == size
        assert f"usage {active.id}" not in w.ports.log, "it was stored"
        assert w.shown(await again.mount()) == {"file": "three"}
        await refused(m.get_mutable(active.id), Locked)
        await again.release()
        reopened = await m.get_mutable(active.id)
        await refused(m.get(snap.id), NotFound)
        assert w.shown(await reopened.mount()) == {"file": "three"}
        w.write(await reopened.mount(), file="four")
        last = await reopened.commit()
        await m.close()

        # And a second one: dropped is dropped, and what came after it is finalized for good.
        m = await w.manager()
        await refused(m.get(snap.id), NotFound)
        final = await m.get(last.id)
        await final.finalize()
        await refused(m.get_mutable(active.id), NotFound)
        await refused(m.get(active.id), NotFound)
        await m.close()
        assert await w.keys() == {second.id: "committed", last.id: "committed"}
        m = await w.manager()
        await refused(m.get_mutable(active.id), NotFound)
        async with await m.get(last.id) as final:
            assert w.shown(await final.mount()) == {"file": "four"}
        async with await m.get(second.id) as final:
            assert w.shown(await final.mount()) == {"file": "two"}
        await w.nothing_left(m)
        await m.close()
