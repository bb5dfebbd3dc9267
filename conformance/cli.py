"""The command `snapspec`: what each of its words does.

Exit status: 0 conforms, 1 diverges, 2 nothing is decided, or it could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from snapspec.conformance import doctor, driver_init, machine
from snapspec.conformance.durable import PowerCut, Restart, Together
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding, load
from snapspec.conformance.linear import Verdict
from snapspec.conformance.mutants.hall import EXHIBITS, find
from snapspec.conformance.options import OUT
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.plan import Plan
from snapspec.conformance.recordings import proxy
from snapspec.conformance.recordings.judge import judge
from snapspec.conformance.recordings.recording import load as load_recording
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report import document
from snapspec.conformance.report.audit import audit_lines
from snapspec.conformance.report.document import Report, encode
from snapspec.conformance.report.text import disturbance_lines, finding_lines, summary
from snapspec.conformance.report.verdicts import status
from snapspec.conformance.run import Run, execute
from snapspec.conformance.serve import serve
from snapspec.conformance.settings import settings, unfit
from snapspec.conformance.subjects.address import parse
from snapspec.conformance.vectors import concurrent, make
from snapspec.conformance.words import Action, parser

# What one command alone needs is imported by it: the others begin sooner.


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


# --- the commands


def _doctor(_: argparse.Namespace) -> int:
    sys.stdout.write(doctor.report(machine.survey()))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from snapspec.conformance.explain.explain import explain

    explain(options.clause)
    return 0


def _completion(options: argparse.Namespace) -> int:
    from snapspec.conformance import completion

    print(completion.script(parser(_ACTIONS), options.shell))
    return 0


def _vectors(options: argparse.Namespace) -> int:
    _writable(options.out)
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


def _init(options: argparse.Namespace) -> int:
    driver_init.write(options.out, options.subject)
    print(f"{options.out}: fill it in, then run snapspec check")
    return 0


def _report(options: argparse.Namespace) -> int:
    from snapspec.conformance.report.merge import merge
    from snapspec.conformance.report.terminal import console, show
    from snapspec.conformance.report.write import write

    joined = merge([document.load(path) for path in options.files])
    if options.out is not None:
        write(joined, options.out)
    show(joined, console(), options.out)
    if joined.why:
        print(f"snapspec: note: {joined.why}", file=sys.stderr)
    return status(joined.verdict)


def _serve(options: argparse.Namespace) -> int:
    return serve(options.subject, options.listen, options.root)


def _smoke(options: argparse.Namespace) -> int:
    parse(options.subject)
    run = execute([Plan("smoke", options.subject, deadline=options.deadline)], _silent)
    return _conclude(run, options.subject)


def _replay(options: argparse.Namespace) -> int:
    parse(options.subject)
    saved = load(options.file)
    plan = Plan("replay", options.subject, file=str(options.file), deadline=options.deadline)
    if isinstance(saved, RefFinding):
        power = saved.power
    else:
        power = any(isinstance(step.op, PowerCut | Together) for step in saved.steps)
    run = execute([_at_level(plan, _level_of(saved, options.start), options.start, power)], _silent)
    status = _conclude(run, options.subject)
    if status == 0:
        print(f"The history of {saved.clause} in {options.file} is allowed now.")
    return status


def _check(options: argparse.Namespace) -> int:
    chosen = settings(options, Path.cwd())
    out = options.out or Path(OUT)
    _place(out)
    quiet = options.quiet or options.json
    if not quiet:
        print(chosen.command, flush=True)
    from snapspec.conformance import front
    from snapspec.conformance.report.terminal import console, show

    report = front.run(replace(chosen, out=out), quiet=quiet)
    for note in report.notes:
        print(f"snapspec: note: {note}", file=sys.stderr)
    if options.json:
        print(json.dumps(encode(report), indent=1))
    elif report.verdict is not document.Verdict.ERROR or report.findings:
        show(report, console(), out, quiet=options.quiet)
    if report.verdict is document.Verdict.ERROR:
        _failed(report)
    return status(report.verdict)


def _failed(report: Report) -> NoReturn:
    """Raises CannotRun for a check that could not be made; a fault of the kit is shown whole."""
    if "\n" not in report.why:
        raise CannotRun(report.why)
    sys.stderr.write(report.why)
    raise CannotRun("the kit itself failed, see above: please report it")


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
    from snapspec.conformance.mutants import museum

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


def _at_level(plan: Plan, level: str, start: str, power: bool) -> Plan:
    """The plan at that level. CannotRun when the subject is not for it."""
    address = parse(plan.subject)
    named = "refs" if level == "core" and (address.refs or address.own_refs) else level
    why = unfit(plan.subject, named, start, False, power)
    if why:
        raise CannotRun(why)
    return replace(plan, level=level, start=start, power=power)


def _writable(out: Path) -> None:
    """CannotRun unless a file can be written there: look before the work, not after it."""
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise CannotRun(f"{out} cannot be written: name a file in a directory that is there")


def _place(out: Path) -> None:
    """A report that cannot be saved would be lost. CannotRun unless `out` is a directory, or is made one, that takes files."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CannotRun(f"no report can be written into {out}, {error.strerror}: name a directory with --out") from None


def _silent(_: Run) -> None:
    """No progress is shown."""


def _conclude(run: Run, subject: str) -> int:
    """Print what a smoke or a replay has shown; gives the exit status. A finding counts for more than a fault."""
    for why in run.left:
        print(f"snapspec: note: {why}", file=sys.stderr)
    if run.note:
        print(f"  on {run.note}")
    for text in run.lines:
        print(f"  {text}")
    if run.finding is not None:
        print("\n".join(finding_lines(run.finding)))
        return 1
    if run.trouble:
        raise CannotRun(run.trouble)
    if run.fault:
        sys.stderr.write(run.fault)
        raise CannotRun("the kit itself failed, see above: please report it")
    for text in disturbance_lines(run.disturbed):
        print(f"  {text}")
    print(summary(run, subject))
    return 0


_ACTIONS: dict[str, Action] = {
    "smoke": _smoke,
    "check": _check,
    "init": _init,
    "replay": _replay,
    "record": _record,
    "audit": _audit,
    "report": _report,
    "serve": _serve,
    "vectors": _vectors,
    "museum": _museum,
    "explain": _explain,
    "completion": _completion,
    "doctor": _doctor,
}
