"""The pytest plugin: each family of the spec's clauses is a test of the driver that `--snapspec SUBJECT` names.

    pytest --pyargs snapspec.conformance --snapspec SUBJECT -k usage -n auto --junitxml=junit.xml

A test asks for the search that decides about its level, which is made once; with pytest-xdist the workers share it. This module
is loaded in every run of pytest: what a check needs is imported when there is one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snapspec.conformance import options

if TYPE_CHECKING:
    from snapspec.conformance.checking import Checking
    from snapspec.conformance.report.document import Clause, Report
    from snapspec.conformance.settings import Settings

#: The file whose clauses are collected.
SPEC = Path(__file__).parent / "spec.md"

#: The test of what a level shows of clauses that it does not owe.
OTHER = "other"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The subject, and the options of a check, each with `snapspec-` before its name."""
    group = parser.getgroup("snapspec", "conformance of a container snapshotter")
    group.addoption("--snapspec", metavar="SUBJECT", default=None, help="what is under test, as snapspec check takes it")
    options.add(group.addoption, "--snapspec-")


def pytest_configure(config: pytest.Config) -> None:
    """A check, where one is asked for."""
    if config.option.snapspec is not None or config.option.snapspec_file is not None:
        config.pluginmanager.register(_plugin(config), "snapspec check")


def _plugin(config: pytest.Config) -> Plugin:
    """The check that pytest's options ask for. Raises pytest.UsageError where none can be made of them."""
    from snapspec.conformance.errors import CannotRun
    from snapspec.conformance.settings import settings

    given, shared = options.from_pytest(config), getattr(config, "workerinput", {}).get("snapspec")
    if shared is not None:
        given.seed = shared["seed"]
    workers = getattr(config.option, "numprocesses", None)  # of pytest-xdist: each of them is a process of the check
    given.jobs = workers if isinstance(workers, int) and workers > 0 else given.jobs
    try:
        return Plugin(settings(given, Path.cwd()), shared)
    except CannotRun as error:
        raise pytest.UsageError(str(error)) from None


#: The check of a run.
CHECK = pytest.StashKey["Plugin"]()


class Plugin:
    """The check of one run of pytest, or of one worker of it: then `shared` says where the workers meet."""

    def __init__(self, chosen: Settings, shared: dict[str, Any] | None = None) -> None:
        self.chosen = chosen
        self.shared = shared
        self.directory: tempfile.TemporaryDirectory[str] | None = None
        self._checking: Checking | None = None
        self._report: Report | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Known to the tests."""
        config.stash[CHECK] = self

    @property
    def checking(self) -> Checking:
        """The check, begun when it is first asked for."""
        if self._checking is None:
            self._checking = self.begun()
        return self._checking

    def begun(self) -> Checking:
        """The check: by itself, or one of several workers'."""
        from snapspec.conformance.checking import Checking, Spread

        if self.shared is None:
            return Checking(self.chosen)
        return Spread(self.chosen, Path(self.shared["directory"]), int(self.shared["workers"]))

    # --- with pytest-xdist

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """What all workers are to know: where they meet, how many they are, and under which seed they draw."""
        if self.directory is None:
            self.directory = tempfile.TemporaryDirectory(prefix="snapspec-")
        workers = node.workerinput["workercount"]
        node.workerinput["snapspec"] = {"directory": self.directory.name, "workers": workers, "seed": self.chosen.seed}

    # --- collection

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """The kit's own directory is no package of tests: nothing in it is imported."""
        return Rooms.from_parent(parent, path=path, nodeid="snapspec") if path == SPEC.parent else None

    # --- the end

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Where this is the run itself, no worker of it: the reports; and an expected failure that nothing matches fails it."""
        interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED  # the report of an earlier run is worth more
        report = self.report() if self.shared is None and not interrupted else None
        if report is None:
            return
        from snapspec.conformance.report.document import Verdict

        if session.exitstatus == pytest.ExitCode.OK and any(one.verdict is Verdict.UNEXPECTED for one in report.expected):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.chosen.out is not None:
            from snapspec.conformance.report.write import write

            write(report, self.chosen.out)

    def report(self) -> Report | None:
        """The report of all that was made, here or by workers; None when nothing was. For the end: it is made once."""
        if self.directory is not None and self._checking is None:
            from snapspec.conformance.checking import Spread

            self._checking = Spread(self.chosen, Path(self.directory.name), 0)
        if self._report is None and self._checking is not None:
            self._report = self._checking.report()
        return self._report

    def pytest_unconfigure(self) -> None:
        """The place where the workers met is removed."""
        if self.directory is not None:
            self.directory.cleanup()

    def pytest_report_header(self) -> str:
        """The command that draws the same again."""
        return f"snapspec: {self.chosen.command}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The levels, and what was found."""
        report = self.report() if self.shared is None else None
        if report is None:
            return
        from snapspec.conformance.report.text import report_lines

        terminalreporter.section(f"snapspec: {report.subject}")
        for line in report_lines(report):
            terminalreporter.write_line(line)


