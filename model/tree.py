"""Changes to file trees, what overlaying a layer on its parents shows, and how two trees differ.

A change is made as root on a POSIX file system, through directory descriptors: no symlink is ever followed (one in the middle
of a path is ENOTDIR), no fifo or device is ever opened, and the mode is kept where a kernel might clear set-id bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

import icontract

from snapspec.model.frozen import Map
from snapspec.model.layers import Layer, diff, differences, layer_well_formed, overlay, stack
from snapspec.model.nodes import (
    BLOCK,
    CAPABILITY,
    EMPTY,
    MAX_SIZE,
    Data,
    FileType,
    Node,
    Path,
    Tree,
    ancestors_of,
    data_of,
    device_error,
    is_below,
    is_long,
    is_path,
    owner_error,
    parent_of,
    target_error,
    truncated,
    well_formed,
    written,
    xattr_error,
    xattr_refused,
)

__all__ = [
    "BLOCK",
    "EMPTY",
    "MAX_SIZE",
    "Applied",
    "Change",
    "Data",
    "FileType",
    "Layer",
    "Link",
    "MakeDevice",
    "MakeDirectory",
    "MakeFifo",
    "MakeFile",
    "MakeSymlink",
    "Node",
    "Path",
    "RemoveDirectory",
    "RemoveTree",
    "RemoveXattr",
    "Rename",
    "SetMode",
    "SetOwner",
    "SetXattr",
    "Tree",
    "Truncate",
    "Unlink",
    "WriteAt",
    "ancestors_of",
    "argument_error",
    "data_bytes",
    "data_of",
    "diff",
    "differences",
    "distinct",
    "layer_well_formed",
    "outcomes_of",
    "overlay",
    "parent_of",
    "stack",
    "touched_by",
    "well_formed",
]


@dataclass(frozen=True, slots=True)
class MakeFile:
    """Create the file `path`, which is not there yet, holding `data`."""

    path: Path
    data: bytes = b""
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class WriteAt:
    """Write `data` into the file `path` at `offset`; a gap before it becomes a hole."""

    path: Path
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """Give the file `path` the size `size`: cut it, or add a hole."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Create the directory `path`."""

    path: Path
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class MakeSymlink:
    """Create the symlink `path` holding `target`."""

    path: Path
    target: str


@dataclass(frozen=True, slots=True)
class MakeFifo:
    """Create the fifo `path`."""

    path: Path
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class MakeDevice:
    """Create the character or block device node `path`."""

    path: Path
    type: FileType
    major: int
    minor: int
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Link:
    """Give the inode at `to` the further name `path`."""

    path: Path
    to: Path


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove the name `path`, which is not a directory."""

    path: Path


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Remove the empty directory `path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Remove the directory `path` and all that is below it."""

    path: Path


@dataclass(frozen=True, slots=True)
class Rename:
    """Move `source` to `path`, replacing what is there as rename(2) does."""

    source: Path
    path: Path


@dataclass(frozen=True, slots=True)
class SetMode:
    """Set the permission bits of `path`."""

    path: Path
    mode: int


@dataclass(frozen=True, slots=True)
class SetOwner:
    """Set owner and group of `path`; its mode stays."""

    path: Path
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SetXattr:
    """Set the extended attribute `name` of `path`."""

    path: Path
    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class RemoveXattr:
    """Remove the extended attribute `name` of `path`."""

    path: Path
    name: str


Change = (
    MakeFile
    | WriteAt
    | Truncate
    | MakeDirectory
    | MakeSymlink
    | MakeFifo
    | MakeDevice
    | Link
    | Unlink
    | RemoveDirectory
    | RemoveTree
    | Rename
    | SetMode
    | SetOwner
    | SetXattr
    | RemoveXattr
)


@dataclass(frozen=True, slots=True)
class Applied:
    """One allowed outcome of a change: "ok" or the name of the errno, and the tree afterwards."""

    result: str
    tree: Tree


def argument_error(change: Change) -> str:
    """Why `change` fails on every tree: the name of an errno, or "". Who applies changes to real files asks it first, too.

    Most of these errors are what Linux answers; EFBIG beyond MAX_SIZE, EINVAL for "." and "..", and EOPNOTSUPP for attributes
    that no snapshot keeps are limits of the model.
    """
    others = (change.source,) if isinstance(change, Rename) else (change.to,) if isinstance(change, Link) else ()
    if not all(map(is_path, (change.path, *others))):
        return "EINVAL"
    match change:
        case RemoveDirectory(path="") | RemoveTree(path="") | Rename(source="") | Rename(path=""):
            return "EBUSY"
        case WriteAt(offset=offset, data=data):
            return _size_error(offset, offset + len(data))
        case Truncate(size=size):
            return _size_error(size, size)
        case MakeSymlink(target=target):
            return target_error(target)
        case MakeDevice(type=kind, major=major, minor=minor):
            return device_error(kind, major, minor).replace("EPERM", "")  # refused only where nothing is in its way
        case SetOwner(uid=uid, gid=gid):
            return owner_error(uid, gid)
        case SetXattr(name=name, value=value):
            return xattr_error(name, value)
        case RemoveXattr(name=name):
            return xattr_error(name, None)
    return ""


