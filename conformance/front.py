"""`snapspec check`: a thin front on pytest, in this process, with a screen of its own in the place of pytest's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapspec.conformance.checking import Checking
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.plugin import Plugin
from snapspec.conformance.report.document import Report
from snapspec.conformance.report.terminal import Screen
from snapspec.conformance.settings import Settings

#: Nothing of pytest's own but the tests: no files of the working directory, no other plugins, no screen.
_ARGUMENTS = (
    *("--pyargs", "snapspec.conformance", "--noconftest", "--capture=no", f"--config-file={os.devnull}"),
    *("--rootdir", str(Path(__file__).parent), "--disable-plugin-autoload"),
    *(part for name in ("terminal", "cacheprovider", "logging", "warnings") for part in ("-p", f"no:{name}")),
)


class Front(Plugin):
    """The check of the command."""

    def __init__(self, chosen: Settings, screen: Screen) -> None:
        super().__init__(chosen)
        self.screen = screen
        self.interrupted = False
        self.trouble: BaseException | None = None

    def begun(self) -> Checking:
        """See `Plugin`."""
        return Checking(self.chosen, self.screen.show)

    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C."""
        self.interrupted = True

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        """What was no verdict is the kit's own fault, or hinders it."""
        from snapspec.conformance.plugin import Broken, Wrong

        error = call.excinfo.value if call.excinfo is not None else None
        if error is not None and not isinstance(error, Wrong | Broken):
            self.trouble = self.trouble or error


def run(chosen: Settings, *, quiet: bool) -> Report:
    """Make the check, and write its reports; gives the report.

    Raises CannotRun where it could not be made, and KeyboardInterrupt when it was interrupted, with all removed.
    """
    with Screen(quiet=quiet) as screen:
        front = Front(chosen, screen)
        junit = [f"--junitxml={chosen.out / 'junit.xml'}", "-o", "junit_suite_name=snapspec"] if chosen.out is not None else []
        with _alone():
            pytest.main([*_ARGUMENTS, *junit], plugins=[front])
    if front.interrupted:
        raise KeyboardInterrupt
    if front.trouble is not None:
        raise front.trouble
    report = front.report()
    if report is None:
        raise CannotRun("nothing was run: name a level that fits the driver")
    return report


@contextmanager
def _alone() -> Iterator[None]:
    """Without what the environment tells pytest."""
    names = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
