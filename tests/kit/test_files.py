"""Real files against the model: plain directories, overlay mounts, raw upper directories; and what is never touched."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CAPABILITIES, FURNISH, FURNISHED, REFUSALS, after, changes

from snapspec.conformance.files import Permits, apply, measure, permits, scan
from snapspec.impl.mounts import mounted, remove_tree
from snapspec.model.nodes import CAPABILITY, is_below
from snapspec.model.tree import (
    BLOCK,
    EMPTY,
    Applied,
    Change,
    Data,
    FileType,
    Layer,
    Link,
    MakeDevice,
    MakeDirectory,
    MakeFile,
    MakeSymlink,
    Node,
    RemoveTree,
    Rename,
    SetMode,
    SetOwner,
    SetXattr,
    Tree,
    Truncate,
    Unlink,
    WriteAt,
    diff,
    differences,
    layer_well_formed,
    outcomes_of,
    overlay,
)
from snapspec.model.values import Mount, Usage

pytestmark = pytest.mark.root


@contextmanager
def directory() -> Iterator[str]:
    """A new directory for one example, as the root of a snapshot without a parent is. What is mounted in it is left alone."""
    scratch = tempfile.mkdtemp()
    try:
        yield new_directory(scratch, "root")
    finally:
        remove_tree(scratch)


def new_directory(*parts: str) -> str:
    path = os.path.join(*parts)
    os.mkdir(path)
    os.chmod(path, 0o755)
    return path


def apply_all(root: str, changes: Iterable[Change]) -> None:
    for change in changes:
        assert apply(root, change) == "ok", change


def step(root: str, lower: Tree, tree: Tree, change: Change) -> Tree:
    """Make a change that is to have one of the model's outcomes; the tree that came."""
    allowed = outcomes_of(lower, tree, change)
    result, came = apply(root, change), scan(root)
    told = [(applied.result, differences(applied.tree, came)) for applied in allowed]
    assert Applied(result, came) in allowed, f"{change} gave {result}; allowed, with what differs: {told}"
    return came


# A plain file system


@pytest.mark.parametrize("umask", [0o077, 0])
def test_real_files_hold_what_the_model_says(umask: int) -> None:
    before = os.umask(umask)
    try:
        with directory() as root:
            apply_all(root, FURNISH)
            assert differences(FURNISHED, scan(root)) == ()
    finally:
        os.umask(before)


@pytest.mark.parametrize(("change", "result"), REFUSALS, ids=lambda value: repr(value)[:60])
def test_real_files_refuse_what_the_model_refuses(change: Change, result: str) -> None:
    with directory() as root:
        apply_all(root, FURNISH)
        assert apply(root, change) == result
        assert differences(FURNISHED, scan(root)) == ()


@settings(max_examples=150)
@given(st.data())
def test_changes_to_real_files_do_what_the_model_says(data: st.DataObject) -> None:
    with directory() as root:
        apply_all(root, FURNISH)
        tree = FURNISHED
        for _ in range(data.draw(st.integers(1, 12))):
            tree = step(root, EMPTY, tree, data.draw(changes(tree)))


# Overlay


@contextmanager
def overlaid(root: str, lowers: list[str], tree: Tree) -> Iterator[tuple[str, str]]:
    """An overlay of a new upper directory, its root as in `tree`, on `lowers`, the nearest first: the mount and the upper."""
    upper, work, target = (new_directory(root, f"{name}{len(lowers)}") for name in ("upper", "work", "mounted"))
    top = tree.nodes[""]
    apply_all(upper, (SetOwner("", top.uid, top.gid), SetMode("", top.mode)))
    apply_all(upper, (SetXattr("", name, value) for name, value in top.xattrs))
    options = (f"lowerdir={':'.join(lowers)}", f"upperdir={upper}", f"workdir={work}")
    with mounted([Mount("overlay", "overlay", options)], target):
        yield target, upper


