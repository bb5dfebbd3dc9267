"""The reports of several machines as one: each has run a share of the histories, `--shard I/N`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath

from snapspec.conformance.driver_file import ExpectedFailure
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.report.document import LEVELS, Clause, Expected, Found, Level, Report, Verdict
from snapspec.conformance.report.expect import judge_expected
from snapspec.conformance.report.verdicts import of_level, of_run
from snapspec.conformance.report.write import file_name

#: Of the versions those that must be the same: the others are of the machines.
_SAME = ("kit", "spec")

#: What has come of one clause on several machines, the first that occurs. Put to the test on one of them is put to the test.
_ORDER = (Verdict.ERROR, Verdict.FAILED, Verdict.HANG, Verdict.PASSED, Verdict.NOT_REACHED, Verdict.SKIPPED)


def merge(reports: Sequence[Report]) -> Report:
    """One report of all: counts added, findings joined, the verdicts made anew. A single report of a whole run is given back.

    Findings are the same when level, clause and `at` are; the one with the shortest history is kept. Where a shard is missing
    the report is partial at best, and its `why` names the shards. CannotRun, with the remedy, for reports that do not belong
    together.
    """
    if not reports:
        raise CannotRun("nothing is to be joined: name the report.json of each shard")
    if len(reports) == 1 and not reports[0].shard:
        return reports[0]
    numbers, count = _shards(reports)
    _require_same(reports)
    ordered = [report for _, report in sorted(zip(numbers, reports, strict=True), key=lambda pair: pair[0])]
    missing = _missing(numbers, count)
    entries, narrowed = _entries(ordered)
    shard = f"{_and(numbers)} of {count}" if missing else ""
    findings, levels, expected = judge_expected(entries, _findings(ordered), _levels(ordered), narrowed, shard)
    why = "; ".join(_distinct([*(report.why for report in ordered), missing]))
    return replace(
        ordered[0],
        levels=levels,
        findings=findings,
        expected=expected,
        verdict=_verdict(ordered, levels, expected, missing),
        shard="",
        command=re.sub(r" --shard[ =]\S+", "", ordered[0].command),
        began=min(report.began for report in ordered),
        seconds=max(report.seconds for report in ordered),
        versions=_versions(ordered),
        why=why,
        notes=_distinct([*(note for report in ordered for note in report.notes), *_seeds(ordered)]),
    )


# --- whether they belong together


def _shards(reports: Sequence[Report]) -> tuple[list[int], int]:
    """The number of each, and how many there are in all."""
    numbers, counts = [], set()
    for report in reports:
        found = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", report.shard, re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            raise CannotRun(f"the report of {report.began or report.subject} is of no shard: join those of runs with --shard I/N")
        numbers.append(int(found[1]))
        counts.add(int(found[2]))
        if int(found[1]) in numbers[:-1]:
            raise CannotRun(f"shard {report.shard} is there twice: name the report of each shard once")
    if len(counts) > 1:
        raise CannotRun(f"the reports are of runs with {_and(counts)} shards: join those of one run")
    return numbers, counts.pop()


def _require_same(reports: Sequence[Report]) -> None:
    first = reports[0]
    for report in reports[1:]:
        for what, one, other in (
            ("subjects", first.subject, report.subject),
            ("names", first.name, report.name),
            ("versions of the driver", first.version, report.version),
            ("profiles", first.profile, report.profile),
            *((f"versions of the {key}", first.versions.get(key), report.versions.get(key)) for key in _SAME),
        ):
            if one != other:
                raise CannotRun(f"the reports are of different {what}, {one!r} and {other!r}: join those of one run")


def _missing(numbers: Sequence[int], count: int) -> str:
    """Which shards are missing, in words. Of very many only the first are named."""
    gone = [number for number in range(1, min(count, 10_000) + 1) if number not in numbers]
    left = count - len(numbers)
    if not left:
        return ""
    named = _and(gone[:20]) + (f" and {left - 20} more" if left > 20 else "")
    return f"shard{'s' if left > 1 else ''} {named} of {count} {'are' if left > 1 else 'is'} missing: name the reports too"


# --- the parts


def _levels(reports: Sequence[Report]) -> tuple[Level, ...]:
    names = _distinct(level.name for report in reports for level in report.levels)
    known = [name for name in LEVELS if name in names]
    every = [*known, *(name for name in names if name not in known)]
    return tuple(_level([level for report in reports for level in report.levels if level.name == name]) for name in every)


def _level(parts: Sequence[Level]) -> Level:
    """The same level of several shards as one. Their machines worked side by side: the longest time is that of all."""
    clauses = _clauses(parts)
    why = "; ".join(_distinct(part.why for part in parts))
    failed = any(part.verdict is Verdict.ERROR for part in parts)
    idle = all(part.verdict is Verdict.NOT_RUN for part in parts)
    return Level(
        parts[0].name,
        Verdict.ERROR if failed else Verdict.NOT_RUN if idle else of_level(clauses, why),
        why,
        "; ".join(_distinct(part.note for part in parts)),
        sum(part.histories for part in parts),
        sum(part.calls for part in parts),
        sum(part.restarts for part in parts),
        sum(part.images for part in parts),
        max(part.seconds for part in parts),
        clauses,
        _distinct(line for part in parts for line in part.lines),
    )


def _clauses(parts: Sequence[Level]) -> tuple[Clause, ...]:
    ids = _distinct(clause.id for part in parts for clause in part.clauses)
    found: dict[str, list[Clause]] = {name: [] for name in ids}
    for part in parts:
        for clause in part.clauses:
            found[clause.id].append(_unjudged(clause))
    return tuple(_clause(same) for same in found.values())


def _clause(same: Sequence[Clause]) -> Clause:
    first = min(same, key=lambda clause: _ORDER.index(clause.verdict) if clause.verdict in _ORDER else len(_ORDER))
    return replace(first, count=sum(clause.count for clause in same))


def _unjudged(clause: Clause) -> Clause:
    """The clause as it was before the expected failures were looked at: that is done anew for all shards together."""
    if clause.verdict is Verdict.EXPECTED:
        return replace(clause, verdict=Verdict.FAILED, why="")
    if clause.verdict is Verdict.UNEXPECTED:
        return replace(clause, verdict=Verdict.PASSED if clause.count else Verdict.NOT_REACHED, why="")
    return clause


def _findings(reports: Sequence[Report]) -> tuple[Found, ...]:
    """The distinct findings as they were before they were expected, in the order of levels, numbered from one."""
    shortest: dict[tuple[str, str, str], Found] = {}
    for found in (found for report in reports for found in report.findings):
        key = (found.level, found.clause, found.at)
        if key not in shortest or len(found.rows) < len(shortest[key].rows):
            shortest[key] = found
    order = {name: number for number, name in enumerate(LEVELS)}
    ordered = sorted(shortest.values(), key=lambda found: order.get(found.level, len(order)))
    return tuple(_numbered(found, number) for number, found in enumerate(ordered, 1))


def _numbered(found: Found, number: int) -> Found:
    """The finding with a number of its own, by which its file is named too: shards give theirs the same."""
    if found.verdict is Verdict.EXPECTED:
        found = replace(found, verdict=Verdict.FAILED, reason="", link="")
    found = replace(found, number=number)
    if not found.file:
        return found
    file = str(PurePath(found.file).with_name(file_name(found)))
    return replace(found, file=file, again=found.again.replace(found.file, file))


def _entries(reports: Sequence[Report]) -> tuple[tuple[ExpectedFailure, ...], bool]:
    """What is expected, and whether the runs were narrowed: then some of it was skipped that no level has."""
    every = [one for report in reports for one in report.expected]
    entries = {one.clause: ExpectedFailure(one.clause, one.reason, one.link) for one in reversed(every)}
    reached = {clause.id for report in reports for level in report.levels for clause in level.clauses}
    narrowed = any(one.verdict is Verdict.SKIPPED and one.clause not in reached for one in every)
    return tuple(entries[clause] for clause in _distinct(one.clause for one in every)), narrowed


def _verdict(reports: Sequence[Report], levels: Sequence[Level], expected: Sequence[Expected], missing: str) -> Verdict:
    """A shard of which nothing is known, for the kit has failed, leaves the whole unknown."""
    if any(report.verdict is Verdict.ERROR for report in reports):
        return Verdict.ERROR
    return of_run(levels, expected, missing)


def _versions(reports: Sequence[Report]) -> dict[str, str]:
    keys = _distinct(key for report in reports for key in report.versions)
    return {key: ", ".join(_distinct(report.versions.get(key, "") for report in reports)) for key in keys}


def _seeds(reports: Sequence[Report]) -> list[str]:
    seeds = _distinct(str(report.seed) for report in reports)
    return [f"the shards were drawn with different seeds: {', '.join(seeds)}"] if len(seeds) > 1 else []


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Each text once, in their order; empty ones are left out."""
    return tuple(dict.fromkeys(text for text in texts if text))


def _and(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
