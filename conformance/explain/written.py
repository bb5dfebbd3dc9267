"""Written examples of drivers: of clauses that no altered answer names, or only in a way that teaches little.

An example shows what a caller sees of a departure. The oracle then names the clause of the answer in which it shows: a snapshot
that keeps the labels of the active one departs from SNAP-COMMIT-9, and shows in a record with wrong labels (SNAP-LABEL-1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snapspec.conformance.explain.events import Answers, Begins, Ends
from snapspec.conformance.explain.script import Broken, Said, Script
from snapspec.model import ops
from snapspec.model.guards import Door
from snapspec.model.ops import Collect, Commit, Mounts, Prepare, Read, Remove, Reopen, Stat, Update, Usage, View, Walk, Write
from snapspec.model.replies import Failed, Lost, Reading, Returned
from snapspec.model.state import Profile
from snapspec.model.tree import EMPTY, Link, MakeDirectory, MakeFile, Rename, SetMode, Unlink, WriteAt, outcomes_of
from snapspec.model.values import ErrorClass, Info, Kind, Mount
from snapspec.model.values import Usage as Used

NOT_FOUND, TAKEN = Failed(ErrorClass.NOT_FOUND), Failed(ErrorClass.ALREADY_EXISTS)
INVALID, PRECONDITION = Failed(ErrorClass.INVALID_ARGUMENT), Failed(ErrorClass.FAILED_PRECONDITION)
NO_ROOM, UNAVAILABLE = Failed(ErrorClass.RESOURCE_EXHAUSTED), Failed(ErrorClass.UNAVAILABLE)
DONE = Returned()

_ONE, _TWO = (("l", "1"),), (("k", "2"), ("l", "1"))
_LAYER = (Prepare("a"), Commit("n", "a"))
_WRITE = Write("a", (MakeFile("f", b"x"),))
_FILLED = (Prepare("a"), _WRITE, Commit("n", "a"))
_ROOT = Write("a", (SetMode("", 0o700),))
_POWER = Ends(power=True)


def _list(place: str) -> Returned:
    return Returned((Mount("bind", place, ("rbind", "rw")),))


def _record(name: str) -> Returned:
    return Returned(_info(name))


def _info(name: str) -> Info:
    return Info(name, "", Kind.ACTIVE, (), 1500, 1500)


def _told(**changes: Any) -> Callable[[Returned], Returned]:
    """The record with other words in it."""

    def wrong(right: Returned) -> Returned:
        assert isinstance(right.value, Info)
        return Returned(replace(right.value, **changes))

    return wrong


def _without(path: str) -> Callable[[Returned], Returned]:
    """The tree without this file."""
    return lambda right: Returned(outcomes_of(EMPTY, right.value, Unlink(path))[0].tree)  # type: ignore[arg-type]  # it is a tree


def _changed(*changes: Any) -> Callable[[Returned], Returned]:
    """The tree after these changes."""

    def wrong(right: Returned) -> Returned:
        tree: Any = right.value
        for change in changes:
            tree = outcomes_of(EMPTY, tree, change)[0].tree
        return Returned(tree)

    return wrong


DIRECT: tuple[Script, ...] = (
    Script("SNAP-KEY-1", (Prepare("a"), View("a")), _list("/other")),
    Script("SNAP-KEY-2", (Prepare(""),), _list("/other")),
    Script("SNAP-KEY-3", (Prepare("a", "", _ONE), Remove("a"), Prepare("a"), Stat("a")), _told(labels=_ONE)),
    Script("SNAP-PARENT-1", (*_LAYER, Prepare("b", "n"), Remove("n")), DONE),
    Script("SNAP-PARENT-2", (*_LAYER, Prepare("b", "n"), Prepare("c", "n")), PRECONDITION),
    Script("SNAP-PARENT-3", (*_LAYER, Prepare("b", "n"), Stat("b")), _told(parent="")),
    Script("SNAP-FAIL-1", (Prepare("a"), Commit("a", "a"), Stat("a")), NOT_FOUND),
    Script(
        "SNAP-FAIL-2",
        (
            Prepare("a"),
            Begins(2, Commit("n", "a")),
            Begins(3, Walk()),
            Answers(2, DONE),
            Answers(3, Returned((_info("a"),))),
        ),
        Returned(()),
    ),
    Script("SNAP-LIVE-1", (Commit("n", "absent"), Prepare("a")), None),
    Script("SNAP-HOLD-1", (Prepare("a"), Mounts("a"), Remove("a")), None),
    Script("SNAP-PREPARE-1", (Prepare("a", "absent"),), _list("/other")),
    Script("SNAP-PREPARE-5", (Prepare("a"), Prepare("a", "absent")), TAKEN),
    Script("SNAP-PREPARE-6", (Prepare("a"), Stat("a")), NOT_FOUND),
    Script("SNAP-VIEW-1", (View("v", "absent"),), _list("/other")),
    Script("SNAP-VIEW-2", (Prepare("a"), View("v", "a")), _list("/other")),
    Script("SNAP-VIEW-5", (*_LAYER, View("v", "n"), Remove("n")), DONE),
    Script("SNAP-COMMIT-1", (Commit("n", "absent"),), DONE),
    Script("SNAP-COMMIT-4", (View("v"), Commit("n", "v")), DONE),
    Script("SNAP-COMMIT-5", (Prepare("a"), Commit("a", "absent")), TAKEN),
    Script("SNAP-COMMIT-6", (*_LAYER, Prepare("b"), Commit("m", "b"), Prepare("c", "n"), Commit("o", "c", (), "m")), DONE),
    Script("SNAP-COMMIT-8", (*_LAYER, Stat("a")), _record("a")),
    Script("SNAP-COMMIT-9", (Prepare("a", "", _ONE), Commit("n", "a"), Stat("n")), _told(labels=_ONE)),
    Script("SNAP-COMMIT-10", (*_LAYER, Stat("n")), _told(created=1500, updated=1500)),
    Script("SNAP-COMMIT-11", (*_FILLED, View("v", "n"), Read("v")), _without("f")),
    Script("SNAP-REMOVE-1", (Remove("absent"),), DONE),
    Script("SNAP-REMOVE-3", (Prepare("a"), Remove("a"), Prepare("a")), TAKEN),
    Script("SNAP-REMOVE-4", (*_LAYER, Prepare("b", "n"), Remove("b"), Stat("n")), NOT_FOUND),
    Script("SNAP-MOUNTS-1", (Mounts("absent"),), _list("/other")),
    Script("SNAP-MOUNTS-2", (*_LAYER, Mounts("n")), _list("/other")),
    Script("SNAP-MOUNTS-3", (Prepare("a"), Mounts("a")), _list("/other")),
    Script(
        "SNAP-MOUNTS-6",
        (*_LAYER, View("v", "n")),
        Returned((Mount("overlay", "overlay", ("ro", "lowerdir=/model/of/n:/model/of/n")),)),
    ),
    Script("SNAP-MOUNTS-5", (View("v"), Write("v", (MakeFile("f"),))), Returned(("ok",))),
    Script(
        "SNAP-MOUNTS-7",
        (*_FILLED, Prepare("b", "n"), Write("b", (WriteAt("f", 0, b"y"),)), Commit("m", "b"), View("v", "m"), Read("v")),
        _changed(WriteAt("f", 0, b"x")),
    ),
    Script("SNAP-MOUNTS-8", (Prepare("a"), Prepare("b")), _list("/model/1")),
    Script("SNAP-STAT-2", (Stat("absent"),), _record("absent")),
    Script("SNAP-LABEL-1", (Prepare("a", "", _ONE), Stat("a")), _told(labels=())),
    Script("SNAP-LABEL-2", (Prepare("a", "", (("l", ""),)), Stat("a")), _told(labels=(("l", ""),))),
    Script(
        "SNAP-LABEL-3",
        (Prepare("a"), Said(Stat("a"), _told(labels=(("containerd.io/snapshot/x", "1"),))(_record("a")))),
        _told(labels=(("x", "1"),)),
    ),
    Script("SNAP-UPDATE-3", (Update("absent", mask=("kind",)),), INVALID),
    Script("SNAP-UPDATE-4", (Prepare("a", "", _ONE), Update("a", (("k", "2"),))), _told(labels=_TWO)),
    Script("SNAP-UPDATE-5", (Prepare("a", "", _TWO), Update("a", (), ("labels.k",))), _told(labels=())),
    Script("SNAP-UPDATE-6", (Prepare("a"), Update("a")), _told(updated=1500)),
    Script("SNAP-UPDATE-7", (View("v"), Update("v", _ONE)), PRECONDITION),
    Script("SNAP-UPDATE-8", (Prepare("a"), Update("a", parent="other")), _told(parent="other")),
    Script(
        "SNAP-TIME-3",
        (
            *(Begins(1, Prepare("a")), Begins(2, Update("a")), Answers(1, _list("/1"))),
            Answers(2, Returned(Info("a", "", Kind.ACTIVE, (), 1500, 2900))),
        ),
        _told(created=2900, updated=2100),
    ),
    Script("SNAP-CONTENT-2", (Prepare("a"), _WRITE), Returned(("EIO",))),
    Script(
        "SNAP-CONTENT-3",
        (
            *(Prepare("a"), Write("a", (MakeFile("f", b"x"), Link("g", "f"))), Commit("n", "a"), Prepare("b", "n")),
            *(Write("b", (WriteAt("f", 0, b"y"),)), Read("b")),
        ),
        _changed(WriteAt("f", 0, b"x"), Unlink("g"), MakeFile("g", b"y")),
    ),
    Script(
        "SNAP-CONTENT-4",
        (
            *(Prepare("a"), Write("a", (MakeDirectory("d"), MakeFile("f"))), Commit("n", "a"), Prepare("b", "n")),
            *(Said(Write("b", (Rename("d", "e"),)), Returned(("EXDEV",))), Write("b", (Rename("f", "g"),))),
        ),
        Returned(("EXDEV",)),
    ),
    Script("SNAP-CONTENT-5", (Prepare("a"), _ROOT, Commit("n", "a"), Prepare("b", "n"), Read("b")), _changed(SetMode("", 0o755))),
    Script("SNAP-CONTENT-6", (Prepare("a"), Read("a")), _changed(SetMode("", 0o700))),
    Script("SNAP-USAGE-1", (Usage("absent"),), Returned(Reading(Used(0, 0)))),
    Script("SNAP-USAGE-7", (Prepare("a"), Write("a", (MakeFile("f", b"x" * 1024),)), Usage("a")), Returned(Reading(Used(0, 2)))),
    Script("SNAP-WALK-3", (Prepare("a"), Walk(("labels.l!=x",))), Returned(())),
    Script("SNAP-WALK-4", (Prepare("a"), Walk(('name~="("',))), INVALID),
    Script("SNAP-WALK-5", (Prepare("a"), Walk(("name==",))), Returned(())),
    Script("SNAP-WALK-6", (Prepare("a", "", _ONE), Walk()), lambda right: Returned((replace(right.value[0], labels=()),))),
    Script("SNAP-CLEANUP-2", (Prepare("a"), ops.Cleanup(), Stat("a")), NOT_FOUND),
    Script("SNAP-OPEN-1", (Prepare("a"), Reopen(), Stat("a")), NOT_FOUND),
    Script("SNAP-DURABLE-1", (Prepare("a"), Ends(), Stat("a")), NOT_FOUND),
    Script(
        "SNAP-DURABLE-2",
        (Prepare("a"), Begins(2, Commit("n", "a")), Ends(), Begins(3, Walk()), Answers(3, Returned((_info("a"),)))),
        Returned(()),
    ),
    Script("SNAP-DURABLE-3", (Prepare("a"), _WRITE, Ends(), Read("a")), _without("f")),
    Script("SNAP-POWER-1", (Prepare("a"), _POWER, Stat("a")), NOT_FOUND),
    Script("SNAP-POWER-2", (*_FILLED, _POWER, View("v", "n"), Read("v")), _without("f")),
    Script("SNAP-POWER-3", (Prepare("a"), _POWER, Mounts("a")), NOT_FOUND),
    Script("SNAP-POWER-4", (Prepare("a"), _WRITE, _POWER, Read("a")), _changed(WriteAt("f", 0, b"z"))),
    Script("SNAP-POWER-5", (Prepare("a"), _POWER, Prepare("b")), UNAVAILABLE),
    Script("SNAP-FAULT-1", (Broken(Prepare("a"), "fault", NO_ROOM),), NOT_FOUND),
    Script("SNAP-FAULT-2", (Broken(Prepare("a"), "fault", NO_ROOM), Said(Stat("a"), NOT_FOUND)), _record("a")),
    Script(
        "SNAP-FAULT-3",
        (Prepare("a"), Broken(Commit("n", "a"), "cancel", Lost()), Said(Walk(), Returned((_info("a"),)))),
        Returned(()),
    ),
    Script("SNAP-FAULT-4", (Broken(Prepare("a"), "fault", NO_ROOM), Prepare("a")), TAKEN),
    Script("SNAP-FAULT-5", (Broken(Prepare("a"), "fault", NO_ROOM), ops.Cleanup()), None),
    Script("DOOR-GC-3", (Prepare("a"), Collect(("a",)), Stat("a")), NOT_FOUND),
)

#: Of a driver whose own counting is looked at, and of one over gRPC.
MEASURED: tuple[Script, ...] = (
    Script(
        "SNAP-USAGE-5",
        (Prepare("a"), Said(Usage("a"), Returned(Reading(Used(4096, 1), Used(4096, 1))))),
        Returned(Reading(Used(4096, 1), Used(8192, 1))),
    ),
)
WIRE: tuple[Script, ...] = (Script("SNAP-WALK-8", (Said(Walk(("name==",)), Failed(ErrorClass.UNKNOWN)),), NOT_FOUND),)

#: Through containerd's metadata layer.
METADATA: tuple[Script, ...] = (
    Script("DOOR-NS-1", (ops.Nowhere(Stat("a")),), NOT_FOUND),
    Script("DOOR-NS-2", (Prepare("a"), Begins(2, Prepare("a"), 1), Answers(2, _list("/2"))), TAKEN),
    Script("DOOR-ORDER-1", (Prepare("a"), Prepare("a", "absent")), NOT_FOUND),
    Script("DOOR-ORDER-2", (Prepare("a"), Commit("a", "absent")), NOT_FOUND),
    Script("DOOR-ORDER-3", (*_LAYER, Prepare("b", "n"), Commit("m", "b", (), "absent")), NOT_FOUND),
    Script("DOOR-GC-1", (Prepare("a"), Collect(("a",)), Stat("a")), _record("a")),
    Script("DOOR-GC-2", (*_LAYER, Prepare("b", "n"), Collect(("n",)), Stat("n")), NOT_FOUND),
)

SCRIPTS: tuple[tuple[Profile, tuple[Script, ...]], ...] = (
    (Profile(), (*DIRECT, *MEASURED)),
    (Profile(wire=True), WIRE),
    (Profile(door=Door.METADATA), METADATA),
)
