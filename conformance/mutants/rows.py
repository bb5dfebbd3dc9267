"""What an exhibit of a manager of refs is made of."""

from __future__ import annotations

from snapspec.conformance.mutants import Exhibit, Managers
from snapspec.impl.manager import Manager
from snapspec.impl.refs import Ledger


def row(
    name: str,
    wrong: str,
    where: str,
    *clauses: str,
    ledger: type[Ledger] = Ledger,
    manager: type[Manager] = Manager,
    level: str = "core",
) -> Exhibit:
    """An exhibit of a manager over the model."""
    return Exhibit(name, wrong, where, clauses, level, over="model:", manager=Managers(ledger, manager))


def buildkit(commit: str, date: str) -> str:
    """Where it was real: up to that commit."""
    return f"BuildKit until {commit}, {date}"
