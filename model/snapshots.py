"""The abstract snapshotter: for a state and an operation, every outcome that the spec allows.

One function for each operation, state first. Each gives all allowed outcomes, refusals among them, and raises nothing;
an outcome names the clause that allows it. Which refusal wins is decided in `guards`; the tables below name its clause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import icontract

from snapspec.model import filters, ops
from snapspec.model.guards import (
    Door,
    Named,
    Reason,
    Rebase,
    commit_guard,
    mounts_guard,
    prepare_guard,
    rebase_guard,
    remove_guard,
    update_guard,
)
from snapspec.model.replies import Changed, Done, Gives, Lists, Measures, Outcome, Refused, Shows, Tells
from snapspec.model.state import (
    NOW,
    RootMetadata,
    Snapshot,
    Span,
    State,
    ancestors,
    children,
    given,
    keys_well_formed,
    labels_well_formed,
    lower_tree,
    named,
    parents_well_formed,
    times_well_formed,
    well_formed,
)
from snapspec.model.tree import EMPTY, Path, Tree, diff, outcomes_of, overlay, touched_by
from snapspec.model.values import ErrorClass, Info, Kind, Labels, labels_of

Outcomes = tuple[Outcome, ...]

#: Where the spec asks for a refusal and not for a class.
ANY = frozenset(ErrorClass)
NOT_FOUND = frozenset({ErrorClass.NOT_FOUND})
TAKEN = frozenset({ErrorClass.ALREADY_EXISTS})
INVALID = frozenset({ErrorClass.INVALID_ARGUMENT})
PRECONDITION = frozenset({ErrorClass.FAILED_PRECONDITION})

Refusals = dict[Reason, tuple[str, frozenset[ErrorClass]]]

PREPARE: Refusals = {
    Reason.LABEL_TOO_LONG: ("DOOR-LABEL-1", INVALID),
    Reason.PARENT_ABSENT: ("SNAP-PREPARE-1", NOT_FOUND),
    Reason.PARENT_NOT_COMMITTED: ("SNAP-PREPARE-2", INVALID),
    Reason.KEY_TAKEN: ("SNAP-PREPARE-3", TAKEN),
    Reason.KEY_EMPTY: ("SNAP-PREPARE-4", ANY),
}
VIEW: Refusals = {
    Reason.LABEL_TOO_LONG: ("DOOR-LABEL-1", INVALID),
    Reason.PARENT_ABSENT: ("SNAP-VIEW-1", NOT_FOUND),
    Reason.PARENT_NOT_COMMITTED: ("SNAP-VIEW-2", INVALID),
    Reason.KEY_TAKEN: ("SNAP-VIEW-3", TAKEN),
    Reason.KEY_EMPTY: ("SNAP-VIEW-4", ANY),
}
COMMIT: Refusals = {
    Reason.LABEL_TOO_LONG: ("DOOR-LABEL-1", INVALID),
    Reason.KEY_ABSENT: ("SNAP-COMMIT-1", NOT_FOUND),
    Reason.NAME_TAKEN: ("SNAP-COMMIT-2", TAKEN),
    Reason.NAME_EMPTY: ("SNAP-COMMIT-3", ANY),
    Reason.NOT_ACTIVE: ("SNAP-COMMIT-4", PRECONDITION),
    Reason.PARENT_CONFLICT: ("SNAP-COMMIT-6", INVALID),
    Reason.REBASE_ABSENT: ("SNAP-COMMIT-7", NOT_FOUND),
    Reason.REBASE_NOT_COMMITTED: ("SNAP-COMMIT-7", PRECONDITION),
}
MOUNTS: Refusals = {
    Reason.KEY_ABSENT: ("SNAP-MOUNTS-1", NOT_FOUND),
    Reason.IS_COMMITTED: ("SNAP-MOUNTS-2", PRECONDITION),
}
REMOVE: Refusals = {
    Reason.KEY_ABSENT: ("SNAP-REMOVE-1", NOT_FOUND),
    Reason.HAS_CHILDREN: ("SNAP-REMOVE-2", PRECONDITION),
}
UPDATE: Refusals = {
    Reason.KEY_EMPTY: ("DOOR-ORDER-4", INVALID),
    Reason.KEY_ABSENT: ("SNAP-UPDATE-1", NOT_FOUND),
    Reason.BAD_PATH: ("SNAP-UPDATE-2", INVALID),
    Reason.LABEL_TOO_LONG: ("DOOR-LABEL-1", INVALID),
}


#: What some refusals show besides their own clause.
_SHOWN: dict[Reason, tuple[str, ...]] = {
    Reason.KEY_TAKEN: ("SNAP-KEY-1",),
    Reason.NAME_TAKEN: ("SNAP-KEY-1",),
    Reason.KEY_EMPTY: ("SNAP-KEY-2",),
    Reason.NAME_EMPTY: ("SNAP-KEY-2",),
    Reason.HAS_CHILDREN: ("SNAP-PARENT-1",),
}


def _refused(state: State, table: Refusals, reason: Reason, *order: str) -> Outcomes:
    """The one outcome of a refusal: the error, and nothing changed (SNAP-FAIL-1). `order`: clauses that say why it won."""
    clause, errors = table[reason]
    return (Outcome(clause, Refused(errors), state, (*_SHOWN.get(reason, ()), *order)),)


def _wins(state: State, reasons: int, direct: str, metadata: str) -> tuple[str, ...]:
    """The clause on the order of errors, when a call meets more than one."""
    if reasons < 2:
        return ()
    return (direct,) if state.profile.door is Door.DIRECT else (metadata,)


def _label_clauses(labels: Labels) -> tuple[str, ...]:
    return ("SNAP-LABEL-2",) if any(value == "" for _, value in labels) else ()


#: The longest label, key and value together, that the metadata layer takes (DOOR-LABEL-1).
LABEL_LIMIT = 4096


def _too_long(state: State, labels: Labels) -> bool:
    return state.profile.door is Door.METADATA and any(_bytes(k) + _bytes(v) > LABEL_LIMIT for k, v in labels)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# --- prepare and view


def _succeeded(outcomes: Outcomes) -> Iterator[Outcome]:
    return (o for o in outcomes if not isinstance(o.reply, Refused))


def _fresh(snapshot: Snapshot) -> bool:
    """Whether nothing of an earlier life is in the snapshot."""
    return snapshot.mounts is None and snapshot.usage is None and snapshot.touched == frozenset()


@icontract.ensure(lambda state, result, op: all(op.key not in state.snapshots for _ in _succeeded(result)), "SNAP-KEY-1")
@icontract.ensure(lambda result, op: all(_fresh(o.state.snapshots[op.key]) for o in _succeeded(result)), "SNAP-KEY-3")
@icontract.ensure(
    lambda result, op: all(o.state.snapshots[op.key].kind is Kind.ACTIVE for o in _succeeded(result)), "SNAP-PREPARE-6"
)
def prepare(state: State, op: ops.Prepare, at: Span = NOW) -> Outcomes:
    """SNAP-PREPARE: an active snapshot that begins with its parent's content."""
    reason = _prepare_reason(state, op)
    if reason is not Reason.NONE:
        return _refused(state, PREPARE, reason, *_prepare_order(state, op))
    tree = _begun(state, op.parent)
    snapshot = Snapshot(Kind.ACTIVE, op.parent, labels_of(dict(op.labels)), at, None, tree)
    return (Outcome("SNAP-PREPARE-6", Gives(op.key), state.put(op.key, snapshot), _label_clauses(op.labels)),)


