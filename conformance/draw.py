"""What histories are drawn from: names, labels, masks, filters and changes, chosen by the state that the model believes in.

The simplest choice stands first everywhere: shrinking goes there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from snapspec.conformance.files import Permits
from snapspec.model import filters, ops
from snapspec.model.guards import Door
from snapspec.model.nodes import CAPABILITY, EMPTY, FileType, Path, Tree, is_below
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

PLAIN = ("a", "b", "c", "d", "e", "f")
#: Names that a driver which builds paths, queries or filters from them gets wrong.
ODD = ("n/a", "with space", "a,b==c", 'q"uote', "..", "%2e", "café", "x" * 300)
NAMES = PLAIN + ODD


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

    state: State
    limits: Limits
    freed: tuple[str, ...] = ()
    careful: bool = True


# --- names


def _keys(state: State, *kinds: Kind) -> list[str]:
    return [key for key, s in state.snapshots.items() if s.kind in kinds]


def _free(scope: Scope) -> list[str]:
    """Names that are free; those freed lately first among them, since a new life under an old name is where things leak."""
    names = dict.fromkeys((*PLAIN, *scope.freed, *scope.freed, *ODD))
    return [name for name in names if name not in scope.state.snapshots]


def _name(scope: Scope, right: list[str], wrong: list[str]) -> st.SearchStrategy[str]:
    """A right name, where there is one; when the scope is not careful as often a wrong one."""
    if not right or not wrong:
        return st.sampled_from(right or wrong)
    if scope.careful:
        return st.sampled_from(right)
    return st.booleans().flatmap(lambda wild: st.sampled_from(wrong if wild else right))


def _new_name(scope: Scope) -> st.SearchStrategy[str]:
    return _name(scope, _free(scope), ["", *scope.state.snapshots])


def _parent(scope: Scope) -> st.SearchStrategy[str]:
    committed = _keys(scope.state, Kind.COMMITTED)
    wrong = [*_keys(scope.state, Kind.ACTIVE, Kind.VIEW), *_free(scope)[:2]]
    # The latest layers make the deeper chains.
    return _name(scope, ["", *committed, *committed[-1:] * 3], wrong)


def _first(scope: Scope, ready: bool, wanted: st.SearchStrategy[Operation]) -> st.SearchStrategy[Operation]:
    """`wanted`; a prepare instead, as long as there is nothing that `wanted` could be right for and the scope is careful."""
    return prepares(scope) if scope.careful and not ready else wanted


def _known(scope: Scope, *kinds: Kind) -> st.SearchStrategy[str]:
    right = _keys(scope.state, *kinds)
    others = [key for key in scope.state.snapshots if key not in right]
    return _name(scope, right, [*others, *_free(scope)[:2], *scope.freed[-1:], ""])


# --- labels

_LABEL_KEYS = ("a", "b.c/d", "containerd.io/x", "Ü ")
_LABEL_VALUES = ("1", "2", "", "v w", "é,=")


def _labels(scope: Scope) -> st.SearchStrategy[Labels]:
    keys = (*_LABEL_KEYS, GC_ROOT) if scope.state.profile.door is Door.METADATA else _LABEL_KEYS
    some = st.dictionaries(st.sampled_from(keys), st.sampled_from(_LABEL_VALUES), max_size=2)
    longest = st.sampled_from([{"l": "x" * (LABEL_LIMIT - 1)}, {"l": "x" * LABEL_LIMIT}])
    drawn = some if scope.careful else st.one_of(some, some, longest)
    return drawn.map(lambda labels: tuple(sorted(labels.items())))


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


def _selectors(state: State) -> st.SearchStrategy[filters.Selector]:
    names = st.sampled_from([*state.snapshots, "", "absent"])
    kinds = st.sampled_from(["active", "view", "committed", "Active"])
    values = st.sampled_from([v for v in _LABEL_VALUES if v])
    compared = st.sampled_from(["==", "!="])
    label = st.sampled_from([("labels", *key.split(".")) for key in _LABEL_KEYS] + [("labels", "b.c/d")])
    return st.one_of(
        st.builds(filters.Selector, st.just(("name",)), compared, names.filter(bool)),
        st.builds(filters.Selector, st.just(("parent",)), compared, names),
        st.builds(filters.Selector, st.just(("kind",)), compared, kinds),
        st.builds(filters.Selector, label, compared, values),
        st.builds(filters.Selector, label),
        st.builds(filters.Selector, st.sampled_from([("parent",), ("name",), ("kind",), ("absent",)])),
        st.builds(filters.Selector, st.just(("absent",)), compared, values),
        st.builds(filters.Selector, st.just(("name",)), st.just("~="), st.sampled_from(["[ab]$", "e$", "(", "."])),
        st.builds(filters.Selector, st.just(("labels", "a")), st.just("~="), st.sampled_from(["^1", "[12]", "*"])),
    )


def walks(scope: Scope) -> st.SearchStrategy[Operation]:
    """Walk, with filters or without, a few of them no filters at all."""
    text = st.lists(_selectors(scope.state), min_size=0, max_size=2).map(lambda s: filters.write(tuple(s)))
    good = st.lists(text, max_size=2)
    bad = st.builds(lambda texts, wrong: [*texts, wrong], st.lists(text, max_size=1), st.sampled_from(_BAD_FILTERS))
    return (good if scope.careful else bad).map(lambda texts: ops.Walk(tuple(texts)))


# --- operations


def _any(scope: Scope) -> bool:
    return len(scope.state.snapshots) > 0


def prepares(scope: Scope) -> st.SearchStrategy[Operation]:
    """Prepare, over nothing, a committed snapshot, or something that is no parent."""
    return st.builds(ops.Prepare, _new_name(scope), _parent(scope), _labels(scope))


def views(scope: Scope) -> st.SearchStrategy[Operation]:
    """View, over nothing, a committed snapshot, or something that is no parent."""
    return st.builds(ops.View, _new_name(scope), _parent(scope), _labels(scope))


def commits(scope: Scope) -> st.SearchStrategy[Operation]:
    """Commit of an active snapshot to a free name, or of anything to anything; now and then with a parent."""
    key = _known(scope, Kind.ACTIVE)
    parent = st.just("") if scope.careful else st.sampled_from(["", "", *scope.state.snapshots, "absent"])
    return _first(
        scope, bool(_keys(scope.state, Kind.ACTIVE)), st.builds(ops.Commit, _new_name(scope), key, _labels(scope), parent)
    )


def removes(scope: Scope) -> st.SearchStrategy[Operation]:
    """Remove of a snapshot without children, or of one that has some, or of nothing."""
    childless = [key for key in scope.state.snapshots if not children(scope.state, key)]
    others = [key for key in scope.state.snapshots if key not in childless]
    return _first(scope, bool(childless), st.builds(ops.Remove, _name(scope, childless, [*others, *_free(scope)[:2], ""])))


def mounts(scope: Scope) -> st.SearchStrategy[Operation]:
    """Mounts of what has mounts, and of what has none."""
    return _first(scope, _any(scope), st.builds(ops.Mounts, _known(scope, Kind.ACTIVE, Kind.VIEW)))


def stats(scope: Scope) -> st.SearchStrategy[Operation]:
    """Stat of any key."""
    return _first(scope, _any(scope), st.builds(ops.Stat, _known(scope, *Kind)))


def usages(scope: Scope) -> st.SearchStrategy[Operation]:
    """Usage of any key."""
    return _first(scope, _any(scope), st.builds(ops.Usage, _known(scope, *Kind)))


def updates(scope: Scope) -> st.SearchStrategy[Operation]:
    """Update of any name with any mask; a parent and a kind come along and must count for nothing."""
    strays = st.sampled_from(["", *scope.state.snapshots])
    mask = st.sampled_from(_MASKS if scope.careful else _MASKS + _BAD_MASKS)
    update = st.builds(ops.Update, _known(scope, *Kind), _labels(scope), mask, strays, st.sampled_from(list(Kind)))
    return _first(scope, _any(scope), update)


def cleanups(_: Scope) -> st.SearchStrategy[Operation]:
    """Cleanup."""
    return st.just(ops.Cleanup())


def reopens(_: Scope) -> st.SearchStrategy[Operation]:
    """Close, once or twice, and open."""
    return st.builds(ops.Reopen, st.booleans())


def collects(scope: Scope) -> st.SearchStrategy[Operation]:
    """A garbage collection, with up to two snapshots given up."""
    return st.lists(st.sampled_from([*scope.state.snapshots, "absent"]), max_size=2, unique=True).map(
        lambda keys: ops.Collect(tuple(k for k in keys if k in scope.state.snapshots))
    )


def nowheres(scope: Scope) -> st.SearchStrategy[Operation]:
    """Any call, without a namespace."""
    calls = st.one_of(prepares(scope), commits(scope), removes(scope), mounts(scope), stats(scope), usages(scope), walks(scope))
    return calls.map(lambda call: ops.Nowhere(call))


def reads(scope: Scope) -> st.SearchStrategy[Operation]:
    """The tree of a snapshot, through a list fresh or held."""
    return _first(scope, _any(scope), st.builds(ops.Read, _known(scope, Kind.ACTIVE, Kind.VIEW), st.booleans()))


def writes(scope: Scope) -> st.SearchStrategy[Operation]:
    """Changes through a mount list."""
    return _first(scope, bool(_keys(scope.state, Kind.ACTIVE)), _writes(scope))


@st.composite
def _writes(draw: st.DrawFn, scope: Scope) -> Operation:
    """Up to four changes to an active snapshot, or one to a view, which must refuse it."""
    key = draw(_name(scope, _keys(scope.state, Kind.ACTIVE), [*_keys(scope.state, Kind.VIEW, Kind.COMMITTED), "absent"]))
    snapshot = scope.state.get(key) or Snapshot(Kind.ACTIVE)
    most = 4 if snapshot.kind is Kind.ACTIVE else 1
    changes: list[Change] = []
    tree = snapshot.tree
    for _ in range(draw(st.integers(1, most))):
        change = draw(st.sampled_from(_changes(tree, scope.limits)).flatmap(lambda make: make))
        changes.append(change)
        tree = outcomes_of(EMPTY, tree, change)[0].tree
    return ops.Write(key, tuple(changes), draw(st.booleans()))


# --- changes

_ENTRIES = ("f", "g", "d", ".wh.f", "y" * 255, "\udcff")
_DATA = (b"x", b"hello", b"y" * 5000, b"")
_MODES = (0o644, 0o600, 0o4755, 0o1777)
_OFFSETS = (0, 3, 4096, 1 << 20)


def _changes(tree: Tree, limits: Limits) -> list[st.SearchStrategy[Change]]:
    """One strategy for each kind of change that has something to work on."""
    nodes = tree.nodes
    of_type: Callable[[FileType], list[Path]] = lambda t: [p for p, n in nodes.items() if p and n.type is t]  # noqa: E731
    directories = ["", *of_type(FileType.DIRECTORY)]
    files = [p for p in of_type(FileType.FILE) if all(name != CAPABILITY for name, _ in nodes[p].xattrs)]
    entries = [p for p in nodes if p]
    found = [*_making(directories, limits)]
    if files:
        found += _filling(files)
    if entries:
        found += _moving(tree, entries, directories, limits)
    found += _marking(tree, [*files, *directories], limits.permits)
    return found


def _paths(directories: list[Path]) -> st.SearchStrategy[Path]:
    names = st.sampled_from(_ENTRIES)
    return st.builds(lambda top, name: f"{top}/{name}" if top else name, st.sampled_from(directories), names)


def _making(directories: list[Path], limits: Limits) -> list[st.SearchStrategy[Change]]:
    path, mode = _paths(directories), st.sampled_from(_MODES)
    making: list[st.SearchStrategy[Change]] = [
        st.builds(MakeFile, path, st.sampled_from(_DATA), mode),
        st.builds(MakeDirectory, path, st.sampled_from((0o755, 0o700, 0o1777))),
        st.builds(MakeSymlink, path, st.sampled_from(("f", "/absent", "t" * 100))),
        st.builds(MakeFifo, path, mode),
    ]
    if limits.devices:
        making.append(
            st.builds(MakeDevice, path, st.sampled_from((FileType.CHAR, FileType.BLOCK_DEVICE)), st.just(1), st.just(3), mode)
        )
    return making


def _filling(files: list[Path]) -> list[st.SearchStrategy[Change]]:
    path = st.sampled_from(files)
    return [
        st.builds(WriteAt, path, st.sampled_from(_OFFSETS), st.sampled_from([d for d in _DATA if d])),
        st.builds(Truncate, path, st.sampled_from((0, 1, 5000, 1 << 21))),
    ]


def _moving(tree: Tree, entries: list[Path], directories: list[Path], limits: Limits) -> list[st.SearchStrategy[Change]]:
    entry, path = st.sampled_from(entries), _paths(directories)
    others = [p for p in entries if tree.nodes[p].type is not FileType.DIRECTORY]
    tops = [p for p in entries if tree.nodes[p].type is FileType.DIRECTORY]
    moving: list[st.SearchStrategy[Change]] = [st.builds(Rename, entry, st.one_of(path, entry))]
    if others:
        moving.append(st.builds(Unlink, st.sampled_from(others)))
    if others and limits.links:
        moving.append(st.builds(Link, path, st.sampled_from(others)))
    if tops:
        bare = [p for p in tops if not any(is_below(other, p) for other in entries)]
        moving += [st.builds(RemoveTree, st.sampled_from(tops)), st.builds(RemoveDirectory, st.sampled_from(bare or tops))]
    return moving


def _marking(tree: Tree, paths: list[Path], permits: Permits) -> list[st.SearchStrategy[Change]]:
    """Metadata, of files and directories, the root among them."""
    path = st.sampled_from(paths)
    marking: list[st.SearchStrategy[Change]] = [st.builds(SetMode, path, st.sampled_from(_MODES))]
    if permits.other_owners:
        marking.append(st.builds(SetOwner, path, st.sampled_from((1, 0, 65534)), st.sampled_from((1, 0))))
    names = [*(["user.a"] if permits.user_xattrs else []), *(["trusted.a"] if permits.trusted_xattrs else [])]
    if names:
        marking.append(st.builds(SetXattr, path, st.sampled_from(names), st.sampled_from((b"1", b"v" * 100))))
    marked = [(p, name) for p in paths for name, _ in tree.nodes[p].xattrs if name in names]
    if marked:
        marking.append(st.sampled_from(marked).map(lambda pair: RemoveXattr(*pair)))
    return marking
