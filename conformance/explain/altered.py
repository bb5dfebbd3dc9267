"""Wrong answers, made of right ones: what tells most of a departure comes first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from snapspec.model import ops, ref_ops
from snapspec.model.nodes import Tree
from snapspec.model.ref_outcomes import RefError, Row
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefFailed, RefReturned
from snapspec.model.replies import Failed, Reading, Returned
from snapspec.model.tree import EMPTY, MakeFile, SetMode, outcomes_of
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

#: Classes that a driver confuses, the commonest first.
_ERRORS = (
    *(ErrorClass.NOT_FOUND, ErrorClass.ALREADY_EXISTS, ErrorClass.FAILED_PRECONDITION, ErrorClass.INVALID_ARGUMENT),
    *(ErrorClass.UNIMPLEMENTED, ErrorClass.UNKNOWN),
)

_REF_ERRORS = (RefError.NOT_FOUND, RefError.INVALID, RefError.LOCKED, RefError.CLOSED, RefError.DRIVER)

_MOUNT = (Mount("bind", "/other", ("rbind", "rw")),)


def wrong_answers(op: Any, right: Any) -> Iterator[Any]:
    """Answers to a driver's call that are not the right one."""
    if isinstance(right, Failed):
        yield Returned(_success(op))
    else:
        yield from (Returned(value) for value in _values(right.value))
    yield from (Failed(error) for error in _ERRORS if Failed(error) != right)


def _success(op: Any) -> Any:
    """What a call would give, had it been allowed."""
    match op:
        case ops.Nowhere(call):
            return _success(call)
        case ops.Prepare() | ops.View() | ops.Mounts():
            return _MOUNT
        case ops.Stat(name) | ops.Update(name):
            return Info(name, "", Kind.ACTIVE, (), 1, 1)
        case ops.Usage():
            return Reading(Usage(0, 0))
        case ops.Read():
            return EMPTY
        case ops.Write(changes=changes):
            return ("ok",) * len(changes)
        case ops.Walk():
            return ()
    return None


def _values(value: Any) -> Iterator[Any]:
    match value:
        case Info():
            yield from _infos(value)
        case Reading(usage):
            yield from (Reading(other) for other in _usages(usage))
            yield Reading(usage, Usage(usage.size + 4096, usage.inodes))
        case Tree():
            yield from _trees(value)
        case tuple() if value and all(isinstance(each, Mount) for each in value):
            yield from _lists(value)
        case tuple() if all(isinstance(each, Info) for each in value):
            yield value[1:]
            yield (*value, *value[:1])
            yield from ((other, *value[1:]) for info in value[:1] for other in _infos(info))
        case tuple():
            for at, word in enumerate(value):
                others = ("ok", "EROFS", "EEXIST", "ENOENT")
                yield from ((*value[:at], other, *value[at + 1 :]) for other in others if other != word)


def _infos(info: Info) -> Iterator[Info]:
    yield replace(info, labels=info.labels[1:])
    yield replace(info, labels=(*info.labels, ("of", "another")))
    yield from (replace(info, kind=kind) for kind in Kind if kind is not info.kind)
    yield replace(info, parent="" if info.parent else "other")
    yield replace(info, name=f"{info.name}2")
    yield replace(info, updated=info.created) if info.updated != info.created else replace(info, updated=info.created + 1)
    yield from (replace(info, updated=info.created - moved) for moved in (1, 400))
    yield from (replace(info, created=info.created + moved, updated=info.updated + moved) for moved in (1, 2000, -2000))
    yield from (replace(info, updated=info.updated + moved) for moved in (1, 2000, -2000))


def _usages(usage: Usage) -> Iterator[Usage]:
    yield from (Usage(size, usage.inodes) for size in (-1, 0, usage.size + 4096, 1 << 30) if size != usage.size)
    yield Usage(usage.size, usage.inodes + 1000)


def _trees(tree: Tree) -> Iterator[Tree]:
    paths = sorted(path for path in tree.nodes if path)
    yield from (Tree(tree.nodes.without(path)) for path in paths[-1:])
    yield outcomes_of(EMPTY, tree, MakeFile("stray", b"x"))[0].tree
    yield outcomes_of(EMPTY, tree, SetMode("", 0o700))[0].tree


def _lists(mounts: tuple[Mount, ...]) -> Iterator[tuple[Mount, ...]]:
    first = mounts[0]
    lower = next((option for option in first.options if option.startswith("lowerdir=")), "")
    if lower:
        twice = f"{lower}:{lower.rpartition(':')[2].removeprefix('lowerdir=')}"
        yield (replace(first, options=tuple(twice if option == lower else option for option in first.options)),)
    yield ()


# --- managers


def wrong_ref_answers(op: Any, right: Any) -> Iterator[Any]:
    """Answers to a manager's call that are not the right one."""
    if isinstance(right, RefFailed):
        yield from map(RefReturned, _ref_success(op))
    else:
        yield from map(RefReturned, _ref_values(right.value))
    yield from (RefFailed(error) for error in _REF_ERRORS if RefFailed(error) != right)


def _ref_success(op: Any) -> Iterator[Any]:
    match op:
        case ref_ops.New(record):
            yield GotHandle(record)
        case ref_ops.Get(record, _, fresh):
            yield from (GotHandle(fresh), GotHandle(record))
        case ref_ops.GetMutable(record):
            yield GotHandle(record)
        case ref_ops.Commit(fresh=fresh):
            yield GotHandle(fresh)
        case ref_ops.Size():
            yield GotSize(0)
        case ref_ops.Mount():
            yield _MOUNT
        case ref_ops.Write(changes=changes):
            yield GotWords(("ok",) * len(changes))
        case ref_ops.Read():
            yield EMPTY
        case ref_ops.DiskUsage():
            yield GotRows(())
        case ref_ops.Prune():
            yield GotPruned(())
        case _:
            yield None


def _ref_values(value: Any) -> Iterator[Any]:
    match value:
        case None:
            yield GotHandle("other")
        case GotHandle():
            yield from (GotHandle("other"), None)
        case GotSize(size, measured):
            yield from (GotSize(other, measured) for other in (size + 1, size + 4096, 0, 1 << 30) if other != size)
        case GotWords(words):
            yield from (GotWords((other, *words[1:])) for other in ("ok", "EROFS", "EEXIST") if other != words[0])
        case GotRows(rows):
            yield GotRows(rows[1:])
            yield GotRows((*rows, Row("other", "", False, False, 0)))
            for at, row in enumerate(rows):
                for other in (replace(row, in_use=not row.in_use), replace(row, size=-1), replace(row, size=(row.size or 0) + 1)):
                    yield GotRows((*rows[:at], other, *rows[at + 1 :]))
        case GotPruned(removed):
            yield GotPruned(removed[1:])
            yield GotPruned((*removed, (frozenset({"other"}), 0)))
        case Tree():
            yield from _trees(value)
        case tuple():
            yield (Mount("overlay", "overlay", ("upperdir=/u", "workdir=/w", "lowerdir=/l")),)
            yield ()
