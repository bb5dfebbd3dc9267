"""A recording: the calls that passed, in the order in which they began and were answered, and its form as a file.

The file has one JSON object on each line, as spec.md says in "Recordings".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snapspec.conformance.codec import decode, encode
from snapspec.conformance.errors import CannotRun
from snapspec.model.ops import Operation
from snapspec.model.replies import Lost, Response
from snapspec.model.state import Profile
from snapspec.model.values import Info

FORMAT = "snapspec recording 1"


@dataclass(frozen=True, slots=True)
class Store:
    """A store that calls went to: a driver, and a namespace where it was spoken to through containerd's metadata layer.

    `records` are what was there before the first call, None where nobody could tell, and then `why`. `profile` is None where
    nobody declared one.
    """

    snapshotter: str = ""
    namespace: str | None = None
    records: tuple[Info, ...] | None = ()
    profile: Profile | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A call. `began` and `ended` order it among the others; the clock's times hold what it was told by the driver's clock.

    `leased`: containerd keeps what it makes for a lease.
    """

    op: Operation
    response: Response
    store: int = 0
    caller: int = 0
    began: int = 0
    ended: int | None = None
    clock_began: int = 0
    clock_ended: int = 0
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded. `released`: leases were deleted, or gave things up, while it ran."""

    stores: tuple[Store, ...] = ()
    calls: tuple[Made, ...] = ()
    released: bool = False


class Unwritable(Exception):
    """A line of a recording cannot be written, and so no further one will be."""


class Taker:
    """Takes calls down as they pass: one begins, and later answers. The lines, where there is a file, are on their way to the
    disk when a method returns: they outlive the process. Raises Unwritable when they cannot be written."""

    def __init__(self, file: int | None = None) -> None:
        self.file = file
        self.stores: list[Store] = []
        self.calls: dict[int, Made] = {}
        self.released = False
        self._refused = ""
        self._moment = 0
        self._number = 0
        self._lanes: dict[int, int] = {}
        self._line({"format": FORMAT, "clock": time.time_ns()})

    def store(self, store: Store) -> int:
        """A store of which the first call is about to begin; gives its number."""
        said = {"snapshotter": store.snapshotter, "namespace": store.namespace, "why": store.why}
        values = {"records": encode(store.records), "profile": encode(store.profile)}
        self._line({"store": len(self.stores), **said, **values})
        self.stores.append(store)
        return len(self.stores) - 1

    def begin(self, op: Operation, store: int = 0, leased: bool = False, caller: int | None = None) -> int:
        """A call begins; gives its number. `caller` is the first that has no call open, unless it is told."""
        self._number, number = self._number + 1, self._number
        busy = set(self._lanes.values())
        lane = next(n for n in range(len(busy) + 1) if n not in busy) if caller is None else caller
        self._lanes[number] = lane
        clock = time.time_ns()
        said = {"call": number, "store": store, "caller": lane, "clock": clock, "leased": leased, "op": encode(op)}
        self._line(said)
        if self.file is None:
            self.calls[number] = Made(op, Lost(), store, lane, self._moment, None, clock, 0, leased)
        return number

    def answer(self, number: int, response: Response) -> None:
        """The call was answered; Lost tells that it never will be."""
        clock = time.time_ns()
        del self._lanes[number]
        self._line({"answer": number, "clock": clock, "response": encode(response)})
        if self.file is None:
            made = self.calls[number]
            ended = None if isinstance(response, Lost) else self._moment
            self.calls[number] = replace(made, response=response, ended=ended, clock_ended=clock)

    def release(self, method: str) -> None:
        """A lease gives something up."""
        self.released = True
        self._line({"release": method})

    def recording(self) -> Recording:
        """What was taken down; for a taker without a file."""
        return Recording(tuple(self.stores), tuple(self.calls.values()), self.released)

    def _line(self, said: dict[str, Any]) -> None:
        self._moment += 1
        if self.file is None:
            return
        left = memoryview(json.dumps({**said, "at": time.monotonic_ns()}).encode() + b"\n")
        try:
            while left and not self._refused:
                left = left[os.write(self.file, left) :]
        except OSError as error:
            self._refused = error.strerror or str(error)
        if self._refused:
            raise Unwritable(self._refused)


def create(path: Path) -> int:
    """A new file for a recording, which nobody else can read. CannotRun when it is there already or cannot be made."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise CannotRun(f"{path} is there already: name a new file with --out, or remove it") from None
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}; name another place with --out") from None


@dataclass(slots=True)
class _Loading:
    stores: list[Store] = field(default_factory=list)
    calls: dict[int, Made] = field(default_factory=dict)
    released: bool = False


def load(path: Path) -> Recording:
    """Read a recording. A last line that is cut off was never acknowledged, and counts for nothing.

    Raises CannotRun, naming the line and the remedy, for anything that is no recording.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CannotRun(f"cannot read {path}: {error.strerror}; name a file that snapspec record has written") from None
    loading = _Loading()
    for number, line in _documents(path, text):
        try:
            _take(loading, number, line)
        except CannotRun as error:
            raise CannotRun(f"{path}, line {number}: {error}") from None
        except (KeyError, TypeError, ValueError, AssertionError):
            raise CannotRun(f"{path}, line {number}, is none of a recording: give the file as snapspec record wrote it") from None
    return Recording(tuple(loading.stores), tuple(loading.calls.values()), loading.released)


def _documents(path: Path, text: bytes) -> Iterator[tuple[int, Any]]:
    *lines, _ = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            raise CannotRun(f"{path}, line {number}, is not JSON: give the file as snapspec record wrote it") from None
        if number > 1:
            yield number, document
        elif not isinstance(document, dict) or document.get("format") != FORMAT:
            break
    else:
        if lines:
            return
    raise CannotRun(f"{path} is not a file of format {FORMAT!r}: name one that snapspec record has written")


def _take(loading: _Loading, moment: int, said: dict[str, Any]) -> None:
    match said:
        case {"call": int(number), "store": int(store), "caller": int(caller), "clock": int(clock), "op": op, **rest}:
            decoded = decode(op)
            assert isinstance(decoded, Operation)
            assert number not in loading.calls
            assert 0 <= store < len(loading.stores)
            loading.calls[number] = Made(decoded, Lost(), store, caller, moment, None, clock, 0, bool(rest.get("leased")))
        case {"answer": int(number), "clock": int(clock), "response": response}:
            decoded = decode(response)
            assert isinstance(decoded, Response)
            made = loading.calls[number]
            assert made.clock_ended == 0
            ended = None if isinstance(decoded, Lost) else moment
            loading.calls[number] = replace(made, response=decoded, ended=ended, clock_ended=clock)
        case {"store": int(number), "snapshotter": str(name), "namespace": None | str() as namespace, "why": str(why), **rest}:
            records, profile = decode(rest["records"]), decode(rest["profile"])
            assert number == len(loading.stores)
            assert profile is None or isinstance(profile, Profile)
            assert records is None or (isinstance(records, tuple) and all(isinstance(record, Info) for record in records))
            loading.stores.append(Store(name, namespace, records, profile, why))
        case {"release": str()}:
            loading.released = True
        case _:
            raise ValueError
