"""An adapter as a process: started, asked, cancelled and ended. What it does wrong is told in one sentence with the remedy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapspec.conformance.adapter.wire import PROTOCOL, WrongForm, member, shown
from snapspec.conformance.durable.process import STARTER
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.remote import TransportLost
from snapspec.model.guards import Rebase
from snapspec.model.refs import Declared, RefError
from snapspec.model.state import Measure, Profile, RootMetadata
from snapspec.model.values import ErrorClass

#: Seconds that an adapter has for its first answer.
HELLO = 10.0

#: Seconds that an adapter has to end when its input ends; then it is killed.
PATIENCE = 5.0

#: The longest line that is read.
LONGEST = 1 << 26

#: The levels, with the error classes of each.
LEVELS = {
    "snapshots": frozenset(error.value for error in ErrorClass),
    "refs": frozenset(error.value for error in RefError) | {"Canceled", "Unimplemented"},
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer with an error class."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Hello:
    """What an adapter says of itself in its first answer.

    `mounts`: content goes through mount lists, not by the calls write and read. `reopens`: there are the calls close and open.
    """

    name: str
    levels: tuple[str, ...]
    mounts: bool
    reopens: bool
    profile: Profile
    declared: Declared


def words_of(place: str) -> tuple[str, ...]:
    """The words of the command, as a shell splits them. CannotRun, with the remedy, when it names no program."""
    try:
        words = shlex.split(place)
    except ValueError as error:
        raise CannotRun(f"the command {place!r} cannot be split into words ({error}): correct its quotes") from None
    if not words:
        raise CannotRun("exec: names no adapter: write exec:./adapter, or exec:PROGRAM ARGUMENT ...")
    if shutil.which(words[0]) is None:
        here = Path(words[0]).exists()
        remedy = (
            "make it executable with chmod +x" if here else "name a program that is here, with ./ before one in this directory"
        )
        raise CannotRun(f"{words[0]!r} cannot be started: {remedy}")
    return tuple(words)


@dataclass(slots=True)
class _Asked:
    """A call that has no answer yet, or had one."""

    call: str
    answer: asyncio.Future[Any]
    done: bool = False


class Adapter:
    """One process that speaks the protocol. What it writes on standard error goes to the file `log`."""

    def __init__(self, words: Sequence[str], log: Path, patience: float | None = None) -> None:
        self.words = tuple(words)
        self.log = log
        self.patience = patience
        """Seconds after which a call without an answer is a wrong turn; None to wait on."""
        self._classes: frozenset[str] = frozenset()
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._process: Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._end: Exception | None = None
        """Why there are no more answers."""

    # --- its life

    async def start(self, level: str, directory: Path) -> Hello:
        """Start it, and greet it. CannotRun, with the remedy, for each wrong turn."""
        starter = [sys.executable, "-I", "-S", "-c", STARTER, str(os.getpid()), *self.words]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *starter, stdin=PIPE, stdout=PIPE, stderr=log, limit=LONGEST, process_group=0
            )
        self._listening = asyncio.create_task(self._listen(self._process))
        self._classes = LEVELS[level]
        return await self.greet(level, directory)

    async def greet(self, level: str, directory: Path) -> Hello:
        """Let it begin, or begin again, with an empty store at that level. Raises as `start`."""
        waiting = asyncio.ensure_future(self.ask("hello", protocol=PROTOCOL, level=level, directory=str(directory)))
        done, _ = await asyncio.wait({waiting}, timeout=HELLO)
        if not done:
            waiting.cancel()
            await self.kill()
            raise CannotRun(
                f"{self._name} is silent for {HELLO:g} s after hello: answer it, and flush standard output after each line"
            )
        try:
            answer = waiting.result()
            if isinstance(answer, Refusal):
                raise CannotRun(f"{self._name} refuses hello with {answer.error} ({answer.message}): answer it with its levels")
            return hello(answer, level)
        except (TransportLost, WrongForm, CannotRun) as error:
            await self.kill()
            if isinstance(error, CannotRun):
                raise
            raise CannotRun(f"{error}: answer hello, and every call after it, until the input ends") from None

    @property
    def alive(self) -> bool:
        """Whether it may still answer."""
        return self._end is None and self._process is not None

    @property
    def _name(self) -> str:
        return f"the adapter {' '.join(self.words)!r}"

    async def end(self) -> int | None:
        """Close its input, so that it ends; its exit status, None when it had to be killed."""
        assert self._process is not None, "start comes first"
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            await self.kill()
            return None
        return self._process.returncode

    async def kill(self) -> None:
        """End it, and what it has started, at once."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._listening is not None:
            await asyncio.wait({self._listening})

    def last_words(self, lines: int = 1) -> list[str]:
        """The last lines that it has written on standard error."""
        return (
            [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()][-lines:]
            if self.log.exists()
            else []
        )

    # --- calls

    async def ask(self, call: str, **arguments: Any) -> Any:
        """The value that the call answers, or a Refusal. A caller who is cancelled stays until the answer is there.

        Raises TransportLost where none comes, CannotRun for what is against the protocol.
        """
        return await self.answer(self.send(call, **arguments))

    def send(self, call: str, **arguments: Any) -> int:
        """Make the call; its number. Raises as `ask`."""
        if self._end is not None:
            raise self._end
        number = next(self._numbers)
        self._asked[number] = _Asked(call, asyncio.get_running_loop().create_future())
        self._write({"id": number, "call": call, **arguments})
        return number

    async def answer(self, number: int) -> Any:
        """What the call of that number answers. Raises as `ask`."""
        asked = self._asked[number]
        try:
            done, _ = await asyncio.wait({asked.answer}, timeout=None if asked.call == "hello" else self.patience)
        except asyncio.CancelledError:
            self.cancel(number)
            await asyncio.wait({asked.answer})
            raise
        if not done:
            raise CannotRun(
                f"{self._name} is silent for {self.patience:g} s under call {number}, {asked.call}: answer every call, and flush "
                "standard output after each line"
            )
        return asked.answer.result()

    def cancel(self, number: int) -> None:
        """Say that nobody wants the answer of that call any more; it comes all the same."""
        if self.alive:
            self._write({"cancel": number})

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None, "start comes first"
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    # --- answers

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None, "it is a pipe"
        try:
            while line := await process.stdout.readline():
                self._hear(line)
            status = await process.wait()
            said = self.last_words()
            how = f"was ended by signal {-status}" if status < 0 else f"has ended with status {status}"
            self._end = TransportLost(f"the adapter {how}{self._under()}{'; its last words: ' + said[0] if said else ''}")
        except CannotRun as error:
            self._end = error
        except ValueError:
            self._end = CannotRun(f"{self._name} has written a line of more than {LONGEST} bytes: write one line for each answer")
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(self._end)
                asked.answer.exception()  # looked at: nobody may wait for it any more

    def _under(self) -> str:
        waiting = [f"call {number}, {asked.call}" for number, asked in self._asked.items() if not asked.done]
        return f" under {waiting[0]}" if waiting else ""

    def _hear(self, line: bytes) -> None:
        """Take an answer. CannotRun, with the remedy, when the line is none."""
        said = line.decode(errors="replace").rstrip("\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise self._wrong(
                f"has written {shown(said)} on standard output, which is not JSON: print to standard error instead"
            ) from None
        if not isinstance(message, dict):
            raise self._wrong(f"has written {shown(said)}, which is no object: answer with id and value, or id and error")
        number = message.get("id")
        if type(number) is not int:
            raise self._wrong(f"has answered without a number as id, {shown(said)}: repeat the id of the call")
        asked = self._asked.get(number)
        if asked is None:
            raise self._wrong(f"has answered call {number}, which was never made: repeat the id of the call")
        if asked.done:
            raise self._wrong(f"has answered call {number}, {asked.call}, twice: answer each call once, a cancelled one too")
        asked.answer.set_result(self._judged(message, number, asked.call))
        asked.done = True

    def _judged(self, message: dict[str, Any], number: int, call: str) -> Any:
        where = f"call {number}, {call}"
        if ("value" in message) == ("error" in message):
            raise self._wrong(f"has answered {where}, with {shown(message)}: give either value or error, null for no value")
        if "value" in message:
            return message["value"]
        error, words = message["error"], message.get("message", "")
        if error not in self._classes:
            known = ", ".join(sorted(self._classes))
            raise self._wrong(f"has answered {where}, with the error {shown(error)}: give one of {known}")
        return Refusal(error, words if isinstance(words, str) else shown(words))

    def _wrong(self, what: str) -> CannotRun:
        return CannotRun(f"{self._name} {what}")


