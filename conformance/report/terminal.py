"""What a check shows at a terminal: the progress while it runs, then the findings, the levels and the verdict.

Where the output is no terminal the same words come without colours, and no progress.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snapspec.conformance.aside import kind_of
from snapspec.conformance.report.document import Found, Level, Report, Verdict
from snapspec.conformance.report.text import found_lines, level_text, progress_line, verdict_line
from snapspec.conformance.run import Run
from snapspec.conformance.settings import Search

#: Columns of what is no terminal: nothing is broken there.
WIDE = 10_000

#: How verdicts look, in a shape and in a colour.
LOOKS = {
    Verdict.ERROR: ("!", "bold red"),
    Verdict.FAILED: ("✗", "bold red"),
    Verdict.HANG: ("✗", "bold red"),
    Verdict.UNEXPECTED: ("✗", "bold red"),
    Verdict.NOT_REACHED: ("?", "bold yellow"),
    Verdict.SKIPPED: ("-", "yellow"),
    Verdict.EXPECTED: ("x", "yellow"),
    Verdict.PARTIAL: ("~", "yellow"),
    Verdict.PASSED: ("✓", "green"),
    Verdict.NOT_RUN: ("·", "dim"),
}


def console() -> Console:
    """Standard output. What is no terminal has lines as long as they are."""
    shown = Console(highlight=False, soft_wrap=True)
    if not shown.is_terminal:
        shown.width = WIDE
    return shown


def show(report: Report, shown: Console, out: Path | None, *, quiet: bool = False) -> None:
    """Print the report; `quiet`: the verdict alone. `out` is where the whole report was written."""
    if not quiet:
        for beside in dict.fromkeys(line for level in report.levels for line in _beside(level)):
            shown.print(Text(f"  {beside}", "dim"))
        for found in report.findings:
            shown.print()
            for line in finding_text(found, len(report.findings)):
                shown.print(line)
        shown.print()
        shown.print(table(report))
        for line in _loose_ends(report):
            shown.print(line)
        if out is not None:
            shown.print(f"  the report: {out / 'report.html'}")
    shown.print(Text(verdict_line(report), LOOKS[report.verdict][1]))


def _beside(level: Level) -> Iterator[str]:
    """What the level ran on, and what else it did."""
    yield from [f"on {level.note}"] if level.note else []
    yield from level.lines


def _loose_ends(report: Report) -> Iterator[Text]:
    """What was not put to the test, and what was to fail and did not."""
    idle = [level.name for level in report.levels if level.verdict is Verdict.NOT_RUN]
    if idle:
        yield Text(f"  not run: {', '.join(idle)}", "dim")
    for level in report.levels:
        missing = [clause.id for clause in level.clauses if clause.verdict is Verdict.NOT_REACHED]
        if missing:
            yield Text(f"  not put to the test at level {level.name}: {', '.join(missing)}", "yellow")
    for one in report.expected:
        if one.verdict is Verdict.UNEXPECTED:
            yield Text(f"  {one.clause} is expected to fail ({one.reason}), and does not: {one.why}", "bold red")
    if report.verdict is Verdict.NOT_REACHED:
        yield Text("  give more --examples or a longer --budget", "yellow")


# --- findings


def finding_text(found: Found, count: int) -> Iterator[Text]:
    """A finding, with what differs between the allowed and what came highlighted."""
    mark, style = LOOKS[found.verdict]
    number = f" {found.number} of {count}" if count > 1 else ""
    yield Text(f"{mark} finding{number}, level {found.level}: {found.clause} at {found.at}", style)
    if found.verdict is Verdict.EXPECTED:
        yield Text(f"  expected: {found.reason}  {found.link}", "yellow")
    lines = list(found_lines(found))
    for at, line in enumerate(lines):
        yield _styled(line, lines, at)
    yield Text(f"\n  saved; again: {found.again}", "dim")


#: A word, without the sign after it; and the clause at the end of what is allowed, which is none.
_WORD = re.compile(r"\S+?(?=[,;.]?(?:\s|$))")
_CLAUSE = re.compile(r"\[[A-Z]+-[A-Z]+-\d+\]")

_GAP = re.compile(r" {6}(allowed|came) +(.*)")


def _styled(line: str, lines: list[str], at: int) -> Text:
    text = Text(line)
    gap = _GAP.fullmatch(line)
    if gap is not None:
        other = lines[at + 1] if gap[1] == "allowed" and at + 1 < len(lines) else lines[at - 1]
        _mark_difference(text, line, other, "bold green" if gap[1] == "allowed" else "bold red")
    elif line.startswith(("DIVERGES", "HANGS")):
        text.stylize("bold")
    elif re.match(r"  [A-Z]+-[A-Z]+-\d+: ", line):
        text.stylize("cyan", 2, line.index(":"))
    return text


def _mark_difference(text: Text, line: str, other: str, style: str) -> None:
    """The words of the line that the other one has not."""
    mine = [(found.start(), found.group()) for found in _WORD.finditer(line)]
    theirs = _WORD.findall(other)
    words = [word for _, word in mine]
    for tag, start, end, _, _ in difflib.SequenceMatcher(None, words, theirs, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            for begin, word in mine[start:end]:
                if word not in ("allowed", "came") and not _CLAUSE.fullmatch(word):
                    text.stylize(style, begin, begin + len(word))


# --- levels


#: The columns of the levels' table.
_COLUMNS = ("level", "verdict", "histories", "calls", "clauses put to the test")


def table(report: Report) -> Table:
    """The levels at a glance."""
    shown = Table(box=None, pad_edge=True, header_style="bold")
    for title in _COLUMNS:
        shown.add_column(title, justify="right" if title in ("histories", "calls") else "left", no_wrap=title != _COLUMNS[-1])
    for level in report.levels:
        if level.verdict is Verdict.NOT_RUN:
            continue
        mark, style = LOOKS[level.verdict]
        counts = (str(level.histories), str(level.calls)) if level.clauses else ("", "")
        told = level_text(level).replace(" clauses", "", 1) if level.clauses else level.why
        shown.add_row(level.name, Text(f"{mark} {level.verdict.value}", style), *counts, told)
    return shown


# --- progress


class Screen:
    """What a terminal shows while a check runs, on standard error; elsewhere nothing is shown."""

    def __init__(self, *, quiet: bool = False) -> None:
        shown = Console(stderr=True)
        self.live = Live(console=shown, refresh_per_second=4, transient=True) if shown.is_terminal and not quiet else None
        self.began: dict[str, float] = {}

    def __enter__(self) -> Screen:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, search: Search, run: Run) -> None:
        """Draw anew how far that search is."""
        began = self.began.setdefault(search.name, time.monotonic())
        if self.live is not None:
            passed = time.monotonic() - began
            self.live.update(self._drawn(search, run, left(run, search.plan.examples, search.plan.budget, passed), passed))

    def _drawn(self, search: Search, run: Run, remaining: float | None, passed: float) -> RenderableType:
        whole = passed + remaining if remaining is not None else 0.0
        bar = ProgressBar(total=whole or 1.0, completed=passed if whole else 0.0, width=30)
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(", ".join(search.levels), "bold"), bar, "" if remaining is None else f"{remaining:.0f} s left")
        kinds = [Text(f"  ✗ {kind_of(entry.finding).text}", "red") for entry in run.found]
        return Group(line, Text(f"  {progress_line(run, search.plan.examples)}", "dim"), *kinds)


def left(run: Run, examples: int, budget: float, passed: float) -> float | None:
    """Seconds that are left by the pace so far, or by the budget where that ends first."""
    by_pace = passed * (examples - run.examples) / run.examples if run.examples else None
    by_budget = budget - passed if budget else None
    known = [max(0.0, seconds) for seconds in (by_pace, by_budget) if seconds is not None]
    return min(known, default=None)