def _size_error(start: int, end: int) -> str:
    return "EINVAL" if start < 0 else "EFBIG" if end > MAX_SIZE else ""


@icontract.require(lambda lower: well_formed(lower), "SNAP-CONTENT-1: the parent's tree is well formed", enabled=icontract.SLOW)
@icontract.require(lambda tree: well_formed(tree), "SNAP-CONTENT-1: the tree is well formed", enabled=icontract.SLOW)
@icontract.ensure(
    lambda result: all(well_formed(applied.tree) for applied in result),
    "SNAP-CONTENT-1: every outcome is a well-formed tree",
    enabled=icontract.SLOW,
)
@icontract.ensure(
    lambda tree, result: all(applied.result == "ok" or applied.tree is tree for applied in result),
    "SNAP-CONTENT-2: a change that fails changes nothing",
)
@icontract.ensure(lambda result: len(result) == len(set(result)) > 0, "SNAP-CONTENT-2: some outcome is allowed, each once")
def outcomes_of(lower: Tree, tree: Tree, change: Change) -> tuple[Applied, ...]:
    """All allowed outcomes of `change` on `tree`, whose snapshot has a parent showing `lower` (EMPTY without a parent).

    First what a plain file system does (SNAP-CONTENT-2). Then, where they differ, the freedoms of drivers: a name of a
    hard-linked file that is still the parent's may leave its group when it is changed, as copy-up does (SNAP-CONTENT-3);
    a directory that the parent has at that path may refuse to be renamed with EXDEV (SNAP-CONTENT-4).
    """
    result, after = _applied(tree, change)
    outcomes = [Applied(result, after)]
    name = _copied_up(change)
    if result == "ok" and name is not None and _is_shared(lower, tree, name):
        alone = Applied(*_applied(_broken_out(tree, name), change))
        outcomes += [alone] if alone not in outcomes else []
    if isinstance(change, Rename) and _may_stay(lower, tree, change, result):
        outcomes.append(Applied("EXDEV", tree))
    return tuple(outcomes)


def _copied_up(change: Change) -> Path | None:
    """The name through which `change` changes an inode, so that an overlay copies it up."""
    match change:
        case Link():
            return change.to
        case Rename():
            return change.source if change.source != change.path else None
        case WriteAt() | Truncate() | SetMode() | SetOwner() | SetXattr() | RemoveXattr():
            return change.path
    return None


def _is_shared(lower: Tree, tree: Tree, path: Path) -> bool:
    """Whether `path` is one of several names of an inode that is still as `lower` has it."""
    node, low = tree.nodes[path], lower.nodes.get(path)
    return bool(node.links) and low is not None and set(node.links) <= set(low.links) and replace(node, links=low.links) == low


def _broken_out(tree: Tree, path: Path) -> Tree:
    alone = replace(tree.nodes[path], links=())
    return Tree(_without(tree.nodes, {path}).set(path, alone))


def _may_stay(lower: Tree, tree: Tree, change: Rename, result: str) -> bool:
    """Whether a rename may answer EXDEV: of a directory that `lower` has too, once nothing that every kernel checks is wrong."""
    if change.source == change.path or result not in ("ok", "ENOTEMPTY") or is_below(change.source, change.path):
        return False
    both = (tree.nodes[change.source], lower.nodes.get(change.source))
    return all(node is not None and node.type is FileType.DIRECTORY for node in both)


def _applied(tree: Tree, change: Change) -> tuple[str, Tree]:
    """What a plain file system does: "ok" and the tree afterwards, or the name of an errno and `tree`."""
    error = argument_error(change)
    if error:
        return error, tree
    match change:
        case MakeFile() | MakeDirectory() | MakeSymlink() | MakeFifo() | MakeDevice():
            return _make(tree, change)
        case Link():
            return _link(tree, change)
        case Unlink() | RemoveDirectory() | RemoveTree():
            return _remove(tree, change)
        case Rename():
            return _rename(tree, change)
    return _alter(tree, change)


