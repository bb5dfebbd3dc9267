"""What a check is to do: the words of the command line, or of pytest's, over those of the driver's file."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from snapspec.conformance import driver_file
from snapspec.conformance.driver_file import DriverFile, ExpectedFailure
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.options import ALL, LEVELS, SEQUENTIAL
from snapspec.conformance.plan import Plan
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.started import require_start
from snapspec.conformance.subjects.address import parse, require_image, require_in_process, require_process
from snapspec.conformance.subjects.grpc import DIRECTORY

#: Histories that a check draws unless it is told otherwise.
EXAMPLES = 500

#: The same of profile nightly.
NIGHTLY = 5_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What is under test and how. `skipped` are levels that were asked for with `all`, each with why it is none for this driver;
    `narrowed` tells that the command line leaves out of the driver's file what is expected of it.
    """

    subject: str
    name: str
    version: str = ""
    levels: tuple[str, ...] = SEQUENTIAL
    skipped: tuple[tuple[str, str], ...] = ()
    examples: int = EXAMPLES
    budget: float = 0.0
    seed: int = 0
    without: tuple[str, ...] = ()
    deadline: float = DEADLINE
    start: str = ""
    stop: str = ""
    kill: bool = False
    kill_command: str = ""
    power: bool = False
    jobs: int = 1
    profile: str = ""
    shard: tuple[int, int] = (1, 1)
    database: str = ""
    expected: tuple[ExpectedFailure, ...] = ()
    narrowed: bool = False
    first: bool = False
    out: Path | None = None
    """The directory of the reports; None: none is written."""

    @property
    def shard_text(self) -> str:
        """The shard as I/N; "" where there is one only."""
        number, count = self.shard
        return "" if count == 1 else f"{number}/{count}"

    @property
    def command(self) -> str:
        """The command that does the same again."""
        given = (
            ("--level", "" if self.levels == SEQUENTIAL else ",".join(self.levels)),
            ("--examples", "" if self.examples == EXAMPLES else str(self.examples)),
            ("--budget", f"{self.budget:g}s" if self.budget else ""),
            ("--jobs", str(self.jobs)),
            ("--deadline", "" if self.deadline == DEADLINE else f"{self.deadline:g}s"),
            ("--without", ",".join(self.without)),
            ("--start", self.start),
            ("--shard", self.shard_text),
        )
        words = [part for option, value in given if value for part in (option, value)]
        flags = [option for option, on in (("--kill", self.kill), ("--power", self.power)) if on]
        return shlex.join(["snapspec", "check", self.subject, "--seed", str(self.seed), *words, *flags])


def settings(options: argparse.Namespace, directory: Path) -> Settings:
    """What the options say, over the driver's file that they name, or that `directory` has where they name no subject.

    Raises CannotRun for what does not go together.
    """
    file = _file(options, directory)
    subject = options.subject or (file.subject if file is not None else "")
    if not subject:
        raise CannotRun(f"nothing is named to be checked: name a subject, or write {driver_file.NAME} with snapspec init")
    address = parse(subject)
    profile = options.profile or (file.profile if file is not None else "")
    without = options.without or (file.without if file is not None else ())
    _require_optional(without, subject)
    start = options.start or (file.start if file is not None else "")
    chosen = Settings(
        subject,
        file.name if file is not None else address.text,
        file.version if file is not None else "",
        examples=options.examples or (file and file.examples) or (NIGHTLY if profile == "nightly" else EXAMPLES),
        budget=options.budget or (file and file.budget) or 0.0,
        seed=_seed(options.seed, profile),
        without=tuple(without),
        deadline=options.deadline or (file and file.deadline) or DEADLINE,
        start=start,
        stop=file.stop if file is not None else "",
        kill=options.kill or bool(file is not None and file.kill),
        kill_command=file.kill if file is not None else "",
        power=options.power,
        profile=profile,
        shard=options.shard,
        database=options.database or (file.database if file is not None else ""),
        expected=file.expected if file is not None else (),
        first=options.first,
        out=options.out,
    )
    levels = options.level or (file.levels if file is not None else ())
    chosen = _with_levels(chosen, levels)
    jobs = options.jobs or (file and file.jobs) or min(2, os.cpu_count() or 1)
    meant = (file.levels or own_levels(subject)) if file is not None else ()
    narrowed = bool(set(meant) - set(chosen.levels)) or bool(options.without)
    return replace(chosen, jobs=_jobs(chosen, jobs), narrowed=narrowed)


def _file(options: argparse.Namespace, directory: Path) -> DriverFile | None:
    """A subject on the command line is another driver than that of the directory's file, unless the file is named too."""
    if options.file is not None:
        return driver_file.load(options.file)
    found = None if options.subject else driver_file.find(directory)
    return None if found is None else driver_file.load(found)


