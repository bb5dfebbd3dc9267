"""A session judges every call, looks at everything after a refusal, and never waits for what does not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from snapspec.conformance.draw import Limits
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.files import Permits
from snapspec.conformance.history import Finding, Step
from snapspec.conformance.search import Search, scenario
from snapspec.conformance.session import SPARE, Diverged, Session, replay
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.model import ops
from snapspec.model.guards import Door
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Lost, Response, Returned
from snapspec.model.state import Profile
from snapspec.model.tree import MakeFile
from snapspec.model.values import ErrorClass, Kind

DEADLINE = 0.2

PERMITS = Permits(devices=True, other_owners=True, user_xattrs=True, trusted_xattrs=True)

#: Answers a call instead of the model, or leaves it to the model with None.
Answer = Callable[[Operation], Response | None]


class Watched(ModelSubject):
    """The model, whose calls are noted; `own` answers some of them."""

    def __init__(self, answer: Answer = lambda _: None, door: Door = Door.DIRECT) -> None:
        super().__init__("model:", Profile(door=door))
        self.own = answer
        self.calls: list[Operation] = []
        self.ended: list[str] = []
        self.told = ""

    async def perform(self, space: int, op: Operation) -> Response:
        self.calls.append(op)
        own = self.own(op)
        return await super().perform(space, op) if own is None else own

    async def clear(self) -> None:
        self.ended.append("clear")

    async def stop(self) -> None:
        self.ended.append("stop")

    def changed(self) -> str:
        return self.told


class Hanging(Watched):
    """Never answers the calls that `hangs` says; notes when one of them is cancelled."""

    def __init__(self, hangs: Callable[[Operation], bool]) -> None:
        super().__init__()
        self.hangs = hangs
        self.cancelled = False

    async def perform(self, space: int, op: Operation) -> Response:
        if self.hangs(op):
            await self._for_ever()
        return await super().perform(space, op)

    async def _for_ever(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@contextmanager
def opened(subject: Watched) -> Iterator[Session]:
    with asyncio.Runner() as runner:
        session = Session(subject, runner, DEADLINE)
        session.begin()
        yield session


def furnish(session: Session) -> None:
    """A committed snapshot whose usage was told, an active one and a view over it, an active one that is empty."""
    for op in (
        ops.Prepare("a"),
        ops.Commit("base", "a"),
        ops.Usage("base"),
        ops.Prepare("over", "base"),
        ops.View("seen", "base"),
        ops.Prepare("empty"),
    ):
        session.do(op)


def diverged(action: Callable[[], object]) -> Finding:
    with pytest.raises(Diverged) as caught:
        action()
    return caught.value.finding


def clauses(finding: Finding) -> list[str]:
    return [mismatch.clause for mismatch in finding.mismatches]


# --- after a refusal


def test_a_refusal_is_followed_by_a_look_at_everything_and_a_write() -> None:
    subject = Watched()
    with opened(subject) as session:
        furnish(session)
        subject.calls.clear()
        session.do(ops.Commit("base", "over"))
    assert subject.calls[0] == ops.Commit("base", "over")
    assert subject.calls[1] == ops.Walk()
    assert set(subject.calls[2:5]) == {ops.Mounts("over"), ops.Mounts("seen"), ops.Mounts("empty")}
    assert subject.calls[5:] == [ops.Read("over"), ops.Usage("base"), ops.Prepare(SPARE), ops.Remove(SPARE)]
    assert (session.reached["SNAP-FAIL-1"], session.reached["SNAP-LIVE-1"]) == (1, 1)


@pytest.mark.parametrize(
    ("refused", "read"),
    [
        (ops.Commit("base", "empty"), [ops.Read("empty")]),
        (ops.Commit("new", "seen"), []),
        (ops.Remove("base"), [ops.Read("over")]),
        (ops.Remove("absent"), []),
    ],
)
def test_content_is_read_of_what_was_named_and_can_be_written_or_of_the_first_that_stands_on_it(
    refused: Operation, read: list[Operation]
) -> None:
    subject = Watched()
    with opened(subject) as session:
        furnish(session)
        subject.calls.clear()
        session.do(refused)
    assert [op for op in subject.calls if isinstance(op, ops.Read)] == read


def test_what_was_looked_at_does_not_count_as_a_call_of_the_history() -> None:
    with opened(Watched()) as session:
        session.do(ops.Remove("absent"))
        session.do(ops.Prepare("a"))
    assert [step.op for step in session.steps if not step.check] == [ops.Remove("absent"), ops.Prepare("a")]
    assert session.calls == len(session.steps) > 2


def test_a_call_that_works_is_followed_by_nothing() -> None:
    subject = Watched()
    with opened(subject) as session:
        furnish(session)
    assert len(subject.calls) == 6


@pytest.mark.parametrize("look", [ops.Walk(), ops.Mounts("over"), ops.Usage("base"), ops.Read("over")])
def test_what_a_refused_call_has_changed_is_found(look: Operation) -> None:
    """Each look is told something else than before: the refused call did something after all."""
    refused = False

    def answer(op: Operation) -> Response | None:
        nonlocal refused
        refused = refused or op == ops.Commit("base", "over")
        return Failed(ErrorClass.UNKNOWN, "gone") if refused and op == look else None

    subject = Watched(answer)
    with opened(subject) as session:
        furnish(session)
        finding = diverged(partial(session.do, ops.Commit("base", "over")))
    assert clauses(finding)[-1] == "SNAP-FAIL-1"
    assert "refused commit" in finding.mismatches[-1].expected
    assert finding.steps[-1].op == look
    assert [step.op for step in finding.calls[-2:]] == [ops.Commit("base", "over"), look]


# --- after reopening


def test_after_reopening_everything_is_looked_at() -> None:
    subject = Watched()
    with opened(subject) as session:
        furnish(session)
        subject.calls.clear()
        session.do(ops.Reopen())
    reads = {ops.Read("over"), ops.Read("seen"), ops.Read("empty")}
    looked = {ops.Walk(), ops.Usage("base"), ops.Mounts("over"), ops.Mounts("seen"), ops.Mounts("empty"), *reads}
    assert subject.calls[0] == ops.Reopen()
    assert set(subject.calls[1:]) == looked


def test_a_record_that_is_lost_when_reopening_is_found_there() -> None:
    class Forgetful(Watched):
        async def perform(self, space: int, op: Operation) -> Response:
            response = await super().perform(space, op)
            if isinstance(op, ops.Reopen):
                self._states[space] = self._states[space].drop("seen")
            return response

    with opened(Forgetful()) as session:
        furnish(session)
        finding = diverged(partial(session.do, ops.Reopen()))
    assert clauses(finding) == ["SNAP-WALK-1", "SNAP-OPEN-1"]


def test_a_store_that_does_not_open_again_is_not_called_again() -> None:
    subject = Watched(lambda op: Failed(ErrorClass.UNKNOWN, "no") if isinstance(op, ops.Reopen) else None)
    with opened(subject) as session:
        found = session.shows(scenario(session, iter((ops.Prepare("a"), ops.Reopen(), ops.Stat("a")))))
        session.stop()
    assert found is not None
    assert found.clause == "SNAP-OPEN-1"
    assert (subject.calls, subject.ended, session.over) == ([ops.Prepare("a"), ops.Reopen()], [], True)


# --- results that are held


def test_a_result_that_has_changed_since_is_found_at_the_next_call() -> None:
    subject = Watched()
    with opened(subject) as session:
        session.do(ops.Prepare("a"))
        subject.told = "the list has grown"
        finding = diverged(partial(session.do, ops.Stat("a")))
    assert (clauses(finding), finding.mismatches[0].came) == (["SNAP-HOLD-1"], "the list has grown")
    assert finding.calls[-1].op == ops.Stat("a")


# --- calls that do not answer


def test_a_call_that_hangs_is_left_behind() -> None:
    subject = Hanging(lambda op: op == ops.Stat("a"))
    with opened(subject) as session:
        session.do(ops.Prepare("a"))
        began = time.monotonic()
        finding = diverged(partial(session.do, ops.Stat("a")))
        waited = time.monotonic() - began
        assert (session.stuck, session.over, subject.cancelled) == (True, True, False)
        session.clear()
        session.stop()
        assert subject.ended == []
    assert clauses(finding) == ["SNAP-LIVE-1"]
    assert finding.steps[-1].response == Lost(f"nothing came within {DEADLINE:g} s")
    assert DEADLINE <= waited < DEADLINE + 5
    assert subject.cancelled, "the loop has ended, and the call with it"


def test_a_lock_that_a_refusal_has_left_shows_in_the_write_after_it() -> None:
    with opened(Hanging(lambda op: op == ops.Prepare(SPARE))) as session:
        finding = diverged(partial(session.do, ops.Remove("absent")))
    assert clauses(finding) == ["SNAP-LIVE-1"]
    assert [step.op for step in finding.calls] == [ops.Remove("absent"), ops.Prepare(SPARE)]


@pytest.mark.parametrize("ending", ["clear", "stop"])
def test_an_ending_that_hangs_is_left_behind_too(ending: str) -> None:
    subject = Hanging(lambda _: False)
    setattr(subject, ending, subject._for_ever)
    with opened(subject) as session:
        getattr(session, ending)()
        assert (session.stuck, session.over, subject.cancelled) == (True, True, False)


def test_an_ending_that_fails_says_so() -> None:
    class Failing(Watched):
        async def stop(self) -> None:
            raise CannotRun("it cannot be closed")

    with opened(Failing()) as session, pytest.raises(CannotRun, match="cannot be closed"):
        session.stop()


# --- where the kit cannot go on


def test_once_told_to_end_no_call_begins() -> None:
    signals: list[int] = []
    subject = Watched()
    with asyncio.Runner() as runner:
        session = Session(subject, runner, DEADLINE, signals)
        session.begin()
        session.do(ops.Prepare("a"))
        signals.append(15)
        with pytest.raises(SystemExit):
            session.do(ops.Stat("a"))
        assert (subject.calls, session.over, session.stuck) == ([ops.Prepare("a")], True, False)
        session.stop()
    assert subject.ended == ["stop"]


def refuse(_: Operation) -> Response | None:
    raise CannotRun("nothing can be mounted here: run as root")


def test_what_hinders_the_kit_is_no_finding() -> None:
    with opened(Watched(refuse)) as session:
        with pytest.raises(CannotRun, match="run as root"):
            session.do(ops.Stat("a"))
        assert (session.over, session.stuck) == (True, False)
        assert str(session.hindrance) == "nothing can be mounted here: run as root"


def test_a_search_ends_with_what_hinders_it() -> None:
    with opened(Watched(refuse)) as session:
        search = Search(session, Limits(PERMITS), time.monotonic() + 60, lambda: None)
        with pytest.raises(CannotRun, match="run as root"):
            search.run_batch(25, 0)
        assert search.best is None


# --- the end of a history, and histories again


def test_at_the_end_children_go_first_in_every_namespace() -> None:
    subject = Watched(door=Door.METADATA)
    with opened(subject) as session:
        for space in (0, 1):
            session.do(ops.Prepare("a"), space)
            session.do(ops.Commit("base", "a"), space)
            session.do(ops.Prepare("over", "base"), space)
        subject.calls.clear()
        session.end()
    assert subject.calls == [ops.Remove("over"), ops.Remove("base"), ops.Walk()] * 2
    assert session.reached["DOOR-NS-2"] > 0


def test_what_cannot_be_removed_at_the_end_is_found() -> None:
    answer = {ops.Remove("a"): Failed(ErrorClass.UNKNOWN, "busy")}.get
    with opened(Watched(answer)) as session:
        session.do(ops.Prepare("a"))
        finding = diverged(session.end)
    assert clauses(finding) == ["SNAP-REMOVE-3"]


def test_a_new_history_begins_on_an_empty_store() -> None:
    with opened(Watched()) as session:
        session.do(ops.Prepare("a"))
        session.begin()
        session.do(ops.Prepare("a"))
        assert (session.histories, len(session.steps), list(session.state().snapshots)) == (2, 1, ["a"])


CALLS = (ops.Prepare("a"), ops.Write("a", (MakeFile("f"),)), ops.Stat("a"), ops.Remove("absent"), ops.Stat("a"))


def wrong_kind(op: Operation) -> Response | None:
    return Returned(()) if op == ops.Stat("a") else None


def test_a_scenario_that_conforms_finds_nothing() -> None:
    with opened(Watched()) as session:
        assert session.shows(scenario(session, iter(CALLS))) is None
        assert session.calls > len(CALLS), "the looks, and the end of the history"


def test_a_replay_makes_the_calls_and_its_own_looks() -> None:
    subject = Watched(wrong_kind)
    with opened(subject) as session:
        found = session.shows(scenario(session, iter(CALLS)))
        assert found is not None
        assert (clauses(found), len(found.calls)) == (["SNAP-STAT-1"], 3)
        assert subject.ended == ["clear"]
        again = replay(session, found.steps)
        assert again is not None
        assert (again.clause, [s.op for s in again.calls]) == (found.clause, [s.op for s in found.calls])
        subject.own = lambda _: None
        looked = (*found.steps, Step(ops.Walk(), Returned(()), check=True))
        subject.calls.clear()
        assert replay(session, looked) is None
    assert subject.calls == [*CALLS[:3], ops.Remove("a"), ops.Walk()]


@pytest.mark.parametrize("space", [1, -1, 7])
def test_a_replay_needs_the_namespaces_of_the_history(space: int) -> None:
    with opened(Watched()) as session, pytest.raises(CannotRun, match="namespaces"):
        replay(session, (Step(ops.Prepare("a"), Returned(()), space),))


def test_a_key_that_is_taken_again_counts_as_a_second_life() -> None:
    with opened(Watched()) as session:
        for op in (ops.Prepare("a"), ops.Remove("a")):
            session.do(op)
        assert session.reached["SNAP-KEY-3"] == 0
        session.do(ops.View("a"))
        assert session.reached["SNAP-KEY-3"] == 1
        assert session.state().snapshots["a"] == replace(session.state().snapshots["a"], kind=Kind.VIEW)