@icontract.ensure(lambda state, result, op: all(op.key not in state.snapshots for _ in _succeeded(result)), "SNAP-KEY-1")
@icontract.ensure(lambda result, op: all(_fresh(o.state.snapshots[op.key]) for o in _succeeded(result)), "SNAP-KEY-3")
@icontract.ensure(lambda result, op: all(o.state.snapshots[op.key].kind is Kind.VIEW for o in _succeeded(result)), "SNAP-VIEW-5")
def view(state: State, op: ops.View, at: Span = NOW) -> Outcomes:
    """SNAP-VIEW: a read-only snapshot that shows its parent's content."""
    reason = _prepare_reason(state, op)
    if reason is not Reason.NONE:
        return _refused(state, VIEW, reason, *_prepare_order(state, op))
    tree = state.snapshots[op.parent].tree if op.parent else EMPTY
    snapshot = Snapshot(Kind.VIEW, op.parent, labels_of(dict(op.labels)), at, None, tree)
    return (Outcome("SNAP-VIEW-5", Gives(op.key), state.put(op.key, snapshot), _label_clauses(op.labels)),)


def _prepare_order(state: State, op: ops.Prepare | ops.View) -> tuple[str, ...]:
    wrong_parent = given(state, op.parent) not in (Named.NOTHING, Named.COMMITTED)
    reasons = [op.key in state.snapshots, op.key == "", wrong_parent, _too_long(state, op.labels)]
    return _wins(state, sum(reasons), "SNAP-PREPARE-5", "DOOR-ORDER-1")