def _require_optional(without: Sequence[str], subject: str) -> None:
    """CannotRun when one of the names is nothing that can be left out."""
    optional = driver_file.optional(parse(subject))
    wrong = [name for name in without if name not in optional]
    if wrong:
        raise CannotRun(f"{wrong[0]!r} cannot be left out: what can is {', '.join(optional)}")


def _seed(given: int | None, profile: str) -> int:
    """Profile ci draws the same each time; otherwise it is a new seed each time, which is told."""
    if given is not None:
        return given
    return 0 if profile == "ci" else secrets.randbelow(1 << 32)


def _jobs(chosen: Settings, jobs: int) -> int:
    """One socket, one driver, unless each process has its own."""
    alone = bool(chosen.start) and DIRECTORY not in chosen.start
    return 1 if alone else min(jobs, chosen.examples)


# --- levels


def own_levels(subject: str) -> tuple[str, ...]:
    """The levels of a check that names none: of calls one after another, or of a manager of refs."""
    address = parse(subject)
    return ("refs",) if address.refs or address.own_refs else SEQUENTIAL


def _with_levels(chosen: Settings, levels: Sequence[str]) -> Settings:
    """With those levels, in the order of reports, or with its own. CannotRun for one that is none for this driver."""
    every = ALL in levels
    asked = set(LEVELS) if every else set(levels or own_levels(chosen.subject))
    why = {level: unfit(chosen.subject, level, chosen.start, chosen.kill, chosen.power) for level in LEVELS if level in asked}
    skipped = tuple((level, reason) for level, reason in why.items() if reason)
    if skipped and not every:
        raise CannotRun(skipped[0][1])
    fit = tuple(level for level, reason in why.items() if not reason)
    if "durable" not in fit:
        _require_durable(chosen, why.get("durable", ""))
    if chosen.start and set(fit) != {"durable"}:
        require_start(parse(chosen.subject), chosen.start)
    return replace(chosen, levels=fit, skipped=skipped)


def _require_durable(chosen: Settings, unfit_why: str) -> None:
    """CannotRun for what level durable alone takes; `unfit_why` is why that level is none for the driver, if it was asked for."""
    if chosen.power:
        raise CannotRun(unfit_why or "--power is for a driver whose power is cut: add --level durable")
    if chosen.kill and not chosen.kill_command:
        raise CannotRun(unfit_why or "--kill is for a driver that is ended and started again: add --level durable")


def unfit(subject: str, level: str, start: str, kill: bool, power: bool) -> str:
    """Why the level is none for that subject, started, ended or cut off so; "" where it is."""
    address = parse(subject)
    refs = address.refs or address.own_refs
    try:
        if refs and level in SEQUENTIAL:
            return f"level {level} is for drivers: a manager of refs is held to level refs"
        if refs and level == "concurrent":
            return "level concurrent is for drivers: a manager of refs is checked under overlapping calls at level refs already"
        if level == "refs" and not refs:
            parse(f"refs:{subject}")
        elif level == "faults":
            require_in_process(address)
        elif level == "durable" and power:
            require_image(address, start, kill)
        elif level == "durable":
            require_process(address, start, kill)
    except CannotRun as error:
        return str(error)
    return ""


# --- searches


@dataclass(frozen=True, slots=True)
class Search:
    """One search, the levels that it decides about, and its plan, which is of all processes together."""

    levels: tuple[str, ...]
    plan: Plan

    @property
    def name(self) -> str:
        """A name that no other search of the check has."""
        return self.levels[0]


def searches(chosen: Settings) -> tuple[Search, ...]:
    """The searches of a check. The time is divided among them."""
    groups: list[tuple[str, ...]] = [tuple(level for level in chosen.levels if level in SEQUENTIAL)]
    groups += [(level,) for level in chosen.levels if level not in SEQUENTIAL]
    groups = [group for group in groups if group]
    return tuple(Search(group, _plan(chosen, group[0], chosen.budget / len(groups))) for group in groups)


def _plan(chosen: Settings, level: str, budget: float) -> Plan:
    address = parse(chosen.subject)
    over = level == "refs" and not (address.refs or address.own_refs)
    durable = level == "durable"
    number, count = chosen.shard
    return Plan(
        "check",
        f"refs:{chosen.subject}" if over else chosen.subject,
        examples=chosen.examples // count + (number <= chosen.examples % count),
        budget=budget,
        # Each shard draws under a seed of its own.
        seed=chosen.seed + (number - 1) * 1_000_003,
        without=() if over else chosen.without,
        deadline=chosen.deadline,
        level="core" if level in SEQUENTIAL or level == "refs" else level,
        start=chosen.start if durable else "",
        stop=chosen.stop if durable else "",
        kill=chosen.kill and durable,
        kill_command=chosen.kill_command if durable else "",
        power=chosen.power and durable,
        first=chosen.first,
    )
