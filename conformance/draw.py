"""What histories are drawn from: names, labels, masks, filters and changes, chosen by the state that the model believes in.

Everything is drawn by `Pick`: one of a sequence, the simplest first, for shrinking goes there. Strategies are not composed here:
to build them anew for each call costs more than the calls do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Protocol, TypeVar

from hypothesis import strategies as st

from snapspec.conformance.files import Permits
from snapspec.model import filters, ops
from snapspec.model.guards import Door
from snapspec.model.nodes import CAPABILITY, EMPTY, FileType, Node, Path, Tree, is_below
from snapspec.model.ops import Operation
from snapspec.model.snapshots import GC_ROOT, LABEL_LIMIT
from snapspec.model.state import Snapshot, State, children
from snapspec.model.tree import (
    Change,
    Link,
    MakeDevice,
    MakeDirectory,
    MakeFifo,
    MakeFile,
    MakeSymlink,
    RemoveDirectory,
    RemoveTree,
    RemoveXattr,
    Rename,
    SetMode,
    SetOwner,
    SetXattr,
    Truncate,
    Unlink,
    WriteAt,
    outcomes_of,
)
from snapspec.model.values import Kind, Labels

T = TypeVar("T")


class Pick(Protocol):
    """Draws one of a sequence that is not empty."""

    def __call__(self, choices: Sequence[T], /) -> T: ...


@cache
def _index(length: int) -> st.SearchStrategy[int]:
    return st.integers(0, length - 1)


def picker(data: st.DataObject) -> Pick:
    """The `Pick` that draws from Hypothesis' `data`."""

    def pick(choices: Sequence[T], /) -> T:
        return choices[data.draw(_index(len(choices)))]

    return pick


PLAIN = ("a", "b", "c", "d", "e", "f")
#: Names that a driver which builds paths, queries or filters from them gets wrong.
ODD = ("n/a", "with space", "a,b==c", 'q"uote', "..", "%2e", "café", "x" * 300)

#: The kinds of content that a run may leave out.
CONTENT = ("devices", "links")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is not drawn: what the content's place does not permit, and what the run leaves out, by name."""

    permits: Permits
    without: frozenset[str] = frozenset()

    @property
    def devices(self) -> bool:
        """Whether device nodes may be made."""
        return self.permits.devices and "devices" not in self.without

    @property
    def links(self) -> bool:
        """Whether hard links may be made."""
        return "links" not in self.without


@dataclass(frozen=True, slots=True)
class Scope:
    """What a call is drawn for: the state believed, the limits of the run, the names freed lately.

    `careful`: the call is to succeed, as far as that can be; otherwise each argument is as often wrong as right.
    """

    pick: Pick
    state: State
    limits: Limits
    freed: tuple[str, ...] = ()
    careful: bool = True


# --- names


def _keys(state: State, *kinds: Kind) -> list[str]:
    return [key for key, s in state.snapshots.items() if s.kind in kinds]


def _free(scope: Scope) -> list[str]:
    """Names that are free; those freed lately first among them, since a new life under an old name is where things leak."""
    names = dict.fromkeys((*PLAIN[:1], *scope.freed, *PLAIN, *ODD))
    return [name for name in names if name not in scope.state.snapshots]


def _name(scope: Scope, right: list[str], wrong: list[str]) -> str:
    """A right name, where there is one; when the scope is not careful as often a wrong one."""
    if not right or not wrong:
        return scope.pick(right or wrong)
    wild = not scope.careful and scope.pick((False, True))
    return scope.pick(wrong if wild else right)


def _new_name(scope: Scope) -> str:
    return _name(scope, _free(scope), ["", *scope.state.snapshots])


def _parent(scope: Scope) -> str:
    committed = _keys(scope.state, Kind.COMMITTED)
    wrong = [*_keys(scope.state, Kind.ACTIVE, Kind.VIEW), *_free(scope)[:2]]
    # The latest layers make the deeper chains.
    return _name(scope, ["", *committed, *committed[-1:] * 3], wrong)


def _known(scope: Scope, *kinds: Kind) -> str:
    right = _keys(scope.state, *kinds)
    others = [key for key in scope.state.snapshots if key not in right]
    return _name(scope, right, [*others, *_free(scope)[:2], *scope.freed[-1:], ""])


# --- labels

_LABEL_KEYS = ("a", "b.c/d", "containerd.io/x", "Ü ")
_LABEL_VALUES = ("1", "2", "", "v w", "é,=")
_LONG: tuple[Labels, ...] = ((("l", "x" * (LABEL_LIMIT - 1)),), (("l", "x" * LABEL_LIMIT),))


