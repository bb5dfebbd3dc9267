"""Histories that chance does not come upon: written down, judged like any other."""

from __future__ import annotations

from collections.abc import Iterator

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


SCENARIOS = (deep_chain,)
