"""Calls and expected answers as vectors hold them: the forms of the protocol, and limits where an implementation is free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from snapspec.conformance.adapter.subject import BY_CALLS
from snapspec.conformance.adapter.wire import arguments, sent, words
from snapspec.model import ops
from snapspec.model.nodes import Tree
from snapspec.model.ops import Operation
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefFailed, RefReturned
from snapspec.model.refs import (
    ChangedThrough,
    GivesHandle,
    GivesList,
    ListsRows,
    NoHandle,
    Pruned,
    RefDone,
    RefOutcome,
    RefRefused,
    Row,
    ShowsTree,
    TellsSize,
    content,
    snapshot_of,
)
from snapspec.model.replies import Changed, Done, Gives, Lists, Measures, Outcome, Refused, Tells, most_usage
from snapspec.model.state import State
from snapspec.model.values import Kind, Mount

Form = dict[str, Any]


def call_forms(op: Operation | RefOperation) -> list[Form]:
    """The call as the protocol has it; a reopening is several."""
    match op:
        case ops.Reopen(close_twice):
            return [{"call": "close"}] * (2 if close_twice else 1) + [{"call": "open"}]
        case ops.Write(key, changes):
            return [{"call": "write", "key": key, "changes": sent(changes)}]
        case ops.Read(key):
            return [{"call": "read", "key": key}]
        case ops.Update(name, labels, mask):
            return [{"call": "update", "name": name, "labels": dict(labels), "mask": list(mask)}]
        case ops.Prepare() | ops.View() | ops.Commit():
            return [{"call": words(op), **arguments(op), "labels": dict(op.labels)}]
    return [{"call": words(op), **arguments(op)}]


def tree_form(tree: Tree) -> list[Form]:
    """The entries by path; names of one inode bear one number."""
    numbers: dict[tuple[str, ...], int] = {}
    entries = []
    for path, node in sorted(tree.nodes.items()):
        number = numbers.setdefault(node.links or (path,), len(numbers))
        blocks = [[index, sent(block)] for index, block in node.data.blocks]
        entries.append(
            {
                "path": sent(path),
                "type": node.type.value,
                "mode": node.mode,
                "uid": node.uid,
                "gid": node.gid,
                "xattrs": {name: sent(value) for name, value in node.xattrs},
                "size": node.data.size,
                "blocks": blocks,
                "target": sent(node.target),
                "rdev": list(node.rdev),
                "inode": number,
            }
        )
    return entries


def answer_form(outcome: Outcome) -> Form:
    """What is expected of a call of a driver."""
    state = outcome.state
    match outcome.reply:
        case Refused(errors):
            return {"errors": sorted(error.value for error in errors)}
        case Done():
            return {"value": None}
        case Gives():
            return {"list": True}
        case Tells(name):
            return {"record": _record(state, name)}
        case Lists(names):
            return {"records": [_record(state, name) for name in sorted(names)]}
        case Measures(key):
            return _usage(state, key)
        case Changed(results):
            return {"words": [sorted(each) for each in results]}
        case reply:
            return {"tree": tree_form(state.snapshots[reply.key].tree)}


def _record(state: State, name: str) -> Form:
    snapshot = state.snapshots[name]
    return {"name": name, "parent": snapshot.parent, "kind": snapshot.kind.value, "labels": dict(snapshot.labels)}


def _usage(state: State, key: str) -> Form:
    """The limits for a driver that counts what differs from the parent (SNAP-USAGE-6)."""
    snapshot = state.snapshots[key]
    if snapshot.kind is Kind.VIEW:
        return {"usage": {"size": [0, 0], "inodes": [0, 0]}}
    most = most_usage(state, snapshot)
    return {"usage": {"size": [0, most.size], "inodes": [0, most.inodes]}}


def ref_answer_form(outcome: RefOutcome) -> Form:
    """What is expected of a call of a manager."""
    state = outcome.state
    match outcome.reply:
        case RefRefused(error):
            return {"errors": [error.value]}
        case RefDone() | NoHandle():
            return {"value": None}
        case GivesHandle(record=record):
            return {"value": {"record": record}}
        case GivesList():
            return {"list": True}
        case TellsSize(record):
            return {"size": [0, most_usage(state.driver, state.driver.snapshots[snapshot_of(state, record)]).size]}
        case ChangedThrough(results=results):
            return {"words": [sorted(each) for each in results]}
        case ShowsTree(record):
            return {"tree": tree_form(content(state, record))}
        case ListsRows(rows):
            return {"rows": [_row(row) for row in sorted(rows, key=lambda row: row.record)]}
        case reply:
            return {"pruned": sorted(sorted(ids) for ids, _ in reply.removed)}


def ref_response(outcome: RefOutcome) -> RefReturned | RefFailed:
    """An answer that the outcome allows."""
    state = outcome.state
    match outcome.reply:
        case RefRefused(error):
            return RefFailed(error)
        case GivesHandle(record=record):
            return RefReturned(GotHandle(record))
        case GivesList():
            return RefReturned((Mount(BY_CALLS, ""),))
        case TellsSize():
            return RefReturned(GotSize(0))
        case ChangedThrough(results=results):
            return RefReturned(GotWords(tuple(min(each) for each in results)))
        case ShowsTree(record):
            return RefReturned(content(state, record))
        case ListsRows(rows):
            return RefReturned(GotRows(tuple(replace(row, size=row.size or 0) for row in rows)))
        case Pruned(removed):
            return RefReturned(GotPruned(removed))
    return RefReturned()


def _row(row: Row) -> Form:
    return {"record": row.record, "parent": row.parent, "mutable": row.mutable, "in_use": row.in_use}


#: The members of an expected answer that leave what is told to the implementation, within limits.
LIMITS = ("usage", "size")