def _prepare_reason(state: State, op: ops.Prepare | ops.View) -> Reason:
    taken = op.key in state.snapshots
    return prepare_guard(state.profile.door, _too_long(state, op.labels), op.key == "", taken, given(state, op.parent))


@icontract.ensure(
    lambda result, state, parent: parent == "" or _same_owner(result, state.snapshots[parent].tree), "SNAP-CONTENT-5"
)
@icontract.ensure(lambda result, parent: parent != "" or result == EMPTY, "SNAP-CONTENT-6")
def _begun(state: State, parent: str) -> Tree:
    """The content that an active snapshot begins with (SNAP-CONTENT-5, SNAP-CONTENT-6)."""
    if not parent:
        return EMPTY
    tree = state.snapshots[parent].tree
    if state.profile.root is RootMetadata.FULL:
        return tree
    root = replace(tree.nodes[""], mode=0o755, xattrs=())
    return Tree(tree.nodes.set("", root))


def _same_owner(one: Tree, other: Tree) -> bool:
    return (one.nodes[""].uid, one.nodes[""].gid) == (other.nodes[""].uid, other.nodes[""].gid)


# --- commit


@icontract.ensure(
    lambda result, op: all(
        op.key not in o.state.snapshots and o.state.snapshots[op.name].kind is Kind.COMMITTED for o in _succeeded(result)
    ),
    "SNAP-COMMIT-8",
)
@icontract.ensure(
    lambda result, op: all(o.state.snapshots[op.name].labels == labels_of(dict(op.labels)) for o in _succeeded(result)),
    "SNAP-COMMIT-9",
)
@icontract.ensure(
    lambda result, op, at: all(
        (o.state.snapshots[op.name].created, o.state.snapshots[op.name].updated) == (at, None) for o in _succeeded(result)
    ),
    "SNAP-COMMIT-10",
)
@icontract.ensure(
    lambda state, result, op: all(
        o.state.snapshots[op.name].tree == state.snapshots[op.key].tree
        for o in _succeeded(result)
        if o.state.snapshots[op.name].parent == state.snapshots[op.key].parent
    ),
    "SNAP-COMMIT-11",
)
@icontract.ensure(
    lambda state, result, op: (
        state.profile.door is Door.DIRECT
        or op.key not in state.snapshots
        or state.snapshots[op.key].parent == ""
        or all(o.clause != "SNAP-COMMIT-6" for o in result)
    ),
    "DOOR-ORDER-3",
)
def commit(state: State, op: ops.Commit, at: Span = NOW) -> Outcomes:
    """SNAP-COMMIT: the key becomes the name, with the content it has now."""
    key, taken = named(state, op.key), op.name in state.snapshots
    reason = commit_guard(state.profile.door, _too_long(state, op.labels), key, taken, op.name == "")
    if reason in (Reason.NONE, Reason.NOT_ACTIVE) and _layer_misses_parent(state, op):
        reason = Reason.REBASE_ABSENT
    if reason is not Reason.NONE:
        reasons = [key is not Named.ACTIVE, taken, op.name == "", _too_long(state, op.labels)]
        return _refused(state, COMMIT, reason, *_wins(state, sum(reasons), "SNAP-COMMIT-5", "DOOR-ORDER-2"))
    active = state.snapshots[op.key]
    reason, parent = _rebased(state, op, active)
    asked = ("SNAP-COMMIT-7",) if op.parent and not active.parent else ()
    if reason is not Reason.NONE:
        return _refused(state, COMMIT, reason, *asked)
    tree = active.tree
    if parent != active.parent:
        tree = overlay(state.snapshots[parent].tree, diff(EMPTY, tree))
    labels = labels_of(dict(op.labels))
    committed = Snapshot(Kind.COMMITTED, parent, labels, at, None, tree, active.touched)
    shows = (
        "SNAP-COMMIT-9",
        "SNAP-COMMIT-10",
        "SNAP-COMMIT-11",
        *asked,
        *_label_clauses(op.labels),
        *_ignored(state, op, active),
    )
    return (Outcome("SNAP-COMMIT-8", Done(), state.drop(op.key).put(op.name, committed), shows),)