# --- hello

_HELLO = "protocol, name, levels, content, and where it differs from the usual, reopens, profile and declared"


def hello(value: Any, level: str) -> Hello:
    """The first answer. WrongForm for one that is not of the form, CannotRun where the adapter is not for the level."""
    protocol: str = member(value, "protocol", str, _HELLO)
    if protocol != PROTOCOL:
        raise CannotRun(f"the adapter speaks {protocol!r}, the kit {PROTOCOL!r}: use the versions of both that belong together")
    levels = tuple(member(value, "levels", list, _HELLO))
    if not levels or any(each not in LEVELS for each in levels):
        raise CannotRun(f"the adapter names the levels {list(levels)!r}: give some of {', '.join(LEVELS)}")
    if level not in levels:
        other = "add ?level=refs to the address" if level == "snapshots" else "leave ?level=refs out"
        raise CannotRun(f"the adapter has the level {levels[0]} and not {level}: {other}")
    content = _one_of(value, "content", {"mounts": True, "calls": False}, None)
    reopens = _one_of(value, "reopens", {True: True, False: False}, False)
    return Hello(member(value, "name", str, _HELLO), levels, content, reopens, _profile(value), _declared(value))


def _one_of(value: Any, name: str, choices: dict[Any, Any], default: Any) -> Any:
    if name not in value and default is not None:
        return default
    found: Any = member(value, name, object, _HELLO)
    if not isinstance(found, bool | str) or found not in choices:
        raise WrongForm(f"the member {name!r} is {shown(found)}: give one of {', '.join(map(json.dumps, choices))}")
    return choices[found]


def _profile(value: Any) -> Profile:
    given = value.get("profile", {})
    _only(given, ("cleanup", "rebase", "usage", "root"), "profile")
    usual = Profile()
    return Profile(
        cleanup=_one_of(given, "cleanup", {True: True, False: False}, usual.cleanup),
        rebase=_one_of(given, "rebase", {each.value: each for each in Rebase}, usual.rebase),
        usage=_one_of(given, "usage", {each.value: each for each in Measure}, usual.usage),
        root=_one_of(given, "root", {each.value: each for each in RootMetadata}, usual.root),
    )


def _declared(value: Any) -> Declared:
    given = value.get("declared", {})
    _only(given, ("commit_keeps_lists", "release_drops_pair"), "declared")
    answers = {True: True, False: False}
    return Declared(
        commit_keeps_lists=_one_of(given, "commit_keeps_lists", answers, True),
        release_drops_pair=_one_of(given, "release_drops_pair", answers, False),
    )


def _only(given: Any, known: tuple[str, ...], what: str) -> None:
    """WrongForm for a member that is not known: what an adapter declares is not to be passed over."""
    if not isinstance(given, dict) or any(name not in known for name in given):
        raise WrongForm(f"{what} is {shown(given)}: give an object with some of {', '.join(known)}")
