#!/usr/bin/env python3
"""A snapshotter and a manager of refs in memory, behind the protocol of `exec:`. It needs
the standard library, and `trees.py` beside it, alone.

With --broken a snapshot begins with its parent's own tree instead of a copy, and a new that runs does not hold its parent.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from trees import Tree, change, copy_of, empty, shown, usage

BROKEN = "--broken" in sys.argv[1:]

if BROKEN:
    print("this is the broken twin", file=sys.stderr)

#: How long the work of a driver takes: other calls come in between.
WORK = 0.001


class Refused(Exception):
    """The answer of a call: an error class and words."""


# --- filters of walk

QUOTED = r'"(?:[^"\\\n\0]|\\(?:[abfnrtv\\"]|x[0-7][0-9a-fA-F]|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}))*"'
FIELD = rf"(?:{QUOTED}|[A-Za-z0-9_]+)"
SELECTOR = re.compile(rf'\s*({FIELD}(?:\.\s*{FIELD})*)(?:\s*(==|!=|~=)(?![=!~])\s*({QUOTED}|[^\s,.=!~"/|][^\s,]*))?')


def unquoted(text: str) -> str:
    letters = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
    if not text.startswith('"'):
        return text
    escape = re.compile(r"\\(?:([xuU])([0-9a-fA-F]{8}|[0-9a-fA-F]{4}|[0-9a-fA-F]{2})|(.))")
    return escape.sub(lambda found: letters[found[3]] if found[3] else chr(int(found[2], 16)), text[1:-1])


def parse(text: str) -> list[tuple[list[str], str, str]]:
    selectors, at = [], 0
    while text and at <= len(text):
        found = SELECTOR.match(text, at)
        if found is None or text[found.end() : found.end() + 1] not in ("", ","):
            raise Refused("InvalidArgument", f"{text!r} is no filter")
        fields = [unquoted(field) for field in re.findall(FIELD, found[1])]
        selectors.append((fields, found[2] or "", unquoted(found[3] or "")))
        at = found.end() + 1
    return selectors


def matches(record: dict[str, Any], selectors: list[tuple[list[str], str, str]]) -> bool:
    return all(holds(record, *selector) for selector in selectors)


def holds(record: dict[str, Any], fields: list[str], operator: str, wanted: str) -> bool:
    value = record["labels"].get(".".join(fields[1:])) if fields[0] == "labels" and len(fields) > 1 else None
    if len(fields) == 1 and fields[0] in ("name", "parent", "kind"):
        value = record[fields[0]]
    if operator == "~=":
        try:
            return value is not None and re.search(wanted, value) is not None
        except re.error:
            return False
    return value != wanted if operator == "!=" else value is not None and operator in ("", "==" if value == wanted else "")


# --- the snapshotter


class Snapshots:
    """Each snapshot is its record and `tree`."""

    def __init__(self) -> None:
        self.all: dict[str, dict[str, Any]] = {}

    def record(self, key: str) -> dict[str, Any]:
        if key not in self.all:
            raise Refused("NotFound", f"there is no snapshot {key!r}")
        return self.all[key]

    def told(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in snapshot.items() if name != "tree"}

    def mountable(self, key: str) -> dict[str, Any]:
        snapshot = self.record(key)
        if snapshot["kind"] == "committed":
            raise Refused("FailedPrecondition", f"{key!r} is committed")
        return snapshot

    def tree_below(self, parent: str) -> Tree:
        return self.all[parent]["tree"] if parent else empty()

    def enter(self, name: str, parent: str, kind: str, labels: dict[str, str], tree: Tree) -> None:
        now, kept = time.time_ns(), {key: value for key, value in labels.items() if value}
        record = {"name": name, "parent": parent, "kind": kind, "labels": kept, "created": now, "updated": now}
        self.all[name] = {**record, "tree": tree}

    def make(self, kind: str, key: str, parent: str, labels: dict[str, str]) -> None:
        if parent and self.record(parent)["kind"] != "committed":
            raise Refused("InvalidArgument", f"the parent {parent!r} is not committed")
        if key in self.all:
            raise Refused("AlreadyExists", f"{key!r} is taken")
        if not key:
            raise Refused("InvalidArgument", "the key is empty")
        tree = self.tree_below(parent)
        self.enter(key, parent, kind, labels, tree if BROKEN else copy_of(tree))

    async def prepare(self, key: str, parent: str, labels: dict[str, str]) -> None:
        self.make("active", key, parent, labels)

    async def view(self, key: str, parent: str, labels: dict[str, str]) -> None:
        self.make("view", key, parent, labels)

    async def commit(self, name: str, key: str, labels: dict[str, str], parent: str) -> None:
        active = self.record(key)
        if name in self.all:
            raise Refused("AlreadyExists", f"{name!r} is taken")
        if not name:
            raise Refused("InvalidArgument", "the name is empty")
        if active["kind"] != "active":
            raise Refused("FailedPrecondition", f"{key!r} is not active")
        if parent and parent != active["parent"]:
            raise Refused("InvalidArgument", f"{key!r} has another parent than {parent!r}")
        self.enter(name, active["parent"], "committed", labels, active["tree"])
        del self.all[key]

    async def remove(self, key: str) -> None:
        self.record(key)
        if any(other["parent"] == key for other in self.all.values()):
            raise Refused("FailedPrecondition", f"{key!r} has children")
        del self.all[key]

    async def mounts(self, key: str) -> None:
        self.mountable(key)

    async def stat(self, key: str) -> dict[str, Any]:
        return self.told(self.record(key))

    async def update(self, name: str, labels: dict[str, str], mask: list[str]) -> dict[str, Any]:
        record = self.record(name)
        if any(path != "labels" and not re.match(r"labels\..", path, re.DOTALL) for path in mask):
            raise Refused("InvalidArgument", "the mask names more than labels")
        after = dict(record["labels"])
        for path in mask or ["labels"]:
            if path == "labels":
                after = dict(labels)
            else:
                after[path[7:]] = labels.get(path[7:], "")
        record["labels"] = {key: value for key, value in after.items() if value}
        record["updated"] = max(time.time_ns(), record["created"])
        return self.told(record)

    async def usage(self, key: str) -> dict[str, int]:
        record = self.record(key)
        size, inodes = (0, 0) if record["kind"] == "view" else usage(record["tree"], self.tree_below(record["parent"]))
        return {"size": size, "inodes": inodes}

    async def walk(self, filters: list[str]) -> list[dict[str, Any]]:
        wanted = [parse(text) for text in filters]
        records = map(self.told, self.all.values())
        return [record for record in records if not wanted or any(matches(record, each) for each in wanted)]

    async def cleanup(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def open(self) -> None:
        pass

    async def write(self, key: str, changes: list[dict[str, Any]]) -> list[str]:
        snapshot = self.mountable(key)
        return [change(snapshot["tree"], each) if snapshot["kind"] == "active" else "EROFS" for each in changes]

    async def read(self, key: str) -> list[dict[str, Any]]:
        return shown(self.mountable(key)["tree"])


# --- refs


class Record:
    """`equal` is the other half of a pair; both have one tree."""

    def __init__(self, id: str, mutable: bool, parent: Record | None, tree: Tree) -> None:
        self.id, self.mutable, self.parent, self.tree = id, mutable, parent, tree
        self.equal: Record | None = None
        self.size: int | None = None
        self.handles: set[str] = set()
        self.claims = 0

    def halves(self) -> list[Record]:
        return [self] if self.equal is None else [self, self.equal]

    def measure(self) -> int:
        return usage(self.tree, self.parent.tree if self.parent else empty())[0]


class Refs:
    """Records by id, and the record of each open handle. Between two awaits code runs alone."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.open: dict[str, Record] = {}
        self.closed = False

    def require_open(self) -> None:
        if self.closed:
            raise Refused("Closed", "the manager is closed")

    def of(self, handle: str, mutable: bool | None = None) -> Record:
        """The record of an open handle, of that kind."""
        self.require_open()
        if handle not in self.open:
            raise Refused("Invalid", f"the handle {handle} is not open")
        if mutable not in (None, self.open[handle].mutable):
            raise Refused("Invalid", f"the handle {handle} is of the other kind")
        return self.open[handle]

    def known(self, id: str) -> Record:
        self.require_open()
        if id not in self.records:
            raise Refused("NotFound", f"there is no record {id!r}")
        return self.records[id]

    def give(self, handle: str, record: Record) -> dict[str, str]:
        self.open[handle] = record
        record.handles.add(handle)
        return {"record": record.id}

    def take(self, handle: str) -> None:
        if handle in self.open:
            self.open.pop(handle).handles.remove(handle)

    def settle(self, record: Record) -> None:
        """An immutable record becomes final."""
        if record.equal is not None:
            del self.records[record.equal.id]
            record.equal = None

    def pair(self, record: Record, id: str) -> Record:
        made = self.records[id] = Record(id, False, record.parent, record.tree)
        made.equal, record.equal = record, made
        return made

    def used(self, record: Record) -> bool:
        children = (other for other in self.records.values() if other.parent is record)
        return any(half.handles for half in record.halves()) or any(map(self.used, children))

    async def new(self, record: str, handle: str, parent: str | None) -> dict[str, str]:
        self.require_open()
        over = None
        if parent is not None:
            over = self.of(parent, mutable=False)
            self.settle(over)
            over.claims += not BROKEN
        try:
            await asyncio.sleep(WORK)
            self.require_open()
        finally:
            if over is not None:
                over.claims -= not BROKEN
        made = self.records[record] = Record(record, True, over, copy_of(over.tree) if over else empty())
        return self.give(handle, made)

    async def commit(self, handle: str, fresh: str, given: str) -> dict[str, str]:
        record = self.of(handle, mutable=True)
        self.take(handle)
        return self.give(given, self.pair(record, fresh))

    async def get(self, record: str, handle: str, fresh: str) -> dict[str, str]:
        found = self.known(record)
        if not found.mutable:
            return self.give(handle, found)
        if found.handles:
            raise Refused("Locked", f"{record!r} has an open handle")
        return self.give(handle, found.equal or self.pair(found, fresh))

    async def get_mutable(self, record: str, handle: str) -> dict[str, str]:
        found = self.known(record)
        if not found.mutable:
            raise Refused("Invalid", f"{record!r} is immutable")
        if any(half.handles for half in found.halves()):
            raise Refused("Locked", f"{record!r} or its other half has an open handle")
        if found.equal is not None:
            del self.records[found.equal.id]
            found.equal = None
        return self.give(handle, found)

    async def finalize(self, handle: str) -> None:
        self.settle(self.of(handle, mutable=False))

    async def release(self, handle: str) -> None:
        self.take(handle)

    async def size(self, handle: str) -> int:
        record = self.of(handle)
        if record.size is not None:
            return record.size
        size = record.measure()
        await asyncio.sleep(WORK)
        self.of(handle)
        if not record.mutable:
            record.size = size
        return size

    async def parent(self, handle: str, given: str) -> dict[str, str] | None:
        over = self.of(handle).parent
        return self.give(given, over) if over is not None else None

    def mounted(self, handle: str, readonly: bool) -> Record:
        record = self.of(handle)
        if not (record.mutable or readonly):
            self.settle(record)
        return record

    async def mount(self, handle: str, readonly: bool) -> None:
        self.mounted(handle, readonly)

    async def write(self, handle: str, changes: list[dict[str, Any]]) -> list[str]:
        record = self.mounted(handle, readonly=False)
        return [change(record.tree, each) if record.mutable else "EROFS" for each in changes]

    async def read(self, handle: str) -> list[dict[str, Any]]:
        return shown(self.mounted(handle, readonly=True).tree)

    def rows(self) -> Iterator[dict[str, Any]]:
        for record in self.records.values():
            final = record.equal if record.mutable else record
            if record.mutable == bool(final is None or (final.equal is not None and not final.handles)):
                used = self.used(record)
                if record.size is None and not record.mutable:
                    record.size = record.measure()
                size = record.size if record.size is not None else 0 if used else record.measure()
                parent = record.parent.id if record.parent else ""
                yield {"record": record.id, "parent": parent, "mutable": record.mutable, "in_use": used, "size": size}

    async def disk_usage(self) -> list[dict[str, Any]]:
        self.require_open()
        return list(self.rows())

    async def prune(self) -> dict[str, Any]:
        self.require_open()
        removed = []
        for record in self.leaves():
            sizes = [half.size for half in record.halves() if half.size is not None]
            removed.append({"records": [half.id for half in record.halves()], "size": sizes[0] if sizes else None})
            for half in record.halves():
                del self.records[half.id]
        return {"removed": removed, "errors": 0}

    def leaves(self) -> Iterator[Record]:
        """The records to remove, each when nothing is built on it any more."""
        while True:
            parents = {other.parent for other in self.records.values()}
            free = (r for r in self.records.values() if r not in parents and not r.claims and not self.used(r))
            record = next(free, None)
            if record is None:
                return
            yield record

    async def close(self) -> None:
        self.closed = True
        for handle in list(self.open):
            self.take(handle)

    async def restart(self) -> None:
        await self.close()
        self.closed = False


