"""One process of a run: it opens the subject, does its share, and tells the process that started it in JSON lines.

A process of its own, so that a driver call that never comes back can be left behind, and so that the mounts are private.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO, cast

from hypothesis.configuration import set_hypothesis_home_dir

from snapspec.conformance.adapter.refs import ExecRefs, ExecRefSession, history
from snapspec.conformance.adapter.smoke import walk
from snapspec.conformance.adapter.subject import ExecSubject
from snapspec.conformance.base_search import BATCH, MOST, Entry
from snapspec.conformance.codec import encode
from snapspec.conformance.draw import Limits
from snapspec.conformance.durable import power, ref_power
from snapspec.conformance.durable.place import Place, place
from snapspec.conformance.durable.ref_kill import RefKillSession, make_often
from snapspec.conformance.durable.ref_power import RefPowered
from snapspec.conformance.durable.restart import replay_often
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults.points import watched
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, decode_finding, encode_finding, line, load
from snapspec.conformance.kind import decode_kinds
from snapspec.conformance.kinds import search_of, session_of
from snapspec.conformance.machine import enter
from snapspec.conformance.overlap.search import OverlapSearch
from snapspec.conformance.overlap.session import OverlapSession, replay_plan
from snapspec.conformance.owed import ANSWERS, promise_of
from snapspec.conformance.plan import Plan
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.ref_search import RefSearch, ref_smoke
from snapspec.conformance.ref_session import AGAIN, RefSession, play_again
from snapspec.conformance.scenarios import smoke
from snapspec.conformance.search import Search, scenario
from snapspec.conformance.session import Session
from snapspec.conformance.subjects.address import (
    parse,
    powered,
)
from snapspec.conformance.subjects.base import Subject
from snapspec.conformance.workspace import Workspace

#: Batches that one process draws before the slow scenarios, as long as half its time is left.
EARLY = 4

#: Holds the signal that has told this process to end.
_told_to_end: list[int] = []

#: How many of the last lines of an adapter's standard error are shown with a finding.
SAID = 20

#: Seconds that a process which is told to end has for undoing what it made.
LAST_RESORT = 25


#: Where `tell` writes: once `main` runs, a stream that nothing else in this process has.
_parent: TextIO = sys.stdout


def _keep_output() -> None:
    """Keep the stream to the parent for `tell` alone. What a driver in this process prints goes to stderr from now on."""
    global _parent
    _parent = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def tell(kind: str, **what: Any) -> None:
    """One line to the process that started this one; when that is gone, so is the reason to go on."""
    try:
        print(json.dumps({"kind": kind, **what}), file=_parent, flush=True)
    except BrokenPipeError:
        raise SystemExit(1) from None


@contextmanager
def opened(plan: Plan) -> Iterator[tuple[Session | RefSession, Workspace]]:
    """The subject, started, in a session; all is undone at the end, however that comes."""
    surroundings = enter()
    seen = watched() if plan.level == "faults" and not parse(plan.subject).refs else nullcontext()
    with seen, Workspace.create() as workspace, asyncio.Runner() as runner:
        if "HYPOTHESIS_STORAGE_DIRECTORY" not in os.environ:  # then Hypothesis goes by that
            set_hypothesis_home_dir(workspace.scratch("hypothesis"))  # not in the directory that somebody works in
        session = session_of(plan, surroundings, workspace, runner, _told_to_end)
        subject = session.subject
        try:
            runner.run(subject.start())
            tell(
                "started",
                note=subject.note,
                profile=encode(subject.profile),
                refs=isinstance(session, RefSession),
                promise=ANSWERS if isinstance(session, ExecRefSession) else promise_of(plan.level),
                lacks=permits(str(workspace.directory)).lacks,
                beyond=_beyond(session),
            )
            yield session, workspace
        finally:
            answered = not session.stuck
            session.stop()
            if session.stuck:
                # The driver holds a call that never came back: nothing here waits for it, the process simply ends.
                if answered:
                    tell("cannot", why=f"{plan.subject} cannot be closed, it does not answer: mend that first")
                tell("stuck", own=isinstance(subject, Subject) and (subject.reopens or subject.fresh))
                _leave(workspace)


def _beyond(session: Session | RefSession) -> dict[str, str]:
    """The clauses that nothing here can put to the test, and why."""
    subject: Any = session.subject
    if isinstance(session, RefSession) or subject.reopens:
        return {}
    why = "nothing closes this driver and opens it again here"
    return {"SNAP-CLOSE-1": why} if subject.restarts == "stop" else {"SNAP-CLOSE-1": why, "SNAP-OPEN-1": why}


def _leave(workspace: Workspace) -> None:
    """End at once. The mount namespace takes the mounts along; the run directory is left to the next run's cleaning."""
    tell("left", directory=str(workspace.directory))
    os._exit(0)


