"""How many power-cut images a minute are made, mounted, checked, opened and judged.

The aim: 1,000 images within a few minutes on two cores. Nothing is asserted of the time: a machine may be busy.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from snapspec.conformance.durable import power, recorder
from snapspec.conformance.durable.place import place

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(recorder.lacking()), reason=recorder.lacking())]

IMAGES = 200


def test_images(workdir: Path) -> None:
    with place(workdir) as here:
        began = time.perf_counter()
        done = power.run(here, IMAGES, seed=1)
        took = time.perf_counter() - began
    print(f"\n{done.text()}\n{IMAGES / took:.1f} images a second on one core; 1,000 take {1000 * took / IMAGES:.0f} s")
    assert done.images == IMAGES
