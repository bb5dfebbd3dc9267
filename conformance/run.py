"""A run: the processes that share it, what they tell, and what is cleaned up before and after."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from snapspec.conformance import ref_history
from snapspec.conformance.aside import call_name, covered, kind_of
from snapspec.conformance.base_search import SHORTENING, Entry
from snapspec.conformance.clauses import clauses
from snapspec.conformance.codec import decode
from snapspec.conformance.durable.power import Powered, total
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, decode_finding, save
from snapspec.conformance.kind import Kind, decode_kinds, encode_kinds
from snapspec.conformance.machines import OPTIONAL
from snapspec.conformance.owed import POWER
from snapspec.conformance.plan import Plan
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.search import shorten, size
from snapspec.conformance.subjects.grpc import clean_up_after
from snapspec.conformance.workspace import Leftover, Note, default_base, reclaim
from snapspec.impl.errors import SnapshotError
from snapspec.model.replies import Mismatch
from snapspec.model.state import Profile


@dataclass
class Share:
    """What one process has told so far of its part of the run, `plan`."""

    plan: Plan
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)
    rest: bytes = b""
    errors: bytes = b""
    """The end of what the process and its driver have written to stderr."""
    histories: int = 0
    drawn: int = 0
    """How many of them were drawn: not those that are written, nor those that make a finding shorter."""
    calls: int = 0
    restarts: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    disturbed: Counter[str] = field(default_factory=Counter)
    power: dict[str, Any] = field(default_factory=dict)
    """The numbers of its power cuts."""
    found: list[Entry[Any]] = field(default_factory=list)
    """Its findings."""
    trouble: str = ""
    """Why the process could do nothing: one sentence with the remedy."""
    fault: str = ""
    """The kit's own fault: what it printed."""
    shrinking: bool = False
    done: bool = False
    dismissed: bool = False
    """The run has told the process to end."""
    stuck: bool = False
    """It holds a call that never came back, on a store that another process can make anew."""


@dataclass
class Run:
    """All processes together. `note` says what the subject runs on, `lines` is what a smoke or a replay shows, `left` what of
    killed runs could not be cleaned, and why."""

    shares: list[Share] = field(default_factory=list)
    note: str = ""
    profile: Profile | None = None
    refs: bool = False
    """Whether a manager of refs is under test."""
    promise: str = ""
    """How the clauses begin that the level asks for besides those of every run."""
    lines: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    """What the machine does not permit, and so was not drawn."""
    beyond: dict[str, str] = field(default_factory=dict)
    """The clauses that nothing in this run can put to the test, and why."""

    @property
    def histories(self) -> int:
        """Histories begun."""
        return sum(s.histories for s in self.shares)

    @property
    def calls(self) -> int:
        """Calls made and judged."""
        return sum(s.calls for s in self.shares)

    @property
    def restarts(self) -> int:
        """How often the driver was ended and started again."""
        return sum(s.restarts for s in self.shares)

    @property
    def powered(self) -> bool:
        """Whether it is the power that is cut."""
        return self.promise in POWER

    @property
    def examples(self) -> int:
        """How much is done of what `--examples` counts."""
        return self.power.images if self.powered else sum(share.drawn for share in self.shares)

    @property
    def counted(self) -> str:
        """What that is."""
        return "images" if self.powered else "histories"

    @property
    def power(self) -> Powered:
        """What was done in power cuts."""
        return total(s.power for s in self.shares)

    @property
    def reached(self) -> Counter[str]:
        """How often each clause was put to the test."""
        return sum((s.reached for s in self.shares), Counter())

    @property
    def disturbed(self) -> Counter[str]:
        """How often what was done to which operation: `operation: what`."""
        return sum((s.disturbed for s in self.shares), Counter())

    @property
    def found(self) -> list[Entry[Any]]:
        """The distinct findings of all processes, each with its shortest history, in the order of the clauses."""
        return distinct(entry for share in self.shares for entry in share.found)

    @property
    def hung(self) -> list[str]:
        """The calls that were not made any more once one had not answered."""
        return sorted({name for share in self.shares for name in share.plan.without} - {*self.shares[0].plan.without})

    @property
    def finding(self) -> Finding | RefFinding | None:
        """The shortest finding of all processes."""
        return min((entry.finding for entry in self.found), key=_size, default=None)

    @property
    def trouble(self) -> str:
        """Why the run could not be made, if so."""
        return next((s.trouble for s in self.shares if s.trouble), "")

    @property
    def fault(self) -> str:
        """What went wrong in the kit, if anything."""
        return next((s.fault for s in self.shares if s.fault), "")

    @property
    def shrinking(self) -> bool:
        """Whether a finding is being made shorter."""
        return any(s.shrinking for s in self.shares)


