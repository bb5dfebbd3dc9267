"""The text of the spec's clauses, as spec.md states them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_CLAUSE = re.compile(r"^- \*\*([A-Z]+-[A-Z]+-\d+)\*\* (.*(?:\n  .*)*)", re.MULTILINE)


@cache
def clauses() -> dict[str, str]:
    """Every clause of the spec: its id, in the order of the spec, and its text on one line, notes included."""
    text = files("snapspec.conformance").joinpath("spec.md").read_text(encoding="utf-8")
    return {found.group(1): " ".join(found.group(2).split()) for found in _CLAUSE.finditer(text)}
