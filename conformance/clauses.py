"""The text of the spec's clauses, as spec.md states them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_CLAUSE = re.compile(r"^- \*\*([A-Z]+-[A-Z]+-\d+)\*\* (.*(?:\n  .*)*)", re.MULTILINE)

_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

#: What parts the reason from the rule in a clause.
_NOTE = " Note: "


@dataclass(frozen=True, slots=True)
class Parted:
    """A clause: the rule, and the note that says why, "" where there is none, each on one line; and the heading over it."""

    rule: str
    note: str
    section: str


@cache
def clauses() -> dict[str, str]:
    """Every clause of the spec: its id, in the order of the spec, and its text on one line, notes included."""
    return {found.group(1): " ".join(found.group(2).split()) for found in _CLAUSE.finditer(_spec())}


@cache
def parted() -> dict[str, Parted]:
    """The same, with rule and note apart."""
    text, found = _spec(), {}
    for clause in _CLAUSE.finditer(text):
        rule, _, note = clauses()[clause.group(1)].partition(_NOTE)
        *_, heading = _HEADING.finditer(text, 0, clause.start())
        found[clause.group(1)] = Parted(rule, note[:1].upper() + note[1:], heading.group(1))
    return found


@cache
def families() -> dict[str, tuple[str, ...]]:
    """The clauses of each family, in the order of the spec: those of `SNAP-COMMIT` are SNAP-COMMIT-1 and so on."""
    found: dict[str, list[str]] = {}
    for clause in clauses():
        found.setdefault(clause.rpartition("-")[0], []).append(clause)
    return {family: tuple(members) for family, members in found.items()}


@cache
def _spec() -> str:
    return files("snapspec.conformance").joinpath("spec.md").read_text(encoding="utf-8")
