"""The tutorial does what it says: each step's driver is put together from its blocks, and each command prints what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tutorial import Shown, pattern, shown

TEXT = (Path(__file__).parents[2] / "conformance" / "tutorial.md").read_text(encoding="utf-8")

STEPS = list(shown(TEXT))

#: What make test has no time for: all commands run in make deep.
QUICK = ("SNAP-CONTENT-1", "SNAP-USAGE-5")


#: Where modules are found, whatever the directory.
PATHS = os.pathsep.join(str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)


def _steps() -> Iterator[object]:
    for number, step in enumerate(STEPS, 1):
        quick = step.finding in QUICK and "--seed" not in step.words
        yield pytest.param(step, id=f"{number}: {step.finding}", marks=() if quick else pytest.mark.deep)


@pytest.mark.root
@pytest.mark.parametrize("step", list(_steps()))
def test_a_step_prints_what_the_tutorial_shows(step: Shown, workdir: Path) -> None:
    (workdir / "mydriver.py").write_text(step.driver, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", *step.words],
        cwd=workdir,
        env={**os.environ, "PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert re.fullmatch(pattern(step.printed), run.stdout), f"{run.stdout}\n--- is not what the tutorial shows:\n{step.printed}"
    assert run.returncode == step.status


def test_the_tutorial_goes_from_nothing_to_a_green_run() -> None:
    statuses = [step.status for step in STEPS]
    assert statuses[:3] == [2, 2, 2], "it begins with what cannot run"
    assert statuses[-2:] == [0, 0]
    assert len({step.finding for step in STEPS if step.status == 1}) >= 8, "wrong turns, each of another kind"


@pytest.mark.parametrize(
    ("shows", "printed", "is_shown"),
    [
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b d\n", False),
        ("a\n", "a  \n", True),
        ("a\n", "a\nb\n", False),
        ("a.\n", "ab\n", False),
    ],
)
def test_what_is_cut_stands_for_what_is_there(shows: str, printed: str, is_shown: bool) -> None:
    assert bool(re.fullmatch(pattern(shows), printed)) is is_shown
