"""Histories of refs: bursts of calls that may overlap, with the choices that order them, in words and in a form that replays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from snapspec.conformance.codec import decode, encode
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.report.document import Bar, Picture
from snapspec.conformance.schedule import Budget
from snapspec.model.ref_ops import RefOperation
from snapspec.model.replies import Mismatch


@dataclass(frozen=True, slots=True)
class Burst:
    """Calls that begin together. A single one runs alone; of several `choices` says what goes on at each quiet moment.

    Where `choices` ends, or does not fit, the simplest thing happens; `budget` says what disturbs the calls. Where nothing is
    held at gates, `kill` microseconds after the beginning the process of the manager is killed.
    """

    ops: tuple[RefOperation, ...]
    choices: tuple[int, ...] = ()
    budget: Budget = field(default_factory=Budget)
    kill: int | None = None


@dataclass(frozen=True, slots=True)
class RefFinding:
    """A departure from the spec of refs: the bursts that show it, in the last of which it shows; `told` is the run in words."""

    bursts: tuple[Burst, ...]
    told: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]
    free: bool = False
    """Whether nothing was held at gates: then no two runs of it are alike."""
    power: bool = False
    """Whether the power was cut in the last burst or after it."""
    call: str = ""
    """The name of the call whose answer no clause allows, where it is one."""
    bars: tuple[Bar, ...] = ()
    """The calls that overlapped last, if any did."""
    pictures: tuple[Picture, ...] = ()
    """The states around what the spec does not allow, as far as they are known."""

    @property
    def clause(self) -> str:
        """The clause that is broken."""
        return self.mismatches[0].clause


def length(bursts: tuple[Burst, ...]) -> int:
    """The steps of a history: its calls, the kills, and the choices that are not the simplest."""
    return sum(len(burst.ops) + (burst.kill is not None) + sum(choice > 0 for choice in burst.choices) for burst in bursts)


def size(finding: RefFinding) -> tuple[int, int, int]:
    """What makes one history shorter than another: fewer steps, smaller choices, less to read in the calls."""
    choices = sum(sum(burst.choices) for burst in finding.bursts)
    return length(finding.bursts), choices, sum(len(repr(op)) for burst in finding.bursts for op in burst.ops)


def encode_ref_finding(found: RefFinding) -> dict[str, Any]:
    """The JSON form of a finding."""
    return {
        "clause": found.clause,
        "mismatches": [encode(m) for m in found.mismatches],
        "told": list(found.told),
        "free": found.free,
        **({"power": True} if found.power else {}),
        **({"call": found.call} if found.call else {}),
        "bursts": [
            {
                "ops": [encode(op) for op in burst.ops],
                "choices": list(burst.choices),
                "budget": encode(burst.budget),
                **({} if burst.kill is None else {"kill": burst.kill}),
            }
            for burst in found.bursts
        ],
        **encode_drawn(found.bars, found.pictures),
    }


def encode_drawn(bars: tuple[Bar, ...], pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """What a finding has to be drawn, as fields of its JSON form; one that has none has no such field."""
    return {name: encode(value) for name, value in (("bars", bars), ("pictures", pictures)) if value}


def decode_drawn(fields: dict[Any, Any]) -> tuple[tuple[Bar, ...], tuple[Picture, ...]]:
    """What `encode_drawn` gave those fields for. Raises CannotRun for anything else."""
    bars, pictures = decode(fields.get("bars", [])), decode(fields.get("pictures", []))
    if isinstance(bars, tuple) and isinstance(pictures, tuple):
        drawn = tuple(b for b in bars if isinstance(b, Bar)), tuple(p for p in pictures if isinstance(p, Picture))
        if drawn == (bars, pictures):
            return drawn
    raise CannotRun("what the finding draws is no picture: give a file that snapspec check has saved")


def decode_ref_finding(document: object) -> RefFinding:
    """The finding that `encode_ref_finding` gave `document` for. Raises CannotRun for anything else."""
    match document:
        case {"mismatches": list(mismatches), "told": list(told), "free": bool(free), "bursts": list(bursts), **more} if bursts:
            decoded = tuple(decode(m) for m in mismatches)
            if decoded and all(isinstance(m, Mismatch) for m in decoded) and all(isinstance(line, str) for line in told):
                steps, power = tuple(_burst(entry) for entry in bursts), more.get("power") is True
                call = str(more.get("call", ""))
                return RefFinding(steps, tuple(told), decoded, free, power, call, *decode_drawn(more))
    raise CannotRun("this is no finding: give a file that snapspec check has saved")


def _burst(entry: object) -> Burst:
    match entry:
        case {"ops": list(ops), "choices": list(choices), "budget": budget, **more} if ops:
            kill = more.get("kill")
            if not (kill is None or (isinstance(kill, int) and kill >= 0)):
                raise CannotRun(f"{kill!r:.80} is no moment of a history: give a file that snapspec check has saved")
            burst = Burst(tuple(decode(op) for op in ops), tuple(choices), decode(budget), kill)
            indices = all(type(choice) is int and choice >= 0 for choice in choices)
            if indices and all(isinstance(op, RefOperation) for op in burst.ops) and isinstance(burst.budget, Budget):
                return burst
    raise CannotRun(f"{entry!r:.80} is no burst of a history: give a file that snapspec check has saved")