def _parent_error(nodes: Map[Path, Node], path: Path) -> str:
    """Why the directory above `path` cannot be opened: the name of an errno, or ""."""
    at = ""
    for part in path.split("/")[:-1]:
        at = f"{at}/{part}" if at else part
        node = nodes.get(at)
        if node is None:
            return "ENAMETOOLONG" if is_long(part) else "ENOENT"
        if node.type is not FileType.DIRECTORY:
            return "ENOTDIR"
    return ""


def _absence(nodes: Map[Path, Node], path: Path) -> str:
    """Why nothing is at `path`, whose parent is there: the name of an errno, or "" when something is."""
    if path in nodes:
        return ""
    return "ENAMETOOLONG" if is_long(path.rpartition("/")[2]) else "ENOENT"


def _make_error(nodes: Map[Path, Node], path: Path) -> str:
    """Why no new name can be made at `path`: the name of an errno, or ""."""
    return _parent_error(nodes, path) or {"ENOENT": "", "": "EEXIST"}.get(absent := _absence(nodes, path), absent)


_Make = MakeFile | MakeDirectory | MakeSymlink | MakeFifo | MakeDevice


def _make(tree: Tree, change: _Make) -> tuple[str, Tree]:
    error = _make_error(tree.nodes, change.path)
    if not error and isinstance(change, MakeDevice):
        error = device_error(change.type, change.major, change.minor)
    if error:
        return error, tree
    parent = tree.nodes[parent_of(change.path)]
    made = _made(change, parent.gid if parent.mode & 0o2000 else 0)
    return "ok", Tree(tree.nodes.set(change.path, made))


def _made(change: _Make, gid: int) -> Node:
    match change:
        case MakeFile(data=data, mode=mode):
            return Node(FileType.FILE, mode & 0o7777, gid=gid, data=data_of(data))
        case MakeDirectory(mode=mode):
            return Node(FileType.DIRECTORY, mode & 0o7777, gid=gid)
        case MakeSymlink(target=target):
            return Node(FileType.SYMLINK, 0o777, gid=gid, target=target)
        case MakeFifo(mode=mode):
            return Node(FileType.FIFO, mode & 0o7777, gid=gid)
    return Node(change.type, change.mode & 0o7777, gid=gid, rdev=(change.major, change.minor))


def _link(tree: Tree, change: Link) -> tuple[str, Tree]:
    nodes, path, to = tree.nodes, change.path, change.to
    error = _parent_error(nodes, to) or _absence(nodes, to) or _make_error(nodes, path)
    if not error and nodes[to].type is FileType.DIRECTORY:
        error = "EPERM"
    if error:
        return error, tree
    links = tuple(sorted((*(nodes[to].links or (to,)), path)))
    return "ok", Tree(_put(nodes, links, replace(nodes[to], links=links)))


def _put(nodes: Map[Path, Node], paths: Iterable[Path], node: Node) -> Map[Path, Node]:
    return reduce(lambda changed, path: changed.set(path, node), paths, nodes)


def _remove(tree: Tree, change: Unlink | RemoveDirectory | RemoveTree) -> tuple[str, Tree]:
    nodes, path = tree.nodes, change.path
    error = _parent_error(nodes, path) or _absence(nodes, path)
    if error:
        return error, tree
    is_directory = nodes[path].type is FileType.DIRECTORY
    if is_directory == isinstance(change, Unlink):
        return "EISDIR" if is_directory else "ENOTDIR", tree
    gone = {path, *_below(nodes, path)}
    if isinstance(change, RemoveDirectory) and len(gone) > 1:
        return "ENOTEMPTY", tree
    return "ok", Tree(_without(nodes, gone))


def _below(nodes: Map[Path, Node], directory: Path) -> Iterator[Path]:
    return (path for path in nodes if is_below(path, directory))


def _without(nodes: Map[Path, Node], gone: set[Path]) -> Map[Path, Node]:
    """`nodes` without the names `gone`; what else their inodes are called loses those names."""
    kept = nodes.without(*gone)
    for links in {nodes[path].links for path in gone}:
        left = tuple(name for name in links if name not in gone)
        if left:
            kept = _put(kept, left, replace(nodes[left[0]], links=left if len(left) > 1 else ()))
    return kept


def _rename(tree: Tree, change: Rename) -> tuple[str, Tree]:
    nodes, source, path = tree.nodes, change.source, change.path
    error = _rename_error(nodes, source, path)
    if error or source == path or path in nodes[source].links:
        return error or "ok", tree
    if path in nodes:
        nodes = _without(nodes, {path})
    moved = {name: path + name[len(source) :] for name in (source, *_below(nodes, source))}
    return "ok", Tree(Map((moved.get(name, name), _moved(node, moved)) for name, node in nodes.items()))


