"""Histories: what was asked and answered, in words and in a file that replays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from snapspec.conformance.codec import decode, encode
from snapspec.conformance.durable import PowerCut, Restart
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import Faulted
from snapspec.conformance.kind import Kind, decode_kinds, encode_kinds
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.ref_history import RefFinding, decode_drawn, decode_ref_finding, encode_drawn, encode_ref_finding
from snapspec.conformance.report.document import Bar, Picture
from snapspec.model import ops
from snapspec.model.nodes import Tree
from snapspec.model.ops import Operation
from snapspec.model.oracle import Divergence
from snapspec.model.ref_ops import RefOperation
from snapspec.model.replies import Failed, Lost, Mismatch, Reading, Response
from snapspec.model.values import Info, Mount

FORMAT = "snapspec history 1"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a history. `space` numbers the namespace; `check` marks a call that the kit makes to look around.

    `aside` marks one whose answer departs from the spec in a way that was set aside, because another finding shows it.
    """

    op: Operation
    response: Response
    space: int = 0
    check: bool = False
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A departure from the spec: the history that shows it, whose last step is the one that no clause allows.

    `cause` is what the kit looked around after when it showed, "" where it was a call of the history itself; `passed` are the
    kinds of finding that were set aside on the way.
    """

    steps: tuple[Step, ...]
    mismatches: tuple[Mismatch, ...]
    cause: str = ""
    passed: tuple[Kind, ...] = ()
    bars: tuple[Bar, ...] = ()
    """Of calls that overlap, those that have no order."""
    pictures: tuple[Picture, ...] = ()
    """What the store may have been before them."""

    @property
    def clause(self) -> str:
        """The clause that is broken."""
        return self.mismatches[0].clause

    @property
    def calls(self) -> tuple[Step, ...]:
        """The steps without those that only looked around and found nothing."""
        return (*(s for s in self.steps[:-1] if not s.check), self.steps[-1])


def finding(steps: Sequence[Step], divergence: Divergence) -> Finding:
    """What the oracle's divergence at the last of `steps` amounts to."""
    return Finding(tuple(steps), divergence.mismatches)


# --- in words


def line(step: Step) -> str:
    """One call and its answer on one line."""
    where = f" in namespace {step.space}" if step.space else ""
    return f"{call_text(step.op)}{where} -> {answer_text(step.response)}"


def call_text(op: Operation | RefOperation) -> str:
    """A call as one would write it: its name, its arguments, those left at their default aside."""
    if isinstance(op, ops.Nowhere):
        return f"without a namespace: {call_text(op.call)}"
    if isinstance(op, PowerCut):
        return _power_cut_text(op)
    if isinstance(op, Faulted):
        return f"{call_text(op.call)} [{op.text}]"
    if isinstance(op, AtOnce):
        lanes = " | ".join("; ".join(map(call_text, lane)) for lane in op.lanes)
        return "; ".join([*map(call_text, op.first), f"at once: {lanes}"])
    name = type(op).__name__.lower()
    if isinstance(op, Restart):
        name, op = "kill" if op.kill else "stop", replace(op, kill=False)
    shown = []
    for field in fields(op):
        value = getattr(op, field.name)
        if field.default is MISSING:
            shown.append(_text(value))
        elif value != field.default:
            shown.append(f"{field.name}={_text(value)}")
    return f"{name}({', '.join(shown)})"


def _power_cut_text(op: PowerCut) -> str:
    """What was under way, and what the disk kept of what it did not owe."""
    during = f" during {_text(op.during)}" if op.during else ""
    kept = f"keeps {op.kept} of {op.open} unflushed pieces of {op.grain} bytes ({op.how})" if op.open else "has flushed all"
    return f"power cut{during}: the disk {kept}"


def _text(value: object) -> str:
    """A value in few words: an operation's argument, or a change and its arguments."""
    match value:
        case bytes():
            return repr(value) if len(value) <= 16 else f"{len(value)} bytes"
        case str():
            return repr(value) if len(value) <= 60 else f"{value[:20]!r}... ({len(value)} characters)"
        case tuple() if value and all(isinstance(v, tuple) and len(v) == 2 for v in value):
            return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value) + "}"
        case tuple():
            return "[" + ", ".join(_text(v) for v in value) + "]"
        case Enum():
            return str(value.value)
        case int():
            return str(value)
        case _ if isinstance(value, Operation):
            return call_text(value)
        case _:
            arguments = ", ".join(_text(getattr(value, f.name)) for f in fields(value))  # type: ignore[arg-type]  # a change
            return f"{type(value).__name__}({arguments})"


