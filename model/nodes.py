"""Inodes, content and trees as values, and what makes them well formed. `tree.py` builds on it and gives it all on.

A path is "/"-joined without a leading slash; "" is the root directory, whose own mode, owner and xattrs count.
Bytes of a name that are not UTF-8 stand as surrogate escapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from snapspec.model.frozen import Map

#: The unit of file content: a block holds data or is a hole.
BLOCK = 4096

#: No file grows beyond this: every file system that carries snapshots holds a hole of this size.
MAX_SIZE = 1 << 42

#: Bytes of one name, as every Linux file system has it.
MAX_NAME = 255

#: Bytes of a symlink's target.
MAX_TARGET = 4095

#: File capabilities: the kernel drops them when the file is written, cut or given away.
CAPABILITY = "security.capability"

#: "/"-joined names, no leading slash; "" is the root directory.
Path = str


class FileType(Enum):
    """What an inode is. No change makes a socket; a scan may meet one."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    CHAR = "character device"
    BLOCK_DEVICE = "block device"
    SOCKET = "socket"


DEVICES = (FileType.CHAR, FileType.BLOCK_DEVICE)


@dataclass(frozen=True, slots=True)
class Data:
    """Content of a file: its size, and the blocks that are not all zero, by index, each without its trailing zeros."""

    size: int = 0
    blocks: tuple[tuple[int, bytes], ...] = ()


#: The content of an empty file, and of everything that is no file.
NO_DATA = Data()


@dataclass(frozen=True, slots=True)
class Node:
    """An inode as one of its names shows it. All names of an inode hold equal nodes.

    `data` is for files, `target` for symlinks, `rdev` (major, minor) for devices. `links` holds all names of the inode,
    sorted, when there is more than one; else it is empty.
    """

    type: FileType
    mode: int
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    data: Data = NO_DATA
    target: str = ""
    rdev: tuple[int, int] = (0, 0)
    links: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """All inodes by path. It always holds "", a directory, and every parent of a path is a directory in it."""

    nodes: Map[Path, Node]


#: The tree of an empty snapshot without a parent (SNAP-CONTENT-6).
EMPTY = Tree(Map({"": Node(FileType.DIRECTORY, 0o755)}))


def parent_of(path: Path) -> Path:
    """The directory that holds `path`; "" for a top-level path and for the root itself."""
    return path.rpartition("/")[0]


def ancestors_of(path: Path) -> Iterator[Path]:
    """The directories above `path`, nearest first, the root last; nothing for the root itself."""
    while path:
        path = parent_of(path)
        yield path


def is_below(path: Path, directory: Path) -> bool:
    """Whether `path` lies below `directory`, at any depth."""
    return path != directory and (not directory or path.startswith(directory + "/"))


def bytes_of(text: str) -> bytes:
    """The bytes that a path, a name or a target stands for; it must be `is_text`."""
    return text.encode("utf-8", "surrogateescape")


def is_text(text: str) -> bool:
    """Whether `text` stands for bytes that Linux can hold: no NUL, and the one spelling of those bytes."""
    if text.isascii():
        return "\0" not in text
    if "\0" in text or any("\ud800" <= letter < "\udc80" or "\udcff" < letter <= "\udfff" for letter in text):
        return False
    return bytes_of(text).decode("utf-8", "surrogateescape") == text


def is_path(path: Path) -> bool:
    """Whether `path` is one: "" or names joined by "/", none of them empty, "." or "..". Names may be too long."""
    return path == "" or (is_text(path) and {"", ".", ".."}.isdisjoint(path.split("/")))


def is_long(name: str) -> bool:
    """Whether `name`, one part of a path, is longer than a file system takes."""
    return len(name) > MAX_NAME // 4 and len(bytes_of(name)) > MAX_NAME


