"""How fast the model is: one step is to make all outcomes of a call and to judge its answer by them.

Aims: 50,000 steps a second without contracts, 2,000 with. Nothing is asserted of the time: a machine may be busy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the run without contracts, which no conftest prepares

from driver import Driver

from snapspec.model import ops
from snapspec.model.explore import Universe, operations
from snapspec.model.ops import Operation
from snapspec.model.oracle import Belief, begin, perform
from snapspec.model.replies import Accepted, Lost, Response, judge
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Span, State
from snapspec.model.tree import MakeDirectory, MakeFile, RemoveTree, WriteAt

STEPS = 5000
AIMS = {"with": 2000, "without": 50000}

#: One call of a history: the store before it, the call, its instant, and what the driver answered.
Step = tuple[State, Operation, Span, Response]

CALLS = tuple(
    operations(
        Universe(
            keys=tuple("abcdefgh"),
            labels=((), (("a", "1"),)),
            masks=((), ("labels.a",)),
            filters=("kind==active", "labels.a==1"),
            changes=((MakeDirectory("d"), MakeFile("d/f", b"x" * 5000)), (WriteAt("d/f", 4096, b"y"),), (RemoveTree("d"),)),
        )
    )
)


def recorded(seed: int = 1) -> list[Step]:
    """A random history: each kind of call is as likely as any other, the right and the wrong arguments as they come."""
    random = Random(seed)
    kinds: dict[type, list[Operation]] = {}
    for op in CALLS:
        kinds.setdefault(type(op), []).append(op)
    # Without many new snapshots and few removals there is nothing to look at.
    weights = {ops.Prepare: 4, ops.Commit: 3, ops.Write: 2}
    driver = Driver(State())
    steps: list[Step] = []
    for number in range(STEPS):
        driver.clock = number
        kind = random.choices(list(kinds), [weights.get(kind, 1) for kind in kinds])[0]
        before, op = driver.state, random.choice(kinds[kind])
        steps.append((before, op, Span(number, number), driver.do(op, 0)))
    return steps


def judged(steps: list[Step]) -> int:
    """Make the outcomes of each step and judge its answer by them; gives how many were accepted."""
    accepted = 0
    for state, op, at, response in steps:
        assert not isinstance(response, Lost)
        accepted += any(isinstance(judge(outcome, response), Accepted) for outcome in outcomes(state, op, at))
    return accepted


def believed(steps: list[Step]) -> int:
    """The same history through the oracle, which learns on the way; gives how many answers it took."""
    belief: Belief | object = begin(State())
    taken = 0
    for _, op, at, response in steps:
        assert isinstance(belief, Belief)
        belief = perform(belief, op, response, at.earliest, at.latest)
        taken += 1
    return taken


def main() -> None:
    """Measure in this process, and print the figures."""
    mode = "with" if __debug__ else "without"
    steps = recorded()
    largest = max(len(state.snapshots) for state, *_ in steps)
    for name, run in (("outcomes and judge", judged), ("through the oracle", believed)):
        begun = time.perf_counter()
        done = run(steps)
        seconds = time.perf_counter() - begun
        if done != len(steps):
            raise SystemExit(f"{name}: only {done} of {len(steps)} answers were accepted")
        aim = f", aim {AIMS[mode]:,}" if run is judged else ""
        print(f"model, {mode} contracts: {name}: {done / seconds:,.0f} steps/s{aim} (up to {largest} snapshots)")


@pytest.mark.parametrize("flags", [[], ["-O"]], ids=["with contracts", "without contracts"])
def test_steps_per_second(flags: list[str]) -> None:
    """In a process of its own: contracts are compiled in or not when the model is imported."""
    environment = dict(os.environ, PYTHONPATH=":".join(entry for entry in sys.path if entry))
    done = subprocess.run([sys.executable, *flags, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("steps/s") == 2
    print(f"\n{done.stdout}", end="")


if __name__ == "__main__":
    main()
