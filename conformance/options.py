"""The options of a check, as `snapspec check` and pytest take them: light to import, for pytest loads its plugins each time."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snapspec.conformance.times import seconds as seconds_of

#: The levels in the order of reports, and all of them.
LEVELS = ("core", "content", "usage", "labels", "concurrent", "faults", "durable", "refs")
ALL = "all"

#: Those that one search of a driver decides about, whose calls come one after another.
SEQUENTIAL = LEVELS[:4]

#: How a run draws: the same each time, or anew and more.
PROFILES = ("ci", "nightly")

#: The shells that can be told how the command is completed.
SHELLS = ("bash", "zsh", "fish")

#: What the first findings and reports of a check are written into.
OUT = "snapspec-report"


def positive(text: str) -> int:
    """A number of at least 1."""
    if not re.fullmatch("0*[1-9][0-9]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1; write one")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Names with commas between, each once."""
    return tuple(dict.fromkeys(text.split(",")))


def time(text: str) -> float:
    """Seconds, from 90s, 5m or 1h."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def levels(text: str) -> tuple[str, ...]:
    """Levels with commas between."""
    for name in names(text):
        if name not in (*LEVELS, ALL):
            raise argparse.ArgumentTypeError(f"invalid choice: {name!r} is no level; write some of {', '.join(LEVELS)}, or {ALL}")
    return names(text)


def shard(text: str) -> tuple[int, int]:
    """Which part of how many."""
    found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
    if found is None or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; write 2/8 for the second of eight")
    return int(found[1]), int(found[2])


#: The options of a check: their names without the dashes, and what argparse is told of them.
OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("file", {"type": Path, "metavar": "FILE", "help": "the driver's file (default, where no subject is given: snapspec.toml)"}),
    (
        "level",
        {
            "type": levels,
            "default": (),
            "metavar": "LEVEL,LEVEL",
            "help": f"the levels to check: {', '.join(LEVELS)}; or {ALL}, those that fit the subject (default: the first four; "
            "of a manager of refs: refs)",
        },
    ),
    (
        "examples",
        {
            "type": positive,
            "metavar": "N",
            "help": "how many histories to draw, for the first four levels together and for each of the others; with --power, "
            "how many images to judge (default: 500)",
        },
    ),
    ("budget", {"type": time, "metavar": "TIME", "help": "stop after this long: 90s, 5m, 1h (default: when all is drawn)"}),
    (
        "profile",
        {
            "choices": PROFILES,
            "default": "",
            "help": "ci draws the same histories each time; nightly draws others each time, ten times as many",
        },
    ),
    ("seed", {"type": int, "metavar": "N", "help": "draw the histories of the run that has told this seed"}),
    ("without", {"type": names, "default": (), "metavar": "NAME,NAME", "help": "what to leave out, for a verdict in part"}),
    (
        "deadline",
        {"type": time, "metavar": "TIME", "help": "how long a call may take before it counts as hanging (default: 20s)"},
    ),
    (
        "start",
        {
            "default": "",
            "metavar": "COMMAND",
            "help": "the command that starts the driver and stays in the foreground; {dir}, in it and in the subject, stands for "
            "a new directory",
        },
    ),
    ("kill", {"action": "store_true", "help": "at level durable: end the driver by SIGKILL, not by SIGTERM"}),
    (
        "power",
        {"action": "store_true", "help": "at level durable: cut the power of the reference, and end no process"},
    ),
    ("jobs", {"type": positive, "metavar": "N", "help": "how many processes share the work (default: 2, or one on one core)"}),
    ("shard", {"type": shard, "default": (1, 1), "metavar": "I/N", "help": "draw the I-th of N parts; the others elsewhere"}),
    (
        "database",
        {
            "default": "",
            "metavar": "WHERE",
            "help": "where findings are kept for later checks: DIR, redis://HOST:PORT/N or github:OWNER/REPO",
        },
    ),
    ("first", {"action": "store_true", "help": "end at the first finding"}),
    (
        "out",
        {"type": Path, "metavar": "DIR", "help": f"the directory for the report and the findings (default of check: {OUT})"},
    ),
)


def add(take: Callable[..., Any], prefix: str) -> None:
    """Add the options to a parser by its method `take`, each under `prefix` and its name."""
    for name, words in OPTIONS:
        take(f"{prefix}{name}", **words)


def from_pytest(config: Any) -> argparse.Namespace:
    """What pytest was given of them, and of the subject, as `settings.settings` takes it."""
    given = {name: getattr(config.option, f"snapspec_{name}") for name, _ in OPTIONS}
    return argparse.Namespace(subject=config.option.snapspec or "", **given)
