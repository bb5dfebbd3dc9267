"""Two trees side by side: what overlaying a layer on its parents shows, the layer between two trees, how two trees differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import icontract

from snapspec.model.frozen import Map
from snapspec.model.nodes import (
    BLOCK,
    EMPTY,
    Data,
    FileType,
    Node,
    Path,
    Tree,
    ancestors_of,
    is_path,
    is_placed,
    parent_of,
    well_formed,
)

# Paths told of in full: a tree that is wrong at more of them is wrong as a whole.
_TOLD = 8


@dataclass(frozen=True, slots=True)
class Layer:
    """What a snapshot holds for itself: its own nodes, the paths that it hides, and its directories that show nothing from below.

    "" and every parent of a path named here are directories among `nodes`. A hard-link group lies in one layer as a whole.
    """

    nodes: Map[Path, Node]
    whiteouts: frozenset[Path] = frozenset()
    opaque: frozenset[Path] = frozenset()


def layer_well_formed(layer: Layer) -> bool:
    """Whether `layer` is a tree of its own, with its whiteouts beside its nodes and its opaque directories among them."""
    nodes = layer.nodes
    return (
        well_formed(Tree(nodes))
        and all(is_path(path) and path not in nodes and is_placed(nodes, path) for path in layer.whiteouts)
        and all(path in nodes and nodes[path].type is FileType.DIRECTORY for path in layer.opaque)
    )


@icontract.require(lambda lower: well_formed(lower), "SNAP-CONTENT-1: the tree below is well formed", enabled=icontract.SLOW)
@icontract.require(lambda layer: layer_well_formed(layer), "SNAP-CONTENT-1: the layer is well formed", enabled=icontract.SLOW)
@icontract.ensure(lambda result: well_formed(result), "SNAP-CONTENT-1: what shows is well formed", enabled=icontract.SLOW)
def overlay(lower: Tree, layer: Layer) -> Tree:
    """What `layer` on top of `lower` shows (SNAP-CONTENT-1).

    A directory of both is merged, with the layer's own attributes, unless it is opaque. Names of one inode of `lower` that
    still show stay one inode; a name that the layer holds itself is no longer one of them.
    """
    shown = set(_shown(lower.nodes, layer))
    nodes = {path: _with_names(lower.nodes[path], shown) for path in shown}
    return Tree(Map({**nodes, **layer.nodes}))


def _shown(lower: Map[Path, Node], layer: Layer) -> Iterator[Path]:
    """The paths of `lower` that neither `layer` nor a hidden parent covers."""
    open_directories = {""} - layer.opaque
    for path in sorted(lower):
        if path == "" or parent_of(path) not in open_directories or path in layer.whiteouts:
            continue
        if path not in layer.nodes:
            yield path
        merged = _is_directory(lower[path]) and _is_directory(layer.nodes.get(path, lower[path]))
        if merged and path not in layer.opaque:
            open_directories.add(path)


def _with_names(node: Node, shown: set[Path]) -> Node:
    left = tuple(name for name in node.links if name in shown)
    return node if left == node.links else replace(node, links=left if len(left) > 1 else ())


def stack(layers: Sequence[Layer]) -> Tree:
    """What `layers` show, the first at the bottom; EMPTY when there is none."""
    return reduce(overlay, layers, EMPTY)


@icontract.require(lambda lower: well_formed(lower), "SNAP-CONTENT-1: the tree below is well formed", enabled=icontract.SLOW)
@icontract.require(lambda upper: well_formed(upper), "SNAP-CONTENT-1: the tree to show is well formed", enabled=icontract.SLOW)
@icontract.ensure(lambda result: layer_well_formed(result), "SNAP-CONTENT-1: the layer is well formed", enabled=icontract.SLOW)
@icontract.ensure(
    lambda lower, upper, result: overlay(lower, result) == upper,
    "SNAP-CONTENT-1: the layer on the tree below shows the tree",
    enabled=icontract.SLOW,
)
def diff(lower: Tree, upper: Tree) -> Layer:
    """The layer between two trees: `overlay(lower, diff(lower, upper)) == upper` for all well-formed trees.

    It holds what differs and the directories above, hides what is gone by whiteouts, and makes no directory opaque: whiteouts
    say the same. A hard-link group stays below only as a whole: when it is unchanged or has only lost names. It goes into the
    layer with all its names when anything else about it changed. Of several groups that one group below fell apart into, the
    largest stays below, as when the others were copied up.
    """
    stays = _staying(lower.nodes, upper.nodes)
    own = {path for path in upper.nodes if path not in stays}
    hidden = {path for path in lower.nodes if path not in upper.nodes and _is_directory(upper.nodes.get(parent_of(path)))}
    above = {directory for path in own | hidden for directory in ancestors_of(path)}
    kept = own | above | {""}
    return Layer(Map((path, upper.nodes[path]) for path in kept), frozenset(hidden))


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.type is FileType.DIRECTORY


def _staying(lower: Map[Path, Node], upper: Map[Path, Node]) -> set[Path]:
    """The paths of `upper` that `lower` shows as they are."""
    stays: set[Path] = set()
    taken: dict[tuple[Path, ...], tuple[Path, ...]] = {}
    for path in sorted(upper, key=lambda path: (-len(upper[path].links), path)):
        node, low = upper[path], lower.get(path)
        if low is None or _inode(low) != _inode(node):
            continue
        group, below = node.links or (path,), low.links or (path,)
        if set(group) <= set(below) and taken.setdefault(below, group) == group:
            stays.add(path)
    return stays


def _inode(node: Node) -> tuple[FileType, int, int, int, tuple[tuple[str, bytes], ...], Data, str, tuple[int, int]]:
    """All of an inode but its names."""
    return (node.type, node.mode, node.uid, node.gid, node.xattrs, node.data, node.target, node.rdev)


def differences(expected: Tree, came: Tree) -> tuple[str, ...]:
    """How `came` differs from `expected`: a line for each path, the first eight of them, then how many more; () when equal."""
    one, other = expected.nodes, came.nodes
    paths = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
    lines = tuple(f"{_shown_path(path)}: {_difference(one, other, path)}" for path in paths[:_TOLD])
    return lines if len(paths) <= _TOLD else (*lines, f"and {len(paths) - _TOLD} more")


def _shown_path(path: Path) -> str:
    return f"/{path}" if path.isprintable() else repr(f"/{path}")


def _difference(expected: Map[Path, Node], came: Map[Path, Node], path: Path) -> str:
    if path not in came:
        return f"missing ({expected[path].type.value})"
    if path not in expected:
        return f"unexpected ({came[path].type.value})"
    one, other = expected[path], came[path]
    pairs = zip(_attributes(one).items(), _attributes(other).values(), strict=True)
    told = [f"{name} expected {wanted}, came {got}" for (name, wanted), got in pairs if wanted != got]
    if one.data.blocks != other.data.blocks:
        told.append(f"content differs from byte {_first_difference(one.data, other.data)}")
    return "; ".join(told)


def _attributes(node: Node) -> dict[str, str]:
    return {
        "type": node.type.value,
        "mode": f"{node.mode:04o}",
        "owner": f"{node.uid}:{node.gid}",
        "xattrs": ", ".join(f"{name}={value!r}" for name, value in node.xattrs) or "none",
        "size": str(node.data.size),
        "target": repr(node.target),
        "device": "{}:{}".format(*node.rdev),
        "names": ", ".join(map(_shown_path, node.links)) or "one",
    }


def _first_difference(one: Data, other: Data) -> int:
    first, second = dict(one.blocks), dict(other.blocks)
    index = min(index for index in first.keys() | second.keys() if first.get(index) != second.get(index))
    blocks = (first.get(index, b"").ljust(BLOCK, b"\0"), second.get(index, b"").ljust(BLOCK, b"\0"))
    return index * BLOCK + next(at for at, (a, b) in enumerate(zip(*blocks, strict=True)) if a != b)
