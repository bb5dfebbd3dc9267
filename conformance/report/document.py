"""What a check has come to, as values: levels, clauses, findings, pictures; and as the JSON of report.json.

Everything that shows a result (terminal, summary.md, report.html, JUnit) is made of these. The form is that of
`conformance/report/schema.json`.
"""

from __future__ import annotations

import json
import types
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.options import LEVELS as LEVELS

FORMAT = "snapspec report 1"


class Verdict(StrEnum):
    """What was found about a clause, a level or a whole run. Of several the first of these counts for all of them."""

    ERROR = "error"
    """The kit itself failed, or could not go on: nothing is known of the driver."""
    FAILED = "failed"
    HANG = "hang"
    """A call did not answer."""
    UNEXPECTED = "unexpected pass"
    """It was to fail, by the driver's file, and did not."""
    NOT_REACHED = "not reached"
    """Nothing put it to the test, of a level: not all of its clauses."""
    SKIPPED = "skipped"
    """It was left out, for a reason that is given."""
    EXPECTED = "expected failure"
    """It failed, as the driver's file says that it does."""
    PARTIAL = "partial"
    """Passed, as far as it was not left out. Of levels and runs alone."""
    PASSED = "passed"
    NOT_RUN = "not run"
    """Of levels alone: nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Clause:
    """What was found about one clause at one level: `count` is how often it was put to the test."""

    id: str
    verdict: Verdict
    count: int = 0
    why: str = ""
    """Why it was skipped, or is expected to fail."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level. `note` says what the subject ran on, `lines` what else was done, `images` counts power cuts."""

    name: str
    verdict: Verdict
    why: str = ""
    note: str = ""
    histories: int = 0
    calls: int = 0
    restarts: int = 0
    images: int = 0
    seconds: float = 0.0
    clauses: tuple[Clause, ...] = ()
    lines: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """How many of its clauses have that verdict."""
        return sum(clause.verdict is verdict for clause in self.clauses)


@dataclass(frozen=True, slots=True)
class Box:
    """Something in a picture of a state: `kind` is active, view, committed, mutable, immutable, handle; `lines` is told of it."""

    name: str
    kind: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrow:
    """A link between two boxes, by their names: `kind` is parent, pair (of a lazy commit), holds (a handle its record)."""

    start: str
    end: str
    kind: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A state, to be drawn. Names of boxes are unique in it."""

    title: str
    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One call of a history: `where` is its namespace, caller or process, "" where there is one only. `mark` is "" or "broken",
    the call that no clause allows, or "aside", one that shows another finding already."""

    call: str
    answer: str
    where: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One of several calls that overlap: its `number` in the history, and who has called, "" where callers have no names.

    `began` and `ended` are moments, counted from 0; `ended` is None where no answer came. `mark` is "" or "broken", the call that
    no order has a place for.
    """

    number: int
    call: str
    answer: str
    began: int
    ended: int | None
    caller: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """What one clause allowed, and what came."""

    clause: str
    allowed: str
    came: str


@dataclass(frozen=True, slots=True)
class Found:
    """A distinct finding: the shortest history that shows it.

    `at` is what was done when it showed; `histories` and `seconds` is what it took; `after` names the findings, by clause and
    call, that have to come before it shows; `lanes` is a picture of calls that overlap, in lines of text, and `bars` are those
    calls; `history` is the finding as a file that replays, and `file` its name.
    """

    number: int
    level: str
    clause: str
    at: str
    gaps: tuple[Gap, ...]
    rows: tuple[Row, ...] = ()
    lanes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    pictures: tuple[Picture, ...] = ()
    histories: int = 0
    seconds: float = 0.0
    verdict: Verdict = Verdict.FAILED
    reason: str = ""
    link: str = ""
    after: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    """What else the subject said, the last lines of an adapter's standard error for one."""
    file: str = ""
    again: str = ""
    """The command that replays it."""
    history: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expected:
    """A failure that the driver's file expects, and what came of it: EXPECTED, UNEXPECTED, or, not looked for, SKIPPED."""

    clause: str
    reason: str
    link: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `began` is a time of ISO 8601 in UTC; `versions` are those of the kit, the spec, Python and the kernel."""

    subject: str
    verdict: Verdict
    levels: tuple[Level, ...]
    findings: tuple[Found, ...] = ()
    expected: tuple[Expected, ...] = ()
    name: str = ""
    version: str = ""
    profile: str = ""
    seed: int = 0
    shard: str = ""
    command: str = ""
    began: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    why: str = ""
    """What the run cannot do, or what is wrong in the kit; "" where all is well."""
    notes: tuple[str, ...] = ()

    def level(self, name: str) -> Level | None:
        """The level of that name, if it is part of the report."""
        return next((level for level in self.levels if level.name == name), None)


def encode(report: Report) -> dict[str, Any]:
    """The JSON form."""
    return {"format": FORMAT, **asdict(report)}


def decode(document: object) -> Report:
    """The report that `encode` gave `document` for. Raises CannotRun for anything else."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CannotRun(f"this is no report of format {FORMAT!r}: give a report.json that snapspec check has written")
    rest = {name: value for name, value in document.items() if name != "format"}
    try:
        return _value(Report, rest)
    except (TypeError, ValueError, KeyError) as error:
        raise CannotRun(f"the report is damaged ({error}): give a report.json that snapspec check has written") from None


def load(path: Path) -> Report:
    """Read a report.json. Raises CannotRun, naming the file and the remedy, when it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"cannot read {path}: {error.strerror}; name a report.json that snapspec check has written") from None
    except (ValueError, RecursionError):
        raise CannotRun(f"{path} is not JSON; name a report.json that snapspec check has written") from None
    return decode(document)


T = TypeVar("T")


def _value(wanted: type[T], document: Any) -> T:
    """The dataclass that was made into `document`; what is missing has its default, what is unknown is an error."""
    hints = get_type_hints(wanted)
    known = {f.name: f for f in fields(wanted)}  # type: ignore[arg-type]  # it is a dataclass
    unknown = document.keys() - known.keys()
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r} of {wanted.__name__}")
    lacking = [n for n, f in known.items() if n not in document and f.default is MISSING and f.default_factory is MISSING]
    if lacking:
        raise ValueError(f"no field {lacking[0]!r} of {wanted.__name__}")
    return wanted(**{name: _typed(hints[name], value) for name, value in document.items()})


def _typed(hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{value!r:.60} is no list")
        return tuple(_typed(get_args(hint)[0], item) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.60} is no object")
        return {name: _typed(get_args(hint)[1], item) for name, item in value.items()}
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(get_args(hint)[0], value)
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.60} is no object")
        return _value(hint, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if type(value) is not hint:
        raise ValueError(f"{value!r:.60} is no {hint.__name__}")
    return value
