"""What a run says in plain lines: the progress, a finding, the result."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from snapspec.conformance.clauses import clauses
from snapspec.conformance.history import Finding, Step, call_text, decode_finding, line
from snapspec.conformance.options import SEQUENTIAL
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.owed import owed
from snapspec.conformance.ref_history import RefFinding, length
from snapspec.conformance.report.document import Found, Level, Report, Verdict
from snapspec.conformance.run import Run
from snapspec.model.replies import Mismatch, Returned

WIDTH = 110


def finding_lines(found: Finding | RefFinding) -> Iterator[str]:
    """A finding: the shortest history, what was allowed, what came, the clause and its text."""
    if isinstance(found, RefFinding):
        yield from _run_lines(found)
    elif isinstance(found.steps[-1].op, AtOnce):
        yield from _overlap_lines(found.steps[-1])
    else:
        yield from _call_lines(found)
    for mismatch in found.mismatches:
        yield from mismatch_lines(mismatch)
    yield ""
    yield from clause_lines(m.clause for m in found.mismatches)


def clause_lines(broken: Iterable[str]) -> Iterator[str]:
    """The text of each of the clauses, once."""
    for clause in dict.fromkeys(broken):
        yield from textwrap.wrap(
            f"{clause}: {clauses().get(clause, 'unknown')}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )


def _overlap_lines(step: Step) -> Iterator[str]:
    yield "DIVERGES, with calls that overlap:"
    yield ""
    value = step.response.value if isinstance(step.response, Returned) else None
    lines = [str(text) for text in value] if isinstance(value, tuple) else [line(step)]
    yield from (f"  {text}".rstrip() for text in lines)
    yield ""
    yield "  at the call that has no place:" if isinstance(value, tuple) else "  at one of them:"


def _run_lines(found: RefFinding) -> Iterator[str]:
    yield f"DIVERGES from {found.clause}, with {length(found.bursts)} steps:"
    yield ""
    for text in found.told:
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent=" " * 9, drop_whitespace=False)
    yield ""
    yield "  at the last line:"


def _call_lines(found: Finding) -> Iterator[str]:
    calls = found.calls
    yield f"DIVERGES from {found.clause}, with {len(calls)} call{'s' if len(calls) > 1 else ''}:"
    yield ""
    for number, step in enumerate(calls, 1):
        yield f"  {number:2}  {line(step)}"
    yield ""
    yield f"  at call {len(calls)}, {call_text(calls[-1].op)}:"


def mismatch_lines(mismatch: Mismatch) -> Iterator[str]:
    """What was allowed, and what came."""
    for title, text in (("allowed", f"{mismatch.expected}  [{mismatch.clause}]"), ("came", mismatch.came)):
        yield from textwrap.wrap(f"{title:8} {text}", WIDTH, initial_indent="      ", subsequent_indent=" " * 15)


def summary(run: Run, subject: str) -> str:
    """The last line of a smoke or a replay that found nothing."""
    reached = run.reached
    known = owed(run.profile, run.refs, run.promise)
    met = [c for c in known if c in reached]
    images = f"{run.power.images} power-cut images, " if run.power.images else ""
    done = f"{images}{run.histories} histories, {run.calls} calls" + (f", {run.restarts} restarts" if run.restarts else "")
    return f"CONFORMS: {subject}: {done}, {len(met)} of {len(known)} clauses put to the test"


#: What is done to calls, by how its words begin, and how it is told.
_WAYS = {
    "fail before": "faults before the effect",
    "fail after": "faults after the effect",
    "cancel": "cancellations",
    "hold": "held answers",
    "crash": "crashes",
    "full": "with no room left",
    "read-only": "with a read-only file system",
    "broken": "with a file system given up",
}


def disturbance_lines(disturbed: Mapping[str, int]) -> Iterator[str]:
    """How often calls were disturbed, and at how many points each operation met a fault; nothing where nothing was disturbed.

    `disturbed` is how often what was done to which operation: `operation: what`.
    """
    counts: Counter[str] = Counter()
    points: dict[str, set[str]] = defaultdict(set)
    for what, count in disturbed.items():
        operation, _, done = what.partition(": ")
        way = next(way for way in _WAYS if done.startswith(way))
        counts[way] += count
        if way.startswith("fail"):
            points[operation].add(done.removeprefix(way))
    if counts:
        yield "disturbed: " + ", ".join(f"{counts[way]} {told}" for way, told in _WAYS.items() if counts[way])
    if points:
        yield "fault points: " + ", ".join(f"{operation} {len(at)}" for operation, at in sorted(points.items()))


def progress_line(run: Run, examples: int) -> str:
    """One line for a terminal."""
    known = owed(run.profile, run.refs, run.promise)
    met = sum(1 for c in known if c in run.reached)
    doing = f"{run.examples} of {examples} {run.counted}" + (", making a finding shorter" if run.shrinking else "")
    return f"{run.calls} calls, {met} of {len(known)} clauses, {doing}"


# --- a report in plain lines


def found_lines(found: Found) -> Iterator[str]:
    """A finding of a report: its history, what was allowed, what came, the clause and its text."""
    yield from finding_lines(decode_finding(found.history))
    if found.after:
        yield ""
        yield "  It shows only after another finding, in the same history:"
        yield from (f"    {text}" for text in found.after)


def report_lines(report: Report) -> Iterator[str]:
    """The levels, what was expected and is not so, and the verdict."""
    width = max(len(level.name) for level in report.levels)
    for level in report.levels:
        if level.verdict is not Verdict.NOT_RUN:
            yield f"{level.name:{width}}  {level.verdict.value:16} {level_text(level)}"
    yield from (f"expected to fail, {one.clause}: {one.why}" for one in report.expected if one.verdict is Verdict.UNEXPECTED)
    yield verdict_line(report)


def level_text(level: Level) -> str:
    """What a level did, and why it is not passed."""
    if not level.clauses:
        return level.why
    reached = sum(clause.count > 0 for clause in level.clauses)
    done = f"{reached} of {len(level.clauses)} clauses"
    return f"{done}; {level.why}" if level.why else done


#: How a verdict of a run is told.
TOLD = {
    Verdict.PASSED: "CONFORMS",
    Verdict.PARTIAL: "CONFORMS IN PART",
    Verdict.FAILED: "DIVERGES",
    Verdict.HANG: "HANGS",
    Verdict.UNEXPECTED: "AN EXPECTED FAILURE IS NONE",
    Verdict.NOT_REACHED: "NOT DECIDED",
    Verdict.ERROR: "THE CHECK FAILED",
}


def verdict_line(report: Report) -> str:
    """The last line of a run: the verdict, and what it stands on."""
    ran = [level for level in report.levels if level.clauses]
    # The levels of calls one after another are one search, and each of them has its counts.
    searches = {SEQUENTIAL if level.name in SEQUENTIAL else (level.name,): level for level in ran}.values()
    counts = [(level.histories, level.calls, level.restarts, level.images) for level in searches]
    histories, calls, restarts, images = map(sum, zip((0, 0, 0, 0), *counts, strict=True))
    clauses = {clause.id: clause for level in ran for clause in level.clauses}
    reached = {clause.id for level in ran for clause in level.clauses if clause.count}
    done = f"{images} power-cut images, " if images else ""
    done += f"{histories} histories, {calls} calls" + (f", {restarts} restarts" if restarts else "")
    findings = [one for one in report.findings if one.verdict is not Verdict.EXPECTED]
    counted = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}, " if findings else ""
    left_out = dict.fromkeys(level.why for level in ran if level.why)
    in_part = f" ({'; '.join(left_out)})" if report.verdict is Verdict.PARTIAL and left_out else ""
    met = f"{len(reached)} of {len(clauses)} clauses put to the test"
    return f"{TOLD[report.verdict]}{in_part}: {report.subject}: {counted}{done}, {met}"
