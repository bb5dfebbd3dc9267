"""How many calls on records and handles the reference manager makes in a second, over each driver of the reference.

Each call is awaited before the next one, as a client that does one thing at a time has it, and its store is as durable as ever:
what is told is what the syncs cost, and what is above them. Nothing is asserted of the time: a machine may be busy.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.copy import open_copy
from snapspec.impl.loopback import open_pool
from snapspec.impl.manager import Manager, open_manager
from snapspec.impl.metadata import open_store
from snapspec.impl.mounts import mounted
from snapspec.impl.overlay import open_overlay

T = TypeVar("T")

pytestmark = pytest.mark.root

ROUNDS = 200
DEPTH = 10


class Clock:
    """Takes the time of calls, by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    async def time(self, name: str, call: Awaitable[T]) -> T:
        began = time.perf_counter()
        answer = await call
        self.taken.setdefault(name, []).append(time.perf_counter() - began)
        return answer


async def driver_of(kind: str, workdir: Path) -> BaseSnapshotter:
    if kind == "copy":
        return await open_copy(str(workdir / "s"))
    pool = open_pool(str(workdir / "p"), size=256 << 20)
    return await open_overlay(pool.root, pool=pool)


async def lives(manager: Manager, clock: Clock, target: Path) -> int:
    """Each round is the life of a record with one small file, over a chain of ten. Gives how many records a prune removed."""
    below = None
    for number in range(ROUNDS):
        mutable = await clock.time("new", manager.new(below))
        with mounted(await mutable.mount(), str(target)) as directory:
            Path(directory, f"f{number % DEPTH}").write_bytes(b"x" * 5000)
        snap = await clock.time("commit", mutable.commit())
        await clock.time("size, first", snap.size())
        await clock.time("size, told before", snap.size())
        await clock.time("finalize", snap.finalize())
        other = await clock.time("get", manager.get(snap.id))
        await clock.time("mount, which makes the view", other.mount())
        await clock.time("release", other.release())
        for done in (below, snap if number % DEPTH == DEPTH - 1 else None):
            if done is not None:
                await clock.time("release, the last, of a view", done.release())
        below = snap if number % DEPTH < DEPTH - 1 else None
    began = time.perf_counter()
    pruned = await manager.prune()
    clock.taken["prune, a record"] = [(time.perf_counter() - began) / len(pruned.rows)] * len(pruned.rows)
    assert pruned.errors == ()
    return len(pruned.rows)


@pytest.mark.parametrize("kind", ["overlay", "copy"])
def test_calls_of_a_manager(kind: str, workdir: Path) -> None:
    clock = Clock()
    target = workdir / "m"
    target.mkdir()

    async def measured() -> int:
        driver = await driver_of(kind, workdir)
        try:
            manager = await open_manager(driver, await open_store(str(workdir / "metadata.db")))
            try:
                return await lives(manager, clock, target)
            finally:
                await manager.close()
        finally:
            await driver.close()

    assert asyncio.run(measured()) == ROUNDS
    print(f"\n{f'refs over ref:{kind}':28} {'a second':>10} {'median':>10} {'of a hundred, the slowest':>28}")
    for name, taken in clock.taken.items():
        assert len(taken) == ROUNDS
        slowest = statistics.quantiles(taken, n=100)[-1]
        print(f"{name:28} {ROUNDS / sum(taken):10.0f} {statistics.median(taken) * 1e3:7.2f} ms {slowest * 1e3:25.2f} ms")
