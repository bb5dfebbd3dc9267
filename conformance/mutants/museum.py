"""A visit to the museum: the checker is run on each exhibit, and what it finds, and how fast, is the track record."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding
from snapspec.conformance.mutants import Exhibit
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.plan import Plan
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.run import Run, execute, shorten_stuck

#: Histories that a visit draws at most: the budget ends it before.
EXAMPLES = 1_000_000

#: Seconds that a call of an exhibit may take: fewer than elsewhere, for some do not answer.
DEADLINE = 5.0

#: Bytes that the process of one exhibit may take.
MEMORY = 4 << 30

#: Seconds that a visit may take beyond its budget, to make the finding shorter and to clear up.
GRACE = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one exhibit: the clause cited, after so many histories and seconds, and the calls of the shortest history.

    `trouble` is why there is none: nothing was found, or the run did not come to its end.
    """

    exhibit: Exhibit
    seed: int
    clause: str = ""
    histories: int = 0
    seconds: float = 0.0
    length: int = 0
    trouble: str = ""

    @property
    def right(self) -> bool:
        """Whether it was found, by a clause that it breaks."""
        return self.clause in self.exhibit.clauses

    @property
    def command(self) -> str:
        """What shows it again."""
        at = "" if self.exhibit.level == "core" else f" --level {level(self.exhibit)}"
        return f"snapspec check {self.exhibit.address}{at} --seed {self.seed} --jobs 1 --deadline {DEADLINE:g}s"


def level(exhibit: Exhibit) -> str:
    """The level that has to find it, as `check` is told."""
    return f"{exhibit.level} --power" if exhibit.power else exhibit.level


class _Late(Exception):
    """The visit has taken too long."""


def visit(exhibit: Exhibit, seed: int, budget: float, leaving: Callable[[], bool] = lambda: False) -> Seen:
    """Run the checker on the exhibit, in a process of its own, for `budget` seconds at most or until `leaving` says so."""
    until = time.monotonic() + budget + GRACE

    def progress(_: Run) -> None:
        if leaving() or time.monotonic() > until:
            raise _Late

    plan = Plan(
        "check",
        exhibit.address,
        examples=EXAMPLES,
        budget=budget,
        seed=seed,
        deadline=DEADLINE,
        level=exhibit.level,
        power=exhibit.power,
        memory=MEMORY,
        first=True,
    )
    try:
        run = execute([plan], progress)
        shorten_stuck(run, plan, progress)
    except _Late:
        return Seen(exhibit, seed, trouble="it did not come to an end")
    return _seen(exhibit, seed, run)


def _seen(exhibit: Exhibit, seed: int, run: Run) -> Seen:
    (share,) = run.shares
    if not share.found:
        why = share.trouble or (share.fault.strip().splitlines() or ["nothing was found"])[-1]
        return Seen(exhibit, seed, histories=share.histories, trouble=why)
    histories, seconds = share.found[0].after
    finding = share.found[0].finding
    return Seen(exhibit, seed, finding.clause, histories, seconds, length(finding))


def length(found: Finding | RefFinding) -> int:
    """The calls of a history."""
    if isinstance(found, RefFinding):
        return sum(len(burst.ops) for burst in found.bursts)
    plans = [step.op for step in found.calls if isinstance(step.op, AtOnce)]
    return sum(len(plan.first) + sum(map(len, plan.lanes)) for plan in plans) or len(found.calls)


def visit_all(
    exhibits: Sequence[Exhibit], seed: int, budget: float, jobs: int, report: Callable[[Seen], None] = lambda _: None
) -> list[Seen]:
    """Visit the exhibits, `jobs` at a time; `report` is told of each as it is done. In the order of the exhibits."""
    leaving = threading.Event()
    with ThreadPoolExecutor(jobs) as threads:
        visits = [threads.submit(visit, exhibit, seed, budget, leaving.is_set) for exhibit in exhibits]
        try:
            for done in as_completed(visits):
                report(done.result())
        except BaseException:
            leaving.set()
            threads.shutdown(cancel_futures=True)
            raise
    return [done.result() for done in visits]


# --- the track record


def line(seen: Seen) -> str:
    """What came of it, for a terminal."""
    name = f"{seen.exhibit.name:10} {level(seen.exhibit):8}"
    if seen.trouble:
        return f"{name} NOT FOUND after {seen.histories} histories: {seen.trouble}"
    wrong = "" if seen.right else f", which is not {' or '.join(seen.exhibit.clauses)}"
    return f"{name} {seen.clause}{wrong}: {seen.histories} histories, {seen.seconds:.1f} s, {seen.length} calls"


def summary(visits: Sequence[Seen]) -> str:
    """How many were found, and how fast."""
    found = [seen for seen in visits if seen.right]
    if not found:
        return f"none of {len(visits)} exhibits found"
    median, most = statistics.median(s.seconds for s in found), max(s.seconds for s in found)
    longest = max(s.length for s in found)
    return (
        f"{len(found)} of {len(visits)} exhibits found by the right clause: "
        f"median {median:.1f} s, at most {most:.1f} s, at most {longest} calls"
    )


def table(visits: Sequence[Seen]) -> Iterator[str]:
    """The track record in Markdown."""
    yield "| exhibit | what is wrong | where it was real | level | clause | histories | seconds | calls | again |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for seen in visits:
        shown = seen.exhibit
        met = (
            (seen.clause, seen.histories, f"{seen.seconds:.1f}", seen.length) if seen.right else (f"**{line(seen)}**", "", "", "")
        )
        cells = (f"`{shown.name}`", shown.wrong, shown.where, level(shown), *met, f"`{seen.command}`")
        yield f"| {' | '.join(map(str, cells))} |"


#: The track record stands between these lines.
BEGIN, END = "<!-- track record -->", "<!-- end of the track record -->"


def parted(path: Path) -> tuple[str, str]:
    """The text of the file before and after its marks. CannotRun, with the remedy, when it cannot be written or has none."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CannotRun(f"{path} cannot be written: {why}; name a text that is there") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CannotRun(f"{path} has no place for the track record: write {BEGIN} and {END} on lines of their own")
    return before, after


def write(path: Path, visits: Sequence[Seen]) -> None:
    """Put the track record into the file. CannotRun when it has no marks."""
    before, after = parted(path)
    record = "\n".join((*table(visits), "", summary(visits) + "."))
    path.write_text(f"{before}{BEGIN}\n\n{record}\n\n{END}{after}", "utf-8")
