"""File trees in memory, and the changes that callers make to them: what both levels of the adapter stand on."""

from __future__ import annotations

import base64
from typing import Any

BLOCK, MAX_SIZE = 4096, 1 << 42


# --- text and bytes: paths, targets and names are bytes here


def to_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def from_bytes(value: bytes) -> Any:
    return {"is": "bytes", "base64": base64.b64encode(value).decode()}


def from_text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return from_bytes(value)


# --- file trees: inodes by path; all names of an inode hold the same object


class Inode:
    def __init__(self, type: str, mode: int, gid: int = 0) -> None:
        self.type, self.mode, self.uid, self.gid = type, mode & 0o7777, 0, gid
        self.xattrs: dict[bytes, bytes] = {}
        self.size, self.blocks = 0, {}  # type: int, dict[int, bytes]
        self.target, self.rdev = b"", (0, 0)

    def copy(self) -> Inode:
        made = Inode(self.type, self.mode, self.gid)
        made.__dict__.update(self.__dict__, xattrs=dict(self.xattrs), blocks=dict(self.blocks))
        return made

    def write(self, offset: int, data: bytes) -> None:
        for index in range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1) if data else ():
            start, old = index * BLOCK, self.blocks.get(index, b"")
            left, right = max(offset - start, 0), min(offset + len(data) - start, BLOCK)
            new = old[:left].ljust(left, b"\0") + data[start + left - offset : start + right - offset] + old[right:]
            self.put(index, new)
        if data:
            self.size = max(self.size, offset + len(data))
            self.xattrs.pop(b"security.capability", None)

    def truncate(self, size: int) -> None:
        for index in [index for index in self.blocks if (index + 1) * BLOCK > size]:
            self.put(index, self.blocks[index][: max(size - index * BLOCK, 0)])
        self.size = size
        self.xattrs.pop(b"security.capability", None)

    def put(self, index: int, block: bytes) -> None:
        self.blocks[index] = block.rstrip(b"\0")
        if not self.blocks[index]:
            del self.blocks[index]


Tree = dict[bytes, Inode]


def empty() -> Tree:
    return {b"": Inode("directory", 0o755)}


def copy_of(tree: Tree) -> Tree:
    copies = {id(inode): inode.copy() for inode in tree.values()}
    return {path: copies[id(inode)] for path, inode in tree.items()}


def shown(tree: Tree) -> list[dict[str, Any]]:
    numbers = {id(inode): number for number, inode in enumerate(tree.values())}
    return [
        {
            "path": from_text(path),
            "type": inode.type,
            "mode": inode.mode,
            "uid": inode.uid,
            "gid": inode.gid,
            "xattrs": {name.decode(): from_bytes(value) for name, value in inode.xattrs.items()},
            "size": inode.size,
            "blocks": [[index, from_bytes(block)] for index, block in inode.blocks.items()],
            "target": from_text(inode.target),
            "rdev": inode.rdev,
            "inode": numbers[id(inode)],
        }
        for path, inode in tree.items()
    ]


def usage(tree: Tree, lower: Tree) -> tuple[int, int]:
    """Bytes and inodes of what differs from the tree below."""
    own = {id(i): i for path, i in tree.items() if path not in lower or i.__dict__ != lower[path].__dict__}
    return sum(len(block) for inode in own.values() for block in inode.blocks.values()), len(own)