def distinct(entries: Iterable[Entry[Any]]) -> list[Entry[Any]]:
    """Of each kind of finding the shortest, in the order of the clauses; without those that others show as well."""
    shortest: dict[Kind, Entry[Any]] = {}
    for entry in sorted(entries, key=lambda entry: _size(entry.finding)):
        shortest.setdefault(kind_of(entry.finding), entry)
    for kind in [kind for kind in shortest if covered(kind, shortest.keys() - {kind})]:
        del shortest[kind]
    order = {clause: number for number, clause in enumerate(clauses())}
    return [shortest[kind] for kind in sorted(shortest, key=lambda kind: (order.get(kind.clause, 0), kind))]


def _size(found: Finding | RefFinding) -> tuple[int, ...]:
    return ref_history.size(found) if isinstance(found, RefFinding) else size(found)


def execute(plans: Sequence[Plan], progress: Callable[[Run], None]) -> Run:
    """Run the plans, each in a process of its own; `progress` is called a few times a second.

    A plan that is content with the first finding ends the others with it. On KeyboardInterrupt and on every error all processes
    are ended and cleaned up after.
    """
    run = Run(left=clean_up())
    try:
        with selectors.DefaultSelector() as selector:
            for plan in plans:
                _begin(selector, run, plan)
            while selector.get_map():
                for share in _listen(selector, run):
                    _go_on(selector, run, share)
                progress(run)
                _end_others(run)
    finally:
        with _undisturbed():
            _end(run.shares)
            left = clean_up()
    run.left.extend(why for why in left if why not in run.left)
    return run


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Not to be stopped half-way by a second Ctrl-C. Python lets the main thread alone decide on signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(selector: selectors.BaseSelector, run: Run, plan: Plan) -> None:
    """Start the process of a plan, and listen to it."""
    share = Share(plan, _spawn(plan))
    run.shares.append(share)
    for pipe in _pipes(share):
        selector.register(pipe, selectors.EVENT_READ, share)


#: How many processes take up, one after another, what a process leaves undone that a call has stopped which never answered.
HANGS = 2

#: The calls that the kit makes to look around: a check cannot do without.
LOOKS = ("walk", "mounts", "read", "usage", "remove", "view")


def _go_on(selector: selectors.BaseSelector, run: Run, share: Share) -> None:
    """The process has ended. Where it was stuck another takes its place, which does not make the call that was not answered."""
    plan, left = share.plan, share.plan.budget - (time.monotonic() - share.began)
    hung = _hung(share)
    if not (share.stuck and hung) or plan.first or plan.hangs >= HANGS or (plan.budget and left <= 0):
        return
    kinds = encode_kinds({*decode_kinds(plan.aside), *(kind_of(entry.finding) for entry in share.found)})
    drawn, without = min(plan.examples, share.drawn), (*plan.without, hung)
    rest = replace(plan, aside=tuple(kinds), drawn=drawn, without=without, budget=max(0.0, left), hangs=plan.hangs + 1)
    _begin(selector, run, rest)


