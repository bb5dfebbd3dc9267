"""The command `snapspec`: smoke, check, replay, doctor, museum.

Exit status: 0 conforms, 1 diverges, 2 could not run.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from snapspec.conformance import doctor, machine, ref_draw
from snapspec.conformance.draw import CONTENT
from snapspec.conformance.durable import PowerCut, Restart, Together
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding, load, save
from snapspec.conformance.machines import OPTIONAL
from snapspec.conformance.mutants import museum
from snapspec.conformance.mutants.hall import EXHIBITS, find
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report.text import disturbance_lines, finding_lines, owed, progress_line, summary
from snapspec.conformance.run import Run, execute, shared, shorten_stuck
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.subjects.address import FORMS, parse, require_image, require_in_process, require_process
from snapspec.conformance.subjects.grpc import DIRECTORY
from snapspec.conformance.worker import Plan

LEVELS = ("core", "faults", "durable")

EXAMPLES = 500


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence and status 2, like everything else that cannot run."""
        raise CannotRun(f"{message}: see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A driver's words and the names of files may hold what the terminal's encoding, or any, cannot show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        action: Callable[[argparse.Namespace], int] = options.action
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="snapspec", description="Decides whether a container snapshotter is right.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    smoke = commands.add_parser("smoke", help="five operations in seconds: does the driver answer at all?")
    check = commands.add_parser("check", help="hold the driver against the spec, with drawn histories")
    replay = commands.add_parser("replay", help="make the calls of a saved history again")
    looking = commands.add_parser("doctor", help="what this machine permits, and why not more")
    visiting = commands.add_parser("museum", help="the checker's track record: known bugs, each found and how fast")
    visiting.add_argument("names", nargs="*", metavar="NAME", help="exhibits to visit (default: all)")
    visiting.add_argument("--list", action="store_true", help="name the exhibits, and visit none")
    visiting.add_argument("--budget", type=_seconds, default=60.0, metavar="TIME", help="for each exhibit (default: 60s)")
    visiting.add_argument("--write", type=Path, metavar="FILE", help="put the track record into this file, between its marks")
    replay.add_argument("file", type=Path, help="a history that check has saved")
    for command in (smoke, check, replay):
        command.add_argument("subject", help=f"what is under test: {FORMS}")
        command.add_argument(
            "--deadline",
            type=_seconds,
            default=DEADLINE,
            metavar="TIME",
            help=f"how long a call may take (default: {DEADLINE:g}s)",
        )
    for command in (check, replay):
        command.add_argument(
            "--start",
            default="",
            metavar="COMMAND",
            help=f"for level durable: starts the driver, in the foreground; {DIRECTORY} there and in SUBJECT is a new directory",
        )
    check.add_argument("--kill", action="store_true", help="for level durable: end the driver by SIGKILL, not by SIGTERM")
    check.add_argument(
        "--power", action="store_true", help="for level durable: cut the power of ref:overlay, instead of ending its process"
    )
    check.add_argument("--level", choices=LEVELS, default="core", help="how far to go (default: core)")
    check.add_argument(
        "--examples",
        type=_positive,
        default=EXAMPLES,
        help=f"histories to draw, with --power images to judge (default: {EXAMPLES})",
    )
    check.add_argument("--budget", type=_seconds, default=0.0, metavar="TIME", help="stop after this long: 90s, 5m, 1h")
    for command in (check, visiting):
        command.add_argument("--seed", type=int, default=None, help="draw the same histories again")
    check.add_argument(
        "--without",
        type=_names,
        default=(),
        metavar="NAME,NAME",
        help=f"leave out, for a partial verdict: {', '.join(OPTIONAL)}; of refs: {', '.join(ref_draw.OPTIONAL)}",
    )
    for command in (check, visiting):
        command.add_argument(
            "--jobs", type=_positive, default=min(2, os.cpu_count() or 1), help="processes (default: 2, or the cores)"
        )
    check.add_argument("--out", type=Path, default=Path("snapspec-finding.json"), help="where a finding is saved")
    for command, action in ((smoke, _smoke), (check, _check), (replay, _replay), (looking, _doctor), (visiting, _museum)):
        command.set_defaults(action=action)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"snapspec {version('snapspec')}"
    except PackageNotFoundError:
        return "snapspec (not installed)"


def _positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1; write one")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _optional(names: tuple[str, ...], refs: bool) -> None:
    """CannotRun when one of the names is nothing that can be left out."""
    optional = (*ref_draw.OPTIONAL, *CONTENT) if refs else OPTIONAL
    wrong = [name for name in names if name not in optional]
    if wrong:
        raise CannotRun(f"{wrong[0]!r} cannot be left out: what can is {', '.join(optional)}")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 5m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


# --- the commands


def _doctor(_: argparse.Namespace) -> int:
    sys.stdout.write(doctor.report(machine.survey()))
    return 0


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
    _optional(options.without, parse(options.subject).refs)
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
    return "durable" if kinds & {Restart, PowerCut, Together} or start else "core"


def _museum(options: argparse.Namespace) -> int:
    exhibits = [find(name) for name in options.names] or list(EXHIBITS)
    if options.list:
        for exhibit in exhibits:
            print(f"{exhibit.name:10} {museum.level(exhibit):8} {exhibit.wrong}")
        return 0
    if options.write is not None:
        _writable(options.write)
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
    return replace(plan, level=level, start=start, kill=kill, power=power)


def _writable(out: Path) -> None:
    """A finding that cannot be saved would be lost: look before the run, not after it."""
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise CannotRun(f"{out} cannot be written: name a file in a directory that is there with --out")


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
