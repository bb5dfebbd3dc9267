"""Kinds of findings, as values and in their JSON form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from snapspec.conformance.errors import CannotRun


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """The clause that is broken, at which call, after which `cause` it was looked at, and in which ways: `shape`."""

    clause: str
    call: str = ""
    cause: str = ""
    shape: tuple[str, ...] = ()

    @property
    def at(self) -> str:
        """In words, without the clause."""
        called = f"{self.call} after {self.cause}" if self.cause else self.call
        return ": ".join(part for part in (called, ", ".join(self.shape)) if part)

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.clause} at {self.at}" if self.at else self.clause


# --- as JSON


def encode_kinds(kinds: Iterable[Kind]) -> list[list[Any]]:
    """The JSON form, in one order."""
    return [[k.clause, k.call, k.cause, list(k.shape)] for k in sorted(kinds)]


def decode_kinds(document: object) -> frozenset[Kind]:
    """The kinds that `encode_kinds` gave `document` for. Raises CannotRun for anything else."""
    kinds = set()
    for entry in document if isinstance(document, list | tuple) else [None]:
        match entry:
            case [str(clause), str(call), str(cause), [*shape]] if all(isinstance(way, str) for way in shape):
                kinds.add(Kind(clause, call, cause, tuple(shape)))
            case _:
                raise CannotRun(f"{entry!r:.80} is no kind of finding: give a file that snapspec check has saved")
    return frozenset(kinds)