def _hung(share: Share) -> str:
    """The name of the call that did not answer, if it can be left out, and the kit does not make it to look around."""
    last = share.found[-1].finding if share.found else None
    step = last.steps[-1] if isinstance(last, Finding) and last.clause == "SNAP-LIVE-1" else None
    name = call_name(step.op) if step is not None and not step.check else ""
    return name if name in OPTIONAL and name not in LOOKS else ""


def _spawn(plan: Plan) -> subprocess.Popen[bytes]:
    environment = {"GRPC_VERBOSITY": "ERROR", **os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *_flags(), "-m", "snapspec.conformance.worker", json.dumps(asdict(plan)), str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, process_group=0
    )


def _flags() -> list[str]:
    return ["-O"] if sys.flags.optimize else []


def _pipes(share: Share) -> list[Any]:
    """What the process writes to. Both are read: a process whose pipe is full would stop."""
    return [share.process.stdout, share.process.stderr]


#: How much is kept of what a process writes to stderr.
KEPT = 1 << 16


def _listen(selector: selectors.BaseSelector, run: Run) -> list[Share]:
    """Take in what the processes have told by now; gives those that have ended."""
    ended = []
    # Errors before the rest: the end of the output is the end of the process.
    ready = sorted(selector.select(timeout=0.25), key=lambda found: found[0].fileobj is found[0].data.process.stdout)
    for key, _ in ready:
        share: Share = key.data
        chunk = os.read(key.fd, 1 << 16)
        if key.fileobj is share.process.stderr:
            share.errors = (share.errors + chunk)[-KEPT:]
            if not chunk:
                selector.unregister(key.fileobj)
            continue
        *lines, share.rest = (share.rest + chunk).split(b"\n")
        for text in lines:
            _hear(run, share, json.loads(text))
        if not chunk:
            for pipe in _pipes(share):
                # A process that the driver has started may hold stderr open for longer.
                if pipe in selector.get_map():
                    selector.unregister(pipe)
            _ended(share)
            ended.append(share)
    return ended


def _hear(run: Run, share: Share, told: dict[str, Any]) -> None:
    match told["kind"]:
        case "started":
            run.note, run.profile, run.refs = told["note"], decode(told["profile"]), told["refs"]
            run.promise, run.lacks, run.beyond = told["promise"], told.get("lacks", []), told.get("beyond", {})
        case "line":
            run.lines.append(told["text"])
        case "finding":
            histories, seconds = told["after"]
            share.found.append(Entry(decode_finding(told["finding"]), (histories, seconds)))
        case "cannot":
            share.trouble = told["why"]
        case "error":
            share.fault = told["trace"]
        case "progress" | "done":
            share.histories, share.calls, share.restarts = told["histories"], told["calls"], told["restarts"]
            share.reached, share.disturbed = Counter(told["reached"]), Counter(told.get("disturbed", {}))
            share.power, share.drawn = told.get("power", {}), told.get("drawn", share.drawn)
            share.shrinking = told.get("shrinking", False)
            share.done = told["kind"] == "done"
        case "stuck":
            share.done, share.stuck = True, told["own"]


def _ended(share: Share) -> None:
    """The process has closed its output: it has said all that it will. One that ends unasked and without a word has failed."""
    status = share.process.wait()
    _read_rest(share)
    if not (share.done or share.trouble or share.fault or share.dismissed):
        share.fault = f"a process of the run ended with {status}: {share.errors.decode(errors='replace')}\n"


def _read_rest(share: Share) -> None:
    """What is still in the pipe of errors; nothing more is waited for."""
    pipe = share.process.stderr
    if pipe is not None:
        os.set_blocking(pipe.fileno(), False)
        share.errors = (share.errors + (pipe.read() or b""))[-KEPT:]


def _end_others(run: Run) -> None:
    """Where the first finding is enough and one process has it, another's search is of no more use; nor is it after a fault."""
    first = any(share.plan.first and (share.found or share.shrinking) for share in run.shares)
    if not first and not run.trouble and not run.fault:
        return
    for share in run.shares:
        if not share.shrinking and not (first and share.found):  # who has found something ends by itself, and tells its numbers
            _dismiss(share)


