"""A first walk with a new adapter: a first build, then what the protocol asks of every adapter, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snapspec.conformance.adapter.client import PATIENCE, Adapter, Refusal
from snapspec.conformance.adapter.refs import ExecRefs, ExecRefSession
from snapspec.conformance.adapter.subject import ExecSubject
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, line
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.ref_search import ref_smoke
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.scenarios import smoke
from snapspec.conformance.search import scenario
from snapspec.conformance.session import Session

#: A call that no adapter has.
UNKNOWN = "no_such_call"


def walk(session: Session | RefSession, tell: Callable[[str], None]) -> Finding | RefFinding | None:
    """Go with the adapter through the protocol; `tell` gets a line for each step that was right.

    Gives what departs from the spec. Raises CannotRun, with the remedy, at the first wrong turn.
    """
    subject: Any = session.subject
    assert isinstance(subject, ExecSubject | ExecRefs), "nothing else speaks the protocol"
    tell(f"hello -> {subject.note}")
    found: Finding | RefFinding | None
    try:
        found = ref_smoke(session) if isinstance(session, RefSession) else session.shows(scenario(session, smoke()))
    finally:
        for text in _made(session):
            tell(text)
    if found is None:
        assert subject.adapter is not None, "it was started"
        session.runner.run(_rules(subject.adapter, "disk_usage" if isinstance(session, ExecRefSession) else "walk", tell))
    return found


def _made(session: Session | RefSession) -> list[str]:
    if isinstance(session, RefSession):
        return session.told()
    return [line(step) for step in session.steps if not step.check]


async def _rules(adapter: Adapter, call: str, tell: Callable[[str], None]) -> None:
    """Overlap, a call that is not known, a cancellation that comes late, and the end."""
    arguments: dict[str, Any] = {"filters": []} if call == "walk" else {}
    numbers = [adapter.send(call, **arguments) for _ in range(3)]
    for number in reversed(numbers):
        await adapter.answer(number)
    tell("three calls before the first answer -> three answers")
    answer = await adapter.ask(UNKNOWN)
    if not isinstance(answer, Refusal) or answer.error != "Unimplemented":
        raise CannotRun(f"the adapter has answered a call that it cannot know, {UNKNOWN}, and not with Unimplemented: do that")
    tell("a call that is not known -> Unimplemented")
    adapter.cancel(numbers[0])
    await adapter.ask(call, **arguments)
    tell("a cancellation after the answer -> nothing")
    status = await adapter.end()
    if status is None:
        raise CannotRun(f"the adapter goes on for {PATIENCE:g} s after its input has ended: end when standard input does")
    if status:
        raise CannotRun(f"the adapter has ended with status {status} when its input did: close the store, and end with status 0")
    tell("the end of the input -> the adapter ends")
