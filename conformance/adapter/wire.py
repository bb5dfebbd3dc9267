"""What goes over the lines between the kit and an adapter: calls as JSON, answers as the model's values.

Part three of spec.md describes the lines, `protocol.schema.json` their form.

Bytes, and text whose bytes are no UTF-8, stand as the object that histories have for bytes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from snapspec.model.frozen import Map
from snapspec.model.nodes import Data, FileType, Node, Tree, canonical
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefValue
from snapspec.model.refs import Row
from snapspec.model.tree import Change
from snapspec.model.values import Info, Kind, Mount, Usage

#: The first word of both sides.
PROTOCOL = "snapspec adapter 1"

T = TypeVar("T")


class WrongForm(Exception):
    """A value is not of the form that the protocol has; the message says where, and what was to be there."""


# --- to the adapter


def sent(value: object) -> Any:
    """The JSON form of an argument: a scalar, bytes, an enum, labels, a change, or several of these."""
    match value:
        case str():
            return _sent_text(value)
        case None | bool() | int():
            return value
        case bytes():
            return {"is": "bytes", "base64": base64.b64encode(value).decode()}
        case Enum():
            return value.value
        case Mapping():
            return {key: sent(item) for key, item in value.items()}
        case tuple() | list():
            return [sent(item) for item in value]
        case _ if isinstance(value, Change):
            return {"change": words(value), **arguments(value)}
    raise TypeError(f"{type(value).__name__} does not go to an adapter")


def _sent_text(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        return sent(text.encode("utf-8", "surrogateescape"))
    return text


def arguments(call: object) -> dict[str, Any]:
    """The fields of a call or of a change, by their names."""
    assert is_dataclass(call)
    return {field.name: sent(getattr(call, field.name)) for field in fields(call)}


def words(call: object) -> str:
    """The name of a call or a change on the line: `get_mutable` for GetMutable."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(call).__name__).lower()


# --- from the adapter


def member(value: Any, name: str, kind: type[T] | tuple[type, ...], what: str) -> T:
    """The member `name` of an object. WrongForm when it is not there, or of another kind."""
    if not isinstance(value, dict):
        raise WrongForm(f"{shown(value)} stands where an object is to be: give {what}")
    if name not in value:
        raise WrongForm(f"the member {name!r} is missing in {shown(value)}: give {what}")
    found = value[name]
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is int):
        raise WrongForm(f"the member {name!r} is {shown(found)}: give {what}")
    return found  # type: ignore[return-value]  # the check above is beyond mypy