def _dismiss(share: Share) -> None:
    if not share.dismissed and share.process.poll() is None:
        share.dismissed = True
        share.process.terminate()


#: How long a call may take at most, in seconds, while a history that hangs is made shorter.
HASTE = 2.0

#: How long a process may take to undo what it made, before it is killed.
PATIENCE = 30.0


def _end(shares: list[Share]) -> None:
    for share in shares:
        _dismiss(share)
    deadline = time.monotonic() + PATIENCE
    for share in shares:
        try:
            share.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            share.process.kill()
            share.process.wait()
        for pipe in (share.process.stdout, share.process.stderr):
            if pipe is not None:
                pipe.close()


def clean_up() -> list[str]:
    """Remove what runs that were killed have left, here and on the servers that they spoke to; gives what stays, and why."""
    return [why for leftover in reclaim() for why in _clean(leftover)]


def _clean(leftover: Leftover) -> Iterator[str]:
    try:
        for note in leftover.notes:
            if _went_along(note):
                continue
            left = asyncio.run(clean_up_after(note))
            if left:
                raise CannotRun(
                    f"{left} snapshots of an earlier run cannot be removed from {note['address']}: remove {note['prefix']}*"
                )
    except (CannotRun, SnapshotError, OSError) as error:
        leftover.keep()
        yield f"what an earlier run has left is not removed yet, {error}; when that server is gone, remove {leftover.directory}"
        return
    except BaseException:
        leftover.keep()
        raise
    why = leftover.discard()
    if why:
        yield why


def _went_along(note: Note) -> bool:
    """Whether the server was one that a run had started, in a directory of the kit: what it held is gone with it."""
    socket = Path(note["address"].removeprefix("unix://"))
    return socket.is_relative_to(default_base()) and not socket.exists()


def shorten_stuck(run: Run, plan: Plan, progress: Callable[[Run], None]) -> None:
    """Make a finding whose last call hangs shorter, by replays each in a process and on a store of its own."""
    for share in run.shares:
        last = share.found[-1] if share.found else None
        if share.stuck and last is not None and isinstance(last.finding, Finding):
            share.shrinking = True
            share.found[-1] = replace(last, finding=_shorten_afresh(last.finding, plan, lambda: progress(run)))
            share.shrinking = False


def _shorten_afresh(found: Finding, plan: Plan, progress: Callable[[], None]) -> Finding:
    """The replays wait less for a call; in the end the shorter history has to hang for the whole deadline, or the first stays."""
    until = time.monotonic() + SHORTENING
    hasty = replace(plan, deadline=min(plan.deadline, HASTE))

    def wanted() -> bool:
        progress()
        return time.monotonic() < until

    shorter = shorten(found, partial(_afresh, hasty), wanted)
    if shorter is found or hasty == plan:
        return shorter
    sure = _afresh(plan, tuple(step for step in shorter.steps if not step.check))
    return sure if sure is not None and sure.clause == found.clause else found


def _afresh(plan: Plan, steps: tuple[Step, ...]) -> Finding | None:
    with tempfile.NamedTemporaryFile(prefix="snapspec-", suffix=".json") as file:
        history = Finding(steps, (Mismatch("SNAP-LIVE-1", "", ""),))
        save(Path(file.name), history, plan.subject)
        found = execute([replace(plan, task="replay", file=file.name)], lambda _: None).finding
        return found if isinstance(found, Finding) else None


def shared(plan: Plan, jobs: int) -> list[Plan]:
    """The plan as the shares of `jobs` processes."""
    examples = [plan.examples // jobs + (1 if number < plan.examples % jobs else 0) for number in range(jobs)]
    return [replace(plan, number=number, workers=jobs, examples=share) for number, share in enumerate(examples)]
