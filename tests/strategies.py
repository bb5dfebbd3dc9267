"""Strategies that the tests share: file trees, and changes chosen by what a tree holds."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from snapspec.model.nodes import CAPABILITY
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
xattrs = st.one_of(
    st.tuples(st.sampled_from(("user.a", "user.b", "trusted.a")), st.sampled_from((b"", b"1", b"v" * 100))),
    st.tuples(st.sampled_from((CAPABILITY, "user.", "system.a", "trusted.overlay.a")), st.just(b"\1\0\0\2".ljust(20, b"\0"))),
)


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def paths(tree: Tree) -> SearchStrategy[str]:
    """Paths that `tree` has, free ones in its directories, and, less often, ones below what is no directory or no path at all."""
    there = sorted(tree.nodes)
    directories = [path for path in there if tree.nodes[path].type is FileType.DIRECTORY]
    free = st.builds(_below, st.sampled_from(directories), st.sampled_from(NAMES))
    wrong = st.builds(_below, st.sampled_from(there), st.sampled_from(NAMES + WRONG_NAMES))
    return st.one_of(st.sampled_from(there), free, free, st.sampled_from(there), wrong)


@st.composite
def changes(draw: DrawFn, tree: Tree) -> Change:
    """A change to `tree`, right or wrong."""
    where = paths(tree)
    devices = st.sampled_from(((1, 3), (7, 0), (259, 300), (0, 0), (1 << 12, 0)))
    kinds = st.sampled_from((FileType.CHAR, FileType.BLOCK_DEVICE))
    major, minor = draw(devices)
    path, name_value = draw(where), draw(xattrs)
    return draw(
        st.one_of(
            st.builds(MakeFile, where, contents, modes),
            st.builds(MakeDirectory, where, modes),
            st.builds(MakeSymlink, where, targets),
            st.builds(MakeFifo, where, modes),
            st.builds(MakeDevice, where, kinds, st.just(major), st.just(minor), modes),
            st.builds(Link, where, where),
            st.builds(Link, where, where),
            st.builds(WriteAt, where, offsets, contents),
            st.builds(Truncate, where, offsets),
            st.builds(Unlink, where),
            st.builds(RemoveDirectory, where),
            st.builds(RemoveTree, where),
            st.builds(Rename, where, where),
            st.builds(Rename, where, where),
            st.builds(SetMode, where, modes),
            st.builds(SetOwner, where, owners, owners),
            st.just(SetXattr(path, *name_value)),
            st.just(RemoveXattr(path, name_value[0])),
        )
    )


@st.composite
def trees(draw: DrawFn, base: Tree = EMPTY, most: int = 12) -> Tree:
    """A tree: `base` after up to `most` changes."""
    tree = base
    for _ in range(draw(st.integers(0, most))):
        tree = outcomes_of(EMPTY, tree, draw(changes(tree)))[0].tree
    return tree
