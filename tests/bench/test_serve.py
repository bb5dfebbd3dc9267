"""How long calls take on the reference as a proxy plugin, beside containerd's own overlayfs, through the same containerd.

The aims: no slower in prepare, usage, commit and remove, within twice the time in stat and mounts, and the commit of a large
layer at least 20 times faster. The two take turns, so that a busy machine is as busy for both. Nothing is asserted of the time.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from snapspec.conformance.subjects.remote import Containerd, RemoteSnapshotter, connect
from snapspec.impl.mounts import mounted

sys.path.append(str(Path(__file__).parents[1] / "kit"))

from containerd import start_containerd
from served import served

pytestmark = pytest.mark.root

BOTH = ("overlayfs", "snapspec")
ROUNDS = 12
BATCH = 24
LARGE = 100_000

Taken = dict[tuple[str, str], list[float]]


async def batch(calls: list[Callable[[], Awaitable[object]]], callers: int) -> float:
    """Seconds a call, when so many callers share the calls out among them."""
    waiting = iter(calls)

    async def caller() -> None:
        for call in waiting:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.perf_counter() - began) / len(calls)


async def lives(remote: RemoteSnapshotter, base: str, turn: str, callers: int, taken: Callable[[str, float], None]) -> None:
    """One batch of each call, over the life of as many layers with one small directory each."""
    keys = [f"{turn}-{number}" for number in range(BATCH)]

    async def timed(name: str, call: Callable[[str], Awaitable[object]]) -> None:
        taken(name, await batch([lambda key=key: call(key) for key in keys], callers))

    await timed("prepare", lambda key: remote.prepare(key, base))
    await timed("mounts", remote.mounts)
    await timed("stat", remote.stat)
    await timed("usage, active", remote.usage)
    await timed("commit", lambda key: remote.commit(f"{key}-done", key))
    await timed("usage, committed", lambda key: remote.usage(f"{key}-done"))
    await timed("remove", lambda key: remote.remove(f"{key}-done"))


async def fill(remote: RemoteSnapshotter, target: Path) -> None:
    """A layer of LARGE small files, all on the disk."""
    with mounted(await remote.mounts("large"), str(target)) as directory:
        for number in range(LARGE // 1000):
            place = Path(directory, f"d{number}")
            place.mkdir()
            for name in range(1000):
                (place / f"f{name}").touch()
    os.sync()


def show(title: str, taken: Taken, aims: dict[str, float]) -> None:
    print(f"\n{title:24} {'overlayfs':>12} {'snapspec':>12} {'ratio':>8} {'aim':>8}")
    for name, aim in aims.items():
        own, ours = (statistics.median(taken[which, name]) for which in BOTH)
        print(f"{name:24} {own * 1e3:9.2f} ms {ours * 1e3:9.2f} ms {ours / own:8.2f} {aim:8.2f}")


AIMS = {"prepare": 1, "mounts": 2, "stat": 2, "usage, active": 1, "commit": 1, "usage, committed": 1, "remove": 1}


@pytest.mark.parametrize("subject", ["ref:overlay?size=2g", "ref:overlay?plain=yes"])
def test_beside_overlayfs(subject: str, workdir: Path) -> None:
    target = workdir / "m"
    (workdir / "p").mkdir()
    (workdir / "c").mkdir()
    target.mkdir()

    async def measured(address: str) -> None:
        channel = await connect(address)
        layer = Containerd(channel, "bench")
        await layer.create_lease("bench")
        remotes = {name: RemoteSnapshotter(address, name, "bench", "bench", deadline=300) for name in BOTH}
        try:
            for remote in remotes.values():
                await remote.prepare("base-active")
                await remote.commit("base", "base-active")
            for callers in (1, 8):
                await many(remotes, callers)
            await large(remotes)
        finally:
            for remote in remotes.values():
                await remote.close()
            await layer.delete_lease("bench", sync=True)
            await channel.close()

    async def many(remotes: dict[str, RemoteSnapshotter], callers: int) -> None:
        taken: Taken = {}
        for number in range(ROUNDS):
            for which in BOTH[:: -1 if number % 2 else 1]:
                note = lambda name, seconds, which=which: taken.setdefault((which, name), []).append(seconds)  # noqa: E731
                await lives(remotes[which], "base", f"{callers}-{number}", callers, note)
        show(f"{callers} callers, per call", taken, AIMS)

    async def large(remotes: dict[str, RemoteSnapshotter]) -> None:
        taken: Taken = {}
        for which in BOTH:
            remote = remotes[which]
            await remote.prepare("large")
            await fill(remote, target)
            for name, call in (
                ("commit", lambda remote=remote: remote.commit("large-done", "large")),
                ("usage, committed", lambda remote=remote: remote.usage("large-done")),
                ("usage again", lambda remote=remote: remote.usage("large-done")),
            ):
                taken[which, name] = [await batch([call], 1)]
        show(f"{LARGE} files", taken, {"commit": 0.05, "usage, committed": 1, "usage again": 1})

    print(f"\n{subject}")
    with served(workdir / "p", subject) as server, start_containerd(workdir / "c", proxies={"snapspec": server.socket}) as daemon:
        asyncio.run(measured(daemon.address))
