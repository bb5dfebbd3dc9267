"""Which session a plan is made in, and which search goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from snapspec.conformance.adapter.refs import ExecRefs, ExecRefSession
from snapspec.conformance.adapter.search import ExecRefSearch
from snapspec.conformance.adapter.subject import ExecSubject
from snapspec.conformance.base_search import Entry
from snapspec.conformance.draw import Limits
from snapspec.conformance.durable.ref_kill import RefKillSession
from snapspec.conformance.durable.ref_kills import RefKillSearch
from snapspec.conformance.durable.restart import RestartSession
from snapspec.conformance.faults.search import FaultSearch
from snapspec.conformance.faults.session import FaultSession
from snapspec.conformance.machine import Surroundings
from snapspec.conformance.overlap.search import OverlapSearch
from snapspec.conformance.overlap.session import OverlapSession
from snapspec.conformance.plan import Plan
from snapspec.conformance.ref_search import RefSearch
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.search import Search
from snapspec.conformance.session import Session
from snapspec.conformance.subjects.address import make, make_faulted, make_killed_refs, make_restarted, parse
from snapspec.conformance.subjects.refs import RefsSubject
from snapspec.conformance.workspace import Workspace


def session_of(
    plan: Plan, surroundings: Surroundings, workspace: Workspace, runner: asyncio.Runner, signals: Sequence[int]
) -> Session | RefSession:
    """The session with the subject of the plan, not yet started; it heeds `signals`. CannotRun as `subjects.address`."""
    address = parse(plan.subject)
    if plan.level == "durable" and address.refs:
        return RefKillSession(make_killed_refs(address, surroundings, workspace), runner, plan.deadline, signals)
    if plan.level == "durable":
        ends = plan.kill, plan.stop, plan.kill_command
        restarted = make_restarted(address, surroundings, workspace, plan.deadline, plan.start, *ends)
        return RestartSession(restarted, runner, plan.deadline, signals)
    if plan.level == "faults" and not address.refs:
        return FaultSession(make_faulted(address, surroundings, workspace), runner, plan.deadline, signals)
    subject = make(address, surroundings, workspace, plan.deadline)
    if plan.task == "smoke" and isinstance(subject, ExecSubject | ExecRefs):
        subject.patience = plan.deadline / 2  # before the deadline of the session: a new adapter is told what to mend
    if isinstance(subject, ExecRefs):
        return ExecRefSession(subject, runner, plan.deadline, signals)
    if isinstance(subject, RefsSubject):
        return RefSession(subject, runner, plan.deadline, signals)
    kind = OverlapSession if plan.level == "concurrent" else Session
    return kind(subject, runner, plan.deadline, signals)


def search_of(
    session: Session | RefSession,
    plan: Plan,
    limits: Limits,
    until: float,
    report: Callable[[], None],
    settled: Callable[[Entry[Any]], None],
) -> Search | RefSearch | OverlapSearch:
    """The search in that session, up to the moment `until`; for `report` and `settled` see `BaseSearch`."""
    how = (limits, until, report, settled, plan.first)
    if isinstance(session, ExecRefSession):
        return ExecRefSearch(session, *how)
    if isinstance(session, RefKillSession):
        return RefKillSearch(session, *how)
    if isinstance(session, RefSession):
        return RefSearch(session, *how, everywhere=plan.level == "faults")
    if isinstance(session, OverlapSession):
        return OverlapSearch(session, *how)
    if isinstance(session, FaultSession):
        return FaultSearch(session, *how)
    return Search(session, *how)
