"""The words of the command `snapspec`: what each of its commands takes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from snapspec.conformance import options
from snapspec.conformance.driver_file import NAME as DRIVER_FILE
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.serve import ROOT
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.subjects.address import FORMS
from snapspec.conformance.subjects.grpc import DIRECTORY

#: What a command does; gives the exit status.
Action = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence and status 2, like everything else that cannot run."""
        raise CannotRun(f"{message}: see {self.prog} --help")


def parser(actions: Mapping[str, Action]) -> argparse.ArgumentParser:
    """The parser of the command line: `action` of what it gives is the one of the command. It raises CannotRun."""
    whole = _Parser(prog="snapspec", description="Decides whether a container snapshotter is right.")
    whole.add_argument("--version", action="version", version=_version())
    commands: Any = whole.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, (what, takes) in _COMMANDS.items():
        command = commands.add_parser(name, help=what)
        takes(command)
        command.set_defaults(action=actions[name])
    return whole


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"snapspec {version('snapspec')}"
    except PackageNotFoundError:
        return "snapspec (not installed)"


# --- what the commands take


def _smoke(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", help=f"what is under test: {FORMS}")
    command.add_argument(
        "--deadline",
        type=options.time,
        default=DEADLINE,
        metavar="TIME",
        help=f"how long a call may take (default: {DEADLINE:g}s)",
    )


def _check(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "subject", nargs="?", default="", help=f"what is under test: {FORMS} (default: what {DRIVER_FILE} names)"
    )
    options.add(command.add_argument, "--")
    told = command.add_mutually_exclusive_group()
    told.add_argument("--quiet", action="store_true", help="print the verdict alone")
    told.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


def _replay(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="a finding that check has saved")
    _smoke(command)
    _start(command)


def _record(command: argparse.ArgumentParser) -> None:
    command.add_argument("--listen", type=Path, required=True, metavar="SOCKET", help="where clients are to connect")
    command.add_argument(
        "--upstream", type=Path, required=True, metavar="SOCKET", help="the socket of the driver or of containerd"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file for the recording")


def _audit(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="a file that record has written")


def _init(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", nargs="?", default="", help="what is under test, as check takes it (default: one to fill in)")
    command.add_argument(
        "--out", type=Path, default=Path(DRIVER_FILE), metavar="FILE", help=f"a new file (default: {DRIVER_FILE})"
    )


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the report.json of each part")
    command.add_argument(
        "--out", type=Path, default=None, metavar="DIR", help="where the joined report is written (default: nowhere)"
    )


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", help="ref:overlay, ref:copy or py:package.module:factory")
    command.add_argument("--listen", type=Path, required=True, metavar="SOCKET", help="the socket to make and to listen on")
    command.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help=f"where the store lies (default: {ROOT})")


def _vectors(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, help="the file to write")
    command.add_argument(
        "--level",
        choices=("snapshots", "refs", "concurrent"),
        default="snapshots",
        help="what the histories are of (default: snapshots)",
    )
    command.add_argument("--count", type=options.positive, default=200, help="how many histories (default: 200)")
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: 0)")


def _museum(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", nargs="*", metavar="NAME", help="the bugs to try (default: all)")
    command.add_argument("--list", action="store_true", help="name the bugs, and try none")
    command.add_argument(
        "--budget", type=options.time, default=60.0, metavar="TIME", help="how long to look for each (default: 60s)"
    )
    _seed(command)
    _jobs(command)
    command.add_argument("--write", type=Path, metavar="FILE", help="put the track record into this file, between its marks")


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("clause", nargs="?", default="", help="SNAP-COMMIT-4, or a family, SNAP-COMMIT (default: all families)")


def _completion(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=options.SHELLS, help="for bash: source <(snapspec completion bash)")


def _doctor(_: argparse.ArgumentParser) -> None:
    """Nothing."""


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "smoke": ("a few calls, in a second: does the driver answer at all?", _smoke),
    "check": ("hold the driver against the spec, with drawn histories", _check),
    "init": (f"write {DRIVER_FILE}, a driver's file, to be filled in", _init),
    "replay": ("make the calls of a saved finding again, on the same driver or another", _replay),
    "record": ("stand between clients and a driver, and write what passes into a file", _record),
    "audit": ("judge a recording: is there an order of its calls in which all answers are right?", _audit),
    "report": ("join the reports of the parts of a check, --shard I/N, and show what they come to", _report),
    "serve": ("serve a driver as a proxy plugin of containerd, until SIGTERM", _serve),
    "vectors": ("write histories with all that each call may answer, for those who check without the kit", _vectors),
    "museum": ("try the checker on known bugs: which does it find, and how fast?", _museum),
    "explain": ("a clause, why it is there, what the model makes of it, and a legal and an illegal example", _explain),
    "completion": ("print the script by which a shell completes these commands", _completion),
    "doctor": ("what this machine permits, and what to do where it does not", _doctor),
}


def _seed(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seed", type=int, default=None, metavar="N", help="draw the histories of the run that has told this seed"
    )


def _jobs(command: argparse.ArgumentParser) -> None:
    default = min(2, os.cpu_count() or 1)
    command.add_argument(
        "--jobs",
        type=options.positive,
        default=default,
        metavar="N",
        help="how many processes share the work (default: 2, or one on one core)",
    )


def _start(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--start",
        default="",
        metavar="COMMAND",
        help=f"the command that starts the driver and stays in the foreground; {DIRECTORY}, in it and in the subject, stands for "
        "a new directory",
    )
