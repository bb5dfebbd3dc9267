"""Histories of the manager in which every call of a port fails once, is cancelled once, and is once the last of its process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from refs_env import Died, World, fast, world
from stores import Place, asynchronous

from snapspec.impl.errors import SnapshotError
from snapspec.impl.manager import Manager
from snapspec.impl.ref_errors import NotFound, RefError
from snapspec.impl.refs import ImmutableRef, MutableRef, Ref

pytestmark = pytest.mark.root

Step = tuple[str, ...]

#: Each step names an operation, the handle it is made on or the record it asks for, and the handle that it gives.
LIFE: tuple[Step, ...] = (
    ("new", "", "a"),
    ("write", "a"),
    ("size", "a"),
    ("commit", "a", "A"),
    ("mount", "A"),
    ("size", "A"),
    ("finalize", "A"),
    ("mount", "A"),
    ("get", "A", "A2"),
    ("release", "A"),
    ("new", "A2", "b"),
    ("write", "b"),
    ("release", "A2"),
    ("parent", "b", "A3"),
    ("commit", "b", "B"),
    ("release", "B"),
    ("get_mutable", "b", "b2"),
    ("release", "b2"),
    ("usage",),
    ("prune",),
    ("release", "A3"),
    ("prune",),
)
CHAIN: tuple[Step, ...] = (
    ("new", "", "a"),
    ("write", "a"),
    ("commit", "a", "A"),
    ("new", "A", "b"),
    ("write", "b"),
    ("commit", "b", "B"),
    ("mount for writing", "B"),
    ("new", "B", "c"),
    ("release", "B"),
    ("release", "c"),
    ("get", "c", "C"),
    ("release", "C"),
    ("usage",),
    ("get", "c", "C2"),
    ("size", "C2"),
    ("release", "C2"),
    ("release", "A"),
    ("prune",),
)
IDLE: tuple[Step, ...] = (
    ("new", "", "a"),
    ("write", "a"),
    ("release", "a"),
    ("new", "", "b"),
    ("commit", "b", "B"),
    ("release", "B"),
    ("usage",),
    ("get", "a", "A"),
    ("size", "A"),
    ("release", "A"),
    ("get_mutable", "a", "a2"),
    ("write", "a2"),
    ("commit", "a2", "A2"),
    ("new", "A2", "c"),
    ("release", "A2"),
    ("prune",),
    ("mount", "c"),
    ("release", "c"),
    ("get", "A2", "A3"),
    ("mount", "A3"),
    ("release", "A3"),
    ("usage",),
    ("prune",),
)

#: Records as they have to survive: id, mutable, parent, the other half.
Records = frozenset[tuple[str, bool, str, str]]


def records(manager: Manager) -> Records:
    return frozenset((known.id, known.mutable, known.parent, known.equal) for known in manager.records())


def ids(known: Records) -> set[str]:
    return {id for id, *_ in known}


def final(known: Records, record: str) -> Records:
    """The same records after a finalize of this one."""
    moved = {equal for id, _, _, equal in known if id == record}
    return frozenset((id, m, p, "" if id == record else e) for id, m, p, e in known if id not in moved)


@dataclass
class Client:
    """Whoever makes the calls of a history: what it holds, and what it has written."""

    world: World
    manager: Manager
    held: dict[str, Ref] = field(default_factory=dict)
    written: dict[str, dict[str, str]] = field(default_factory=dict)

    async def do(self, step: Step) -> Any:
        """One step; nothing when it is about a handle that an earlier failure left ungiven."""
        name, on, gives = (*step, "", "")[:3]
        ref = self.held.get(on)
        if on and ref is None:
            return None
        if name in ("get", "get_mutable"):
            assert ref is not None
            call = self.manager.get(ref.id) if name == "get" else self.manager.get_mutable(ref.id)
        elif name == "new":
            call = self.manager.new(ref)  # type: ignore[arg-type]  # the histories are right
        elif name in ("usage", "prune"):
            call = self.manager.disk_usage() if name == "usage" else self.manager.prune()
        elif name == "write":
            return await self._write(ref, on)
        elif name.startswith("mount"):
            assert ref is not None
            mounts = await ref.mount(readonly=name == "mount")  # type: ignore[attr-defined]  # both kinds have it
            assert self.world.shown(mounts) == self.written.get(ref.id, {})
            return mounts
        else:
            call = getattr(ref, name)()
        answer = await call
        if gives:
            self.held[gives] = answer
            self._inherit(answer, ref, name)
        return answer

    async def _write(self, ref: Ref | None, name: str) -> None:
        assert isinstance(ref, MutableRef)
        mounts = await ref.mount()
        self.world.write(mounts, **{name: name * 1000})
        self.written[ref.id] = self.written.get(ref.id, {}) | {name: name * 1000}

    def _inherit(self, given: Ref, ref: Ref | None, name: str) -> None:
        if ref is not None and name in ("new", "commit", "get"):
            self.written.setdefault(given.id, dict(self.written.get(ref.id, {})))

    async def all(self, history: tuple[Step, ...]) -> None:
        """One step after the other."""
        for step in history:
            await self.do(step)

    async def attempt(self, step: Step) -> Any:
        """One step, which may fail or be cancelled: then it has left nothing (REF-ERROR-4, REF-POINT-2)."""
        before = records(self.manager)
        handles = {known.id: known.handles for known in self.manager.records()}
        try:
            return await self.do(step)
        except (RefError, SnapshotError, asyncio.CancelledError) as error:
            failure = error
        after = records(self.manager)
        if step[0] == "release":  # it has taken effect all the same (REF-HANDLE-2)
            assert isinstance(failure, asyncio.CancelledError)
            assert self.held[step[1]] not in self.held[step[1]]._record.handles
        elif step[0] != "prune":
            parent = self.held[step[1]].id if step[0] in ("new", "finalize", "mount for writing") and step[1] else ""
            assert after in (before, final(before, parent)), (step, failure)
            assert {known.id: known.handles for known in self.manager.records()} == {i: handles[i] for i in ids(after)}
        return failure

    async def audit(self) -> None:
        """Everything still works: every record can be read, all is released and pruned, nothing is left (REF-LEAK-1)."""
        for ref in self.held.values():
            await ref.release()
        async with await self.manager.new() as fresh:
            assert self.world.shown(await fresh.mount()) == {}
        for row in await self.manager.disk_usage():
            assert not row.in_use
            async with await self.manager.get(row.id) as ref:
                if row.id in self.written:
                    assert self.world.shown(await ref.mount()) == self.written[row.id]
                    assert self.world.shown(await ref.mount(readonly=False)) == self.written[row.id]
                await ref.finalize()
                assert await ref.size() >= 0
        await self.world.nothing_left(self.manager)


@pytest.fixture(params=["plain", "copy"])
def place(request: pytest.FixtureRequest, workdir: Path) -> Iterator[Place]:
    with fast(workdir, request.param) as there:
        yield there


#: Every history over the one driver, one over the other.
over_both = pytest.mark.parametrize(
    ("place", "history"),
    [("plain", LIFE), ("plain", CHAIN), ("plain", IDLE), ("copy", CHAIN)],
    indirect=["place"],
    ids=["life", "chain", "idle", "copy"],
)


async def undisturbed(w: World, history: tuple[Step, ...]) -> tuple[int, list[Records]]:
    """How many calls of ports a history makes, those of the start included, and the records after each step."""
    client = Client(w, await w.manager())
    after = [records(client.manager)]
    for step in history:
        answer = await client.do(step)
        assert not getattr(answer, "errors", ())
        after.append(records(client.manager))
    assert after[-1] == frozenset()
    calls = len(w.ports.log)
    await client.audit()
    await client.manager.close()
    return calls, after


@over_both
@asynchronous
async def test_every_call_of_a_port_fails_once(history: tuple[Step, ...], place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """REF-POINT-1, REF-POINT-3, REF-LEAK-1: before its effect, and after it."""
    caplog.set_level(logging.ERROR)
    async with world(place) as w:
        calls, _ = await undisturbed(w, history)
        for number in range(1, calls):  # the first one is the load of the start
            for moment in ("before", "after"):
                w.ids = 0
                client = Client(w, await w.manager())
                w.ports.plan[number] = moment
                for step in history:
                    await asyncio.wait_for(client.attempt(step), 10)
                assert w.ports.failed == 1, number
                await asyncio.wait_for(client.audit(), 10)
                await client.manager.close()


@over_both
@asynchronous
async def test_every_call_of_a_port_fails_once_and_what_it_did_cannot_be_asked_at_first(
    history: tuple[Step, ...], place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """REF-POINT-3, REF-FINAL-4: for the rest of that step every question about the outcome fails too."""
    caplog.set_level(logging.ERROR)
    async with world(place) as w:
        calls, _ = await undisturbed(w, history)
        for number in range(1, calls):
            w.ids = 0
            client = Client(w, await w.manager())
            w.ports.plan[number] = "after"
            for step in history:
                questions = {"stat": "before", "read": "before"} if not w.ports.failed else {}
                w.ports.plan.update(questions)
                await asyncio.wait_for(client.attempt(step), 10)
                for question in questions:
                    del w.ports.plan[question]
            assert w.ports.failed
            await asyncio.wait_for(client.audit(), 10)
            await client.manager.close()


@over_both
@asynchronous
async def test_every_step_is_cancelled_once_at_every_call_of_a_port(
    history: tuple[Step, ...], place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """REF-POINT-1, REF-POINT-2, REF-LEAK-1"""
    caplog.set_level(logging.ERROR)
    async with world(place) as w:
        calls, _ = await undisturbed(w, history)
        for number in range(1, calls):
            w.ids = 0
            client = Client(w, await w.manager())
            running: list[asyncio.Task[Any]] = []
            cancelled = []

            def watch(
                made: int, running: list[asyncio.Task[Any]] = running, cancelled: list[int] = cancelled, at: int = number
            ) -> None:
                if made == at:
                    cancelled.append(made)
                    running[-1].cancel()

            w.ports.watch = watch
            for step in history:
                running.append(asyncio.create_task(client.attempt(step)))
                await asyncio.wait(running[-1:], timeout=10)
                # A cancel where nothing is waited for any more is too late for the step: it has answered, and its task has not.
                answer = None if running[-1].cancelled() else running[-1].result()
                # A record may be missing because the child that should have kept it was not made.
                assert not isinstance(answer, (RefError, SnapshotError)) or type(answer) is NotFound, (number, step, answer)
            assert cancelled == [number]
            await asyncio.wait_for(client.audit(), 10)
            await client.manager.close()


def allowed(step: Step, before: Records, after: Records, came: Records, parent: str) -> bool:
    """Whether these records may be there after a crash in the step that leads from `before` to `after` (REF-OPEN-1)."""
    if step[0] == "prune":  # children first, each pair whole
        kept = all(not p or p in ids(came) for _, _, p, _ in came) and all(not e or e in ids(came) for *_, e in came)
        return after <= came <= before and kept
    return came in (before, after) or (step[0] in ("new", "mount for writing") and came == final(before, parent))


async def restarted(w: World, client: Client, came: Records | None = None) -> Client:
    """A new manager after a crash, in which all that was written is there and all that should be gone is (REF-OPEN-5)."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    manager = await w.manager()
    known = records(manager)
    assert came is None or known == came
    snapshots = {equal if equal and not mutable else id for id, mutable, _, equal in known}
    assert set(await w.keys()) == snapshots
    entries = await w.entries()
    assert set(entries) == ids(known)
    assert not any(entry["kind"] == "note" for entry in entries.values())
    for ref in client.held.values():
        if isinstance(ref, ImmutableRef):
            with pytest.raises(RefError):
                await manager.new(ref)
    return Client(w, manager, written=client.written)


