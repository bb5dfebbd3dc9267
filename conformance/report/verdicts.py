"""From the verdicts of clauses to that of a level, of a whole run, and to the exit status.

Of several verdicts the first in the order of `Verdict` counts for all. Nobody passes on what was left out: what was skipped and
what fails as expected make the whole partial; and where nothing was put to the test nothing is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snapspec.conformance.report.document import Clause, Expected, Level, Verdict

#: What makes the whole partial where everything else has passed.
_LEFT_OUT = frozenset({Verdict.SKIPPED, Verdict.EXPECTED, Verdict.PARTIAL})

#: Of levels: nothing was put to the test.
_IDLE = frozenset({Verdict.NOT_RUN, Verdict.SKIPPED})

_ORDER = tuple(Verdict)

_STATUS = {
    Verdict.PASSED: 0,
    Verdict.PARTIAL: 0,
    Verdict.EXPECTED: 0,
    Verdict.FAILED: 1,
    Verdict.HANG: 1,
    Verdict.UNEXPECTED: 1,
}


def of_level(clauses: Sequence[Clause], why: str = "") -> Verdict:
    """The verdict of a level with these clauses; `why` says what of the level was left out, "" where nothing was.

    NOT_RUN without clauses (SKIPPED where `why` says why), SKIPPED when all of them were; NOT_REACHED as soon as one is.
    """
    verdicts = [clause.verdict for clause in clauses]
    if not verdicts:
        return Verdict.SKIPPED if why else Verdict.NOT_RUN
    if set(verdicts) == {Verdict.SKIPPED}:
        return Verdict.SKIPPED
    return _first([*verdicts, Verdict.PARTIAL] if why else verdicts)


def of_run(levels: Sequence[Level], expected: Sequence[Expected] = (), why: str = "") -> Verdict:
    """The verdict of a run of these levels; `why` says what of the run is missing, "" where nothing is.

    A level that was not run does not count, one that was skipped makes the run partial; a run of no other levels is NOT_REACHED.
    An expected failure that did not come is UNEXPECTED; one that was not looked for (SKIPPED) counts for nothing.
    """
    verdicts: list[Verdict] = [level.verdict for level in levels if level.verdict is not Verdict.NOT_RUN]
    if not set(verdicts) - _IDLE:
        verdicts = [Verdict.NOT_REACHED]
    verdicts += [one.verdict for one in expected if one.verdict is not Verdict.SKIPPED]
    return _first([*verdicts, Verdict.PARTIAL] if why else verdicts)


def status(verdict: Verdict) -> int:
    """The exit status: 0 conforms (in part, or failing as expected), 1 does not, 2 nothing is decided."""
    return _STATUS.get(verdict, 2)


def _first(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a whole that has parts with these, at least one of them."""
    first = min(verdicts, key=_ORDER.index)
    return Verdict.PARTIAL if first in _LEFT_OUT else first
