"""Strategies that the tests share: file trees, changes chosen by what a tree holds, histories of a manager."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import get_args

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from snapspec.model import ref_ops, refs
from snapspec.model.nodes import CAPABILITY, MAX_SIZE
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_state import Declared, RefState
from snapspec.model.tree import (
    BLOCK,
    EMPTY,
    Change,
    FileType,
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
    Tree,
    Truncate,
    Unlink,
    WriteAt,
    outcomes_of,
)

NAMES = ("a", "b", "c", "d", ".wh.a", "å\n", "\udcff", "n" * 255)
WRONG_NAMES = ("n" * 256, "å" * 128, "", ".", "..", "\0", "\ud800", "\udcc3\udca5")

modes = st.sampled_from((0o644, 0o755, 0o600, 0, 0o777, 0o4755, 0o2755, 0o1777, 0o7777))
contents = st.one_of(
    st.sampled_from((b"", b"\0", b"x", b"\0x\0", b"y" * BLOCK, b"z" * (2 * BLOCK + 1), b"\0" * BLOCK + b"w")),
    st.binary(max_size=8),
)
offsets = st.sampled_from((0, 1, BLOCK - 1, BLOCK, 3 * BLOCK, 1 << 33, -1, 1 << 42))
targets = st.sampled_from(("a", "../a", "/", "b/c", "\udcff", "t" * 1000, "", "t" * 4096))
owners = st.sampled_from((0, 1, 1000, 0xFFFFFFFE, -1))
devices = st.sampled_from((FileType.CHAR, FileType.BLOCK_DEVICE))
numbers = st.sampled_from(((1, 3), (7, 0), (259, 300), (0, 0), (1 << 12, 0)))
xattrs = st.one_of(
    st.tuples(st.sampled_from(("user.a", "user.b", "trusted.a")), st.sampled_from((b"", b"1", b"v" * 100))),
    st.tuples(st.sampled_from((CAPABILITY, "user.", "system.a", "trusted.overlay.a")), st.just(b"\1\0\0\2".ljust(20, b"\0"))),
)


#: Longer than a name can be.
LONG = "n" * 256

#: What a file that may bind low ports holds.
CAPABILITIES = b"\1\0\0\2".ljust(20, b"\0")

#: Makes a tree with something of everything, from EMPTY.
FURNISH: tuple[Change, ...] = (
    MakeDirectory("a", 0o2755),
    SetOwner("a", 0, 1),
    MakeDirectory("a/b"),
    MakeFile("a/b/c", b"y" * BLOCK + b"x"),
    Link("d", "a/b/c"),
    Link("a/d", "a/b/c"),
    MakeFile("b", b"", 0o4755),
    WriteAt("b", 3 * BLOCK, b"x"),
    SetXattr("b", "user.a", b"1"),
    SetXattr("b", CAPABILITY, CAPABILITIES),
    MakeSymlink("a/a", "../b"),
    Link("a/c", "a/a"),
    MakeDirectory("c"),
    SetXattr("c", "trusted.a", b""),
    MakeDevice("c/a", FileType.CHAR, 1, 3),
    MakeFifo("c/\udcff"),
)


def after(tree: Tree, changes: Iterable[Change]) -> Tree:
    """`tree` after `changes`, as a plain file system makes them."""
    return reduce(lambda before, change: outcomes_of(EMPTY, before, change)[0].tree, changes, tree)


FURNISHED = after(EMPTY, FURNISH)


#: What FURNISHED refuses, and why. Directories are a, a/b, c; files a/b/c = a/d = d and b; a symlink a/a = a/c; a device c/a.
REFUSALS: list[tuple[Change, str]] = [
    (MakeFile("b"), "EEXIST"),
    (MakeFile(""), "EEXIST"),
    (MakeFile("b/x"), "ENOTDIR"),
    (MakeFile("a/a/x"), "ENOTDIR"),
    (MakeFile("none/x"), "ENOENT"),
    (MakeFile(LONG), "ENAMETOOLONG"),
    (MakeFile(f"{LONG}/x"), "ENAMETOOLONG"),
    (MakeFile("å" * 128), "ENAMETOOLONG"),
    (MakeFile("/x"), "EINVAL"),
    (MakeFile("a/../x"), "EINVAL"),
    (MakeFile("x\0"), "EINVAL"),
    (MakeFile("å\0"), "EINVAL"),
    (MakeFile("\ud800"), "EINVAL"),
    (MakeFile("\ude00"), "EINVAL"),
    (MakeFile("\udcc3\udca5"), "EINVAL"),  # bytes that spell å
    (MakeDirectory("a"), "EEXIST"),
    (MakeFifo("a/b/c"), "EEXIST"),
    (MakeSymlink("x", ""), "ENOENT"),
    (MakeSymlink("x", "\0"), "EINVAL"),
    (MakeSymlink("x", "t" * 4096), "ENAMETOOLONG"),
    (MakeSymlink("b", "t"), "EEXIST"),
    (MakeDevice("x", FileType.FILE, 1, 3), "EINVAL"),
    (MakeDevice("x", FileType.CHAR, 1 << 12, 0), "EINVAL"),
    (MakeDevice("x", FileType.CHAR, 0, 0), "EPERM"),
    (MakeDevice("b", FileType.CHAR, 0, 0), "EEXIST"),
    (Link("x", "none"), "ENOENT"),
    (Link("x", "none/y"), "ENOENT"),
    (Link("b/x", "none"), "ENOENT"),
    (Link("b/x", "b"), "ENOTDIR"),
    (Link("a", "b"), "EEXIST"),
    (Link("a", "c"), "EEXIST"),
    (Link("x", "c"), "EPERM"),
    (Link("x", ".."), "EINVAL"),
    (Unlink("none"), "ENOENT"),
    (Unlink("a"), "EISDIR"),
    (Unlink(""), "EISDIR"),
    (Unlink("b/x"), "ENOTDIR"),
    (RemoveDirectory("b"), "ENOTDIR"),
    (RemoveDirectory("a"), "ENOTEMPTY"),
    (RemoveDirectory(""), "EBUSY"),
    (RemoveTree("b"), "ENOTDIR"),
    (RemoveTree("none"), "ENOENT"),
    (RemoveTree(""), "EBUSY"),
    (Rename("", "x"), "EBUSY"),
    (Rename("a", ""), "EBUSY"),
    (Rename("x//y", "z"), "EINVAL"),
    (Rename("none", "x"), "ENOENT"),
    (Rename("none", "none/x"), "ENOENT"),
    (Rename("none", "b/x"), "ENOTDIR"),
    (Rename("none", LONG), "ENOENT"),
    (Rename("b", LONG), "ENAMETOOLONG"),
    (Rename(LONG, "b"), "ENAMETOOLONG"),
    (Rename("a", "a/x"), "EINVAL"),
    (Rename("a", "a/b/x"), "EINVAL"),
    (Rename("a/b", "a"), "ENOTEMPTY"),
    (Rename("a/d", "a"), "ENOTEMPTY"),
    (Rename("a", "b"), "ENOTDIR"),
    (Rename("b", "a"), "EISDIR"),
    (Rename("a", "c"), "ENOTEMPTY"),
    (WriteAt("a", 0, b"x"), "EISDIR"),
    (WriteAt("a/a", 0, b"x"), "ELOOP"),
    (WriteAt("c/a", 0, b"x"), "EINVAL"),
    (WriteAt("none", 0, b"x"), "ENOENT"),
    (WriteAt("b", -1, b"x"), "EINVAL"),
    (WriteAt("b", MAX_SIZE, b"x"), "EFBIG"),
    (Truncate("a", 0), "EISDIR"),
    (Truncate("b", -1), "EINVAL"),
    (Truncate("b", MAX_SIZE + 1), "EFBIG"),
    (SetMode("a/a", 0o700), "EOPNOTSUPP"),
    (SetMode("b/x", 0o700), "ENOTDIR"),
    (SetOwner("b", -1, 0), "EINVAL"),
    (SetOwner("none", 0, 0), "ENOENT"),
    (SetXattr("a/a", "user.a", b""), "EPERM"),
    (SetXattr("b", "system.a", b""), "EOPNOTSUPP"),
    (SetXattr("b", "trusted.overlay.opaque", b"y"), "EOPNOTSUPP"),
    (SetXattr("b", "user.", b""), "EINVAL"),
    (SetXattr("b", "user.\0", b""), "EINVAL"),
    (SetXattr("b", "", b""), "ERANGE"),
    (SetXattr("b", "user." + LONG, b""), "ERANGE"),
    (SetXattr("b", "user.overlay.opaque", b"y"), "EOPNOTSUPP"),
    (SetXattr("b", CAPABILITY, b"x"), "EINVAL"),
    (SetXattr("b", CAPABILITY, b"\2" + CAPABILITIES[1:]), "EINVAL"),
    (SetXattr("b", CAPABILITY, CAPABILITIES[:3] + b"\3" + CAPABILITIES[4:]), "EINVAL"),
    (RemoveXattr("b", "user.none"), "ENODATA"),
    (RemoveXattr("a/a", "user.a"), "EPERM"),
    (RemoveXattr("b", ""), "ERANGE"),
]


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _free(tree: Tree) -> list[str]:
    """Paths in the directories of `tree`, mostly not taken."""
    directories = (path for path, node in tree.nodes.items() if node.type is FileType.DIRECTORY)
    return sorted(_below(directory, name) for directory in directories for name in NAMES)


def _taken(tree: Tree, *types: FileType) -> list[str]:
    """Paths of the inodes of these types but the root, or of none when there is none."""
    return sorted(path for path, node in tree.nodes.items() if node.type in types and path) or ["none"]


def _anything(tree: Tree) -> list[str]:
    """Every path of `tree`, the root too; paths below what is no directory or is not there; what is no path at all."""
    there = sorted(tree.nodes)
    return [*there, *(_below(path, name) for path in (*there, "none") for name in (NAMES[0], *WRONG_NAMES))]


#: How often each kind of change is drawn.
WEIGHTS = {Rename: 4, Link: 2, WriteAt: 2, Unlink: 2, RemoveTree: 2}
KINDS = tuple(kind for kind in get_args(Change) for _ in range(WEIGHTS.get(kind, 1)))
PLAIN = tuple(kind for kind in FileType if kind is not FileType.DIRECTORY)


@st.composite
def changes(draw: DrawFn, tree: Tree) -> Change:
    """A change to `tree`: four of five with paths that fit it, the rest with any."""
    kind = draw(st.sampled_from(KINDS))
    fits = draw(st.integers(0, 4)) < 4

    def pick(*candidates: list[str]) -> str:
        return draw(st.sampled_from(draw(st.sampled_from(candidates)) if fits else _anything(tree)))

    free, plain, directories = _free(tree), _taken(tree, *PLAIN), _taken(tree, FileType.DIRECTORY)
    if kind in (MakeFile, MakeDirectory, MakeSymlink, MakeFifo, MakeDevice):
        return draw(_make(kind, pick(free)))
    if kind is Link:
        return Link(pick(free), pick(plain))
    if kind in (Unlink, RemoveDirectory, RemoveTree):
        return kind(pick(plain if kind is Unlink else directories))
    if kind is Rename:
        moved = draw(st.sampled_from((plain, directories)))
        return Rename(pick(moved), pick(free, moved, plain, directories))
    files = _taken(tree, FileType.FILE)
    return draw(_alter(kind, pick(files) if kind in (WriteAt, Truncate) else pick(files, plain, directories, [""])))


def _make(kind: type[Change], path: str) -> SearchStrategy[Change]:
    at = st.just(path)
    if kind is MakeFile:
        return st.builds(MakeFile, at, contents, modes)
    if kind is MakeSymlink:
        return st.builds(MakeSymlink, at, targets)
    if kind is MakeDevice:
        return st.builds(lambda kind, number, mode: MakeDevice(path, kind, *number, mode), devices, numbers, modes)
    return st.builds(kind, at, modes)


def _alter(kind: type[Change], path: str) -> SearchStrategy[Change]:
    at = st.just(path)
    if kind is WriteAt:
        return st.builds(WriteAt, at, offsets, contents)
    if kind is Truncate:
        return st.builds(Truncate, at, offsets)
    if kind is SetMode:
        return st.builds(SetMode, at, modes)
    if kind is SetOwner:
        return st.builds(SetOwner, at, owners, owners)
    return xattrs.map(lambda pair: SetXattr(path, *pair) if kind is SetXattr else RemoveXattr(path, pair[0]))


@st.composite
def trees(draw: DrawFn, base: Tree = EMPTY, most: int = 12) -> Tree:
    """A tree: `base` after up to `most` changes."""
    tree = base
    for _ in range(draw(st.integers(0, most))):
        tree = after(tree, (draw(changes(tree)),))
    return tree


# --- histories of a manager


def ref_calls(state: RefState, number: int) -> Iterator[RefOperation]:
    """Every call by record and by handle, open or not, with names by the call's number for what it makes."""
    record, handle = f"r{number}", f"h{number}"
    yield from (ref_ops.New(record, handle), ref_ops.DiskUsage(), ref_ops.Prune(), ref_ops.Restart())
    if state.closed:  # every call is refused: a few of them are enough
        return
    yield ref_ops.Close()
    for known in (*state.records, "absent"):
        yield from (ref_ops.Get(known, handle, record), ref_ops.GetMutable(known, handle))
    for known in (*state.handles, "absent"):
        yield from (ref_ops.New(record, handle, known), ref_ops.Commit(known, record, handle), ref_ops.Parent(known, handle))
        yield from (ref_ops.Finalize(known), ref_ops.Release(known), ref_ops.Size(known), ref_ops.Read(known))
        yield from (ref_ops.Mount(known, readonly=True), ref_ops.Mount(known, readonly=False))
        yield ref_ops.Write(known, (MakeFile(f"f{number % 3}", b"x"),))


@st.composite
def ref_histories(draw: DrawFn, most: int = 12) -> list[tuple[RefState, RefOperation]]:
    """States of a manager, each with the call that was made in it and led to the next."""
    state = RefState(declared=Declared(draw(st.booleans()), draw(st.booleans())))
    history: list[tuple[RefState, RefOperation]] = []
    for number in range(draw(st.integers(1, most))):
        op = draw(st.sampled_from(list(ref_calls(state, number))))
        history.append((state, op))
        state = draw(st.sampled_from(refs.outcomes(state, op))).state
    return history
