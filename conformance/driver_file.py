"""A driver's file, `snapspec.toml`: what is under test, what it offers, how it is run, and which failures are known.

It is read and nothing is tried: no socket is looked for and no command is started.
"""

from __future__ import annotations

import difflib
import re
import shlex
import stat
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from snapspec.conformance import machines, ref_draw
from snapspec.conformance.clauses import clauses
from snapspec.conformance.draw import CONTENT
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.options import PROFILES
from snapspec.conformance.report.document import LEVELS
from snapspec.conformance.subjects.address import Address, parse
from snapspec.conformance.subjects.grpc import DIRECTORY
from snapspec.conformance.times import seconds

#: The file that is taken from the working directory.
NAME = "snapspec.toml"

#: Of the kinds of subjects those that are behind a socket, which a command can begin to serve.
SERVED = ("containerd", "plugin")

#: Bytes of the longest file that is read: nobody writes so many by hand.
LONGEST = 1 << 20

#: The tables that hold values, and what each of them takes.
_KEYS = {
    "driver": ("subject", "name", "version", "capabilities"),
    "commands": ("start", "stop", "kill"),
    "run": ("levels", "examples", "budget", "deadline", "jobs", "profile", "database"),
}

T = TypeVar("T")
D = TypeVar("D")

#: What a database begins with that is no directory.
_DATABASES = ("redis", "rediss", "github")

#: The largest number that means anything here.
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class ExpectedFailure:
    """A clause that the driver is known to break, why, and where that is written down."""

    clause: str
    reason: str
    link: str


@dataclass(frozen=True, slots=True)
class DriverFile:
    """What a driver's file says. What it leaves open is None or empty: then the command line and its defaults decide."""

    path: Path
    subject: str
    name: str
    version: str = ""
    capabilities: tuple[str, ...] | None = None
    """What it offers of what may be left out; None: everything."""
    start: str = ""
    stop: str = ""
    kill: str = ""
    levels: tuple[str, ...] = ()
    examples: int | None = None
    budget: float | None = None
    deadline: float | None = None
    jobs: int | None = None
    profile: str = ""
    database: str = ""
    expected: tuple[ExpectedFailure, ...] = ()

    @property
    def without(self) -> tuple[str, ...]:
        """What of the optional things the driver does not declare: these are skipped."""
        if self.capabilities is None:
            return ()
        return tuple(name for name in optional(parse(self.subject)) if name not in self.capabilities)


def optional(address: Address) -> tuple[str, ...]:
    """What of a check of that subject may be left out."""
    refs = address.refs or address.own_refs
    return (*ref_draw.OPTIONAL, *CONTENT) if refs else machines.OPTIONAL


def find(directory: Path) -> Path | None:
    """The driver's file of that directory, where it has one; not of those above it."""
    path = directory / NAME
    return path if path.exists() or path.is_symlink() else None


def load(path: Path) -> DriverFile:
    """Read a driver's file. CannotRun, naming the file, the key and the remedy, for whatever is wrong in it."""
    document = _Table(path, "", _document(path))
    _known(document)
    driver, commands, run = (document.table(name) for name in _KEYS)
    address = _subject(driver)
    start, stop, kill = (commands.get(name, _command, "") for name in ("start", "stop", "kill"))
    _fitting(commands, address, start)
    return DriverFile(
        path,
        address.text,
        driver.get("name", _text, address.text),
        driver.get("version", _text, ""),
        driver.get("capabilities", _names("capability", optional(address)), None),
        start,
        stop,
        kill,
        run.get("levels", _levels, ()),
        run.get("examples", _number, None),
        run.get("budget", _time, None),
        run.get("deadline", _time, None),
        run.get("jobs", _number, None),
        run.get("profile", _one_of("profile", PROFILES), ""),
        run.get("database", _database, ""),
        _expected(document),
    )


# --- the file


def _document(path: Path) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CannotRun(f"{path} is no file: name a {NAME}")
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
    except OSError as error:
        raise CannotRun(f"cannot read {path}: {error.strerror}; name a {NAME}, or write one with snapspec init") from None
    except ValueError:
        raise CannotRun(f"{str(path)!r} is no path: name a {NAME}") from None
    if len(content) > LONGEST:
        raise CannotRun(f"{path} is longer than {LONGEST >> 20} MiB: name a {NAME}")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise CannotRun(f"{path} is not text in UTF-8: name a {NAME}") from None
    except RecursionError:
        raise CannotRun(f"{path} is not valid TOML: its tables or lists are nested too deep; correct it") from None
    except ValueError as error:
        raise CannotRun(f"{path} is not valid TOML: {error}; correct it") from None


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file: where it stands, for the words of an error, and what it holds."""

    path: Path
    name: str
    values: Mapping[str, Any]

    def wrong(self, key: str, what: str) -> NoReturn:
        """The error about that key; `what` says what is wrong and what to do."""
        raise CannotRun(f"{self.path}: {f'{self.name}.{key}' if self.name else key} {what}")

    def known(self, *keys: str) -> None:
        """CannotRun when there is any other key."""
        for key in self.values:
            if key not in keys:
                name = key if re.fullmatch(r"[\w-]{1,60}", key, re.ASCII) else _shown(key)
                self.wrong(name, f"is no {'key' if self.name else 'table'} of this file: {_instead(key, keys)}")

    def table(self, key: str) -> _Table:
        """The table under that key; an empty one where there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.wrong(key, f"is {_kind(value)}: write it as a table, [{key}]")
        table = _Table(self.path, key, value)
        table.known(*_KEYS[key])
        return table

    def get(self, key: str, read: Callable[[Any], T], default: D) -> T | D:
        """The value under that key, as `read` takes it; `default` where there is none. CannotRun for what `read` refuses."""
        return self.need(key, read) if key in self.values else default

    def need(self, key: str, read: Callable[[Any], T]) -> T:
        """The same for a key that has to be there."""
        if key not in self.values:
            self.wrong(key, f'is missing: write {key} = "..."')
        try:
            return read(self.values[key])
        except ValueError as error:
            self.wrong(key, str(error))


