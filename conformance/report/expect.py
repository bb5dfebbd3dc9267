"""Failures that the driver's file expects: what has failed as foreseen, and what, against that, has not.

It is strict: an entry for what holds by now, or for what no level has, fails the run, so that the list stays true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from snapspec.conformance.driver_file import ExpectedFailure
from snapspec.conformance.report.document import Clause, Expected, Found, Level, Verdict
from snapspec.conformance.report.verdicts import of_level

#: What an entry foresees.
_FAILED = (Verdict.FAILED, Verdict.HANG)

#: What it does not: the clause was owed, and nothing is wrong with it.
_HELD = (Verdict.PASSED, Verdict.NOT_REACHED)

#: Levels of which nothing is known.
_UNKNOWN = (Verdict.ERROR, Verdict.SKIPPED)


def judge_expected(
    entries: Sequence[ExpectedFailure], findings: Sequence[Found], levels: Sequence[Level], narrowed: bool, shard: str = ""
) -> tuple[tuple[Found, ...], tuple[Level, ...], tuple[Expected, ...]]:
    """The findings and levels with what was expected marked as such, and what has come of each entry.

    Every finding of an expected clause is EXPECTED, and so is the clause. An entry without a finding is UNEXPECTED where its
    clause was owed, and so is the clause then, or where no level has it: except that it is SKIPPED, and says why, where it was
    not looked for: the clause was left out; no level that was run has it, and the run was `narrowed` by whoever began it; the
    level came to an error; or it is owed, but `shard` "I/N" is all that was drawn.
    """
    failed = {found.clause for found in findings if found.verdict in _FAILED}
    failed |= {clause.id for level in levels for clause in level.clauses if clause.verdict in _FAILED}
    known = {entry.clause: entry for entry in entries}
    expected = tuple(_judge(entry, entry.clause in failed, levels, narrowed, shard) for entry in known.values())
    marks = {one.clause: one for one in expected}
    return tuple(_found(found, known) for found in findings), tuple(_level(level, marks) for level in levels), expected


def _judge(entry: ExpectedFailure, failed: bool, levels: Sequence[Level], narrowed: bool, shard: str) -> Expected:
    verdict, why = (Verdict.EXPECTED, "") if failed else _without_finding(entry.clause, levels, narrowed, shard)
    return Expected(entry.clause, entry.reason, entry.link, verdict, why)


def _without_finding(id_: str, levels: Sequence[Level], narrowed: bool, shard: str) -> tuple[Verdict, str]:
    here = [(level, clause) for level in levels for clause in level.clauses if clause.id == id_]
    held = [(level, clause) for level, clause in here if clause.verdict in _HELD and level.verdict not in _UNKNOWN]
    unknown = [level for level in levels if level.verdict in _UNKNOWN]
    if held and shard:
        return Verdict.SKIPPED, f"only shard {shard} was drawn: join all of them with snapspec report"
    if held:
        return Verdict.UNEXPECTED, _how_it_held([clause for _, clause in held])
    if here:
        level, clause = here[0]
        return Verdict.SKIPPED, clause.why or f"level {level.name}: {level.why or level.verdict.value}"
    if narrowed:
        return Verdict.SKIPPED, "nothing that was run has this clause"
    if unknown:
        return Verdict.SKIPPED, f"level {unknown[0].name}: {unknown[0].why or unknown[0].verdict.value}"
    return Verdict.UNEXPECTED, "matches nothing: no level that was run has this clause"


def _how_it_held(clauses: Sequence[Clause]) -> str:
    count = sum(clause.count for clause in clauses)
    if not count:
        return "nothing put it to the test"
    return f"it was put to the test {'once' if count == 1 else f'{count} times'}, and held"


def _found(found: Found, known: Mapping[str, ExpectedFailure]) -> Found:
    entry = known.get(found.clause)
    if entry is None or found.verdict not in _FAILED:
        return found
    return replace(found, verdict=Verdict.EXPECTED, reason=entry.reason, link=entry.link)


def _level(level: Level, marks: Mapping[str, Expected]) -> Level:
    clauses = tuple(_clause(clause, marks.get(clause.id)) for clause in level.clauses)
    if clauses == level.clauses:
        return level
    verdict = level.verdict if level.verdict in (*_UNKNOWN, Verdict.NOT_RUN) else of_level(clauses, level.why)
    return replace(level, clauses=clauses, verdict=verdict)


def _clause(clause: Clause, mark: Expected | None) -> Clause:
    if mark is not None and clause.verdict in _FAILED:
        return replace(clause, verdict=Verdict.EXPECTED, why=mark.reason)
    if mark is not None and mark.verdict is Verdict.UNEXPECTED and clause.verdict in _HELD:
        return replace(clause, verdict=Verdict.UNEXPECTED, why=mark.why)
    return clause
