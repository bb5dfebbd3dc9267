"""Histories that chance does not come upon: written down, judged like any other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from snapspec.conformance.session import DEEP
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.tree import Change, MakeDirectory, MakeFile, RemoveTree, SetMode, Unlink
from snapspec.model.values import Labels


def smoke() -> Iterator[Operation]:
    """Five kinds of calls, each once or twice, in the order of a first build."""
    yield ops.Prepare("a")
    yield ops.Write("a", (MakeFile("f", b"hello"), MakeDirectory("d")))
    yield ops.Commit("b", "a")
    yield ops.View("c", "b")
    yield ops.Read("c")
    yield ops.Remove("c")
    yield ops.Remove("b")


_LAYERS = ("one", "two", "three")
_LABELS: Labels = (("a", "1"), ("b", "2"))


def lives() -> Iterator[Operation]:
    """Each call where it succeeds, on each kind of snapshot over none to three parents; then a look at all, opened again."""
    for parent, layer in zip(("", *_LAYERS), (*_LAYERS, ""), strict=True):
        made = (f"active over {parent}", f"view over {parent}")
        yield ops.Prepare(made[0], parent, _LABELS)
        yield ops.View(made[1], parent, _LABELS)
        for key in made:
            yield ops.Write(key, (MakeFile(f"of {layer}", b"x" * 5000), MakeFile("common", b"by %s" % layer.encode())))
            yield from _seen(key)
        if layer:
            yield ops.Prepare("making", parent, _LABELS)
            gone = [Unlink("common")] if parent else []
            yield ops.Write("making", (*gone, MakeFile("common", layer.encode()), MakeFile(layer), SetMode("", 0o711)))
            yield ops.Commit(layer, "making", (("c", "3"),))
            yield from (ops.Stat(layer), ops.Usage(layer))
    keys = [*_LAYERS, *(f"{kind} over {parent}" for kind in ("active", "view") for parent in ("", *_LAYERS))]
    yield from _relabelled()
    yield from map(ops.Walk, _filters())
    yield from (ops.Cleanup(), ops.Reopen(), ops.Reopen(close_twice=True), ops.Walk())
    for key in keys:
        yield from ((ops.Stat(key), ops.Usage(key)) if key in _LAYERS else _seen(key))


def _seen(key: str) -> Iterator[Operation]:
    """All that there is to see of an active snapshot or a view."""
    yield from (ops.Stat(key), ops.Mounts(key), ops.Usage(key), ops.Read(key), ops.Read(key, held=True))


def _relabelled() -> Iterator[Operation]:
    """A snapshot of each kind gets labels, all of them, one, one that it has not, one that goes."""
    for key in ("one", "active over one", "view over one"):
        yield ops.Update(key, (("a", "2"), ("d", "4")))
        yield ops.Update(key, (("a", "3"),), ("labels.a",))
        yield ops.Update(key, (("e", "5"),), ("labels.e",))
        yield ops.Update(key, (), ("labels.d", "labels.absent"))
        yield ops.Update(key, _LABELS, ("labels",), "two")
        yield ops.Stat(key)


def _filters() -> Iterator[tuple[str, ...]]:
    """Each field with each operator, and two filters at once."""
    values = {
        "name": ("one", "absent"),
        "parent": ("one", '""'),
        "kind": ("active", "view", "committed"),
        "labels.a": ("1", "2"),
    }
    for field, some in values.items():
        yield (field,)
        yield from ((f"{field}{operator}{value}",) for value in some for operator in ("==", "!=", "~="))
    yield ("kind==view,parent==one", "name==two")


def rebased() -> Iterator[Operation]:
    """Commits with a parent, of keys with and without one: whether that is allowed is declared."""
    yield from _one_of_each()
    for given, parent in product(("leaf", "active", "view", "absent"), ("", "base")):
        yield ops.Prepare("rebased", parent)
        yield ops.Commit(f"on {given} from {parent}", "rebased", (), given)
        yield ops.Commit(f"on {given} from {parent}", "rebased")  # when that was refused
        yield ops.Stat(f"on {given} from {parent}")


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
        yield ops.Write("making", (MakeFile(name),))
        yield ops.Commit(name, "making", (("a", "1"),))
    yield ops.View("view", "viewed", (("a", "1"),))
    yield ops.Prepare("active", "written", (("a", "1"),))


#: What takes a moment, before anything is drawn, and what takes long, after much of it.
QUICK = (lives, refusals, rebased)
SLOW = (deep_chain,)
