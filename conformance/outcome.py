"""What one search has come to, of one process or of many, here or on another worker: it is told as JSON, and joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from snapspec.conformance.base_search import Entry
from snapspec.conformance.codec import decode, encode
from snapspec.conformance.durable.power import Powered, total
from snapspec.conformance.history import decode_finding, encode_finding
from snapspec.conformance.run import Run, distinct
from snapspec.model.state import Profile


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is known of a search when it has ended. `reached` is how often each clause was put to the test, `disturbed` how
    often what was done to which call, `power` the numbers of the power cuts, `lines` what is said beside, `left` what of killed
    runs could not be cleaned; `lacks` is what the machine does not permit, `hung` are calls left out since one did not answer,
    `beyond` the clauses that nothing here can put to the test, each with why.

    `trouble` says why it could not be made, `fault` what went wrong in the kit itself.
    """

    note: str = ""
    profile: Profile | None = None
    refs: bool = False
    promise: str = ""
    histories: int = 0
    calls: int = 0
    restarts: int = 0
    seconds: float = 0.0
    reached: dict[str, int] = field(default_factory=dict)
    disturbed: dict[str, int] = field(default_factory=dict)
    power: dict[str, Any] = field(default_factory=dict)
    found: tuple[Entry[Any], ...] = ()
    lines: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    hung: tuple[str, ...] = ()
    beyond: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    fault: str = ""

    @property
    def powered(self) -> Powered:
        """What was done in power cuts."""
        return total([self.power])


def outcome_of(run: Run, seconds: float) -> Outcome:
    """What the run has come to, in that time."""
    return Outcome(
        run.note,
        run.profile,
        run.refs,
        run.promise,
        run.histories,
        run.calls,
        run.restarts,
        seconds,
        dict(run.reached),
        dict(run.disturbed),
        run.power.numbers() if run.powered else {},
        tuple(run.found),
        tuple(dict.fromkeys(run.lines)),
        tuple(run.left),
        tuple(run.lacks),
        tuple(run.hung),
        dict(run.beyond),
        run.trouble,
        run.fault,
    )


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of processes that worked side by side as one."""
    first = next((part for part in parts if part.profile is not None), parts[0])
    power = [part.power for part in parts if part.power]
    return replace(
        first,
        histories=sum(part.histories for part in parts),
        calls=sum(part.calls for part in parts),
        restarts=sum(part.restarts for part in parts),
        seconds=max(part.seconds for part in parts),
        reached=_added(part.reached for part in parts),
        disturbed=_added(part.disturbed for part in parts),
        power=total(power).numbers() if power else {},
        found=tuple(distinct(entry for part in parts for entry in part.found)),
        lines=_each(part.lines for part in parts),
        left=_each(part.left for part in parts),
        lacks=_each(part.lacks for part in parts),
        hung=_each(part.hung for part in parts),
        trouble=next((part.trouble for part in parts if part.trouble), ""),
        fault=next((part.fault for part in parts if part.fault), ""),
    )


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(each) for each in counts), Counter[str]()))


def _each(lines: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line for part in lines for line in part))


# --- as JSON

#: The fields that are JSON as they are, and those that are tuples of text.
_PLAIN = ("note", "refs", "promise", "histories", "calls", "restarts", "seconds", "reached", "disturbed", "power", "beyond")
_TEXTS = ("lines", "left", "lacks", "hung")


def encode_outcome(outcome: Outcome) -> dict[str, Any]:
    """The JSON form, for another process of the same check."""
    return {
        **{name: getattr(outcome, name) for name in (*_PLAIN, "trouble", "fault")},
        **{name: list(getattr(outcome, name)) for name in _TEXTS},
        "profile": encode(outcome.profile),
        "found": [{"finding": encode_finding(entry.finding), "after": list(entry.after)} for entry in outcome.found],
    }


def decode_outcome(document: dict[str, Any]) -> Outcome:
    """The outcome that `encode_outcome` gave `document` for."""
    fields: dict[str, Any] = {name: document[name] for name in (*_PLAIN, "trouble", "fault")}
    fields |= {name: tuple(document[name]) for name in _TEXTS}
    found = tuple(Entry(decode_finding(each["finding"]), tuple(each["after"])) for each in document["found"])
    return Outcome(**fields, profile=decode(document["profile"]), found=found)