def run(plan: Plan) -> None:
    """Do the plan."""
    if plan.power:
        _cut_power(plan)
        return
    with opened(plan) as (session, workspace):
        match plan.task:
            case "smoke":
                _smoke(session)
            case "replay":
                _replay(session, Path(plan.file))
            case _:
                _check(plan, session, workspace)
        if _told_to_end:  # Hypothesis takes what then ends a history for a failure of it
            raise SystemExit(1)
        tell("done", **_counts(session))


def _cut_power(plan: Plan) -> None:
    """Judge the images of power cuts, drawn or of a saved history."""
    driver, file_system = powered(parse(plan.subject), enter())
    with (
        Workspace.create() as workspace,
        place(workspace.scratch("power"), driver, file_system, frozenset(plan.without)) as here,
    ):
        subject, refs = here.subject(), parse(plan.subject).refs
        note = f"the reference manager over {subject.note}" if refs else subject.note
        promise = promise_of(plan.level, refs=refs, power=True)
        tell("started", note=note, profile=encode(subject.profile), refs=refs, promise=promise)
        done = _replay_power(plan, here, refs) if plan.task == "replay" else _check_power(plan, here, refs)
    if _told_to_end:
        raise SystemExit(1)
    tell("done", **_power_counts(done))


def _check_power(plan: Plan, here: Place, refs: bool) -> power.Powered:
    """What came of it. Findings are told, each with the images and seconds until it was found."""
    began, told, after = time.monotonic(), 0.0, (0, 0.0)

    def report(done: power.Powered) -> None:
        nonlocal told, after
        if not done.shrinking:
            after = done.images + 1, time.monotonic() - began
        if time.monotonic() - told > 0.2 or done.shrinking:
            told = time.monotonic()
            tell("progress", **_power_counts(done), shrinking=done.shrinking)

    until = time.monotonic() + plan.budget if plan.budget else float("inf")
    seed = plan.seed * 1_000_003 + plan.number
    done: Any = None
    while True:
        run_on = ref_power.run if refs else power.run
        # What goes on draws under another seed.
        again = seed if done is None else seed + 7919 * len(done.kinds)
        done = run_on(here, plan.examples, again, until=until, report=report, signals=_told_to_end, done=done)
        found = done.found if refs else done.finding
        _tell_finding(found, after)
        if found is None or plan.first or len(done.kinds) >= MOST:
            return cast(power.Powered, done)


def _replay_power(plan: Plan, here: Place, refs: bool) -> power.Powered:
    saved = load(Path(plan.file))
    if isinstance(saved, RefFinding):
        if not refs:
            raise CannotRun("the history is of refs over a driver: replay it on refs: followed by the driver's address")
        shown = ref_power.try_last(here, saved.bursts)
        for text in (shown or saved).told:
            tell("line", text=text)
        _tell_finding(shown)
        return RefPowered(histories=1, calls=sum(len(burst.ops) for burst in saved.bursts), found=shown)
    if refs:
        raise CannotRun("the history is of a driver, not of refs over it: replay it on the driver's address alone")
    found = power.replay(here, saved, _told_to_end)
    for step in (found or saved).calls:
        tell("line", text=line(step))
    _tell_finding(found)
    return power.Powered(histories=1, calls=len(saved.calls), finding=found)


def _power_counts(done: power.Powered) -> dict[str, Any]:
    numbers = done.numbers()
    return {"histories": done.histories, "calls": done.calls, "restarts": 0, "reached": dict(done.reached), "power": numbers}


def _counts(session: Session | RefSession) -> dict[str, Any]:
    return {
        "histories": session.histories,
        "calls": session.calls,
        "restarts": session.restarts,
        "reached": dict(session.reached),
        "disturbed": dict(session.disturbed),
    }


def _tell_finding(finding: Finding | RefFinding | None, after: tuple[int, float] = (1, 0.0)) -> None:
    """Tell what was found, after so many histories and seconds."""
    if finding is not None:
        tell("finding", finding=encode_finding(finding), after=after)


def _tell_said(session: Session | RefSession, finding: Finding | RefFinding | None) -> None:
    """With a finding, what an adapter has written on standard error."""
    subject: Any = session.subject
    if finding is not None and isinstance(subject, ExecSubject | ExecRefs):
        for text in subject.said(SAID):
            tell("line", text=f"adapter: {text}")


def _smoke(session: Session | RefSession) -> None:
    if isinstance(session.subject, ExecSubject | ExecRefs):
        found = walk(session, lambda text: tell("line", text=text))
        _tell_said(session, found)
        _tell_finding(found)
        return
    _show(session, ref_smoke(session) if isinstance(session, RefSession) else session.shows(scenario(session, smoke())))


def _replay(session: Session | RefSession, file: Path) -> None:
    saved = load(file)
    session.aside = frozenset(saved.passed) if isinstance(saved, Finding) else frozenset()
    if isinstance(session, RefSession):
        if not isinstance(saved, RefFinding):
            raise CannotRun("the history is of a driver, not of refs over it: replay it on the driver's address alone")
        _show(session, _again(session, saved))
    elif isinstance(saved, RefFinding):
        raise CannotRun("the history is of refs over a driver: replay it on refs: followed by the driver's address")
    elif isinstance(session, OverlapSession):
        _show(session, replay_plan(session, saved.steps))
    else:
        _show(session, replay_often(session, saved.steps))


