"""Written examples of managers, as `written` has those of drivers: shown in what a caller sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from snapspec.conformance.explain.events import Answers, Befalls, Begins, Ends
from snapspec.conformance.explain.script import Broken, Said, Script
from snapspec.model.ref_ops import (
    Close,
    Commit,
    DiskUsage,
    Finalize,
    Get,
    GetMutable,
    Mount,
    New,
    Parent,
    Prune,
    Read,
    Release,
    Restart,
    Size,
    Write,
)
from snapspec.model.ref_outcomes import RefError, Row
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefCancelled, RefFailed, RefReturned
from snapspec.model.tree import EMPTY, MakeFile, Unlink, WriteAt, outcomes_of
from snapspec.model.values import Mount as MountEntry

DONE = RefReturned()
INVALID, NOT_FOUND = RefFailed(RefError.INVALID), RefFailed(RefError.NOT_FOUND)
LOCKED, CLOSED = RefFailed(RefError.LOCKED), RefFailed(RefError.CLOSED)
STORE, DRIVER = RefFailed(RefError.STORE), RefFailed(RefError.DRIVER)

_FILE = Write("hm", (MakeFile("f", b"x"),))
_M = (New("m", "hm"),)
_PAIR = (*_M, Commit("hm", "e", "he"))
_IDLE = (*_PAIR, Release("he"))
_FILLED = (*_M, _FILE, Commit("hm", "e", "he"))
_CHILD = (*_PAIR, New("n", "hn", "he"))
_POWER = Ends(power=True)
_WRITABLE = RefReturned((MountEntry("overlay", "overlay", ("upperdir=/u", "workdir=/w", "lowerdir=/l")),))
_NO_ROWS = RefReturned(GotPruned(()))


def _on(record: str) -> RefReturned:
    return RefReturned(GotHandle(record))


def _pruned(*records: str) -> RefReturned:
    return RefReturned(GotPruned(tuple((frozenset({record}), None) for record in records)))


def _rows(*rows: Row) -> RefReturned:
    return RefReturned(GotRows(rows))


def _without_file(right: RefReturned) -> RefReturned:
    return RefReturned(outcomes_of(EMPTY, right.value, Unlink("f"))[0].tree)  # type: ignore[arg-type]  # it is a tree


def _stray(right: RefReturned) -> RefReturned:
    return RefReturned(outcomes_of(EMPTY, right.value, MakeFile("stray"))[0].tree)  # type: ignore[arg-type]  # it is a tree


def _written(data: bytes) -> Any:
    """The tree with other data in its file."""
    return lambda right: RefReturned(outcomes_of(EMPTY, right.value, WriteAt("f", 0, data))[0].tree)


def _more_rows(*rows: Row) -> Any:
    return lambda right: RefReturned(GotRows((*right.value.rows, *rows)))


def _in_use(right: RefReturned) -> RefReturned:
    value: Any = right.value
    return RefReturned(GotRows(tuple(replace(row, in_use=not row.in_use) for row in value.rows)))


SCRIPTS: tuple[Script, ...] = (
    Script("REF-HANDLE-1", (*_PAIR, Get("e", "h2", "x"), Release("he"), Size("h2")), INVALID),
    Script("REF-HANDLE-2", (*_M, Release("hm")), DRIVER),
    Script("REF-HANDLE-3", (*_M, Release("hm"), Release("hm")), INVALID),
    Script("REF-HANDLE-4", (*_M, Release("hm"), Size("hm")), RefReturned(GotSize(4096))),
    Script("REF-HANDLE-6", (*_M, GetMutable("m", "h2")), _on("m")),
    Script("REF-ERROR-1", (*_M, Release("hm"), Close(), Finalize("hm")), INVALID),
    Script("REF-ERROR-2", (*_M, Get("absent", "h2", "x")), _on("x")),
    Script("REF-ERROR-3", (*_M, Release("hm"), Prune(), New("n", "hn")), _on("m")),
    Script("REF-ERROR-4", (*_M, Get("m", "h2", "e"), DiskUsage()), _more_rows(Row("e", "", False, False, 4096))),
    Script("REF-NEW-1", (*_M, Read("hm")), _stray),
    Script("REF-NEW-2", (*_FILLED, New("n", "hn", "he"), Get("m", "h2", "x")), _on("x")),
    Script("REF-NEW-3", (*_M, New("n", "hn", "hm")), _on("n")),
    Script("REF-NEW-4", (*_CHILD, Release("he"), Prune()), _pruned("e")),
    Script("REF-COMMIT-1", (*_PAIR, Size("hm")), RefReturned(GotSize(4096))),
    Script("REF-COMMIT-2", (*_CHILD, Commit("hn", "d", "hd"), Release("he"), Prune()), _pruned("e")),
    Script("REF-COMMIT-3", (*_FILLED, Read("he")), _without_file),
    Script(
        "REF-COMMIT-4",
        (*_M, Broken(Commit("hm", "e", "he"), "cancel", RefCancelled()), Said(Size("hm"), RefReturned(GotSize(4096)))),
        INVALID,
    ),
    Script("REF-PAIR-1", (*_FILLED, Release("he"), GetMutable("m", "h2"), Read("h2")), _without_file),
    Script("REF-PAIR-2", (*_CHILD, Get("m", "h2", "x")), _on("e")),
    Script("REF-PAIR-3", (*_PAIR, DiskUsage()), _more_rows(Row("m", "", True, False, 4096))),
    Script("REF-GET-1", (*_PAIR, Get("e", "h2", "x")), LOCKED),
    Script("REF-GET-2", (*_M, Get("m", "h2", "x")), _on("x")),
    Script("REF-GET-3", (*_IDLE, Get("m", "h2", "x")), _on("x")),
    Script("REF-GET-4", (*_M, Release("hm"), Get("m", "h2", "e")), _on("m")),
    Script("REF-MUT-1", (*_PAIR, GetMutable("e", "h2")), _on("m")),
    Script("REF-MUT-2", (*_PAIR, GetMutable("m", "h2")), _on("m")),
    Script("REF-MUT-3", (*_IDLE, GetMutable("m", "h2"), Get("e", "h3", "x")), _on("e")),
    Script("REF-FINAL-1", (*_PAIR, Finalize("he"), Get("m", "h2", "x")), _on("x")),
    Script("REF-FINAL-2", (*_PAIR, Finalize("he"), Finalize("he")), INVALID),
    Script("REF-FINAL-3", (*_PAIR, Broken(Finalize("he"), "fault", STORE), Said(Finalize("he"), DONE)), DRIVER),
    Script(
        "REF-FINAL-4", (*_PAIR, Broken(Finalize("he"), "fault", DRIVER), Said(Size("he"), RefReturned(GotSize(4096)))), NOT_FOUND
    ),
    Script("REF-FINAL-5", (*_FILLED, Finalize("he"), _POWER, Restart(), Get("e", "h2", "x"), Read("h2")), _without_file),
    Script("REF-MOUNT-1", (*_M, Mount("hm", True)), _WRITABLE),
    Script("REF-MOUNT-2", (*_PAIR, Write("he", (MakeFile("g", b"y"),))), RefReturned(GotWords(("ok",)))),
    Script("REF-MOUNT-3", (*_PAIR, Mount("he", False), Get("m", "h2", "x")), _on("e")),
    Script("REF-MOUNT-4", (*_PAIR, Mount("he", True), Release("he"), GetMutable("m", "h2")), NOT_FOUND),
    Script(
        "REF-MOUNT-5",
        (*_FILLED, Finalize("he"), Get("e", "h2", "x"), Mount("h2", True), Release("he"), Read("h2")),
        DRIVER,
    ),
    Script("REF-MOUNT-6", (*_FILLED, Mount("he", True), Finalize("he"), Read("he")), _without_file),
    Script("REF-SIZE-2", (*_PAIR, Size("he"), Ends(), Restart(), Get("e", "h2", "x"), Size("h2")), RefReturned(GotSize(8192))),
    Script(
        "REF-SIZE-4",
        (
            *(*_PAIR, Begins(3, Size("he")), Begins(4, Finalize("he")), Answers(4, DONE)),
            Answers(3, RefReturned(GotSize(4096))),
        ),
        NOT_FOUND,
    ),
    Script(
        "REF-SIZE-5",
        (
            *(*_PAIR, Begins(3, Size("he")), Begins(4, Size("he")), Befalls(3, "cancel"), Answers(3, RefCancelled())),
            Answers(4, RefReturned(GotSize(4096))),
        ),
        RefCancelled(),
    ),
    Script(
        "REF-SIZE-6",
        (*_M, Said(Size("hm"), RefReturned(GotSize(0))), Write("hm", (MakeFile("f", b"x" * 1024),)), Size("hm")),
        RefReturned(GotSize(0)),
    ),
    Script("REF-PARENT-1", (*_CHILD, Parent("hn", "h2")), DONE),
    Script("REF-USAGE-1", (*_M, DiskUsage()), _rows()),
    Script("REF-USAGE-2", (*_CHILD, Release("he"), DiskUsage()), _in_use),
    Script("REF-USAGE-3", (*_M, DiskUsage()), DRIVER),
    Script("REF-PRUNE-1", (*_M, Release("hm"), Prune()), _NO_ROWS),
    Script("REF-PRUNE-2", (*_M, Release("hm"), Prune(), Get("m", "h2", "x")), _on("x")),
    Script("REF-PRUNE-3", (*_IDLE, Prune()), _pruned("e", "m")),
    Script("REF-PRUNE-4", (*_M, Get("neighbour", "h2", "x")), _on("x")),
    Script("REF-OPEN-1", (*_M, Restart(), GetMutable("m", "h2")), NOT_FOUND),
    Script(
        "REF-OPEN-2",
        (
            *_PAIR,
            Begins(3, Finalize("he")),
            Ends(),
            Begins(4, Restart()),
            Answers(4, DONE),
            Begins(5, Get("e", "h2", "x")),
            Answers(5, _on("e")),
        ),
        NOT_FOUND,
    ),
    Script("REF-OPEN-4", (*_M, Broken(Restart(), "fault", STORE), Restart(), GetMutable("m", "h2")), NOT_FOUND),
    Script("REF-OPEN-5", (*_M, _FILE, Ends(), Restart(), GetMutable("m", "h2"), Read("h2")), DRIVER),
    Script("REF-CLOSE-1", (*_M, Close(), Size("hm")), INVALID),
    Script("REF-POWER-1", (*_M, _POWER, Restart(), GetMutable("m", "h2")), NOT_FOUND),
    Script("REF-POWER-2", (*_FILLED, Finalize("he"), _POWER, Restart(), Get("e", "h2", "x"), Read("h2")), _written(b"\0")),
    Script("REF-POWER-3", (*_M, _FILE, _POWER, Restart(), GetMutable("m", "h2"), Read("h2")), _written(b"z")),
    Script("REF-POWER-4", (*_M, _POWER, Restart(), New("n", "hn")), STORE),
    Script(
        "REF-POINT-1",
        (*_IDLE, Broken(GetMutable("m", "h2"), "cancel", RefCancelled()), Said(Get("e", "h3", "x"), _on("e"))),
        NOT_FOUND,
    ),
    Script(
        "REF-POINT-2",
        (Broken(New("m", "hm"), "cancel", RefCancelled()), Said(DiskUsage(), _rows())),
        _rows(Row("m", "", True, False, 4096)),
    ),
    Script("REF-POINT-3", (Broken(New("m", "hm"), "fault", STORE), Said(Get("m", "h2", "e"), NOT_FOUND)), _on("e")),
    Script("REF-LEAK-1", (*_M, Release("hm"), Prune(), DiskUsage()), _rows(Row("m", "", True, False, 4096))),
    Script("REF-HANDLE-5", (*_M, Release("hm")), None),
    Script("REF-ERROR-5", (*_PAIR, Broken(Size("he"), "fault", STORE), Said(Size("he"), RefReturned(GotSize(4096)))), None),
    Script(
        "REF-SIZE-3",
        (
            *_PAIR,
            Begins(3, Size("he")),
            Begins(4, Size("he")),
            Answers(3, RefReturned(GotSize(4096))),
            Answers(4, RefReturned(GotSize(4096))),
        ),
        None,
    ),
    Script("REF-NOTE-1", (*_M, Ends(), Restart(), GetMutable("m", "h2")), None),
    Script("REF-CLOSE-2", (*_M, Close(), Restart()), None),
    Script("REF-MOUNT-7", (*_FILLED, Mount("he", True)), None),
)
