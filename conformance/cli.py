"""The command `snapspec`: smoke, check, replay, record, audit, serve, vectors, explain, completion, doctor, museum.

Exit status: 0 conforms, 1 diverges, 2 could not run.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from snapspec.conformance import completion, doctor, machine, ref_draw
from snapspec.conformance.draw import CONTENT
from snapspec.conformance.durable import PowerCut, Restart, Together
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.explain.explain import explain
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding, load, save
from snapspec.conformance.linear import Verdict
from snapspec.conformance.machines import OPTIONAL
from snapspec.conformance.mutants import museum
from snapspec.conformance.mutants.hall import EXHIBITS, find
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.plan import Plan
from snapspec.conformance.recordings import proxy
from snapspec.conformance.recordings.judge import judge
from snapspec.conformance.recordings.recording import load as load_recording
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report.audit import audit_lines
from snapspec.conformance.report.text import disturbance_lines, finding_lines, owed, progress_line, summary
from snapspec.conformance.run import Run, execute, shared, shorten_stuck
from snapspec.conformance.serve import serve
from snapspec.conformance.subjects.address import parse, require_image, require_in_process, require_process
from snapspec.conformance.subjects.grpc import DIRECTORY
from snapspec.conformance.vectors import concurrent, make
from snapspec.conformance.words import Action, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A driver's words and the names of files may hold what the terminal's encoding, or any, cannot show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parser(_ACTIONS).parse_args(arguments)
        action: Action = options.action
        return action(options)
    except CannotRun as error:
        print(f"snapspec: cannot run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: one more must not spoil the exit status
        print("snapspec: interrupted; all that it made is removed", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away. Nothing more can be printed, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _optional(names: tuple[str, ...], refs: bool) -> None:
    """CannotRun when one of the names is nothing that can be left out."""
    optional = (*ref_draw.OPTIONAL, *CONTENT) if refs else OPTIONAL
    wrong = [name for name in names if name not in optional]
    if wrong:
        raise CannotRun(f"{wrong[0]!r} cannot be left out: what can is {', '.join(optional)}")


# --- the commands


def _doctor(_: argparse.Namespace) -> int:
    sys.stdout.write(doctor.report(machine.survey()))
    return 0


def _explain(options: argparse.Namespace) -> int:
    explain(options.clause)
    return 0


def _completion(options: argparse.Namespace) -> int:
    print(completion.script(parser(_ACTIONS), options.shell))
    return 0


def _vectors(options: argparse.Namespace) -> int:
    _writable(options.out, "")
    if options.level == "concurrent":
        made = concurrent.document(options.count, options.seed)
    else:
        made = make.document(options.level, options.count, options.seed)
    options.out.write_text(make.spelled(made), encoding="ascii")
    print(f"{options.out}: {len(made['histories'])} histories, level {options.level}, seed {options.seed}")
    return 0


def _record(options: argparse.Namespace) -> int:
    def ready() -> None:
        print(f"recording: {options.listen} -> {options.upstream}, into {options.out}; Ctrl-C or SIGTERM ends it", flush=True)

    proxy.record(options.listen, options.upstream, options.out, ready)
    return 0


def _audit(options: argparse.Namespace) -> int:
    opinion = judge(load_recording(options.file))
    print("\n".join(audit_lines(opinion)))
    return _VERDICTS[opinion.verdict]


_VERDICTS = {Verdict.LEGAL: 0, Verdict.ILLEGAL: 1, Verdict.UNKNOWN: 2}


def _serve(options: argparse.Namespace) -> int:
    return serve(options.subject, options.listen, options.root)


def _smoke(options: argparse.Namespace) -> int:
    parse(options.subject)
    run = execute([Plan("smoke", options.subject, deadline=options.deadline)], _silent)
    return _conclude(run, options.subject, None)


def _replay(options: argparse.Namespace) -> int:
    parse(options.subject)
    saved = load(options.file)
    plan = Plan("replay", options.subject, file=str(options.file), deadline=options.deadline)
    if isinstance(saved, RefFinding):
        power = saved.power
    else:
        power = any(isinstance(step.op, PowerCut | Together) for step in saved.steps)
    run = execute([_at_level(plan, _level_of(saved, options.start), options.start, False, power)], _silent)
    status = _conclude(run, options.subject, None)
    if status == 0:
        print(f"The history of {saved.clause} in {options.file} is allowed now.")
    return status


def _check(options: argparse.Namespace) -> int:
    address = parse(options.subject)
    _optional(options.without, address.refs or address.own_refs)
    _writable(options.out)
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(
        f"snapspec check {options.subject} --seed {seed}"
        + ("" if options.level == "core" else f" --level {options.level}")
        + (" --power" if options.power else "")
    )
    # One socket, one driver, unless each process has its own.
    alone = bool(options.start) and DIRECTORY not in options.start
    jobs = 1 if alone else min(options.jobs, options.examples)
    plan = Plan(
        "check",
        options.subject,
        examples=options.examples,
        budget=options.budget,
        seed=seed,
        without=options.without,
        deadline=options.deadline,
    )
    plan = _at_level(plan, options.level, options.start, options.kill, options.power)
    with _Progress(options.examples, options.budget) as progress:
        run = execute(shared(plan, jobs), progress.show)
        shorten_stuck(run, plan, progress.show)
    return _conclude(run, options.subject, options.out, options.without, options.start)


def _level_of(saved: Finding | RefFinding, start: str) -> str:
    """The level at which such a history is made."""
    if isinstance(saved, RefFinding):
        return "durable" if saved.power or any(burst.kill is not None for burst in saved.bursts) else "core"
    kinds = {type(step.op) for step in saved.steps}
    if Faulted in kinds:
        return "faults"
    if AtOnce in kinds:
        return "concurrent"
    return "durable" if kinds & {Restart, PowerCut, Together} or start else "core"


def _museum(options: argparse.Namespace) -> int:
    exhibits = [find(name) for name in options.names] or list(EXHIBITS)
    if options.list:
        for exhibit in exhibits:
            print(f"{exhibit.name:10} {museum.level(exhibit):8} {exhibit.wrong}")
        return 0
    if options.write is not None:
        museum.parted(options.write)
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"snapspec museum --seed {seed} --budget {options.budget:g}s")
    seen = museum.visit_all(exhibits, seed, options.budget, options.jobs, lambda one: print(museum.line(one), flush=True))
    print(museum.summary(seen))
    if options.write is not None:
        museum.write(options.write, seen)
    return 0 if all(one.right for one in seen) else 1


def _at_level(plan: Plan, level: str, start: str, kill: bool, power: bool) -> Plan:
    """The plan at that level. CannotRun when the subject or the options are not for it."""
    if power and level != "durable":
        raise CannotRun("--power is for a driver whose power is cut: add --level durable")
    if power:
        require_image(parse(plan.subject), start, kill)
    elif level == "durable":
        require_process(parse(plan.subject), start, kill)
    elif start or kill:
        raise CannotRun("--start and --kill are for a driver that is ended and started again: add --level durable")
    elif level == "faults":
        require_in_process(parse(plan.subject))
    elif level == "concurrent" and parse(plan.subject).refs:
        raise CannotRun(
            "level concurrent is for drivers: a manager of refs is checked under overlapping calls at level core already"
        )
    return replace(plan, level=level, start=start, kill=kill, power=power)


def _writable(out: Path, how: str = " with --out") -> None:
    """A finding that cannot be saved would be lost: look before the run, not after it."""
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise CannotRun(f"{out} cannot be written: name a file in a directory that is there{how}")


def _silent(_: Run) -> None:
    """No progress is shown."""


class _Progress:
    """The line that a terminal shows while a check runs; elsewhere nothing is shown."""

    def __init__(self, examples: int, budget: float) -> None:
        self.examples = examples
        self.budget = budget
        self.began = time.monotonic()
        console = Console(stderr=True)
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> _Progress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, run: Run) -> None:
        """Draw the line anew."""
        if self.live is not None:
            self.live.update(Text(progress_line(run, self.examples, self._left(run))))

    def _left(self, run: Run) -> float | None:
        """Seconds that are left by the pace so far, or by the budget where that ends first."""
        passed = time.monotonic() - self.began
        by_pace = passed * (self.examples - run.examples) / run.examples if run.examples else None
        by_budget = self.budget - passed if self.budget else None
        known = [max(0.0, left) for left in (by_pace, by_budget) if left is not None]
        return min(known, default=None)


def _conclude(run: Run, subject: str, out: Path | None, without: tuple[str, ...] = (), start: str = "") -> int:
    """Print the verdict; gives the exit status. A finding counts for more than a fault of another process."""
    for why in run.left:
        print(f"snapspec: note: {why}", file=sys.stderr)
    if run.note:
        print(f"  on {run.note}")
    for text in run.lines:
        print(f"  {text}")
    if out is not None and run.power.images:
        print("\n".join(f"  {text}" for text in run.power.lines()))
    if run.finding is not None:
        print("\n".join(finding_lines(run.finding)))
        if out is not None:
            save(out, run.finding, subject)
            how = f" --start {shlex.quote(start)}" if start else ""
            print(f"\n  saved as {out}; again: snapspec replay {out} '{subject}'{how}")
        return 1
    if run.trouble:
        raise CannotRun(run.trouble)
    if run.fault:
        sys.stderr.write(run.fault)
        raise CannotRun("the kit itself failed, see above: please report it")
    if run.calls == 0:
        raise CannotRun("nothing was run: give more examples or a longer budget")
    for text in disturbance_lines(run):
        print(f"  {text}")
    if out is not None:
        missing = [clause for clause in owed(run.profile, run.refs, run.promise) if clause not in run.reached]
        if missing:
            print(f"  not put to the test: {', '.join(missing)}")
    print(summary(run, subject, without))
    return 0


_ACTIONS: dict[str, Action] = {
    "smoke": _smoke,
    "check": _check,
    "replay": _replay,
    "record": _record,
    "audit": _audit,
    "serve": _serve,
    "vectors": _vectors,
    "museum": _museum,
    "explain": _explain,
    "completion": _completion,
    "doctor": _doctor,
}