def raw(upper: str) -> Layer:
    """An upper directory as it lies on its disk, read as a layer."""
    nodes = scan(upper).nodes
    whiteouts = frozenset(path for path, node in nodes.items() if node.type is FileType.CHAR and node.rdev == (0, 0))
    directories = (path for path, node in nodes.items() if node.type is FileType.DIRECTORY)
    opaque = frozenset(path for path in directories if is_opaque(os.path.join(upper, path)))
    return Layer(nodes.without(*whiteouts), whiteouts, opaque)


def is_opaque(path: str) -> bool:
    name = "trusted.overlay.opaque"
    return name in os.listxattr(path) and os.getxattr(path, name) == b"y"


@settings(max_examples=150)
@given(st.data())
def test_changes_to_a_stack_of_overlays_have_an_outcome_that_the_model_allows(data: st.DataObject) -> None:
    with directory() as root:
        lowers, lower = [new_directory(root, "base")], FURNISHED
        apply_all(lowers[0], FURNISH)
        for _ in range(2):
            with overlaid(root, lowers, lower) as (target, upper):
                tree = scan(target)
                assert differences(lower, tree) == ()
                for _ in range(data.draw(st.integers(1, 8))):
                    tree = step(target, lower, tree, data.draw(changes(tree)))
            layer = raw(upper)
            assert layer_well_formed(layer)
            assert differences(tree, overlay(lower, layer)) == ()
            assert len(diff(lower, tree).nodes) <= len(layer.nodes)
            lowers, lower = [upper, *lowers], tree


NOTHING = frozenset[str]()


@pytest.mark.parametrize(
    ("changes", "opaque"),
    [
        ((), NOTHING),
        ((Unlink("b"),), NOTHING),
        ((RemoveTree("a"),), NOTHING),
        ((WriteAt("a/b/c", 0, b"z"),), NOTHING),
        ((Rename("b", "a/b/x"),), NOTHING),
        ((RemoveTree("c"), MakeFile("c")), NOTHING),
        ((Unlink("d"), Link("d", "b")), NOTHING),
        ((Unlink("a/d"), MakeDirectory("a/d")), frozenset({"a/d"})),
        ((RemoveTree("c"), MakeDirectory("c"), MakeFile("c/x")), frozenset({"c"})),
    ],
)
def test_the_upper_directory_is_the_layer_between_the_trees(changes: tuple[Change, ...], opaque: frozenset[str]) -> None:
    with directory() as root:
        apply_all(new_directory(root, "base"), FURNISH)
        with overlaid(root, [f"{root}/base"], FURNISHED) as (target, upper):
            apply_all(target, changes)
            tree = scan(target)
        layer, wanted = raw(upper), diff(FURNISHED, tree)
        assert overlay(FURNISHED, layer) == tree
        # A directory made anew is opaque on the disk; the model hides each name in it instead.
        hidden = frozenset(path for path in wanted.whiteouts if not any(is_below(path, covered) for covered in opaque))
        assert layer == Layer(wanted.nodes, hidden, opaque)


def test_a_directory_that_was_copied_up_stays_in_the_upper_directory() -> None:
    with directory() as root:
        apply_all(new_directory(root, "base"), FURNISH)
        with overlaid(root, [f"{root}/base"], FURNISHED) as (target, upper):
            apply_all(target, (MakeFile("c/x", b"1"), Unlink("c/x")))
        assert set(raw(upper).nodes) == {"", "c"}
        assert overlay(FURNISHED, raw(upper)) == FURNISHED


def test_overlay_breaks_a_group_and_refuses_to_move_a_directory_of_the_parent() -> None:
    with directory() as root:
        apply_all(new_directory(root, "base"), FURNISH)
        with overlaid(root, [f"{root}/base"], FURNISHED) as (target, _):
            assert apply(target, Rename("a", "x")) == "EXDEV"
            apply_all(target, (SetMode("d", 0o600),))
            assert scan(target).nodes["a/d"].links == ("a/b/c", "a/d")


# What reading sees


