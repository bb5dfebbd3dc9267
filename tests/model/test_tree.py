"""File trees: each change and its errors, the freedoms of drivers, layers, and how trees differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import CAPABILITIES, FURNISHED, LONG, REFUSALS, after, changes, contents, trees

from snapspec.model.frozen import Map
from snapspec.model.nodes import CAPABILITY, Data, truncated, written
from snapspec.model.tree import (
    BLOCK,
    EMPTY,
    Applied,
    Change,
    FileType,
    Layer,
    Link,
    MakeDevice,
    MakeDirectory,
    MakeFifo,
    MakeFile,
    MakeSymlink,
    Node,
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
    data_bytes,
    data_of,
    diff,
    differences,
    distinct,
    layer_well_formed,
    outcomes_of,
    overlay,
    stack,
    touched_by,
    well_formed,
)


def tree_of(*changes: Change) -> Tree:
    return after(EMPTY, changes)


def with_node(path: str, node: Node, tree: Tree = EMPTY) -> Tree:
    return Tree(tree.nodes.set(path, node))


FILE = Node(FileType.FILE, 0o644)


@pytest.mark.parametrize(("change", "result"), REFUSALS, ids=lambda value: repr(value)[:60])
def test_refused_change_tells_why_and_changes_nothing(change: Change, result: str) -> None:
    assert outcomes_of(EMPTY, FURNISHED, change) == (Applied(result, FURNISHED),)


def only(tree: Tree, change: Change) -> Tree:
    (applied,) = outcomes_of(EMPTY, tree, change)
    assert applied.result == "ok"
    return applied.tree


def test_each_way_to_make_an_inode() -> None:
    tree = tree_of(
        MakeFile("f", b"x\0", 0o10640),
        MakeDirectory("d", 0o1777),
        MakeSymlink("s", "../t"),
        MakeFifo("p", 0o600),
        MakeDevice("c", FileType.CHAR, 1, 3, 0o666),
        MakeDevice("b", FileType.BLOCK_DEVICE, 0, 0, 0o660),
    )
    assert dict(tree.nodes) == {
        "": EMPTY.nodes[""],
        "f": Node(FileType.FILE, 0o640, data=Data(2, ((0, b"x"),))),
        "d": Node(FileType.DIRECTORY, 0o1777),
        "s": Node(FileType.SYMLINK, 0o777, target="../t"),
        "p": Node(FileType.FIFO, 0o600),
        "c": Node(FileType.CHAR, 0o666, rdev=(1, 3)),
        "b": Node(FileType.BLOCK_DEVICE, 0o660),
    }


def test_what_is_made_in_a_set_gid_directory_has_its_group_and_its_own_mode() -> None:
    tree = tree_of(MakeDirectory("d", 0o2755), SetOwner("d", 1, 7))
    makers = (MakeFile("d/f"), MakeSymlink("d/s", "t"), MakeFifo("d/p"), MakeDevice("d/c", FileType.CHAR, 1, 3))
    tree = after(tree, (*makers, MakeDirectory("d/e", 0o700), MakeFile("d/e/f")))
    assert {path: node.gid for path, node in tree.nodes.items() if node.gid != 7} == {"": 0, "d/e/f": 0}
    assert tree.nodes["d/e"].mode == 0o700


def test_attributes_are_set_on_every_name() -> None:
    tree = tree_of(MakeFile("a"), Link("b", "a"), SetMode("b", 0o4711), SetOwner("a", 1, 2), SetXattr("b", "user.z", b"1"))
    tree = after(tree, (SetXattr("a", "user.b", b"2"), SetXattr("a", "user.z", b"3"), RemoveXattr("b", "user.b")))
    assert tree.nodes["a"] == tree.nodes["b"] == Node(FileType.FILE, 0o4711, 1, 2, (("user.z", b"3"),), links=("a", "b"))


def test_the_root_has_attributes_too() -> None:
    tree = tree_of(SetMode("", 0o700), SetOwner("", 1, 1), SetXattr("", "user.a", b""))
    assert tree.nodes[""] == Node(FileType.DIRECTORY, 0o700, 1, 1, (("user.a", b""),))


@pytest.mark.parametrize("change", [WriteAt("f", 0, b"x"), Truncate("f", 0), SetOwner("f", 0, 0)])
def test_file_capabilities_go_when_the_file_is_changed(change: Change) -> None:
    capable = tree_of(MakeFile("f"), SetXattr("f", "user.a", b""), SetXattr("f", CAPABILITY, CAPABILITIES))
    assert only(capable, change).nodes["f"].xattrs == (("user.a", b""),)
    assert only(capable, WriteAt("f", 0, b"")) == capable
    assert only(capable, RemoveXattr("f", CAPABILITY)).nodes["f"].xattrs == (("user.a", b""),)


def test_removing_names_leaves_the_others() -> None:
    tree = tree_of(MakeDirectory("d"), MakeFile("d/a"), Link("b", "d/a"), Link("c", "b"), MakeFile("d/x"))
    assert only(tree, Unlink("c")).nodes["b"].links == ("b", "d/a")
    assert only(tree, RemoveTree("d")) == tree_of(MakeFile("b"), Link("c", "b"))
    assert only(tree_of(MakeDirectory("d")), RemoveDirectory("d")) == EMPTY


def test_rename_of_a_directory_takes_all_below_and_its_names_along() -> None:
    tree = tree_of(MakeDirectory("d"), MakeFile("d/a"), Link("b", "d/a"), MakeDirectory("dd"))
    expected = tree_of(MakeFile("b"), MakeDirectory("dd"), Link("dd/a", "b"))
    assert only(tree, Rename("d", "dd")) == expected


def test_rename_onto_a_name_replaces_it() -> None:
    tree = tree_of(MakeFile("a", b"a"), MakeFile("b", b"b"), Link("c", "b"))
    assert only(tree, Rename("a", "b")) == tree_of(MakeFile("b", b"a"), MakeFile("c", b"b"))


@pytest.mark.parametrize("change", [Rename("a", "b"), Rename("a", "a"), Rename("d", "d")])
def test_rename_onto_the_same_inode_does_nothing(change: Change) -> None:
    tree = tree_of(MakeFile("a"), Link("b", "a"), MakeDirectory("d"))
    assert only(tree, change) == tree


# Content


@given(st.lists(st.tuples(st.integers(0, 3 * BLOCK), contents) | st.integers(0, 3 * BLOCK), max_size=6))
def test_writing_and_cutting_agree_with_plain_bytes(steps: list[tuple[int, bytes] | int]) -> None:
    data, plain = Data(), b""
    for step in steps:
        if isinstance(step, int):
            data, plain = truncated(data, step), plain[:step].ljust(step, b"\0")
        elif step[1]:
            offset, new = step
            data = written(data, offset, new)
            plain = plain[:offset].ljust(offset, b"\0") + new + plain[offset + len(new) :]
        assert data == data_of(plain)
        assert well_formed(with_node("f", replace(FILE, data=data)))


def test_a_block_of_zeros_is_a_hole() -> None:
    assert data_of(b"\0" * BLOCK + b"x") == Data(BLOCK + 1, ((1, b"x"),))
    assert written(data_of(b"x"), 0, b"\0") == Data(1, ())


# The freedoms of drivers

SHARED = tree_of(MakeFile("a", b"1"), Link("b", "a"), Link("c", "a"))


@pytest.mark.parametrize(
    "change",
    [WriteAt("a", 0, b"2"), Truncate("a", 0), SetMode("a", 0), SetOwner("a", 1, 1), SetXattr("a", "user.a", b""), Link("d", "a")],
)
def test_a_name_of_the_parents_inode_may_leave_its_group(change: Change) -> None:
    kept, broken = outcomes_of(SHARED, SHARED, change)
    assert kept == outcomes_of(EMPTY, SHARED, change)[0]
    apart = tree_of(MakeFile("a", b"1"), MakeFile("b", b"1"), Link("c", "b"))
    assert broken == outcomes_of(EMPTY, apart, change)[0]


def test_a_group_may_be_broken_even_by_what_changes_nothing_else() -> None:
    lower = tree_of(MakeFile("a"), Link("b", "a"))
    trees = [applied.tree for applied in outcomes_of(lower, lower, SetMode("a", 0o644))]
    assert trees == [lower, tree_of(MakeFile("a"), MakeFile("b"))]


def test_a_renamed_name_may_leave_its_group_also_when_it_falls_on_another_of_its_names() -> None:
    kept, broken = outcomes_of(SHARED, SHARED, Rename("a", "b"))
    assert kept == Applied("ok", SHARED)
    assert broken == Applied("ok", tree_of(MakeFile("b", b"1"), MakeFile("c", b"1")))


def test_outcomes_that_agree_are_told_once() -> None:
    tree = tree_of(MakeFile("a"), Link("b", "a"))
    assert len(outcomes_of(tree, tree, Rename("a", "x"))) == 2
    alone = only(tree, Unlink("b"))
    assert len(outcomes_of(tree, alone, SetMode("a", 0o600))) == 1
    assert len(outcomes_of(tree, tree, Rename("a", "a"))) == 1


@pytest.mark.parametrize("first", [SetMode("a", 0o600), Link("d", "a")])
def test_a_group_that_was_changed_as_a_whole_stays_one(first: Change) -> None:
    changed = outcomes_of(SHARED, SHARED, first)[0].tree
    assert len(outcomes_of(SHARED, changed, SetMode("a", 0o700))) == 1


def test_a_group_that_only_lost_names_may_still_be_broken() -> None:
    smaller = only(SHARED, Unlink("c"))
    assert len(outcomes_of(SHARED, smaller, SetMode("a", 0o700))) == 2


def test_a_directory_of_the_parent_may_refuse_to_be_renamed() -> None:
    tree = tree_of(MakeDirectory("d"), MakeDirectory("d/e"), MakeDirectory("f"), MakeDirectory("f/g"), MakeFile("x"))

    def results(lower: Tree, source: str, path: str) -> list[str]:
        outcomes = outcomes_of(lower, tree, Rename(source, path))
        assert all(applied.tree == tree for applied in outcomes if applied.result != "ok")
        return [applied.result for applied in outcomes]

    assert results(tree, "d", "y") == ["ok", "EXDEV"]
    assert results(tree, "d", "f") == ["ENOTEMPTY", "EXDEV"]
    assert results(tree, "d/e", "d") == ["ENOTEMPTY"]
    assert results(tree, "d", "d") == ["ok"]
    assert results(tree, "d", "x") == ["ENOTDIR"]
    assert results(tree, "x", "y") == ["ok"]
    assert results(EMPTY, "d", "y") == ["ok"]
    assert results(tree_of(MakeFile("d")), "d", "y") == ["ok"]


@given(st.data())
def test_every_change_has_outcomes_and_every_outcome_is_well_formed(data: st.DataObject) -> None:
    lower = data.draw(trees(data.draw(st.sampled_from((EMPTY, FURNISHED)))))
    tree = data.draw(trees(lower, most=6))
    change = data.draw(changes(tree))
    outcomes = outcomes_of(lower, tree, change)
    assert len(outcomes) == len(set(outcomes)) > 0
    touched = touched_by(tree, change)
    for applied in outcomes:
        assert well_formed(applied.tree)
        assert applied.result == "ok" or applied.tree == tree
        either = tree.nodes.keys() | applied.tree.nodes.keys()
        assert {path for path in either if tree.nodes.get(path) != applied.tree.nodes.get(path)} <= touched


# Layers


@given(st.data())
def test_the_layer_between_two_trees_shows_the_upper_one(data: st.DataObject) -> None:
    lower = data.draw(trees(FURNISHED))
    upper = data.draw(trees(lower) | trees(FURNISHED) | trees())
    layer = diff(lower, upper)
    assert layer_well_formed(layer)
    assert overlay(lower, layer) == upper
    assert layer.opaque == frozenset()


@given(st.lists(trees(FURNISHED, most=6), max_size=4))
def test_layers_stack_up_to_the_last_tree(steps: list[Tree]) -> None:
    below = [EMPTY, *steps]
    assert stack([diff(lower, upper) for lower, upper in zip(below, steps, strict=False)]) == below[-1]


def test_an_unchanged_tree_makes_a_layer_of_its_root_alone() -> None:
    assert diff(FURNISHED, FURNISHED) == Layer(Map({"": FURNISHED.nodes[""]}))


def test_a_layer_holds_what_changed_and_the_directories_above() -> None:
    layer = diff(FURNISHED, after(FURNISHED, (WriteAt("a/b/c", 0, b"z"), Unlink("c/a"))))
    assert set(layer.nodes) == {"", "a", "a/b", "a/b/c", "a/d", "c", "d"}
    assert layer.whiteouts == {"c/a"}


def test_a_removed_directory_is_hidden_by_one_whiteout() -> None:
    assert diff(FURNISHED, after(FURNISHED, (RemoveTree("a"),))) == Layer(Map({"": FURNISHED.nodes[""]}), frozenset({"a"}))


def test_the_largest_part_of_a_broken_group_stays_below() -> None:
    _, broken = outcomes_of(SHARED, SHARED, SetMode("a", 0o644))
    assert set(diff(SHARED, broken.tree).nodes) == {"", "a"}
    assert set(diff(SHARED, only(SHARED, Unlink("a"))).nodes) == {""}
    assert set(diff(SHARED, only(SHARED, Link("d", "a"))).nodes) == {"", "a", "b", "c", "d"}


def test_what_a_layer_covers() -> None:
    lower = tree_of(MakeDirectory("d"), MakeFile("d/a"), MakeFile("d/b"), MakeDirectory("e"), MakeFile("e/a"), MakeFile("f"))

    def shown(*changes: Change, whiteouts: frozenset[str] = frozenset(), opaque: frozenset[str] = frozenset()) -> set[str]:
        layer = Layer(tree_of(*changes).nodes, whiteouts, opaque)
        assert layer_well_formed(layer)
        return set(overlay(lower, layer).nodes) - {""}

    assert shown() == {"d", "d/a", "d/b", "e", "e/a", "f"}
    assert shown(MakeDirectory("d")) == shown()
    assert shown(MakeDirectory("d"), MakeFile("d/c"), opaque=frozenset({"d"})) == {"d", "d/c", "e", "e/a", "f"}
    assert shown(MakeFile("d"), MakeDirectory("f")) == {"d", "e", "e/a", "f"}
    assert shown(MakeDirectory("d"), whiteouts=frozenset({"d/a", "e", "none"})) == {"d", "d/b", "f"}
    assert shown(MakeFile("x"), opaque=frozenset({""})) == {"x"}


def test_a_directory_of_both_has_the_layers_attributes() -> None:
    lower = tree_of(MakeDirectory("d", 0o700), MakeFile("d/a"), SetMode("", 0o700))
    layer = Layer(tree_of(MakeDirectory("d", 0o711)).nodes)
    assert overlay(lower, layer) == tree_of(MakeDirectory("d", 0o711), MakeFile("d/a"))


def test_names_that_still_show_stay_one_inode() -> None:
    covered = overlay(SHARED, Layer(tree_of(MakeFile("a", b"2")).nodes, frozenset({"none"})))
    assert covered.nodes["b"].links == ("b", "c")
    assert overlay(SHARED, Layer(EMPTY.nodes, frozenset({"a", "b"}))) == tree_of(MakeFile("c", b"1"))
    assert stack([]) == EMPTY


@pytest.mark.parametrize(
    "layer",
    [
        Layer(Map()),
        Layer(EMPTY.nodes, frozenset({""})),
        Layer(EMPTY.nodes, frozenset({"a/b"})),
        Layer(EMPTY.nodes, frozenset({".."})),
        Layer(EMPTY.nodes, opaque=frozenset({"a"})),
        Layer(tree_of(MakeFile("a")).nodes, opaque=frozenset({"a"})),
    ],
)
def test_ill_formed_layers(layer: Layer) -> None:
    assert not layer_well_formed(layer)


# What else is told of trees


def test_touched_by() -> None:
    assert touched_by(FURNISHED, WriteAt("a/b/c", 0, b"x")) == {"", "a", "a/b", "a/b/c", "a/d", "d"}
    assert touched_by(FURNISHED, MakeFile("c/x")) == {"", "c", "c/x"}
    assert touched_by(FURNISHED, Link("c/x", "b")) == {"", "b", "c", "c/x"}
    assert touched_by(FURNISHED, Rename("c", "a/x")) == {"", "a", "a/x", "a/x/a", "a/x/\udcff", "c", "c/a", "c/\udcff"}
    assert touched_by(FURNISHED, RemoveTree("a/b")) == {"", "a", "a/b", "a/b/c", "a/d", "d"}
    assert touched_by(FURNISHED, SetMode("", 0)) == {""}


def test_distinct_inodes_and_their_blocks() -> None:
    nodes = distinct(FURNISHED, ["d", "b", "a/d", "a/b/c", "none", "b"])
    assert nodes == (FURNISHED.nodes["d"], FURNISHED.nodes["b"])
    assert [data_bytes(node) for node in (*nodes, FURNISHED.nodes["a"])] == [2 * BLOCK, BLOCK, 0]


def test_differences_name_the_path_and_the_attribute() -> None:
    other = after(
        FURNISHED,
        (
            WriteAt("a/b/c", BLOCK, b"z"),
            Unlink("c/\udcff"),
            MakeFile("x"),
            SetMode("c", 0o700),
            SetXattr("c", "trusted.a", b"2"),
            Unlink("a/c"),
            Truncate("b", 0),
            SetOwner("", 1, 2),
        ),
    )
    assert differences(FURNISHED, FURNISHED) == ()
    assert differences(FURNISHED, other) == (
        "/: owner expected 0:0, came 1:2",
        "/a/a: names expected /a/a, /a/c, came one",
        f"/a/b/c: content differs from byte {BLOCK}",
        "/a/c: missing (symlink)",
        f"/a/d: content differs from byte {BLOCK}",
        f"/b: xattrs expected security.capability={CAPABILITIES!r}, user.a=b'1', came user.a=b'1'; "
        f"size expected {3 * BLOCK + 1}, came 0; content differs from byte {3 * BLOCK}",
        "/c: mode expected 0755, came 0700; xattrs expected trusted.a=b'', came trusted.a=b'2'",
        "'/c/\\udcff': missing (fifo)",
        "and 2 more",
    )
    assert differences(EMPTY, tree_of(MakeFile("a\n"))) == ("'/a\\n': unexpected (file)",)


@given(trees(FURNISHED, most=4), trees(FURNISHED, most=4))
@example(FURNISHED, FURNISHED)
def test_trees_differ_when_and_only_when_lines_say_so(one: Tree, other: Tree) -> None:
    assert (differences(one, other) == ()) == (one == other)
    assert all(line.isprintable() and not line.endswith(": ") for line in differences(one, other))


ONE, TWO = replace(FILE, links=("a", "b")), replace(FILE, links=("a", "b"), mode=0)
DEVICE = Node(FileType.CHAR, 0o644, rdev=(1, 3))
ILL_FORMED = {
    "no root": Tree(Map()),
    "root is a file": with_node("", FILE),
    "no parent": with_node("a/b", FILE),
    "parent is a file": with_node("a/b", FILE, with_node("a", FILE)),
    "no path": with_node("a/", Node(FileType.DIRECTORY, 0)),
    "name too long": with_node(LONG, FILE),
    "mode": with_node("a", replace(FILE, mode=0o10000)),
    "symlink mode": with_node("a", Node(FileType.SYMLINK, 0o644, target="a")),
    "symlink without target": with_node("a", Node(FileType.SYMLINK, 0o777)),
    "target without symlink": with_node("a", replace(FILE, target="a")),
    "owner": with_node("a", replace(FILE, uid=-1)),
    "group": with_node("a", replace(FILE, gid=1 << 32)),
    "xattrs out of order": with_node("a", replace(FILE, xattrs=(("user.b", b""), ("user.a", b"")))),
    "xattr twice": with_node("a", replace(FILE, xattrs=(("user.a", b""), ("user.a", b"1")))),
    "xattr of overlay": with_node("a", replace(FILE, xattrs=(("trusted.overlay.opaque", b"y"),))),
    "user xattr of a device": with_node("a", replace(DEVICE, xattrs=(("user.a", b""),))),
    "data of a directory": with_node("", replace(EMPTY.nodes[""], data=Data(1))),
    "size": with_node("a", replace(FILE, data=Data(-1))),
    "data beyond the size": with_node("a", replace(FILE, data=Data(1, ((0, b"xx"),)))),
    "trailing zeros": with_node("a", replace(FILE, data=Data(9, ((0, b"x\0"),)))),
    "block before the start": with_node("a", replace(FILE, data=Data(9, ((-1, b"x"),)))),
    "block too long": with_node("a", replace(FILE, data=Data(2 * BLOCK, ((0, b"x" * (BLOCK + 1)),)))),
    "blocks out of order": with_node("a", replace(FILE, data=Data(2 * BLOCK, ((1, b"x"), (0, b"x"))))),
    "block twice": with_node("a", replace(FILE, data=Data(2 * BLOCK, ((0, b"x"), (0, b"y"))))),
    "device number of a file": with_node("a", replace(FILE, rdev=(1, 3))),
    "whiteout": with_node("a", replace(DEVICE, rdev=(0, 0))),
    "device number": with_node("a", replace(DEVICE, rdev=(1, 1 << 20))),
    "one name as a group": with_node("a", replace(FILE, links=("a",))),
    "group without the name": with_node("c", ONE, with_node("a", ONE, with_node("b", ONE))),
    "group with a name not there": with_node("a", ONE),
    "group of different inodes": with_node("a", ONE, with_node("b", TWO)),
    "group out of order": with_node("a", replace(FILE, links=("b", "a")), with_node("b", replace(FILE, links=("b", "a")))),
    "directories linked": with_node("a", Node(FileType.DIRECTORY, 0, links=("a", "b"))),
}


@pytest.mark.parametrize("tree", ILL_FORMED.values(), ids=ILL_FORMED.keys())
def test_ill_formed_trees(tree: Tree) -> None:
    assert not well_formed(tree)


def test_a_well_formed_tree_may_hold_anything_that_a_disk_does() -> None:
    assert well_formed(FURNISHED)
    assert well_formed(with_node("s", Node(FileType.SOCKET, 0o755), FURNISHED))
    assert well_formed(with_node("a", ONE, with_node("b", ONE)))
