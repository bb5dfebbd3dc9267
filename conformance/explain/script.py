"""What written examples are written in: calls that the model answers, calls with an answer given, and what happens besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from snapspec.conformance.explain.drawn import Kind
from snapspec.conformance.explain.events import Answers, Befalls, Begins, Ends, Event, Example
from snapspec.conformance.subjects.abstract import ModelSubject


@dataclass(frozen=True, slots=True)
class Said:
    """A call with its answer, which the model allows."""

    op: Any
    response: Any


@dataclass(frozen=True, slots=True)
class Broken:
    """A call that something befalls (`Befalls`), and what it then answers."""

    op: Any
    what: str
    response: Any


Part = Any
"""An operation, which the model answers; one of the above; an event."""


@dataclass(frozen=True, slots=True)
class Script:
    """A written example of `clause`: its parts, and the wrong answer in the place of the last one, made of the right one or not.

    Where `wrong` is None there is no illegal example.
    """

    clause: str
    parts: tuple[Part, ...]
    wrong: Any

    def legal(self, kind: Kind) -> Example:
        """The example in which every answer is right."""
        return Example(tuple(_events(kind, self.parts)), kind.profile, kind.refs)

    def illegal(self, kind: Kind) -> Example | None:
        """The same with the wrong answer."""
        if self.wrong is None:
            return None
        legal = self.legal(kind)
        last = legal.events[-1]
        assert isinstance(last, Answers), f"{self.clause}: the last event is the answer that is altered"
        wrong: Callable[[Any], Any] = self.wrong
        return legal.with_last(wrong(last.response) if callable(wrong) else self.wrong)


def _events(kind: Kind, parts: Sequence[Part]) -> list[Event]:
    state, subject = kind.begin(), ModelSubject("model:", kind.profile)
    events: list[Event] = []
    for part in parts:
        number = 1 + sum(isinstance(event, Begins) for event in events)
        match part:
            case Begins() | Answers() | Befalls() | Ends():
                events.append(part)
            case Broken(op, what, response):
                events += [Begins(number, op), Befalls(number, what), Answers(number, response)]
            case Said(op, response):
                state, _ = kind.answered(subject, state, op, len(events) // 2)
                events += [Begins(number, op), Answers(number, response)]
            case op:
                state, response = kind.answered(subject, state, op, len(events) // 2)
                events += [Begins(number, op), Answers(number, response)]
    return events
