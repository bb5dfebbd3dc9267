"""How fast recordings are judged, and what a recorder adds to a call. Nothing is asserted of the time: a machine may be busy.

Aims: on one core the labelled histories of other systems together in 5 s, 100,000 calls of eight callers in 60 s; less than 1 ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kit"))

import simulated
from porcupine import DATA
from porcupine import load as load_labelled
from recorder import recorded

from snapspec.conformance.linear import Verdict, check
from snapspec.conformance.recordings.judge import judge
from snapspec.conformance.recordings.recording import load
from snapspec.conformance.subjects.remote import RemoteSnapshotter


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the labelled histories in {DATA}: lay them there")
def test_labelled_histories() -> None:
    labels = json.loads((DATA / "labels.json").read_text())
    began = time.process_time()
    verdicts = [check(load_labelled(DATA / name)).verdict for name in labels]
    print(f"\n{len(verdicts)} labelled histories: {time.process_time() - began:.1f} s of one core")
    assert Verdict.UNKNOWN not in verdicts


def test_a_hundred_thousand_calls(tmp_path: Path) -> None:
    path = tmp_path / "r"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-O", simulated.__file__, "100000", "8", "1", "30", str(path)], check=True, env=environment)
    began, clock = time.process_time(), time.monotonic()
    opinion = judge(load(path))
    core, whole = time.process_time() - began, time.monotonic() - clock
    print(f"\n100,000 calls of eight callers: {core:.1f} s of one core, {whole:.1f} s in all")
    assert (opinion.verdict, opinion.calls) == (Verdict.LEGAL, 100_000)


@pytest.mark.root
def test_what_a_recorder_adds(workdir: Path) -> None:
    """Call by call in turn through the recorder and past it, so that both meet the same machine."""

    async def measure() -> tuple[float, float]:
        remotes = [RemoteSnapshotter(f"unix://{socket}", "snapspec") for socket in (there.plugin, there.socket)]
        await remotes[0].prepare("a")
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(1000):
            for remote, taken in zip(remotes, times, strict=True):
                began = time.perf_counter()
                await remote.stat("a")
                taken.append(time.perf_counter() - began)
        for remote in remotes:
            await remote.close()
        return statistics.median(times[0]), statistics.median(times[1])

    with recorded(workdir) as there:
        direct, through_it = asyncio.run(measure())
    print(f"\nstat: {1000 * direct:.2f} ms directly, {1000 * through_it:.2f} ms through the recorder")
    assert through_it > direct