def _ignored(state: State, op: ops.Commit, active: Snapshot) -> tuple[str, ...]:
    """Whether a parent was asked for that the metadata layer does not look at."""
    ignored = state.profile.door is Door.METADATA and active.parent and op.parent not in ("", active.parent)
    return ("DOOR-ORDER-3",) if ignored else ()


def _layer_misses_parent(state: State, op: ops.Commit) -> bool:
    """Whether the metadata layer itself looks for the parent asked for, and finds none (DOOR-ORDER-2)."""
    looks = state.profile.door is Door.METADATA and state.profile.rebase is not Rebase.IGNORED
    return looks and state.snapshots[op.key].parent == "" and given(state, op.parent) is Named.ABSENT


def _rebased(state: State, op: ops.Commit, active: Snapshot) -> tuple[Reason, str]:
    """The refusal of a parent asked for at commit, and the parent that the snapshot gets (SNAP-COMMIT-6, SNAP-COMMIT-7)."""
    if state.profile.door is Door.METADATA and active.parent:
        return Reason.NONE, active.parent  # DOOR-ORDER-3
    # By the time the parent is looked up, the key no longer names anything.
    asked = Named.ABSENT if op.parent == op.key else given(state, op.parent)
    same = op.parent == active.parent
    if state.profile.rebase is Rebase.MERGED:
        return rebase_guard(active.parent != "", asked, same), op.parent or active.parent
    conflict = state.profile.rebase is Rebase.REFUSED and asked is not Named.NOTHING and not same
    return (Reason.PARENT_CONFLICT if conflict else Reason.NONE), active.parent


# --- remove


@icontract.ensure(
    lambda state, result, op: all(o.state.snapshots == state.snapshots.without(op.key) for o in _succeeded(result)),
    "SNAP-REMOVE-4",
)
def remove(state: State, op: ops.Remove, at: Span = NOW) -> Outcomes:
    """SNAP-REMOVE: the key is free at once, and nothing else is touched."""
    reason = remove_guard(op.key in state.snapshots, len(children(state, op.key)))
    if reason is not Reason.NONE:
        return _refused(state, REMOVE, reason)
    return (Outcome("SNAP-REMOVE-3", Done(), state.drop(op.key), ("SNAP-REMOVE-4",)),)


# --- looking


def mounts(state: State, op: ops.Mounts, at: Span = NOW) -> Outcomes:
    """SNAP-MOUNTS: the list that prepare or view gave."""
    reason = mounts_guard(named(state, op.key))
    if reason is not Reason.NONE:
        return _refused(state, MOUNTS, reason)
    return (Outcome("SNAP-MOUNTS-3", Gives(op.key), state),)