# --- the values: each reader gives what a value of the file means, and raises ValueError with what is wrong and the remedy


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is {_kind(value)}: write a text, in quotes")
    if not value.strip():
        raise ValueError("is empty: say something, or leave it out")
    if not value.isprintable():
        raise ValueError("holds a sign that cannot be shown: write it on one line, without control characters")
    return value


def _sentence(value: Any) -> str:
    """A text that may go over several lines; they become one."""
    return _text(" ".join(value.split()) if isinstance(value, str) else value)


def _list(value: Any, what: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f'is {_kind(value)}: write a list of names of a {what}, ["...", "..."]')
    names = [_text(name) for name in value]
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"names {_shown(doubled[0])} twice: leave one out")
    return names


def _names(what: str, known: Sequence[str]) -> Callable[[Any], tuple[str, ...]]:
    """Reads a list of some of the `known` names, in their order."""

    def read(value: Any) -> tuple[str, ...]:
        names = _list(value, what)
        for name in names:
            if name not in known:
                raise ValueError(f"names {_shown(name)}, which is no {what}: {_instead(name, known)}")
        return tuple(name for name in known if name in names)

    return read


def _levels(value: Any) -> tuple[str, ...]:
    if not (levels := _names("level", LEVELS)(value)):
        raise ValueError(f"is empty: name some of {', '.join(LEVELS)}, or leave it out")
    return levels


def _one_of(what: str, known: Sequence[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if _text(value) not in known:
            raise ValueError(f"is {_shown(value)}, which is no {what}: {_instead(value, known)}")
        return str(value)

    return read


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise ValueError(f"is {_kind(value)}: write a whole number from 1 to {_MOST}")
    return value


def _time(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError(f'is {_kind(value)}: write a time in quotes, such as "5m"')
    try:
        return seconds(value)
    except ValueError:
        raise ValueError(f'is {_shown(value)}, which is no time: write "90s", "5m" or "1h"') from None


def _command(value: Any) -> str:
    text = _text(value)
    try:
        shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error}): correct its quotes") from None
    return text


def _database(value: Any) -> str:
    kind = re.match("([a-z]+):", text := _text(value))
    if kind is not None and kind[1] not in _DATABASES:
        raise ValueError(f"is {_shown(text)}, which is no database: write a directory, redis://HOST:PORT/DB or github:OWNER/REPO")
    return text


def _link(value: Any) -> str:
    text = _text(value)
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"is {_shown(text)}, which is no link: write where the failure is written down, https://...")
    return text


def _clause(value: Any) -> str:
    if (text := _text(value)) not in clauses():
        raise ValueError(
            f"is {_shown(text)}, which is no clause of the spec: {_instead(text, clauses(), 'its ids are in spec.md')}"
        )
    return text


# --- the tables


def _known(document: _Table) -> None:
    """CannotRun when there is a table that no driver's file has, or a key that stands in none."""
    for key in document.values:
        for table, keys in _KEYS.items():
            if key in keys:
                document.wrong(key, f"stands in no table: write it below [{table}]")
    document.known(*_KEYS, "expected")


def _subject(driver: _Table) -> Address:
    text = driver.need("subject", _text)
    try:
        return parse(text)
    except CannotRun as error:
        driver.wrong("subject", f"is wrong: {error}")


def _fitting(commands: _Table, address: Address, start: str) -> None:
    """CannotRun when the commands are not for that subject, or not for each other."""
    if not start:
        for key in ("stop", "kill"):
            if key in commands.values:
                commands.wrong(key, "ends what start begins: add start, or leave it out")
    elif address.kind not in SERVED:
        commands.wrong("start", f"is for plugin: and containerd:, but the kit starts {address.text} by itself: leave it out")
    if start and (DIRECTORY in start) != address.place.startswith(f"{DIRECTORY}/"):
        commands.wrong("start", f"and driver.subject name one new directory {DIRECTORY}: write it in both, or in neither")


def _expected(document: _Table) -> tuple[ExpectedFailure, ...]:
    entries = document.values.get("expected", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        document.wrong("expected", f"is {_kind(entries)}: write each of its failures as a table of its own, [[expected]]")
    found: dict[str, ExpectedFailure] = {}
    for number, values in enumerate(entries, 1):
        entry = _Table(document.path, f"expected[{number}]", values)
        entry.known("clause", "reason", "link")
        one = ExpectedFailure(entry.need("clause", _clause), entry.need("reason", _sentence), entry.need("link", _link))
        if one.clause in found:
            entry.wrong("clause", f"is {one.clause}, which is expected already: put both reasons into one entry")
        found[one.clause] = one
    return tuple(found.values())


# --- the words of errors


def _kind(value: Any) -> str:
    """What a value is, in TOML's words. Its own are not shown: they may be of any length."""
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def _shown(text: str) -> str:
    """A word of the file, on one line and not too long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _instead(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What to write instead: the nearest of the known names, or what they all are."""
    known = tuple(known)
    near = difflib.get_close_matches(name[:60], known, 1)
    return f"write {near[0]}" if near else otherwise or f"it takes {', '.join(known)}"
