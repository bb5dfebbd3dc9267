"""How fast the gated search is: whole runs of the written scenarios, set-up, oracle and the end with nothing left included.

Aims, on one core: 4,000 schedules a second in exhaustive search, 2,000 histories by chance, 500 under Hypothesis. Nothing is
asserted of the time: a machine may be busy.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapspec.conformance.ref_scenarios import SCENARIOS, Scenario
from snapspec.conformance.ref_search import play_scenario
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.schedule import Budget, Choose, explore, spelled
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.conformance.subjects.refs import RefsSubject
from snapspec.model.refs import Declared
from snapspec.model.state import Profile

SESSION = RefSession(RefsSubject("refs:model:", ModelSubject("model:", Profile()), Path(), Declared()), asyncio.Runner())

SECONDS = 3.0
EXAMPLES = 1500
AIMS = {"exhaustive": 4000, "by chance": 2000, "under Hypothesis": 500}
BUDGETS = (Budget(), Budget(faults=1), Budget(cancels=1), Budget(holds=1), Budget(crash=True))


def once(scenario: Scenario, budget: Budget, choose: Choose) -> int:
    """One run; gives how many of its events were told."""
    play_scenario(SESSION, scenario, budget, choose)
    return len(SESSION.run.events)


def exhaustive() -> tuple[int, int]:
    """Every schedule of every scenario without disturbances; gives how many runs and how many events."""
    seen: list[int] = []
    for scenario in SCENARIOS:
        explore(lambda choose, scenario=scenario: seen.append(once(scenario, Budget(), choose)))  # type: ignore[misc]  # bound by default
    return len(seen), sum(seen)


def by_chance() -> tuple[int, int]:
    """Any scenario, any disturbance, any choice, for some seconds."""
    draw, runs, events, end = random.Random(1), 0, 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        events += once(draw.choice(SCENARIOS), draw.choice(BUDGETS), lambda choices: draw.randrange(len(choices)))
        runs += 1
    return runs, events


def under_hypothesis() -> tuple[int, int]:
    """The same, drawn by Hypothesis."""
    seen: list[int] = []

    @settings(max_examples=EXAMPLES, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(SCENARIOS), st.sampled_from(BUDGETS), st.binary(min_size=16, max_size=32))
    def drawn(scenario: Scenario, budget: Budget, choices: bytes) -> None:
        seen.append(once(scenario, budget, spelled(choices)))

    drawn()
    return len(seen), sum(seen)


def main() -> None:
    """Measure in this process, and print the figures."""
    logging.disable(logging.WARNING)  # what the manager says of the faults that it meets
    mode = "with" if __debug__ else "without"
    drivers: dict[str, Callable[[], tuple[int, int]]] = {
        "exhaustive": exhaustive,
        "by chance": by_chance,
        "under Hypothesis": under_hypothesis,
    }
    for name, driver in drivers.items():
        begun = time.process_time()
        runs, events = driver()
        rate = runs / (time.process_time() - begun)
        size = f"{runs:,} of {events / runs:.0f} events"
        print(f"gated, {mode} contracts: {name}: {rate:,.0f} runs/s, aim {AIMS[name]:,} ({size})")


@pytest.mark.parametrize("flags", [[], ["-O"]], ids=["with contracts", "without contracts"])
def test_runs_per_second(flags: list[str]) -> None:
    """In a process of its own: contracts are compiled in or not when the model is imported."""
    environment = dict(os.environ, PYTHONPATH=":".join(entry for entry in sys.path if entry))
    done = subprocess.run([sys.executable, *flags, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("runs/s") == 3
    print(f"\n{done.stdout}", end="")


if __name__ == "__main__":
    main()
