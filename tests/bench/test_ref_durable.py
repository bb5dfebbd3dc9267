"""How many kills and how many power-cut images of a manager of refs one core makes and judges in a second.

The aims: several kills a second, and 1,000 images within a few minutes on two cores. Nothing is asserted of the time.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.durable import place as place_of
from snapspec.conformance.durable import recorder, ref_power
from snapspec.conformance.durable.ref_kill import RefKillSession, make_once
from snapspec.conformance.durable.ref_kills import scenarios
from snapspec.conformance.durable.ref_world import KilledRefs
from snapspec.conformance.subjects.reference import Ground, ReferenceSubject
from snapspec.model.refs import Declared

pytestmark = pytest.mark.root

KILLS, IMAGES = 120, 150

GROUNDS = [Ground("overlay", True, False, "a pool of its own"), Ground("copy", False, False, "plain copies")]


@pytest.mark.parametrize("ground", GROUNDS, ids=["overlay", "copy"])
def test_kills(ground: Ground, workdir: Path) -> None:
    for place in ("mnt", "driver", "stores"):
        (workdir / place).mkdir(mode=0o700)
    under = ReferenceSubject("ref:", Contents(workdir / "mnt"), workdir / "driver", ground, 256 << 20, "ext4")
    with asyncio.Runner() as runner:
        session = RefKillSession(KilledRefs("refs:", under, workdir / "stores", Declared()), runner)
        try:
            runner.run(session.subject.start())
            began = time.perf_counter()
            _kill(session)
            took = time.perf_counter() - began
        finally:
            session.stop()
    print(f"\n{ground.driver}: {session.histories} histories, {session.restarts} kills, {session.calls} calls: ", end="")
    print(f"{session.restarts / took:.1f} kills a second")


def _kill(session: RefKillSession) -> None:
    while True:
        for bursts in scenarios(Limits(frozenset())):
            assert make_once(session, bursts) is None
            if session.restarts >= KILLS:
                return


@pytest.mark.skipif(bool(recorder.lacking()), reason=recorder.lacking())
def test_images(workdir: Path) -> None:
    with place_of.place(workdir) as here:
        began = time.perf_counter()
        done = ref_power.run(here, IMAGES, seed=1)
        took = time.perf_counter() - began
    print(f"\n{done.text()}\n{IMAGES / took:.1f} images a second on one core; 1,000 take {1000 * took / IMAGES:.0f} s")
    assert (done.images, done.found) == (IMAGES, None)