# --- the protocol

HELLO = {
    "protocol": "snapspec adapter 1",
    "name": "snapshots and refs in memory",
    "levels": ["snapshots", "refs"],
    "content": "calls",
    "reopens": True,
    "profile": {"usage": "delta"},
}


class Server:
    def __init__(self) -> None:
        self.running: dict[int, asyncio.Task[None]] = {}
        self.store: Snapshots | Refs | None = None

    async def serve(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 26)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            asked = json.loads(line)
            if "cancel" in asked:
                if asked["cancel"] in self.running:
                    self.running[asked["cancel"]].cancel()
            else:
                number = asked.pop("id")
                self.running[number] = asyncio.create_task(self.answer(number, asked.pop("call"), asked))
                await asyncio.sleep(0)  # a task that is cancelled before it has begun would never answer

    async def answer(self, number: int, call: str, arguments: dict[str, Any]) -> None:
        try:
            answer = {"value": await self.perform(call, arguments)}
        except Refused as refused:
            answer = {"error": refused.args[0], "message": refused.args[1]}
        except asyncio.CancelledError:
            answer = {"error": "Canceled", "message": "as asked"}
        del self.running[number]
        print(json.dumps({"id": number, **answer}), flush=True)

    async def perform(self, call: str, arguments: dict[str, Any]) -> Any:
        if call == "hello":
            self.store = Snapshots() if arguments["level"] == "snapshots" else Refs()
            return HELLO
        method = getattr(self.store, call, None)
        if not asyncio.iscoroutinefunction(method):
            raise Refused("Unimplemented", f"there is no call {call!r}")
        return await method(**arguments)


if __name__ == "__main__":
    asyncio.run(Server().serve())