def stat(state: State, op: ops.Stat, at: Span = NOW) -> Outcomes:
    """SNAP-STAT: the record."""
    if op.key not in state.snapshots:
        return (Outcome("SNAP-STAT-2", Refused(NOT_FOUND), state),)
    return (Outcome("SNAP-STAT-1", Tells(op.key), state),)


def usage(state: State, op: ops.Usage, at: Span = NOW) -> Outcomes:
    """SNAP-USAGE: what the snapshot takes for itself."""
    if op.key not in state.snapshots:
        return (Outcome("SNAP-USAGE-1", Refused(NOT_FOUND), state),)
    return (Outcome("SNAP-USAGE-4", Measures(op.key), state),)


def walk(state: State, op: ops.Walk, at: Span = NOW) -> Outcomes:
    """SNAP-WALK: the records that match, each once."""
    try:
        wanted = [filters.parse(text) for text in op.filters]
    except ValueError:
        shows = ("SNAP-WALK-8",) if state.profile.wire else ()
        return (Outcome("SNAP-WALK-5", Refused(_walk_errors(state, INVALID)), state, shows),)
    names = tuple(name for name, s in state.snapshots.items() if not wanted or _matched(wanted, name, s))
    listed = Outcome("SNAP-WALK-2" if wanted else "SNAP-WALK-1", Lists(names), state, _filter_clauses(state, wanted))
    if state.snapshots:
        return (listed,)
    listed = replace(listed, clause="SNAP-WALK-7")
    if state.profile.door is Door.METADATA:
        return (listed,)
    return (listed, Outcome("SNAP-WALK-7", Refused(_walk_errors(state, NOT_FOUND)), state))


def _walk_errors(state: State, errors: frozenset[ErrorClass]) -> frozenset[ErrorClass]:
    """The errors of a walk: over gRPC they may have lost their class (SNAP-WALK-8)."""
    return errors | {ErrorClass.UNKNOWN} if state.profile.wire else errors


def _filter_clauses(state: State, wanted: list[filters.Filter]) -> tuple[str, ...]:
    """The clauses on single selectors that these filters put to the test in a store that has something to match."""
    selectors = [selector for conjunction in wanted for selector in conjunction] if state.snapshots else []
    missing = any(s.operator == "!=" and s.path not in filters.ALWAYS for s in selectors)
    broken = any(s.operator == "~=" and not filters.compiles(s.value) for s in selectors)
    return (*(("SNAP-WALK-3",) if missing else ()), *(("SNAP-WALK-4",) if broken else ()))


def _matched(wanted: list[filters.Filter], name: str, snapshot: Snapshot) -> bool:
    info = Info(name, snapshot.parent, snapshot.kind, snapshot.labels, 0, 0)
    return any(filters.matches(f, info) for f in wanted)


# --- update


def _moved(snapshot: Snapshot, at: Span) -> bool:
    return snapshot.updated is not None and snapshot.updated.latest >= at.latest


def _refusable(state: State, op: ops.Update) -> bool:
    return _bad_path(op) or _too_long(state, _masked(state.snapshots[op.name].labels, op))


@icontract.ensure(lambda result, op, at: all(_moved(o.state.snapshots[op.name], at) for o in _succeeded(result)), "SNAP-UPDATE-6")
@icontract.ensure(
    lambda state, result, op: op.name not in state.snapshots or len(list(_succeeded(result))) > 0 or _refusable(state, op),
    "SNAP-UPDATE-7",
)
@icontract.ensure(
    lambda state, result, op: all(
        replace(o.state.snapshots[op.name], labels=(), updated=None) == replace(state.snapshots[op.name], labels=(), updated=None)
        for o in _succeeded(result)
    ),
    "SNAP-UPDATE-8",
)
def update(state: State, op: ops.Update, at: Span = NOW) -> Outcomes:
    """SNAP-UPDATE: labels change, all of them or those that the mask names; nothing else does."""
    before = state.get(op.name)
    labels = _masked(before.labels if before else (), op)
    empty = op.name == "" and state.profile.door is Door.METADATA
    reason = update_guard(empty, before is not None, _bad_path(op), _too_long(state, labels))
    if before is None or reason is not Reason.NONE:
        reasons = [before is None, _bad_path(op), _too_long(state, labels)]
        return _refused(state, UPDATE, reason, *_wins(state, sum(reasons), "SNAP-UPDATE-3", "SNAP-UPDATE-3"))
    updated = Span(max(at.earliest, before.created.earliest), max(at.latest, before.created.earliest))
    after = replace(before, labels=labels_of(dict(labels)), updated=updated)
    shows = ("SNAP-UPDATE-6", "SNAP-UPDATE-7", "SNAP-UPDATE-8", *_label_clauses(op.labels))
    return (Outcome("SNAP-UPDATE-5" if op.mask else "SNAP-UPDATE-4", Tells(op.name), state.put(op.name, after), shows),)


