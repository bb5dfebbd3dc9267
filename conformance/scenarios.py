"""Histories that chance does not come upon: written down, judged like any other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from snapspec.conformance.session import DEEP
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.tree import Change, MakeDirectory, MakeFile, RemoveTree, Unlink


def smoke() -> Iterator[Operation]:
    """Five kinds of calls, each once or twice, in the order of a first build."""
    yield ops.Prepare("a")
    yield ops.Write("a", (MakeFile("f", b"hello"), MakeDirectory("d")))
    yield ops.Commit("b", "a")
    yield ops.View("c", "b")
    yield ops.Read("c")
    yield ops.Remove("c")
    yield ops.Remove("b")


def deep_chain() -> Iterator[Operation]:
    """SNAP-PARENT-2: more layers than a page of mount options holds, each seen in the content of the last.

    Each layer adds a file, rewrites one that all share, and removes what the layer before has made for that.
    """
    parent = ""
    for number in range(DEEP + 2):
        changes: list[Change] = [
            MakeFile(f"f{number}", b"%d" % number),
            MakeDirectory(f"d{number}"),
            MakeFile(f"d{number}/x", b"x"),
        ]
        undone: list[Change] = [Unlink("shared"), RemoveTree(f"d{number - 1}")] if number else []
        yield ops.Prepare("top", parent)
        yield ops.Write("top", (*undone, *changes, MakeFile("shared", b"by layer %d" % number)))
        yield ops.Commit(f"layer{number}", "top")
        parent = f"layer{number}"
    yield ops.Prepare("top", parent)
    yield ops.Read("top")
    yield ops.View("seen", parent)
    yield ops.Read("seen")
    yield ops.Mounts("seen")
    yield ops.Remove("layer0")  # it has a child


def refusals() -> Iterator[Operation]:
    """Every call that is to be refused whatever the driver declares, with each wrong argument alone and with two at once."""
    yield from _one_of_each()
    for key, parent in product(("free", "active", "view", "leaf", ""), ("", "leaf", "active", "view", "absent")):
        if key != "free" or parent not in ("", "leaf"):
            yield ops.Prepare(key, parent)
            yield ops.View(key, parent)
    for name, key in product(("free", "active", "view", "leaf", ""), ("active", "view", "leaf", "absent", "")):
        if (name, key) != ("free", "active"):
            yield ops.Commit(name, key)
    for key in ("absent", ""):
        yield from (ops.Remove(key), ops.Mounts(key), ops.Stat(key), ops.Usage(key))
        yield from (ops.Update(key), ops.Update(key, mask=("labels.a",)), ops.Update(key, mask=("kind",)))
    yield from (ops.Remove("viewed"), ops.Remove("written"), ops.Remove("base"), ops.Mounts("leaf"))
    for key in ("active", "view", "leaf"):
        yield ops.Update(key, (("a", "2"),), ("labels.a", "parent"))
    yield ops.Walk(("name==active", "kind=="))


def _one_of_each() -> Iterator[Operation]:
    """An active snapshot, a view, and a committed one without children; `viewed`, `written` and `base` have one child each."""
    for name, parent in (("viewed", ""), ("written", ""), ("base", ""), ("leaf", "base")):
        yield ops.Prepare("making", parent)
        yield ops.Commit(name, "making", (("a", "1"),))
    yield ops.View("view", "viewed", (("a", "1"),))
    yield ops.Prepare("active", "written", (("a", "1"),))


SCENARIOS = (deep_chain, refusals)