def _labels(scope: Scope) -> Labels:
    keys = (*_LABEL_KEYS, GC_ROOT) if scope.state.profile.door is Door.METADATA else _LABEL_KEYS
    if not scope.careful and scope.pick((False, False, True)):
        return scope.pick(_LONG)
    labels = {scope.pick(keys): scope.pick(_LABEL_VALUES) for _ in range(scope.pick((0, 0, 1, 2)))}
    return tuple(sorted(labels.items()))


_MASKS: tuple[tuple[str, ...], ...] = (
    (),
    ("labels.a",),
    ("labels.b.c/d",),
    ("labels.a", "labels.absent"),
    ("labels",),
    ("labels.a", "labels"),
    ("labels", "labels.a"),
)
_BAD_MASKS: tuple[tuple[str, ...], ...] = (
    ("name",),
    ("labels.a", "parent"),
    ("kind", "labels.a"),
    ("",),
    ("Labels",),
    ("label.a",),
    ("created",),
)

# --- filters

_BAD_FILTERS = ("==a", "name==", 'name=="a', "name==a,", "labels.==1", "a b")
_LABEL_PATHS = (*(("labels", *key.split(".")) for key in _LABEL_KEYS), ("labels", "b.c/d"))


def _selector(scope: Scope) -> filters.Selector:
    pick = scope.pick
    compared = pick(("==", "!="))
    match pick(("name", "parent", "kind", "label", "has label", "has", "absent", "found", "label found")):
        case "name":
            return filters.Selector(("name",), compared, pick((*scope.state.snapshots, "absent")))
        case "parent":
            return filters.Selector(("parent",), compared, pick((*scope.state.snapshots, "", "absent")))
        case "kind":
            return filters.Selector(("kind",), compared, pick(("active", "view", "committed", "Active")))
        case "label":
            return filters.Selector(pick(_LABEL_PATHS), compared, pick([v for v in _LABEL_VALUES if v]))
        case "has label":
            return filters.Selector(pick(_LABEL_PATHS))
        case "has":
            return filters.Selector(pick((("parent",), ("name",), ("kind",), ("absent",))))
        case "absent":
            return filters.Selector(("absent",), compared, "1")
        case "found":
            return filters.Selector(("name",), "~=", pick(("[ab]$", "e$", "(", ".")))
        case _:
            return filters.Selector(("labels", "a"), "~=", pick(("^1", "[12]", "*")))


def _filter(scope: Scope) -> str:
    return filters.write(tuple(_selector(scope) for _ in range(scope.pick((1, 0, 2)))))


def walk(scope: Scope) -> Operation:
    """Walk, with filters or without; when not careful one of them is no filter at all."""
    texts = [_filter(scope) for _ in range(scope.pick((0, 1, 2)))]
    return ops.Walk(tuple(texts) if scope.careful else (*texts, scope.pick(_BAD_FILTERS)))


# --- operations


def _nothing_for(scope: Scope, *kinds: Kind) -> bool:
    """Whether a careful call to a snapshot of these kinds has nothing to name yet: then one is made first."""
    return scope.careful and not _keys(scope.state, *kinds)


def prepare(scope: Scope) -> Operation:
    """Prepare, over nothing, a committed snapshot, or something that is no parent."""
    return ops.Prepare(_new_name(scope), _parent(scope), _labels(scope))


def view(scope: Scope) -> Operation:
    """View, over nothing, a committed snapshot, or something that is no parent."""
    return ops.View(_new_name(scope), _parent(scope), _labels(scope))


def commit(scope: Scope) -> Operation:
    """Commit of an active snapshot to a free name, or of anything to anything; now and then with a parent."""
    if _nothing_for(scope, Kind.ACTIVE):
        return prepare(scope)
    asks = scope.pick((False, False, False, True))
    parent = scope.pick(("", *scope.state.snapshots, "absent")) if asks else ""
    return ops.Commit(_new_name(scope), _known(scope, Kind.ACTIVE), _labels(scope), parent)


def remove(scope: Scope) -> Operation:
    """Remove of a snapshot without children, or of one that has some, or of nothing."""
    if _nothing_for(scope, *Kind):
        return prepare(scope)
    childless = [key for key in scope.state.snapshots if not children(scope.state, key)]
    others = [key for key in scope.state.snapshots if key not in childless]
    return ops.Remove(_name(scope, childless, others or [*_free(scope)[:2], ""]))


def mounts(scope: Scope) -> Operation:
    """Mounts of what has mounts, and of what has none."""
    if _nothing_for(scope, Kind.ACTIVE, Kind.VIEW):
        return prepare(scope)
    return ops.Mounts(_known(scope, Kind.ACTIVE, Kind.VIEW))


