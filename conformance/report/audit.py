"""What an audit says."""

from __future__ import annotations

from collections.abc import Iterator

from snapspec.conformance.linear import Verdict
from snapspec.conformance.recordings.judge import Opinion
from snapspec.conformance.recordings.lanes import drawn
from snapspec.conformance.report.text import clause_lines, mismatch_lines


def audit_lines(opinion: Opinion) -> Iterator[str]:
    """The verdict on a recording, and what is illegal in it."""
    what = f"{opinion.calls} calls in {opinion.parts} parts"
    if opinion.verdict is Verdict.LEGAL:
        yield f"LEGAL: {what}; each part has an order in which every answer is right"
    elif opinion.shown is None:
        yield f"UNKNOWN: {what}; no order was found and none is excluded: audit a shorter recording"
    else:
        yield f"ILLEGAL: {what}; these {len(opinion.shown.calls)} calls have no order in which every answer is right:"
        yield ""
        yield from (f"  {text}".rstrip() for text in drawn(opinion.shown))
        for mismatch in opinion.shown.mismatches:
            yield from mismatch_lines(mismatch)
        yield ""
        yield from clause_lines(mismatch.clause for mismatch in opinion.shown.mismatches)
