"""The labelled histories that lie beside the repository, and the two small models that they are held against."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from spec import ROOT

from snapspec.conformance.linear import Call, Model

#: Where they lie.
DATA = ROOT.parent / "shared" / "data" / "porcupine"

_ETCD = re.compile(r"INFO\s+jepsen\.util - (\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(.*)")
_KV = re.compile(r'\{:process (\d+), :type :(invoke|ok), :f :(get|put|append), :key "(.*)", :value (?:nil|"(.*)")\}')


class Register:
    """One register, at first nil. An operation is its name and its arguments, an outcome the value that was read, or whether the
    comparison held."""

    initial = "nil"

    def step(self, state: str, operation: tuple[str, ...], outcome: Any) -> Iterator[str]:
        """The state afterwards, if the outcome can be."""
        match operation:
            case ("read",):
                if outcome in (None, state):
                    yield state
            case ("write", value):
                yield value
            case ("cas", old, new):
                if outcome in (None, old == state):
                    yield new if old == state else state

    def looks(self, operation: tuple[str, ...], outcome: Any) -> bool:
        """Whether it changes nothing."""
        return operation[0] == "read" or outcome is False


class Text:
    """One text, at first empty."""

    initial = ""

    def step(self, state: str, operation: tuple[str, ...], outcome: Any) -> Iterator[str]:
        """The state afterwards, if the outcome can be."""
        match operation:
            case ("get", _):
                if outcome == state:
                    yield state
            case ("put", value):
                yield value
            case ("append", value):
                yield state + value

    def looks(self, operation: tuple[str, ...], outcome: Any) -> bool:
        """Whether it changes nothing."""
        return operation[0] == "get"


def load(path: Path) -> list[tuple[Model, list[Call]]]:
    """The history as parts, each with its model."""
    lines = path.read_text().splitlines()
    if path.parent.name == "jepsen":
        return [(Register(), etcd(lines))]
    keys: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        found = _KV.fullmatch(line)
        assert found, line
        keys[found[4]].append(line)
    return [(Text(), kv(lines)) for lines in keys.values()]


def etcd(lines: list[str]) -> list[Call]:
    """A call that ended in info has no end, and a read that did says nothing: it is left out."""
    calls: list[Call | None] = []
    running: dict[str, int] = {}
    for at, line in enumerate(lines):
        found = _ETCD.fullmatch(line)
        if found is None:
            continue
        process, kind, name, value = found.groups()
        if kind == "invoke":
            running[process] = len(calls)
            arguments = re.findall(r"\w+", value) if name != "read" else []
            calls.append(Call((name, *arguments), None, at, None, process))
            continue
        number = running.pop(process)
        call = calls[number]
        assert call is not None
        unheard = kind == "info" or value == ":timed-out"
        if not unheard:
            outcome = value if name == "read" else kind == "ok" if name == "cas" else None
            calls[number] = replace(call, outcome=outcome, ended=at)
        elif name == "read":
            calls[number] = None
    return [call for call in calls if call is not None]


def kv(lines: list[str]) -> list[Call]:
    """The calls on one key; every one was answered."""
    calls: list[Call] = []
    running: dict[str, int] = {}
    for at, line in enumerate(lines):
        found = _KV.fullmatch(line)
        assert found, line
        process, kind, name, _, value = found.groups()
        if kind == "invoke":
            running[process] = len(calls)
            calls.append(Call((name, value or ""), None, at, None, process))
        else:
            number = running.pop(process)
            calls[number] = replace(calls[number], outcome=(value or "") if name == "get" else None, ended=at)
    return calls
