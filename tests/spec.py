"""spec.md as the tests read it: its clauses, and the parts between markers that are made from the model."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "spec.md"

#: A clause wherever it is named.
CLAUSE = re.compile(r"\b(?:SNAP|DOOR|REF)-[A-Z]+-[0-9]+\b")

_LISTED = re.compile(r"^- \*\*(.*?)\*\* (.*(?:\n  .*)*)", re.MULTILINE)


def clauses(text: str | None = None) -> list[tuple[str, str]]:
    """The clauses in the order of the spec, each with its text; `- **ID** text`, further lines indented by two."""
    return [(found[1], found[2]) for found in _LISTED.finditer(SPEC.read_text("utf-8") if text is None else text)]


def marked(name: str, text: str | None = None) -> str:
    """What stands between the markers of the diagram `name`."""
    begin, end = f"<!-- diagram: {name} -->\n", "<!-- end of diagram -->\n"
    text = SPEC.read_text("utf-8") if text is None else text
    _, found, rest = text.partition(begin)
    assert found, f"spec.md has no diagram named {name!r}"
    part, found, _ = rest.partition(end)
    assert found, f"the diagram {name!r} has no end"
    return part


def with_marked(name: str, part: str, text: str) -> str:
    """The text with `part` between the markers of the diagram `name`."""
    begin = f"<!-- diagram: {name} -->\n"
    return text.replace(begin + marked(name, text), begin + part)
