"""A check from its settings to its report: every search in processes of its own, what was kept of earlier ones first."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from snapspec.conformance.aside import kind_of
from snapspec.conformance.database import drop, keep, kept, open_database
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, encode_finding
from snapspec.conformance.outcome import Outcome, outcome_of
from snapspec.conformance.plan import Plan
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report.build import report
from snapspec.conformance.report.document import Level, Report
from snapspec.conformance.run import Run, execute, shared, shorten_stuck
from snapspec.conformance.settings import Search, Settings, searches
from snapspec.conformance.spread import gathered, spread
from snapspec.conformance.started import driver_started
from snapspec.conformance.subjects.grpc import DIRECTORY


class Checking:
    """A check under way: each search is made when it is first asked for. `progress` is called a few times a second with the
    search and the run.
    """

    def __init__(self, chosen: Settings, progress: Callable[[Search, Run], None] = lambda *_: None) -> None:
        self.chosen = chosen
        self.searches = searches(chosen)
        self.progress = progress
        self.began = time.monotonic()
        self.date = datetime.now(UTC).isoformat(timespec="seconds")
        self.outcomes: dict[str, Outcome] = {}
        self.database = open_database(chosen.database) if chosen.database else None

    def search_of(self, level: str) -> Search | None:
        """The search that decides about the level."""
        return next((search for search in self.searches if level in search.levels), None)

    def outcome(self, search: Search) -> Outcome:
        """What the search has come to. Raises KeyboardInterrupt when it is interrupted, with all that it made removed."""
        known = self.outcomes.get(search.name)
        if known is None:
            known = self.outcomes[search.name] = _tried(lambda: self.make(search))
        return known

    def make(self, search: Search) -> Outcome:
        """Make the search, in as many processes as the settings say."""
        before = self.kept(search)
        with _written(before) as file, self.served(search) as plan:
            plans = shared(replace(plan, kept=file), self.chosen.jobs)
            outcome = make(plans, lambda run: self.progress(search, run))
        self.keep(search, outcome, before)
        if self.database is not None and not (outcome.trouble or outcome.fault or self.chosen.first):
            shown = {kind_of(entry.finding) for entry in outcome.found}
            for gone in before:
                if kind_of(gone) not in shown:
                    drop(self.database, self.chosen.name, search.name, gone)
        return outcome

    @contextmanager
    def served(self, search: Search) -> Iterator[Plan]:
        """The plan of the search, with a driver that is started for it, where a command says how; at level durable each process
        starts one of its own.
        """
        if not self.chosen.start or search.plan.start:
            yield search.plan
            return
        with driver_started(self.chosen.subject, self.chosen.start, self.chosen.stop) as driver:
            yield replace(search.plan, subject=search.plan.subject.replace(self.chosen.subject, driver.subject))

    def kept(self, search: Search) -> list[Finding | RefFinding]:
        """What earlier checks have kept of that search. Those of power cuts are not looked for again."""
        if self.database is None or search.plan.power:
            return []
        return kept(self.database, self.chosen.name, search.name)

    def keep(self, search: Search, outcome: Outcome, before: Sequence[Finding | RefFinding]) -> None:
        """Keep what is new of the findings."""
        known = {kind_of(found) for found in before}
        for entry in outcome.found:
            if self.database is not None and kind_of(entry.finding) not in known:
                keep(self.database, self.chosen.name, search.name, entry.finding)

    def level(self, name: str) -> Level:
        """The verdict of the level, whose search is made if it was not."""
        search = self.search_of(name)
        if search is not None:
            self.outcome(search)
        level = self.report().level(name)
        assert level is not None, "the report has every level"
        return level

    def report(self) -> Report:
        """The report of all that was made."""
        notes = [self.database.note] if self.database is not None and self.database.note else []
        made = [(search, self.outcomes[search.name]) for search in self.searches if search.name in self.outcomes]
        whole = report(self.chosen, made, self.date, time.monotonic() - self.began)
        return replace(whole, notes=(*whole.notes, *notes))


class Spread(Checking):
    """One of so many `workers` of a check, who meet in `directory`; with 0 workers one who only gathers what they have made."""

    def __init__(self, chosen: Settings, directory: Path, workers: int) -> None:
        super().__init__(chosen)
        self.directory = directory
        self.workers = workers

    def make(self, search: Search) -> Outcome:
        """See `Checking`: in parts, of which each worker makes some."""
        before = self.kept(search)
        alone = bool(self.chosen.start) and DIRECTORY not in self.chosen.start
        with _written(before) as file:
            plans = shared(replace(search.plan, kept=file), 1 if alone else self.workers)
            outcome = spread(self.directory, search.name, plans, lambda plan: self._part(search, plan))
        self.keep(search, outcome, before)
        return outcome

    def _part(self, search: Search, plan: Plan) -> Outcome:
        """One part of a search, on a driver of its own where one is to be started."""

        def part() -> Outcome:
            with self.served(Search(search.levels, plan)) as served:
                return make([served], lambda _: None)

        return _tried(part)

    def report(self) -> Report:
        """See `Checking`."""
        for search in self.searches if not self.workers else ():
            made = gathered(self.directory, search.name)
            if made is not None:
                self.outcomes[search.name] = made
        return super().report()


@contextmanager
def _written(before: Sequence[Finding | RefFinding]) -> Iterator[str]:
    """The findings in a file for the processes; its name, "" where there are none."""
    if not before:
        yield ""
        return
    with tempfile.NamedTemporaryFile("w", prefix="snapspec-", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(encode_finding(found)) + "\n" for found in before)
        file.flush()
        yield file.name


def _tried(making: Callable[[], Outcome]) -> Outcome:
    """What is made; where it cannot run that is its outcome: nobody tries it again for each family of clauses."""
    try:
        return making()
    except CannotRun as error:
        return Outcome(trouble=str(error))


def make(plans: Sequence[Plan], progress: Callable[[Run], None]) -> Outcome:
    """Execute the plans together; gives what they have come to."""
    began = time.monotonic()
    run = execute(plans, progress)
    shorten_stuck(run, plans[0], progress)
    return outcome_of(run, time.monotonic() - began)
