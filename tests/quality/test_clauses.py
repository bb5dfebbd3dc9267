"""The clauses of the spec: well numbered, named by no code that they are not there for, and each one held by something."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from spec import CLAUSE, ROOT, SPEC, clauses

ROOMS = ("model", "impl", "conformance")
KNOWN = [clause for clause, _ in clauses()]
GROUPS = {clause.rpartition("-")[0] for clause in KNOWN}

#: A group of clauses, where no number follows.
GROUP = re.compile(r"\b(?:SNAP|DOOR|REF)-[A-Z]+\b(?!-[0-9])")


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc")))


def named(path: Path) -> Iterator[tuple[int, str]]:
    """Every clause that a file names, in code, texts and comments, with its line."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        yield from ((number, clause) for clause in CLAUSE.findall(line))


# --- the spec itself


def test_every_item_of_the_spec_with_a_bold_name_is_a_clause() -> None:
    """A clause that is misspelled would be no clause, and nobody would miss it."""
    assert KNOWN
    assert [clause for clause in KNOWN if not CLAUSE.fullmatch(clause)] == []
    assert len(re.findall(r"^\s*[-*] \*\*[A-Z]", SPEC.read_text("utf-8"), re.MULTILINE)) == len(KNOWN)


def test_no_clause_is_there_twice() -> None:
    assert sorted(KNOWN) == sorted(set(KNOWN))


def test_the_clauses_of_a_group_are_numbered_in_order_from_one() -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for clause in KNOWN:
        group, _, number = clause.rpartition("-")
        groups[group].append(int(number))
    assert {group: numbers for group, numbers in groups.items() if numbers != list(range(1, len(numbers) + 1))} == {}


def test_the_spec_refers_to_clauses_that_it_has() -> None:
    text = SPEC.read_text("utf-8")
    assert set(CLAUSE.findall(text)) <= set(KNOWN)
    assert set(GROUP.findall(text)) <= GROUPS


def test_what_goes_on_in_the_next_line_belongs_to_the_clause() -> None:
    text = "- **SNAP-X-1** One\n  and more.\n  Note: why.\n\n- **SNAP-X-2** Two.\nNot of it.\n"
    assert clauses(text) == [("SNAP-X-1", "One\n  and more.\n  Note: why."), ("SNAP-X-2", "Two.")]


# --- the code against the spec


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_code_names_clauses_that_are_in_the_spec(room: str) -> None:
    """In code, in texts and in comments; a group of clauses is one that the spec has."""
    paths = [path for path in sources(room) if path != Path(__file__).resolve()]
    assert paths
    clauses_named = ((path, line, clause) for path in paths for line, clause in named(path))
    places = [f"{path.relative_to(ROOT)}:{line}: {clause}" for path, line, clause in clauses_named if clause not in KNOWN]
    groups = [f"{path.relative_to(ROOT)}: {group}" for path in paths for group in GROUP.findall(path.read_text("utf-8"))]
    assert places == []
    assert [place for place in groups if place.rpartition(" ")[2] not in GROUPS] == []


def in_contracts() -> set[str]:
    """The clauses that the description of a contract names, found in the functions themselves, private ones among them."""
    found: set[str] = set()
    for path in sources("model"):
        module = importlib.import_module(f"snapspec.model.{path.stem}")
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                found.update(_described(function))
    return found


def _described(function: FunctionType) -> Iterator[str]:
    groups = getattr(function, "__preconditions__", ())
    contracts = [contract for group in groups for contract in group] + list(getattr(function, "__postconditions__", ()))
    for contract in contracts:
        yield from CLAUSE.findall(contract.description or "")


def in_code(paths: list[Path]) -> set[str]:
    """The clauses that are a text of their own outside the contracts: of an outcome, of a mismatch, of a check."""
    found: set[str] = set()
    for path in paths:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                node.decorator_list = []
        texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        found.update(text for text in texts if CLAUSE.fullmatch(text))
    return found


def test_every_clause_has_a_contract_an_outcome_or_a_check() -> None:
    """That a real run reaches it is for the kit's own tests to show."""
    held = in_contracts() | in_code(sources("model", "conformance"))
    assert [clause for clause in KNOWN if clause not in held] == []


def test_a_clause_that_only_a_comment_or_a_contract_names_is_not_in_code(tmp_path: Path) -> None:
    """The test above would pass on a search that finds everything."""
    path = tmp_path / "module.py"
    path.write_text(
        '"""SNAP-A-1"""\n'
        "# SNAP-A-2\n"
        'text = "see SNAP-A-3"\n'
        '@ensure("SNAP-A-4")\n'
        "def check():\n"
        '    """Holds SNAP-A-5."""\n'
        '    return Mismatch("SNAP-A-6"), {"SNAP-A-7": ""}\n'
    )
    assert in_code([path]) == {"SNAP-A-1", "SNAP-A-6", "SNAP-A-7"}, "a text that is a clause and nothing else counts"


def test_contracts_are_found_in_the_functions_themselves() -> None:
    found = in_contracts()
    assert {"SNAP-KEY-3", "SNAP-CONTENT-6", "DOOR-LABEL-1"} <= found, "a postcondition, one of a private function, a precondition"
    assert "SNAP-STAT-2" not in found