def _again(session: RefSession, saved: RefFinding) -> RefFinding | None:
    if isinstance(session, ExecRefSession):
        return session.often(history(session, saved.bursts), AGAIN)
    return make_often(session, saved.bursts) if isinstance(session, RefKillSession) else play_again(session, saved)


def _show(session: Session | RefSession, found: Finding | RefFinding | None) -> None:
    """Tell what was done, call by call, and what departs from the spec."""
    if isinstance(session, RefSession):
        lines = session.told() if found is None else []
    elif isinstance(session, OverlapSession):
        lines = []
    else:
        steps = found.calls if isinstance(found, Finding) else session.steps
        lines = [line(step) for step in steps if not step.check]
    for text in lines:
        tell("line", text=text)
    _tell_said(session, found)
    _tell_finding(found)


def _check(plan: Plan, session: Session | RefSession, workspace: Workspace) -> None:
    told = 0.0

    def report() -> None:
        nonlocal told
        if time.monotonic() - told > 0.2:
            told = time.monotonic()
            tell("progress", **_counts(session), drawn=search.progress, shrinking=search.shrinking)

    def settled(entry: Entry[Any]) -> None:
        _tell_said(session, entry.finding)
        _tell_finding(entry.finding, entry.after)

    began = time.monotonic()
    until, halfway = (began + plan.budget, began + plan.budget / 2) if plan.budget else (float("inf"), float("inf"))
    limits = Limits(permits(str(workspace.directory)), frozenset(plan.without))
    session.aside = decode_kinds(plan.aside)
    search = search_of(session, plan, limits, until, report, settled)
    draw = _drawing(plan, search)
    if isinstance(search, RefSearch):
        search.between = draw
    _look_for_kept(plan, search)
    search.run_scenarios(plan.number, plan.workers, plan.seed)
    if isinstance(search, RefSearch):
        for name, schedules in search.schedules.items():
            tell("line", text=f"{name}: every one of {schedules} schedules")
    for _ in range(EARLY):
        if time.monotonic() < halfway:
            draw()
    search.run_slow_scenarios(plan.number, plan.workers)
    while draw():
        pass
    search.settle()


def _look_for_kept(plan: Plan, search: Search | RefSearch | OverlapSearch) -> None:
    """Make the histories of findings again that earlier runs have kept, those that fall to this process."""
    lines = Path(plan.kept).read_text(encoding="utf-8").splitlines() if plan.kept else []
    for line_ in lines[plan.number :: plan.workers]:
        kept: Any = decode_finding(json.loads(line_))
        if search.wanted() and isinstance(kept, RefFinding) == isinstance(search, RefSearch):
            found: Any = search.again(kept)
            if found is not None:
                search.found(found)
                search.go_on()


def _drawing(plan: Plan, search: Search | RefSearch | OverlapSearch) -> Callable[[], bool]:
    """What draws the next batch of histories, and tells whether there was one to draw."""
    search.drawn = plan.drawn

    def draw() -> bool:
        drawn = search.drawn
        count = min(BATCH, plan.examples - drawn)
        if count <= 0 or not search.wanted():
            return False
        # Each batch of each worker draws under a seed of its own, the same ones for the same seed of the run.
        search.batch = search.session.histories
        search.run_batch(count, (plan.seed * 1_000_003 + plan.number) * 1_000_003 + drawn, drawn // BATCH)
        search.drawn += min(count, max(1, search.session.histories - search.batch))  # a finding ends a batch
        search.batch = None
        search.go_on()
        return True

    return draw


def main() -> None:
    """The entry of the process: its arguments are the plan and the id of the process that started it."""
    _keep_output()
    _end_with_parent(int(sys.argv[2]))
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.memory:
        resource.setrlimit(resource.RLIMIT_AS, (plan.memory, plan.memory))
    try:
        run(plan)
    except CannotRun as error:
        tell("cannot", why=str(error))
    except Exception:  # noqa: BLE001  # whatever it is, it is the kit's own fault, and the run says so
        if _told_to_end:
            return  # what an interrupted search says of itself is of no interest
        tell("error", trace=traceback.format_exc())


def _end_with_parent(parent: int) -> None:
    """End politely, with all undone, when told to and when the process that started this one dies."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C goes to all; the parent decides
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:  # it has died before, and who took its place may be any process
        raise SystemExit(1)


def _terminated(number: int, _: object) -> None:
    """Nothing is raised here: in the midst of the event loop that would lose a call, and with it the end of the subject."""
    _told_to_end.append(number)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A call may hang, in undoing too: then this process is killed, and the next run cleans up after it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LAST_RESORT)


if __name__ == "__main__":
    main()