def written(data: Data, offset: int, new: bytes) -> Data:
    """`data` after `new` is written at `offset`. Writing nothing changes nothing, wherever it is."""
    if not new:
        return data
    blocks = dict(data.blocks)
    end = offset + len(new)
    for index in range(offset // BLOCK, (end - 1) // BLOCK + 1):
        start, old = index * BLOCK, blocks.get(index, b"")
        left, right = max(offset - start, 0), min(end - start, BLOCK)
        blocks[index] = old[:left].ljust(left, b"\0") + new[start + left - offset : start + right - offset] + old[right:]
    return Data(max(data.size, end), canonical(blocks))


def truncated(data: Data, size: int) -> Data:
    """`data` cut to `size`, or grown to it by a hole."""
    if size >= data.size:
        return Data(size, data.blocks)
    return Data(size, canonical({index: block[: size - index * BLOCK] for index, block in data.blocks if index * BLOCK < size}))


def canonical(blocks: dict[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    """Blocks by index as `Data` keeps them: in order, without trailing zeros, the empty ones gone."""
    stripped = ((index, block.rstrip(b"\0")) for index, block in sorted(blocks.items()))
    return tuple((index, block) for index, block in stripped if block)


def data_of(content: bytes) -> Data:
    """`content` as a value."""
    return written(NO_DATA, 0, content)


def well_formed(tree: Tree) -> bool:
    """Whether `tree` could be on a disk: each path under a directory, each inode of one piece, each value in its one spelling."""
    nodes = tree.nodes
    return "" in nodes and all(
        is_path(path) and is_placed(nodes, path) and _sound_node(node) and (not node.links or _sound_links(nodes, path))
        for path, node in nodes.items()
    )


def is_placed(nodes: Map[Path, Node], path: Path) -> bool:
    """Whether `path` has a directory above it in `nodes` and no name too long; the root is to be a directory itself."""
    parent = nodes.get(parent_of(path))
    return parent is not None and parent.type is FileType.DIRECTORY and not is_long(path.rpartition("/")[2])


def _sound_links(nodes: Map[Path, Node], path: Path) -> bool:
    node = nodes[path]
    return (
        node.type is not FileType.DIRECTORY
        and len(node.links) > 1
        and node.links == tuple(sorted(set(node.links)))
        and path in node.links
        and all(nodes.get(name) == node for name in node.links)
    )


def _sound_node(node: Node) -> bool:
    names = tuple(name for name, _ in node.xattrs)
    return (
        0 <= node.mode <= 0o7777
        and (node.type is not FileType.SYMLINK or node.mode == 0o777)
        and owner_error(node.uid, node.gid) == ""
        and names == tuple(sorted(set(names)))
        and not any(xattr_refused(node, name) or xattr_error(name, value) for name, value in node.xattrs)
        and (_sound_data(node.data) if node.type is FileType.FILE else node.data == NO_DATA)
        and (target_error(node.target) if node.type is FileType.SYMLINK else node.target) == ""
        and (device_error(node.type, *node.rdev) == "" if node.type in DEVICES else node.rdev == (0, 0))
    )


def _sound_data(data: Data) -> bool:
    indices = tuple(index for index, _ in data.blocks)
    return (
        0 <= data.size <= MAX_SIZE
        and all(index >= 0 for index in indices)
        and data.blocks == canonical(dict(data.blocks))
        and all(len(block) <= BLOCK and index * BLOCK + len(block) <= data.size for index, block in data.blocks)
    )


def owner_error(uid: int, gid: int) -> str:
    """Why `uid` and `gid` own no file: the name of an errno, or ""."""
    return "" if 0 <= uid < 0xFFFFFFFF and 0 <= gid < 0xFFFFFFFF else "EINVAL"


def target_error(target: str) -> str:
    """Why `target` cannot be what a symlink holds: the name of an errno, or ""."""
    if not is_text(target):
        return "EINVAL"
    if not target:
        return "ENOENT"
    return "ENAMETOOLONG" if len(bytes_of(target)) > MAX_TARGET else ""


def device_error(kind: FileType, major: int, minor: int) -> str:
    """Why there is no such device node: the name of an errno, or "". Character device 0/0 is overlay's whiteout, never a file."""
    if kind not in DEVICES or not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        return "EINVAL"
    return "EPERM" if kind is FileType.CHAR and (major, minor) == (0, 0) else ""


def is_xattr(name: str) -> bool:
    """Whether the attribute counts as content: user.*, trusted.* and file capabilities, without what overlay keeps for itself."""
    if name.startswith(("trusted.overlay.", "user.overlay.")):
        return False
    return name == CAPABILITY or name.startswith(("user.", "trusted."))


def xattr_error(name: str, value: bytes | None) -> str:
    """Why the attribute can be on no file: the name of an errno, or "". `value` is None when it is to be removed."""
    if not is_text(name) or name in ("user.", "trusted."):
        return "EINVAL"
    if not name or len(bytes_of(name)) > MAX_NAME:
        return "ERANGE"
    if not is_xattr(name):
        return "EOPNOTSUPP"
    is_capability = value is None or (len(value) == 20 and value[0] <= 1 and value[1:4] == b"\0\0\2")
    return "" if name != CAPABILITY or is_capability else "EINVAL"


def xattr_refused(node: Node, name: str) -> str:
    """Why `node` takes no attribute `name`: the name of an errno, or "". Only files and directories have user.* ones."""
    allowed = node.type in (FileType.FILE, FileType.DIRECTORY) or not name.startswith("user.")
    return "" if allowed else "EPERM"