def answer_text(response: Response) -> str:
    """An answer in few words."""
    match response:
        case Failed(error, message):
            return f"{error.value}: {in_one_line(message)}" if message else error.value
        case Lost(reason):
            return f"no answer: {in_one_line(reason)}"
        case _:
            return value_text(response.value)


#: How much of a driver's words stands on the line of a call.
_WORDS = 300


def in_one_line(message: str) -> str:
    """The words of a driver, without line breaks, cut off where they become too many."""
    text = " ".join(message.split())
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}..."


def value_text(value: object) -> str:
    """What a call gave, in few words."""
    match value:
        case None:
            return "done"
        case Reading(usage=usage):
            return f"{usage.size} bytes, {usage.inodes} inodes"
        case Info():
            return _info_text(value)
        case Tree():
            return f"{len(value.nodes) - 1} entries"
        case tuple() if value and all(isinstance(v, Mount) for v in value):
            return " + ".join(f"{in_one_line(repr(m.type)[1:-1])} mount" for m in value)
        case tuple() if value and all(isinstance(v, Info) for v in value):
            return ", ".join(repr(i.name) for i in value)
        case tuple():
            return ", ".join(str(v) for v in value) or "nothing"
        case _:
            return repr(value)


def _info_text(info: Info) -> str:
    labels = f", labels {dict(info.labels)}" if info.labels else ""
    return f"{info.kind.value}, parent {info.parent!r}{labels}"


# --- as a file


def encode_finding(found: Finding | RefFinding) -> dict[str, Any]:
    """The JSON form of a finding."""
    if isinstance(found, RefFinding):
        return encode_ref_finding(found)
    return {
        "clause": found.clause,
        "mismatches": [encode(m) for m in found.mismatches],
        **({"cause": found.cause} if found.cause else {}),
        **({"passed": encode_kinds(found.passed)} if found.passed else {}),
        "steps": [_encode_step(step) for step in found.steps],
        **encode_drawn(found.bars, found.pictures),
    }


def _encode_step(step: Step) -> dict[str, Any]:
    document = {"line": line(step), "op": encode(step.op), "answer": encode(step.response), "space": step.space}
    return {**document, "check": step.check, **({"aside": True} if step.aside else {})}


def decode_finding(document: object) -> Finding | RefFinding:
    """The finding that `encode_finding` gave `document` for. Raises CannotRun for anything else."""
    match document:
        case {"bursts": _}:
            return decode_ref_finding(document)
        case {"mismatches": list(mismatches), "steps": list(steps), **more} if steps:
            decoded, cause = tuple(decode(m) for m in mismatches), more.get("cause", "")
            if decoded and all(isinstance(m, Mismatch) for m in decoded) and isinstance(cause, str):
                passed = tuple(sorted(decode_kinds(more.get("passed", []))))
                return Finding(tuple(_step(entry) for entry in steps), decoded, cause, passed, *decode_drawn(more))
    raise CannotRun("this is no finding: give a file that snapspec check has saved")


def _step(entry: object) -> Step:
    match entry:
        case {"op": op, "answer": answer, "space": int(space), "check": bool(check), **more}:
            step = Step(decode(op), decode(answer), space, check, more.get("aside") is True)
            if isinstance(step.op, Operation) and isinstance(step.response, Response):
                return step
    raise CannotRun(f"{entry!r:.80} is no call of a history: give a file that snapspec check has saved")


def save(path: Path, found: Finding | RefFinding, subject: str) -> None:
    """Write a finding as a file that `snapspec replay` takes. Raises CannotRun when that cannot be."""
    document = {"format": FORMAT, "subject": subject, **encode_finding(found)}
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}; name another place with --out") from None


def load(path: Path) -> Finding | RefFinding:
    """Read a history file. Raises CannotRun, naming the file and the remedy, when it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"cannot read {path}: {error.strerror}; name a file that snapspec check has saved") from None
    except (ValueError, RecursionError):
        raise CannotRun(f"{path} is not JSON; name a file that snapspec check has saved") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CannotRun(f"{path} is not a file of format {FORMAT!r}; name a file that snapspec check has saved")
    return decode_finding(document)