def test_scan_reads_holes_without_reading_them() -> None:
    with directory() as root:
        apply_all(root, (MakeFile("f", b"x"), Truncate("f", 1 << 41), WriteAt("f", (1 << 41) - 1, b"y")))
        assert scan(root).nodes["f"].data == Data(1 << 41, ((0, b"x"), ((1 << 41) // BLOCK - 1, b"\0" * (BLOCK - 1) + b"y")))


def test_scan_finds_zeros_and_holes_alike() -> None:
    with directory() as root:
        apply_all(root, (MakeFile("zeros", b"\0" * (3 * BLOCK)), MakeFile("hole"), Truncate("hole", 3 * BLOCK)))
        nodes = scan(root).nodes
        assert nodes["zeros"] == nodes["hole"]


def test_scan_reads_a_file_of_many_chunks() -> None:
    content = b"".join(number.to_bytes(4, "big") for number in range(700_001))
    with directory() as root:
        apply_all(root, (MakeFile("f", content),))
        assert after(EMPTY, (MakeFile("f", content),)) == scan(root)


def test_scan_leaves_out_what_overlay_and_others_keep_in_attributes() -> None:
    with directory() as root:
        for name in ("trusted.overlay.opaque", "user.overlay.origin", "security.other", "user.a"):
            os.setxattr(root, name, b"y")
        assert scan(root).nodes[""].xattrs == (("user.a", b"y"),)


def test_scan_shows_a_socket_that_nobody_asked_for() -> None:
    with directory() as root, socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{root}/s")
        assert differences(EMPTY, scan(root)) == ("/s: unexpected (socket)",)


def test_scan_sees_what_is_wrong() -> None:
    with directory() as root:
        apply_all(root, FURNISH)
        os.truncate(f"{root}/b", 5)
        os.rename(f"{root}/d", f"{root}/e")
        assert len(differences(FURNISHED, scan(root))) == 5  # b, d, e, and the two other names of d


# What changing never touches


def test_no_symlink_leads_out() -> None:
    with directory() as root:
        inside, outside = new_directory(root, "inside"), new_directory(root, "outside")
        apply_all(outside, (MakeFile("f", b"1"), MakeDirectory("d")))
        before = scan(outside)
        apply_all(inside, (MakeSymlink("s", "../outside"), MakeSymlink("f", "../outside/f"), MakeSymlink("d", "../outside/d")))
        assert [apply(inside, RemoveTree("s")), apply(inside, Unlink("s/f")), apply(inside, MakeFile("s/x"))] == ["ENOTDIR"] * 3
        assert [apply(inside, WriteAt("f", 0, b"2")), apply(inside, Truncate("f", 0))] == ["ELOOP"] * 2
        assert [apply(inside, Rename("s/f", "f")), apply(inside, Link("x", "s/f"))] == ["ENOTDIR"] * 2
        assert apply(inside, SetMode("f", 0)) == "EOPNOTSUPP"
        apply_all(inside, (SetOwner("f", 7, 7), SetXattr("f", "trusted.a", b"1"), Link("g", "f"), Unlink("d")))
        assert scan(outside) == before
        assert scan(inside).nodes["f"] == Node(
            FileType.SYMLINK, 0o777, 7, 7, (("trusted.a", b"1"),), target="../outside/f", links=("f", "g")
        )


def test_a_tree_with_a_mount_in_it_is_not_removed() -> None:
    with directory() as root:
        inside, outside = new_directory(root, "inside"), new_directory(root, "outside")
        apply_all(outside, (MakeFile("f", b"1"),))
        apply_all(inside, (MakeDirectory("a"), MakeFile("a/a"), MakeDirectory("a/b"), MakeDirectory("a/b/c"), MakeFile("a/x")))
        before = scan(inside)
        with mounted([Mount("bind", outside, ("rbind", "rw"))], f"{inside}/a/b/c"):
            assert apply(inside, RemoveTree("a")) == "EXDEV"
            assert apply(inside, RemoveTree("a/b/c")) == "EXDEV"
            assert scan(outside).nodes["f"].data.size == 1
        assert scan(inside) == before
        apply_all(inside, (RemoveTree("a"),))
        assert scan(inside) == EMPTY


def test_a_new_file_that_does_not_fit_leaves_nothing() -> None:
    with directory() as root, mounted([Mount("tmpfs", "tmpfs", ("size=64k", "mode=755"))], root):
        assert apply(root, MakeFile("f", b"x" * 100_000)) == "ENOSPC"
        assert scan(root) == EMPTY


def test_a_file_that_cannot_be_changed_says_why() -> None:
    with directory() as root, mounted([Mount("tmpfs", "tmpfs", ("ro", "mode=755"))], root):
        assert apply(root, MakeFile("f")) == "EROFS"
        assert apply(root, SetMode("", 0)) == "EROFS"


def test_set_id_bits_stay_when_an_owner_changes() -> None:
    with directory() as root:
        apply_all(root, (MakeFile("f", b"1", 0o6755), SetOwner("f", 5, 6), WriteAt("f", 0, b"2"), Truncate("f", 0)))
        assert scan(root).nodes["f"].mode == 0o6755


def test_whiteouts_are_never_made() -> None:
    with directory() as root:
        assert apply(root, MakeDevice("w", FileType.CHAR, 0, 0)) == "EPERM"
        assert apply(root, SetXattr("", "trusted.overlay.opaque", b"y")) == "EOPNOTSUPP"
        assert (scan(root), os.listxattr(root)) == (EMPTY, [])


def test_file_capabilities_are_content() -> None:
    with directory() as root:
        apply_all(root, (MakeFile("f"), SetXattr("f", CAPABILITY, CAPABILITIES)))
        assert scan(root).nodes["f"].xattrs == ((CAPABILITY, CAPABILITIES),)


def test_a_root_that_is_not_there_is_no_outcome() -> None:
    with directory() as root, pytest.raises(FileNotFoundError):
        apply(f"{root}/none", MakeFile("f"))


# Measuring


def du(root: str) -> Usage:
    """What du(1) says of the same directory."""
    size, inodes = (
        int(subprocess.run(("du", "-sx", *options, root), check=True, capture_output=True, text=True).stdout.split()[0])
        for options in (("--block-size=1",), ("--inodes",))
    )
    return Usage(size, inodes)


def test_measure_counts_blocks_and_inodes_as_du_does() -> None:
    with directory() as root:
        empty = measure(root)
        assert empty == Usage(os.stat(root).st_blocks * 512, 1)
        apply_all(root, (MakeFile("a", b"x" * 10 * BLOCK), Link("b", "a"), MakeFile("hole", b"x"), Truncate("hole", 1 << 30)))
        assert measure(root) == Usage(empty.size + 11 * BLOCK, 3)
        apply_all(root, (MakeDirectory("in"), MakeFile("in/c", b"x"), MakeSymlink("in/s", "t" * 1000)))
        assert measure(root) == du(root)


def test_measure_leaves_out_what_is_mounted_inside() -> None:
    with directory() as root:
        apply_all(root, (MakeDirectory("m"), MakeFile("f", b"x")))
        alone = measure(root)
        with mounted([Mount("tmpfs", "tmpfs", ("mode=755",))], f"{root}/m"):
            apply_all(f"{root}/m", (MakeFile("f", b"x" * 10 * BLOCK),))
            assert measure(root).inodes == alone.inodes - 1  # the directory that is covered
            assert measure(root) == du(root)


# What the environment permits


def test_permits_tries_and_leaves_nothing(workdir: Path) -> None:
    assert permits(str(workdir)) == Permits(other_owners=True, devices=True, trusted_xattrs=True, user_xattrs=True)
    assert list(workdir.iterdir()) == []


def test_permits_tells_what_a_file_system_lacks() -> None:
    with directory() as root, mounted([Mount("ramfs", "ramfs")], root):
        assert permits(root) == Permits(other_owners=True, devices=True, trusted_xattrs=False, user_xattrs=False)
        assert os.listdir(root) == []
        assert scan(root).nodes[""].xattrs == ()
