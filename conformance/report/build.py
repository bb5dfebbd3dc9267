"""From what the searches have come to, to the report: verdicts of clauses, levels and findings."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from snapspec.conformance.aside import kind_of
from snapspec.conformance.base_search import Entry
from snapspec.conformance.history import Finding, line
from snapspec.conformance.outcome import Outcome
from snapspec.conformance.owed import decides, family, level_of, owed, promise_of
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report.document import LEVELS, Clause, Found, Level, Report, Verdict
from snapspec.conformance.report.expect import judge_expected
from snapspec.conformance.report.found import found
from snapspec.conformance.report.text import disturbance_lines
from snapspec.conformance.report.verdicts import of_level, of_run
from snapspec.conformance.session import LATE
from snapspec.conformance.settings import Search, Settings
from snapspec.conformance.subjects.address import parse
from snapspec.model.guards import Door
from snapspec.model.state import Profile

#: The families that a check does not reach which leaves that out; of other things the family is their own name's.
_REACHED_BY: Mapping[str, tuple[str, ...]] = {
    "read": ("SNAP-CONTENT-", "SNAP-VIEW-", "SNAP-MOUNTS-"),
    "view": ("SNAP-VIEW-", "SNAP-MOUNTS-", "SNAP-USAGE-2"),
    "update": ("SNAP-UPDATE-", "SNAP-LABEL-", "SNAP-TIME-"),
    "remove": ("SNAP-REMOVE-", "SNAP-KEY-"),
    "reopen": ("SNAP-OPEN-", "SNAP-CLOSE-", "SNAP-CLEANUP-"),
    "links": ("SNAP-CONTENT-",),
    "devices": ("SNAP-CONTENT-",),
    "collect": ("DOOR-GC-",),
    "nowhere": ("DOOR-NS-",),
    "cut": ("SNAP-DURABLE-2",),
    "get_mutable": ("REF-MUT-",),
    "disk_usage": ("REF-USAGE-",),
    "finalize": ("REF-FINAL-",),
    "restart": ("REF-OPEN-",),
}


def report(chosen: Settings, outcomes: Sequence[tuple[Search, Outcome]], began: str, seconds: float) -> Report:
    """The report of a check whose searches have come to these outcomes."""
    findings = _findings(chosen, outcomes)
    made = {level.name: level for search, outcome in outcomes for level in _levels(search, outcome, findings)}
    made |= {name: Level(name, Verdict.SKIPPED, why) for name, why in chosen.skipped}
    levels = tuple(made.get(name) or Level(name, Verdict.NOT_RUN) for name in LEVELS)
    findings, levels, expected = judge_expected(chosen.expected, findings, levels, chosen.narrowed, chosen.shard_text)
    why = next((_why(outcome) for _, outcome in outcomes if _why(outcome)), "")
    return Report(
        chosen.subject,
        Verdict.ERROR if why else of_run(levels, expected),
        levels,
        findings,
        expected,
        chosen.name,
        chosen.version,
        chosen.profile,
        chosen.seed,
        chosen.shard_text,
        chosen.command,
        began,
        seconds,
        versions(),
        why,
        tuple(dict.fromkeys(note for _, outcome in outcomes for note in outcome.left)),
    )


def _why(outcome: Outcome) -> str:
    return outcome.trouble or outcome.fault


def versions() -> dict[str, str]:
    """Of the kit, the spec, Python and the machine. The spec's is a digest of its text."""
    text = files("snapspec.conformance").joinpath("spec.md").read_bytes()
    try:
        kit = version("snapspec")
    except PackageNotFoundError:
        kit = "not installed"
    kernel = f"{platform.system()} {platform.release()}"
    digest = hashlib.sha256(text).hexdigest()[:12]
    return {"kit": kit, "spec": digest, "python": platform.python_version(), "kernel": kernel, "machine": os.uname().machine}


def families_of(level: str, chosen: Settings) -> tuple[str, ...]:
    """The families of clauses that the level may decide about, before it is known what the driver declares."""
    address = parse(chosen.subject)
    refs = level == "refs" or address.refs or address.own_refs
    profile = Profile(door=Door.METADATA if address.kind == "containerd" else Door.DIRECT)
    promise = promise_of(level, refs=refs, power=chosen.power)
    owes = owed(profile, refs, promise)
    return tuple(dict.fromkeys(family(clause) for clause in owes if decides(level, clause, refs, promise)))