def _moved(node: Node, moved: dict[Path, Path]) -> Node:
    if moved.keys().isdisjoint(node.links):
        return node
    return replace(node, links=tuple(sorted(moved.get(name, name) for name in node.links)))


def _rename_error(nodes: Map[Path, Node], source: Path, path: Path) -> str:
    """Why rename(2) refuses, in the order in which Linux looks: the name of an errno, or ""."""
    error = _parent_error(nodes, source) or _parent_error(nodes, path) or _absence(nodes, source)
    if error or _absence(nodes, path) == "ENAMETOOLONG":
        return error or "ENAMETOOLONG"
    if is_below(path, source):
        return "EINVAL"
    if is_below(source, path):
        return "ENOTEMPTY"
    target = nodes.get(path)
    if target is None or source == path:
        return ""
    is_directory = nodes[source].type is FileType.DIRECTORY
    if is_directory != (target.type is FileType.DIRECTORY):
        return "ENOTDIR" if is_directory else "EISDIR"
    return "ENOTEMPTY" if any(_below(nodes, path)) else ""


_Alter = WriteAt | Truncate | SetMode | SetOwner | SetXattr | RemoveXattr


def _alter(tree: Tree, change: _Alter) -> tuple[str, Tree]:
    nodes, path = tree.nodes, change.path
    error = _parent_error(nodes, path) or _absence(nodes, path) or _alter_error(nodes[path], change)
    if error:
        return error, tree
    node = nodes[path]
    return "ok", Tree(_put(nodes, node.links or (path,), _altered(node, change)))


def _alter_error(node: Node, change: _Alter) -> str:
    match change:
        case WriteAt() | Truncate():
            refused = {FileType.FILE: "", FileType.DIRECTORY: "EISDIR", FileType.SYMLINK: "ELOOP"}
            return refused.get(node.type, "EINVAL")
        case SetMode():
            return "EOPNOTSUPP" if node.type is FileType.SYMLINK else ""
        case SetXattr(name=name):
            return xattr_refused(node, name)
        case RemoveXattr(name=name):
            return xattr_refused(node, name) or ("" if name in dict(node.xattrs) else "ENODATA")
    return ""


def _altered(node: Node, change: _Alter) -> Node:
    match change:
        case WriteAt(offset=offset, data=data):
            return replace(_uncapable(node), data=written(node.data, offset, data)) if data else node
        case Truncate(size=size):
            return replace(_uncapable(node), data=truncated(node.data, size))
        case SetMode(mode=mode):
            return replace(node, mode=mode & 0o7777)
        case SetOwner(uid=uid, gid=gid):
            return replace(node if node.type is FileType.DIRECTORY else _uncapable(node), uid=uid, gid=gid)
        case SetXattr(name=name, value=value):
            return replace(node, xattrs=tuple(sorted({**dict(node.xattrs), name: value}.items())))
    return replace(node, xattrs=tuple(pair for pair in node.xattrs if pair[0] != change.name))


def _uncapable(node: Node) -> Node:
    return replace(node, xattrs=tuple(pair for pair in node.xattrs if pair[0] != CAPABILITY)) if node.xattrs else node


def touched_by(tree: Tree, change: Change) -> frozenset[Path]:
    """The paths whose inodes `change` may copy up or make: both ends, what moves or goes with them, other names, ancestors."""
    ends = {change.path}
    if isinstance(change, Link):
        ends.add(change.to)
    if isinstance(change, Rename):
        moved = (change.source, *_below(tree.nodes, change.source))
        ends.update(moved, (change.path + name[len(change.source) :] for name in moved))
    if isinstance(change, RemoveTree):
        ends.update(_below(tree.nodes, change.path))
    links = {name for path in ends & tree.nodes.keys() for name in tree.nodes[path].links}
    return frozenset(ends | links | {above for path in ends for above in ancestors_of(path)})


def data_bytes(node: Node) -> int:
    """The bytes of the blocks that a file's content needs; 0 for everything else. Holes and blocks of zeros count for nothing."""
    return BLOCK * len(node.data.blocks)


def distinct(tree: Tree, paths: Iterable[Path]) -> tuple[Node, ...]:
    """The inodes at those of `paths` that `tree` has, each once, in the order of its first path."""
    inodes: dict[tuple[Path, ...], Node] = {}
    for path in sorted(set(paths) & tree.nodes.keys()):
        node = tree.nodes[path]
        inodes.setdefault(node.links or (path,), node)
    return tuple(inodes.values())
