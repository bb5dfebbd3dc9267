"""Expected failures: what fails as foreseen is marked with the reason; what does not, or matches nothing, fails the run."""

from __future__ import annotations

import pytest

from snapspec.conformance.driver_file import ExpectedFailure
from snapspec.conformance.report.document import Clause, Expected, Found, Level, Verdict
from snapspec.conformance.report.expect import judge_expected
from snapspec.conformance.report.verdicts import of_run

V = Verdict
KEY = ExpectedFailure("SNAP-KEY-1", "the name is lost", "https://x.org/1")


def found(clause: str = "SNAP-KEY-1", number: int = 1, verdict: Verdict = V.FAILED, level: str = "core") -> Found:
    return Found(number, level, clause, "prepare", (), verdict=verdict)


def level(*clauses: Clause, name: str = "core", verdict: Verdict = V.PASSED, why: str = "") -> Level:
    return Level(name, verdict, why, clauses=clauses)


FAILED = level(Clause("SNAP-KEY-1", V.FAILED, 3), Clause("SNAP-KEY-2", V.PASSED, 9), verdict=V.FAILED)
HELD = level(Clause("SNAP-KEY-1", V.PASSED, 3), Clause("SNAP-KEY-2", V.PASSED, 9))


def judged(*levels: Level, findings: tuple[Found, ...] = (), narrowed: bool = False, shard: str = "") -> Expected:
    (one,) = judge_expected([KEY], findings, levels, narrowed, shard)[2]
    assert (one.clause, one.reason, one.link) == ("SNAP-KEY-1", "the name is lost", "https://x.org/1")
    return one


def test_what_fails_as_expected_is_marked() -> None:
    findings, levels, expected = judge_expected([KEY], [found(), found(number=2)], [FAILED], narrowed=False)
    assert [(one.verdict, one.reason, one.link) for one in findings] == [(V.EXPECTED, KEY.reason, KEY.link)] * 2
    assert levels[0].clauses == (Clause("SNAP-KEY-1", V.EXPECTED, 3, KEY.reason), Clause("SNAP-KEY-2", V.PASSED, 9))
    assert levels[0].verdict is V.PARTIAL
    assert expected == (Expected("SNAP-KEY-1", KEY.reason, KEY.link, V.EXPECTED),)
    assert of_run(levels, expected) is V.PARTIAL


def test_a_call_that_hangs_can_be_expected() -> None:
    hangs = level(Clause("SNAP-KEY-1", V.HANG, 1), verdict=V.HANG)
    findings, levels, _ = judge_expected([KEY], [found(verdict=V.HANG)], [hangs], narrowed=False)
    assert (findings[0].verdict, levels[0].verdict) == (V.EXPECTED, V.PARTIAL)


def test_other_findings_stay_failures() -> None:
    failed = level(Clause("SNAP-KEY-1", V.FAILED, 3), Clause("SNAP-KEY-2", V.FAILED, 9), verdict=V.FAILED)
    findings, levels, expected = judge_expected([KEY], [found(), found("SNAP-KEY-2", 2)], [failed], narrowed=False)
    assert [one.verdict for one in findings] == [V.EXPECTED, V.FAILED]
    assert (levels[0].verdict, of_run(levels, expected)) == (V.FAILED, V.FAILED)


def test_one_that_passes_fails_the_run() -> None:
    _, levels, expected = judge_expected([KEY], [], [HELD], narrowed=False)
    assert expected[0].verdict is V.UNEXPECTED
    assert levels[0].clauses[0] == Clause("SNAP-KEY-1", V.UNEXPECTED, 3, "it was put to the test 3 times, and held")
    assert (levels[0].verdict, of_run(levels, expected)) == (V.UNEXPECTED, V.UNEXPECTED)


def test_a_finding_at_one_level_is_enough() -> None:
    durable = level(Clause("SNAP-KEY-1", V.PASSED, 1), name="durable")
    _, levels, expected = judge_expected([KEY], [found()], [FAILED, durable], narrowed=False)
    assert expected[0].verdict is V.EXPECTED
    assert (levels[0].verdict, levels[1]) == (V.PARTIAL, durable)


@pytest.mark.parametrize(
    ("levels", "narrowed", "shard", "verdict", "why"),
    [
        ([level(Clause("SNAP-KEY-1", V.PASSED, 1))], True, "", V.UNEXPECTED, "it was put to the test once, and held"),
        ([level(Clause("SNAP-KEY-1", V.NOT_REACHED))], False, "", V.UNEXPECTED, "nothing put it to the test"),
        ([level(Clause("SNAP-KEY-2", V.PASSED, 1))], False, "", V.UNEXPECTED, "matches nothing: no level that was run has"),
        ([level(Clause("SNAP-KEY-2", V.PASSED, 1))], False, "1/2", V.UNEXPECTED, "matches nothing"),
        ([], False, "", V.UNEXPECTED, "matches nothing"),
        ([level(Clause("SNAP-KEY-2", V.PASSED, 1))], True, "", V.SKIPPED, "nothing that was run has this clause"),
        ([level(Clause("SNAP-KEY-1", V.PASSED, 1))], False, "1/2", V.SKIPPED, "only shard 1/2 was drawn"),
        ([level(Clause("SNAP-KEY-1", V.SKIPPED, why="no walk"))], False, "", V.SKIPPED, "no walk"),
        ([HELD, level(name="durable", verdict=V.NOT_RUN)], False, "", V.UNEXPECTED, "3 times"),
        ([level(verdict=V.SKIPPED, why="no root")], False, "", V.SKIPPED, "level core: no root"),
        ([level(Clause("SNAP-KEY-1", V.PASSED, 1), verdict=V.ERROR)], False, "", V.SKIPPED, "level core: error"),
    ],
)
def test_without_a_finding(levels: list[Level], narrowed: bool, shard: str, verdict: Verdict, why: str) -> None:
    one = judged(*levels, narrowed=narrowed, shard=shard)
    assert one.verdict is verdict
    assert why in one.why


def test_a_level_that_came_to_an_error_stays_one() -> None:
    broken = level(Clause("SNAP-KEY-1", V.FAILED, 1), verdict=V.ERROR)
    _, levels, expected = judge_expected([KEY], [found()], [broken], narrowed=False)
    assert (levels[0].verdict, expected[0].verdict) == (V.ERROR, V.EXPECTED)


def test_nothing_expected_changes_nothing() -> None:
    assert judge_expected([], [found()], [FAILED], narrowed=False) == ((found(),), (FAILED,), ())
