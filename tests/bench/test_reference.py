"""How long the reference takes for a call, and the kit for a history.

The aim: 500 histories of `ref:overlay` in 60 s on two cores. Nothing is asserted of the time: a machine may be busy.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from snapspec.impl.loopback import open_pool
from snapspec.impl.mounts import mounted
from snapspec.impl.overlay import OverlaySnapshotter, open_overlay

pytestmark = pytest.mark.root

ROUNDS = 200
EXAMPLES = 100


class Clock:
    """Takes the time of calls, by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    async def time(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        began = time.perf_counter()
        await call()
        self.taken.setdefault(name, []).append(time.perf_counter() - began)


async def lives(store: OverlaySnapshotter, clock: Clock, target: Path) -> None:
    """Each round is the life of a layer with one small file, over a chain of ten."""
    for number in range(ROUNDS):
        parent = f"layer{number - 1}" if number % 10 else ""
        await clock.time("prepare", lambda parent=parent: store.prepare("key", parent))
        with mounted(await store.mounts("key"), str(target)) as directory:
            Path(directory, f"f{number}").write_bytes(b"x" * 5000)
        await clock.time("mounts", lambda: store.mounts("key"))
        await clock.time("commit", lambda name=f"layer{number}": store.commit(name, "key"))
        await clock.time("view", lambda name=f"layer{number}": store.view("view", name))
        await clock.time("stat", lambda name=f"layer{number}": store.stat(name))
        await clock.time("usage, first", lambda name=f"layer{number}": store.usage(name))
        await clock.time("usage, told before", lambda name=f"layer{number}": store.usage(name))
        await clock.time("remove", lambda: store.remove("view"))


def test_calls_on_a_pool(workdir: Path) -> None:
    clock = Clock()
    target = workdir / "m"
    target.mkdir()

    async def measured() -> None:
        pool = open_pool(str(workdir / "p"), size=256 << 20)
        store = await open_overlay(pool.root, pool=pool)
        try:
            await lives(store, clock, target)
        finally:
            await store.close()

    asyncio.run(measured())
    print(f"\n{'on a pool of ext4':20} {'median':>10} {'of a hundred, the slowest':>28}")
    for name, taken in clock.taken.items():
        assert len(taken) == ROUNDS
        print(f"{name:20} {statistics.median(taken) * 1e3:7.2f} ms {statistics.quantiles(taken, n=100)[-1] * 1e3:25.2f} ms")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("contracts", [True, False], ids=["contracts", "no contracts"])
def test_histories_of_the_default(jobs: int, contracts: bool, workdir: Path) -> None:
    command = [sys.executable, *([] if contracts else ["-O"]), "-m", "snapspec.conformance", "check", "ref:overlay"]
    options = ["--examples", str(EXAMPLES), "--seed", "1", "--jobs", str(jobs), "--out", str(workdir / "f.json")]
    began = time.perf_counter()
    run = subprocess.run(
        [*command, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    took = time.perf_counter() - began
    assert run.returncode == 0, run.stdout + run.stderr
    said = run.stdout.splitlines()[-1]
    calls = int(said.split(" histories, ")[1].split()[0])
    how = "with contracts" if contracts else "without contracts"
    print(f"\n{jobs} jobs, {how}: {EXAMPLES / took:.1f} histories/s, {calls / took:.0f} calls/s ({said})")