def above(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def is_path(path: bytes) -> bool:
    return path == b"" or (b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/")))


def xattr_error(name: bytes) -> str:
    if b"\0" in name or name in (b"user.", b"trusted."):
        return "EINVAL"
    if not 0 < len(name) <= 255:
        return "ERANGE"
    kept = name.startswith((b"user.", b"trusted.")) and not name.startswith((b"user.overlay.", b"trusted.overlay."))
    return "" if kept or name == b"security.capability" else "EOPNOTSUPP"


def change(tree: Tree, asked: dict[str, Any]) -> str:
    """Make one change: ok, or the name of the error."""
    what = asked["change"]
    paths = {name: to_bytes(asked[name]) for name in ("path", "source", "to") if name in asked}
    error = wrong_argument(what, paths, asked)
    return error or CHANGES[what](tree, asked=asked, **paths) or "ok"


def wrong_argument(what: str, paths: dict[str, bytes], asked: dict[str, Any]) -> str:
    if not all(map(is_path, paths.values())):
        return "EINVAL"
    if what in ("remove_directory", "remove_tree", "rename") and b"" in paths.values():
        return "EBUSY"
    if what in ("write_at", "truncate"):
        start = asked["offset"] if what == "write_at" else asked["size"]
        end = start + len(to_bytes(asked["data"])) if what == "write_at" else start
        return "EINVAL" if start < 0 else "EFBIG" if end > MAX_SIZE else ""
    if what == "make_symlink":
        target = to_bytes(asked["target"])
        return "EINVAL" if b"\0" in target else "ENOENT" if not target else "ENAMETOOLONG" if len(target) > 4095 else ""
    if what == "make_device":
        right = asked["type"].endswith("device") and 0 <= asked["major"] < 1 << 12 and 0 <= asked["minor"] < 1 << 20
        return "" if right else "EINVAL"
    if what == "set_owner":
        return "" if all(0 <= asked[name] < 0xFFFFFFFF for name in ("uid", "gid")) else "EINVAL"
    return xattr_error(to_bytes(asked["name"])) if what.endswith("_xattr") else ""


def unreachable(tree: Tree, path: bytes) -> str:
    """Why the directory above the path cannot be opened."""
    parts = path.split(b"/")[:-1]
    for depth, part in enumerate(parts, 1):
        at = tree.get(b"/".join(parts[:depth]))
        if at is None:
            return "ENAMETOOLONG" if len(part) > 255 else "ENOENT"
        if at.type != "directory":
            return "ENOTDIR"
    return ""


def absent(tree: Tree, path: bytes) -> str:
    if path in tree:
        return ""
    return "ENAMETOOLONG" if len(path.rpartition(b"/")[2]) > 255 else "ENOENT"


def missing(tree: Tree, path: bytes) -> str:
    return unreachable(tree, path) or absent(tree, path)


def unmakable(tree: Tree, path: bytes) -> str:
    return unreachable(tree, path) or {"ENOENT": "", "": "EEXIST"}.get(absent(tree, path), "ENAMETOOLONG")


def below(tree: Tree, path: bytes) -> list[bytes]:
    return [other for other in tree if other != path and (not path or other.startswith(path + b"/"))]


def make(tree: Tree, path: bytes, asked: dict[str, Any]) -> str:
    error = unmakable(tree, path)
    kind = {"make_file": "file", "make_directory": "directory", "make_symlink": "symlink", "make_fifo": "fifo"}
    type = asked["type"] if asked["change"] == "make_device" else kind[asked["change"]]
    if not error and type == "character device" and asked["major"] == asked["minor"] == 0:
        error = "EPERM"  # the sign of an overlay for a deleted file
    if error:
        return error
    over = tree[above(path)]
    made = tree[path] = Inode(type, 0o777 if type == "symlink" else asked["mode"], over.gid if over.mode & 0o2000 else 0)
    if type == "file":
        made.write(0, to_bytes(asked["data"]))
    elif type == "symlink":
        made.target = to_bytes(asked["target"])
    elif type.endswith("device"):
        made.rdev = (asked["major"], asked["minor"])
    return ""


def link(tree: Tree, path: bytes, to: bytes, asked: dict[str, Any]) -> str:
    error = missing(tree, to) or unmakable(tree, path) or ("EPERM" if tree[to].type == "directory" else "")
    if not error:
        tree[path] = tree[to]
    return error


def remove(tree: Tree, path: bytes, asked: dict[str, Any]) -> str:
    error = missing(tree, path)
    if error:
        return error
    is_directory = tree[path].type == "directory"
    if is_directory == (asked["change"] == "unlink"):
        return "EISDIR" if is_directory else "ENOTDIR"
    gone = [path, *below(tree, path)] if is_directory else [path]
    if asked["change"] == "remove_directory" and len(gone) > 1:
        return "ENOTEMPTY"
    for name in gone:
        del tree[name]
    return ""


def rename(tree: Tree, source: bytes, path: bytes, asked: dict[str, Any]) -> str:
    error = unreachable(tree, source) or unreachable(tree, path) or absent(tree, source)
    if error or absent(tree, path) == "ENAMETOOLONG":
        return error or "ENAMETOOLONG"
    if path.startswith(source + b"/"):
        return "EINVAL"
    if source.startswith(path + b"/"):
        return "ENOTEMPTY"
    if path in tree and tree[path] is not tree[source]:
        is_directory = tree[source].type == "directory"
        if is_directory != (tree[path].type == "directory"):
            return "ENOTDIR" if is_directory else "EISDIR"
        if below(tree, path):
            return "ENOTEMPTY"
    if path in tree and tree[path] is tree[source]:
        return ""
    for name in [source, *(below(tree, source) if tree[source].type == "directory" else ())]:
        tree[path + name[len(source) :]] = tree.pop(name)
    return ""


def alter(tree: Tree, path: bytes, asked: dict[str, Any]) -> str:
    error = missing(tree, path)
    if error:
        return error
    inode, what = tree[path], asked["change"]
    name = to_bytes(asked["name"]) if "name" in asked else b""
    if what in ("write_at", "truncate") and inode.type != "file":
        return {"directory": "EISDIR", "symlink": "ELOOP"}.get(inode.type, "EINVAL")
    if what == "set_mode" and inode.type == "symlink":
        return "EOPNOTSUPP"
    if name.startswith(b"user.") and inode.type not in ("file", "directory"):
        return "EPERM"
    if what == "remove_xattr" and name not in inode.xattrs:
        return "ENODATA"
    if what == "write_at":
        inode.write(asked["offset"], to_bytes(asked["data"]))
    elif what == "truncate":
        inode.truncate(asked["size"])
    elif what == "set_mode":
        inode.mode = asked["mode"] & 0o7777
    elif what == "set_owner":
        inode.uid, inode.gid = asked["uid"], asked["gid"]
        if inode.type != "directory":
            inode.xattrs.pop(b"security.capability", None)
    elif what == "set_xattr":
        inode.xattrs[name] = to_bytes(asked["value"])
    else:
        del inode.xattrs[name]
    return ""


CHANGES: dict[str, Any] = {
    **dict.fromkeys(("make_file", "make_directory", "make_symlink", "make_fifo", "make_device"), make),
    **dict.fromkeys(("unlink", "remove_directory", "remove_tree"), remove),
    **dict.fromkeys(("write_at", "truncate", "set_mode", "set_owner", "set_xattr", "remove_xattr"), alter),
    "link": link,
    "rename": rename,
}
