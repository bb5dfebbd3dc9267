"""report.html: the whole report in one file, which asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from snapspec.conformance.clauses import clauses
from snapspec.conformance.report.document import Clause, Found, Level, Report, Verdict
from snapspec.conformance.report.drawing import drawings, lanes
from snapspec.conformance.report.plain import counted, differing, duration, visible

#: What the verdicts say, for those who read them for the first time.
MEANING = {
    Verdict.ERROR: "the kit itself failed or could not go on: nothing is known of the driver",
    Verdict.FAILED: "an answer that the spec does not allow",
    Verdict.HANG: "a call did not answer",
    Verdict.UNEXPECTED: "it was to fail, by the driver's file, and did not",
    Verdict.NOT_REACHED: "nothing put it to the test",
    Verdict.SKIPPED: "left out, for the reason that is given",
    Verdict.EXPECTED: "it failed, as the driver's file says",
    Verdict.PARTIAL: "passed, as far as nothing was left out",
    Verdict.PASSED: "put to the test, and every answer was allowed",
    Verdict.NOT_RUN: "nobody asked for it",
}


def page(report: Report) -> str:
    """The report as a page of HTML. Nothing that a subject has said can become more than text in it."""
    style, script = _part("page.css"), _part("page.js")
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            style=Markup(style),  # it is a file of the kit
            script=Markup(script),  # likewise
            policy=_policy(style, script),
            texts=clauses(),
            shown=sorted({*_verdicts(report)}, key=list(Verdict).index),
            meaning=MEANING,
        )
    )


def _verdicts(report: Report) -> list[Verdict]:
    levels = [level.verdict for level in report.levels]
    found = [finding.verdict for finding in report.findings]
    expected = [failure.verdict for failure in report.expected]
    return [report.verdict, *levels, *found, *expected, *(clause.verdict for level in report.levels for clause in level.clauses)]


@cache
def _part(name: str) -> str:
    return files("snapspec.conformance.report").joinpath(name).read_text(encoding="utf-8").strip()


def _policy(style: str, script: str) -> str:
    """What the browser is to let the page do: its own style and script, and nothing else."""
    own = f"style-src {_hash(style)}; script-src {_hash(script)}"
    return f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader({"page.html": _part("page.html")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(slug=_slug, duration=duration, web=_is_web)
    environment.globals.update(
        drawings=drawings,
        lanes=lanes,
        differing=differing,
        tallies=tallies,
        counted=counted,
        headline=headline,
        marked_up=marked_up,
        numbered=_numbered,
        segments=_segments,
    )
    return environment


def _shown(value: Any) -> Any:
    """What stands in the page for a value: texts of others with nothing invisible in them."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _slug(verdict: Verdict) -> str:
    return verdict.value.replace(" ", "-")


def _is_web(link: str) -> bool:
    """Whether it may be followed: anything else is shown as text alone."""
    return link.startswith(("https://", "http://"))


def _numbered(found: Found) -> bool:
    """Whether the rows have no numbers of their own."""
    return not any(row.where.startswith("call ") for row in found.rows)


def tallies(level: Level) -> list[tuple[Verdict, int]]:
    """How many clauses of the level have each verdict, those that count first; none for verdicts that none has."""
    return [(verdict, count) for verdict in Verdict if (count := level.count(verdict))]


def _segments(found: tuple[Clause, ...]) -> list[tuple[Verdict, float, float]]:
    """The same as parts of a bar of 100 units: each with its beginning and its length."""
    order = sorted(found, key=lambda clause: list(Verdict).index(clause.verdict), reverse=True)
    verdicts = list(dict.fromkeys(clause.verdict for clause in order))
    parts, start = [], 0.0
    for verdict in verdicts:
        length = 100 * sum(clause.verdict is verdict for clause in order) / len(order)
        parts.append((verdict, start, length))
        start += length
    return parts


def marked_up(text: str) -> list[tuple[str, str]]:
    """The text of a clause in pieces, each with the element that its marks ask for: "code", "em" or ""."""
    elements = {"`": "code", "*": "em"}
    pieces = re.split(r"(`[^`]+`|\*[^*\s][^*]*\*)", text)
    return [(piece[1:-1], elements[piece[0]]) if at % 2 else (piece, "") for at, piece in enumerate(pieces)]


def headline(report: Report) -> str:
    """The verdict in a sentence."""
    ran = [level for level in report.levels if level.verdict is not Verdict.NOT_RUN]
    passed = sum(level.verdict is Verdict.PASSED for level in ran)
    found = [finding for finding in report.findings if finding.verdict is not Verdict.EXPECTED]
    parts = [counted(len(found), "finding") if found else "nothing found that the spec does not allow"]
    known = len(report.findings) - len(found)
    parts += [f"{known} more that the driver's file expects"] if known else []
    parts.append(f"{passed} of {counted(len(ran), 'level')} passed")
    return ", ".join(parts)
