"""summary.md: the report for the page of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from snapspec.conformance.clauses import clauses
from snapspec.conformance.report.document import Found, Level, Report, Row, Verdict
from snapspec.conformance.report.plain import counted, duration, visible

#: So many findings, and so many last rows of each, are told: a job's page takes only so much.
FINDINGS, ROWS = 30, 60

_SIGNS = {
    Verdict.ERROR: "⛔",
    Verdict.FAILED: "❌",
    Verdict.HANG: "⏳",
    Verdict.UNEXPECTED: "❗",
    Verdict.NOT_REACHED: "⚪",
    Verdict.SKIPPED: "➖",
    Verdict.EXPECTED: "☑️",
    Verdict.PARTIAL: "🔶",
    Verdict.PASSED: "✅",
    Verdict.NOT_RUN: "▫️",
}

#: What could be taken for markup, or for the name of somebody.
_MARKUP = re.compile(r"([\\`*_\[\]<>#!|~&@])|(?<=^)([-+=])|(?<=^\d)([.)])")


def summary(report: Report) -> str:
    """The report in GitHub's Markdown. Nothing that a subject has said can become more than text in it."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {_said(report.verdict)}: {plain(' '.join(filter(None, (report.name or report.subject, report.version))))}"
    yield ""
    if report.why:
        yield from (plain(report.why), "")
    yield from _levels(report)
    yield from _findings(report)
    yield from _expected(report)
    yield from _run(report)


def _said(verdict: Verdict) -> str:
    return f"{_SIGNS[verdict]} {verdict.value}"


# --- what others have said


def plain(text: str) -> str:
    """The text as text, on one line: nothing of it is markup."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(visible(text).split()))


def code(text: str) -> str:
    """The text as code within a line, or within a table."""
    shown = " ".join(visible(text).split()).replace("|", "\\|")
    if not shown:
        return ""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    room = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{room}{shown}{room}{ticks}"


def block(lines: list[str], language: str = "text") -> Iterator[str]:
    """The lines as a block of code, which none of them can end."""
    shown = [line for text in lines for line in visible(text).split("\n")]
    fence = "`" * max(3, 1 + max((len(run) for line in shown for run in re.findall("`+", line)), default=0))
    yield from (f"{fence}{language}", *shown, fence, "")


def _link(link: str) -> str:
    return f"<{link}>" if re.fullmatch(r"https?://[^\s<>\x00-\x20]{1,500}", link) else code(link)


# --- parts


def _levels(report: Report) -> Iterator[str]:
    yield "| level | verdict | clauses | histories | calls | time |"
    yield "|---|---|---|--:|--:|--:|"
    yield from map(_level, report.levels)
    yield ""
    for note in report.notes:
        yield from (plain(note), "")


def _level(level: Level) -> str:
    counts = ", ".join(f"{level.count(verdict)} {verdict.value}" for verdict in Verdict if level.count(verdict))
    told = "; ".join(filter(None, (counts, plain(level.why))))
    took = duration(level.seconds) if level.seconds else ""
    return f"| {plain(level.name)} | {_said(level.verdict)} | {told} | {level.histories or ''} | {level.calls or ''} | {took} |"


def _findings(report: Report) -> Iterator[str]:
    if not report.findings:
        return
    yield from (f"## {counted(len(report.findings), 'finding')}", "")
    for found in report.findings[:FINDINGS]:
        yield from _finding(found)
    if len(report.findings) > FINDINGS:
        yield from (f"{len(report.findings) - FINDINGS} more are in report.html.", "")


def _finding(found: Found) -> Iterator[str]:
    yield from (f"### {found.number}. {plain(found.clause)}, at {code(found.at) or 'the end'}", "")
    took = f", after {counted(found.histories, 'history', 'histories')}" if found.histories else ""
    yield from (f"{_said(found.verdict)}, level {plain(found.level)}{took}", "")
    if found.reason:
        yield from (f"Expected: {plain(found.reason)} {_link(found.link) if found.link else ''}".rstrip(), "")
    yield from block(list(_history(found)))
    for gap in found.gaps:
        yield f"- {plain(gap.clause)}: allowed {code(gap.allowed) or 'nothing'}, came {code(gap.came) or 'nothing'}"
    yield ""
    for clause in dict.fromkeys(gap.clause for gap in found.gaps):
        if clause in clauses():
            yield from (f"> **{clause}** {clauses()[clause]}", "")
    if found.after:
        yield from (f"It shows only after {', '.join(map(code, found.after))}.", "")
    if found.again:
        yield from block([found.again], "sh")


def _history(found: Found) -> Iterator[str]:
    """The lanes where calls overlap, else the rows."""
    if found.lanes:
        yield from found.lanes
        return
    left_out = max(0, len(found.rows) - ROWS)
    if left_out:
        yield f"     ... {counted(left_out, 'call')} before"
    for number, row in enumerate(found.rows[left_out:], left_out + 1):
        yield _row(number, row, found.clause)


def _row(number: int, row: Row, clause: str) -> str:
    where = f"{row.where}: " if row.where else ""
    answer = f" -> {row.answer}" if row.answer else ""
    marks = {"broken": f"    <- breaks {clause}", "aside": "    <- shows another finding"}
    return f"{number:4}  {where}{row.call}{answer}{marks.get(row.mark, '')}"


def _expected(report: Report) -> Iterator[str]:
    if not report.expected:
        return
    yield from ("## Expected failures", "", "| clause | what came of it | reason |", "|---|---|---|")
    for failure in report.expected:
        reason = " ".join(filter(None, (plain(failure.reason), _link(failure.link) if failure.link else "", plain(failure.why))))
        yield f"| {plain(failure.clause)} | {_said(failure.verdict)} | {reason} |"
    yield ""


def _run(report: Report) -> Iterator[str]:
    yield from ("## The run", "")
    if report.command:
        yield from block([report.command], "sh")
    versions = [f"{name} {version}" for name, version in report.versions.items()]
    more = [f"profile {report.profile}"] * bool(report.profile) + [f"shard {report.shard}"] * bool(report.shard)
    facts = [report.subject, f"seed {report.seed}", *more, *versions, f"{report.began}, {duration(report.seconds)}".lstrip(", ")]
    yield " · ".join(map(plain, facts))
