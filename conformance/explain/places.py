"""Where the model keeps a clause: its contracts, and the outcomes and judgements that name it. Found in the installed sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from textwrap import dedent

#: Lines of one place that are shown.
MOST = 8

#: Modules of the kit that name clauses to tell of them, and hold none.
_TELLING = ("report", "explain", "mutants", "owed.py")

_CONTRACTS = {"ensure": "is ensured by", "require": "is required by"}


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the sources: `path` begins with the room; `what` says how the clause is kept there; `lines` are the text."""

    path: str
    line: int
    what: str
    lines: tuple[str, ...]
    table: str = ""
    """The name of the table that the lines are a row of."""

    @property
    def contract(self) -> bool:
        """Whether it is a contract, which holds at every call."""
        return self.what.startswith(tuple(_CONTRACTS.values()))


def places(clause: str) -> tuple[Place, ...]:
    """Where the clause is kept, contracts first: in the model, or, where that names it nowhere, in the kit.

    Lemmas say again what a contract says, and a count only that it was met: they stand for a clause that has nothing else.
    """
    model = _places("model").get(clause, ())
    own = [place for place in model if "lemmas" not in place.path]
    found = own or model or _places("conformance").get(clause, ())
    telling = [place for place in found if place.contract or _TELLS.search(" ".join(place.lines))] or found
    guards = (guard for place in telling for guard in _guards(place))
    return tuple(sorted(dict.fromkeys((*telling, *guards)), key=lambda place: not place.contract))


#: What says of a clause more than that it was met: an outcome, a judgement, a row of a table of refusals.
_TELLS = re.compile(r"Outcome\(|Mismatch\(|Unsound\(|_diverged\(|_none\(|(?:Reason|Rule)\.[A-Z_]+: \(|otherwise")

#: A row of a table of refusals, and the name of the reason in it.
_REFUSAL = re.compile(r"(Reason|Rule)\.([A-Z_]+): \(")


def _guards(place: Place) -> Iterator[Place]:
    """What decides on the refusal of a table's row: the places in guards that give that reason, for the call of that table."""
    row = _REFUSAL.match(place.lines[0])
    if row is None or place.path not in ("model/snapshots.py", "model/ref_outcomes.py"):
        return
    path = "model/guards.py" if row[1] == "Reason" else "model/ref_guards.py"
    text = dict(_sources("model"))[path]
    given = [(f, s) for f in _functions(ast.parse(text)) for s in _giving(f, row[2])]
    own = [(f, s) for f, s in given if _name(f) == f"{place.table.lower()}_guard"] or given
    for function, statement in own:
        yield Place(path, statement.lineno, f"is decided in {_name(function)}", _text(text.splitlines(), statement))


def _giving(function: Named, reason: str) -> Iterator[ast.stmt]:
    """The statements of the function that return that reason, each with the condition around it."""
    if isinstance(function, ast.Module):
        return
    for statement in function.body:
        if any(isinstance(node, ast.Attribute) and node.attr == reason for node in ast.walk(statement)):
            yield statement


@cache
def _places(room: str) -> dict[str, tuple[Place, ...]]:
    """All places of a room, by clause."""
    found: dict[str, list[Place]] = {}
    for path, text in _sources(room):
        for clause, place in _in_module(path, text):
            found.setdefault(clause, []).append(place)
    return {clause: tuple(dict.fromkeys(held)) for clause, held in found.items()}


def _sources(room: str) -> Iterator[tuple[str, str]]:
    """The modules of the room and of its packages, each with its text."""
    top = files(f"snapspec.{room}")
    for entry in sorted(top.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py") and entry.name not in _TELLING:
            yield f"{room}/{entry.name}", entry.read_text(encoding="utf-8")
        elif entry.is_dir() and entry.name not in (*_TELLING, "proto", "__pycache__"):
            for module in sorted(entry.iterdir(), key=lambda module: module.name):
                if module.name.endswith(".py"):
                    yield f"{room}/{entry.name}/{module.name}", module.read_text(encoding="utf-8")


def _in_module(path: str, text: str) -> Iterator[tuple[str, Place]]:
    lines = text.splitlines()
    for function in _functions(ast.parse(text)):
        for decorator in getattr(function, "decorator_list", ()):
            for clause in _described(decorator):
                kind = _CONTRACTS[decorator.func.attr]
                yield clause, Place(path, decorator.lineno, f"{kind} {_name(function)}", _text(lines, decorator))
        for statement, clause in _named(function):
            table = _table(function, statement)
            what = f"is a row of {table}" if table else f"is named in {_name(function)}"
            yield clause, Place(path, statement.lineno, what, _text(lines, statement), table)


def _table(function: Named, node: ast.stmt | ast.expr) -> str:
    """The name of the module's value that the node is part of, where it is."""
    if not isinstance(function, ast.Module) or not isinstance(node, ast.expr):
        return ""
    for statement in function.body:
        within = statement.lineno <= node.lineno <= (statement.end_lineno or 0)
        if within and isinstance(statement, ast.AnnAssign | ast.Assign):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            return target.id if isinstance(target, ast.Name) else ""
    return ""


Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.Module


def _functions(module: ast.Module) -> Iterator[Named]:
    yield module
    yield from (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _name(function: Named) -> str:
    return "the module" if isinstance(function, ast.Module) else function.name


def _described(decorator: ast.expr) -> Iterator[str]:
    """The clauses that the description of a contract names."""
    match decorator:
        case ast.Call(
            func=ast.Attribute(value=ast.Name("icontract"), attr="ensure" | "require"), args=[_, ast.Constant(str(told))]
        ):
            yield from (word for word in told.replace(",", " ").split() if word.count("-") == 2)


def _named(function: Named) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """The clauses that stand as texts of their own in the body, each with the least statement, or entry of a table, around it."""
    for statement in function.body:
        yield from _within(statement)


def _within(node: ast.AST, around: ast.stmt | ast.expr | None = None) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(node, ast.stmt):
        around = node
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and around is not None:
        yield around, node.value
    tall = around is not None and _height(around) > (1 if isinstance(node, ast.Dict) else MOST)
    table = tall and isinstance(node, ast.Dict | ast.Tuple | ast.Set | ast.List)
    for child in ast.iter_child_nodes(node):
        yield from _within(child, child if table and isinstance(child, ast.expr) else around)


def _height(node: ast.stmt | ast.expr) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _text(lines: list[str], node: ast.stmt | ast.expr) -> tuple[str, ...]:
    """The lines of the node; of a long one the first."""
    text = dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])).splitlines()
    return tuple(text) if len(text) <= MOST else (*text[: MOST - 1], "...")
