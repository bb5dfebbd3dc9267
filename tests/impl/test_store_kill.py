"""The snapshotters under load, killed at any moment, and opened again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stores import KINDS, Place, asynchronous, layer, names, source

pytestmark = pytest.mark.root


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


#: Lanes of calls that go on until the process is killed. Each call is told when it is acknowledged.
CHILD = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from snapspec.impl.syscalls import enter_private_namespace
enter_private_namespace()
from stores import Place, source

async def lane(store, life, number):
    for turn in range(1_000_000):
        name = f"{life}.{number}.{turn}"
        mounts = await store.prepare("key " + name)
        print("P", name, flush=True)
        (source(mounts) / "file").write_text(name * 100)
        await store.commit(name, "key " + name)
        print("C", name, flush=True)
        await store.prepare("child " + name, name)
        print("A", name, flush=True)
        if turn % 3 == 0:
            await store.remove("child " + name)
            print("R", name, flush=True)
            await store.remove(name)
            print("D", name, flush=True)
        if turn % 7 == 0:
            await store.cleanup()

async def main(kind, directory, life):
    store = await Place(kind, Path(directory)).open()
    print("open", flush=True)
    await asyncio.gather(*(lane(store, life, number) for number in range(3)))

asyncio.run(main(*sys.argv[1:4]))
"""

#: What is there of one turn after each acknowledged call: key, committed, child.
AFTER = {"": (0, 0, 0), "P": (1, 0, 0), "C": (0, 1, 0), "A": (0, 1, 1), "R": (0, 1, 0), "D": (0, 0, 0)}


def run_and_kill(place: Place, life: int, seconds: float) -> dict[str, str]:
    """Let the lanes run for a while, kill the process; the last acknowledged call of each turn."""
    command = [sys.executable, "-c", CHILD, place.kind, str(place.directory), str(life), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        killer = threading.Timer(seconds, child.send_signal, [signal.SIGKILL])
        killer.start()
        lines = child.stdout.read().split("\n")
        killer.join()
    assert child.returncode == -signal.SIGKILL
    return {name: call for call, _, name in (line.partition(" ") for line in lines[:-1])}


@asynchronous
async def test_what_was_acknowledged_survives_a_kill(place: Place) -> None:
    chosen = random.Random(7)
    acknowledged: dict[str, str] = {}
    for life in range(3):
        told = run_and_kill(place, life, chosen.uniform(0.02, 0.4))
        acknowledged |= told
        async with place.opened() as store:
            there = set(await names(store))
            for name, call in acknowledged.items():
                now = tuple(int(key in there) for key in (f"key {name}", name, f"child {name}"))
                removed = int(name.split(".")[2]) % 3 == 0
                following = {"P": "C", "C": "A", "A": "R" if removed else "A", "R": "D", "D": "D"}[call]
                # The call after the last one that was told may have been cut off before or after its effect.
                assert now in (AFTER[call], AFTER[following]), (name, call)
                if now[1]:
                    written = source(await store.view("look", name)) / "file"
                    assert written.read_text() == name * 100
                    await store.remove("look")
                acknowledged[name] = next(c for c in (call, following) if AFTER[c] == now)
            unheard = {key.rpartition(" ")[2] for key in there if not key.startswith("after")} - acknowledged.keys()
            assert len(unheard) <= 3, "at most one first call of each lane"
            for name in unheard:
                assert there & {f"key {name}", name, f"child {name}"} == {f"key {name}"}
                await store.remove(f"key {name}")
            await store.cleanup()
            left = place.left()
            assert left["new"] == left["trash"] == []
            assert len(left["s"]) == len(await names(store))
            await layer(store, f"after {life}", file="x")
    assert len(acknowledged) > 10