@over_both
@asynchronous
async def test_the_process_dies_once_at_every_call_of_a_port(history: tuple[Step, ...], place: Place) -> None:
    """REF-OPEN-1, REF-OPEN-2, REF-OPEN-5, REF-NOTE-1: before the call's effect, and after it."""
    async with world(place) as w:
        calls, after = await undisturbed(w, history)
        for number in range(1, calls):
            for moment in ("die before", "die after"):
                w.ids = 0
                client = Client(w, await w.manager())
                w.ports.plan[number] = moment
                done = 0
                try:
                    for step in history:
                        await client.do(step)
                        done += 1
                except Died:
                    pass
                assert w.ports.dead
                on = client.held.get((*step, "")[1])
                client = await restarted(w, client)
                came = records(client.manager)
                assert allowed(step, after[done], after[done + 1], came, on.id if on else ""), (number, moment, step)
                await client.audit()
                await client.manager.close()


@pytest.mark.parametrize("place", ["plain"], indirect=True)
@asynchronous
async def test_the_process_dies_again_at_every_call_of_the_start(place: Place) -> None:
    """REF-OPEN-2, REF-OPEN-5: the next start ends where this one would have."""
    async with world(place) as w:
        calls, _ = await undisturbed(w, LIFE)
        starts = 0
        for number in range(1, calls):
            for dying in range(100):
                w.ids = 0
                client = Client(w, await w.manager())
                w.ports.plan[number] = "die after"
                with pytest.raises(Died):
                    await client.all(LIFE)
                starts += 1
                manager = None
                with suppress(Died):
                    manager = await w.manager(dying)
                if manager is not None:
                    w.ports.plan.clear()
                    await manager.close()
                client = await restarted(w, client)
                await client.audit()
                await client.manager.close()
                if manager is not None:
                    break
        assert starts > 2 * calls
