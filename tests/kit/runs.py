"""Whole runs of any calls behind gates, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snapspec.conformance.schedule import Answered, Choice, Run


def told(run: Run[Any, Any]) -> list[str]:
    """The run in words, one line for each event."""
    return [_line(run, event) for event in run.events]


def _line(run: Run[Any, Any], event: Choice | Answered) -> str:
    if isinstance(event, Answered):
        return f"{event.call} answers {event.answer}"
    if event.gate is not None:
        return f"{event.what.value}: {'the answer of ' if event.landed else ''}{event.gate.text}"
    return f"{event.what.value} {event.call}: {run.operations[event.call]}" if event.call else event.what.value


@contextmanager
def whole(run: Run[Any, Any]) -> Iterator[Run[Any, Any]]:
    """The context of one run, from which nothing is left. What goes wrong bears the run as a note: the choices, then in words."""
    with run.loop.running():
        try:
            yield run
            run.end()
        except BaseException as error:
            error.add_note("\n".join([f"choices: {run.chosen}", *told(run)]))
            run.abandon()
            raise
