"""What `snapspec explain` prints: all families, the clauses of one, or a clause with its reason, contract and examples."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator
from dataclasses import fields

from rich.console import Console
from rich.text import Text

from snapspec.conformance.clauses import clauses, families, parted
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.explain.events import Example, judge, lines
from snapspec.conformance.explain.examples import Entry, examples
from snapspec.conformance.explain.places import Place, places
from snapspec.conformance.ref_history import RefFinding
from snapspec.model.replies import Mismatch
from snapspec.model.state import Profile

#: Columns of the text, where there is no terminal that says otherwise.
WIDTH = 100
NARROWEST, WIDEST = 80, 110

#: Places in the sources that are shown of one clause.
SHOWN = 4

#: A line and its style on a terminal.
Line = tuple[str, str]


def explain(words: str) -> None:
    """Print what the words name: "" for all families. CannotRun, with the nearest ids, when they name nothing."""
    console = Console(highlight=False)
    width = min(WIDEST, max(NARROWEST, console.width)) if console.is_terminal else WIDTH
    for text, style in explained(words, width):
        console.print(Text(text, style=style), soft_wrap=True)


def explained(words: str, width: int = WIDTH) -> Iterator[Line]:
    """The lines that `explain` prints. CannotRun as there."""
    name = words.upper()
    if not words:
        return _all(width)
    if name in families():
        return _family(name, width)
    if name in clauses():
        return _clause(name, width)
    near = difflib.get_close_matches(name, (*families(), *clauses()), n=3)
    meant = f"is it {' or '.join(near)}? " if near else ""
    raise CannotRun(f"there is no clause {words!r}: {meant}`snapspec explain` names all families")


# --- lists


def _all(width: int) -> Iterator[Line]:
    for family, members in families().items():
        count = f"{len(members)} clause{'s' if len(members) > 1 else ''}"
        yield _cut(f"{family:16}{count:12}{parted()[members[0]].section}", width), ""
    yield "", ""
    yield "snapspec explain SNAP-COMMIT: a family; snapspec explain SNAP-COMMIT-4: one", "dim"


def _family(family: str, width: int) -> Iterator[Line]:
    for clause in families()[family]:
        yield _cut(f"{clause:20}{parted()[clause].rule}", width), ""


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


# --- one clause


def _clause(clause: str, width: int) -> Iterator[Line]:
    known, entry = parted()[clause], examples().get(clause, Entry())
    yield f"{clause}  ({known.section})", "bold"
    yield "", ""
    yield from _wrapped(known.rule, width, "  ")
    if known.note:
        yield "", ""
        yield from _titled("why", known.note, width, "italic")
    yield "", ""
    yield from _contract(places(clause), width)
    if entry.legal is not None:
        yield "", ""
        yield _heading("legal", entry.legal), "bold green"
        yield from _history(entry.legal, width, _alike(entry))
    if entry.illegal is not None:
        yield "", ""
        yield from _illegal(clause, entry, width)
    if entry.why:
        yield "", ""
        yield from _titled(f"no {'illegal ' if entry.legal else ''}example", entry.why, width, "")


def _wrapped(text: str, width: int, indent: str, more: str = "") -> Iterator[Line]:
    for line in textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + more, break_long_words=False, break_on_hyphens=False
    ):
        yield line, ""


def _titled(title: str, text: str, width: int, style: str) -> Iterator[Line]:
    wrapped = textwrap.wrap(
        f"{title}: {text}", width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    yield from ((line, style) for line in wrapped)


def _contract(found: tuple[Place, ...], width: int) -> Iterator[Line]:
    """Each place with its lines; those of the code are as they stand, but for what is too long."""
    if not found:
        yield "  in the model: no contract and no outcome names it", "dim"
        return
    yield (
        f"  in {'the model' if found[0].path.startswith('model/') else 'the kit, for no contract of the model names it'}",
        "bold",
    )
    for place in found[:SHOWN]:
        yield f"    {place.path}:{place.line}  {place.what}", "cyan"
        for code in place.lines:
            indent = " " * (8 + len(code) - len(code.lstrip()))
            yield from ((text, "dim") for text, _ in _wrapped(code.strip(), width, indent, "    "))
    if len(found) > SHOWN:
        yield f"    and {len(found) - SHOWN} more", "dim"


def _heading(title: str, example: Example) -> str:
    declared = [
        f"{field.name}={getattr(value, 'value', value)}"
        for field in fields(Profile)
        if (value := getattr(example.profile, field.name)) != field.default
    ]
    return f"  {title}" + (f", of a driver with {', '.join(declared)}" if declared else "")


def _alike(entry: Entry) -> bool:
    """Whether the two examples would read the same but for what words leave out."""
    legal, illegal = entry.legal, entry.illegal
    return legal is not None and isinstance(illegal, Example) and list(lines(legal)) == list(lines(illegal))


def _history(example: Example, width: int, whole: bool) -> Iterator[Line]:
    for line in lines(example, whole):
        yield from _wrapped_line(line, width)


def _wrapped_line(line: str, width: int) -> Iterator[Line]:
    wrapped = textwrap.wrap(line, width, initial_indent="    ", subsequent_indent=" " * 12, drop_whitespace=False)
    yield from ((text.rstrip(), "") for text in wrapped)


def _illegal(clause: str, entry: Entry, width: int) -> Iterator[Line]:
    """The history and what the oracle says of its last answer; where that names another clause, that it shows there."""
    if isinstance(entry.illegal, RefFinding):
        yield f"  illegal, of mutant:{entry.exhibit}", "bold red"
        for line in entry.illegal.told:
            yield from _wrapped_line(line, width)
        yield from _mismatches(entry.illegal.mismatches, width)
        return
    assert entry.illegal is not None, "there is one"
    mismatches = judge(entry.illegal).mismatches
    yield _heading("illegal", entry.illegal), "bold red"
    yield from _history(entry.illegal, width, _alike(entry))
    yield from _mismatches(mismatches, width)
    named = mismatches[0].clause
    if clause not in {mismatch.clause for mismatch in mismatches}:
        yield from _titled(f"it shows as {named}", parted()[named].rule, width, "dim")


def _mismatches(mismatches: tuple[Mismatch, ...], width: int) -> Iterator[Line]:
    """All that was allowed, and what came."""
    for text in dict.fromkeys(f"{mismatch.expected}  [{mismatch.clause}]" for mismatch in mismatches):
        yield from ((line, "green") for line in _lines(f"allowed  {text}", width, "      ", " " * 15))
    for text in dict.fromkeys(mismatch.came for mismatch in mismatches):
        yield from ((line, "red") for line in _lines(f"came     {text}", width, "      ", " " * 15))


def _lines(text: str, width: int, first: str, others: str) -> list[str]:
    """The text in lines, in which a clause's id is not broken."""
    wrapper = textwrap.TextWrapper(width, first, others, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)