class Rooms(pytest.Directory):
    """The kit's directory, in which the spec is all that is collected."""

    def collect(self) -> Iterator[pytest.Collector]:
        """The levels of the check."""
        plugin = self.config.stash[CHECK]
        for level in plugin.chosen.levels:
            yield LevelTests.from_parent(self, path=SPEC, name=level, nodeid=f"{self.nodeid}::{level}", plugin=plugin)


class LevelTests(pytest.File):
    """One level: a test for each family of the clauses that it may decide about."""

    def __init__(self, *, plugin: Plugin, **words: Any) -> None:
        super().__init__(**words)
        self.plugin = plugin
        self.families: tuple[str, ...] = ()

    def collect(self) -> Iterator[pytest.Item]:
        """The families, in the order of the spec."""
        from snapspec.conformance.report.build import families_of

        self.families = families_of(self.name, self.plugin.chosen)
        for family in (*self.families, OTHER):
            yield FamilyTest.from_parent(self, name=f"{family}[{self.name}]", family=family)


class FamilyTest(pytest.Item):
    """One family of clauses at one level."""

    parent: LevelTests

    def __init__(self, *, family: str, **words: Any) -> None:
        super().__init__(**words)
        self.family = family

    def runtest(self) -> None:
        """Make the search, if nobody has, and give its verdict of these clauses."""
        from snapspec.conformance.report.document import Verdict

        level = self.parent.plugin.checking.level(self.parent.name)
        if level.verdict is Verdict.ERROR:
            raise Broken(level.why)
        clauses = [clause for clause in level.clauses if self._is_mine(clause.id)]
        for clause in clauses:
            self.user_properties.append((clause.id, f"{clause.verdict.value}, {clause.count} times"))
        self._judge(clauses)

    def _is_mine(self, clause: str) -> bool:
        family = clause.rsplit("-", 1)[0]
        return family == self.family or (self.family == OTHER and family not in self.parent.families)

    def _judge(self, clauses: list[Clause]) -> None:
        from snapspec.conformance.report.document import Verdict

        wrong = [c for c in clauses if c.verdict in (Verdict.FAILED, Verdict.HANG, Verdict.UNEXPECTED, Verdict.NOT_REACHED)]
        if wrong:
            raise Wrong("\n".join(self._told(wrong)))
        expected = [c for c in clauses if c.verdict is Verdict.EXPECTED]
        if expected:
            pytest.xfail("; ".join(f"{c.id}: {c.why}" for c in expected))
        if self.family != OTHER and not any(c.verdict is Verdict.PASSED for c in clauses):
            pytest.skip(next((c.why for c in clauses if c.why), "") or "this driver owes none of these clauses")

    def _told(self, wrong: list[Clause]) -> Iterator[str]:
        from snapspec.conformance.report.document import Verdict
        from snapspec.conformance.report.text import found_lines

        report = self.parent.plugin.checking.report()
        for clause in wrong:
            mine = [one for one in report.findings if one.clause == clause.id]
            for one in mine:
                yield from found_lines(one)
            if clause.verdict is Verdict.NOT_REACHED:
                yield f"{clause.id} was not put to the test: give more --snapspec-examples, or a longer --snapspec-budget"
            elif not mine:
                yield f"{clause.id}: {clause.verdict.value}: {clause.why}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A finding is told as a finding, without the kit's own lines."""
        if isinstance(excinfo.value, Wrong | Broken):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it stands: in the spec."""
        return SPEC, None, f"{self.parent.name}: {self.family}"


class Wrong(AssertionError):
    """The driver departs from the spec, or nothing has shown that it does not."""


class Broken(Exception):
    """The check could not be made: nothing is known of the driver."""