def _bad_path(op: ops.Update) -> bool:
    return any(not _labels_path(path) for path in op.mask)


def _labels_path(path: str) -> bool:
    return path == "labels" or (path.startswith("labels.") and path != "labels.")


def _masked(before: Labels, op: ops.Update) -> Labels:
    """The labels after the mask's paths were applied from left to right, the empty ones still among them (SNAP-UPDATE-5)."""
    wanted = dict(op.labels)
    labels = dict(before)
    for path in op.mask or ("labels",):
        if path == "labels":
            labels = dict(wanted)
        else:
            key = path.removeprefix("labels.")
            labels[key] = wanted.get(key, "")
    return tuple(labels.items())


# --- the store as a whole


def cleanup(state: State, op: ops.Cleanup, at: Span = NOW) -> Outcomes:
    """SNAP-CLEANUP: frees what removed snapshots hold; no snapshot is touched."""
    if state.profile.door is Door.METADATA:
        return (Outcome("DOOR-CLEANUP-1", Refused(frozenset({ErrorClass.UNIMPLEMENTED})), state),)
    if not state.profile.cleanup:
        return (Outcome("SNAP-CLEANUP-1", Refused(frozenset({ErrorClass.UNIMPLEMENTED})), state),)
    return (Outcome("SNAP-CLEANUP-2", Done(), state),)


def reopen(state: State, op: ops.Reopen, at: Span = NOW) -> Outcomes:
    """SNAP-CLOSE, SNAP-OPEN: every record is there again, with its content and mounts."""
    return (Outcome("SNAP-CLOSE-1" if op.close_twice else "SNAP-OPEN-1", Done(), state),)


#: The label that protects a snapshot from containerd's garbage collector.
GC_ROOT = "containerd.io/gc.root"


def collect(state: State, op: ops.Collect, at: Span = NOW) -> Outcomes:
    """DOOR-GC: what nothing protects goes; what is protected stays, with its chain of parents."""
    if state.profile.door is Door.DIRECT:
        return (Outcome("DOOR-GC-3", Done(), state),)
    roots = [k for k, s in state.snapshots.items() if k not in op.dropped or any(name == GC_ROOT for name, _ in s.labels)]
    kept = set(roots).union(*(ancestors(state, k) for k in roots))
    gone = [k for k in state.snapshots if k not in kept]
    return (Outcome("DOOR-GC-1" if gone else "DOOR-GC-2", Done(), state.drop(*gone)),)


def nowhere(state: State, op: ops.Nowhere, at: Span = NOW) -> Outcomes:
    """DOOR-NS: a call that names no namespace. At the direct door there are none to name."""
    if state.profile.door is Door.DIRECT:
        return outcomes(state, op.call, at)
    errors = _walk_errors(state, PRECONDITION) if isinstance(op.call, ops.Walk) else PRECONDITION
    return (Outcome("DOOR-NS-1", Refused(errors), state),)


# --- content

#: The words that the changes answered, and the content and the touched paths afterwards.
Branch = tuple[tuple[str, ...], Tree, frozenset[Path]]