def shown(value: object) -> str:
    """A value from an adapter, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def items(value: Any, one: Callable[[Any], T], what: str) -> tuple[T, ...]:
    """Each item of an array. WrongForm for anything else."""
    if not isinstance(value, list):
        raise WrongForm(f"{shown(value)} stands where an array is to be: give {what}")
    return tuple(one(item) for item in value)


def nothing(value: Any) -> None:
    """The value of a call that has none."""
    if value is not None:
        raise WrongForm(f"{shown(value)} stands where nothing is to be: give null")


def text(value: Any) -> str:
    """Text; the object of bytes stands for text whose bytes are no UTF-8."""
    if isinstance(value, str):
        return value
    return content(value).decode("utf-8", "surrogateescape")


def content(value: Any) -> bytes:
    """Bytes."""
    match value:
        case {"is": "bytes", "base64": str(coded)}:
            try:
                return base64.b64decode(coded, validate=True)
            except ValueError:
                pass
    raise WrongForm(f'{shown(value)} stands where bytes are to be: give {{"is": "bytes", "base64": "..."}}')


def mounts(value: Any) -> tuple[Mount, ...]:
    """A mount list."""
    return items(value, _mount, "a list of mounts")


_MOUNT = "type, source, options and target of each mount"


def _mount(value: Any) -> Mount:
    options = items(member(value, "options", list, _MOUNT), text, _MOUNT)
    target = text(value.get("target", ""))
    return Mount(text(member(value, "type", str, _MOUNT)), text(member(value, "source", (str, dict), _MOUNT)), options, target)


_INFO = "name, parent, kind, labels, created and updated of the record"


def info(value: Any) -> Info:
    """A record of a snapshot."""
    kind: str = member(value, "kind", str, _INFO)
    if kind not in [k.value for k in Kind]:
        raise WrongForm(f"the kind is {kind!r}: give active, view or committed")
    labels: dict[str, str] = member(value, "labels", dict, _INFO)
    if not all(isinstance(given, str) for given in labels.values()):
        raise WrongForm("a label's value is no text: give text")
    name, parent = (text(member(value, field, (str, dict), _INFO)) for field in ("name", "parent"))
    created, updated = (member(value, field, int, _INFO) for field in ("created", "updated"))
    return Info(name, parent, Kind(kind), tuple(sorted(labels.items())), created, updated)


def infos(value: Any) -> tuple[Info, ...]:
    """Records."""
    return items(value, info, "a list of records")


def usage(value: Any) -> Usage:
    """Bytes and inodes."""
    return Usage(*(member(value, field, int, "size and inodes") for field in ("size", "inodes")))


def results(value: Any) -> tuple[str, ...]:
    """One word for each change."""
    return items(value, text, "one word for each change: ok or the name of an errno, such as ENOENT")


_NODE = "path, type, mode, uid, gid, and what a node of its type has"


def tree(value: Any) -> Tree:
    """A whole tree: its entries in any order, hard links by `inode`, the same number for all names of one."""
    entries = items(value, lambda entry: (text(member(entry, "path", (str, dict), _NODE)), entry), "the entries of the tree")
    names: dict[int, list[str]] = {}
    for path, entry in entries:
        if "inode" in entry:
            names.setdefault(member(entry, "inode", int, _NODE), []).append(path)
    groups = {path: tuple(sorted(group)) for group in names.values() if len(group) > 1 for path in group}
    nodes = {path: _node(entry, groups.get(path, ())) for path, entry in entries}
    if len(nodes) < len(entries):
        raise WrongForm("a path stands twice among the entries of the tree: give each once")
    return Tree(Map(nodes))


def _node(entry: Any, links: tuple[str, ...]) -> Node:
    kinds = {kind.value: kind for kind in FileType}
    kind = kinds.get(member(entry, "type", str, _NODE))
    if kind is None:
        raise WrongForm(f"the type is {entry['type']!r}: give one of {', '.join(kinds)}")
    mode, uid, gid = (member(entry, field, int, _NODE) for field in ("mode", "uid", "gid"))
    xattrs = tuple(sorted((text(key), content(held)) for key, held in entry.get("xattrs", {}).items()))
    device = tuple(entry.get("rdev", (0, 0)))
    if len(device) != 2 or not all(type(number) is int for number in device):
        raise WrongForm(f"rdev is {shown(entry['rdev'])}: give the major and the minor number")
    return Node(kind, mode, uid, gid, xattrs, _data(entry), text(entry.get("target", "")), (device[0], device[1]), links)


def _data(entry: Any) -> Data:
    """What a file holds: `data`, all of it, or `size` and `blocks`, where there are holes."""
    if "data" in entry:
        whole = content(entry["data"])
        return Data(len(whole), canonical({at // 4096: whole[at : at + 4096] for at in range(0, len(whole), 4096)}))
    if "blocks" not in entry:
        return Data()
    blocks = items(entry["blocks"], _block, "blocks as pairs of an index and the bytes of 4096 there")
    return Data(member(entry, "size", int, "the size and the blocks of a file"), canonical(dict(blocks)))


def _block(value: Any) -> tuple[int, bytes]:
    match value:
        case [int(index), held] if type(index) is int:
            return index, content(held)
    raise WrongForm(f"{shown(value)} stands where a block is to be: give its index and its bytes")


# --- answers about refs


def handle(value: Any) -> GotHandle:
    """A handle that was given, by its record's id."""
    return GotHandle(member(value, "record", str, "the id of the handle's record"))


def handle_or_nothing(value: Any) -> GotHandle | None:
    """The same, or nothing."""
    return None if value is None else handle(value)


def size(value: Any) -> GotSize:
    """A size."""
    if type(value) is not int:
        raise WrongForm(f"{shown(value)} stands where a size is to be: give a number of bytes")
    return GotSize(value)


_ROW = "record, parent, mutable, in_use and size of each row"


def rows(value: Any) -> GotRows:
    """The rows of disk_usage."""
    return GotRows(items(value, _row, _ROW))


def _row(value: Any) -> Row:
    record, parent = (member(value, field, str, _ROW) for field in ("record", "parent"))
    mutable, in_use = (member(value, field, bool, _ROW) for field in ("mutable", "in_use"))
    size: int = member(value, "size", int, _ROW)
    return Row(record, parent, mutable, in_use, size)


def pruned(value: Any) -> GotPruned:
    """What prune has removed."""
    removed = items(member(value, "removed", list, "removed and errors"), _removed, "records and size of each row")
    return GotPruned(removed, member(value, "errors", int, "removed and errors"))


def _removed(value: Any) -> tuple[frozenset[str], int | None]:
    what = "records and size of each row"
    ids: frozenset[str] = frozenset(items(member(value, "records", list, what), text, what))
    return ids, member(value, "size", (int, type(None)), what)


def got_words(value: Any) -> GotWords:
    """One word for each change that was made through a list."""
    return GotWords(results(value))


#: How the value of each call on refs is read.
REF_VALUES: dict[str, Callable[[Any], RefValue]] = {
    **dict.fromkeys(("new", "get", "get_mutable", "commit"), handle),
    **dict.fromkeys(("finalize", "release", "close", "restart"), nothing),
    "parent": handle_or_nothing,
    "size": size,
    "mount": mounts,
    "write": got_words,
    "read": tree,
    "disk_usage": rows,
    "prune": pruned,
}
