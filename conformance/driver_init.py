"""`snapspec init`: a driver's file to begin with, in which all that can be said stands already, most of it as comments."""

from __future__ import annotations

import json
from pathlib import Path

from snapspec.conformance.driver_file import optional
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.options import PROFILES
from snapspec.conformance.report.document import LEVELS
from snapspec.conformance.subjects.address import parse

#: The subject where none was given: what most drivers are.
SUBJECT = "plugin:/run/mydriver.sock"

_TEXT = """\
# What snapspec is to know of this driver. With this file here, `snapspec check` needs no more words.

[driver]
# What is under test, as `snapspec check SUBJECT` takes it.
subject = {subject}
# How reports call it.
name = {name}
# version = "1.0"

# What it offers of what may be left out. What is taken out of this list is skipped, and the verdict is partial then; what
# stands here and does not work is a failure.
capabilities = [
{capabilities}]

[commands]
# For a driver behind a socket, which the kit is to begin and to end: start has to stay in the foreground. {{dir}} stands for a
# new directory of the run, there and at the beginning of the socket's path: "plugin:{{dir}}/driver.sock" as the subject.
# start = "./mydriver --listen {{dir}}/driver.sock --root {{dir}}/root"
# stop = "./mydriver-control {{dir}}/driver.sock stop"    # without it: SIGTERM
# kill = "docker kill mydriver"                         # without it: SIGKILL

[run]
# Which levels are run: {levels}.
# levels = {all_levels}
# examples = 500       # histories that each level draws
# budget = "5m"        # and for how long
# deadline = "20s"     # how long a call may take
# jobs = 2             # processes
# profile = "ci"       # {profiles}: the same histories each time, or new ones
# database = "redis://127.0.0.1:6379/0"    # where machines share what they have found

# A failure that is known: it does not fail the run, and the run says so. Should the driver pass, or the clause not be of the
# levels that are run, the run fails: then take the entry out. One table for each clause.
# [[expected]]
# clause = "SNAP-REMOVE-3"
# reason = "a name is free only after the next collection"
# link = "https://example.org/mydriver/issues/1"
"""


def text(subject: str = "") -> str:
    """A driver's file for that subject, or for one to be filled in. CannotRun for what is no subject."""
    address = parse(subject or SUBJECT)
    if not address.text.isprintable():
        raise CannotRun(f"{subject!r} holds a sign that a driver's file cannot show: name the subject without it")
    return _TEXT.format(
        subject=_quoted(address.text),
        name=_quoted(address.text),
        capabilities="".join(f"  {_quoted(name)},\n" for name in optional(address)),
        levels=", ".join(LEVELS),
        all_levels=json.dumps(LEVELS),
        profiles=" or ".join(PROFILES),
    )


def write(out: Path, subject: str = "") -> None:
    """Write that file to `out`. CannotRun when something is there already, or it cannot be written."""
    content = text(subject)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise CannotRun(f"{out} is there already: change it by hand, or name another file with --out") from None
    except OSError as error:
        raise CannotRun(f"cannot write {out} ({error.strerror}): name a file in a directory that is there, with --out") from None


def _quoted(text: str) -> str:
    # What JSON escapes is escaped in TOML alike; what cannot be shown is not in it.
    return json.dumps(text, ensure_ascii=False)
