"""What the verdicts of parts make of the whole: nobody passes on what was left out, and nothing is decided where nothing ran."""

from __future__ import annotations

from itertools import product

import pytest

from snapspec.conformance.report.document import Clause, Expected, Level, Report, Verdict
from snapspec.conformance.report.text import verdict_line
from snapspec.conformance.report.verdicts import of_level, of_run, status

V = Verdict


def clauses(*verdicts: Verdict) -> list[Clause]:
    return [Clause(f"SNAP-KEY-{number}", verdict) for number, verdict in enumerate(verdicts, 1)]


def levels(*verdicts: Verdict) -> list[Level]:
    return [Level("core", verdict) for verdict in verdicts]


@pytest.mark.parametrize(
    ("of_clauses", "why", "verdict"),
    [
        ([], "", V.NOT_RUN),
        ([], "the subject is in another process", V.SKIPPED),
        ([V.PASSED, V.PASSED], "", V.PASSED),
        ([V.PASSED, V.PASSED], "without walk", V.PARTIAL),
        ([V.PASSED, V.SKIPPED], "", V.PARTIAL),
        ([V.SKIPPED, V.SKIPPED], "", V.SKIPPED),
        ([V.PASSED, V.EXPECTED], "", V.PARTIAL),
        ([V.EXPECTED], "", V.PARTIAL),
        ([V.PASSED, V.SKIPPED, V.NOT_REACHED], "", V.NOT_REACHED),
        ([V.NOT_REACHED, V.FAILED], "", V.FAILED),
        ([V.FAILED, V.PASSED], "without walk", V.FAILED),
        ([V.HANG, V.FAILED], "", V.FAILED),
        ([V.FAILED, V.ERROR], "", V.ERROR),
        ([V.EXPECTED, V.UNEXPECTED], "", V.UNEXPECTED),
    ],
)
def test_of_a_level(of_clauses: list[Verdict], why: str, verdict: Verdict) -> None:
    assert of_level(clauses(*of_clauses), why) is verdict


@pytest.mark.parametrize(
    ("of_levels", "verdict"),
    [
        ([], V.NOT_REACHED),
        ([V.NOT_RUN, V.NOT_RUN], V.NOT_REACHED),
        ([V.SKIPPED], V.NOT_REACHED),
        ([V.PASSED, V.NOT_RUN], V.PASSED),
        ([V.PASSED, V.SKIPPED], V.PARTIAL),
        ([V.PASSED, V.PARTIAL], V.PARTIAL),
        ([V.PASSED, V.NOT_REACHED], V.NOT_REACHED),
        ([V.NOT_REACHED, V.FAILED], V.FAILED),
        ([V.NOT_RUN, V.ERROR, V.FAILED], V.ERROR),
    ],
)
def test_of_a_run(of_levels: list[Verdict], verdict: Verdict) -> None:
    assert of_run(levels(*of_levels)) is verdict


@pytest.mark.parametrize(
    ("expected", "verdict"),
    [(V.EXPECTED, V.PARTIAL), (V.UNEXPECTED, V.UNEXPECTED), (V.SKIPPED, V.PASSED)],
)
def test_what_was_expected_counts(expected: Verdict, verdict: Verdict) -> None:
    assert of_run(levels(V.PASSED), [Expected("SNAP-KEY-1", "r", "https://x", expected)]) is verdict


def test_an_unexpected_pass_fails_even_a_run_that_reached_too_little() -> None:
    assert of_run(levels(V.NOT_REACHED), [Expected("SNAP-KEY-1", "r", "https://x", V.UNEXPECTED)]) is V.UNEXPECTED


def test_what_is_missing_of_a_run_makes_it_partial() -> None:
    assert of_run(levels(V.PASSED), why="shards 2 of 2 are missing") is V.PARTIAL
    assert of_run(levels(V.FAILED), why="shards 2 of 2 are missing") is V.FAILED
    assert of_run([], why="shards 2 of 2 are missing") is V.NOT_REACHED


def test_a_whole_is_never_better_than_a_part_of_it() -> None:
    """Of any two clauses: the level passes when both did, and its exit status is not smaller than that of either."""
    possible = [verdict for verdict in V if verdict not in (V.NOT_RUN, V.PARTIAL)]
    for pair in product(possible, repeat=2):
        level = of_level(clauses(*pair))
        assert (level is V.PASSED) == (set(pair) == {V.PASSED})
        if V.SKIPPED not in pair:
            assert (status(level) > 0) == any(status(verdict) > 0 for verdict in pair)


def test_the_exit_status() -> None:
    assert {verdict: status(verdict) for verdict in V} == {
        V.PASSED: 0,
        V.PARTIAL: 0,
        V.EXPECTED: 0,
        V.FAILED: 1,
        V.HANG: 1,
        V.UNEXPECTED: 1,
        V.ERROR: 2,
        V.NOT_REACHED: 2,
        V.SKIPPED: 2,
        V.NOT_RUN: 2,
    }


def test_the_last_line_counts_each_search_once_and_equal_ones_too() -> None:
    """The levels of calls one after another are one search."""
    held = (Clause("SNAP-KEY-1", V.PASSED, 3), Clause("SNAP-KEY-2", V.PASSED, 1))
    levels = tuple(
        Level(name, V.PASSED, histories=10, calls=20, restarts=1, seconds=1.0, clauses=held)
        for name in ("core", "usage", "concurrent", "durable")
    )
    assert verdict_line(Report("x", V.PASSED, levels)) == (
        "CONFORMS: x: 30 histories, 60 calls, 3 restarts, 2 of 2 clauses put to the test"
    )
    assert verdict_line(Report("x", V.NOT_REACHED, ())).endswith("0 histories, 0 calls, 0 of 0 clauses put to the test")