# --- findings


def _findings(chosen: Settings, outcomes: Sequence[tuple[Search, Outcome]]) -> tuple[Found, ...]:
    every = [(search, outcome.profile, entry) for search, outcome in outcomes for entry in outcome.found]
    return tuple(_found(number, chosen, *each) for number, each in enumerate(every, 1))


def _found(number: int, chosen: Settings, search: Search, profile: Profile | None, entry: Entry[Any]) -> Found:
    finding, subject = entry.finding, search.plan.subject
    clause = finding.clause
    level = level_of(clause) if level_of(clause) in search.levels else search.name
    at = kind_of(finding).at or "calls that overlap"
    histories, seconds = entry.after
    made = found(number, level, finding, at, subject=subject, profile=profile)
    start = ["--start", chosen.start] if chosen.start else []
    return replace(
        made,
        histories=histories,
        seconds=seconds,
        verdict=Verdict.HANG if hangs(finding) else Verdict.FAILED,
        after=after(finding),
        again=shlex.join(["snapspec", "replay", str((chosen.out or Path()) / made.file), subject, *start]),
    )


def hangs(finding: Finding | RefFinding) -> bool:
    """Whether it is that a call did not answer."""
    return finding.clause == "SNAP-LIVE-1" and LATE in finding.mismatches[0].came


def after(finding: Finding | RefFinding) -> tuple[str, ...]:
    """The findings that have to come before this one shows: their clause is broken on the way, at these calls."""
    steps = finding.steps[:-1] if isinstance(finding, Finding) else ()
    return tuple(dict.fromkeys(line(step) for step in steps if step.aside and not step.check))


# --- levels


def _levels(search: Search, outcome: Outcome, findings: Sequence[Found]) -> Iterator[Level]:
    """The levels that the search decides about. What it did besides is told of the first."""
    owes = owed(outcome.profile, outcome.refs, outcome.promise) if outcome.profile is not None else []
    for name in search.levels:
        mine = [c for c in owes if decides(name, c, outcome.refs, outcome.promise)]
        mine += [one.clause for one in findings if one.level == name and one.clause not in mine]
        clauses = tuple(_clause(c, search, outcome, findings) for c in dict.fromkeys(mine))
        why = _left_out(search, outcome)
        yield Level(
            name,
            Verdict.ERROR if _why(outcome) else of_level(clauses, why),
            _why(outcome) or why,
            outcome.note,
            outcome.histories,
            outcome.calls,
            outcome.restarts,
            outcome.powered.images,
            outcome.seconds,
            clauses,
            tuple(_lines(outcome)) if name == search.name else (),
        )


def _lines(outcome: Outcome) -> Iterator[str]:
    yield from outcome.lines
    yield from outcome.powered.lines() if outcome.powered.images else ()
    yield from disturbance_lines(outcome.disturbed)


def _left_out(search: Search, outcome: Outcome) -> str:
    """What was not drawn, and why."""
    asked = [name for name in search.plan.without if name not in outcome.hung]
    parts = (
        ("left out", asked),
        ("not called any more once one had not answered", outcome.hung),
        ("not permitted on this machine", outcome.lacks),
    )
    return "; ".join(f"{why}: {', '.join(what)}" for why, what in parts if what)


def _clause(clause: str, search: Search, outcome: Outcome, findings: Sequence[Found]) -> Clause:
    count = outcome.reached.get(clause, 0)
    broken = [one for one in findings if one.clause == clause and one.level in search.levels]
    if broken:
        return Clause(clause, min((one.verdict for one in broken), key=list(Verdict).index), max(count, len(broken)))
    if count:
        return Clause(clause, Verdict.PASSED, count)
    if clause in outcome.beyond:
        return Clause(clause, Verdict.SKIPPED, 0, outcome.beyond[clause])
    left_out = [name for name in (*search.plan.without, *outcome.hung) if clause.startswith(_reached(name))]
    if left_out:
        return Clause(clause, Verdict.SKIPPED, 0, f"left out: {', '.join(dict.fromkeys(left_out))}")
    return Clause(clause, Verdict.NOT_REACHED)


def _reached(name: str) -> tuple[str, ...]:
    return _REACHED_BY.get(name, (f"SNAP-{name.upper()}-", f"REF-{name.upper()}-"))