def read(state: State, op: ops.Read, at: Span = NOW) -> Outcomes:
    """SNAP-CONTENT: a mounted list shows the snapshot's tree."""
    reason = mounts_guard(named(state, op.key))
    if reason is not Reason.NONE:
        return _refused(state, MOUNTS, reason)
    return (Outcome("SNAP-CONTENT-1", Shows(op.key), state),)


def write(state: State, op: ops.Write, at: Span = NOW) -> Outcomes:
    """SNAP-CONTENT: changes made through a mounted list; a view refuses them (SNAP-MOUNTS-5)."""
    reason = mounts_guard(named(state, op.key))
    if reason is not Reason.NONE:
        return _refused(state, MOUNTS, reason)
    snapshot = state.snapshots[op.key]
    if snapshot.kind is Kind.VIEW:
        return (Outcome("SNAP-MOUNTS-5", Changed(_read_only(snapshot.tree, op)), state),)
    branches = _branches(lower_tree(state, snapshot), snapshot, op)
    return tuple(
        Outcome(_content_clause(branches, words), Changed(tuple(frozenset({w}) for w in words)), state.put(op.key, after))
        for words, tree, touched in branches
        for after in (replace(snapshot, tree=tree, touched=touched),)
    )


def _content_clause(branches: list[Branch], words: tuple[str, ...]) -> str:
    """The clause that allows this branch: the latitude that it took, if any."""
    if "EXDEV" in words:
        return "SNAP-CONTENT-4"
    return "SNAP-CONTENT-3" if sum(b[0] == words for b in branches) > 1 else "SNAP-CONTENT-2"


def _read_only(tree: Tree, op: ops.Write) -> tuple[frozenset[str], ...]:
    """What each change may answer on a read-only mount: EROFS, or the error that it would have met anyway."""
    return tuple(
        frozenset({"EROFS"} | {a.result for a in outcomes_of(tree, tree, change) if a.result != "ok"}) for change in op.changes
    )


def _branches(lower: Tree, snapshot: Snapshot, op: ops.Write) -> list[Branch]:
    """Every way the changes may go where drivers may differ (SNAP-CONTENT-3, SNAP-CONTENT-4), each once."""
    branches: list[Branch] = [((), snapshot.tree, snapshot.touched)]
    for change in op.changes:
        branches = list(
            dict.fromkeys(
                ((*words, applied.result), applied.tree, touched | touched_by(tree, change))
                for words, tree, touched in branches
                for applied in outcomes_of(lower, tree, change)
            )
        )
    return branches


# --- all of them

_STEPS: dict[type, Callable[..., Outcomes]] = {
    ops.Prepare: prepare,
    ops.View: view,
    ops.Commit: commit,
    ops.Remove: remove,
    ops.Mounts: mounts,
    ops.Stat: stat,
    ops.Update: update,
    ops.Usage: usage,
    ops.Walk: walk,
    ops.Cleanup: cleanup,
    ops.Reopen: reopen,
    ops.Collect: collect,
    ops.Nowhere: nowhere,
    ops.Write: write,
    ops.Read: read,
}


@icontract.require(lambda state: well_formed(state))
@icontract.ensure(lambda result: len(result) > 0, "SNAP-LIVE-1")
@icontract.ensure(lambda result: all(keys_well_formed(o.state) for o in result), "SNAP-KEY-2")
@icontract.ensure(lambda result: all(labels_well_formed(o.state) for o in result), "SNAP-LABEL-2")
@icontract.ensure(lambda result: all(times_well_formed(o.state) for o in result), "SNAP-TIME-3")
@icontract.ensure(lambda result: all(parents_well_formed(o.state) for o in result), "SNAP-PARENT-1")
@icontract.ensure(lambda state, result: all(o.state is state for o in result if isinstance(o.reply, Refused)), "SNAP-FAIL-1")
def outcomes(state: State, op: ops.Operation, at: Span = NOW) -> Outcomes:
    """All allowed outcomes of `op` in `state`, when it takes effect at some instant of `at`. Never empty, never raises."""
    return _STEPS[type(op)](state, op, at)