def stat(scope: Scope) -> Operation:
    """Stat of any key."""
    return prepare(scope) if _nothing_for(scope, *Kind) else ops.Stat(_known(scope, *Kind))


def usage(scope: Scope) -> Operation:
    """Usage of any key."""
    return prepare(scope) if _nothing_for(scope, *Kind) else ops.Usage(_known(scope, *Kind))


def update(scope: Scope) -> Operation:
    """Update of any name with any mask; a parent and a kind come along and must count for nothing."""
    if _nothing_for(scope, *Kind):
        return prepare(scope)
    mask = scope.pick(_MASKS if scope.careful else _MASKS + _BAD_MASKS)
    stray = scope.pick(("", *scope.state.snapshots))
    return ops.Update(_known(scope, *Kind), _labels(scope), mask, stray, scope.pick(tuple(Kind)))


def cleanup(_: Scope) -> Operation:
    """Cleanup."""
    return ops.Cleanup()


def reopen(scope: Scope) -> Operation:
    """Close, once or twice, and open."""
    return ops.Reopen(scope.pick((False, True)))


def collect(scope: Scope) -> Operation:
    """A garbage collection, with up to two snapshots given up."""
    keys = tuple(scope.state.snapshots)
    dropped = {scope.pick(keys): None for _ in range(scope.pick((1, 0, 2)))} if keys else {}
    return ops.Collect(tuple(dropped))


def nowhere(scope: Scope) -> Operation:
    """Any call, without a namespace."""
    call = scope.pick((prepare, stat, commit, remove, mounts, usage, walk))(scope)
    assert isinstance(call, ops.Nameable)
    return ops.Nowhere(call)


def read(scope: Scope) -> Operation:
    """The tree of a snapshot, through a list fresh or held."""
    if _nothing_for(scope, Kind.ACTIVE, Kind.VIEW):
        return prepare(scope)
    return ops.Read(_known(scope, Kind.ACTIVE, Kind.VIEW), scope.pick((False, True)))


def write(scope: Scope) -> Operation:
    """Up to four changes to an active snapshot, or one to a view, which must refuse it."""
    if _nothing_for(scope, Kind.ACTIVE):
        return prepare(scope)
    active = _keys(scope.state, Kind.ACTIVE)
    # A layer over others has something to hide and to copy up.
    upper = [key for key in active if scope.state.snapshots[key].parent]
    key = _name(scope, [*active, *upper, *upper], [*_keys(scope.state, Kind.VIEW, Kind.COMMITTED), "absent"])
    snapshot = scope.state.get(key) or Snapshot(Kind.VIEW)
    changes, tree = _furnished(scope, snapshot)
    for _ in range(scope.pick((1, 2, 3, 4)) if snapshot.kind is Kind.ACTIVE else 1):
        drawn = change(scope.pick, tree, scope.limits)
        changes.append(drawn)
        tree = _after(tree, drawn)
    return ops.Write(key, tuple(changes), scope.pick((False, True)))


#: A tree in which each kind of change has something to work on: without it layers would have little to hide and to share.
FURNITURE: tuple[Change, ...] = (
    MakeDirectory("d"),
    MakeFile("d/f", b"hello"),
    MakeFile("f", b"y" * 5000),
    Link("d/g", "f"),
    MakeSymlink("l", "f"),
    MakeDirectory("e"),
    MakeFile("e/f", b"x"),
)


def prelude(limits: Limits) -> tuple[Operation, ...]:
    """The calls that many histories begin with: a base layer with something in it, and a layer to be written over it."""
    changes = tuple(change for change in FURNITURE if limits.links or not isinstance(change, Link))
    return (ops.Prepare("a"), ops.Write("a", changes), ops.Commit("b", "a"), ops.Prepare("c", "b"))


def _furnished(scope: Scope, snapshot: Snapshot) -> tuple[list[Change], Tree]:
    """Often, in an active snapshot that is empty: the furniture."""
    if snapshot.kind is not Kind.ACTIVE or len(snapshot.tree.nodes) > 1 or not scope.pick((False, True)):
        return [], snapshot.tree
    changes = [change for change in FURNITURE if scope.limits.links or not isinstance(change, Link)]
    return changes, reduce(_after, changes, snapshot.tree)


def _after(tree: Tree, change: Change) -> Tree:
    return outcomes_of(EMPTY, tree, change)[0].tree


# --- changes

