"""A check from its settings to its report: every search in processes of its own, what was kept of earlier ones first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from snapspec.conformance.outcome import Outcome, outcome_of
from snapspec.conformance.plan import Plan
from snapspec.conformance.report.build import report
from snapspec.conformance.report.document import Level, Report
from snapspec.conformance.run import Run, execute, shared, shorten_stuck
from snapspec.conformance.settings import Search, Settings, searches
from snapspec.conformance.spread import gathered, spread


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

    def search_of(self, level: str) -> Search | None:
        """The search that decides about the level."""
        return next((search for search in self.searches if level in search.levels), None)

    def outcome(self, search: Search) -> Outcome:
        """What the search has come to. Raises KeyboardInterrupt when it is interrupted, with all that it made removed."""
        known = self.outcomes.get(search.name)
        if known is None:
            known = self.outcomes[search.name] = self.make(search)
        return known

    def make(self, search: Search) -> Outcome:
        """Make the search, in as many processes as the settings say."""
        return make(shared(search.plan, self.chosen.jobs), lambda run: self.progress(search, run))

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
        made = [(search, self.outcomes[search.name]) for search in self.searches if search.name in self.outcomes]
        return report(self.chosen, made, self.date, time.monotonic() - self.began)


class Spread(Checking):
    """One of so many `workers` of a check, who meet in `directory`; with 0 workers one who only gathers what they have made."""

    def __init__(self, chosen: Settings, directory: Path, workers: int) -> None:
        super().__init__(chosen)
        self.directory = directory
        self.workers = workers

    def make(self, search: Search) -> Outcome:
        """See `Checking`: in parts, of which each worker makes some."""
        plans = shared(search.plan, self.workers)
        return spread(self.directory, search.name, plans, lambda plan: make([plan], lambda _: None))

    def report(self) -> Report:
        """See `Checking`."""
        for search in self.searches if not self.workers else ():
            made = gathered(self.directory, search.name)
            if made is not None:
                self.outcomes[search.name] = made
        return super().report()


def make(plans: Sequence[Plan], progress: Callable[[Run], None]) -> Outcome:
    """Execute the plans together; gives what they have come to."""
    began = time.monotonic()
    run = execute(plans, progress)
    shorten_stuck(run, plans[0], progress)
    return outcome_of(run, time.monotonic() - began)
