"""The mutants: each is one file of the project with one small change, made by an operator of cosmic-ray or of this file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator, operator_names

#: The operators of cosmic-ray that are used. The rest is noise here; the README says why.
OPERATORS = re.compile(
    "core/("
    "AddNot|ExceptionReplacer|NumberReplacer|ZeroIterationForLoop"
    "|Replace(AndWithOr|OrWithAnd|TrueWithFalse|FalseWithTrue|BreakWithContinue|ContinueWithBreak)"
    "|ReplaceUnaryOperator_Delete_(Not|USub)"
    "|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is"
    "|Lt_(LtE|GtE)|LtE_(Lt|Gt)|Gt_(GtE|LtE)|GtE_(Gt|Lt))"
    "|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|FloorDiv_Mul|BitOr_BitAnd|BitAnd_BitOr)"
    ")"
)


class RemoveStatement(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """A statement made for what it does (a call, an assignment to an attribute or an item, a del) does nothing."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """See `Operator`."""
        if node.type == "simple_stmt" and _does(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """See `Operator`."""
        nothing = parso.parse("pass").children[0]
        nothing.prefix = node.get_first_leaf().prefix
        node.children[0] = nothing
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """See `Operator`."""
        return (Example("f(x)\n", "pass\n"), Example("x.y = 1\n", "pass\n"), Example("del x[1]\n", "pass\n"))


def _does(statement: Any) -> bool:
    if statement.type == "expr_stmt":
        target = statement.children[0].get_code(include_prefix=False)
        return "." in target or "[" in target
    return statement.type in ("atom_expr", "await_expr", "del_stmt")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`path` of the checkout with `text` in place of what it holds: in `line` stands `after` instead of `before`."""

    path: str
    line: int
    before: str
    after: str
    operator: str
    text: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What tells it from others, also when lines were added above it."""
        return self.path, self.before, self.after


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operator changes a file: the `occurrence`-th of the places that it finds there."""

    path: str
    position: tuple[int, int]
    operator: str
    occurrence: int


def places_of(root: Path, path: str, within: tuple[str, ...] = ()) -> list[Place]:
    """Where the file can be changed, in the order of its text; `within`: in these functions alone."""
    text = (root / path).read_text()
    nodes, lines = list(ast_nodes(get_ast(text))), _lines_of(text, within)
    found = [
        Place(path, start, name, occurrence)
        for name, operator in _operators().items()
        for occurrence, (start, _) in enumerate(place for node in nodes for place in operator.mutation_positions(node))
    ]
    return sorted((place for place in found if not within or place.position[0] in lines), key=_order)


def _order(place: Place) -> tuple[tuple[int, int], str, int]:
    return place.position, place.operator, place.occurrence


def mutant_at(root: Path, place: Place) -> Mutant | None:
    """The mutant; None when the change makes no other program, or none at all."""
    text = (root / place.path).read_text()
    try:
        mutated = mutate_code(text, _operators()[place.operator], place.occurrence)
        if mutated is None or _essence(mutated) == _essence(text):
            return None
    except (SyntaxError, AttributeError):  # the parser of cosmic-ray does not know `match`, its operator not `except a.b`
        return None
    return _mutant(place.path, text, mutated, place.operator)


@cache
def _operators() -> dict[str, Any]:
    chosen = [name for name in sorted(operator_names()) if OPERATORS.fullmatch(name)]
    return {"RemoveStatement": RemoveStatement()} | {name.removeprefix("core/"): get_operator(name)() for name in chosen}


def _lines_of(text: str, functions: tuple[str, ...]) -> set[int]:
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name in functions]
    return {line for node in found for line in range(node.lineno, (node.end_lineno or 0) + 1)}


def _mutant(path: str, text: str, mutated: str, operator: str) -> Mutant:
    pairs = zip_longest(text.splitlines(), mutated.splitlines(), fillvalue="")
    line, before, after = next((n, a, b) for n, (a, b) in enumerate(pairs, 1) if a != b)
    return Mutant(path, line, before.strip(), after.strip(), operator, mutated)


class _Bare(ast.NodeTransformer):
    """Leaves out what no behaviour hangs on, or all of it: annotations, names of types, decorators, words of errors, the log."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: Any) -> ast.AST:
        node.returns, node.decorator_list = None, []
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = []
        return self.generic_visit(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [each for each in node.body if not _is_alias(each)]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if ast.unparse(node).startswith("_log.") else self.generic_visit(node)


@cache
def _essence(text: str) -> str:
    """Two texts with the same one are the same program. Raises SyntaxError."""
    return ast.dump(_Bare().visit(ast.parse(text)))


def _is_alias(statement: ast.stmt) -> bool:
    """`Value = int | str`: a name for types, none of which is another module's."""
    if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.BinOp | ast.Subscript):
        return False
    return not any(isinstance(node, ast.Attribute | ast.Call) for node in ast.walk(statement.value))