_ENTRIES = ("f", "g", "d", "e", ".wh.f", "y" * 255, "\udcff")
_DATA = (b"x", b"hello", b"y" * 5000, b"")
_MODES = (0o644, 0o600, 0o4755, 0o1777)
_OFFSETS = (0, 3, 4096, 1 << 20)


def change(pick: Pick, tree: Tree, limits: Limits) -> Change:
    """A change of any kind that has something to work on."""
    entries = _entries(tree)
    makers: list[Callable[[Pick, Tree, Limits], Change]] = [_make]
    if entries:
        makers += [_move, _drop]
    if entries and limits.links:
        makers.append(_link)
    if _files(tree):
        makers.append(_fill)
    makers.append(_mark)
    return pick(makers)(pick, tree, limits)


# Paths are sorted: equal trees may hold them in different orders, and what is drawn must not depend on that.


def _entries(tree: Tree) -> list[Path]:
    return sorted(path for path in tree.nodes if path)


def _files(tree: Tree) -> list[Path]:
    """Regular files whose data and owner may be changed: that would take a file capability away."""
    return [path for path in _entries(tree) if _plain_file(tree.nodes[path])]


def _plain_file(node: Node) -> bool:
    return node.type is FileType.FILE and all(name != CAPABILITY for name, _ in node.xattrs)


def _takes_trusted_alone(node: Node) -> bool:
    """Whether of extended attributes it takes only those that root gives."""
    return node.type not in (FileType.FILE, FileType.DIRECTORY)


def _directories(tree: Tree) -> list[Path]:
    return ["", *(path for path in _entries(tree) if tree.nodes[path].type is FileType.DIRECTORY)]


def _path(pick: Pick, tree: Tree) -> Path:
    top, name = pick(_directories(tree)), pick(_ENTRIES)
    return f"{top}/{name}" if top else name


def _make(pick: Pick, tree: Tree, limits: Limits) -> Change:
    path = _path(pick, tree)
    match pick(("file", "directory", "symlink", "fifo", *(("device",) if limits.devices else ()))):
        case "file":
            return MakeFile(path, pick(_DATA), pick(_MODES))
        case "directory":
            return MakeDirectory(path, pick((0o755, 0o700, 0o1777)))
        case "symlink":
            return MakeSymlink(path, pick(("f", "/absent", "t" * 100)))
        case "fifo":
            return MakeFifo(path, pick(_MODES))
        case _:
            return MakeDevice(path, pick((FileType.CHAR, FileType.BLOCK_DEVICE)), 1, 3, pick(_MODES))


def _fill(pick: Pick, tree: Tree, _: Limits) -> Change:
    path = pick(_files(tree))
    if pick((False, True)):
        return Truncate(path, pick((0, 1, 5000, 1 << 21)))
    return WriteAt(path, pick(_OFFSETS), pick(_DATA[:3]))


def _move(pick: Pick, tree: Tree, _: Limits) -> Change:
    entries = _entries(tree)
    source = pick(entries)
    return Rename(source, pick(entries) if pick((False, True)) else _path(pick, tree))


def _link(pick: Pick, tree: Tree, _: Limits) -> Change:
    return Link(_path(pick, tree), pick(_entries(tree)))


def _drop(pick: Pick, tree: Tree, _: Limits) -> Change:
    path = pick(_entries(tree))
    if tree.nodes[path].type is not FileType.DIRECTORY:
        return Unlink(path)
    bare = not any(is_below(other, path) for other in tree.nodes)
    return RemoveDirectory(path) if bare and pick((False, True)) else RemoveTree(path)


def _mark(pick: Pick, tree: Tree, limits: Limits) -> Change:
    """Metadata, of all but files with capabilities, the root among them."""
    others = [entry for entry in _entries(tree) if _takes_trusted_alone(tree.nodes[entry])]
    path = pick([*_directories(tree), *_files(tree), *others])
    permits, other = limits.permits, _takes_trusted_alone(tree.nodes[path])
    names = [*(["user.a"] if permits.user_xattrs and not other else []), *(["trusted.a"] if permits.trusted_xattrs else [])]
    mode = () if tree.nodes[path].type is FileType.SYMLINK else ("mode",)
    kinds = (*mode, *(("owner",) if permits.other_owners else ()), *(("set", "remove") if names else ()))
    if not kinds:
        return SetMode("", pick(_MODES))
    match pick(kinds):
        case "mode":
            return SetMode(path, pick(_MODES))
        case "owner":
            return SetOwner(path, pick((1, 0, 65534)), pick((1, 0)))
        case "set":
            return SetXattr(path, pick(names), pick((b"1", b"v" * 100)))
        case _:
            return RemoveXattr(path, pick(names))
