"""Answers: what came from a subject, what the model expects, and whether the one is the other.

An expected reply names a key and is read against the state it belongs to. What the subject was free to choose (a time
within the call, a mount list, a usage) is learned as a fact when it is first told, and holds from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from snapspec.model.guards import usage_limit, within
from snapspec.model.state import Measure, Snapshot, Span, State, ancestors, lower_tree
from snapspec.model.tree import BLOCK, FileType, Tree, differences, distinct
from snapspec.model.values import ErrorClass, Info, Kind, Labels, Mount, Usage

# --- what came ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """A usage as told, and as measured in the snapshot's own directory where the mount list shows one."""

    usage: Usage
    measured: Usage | None = None


Value = None | tuple[Mount, ...] | Info | tuple[Info, ...] | Reading | Tree | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Returned:
    """The call answered with a value: none, mounts, a record, records, a usage, a tree, or one word for each change."""

    value: Value = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The call answered with an error."""

    error: ErrorClass
    message: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer is known: the connection broke, or the call was given up. It may have taken effect, now or later."""

    reason: str = ""


Response = Returned | Failed | Lost

# --- what is expected ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of one of these classes."""

    errors: frozenset[ErrorClass]


@dataclass(frozen=True, slots=True)
class Done:
    """An answer without a value."""


@dataclass(frozen=True, slots=True)
class Gives:
    """The mount list of `key`."""

    key: str


@dataclass(frozen=True, slots=True)
class Tells:
    """The record of `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Lists:
    """The records of `names`, in any order."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measures:
    """The usage of `key`."""

    key: str


@dataclass(frozen=True, slots=True)
class Changed:
    """For each change in order, the words that may come: `ok` or an error's name."""

    results: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Shows:
    """The whole tree of `key`."""

    key: str


Reply = Refused | Done | Gives | Tells | Lists | Measures | Changed | Shows


@dataclass(frozen=True, slots=True)
class Outcome:
    """One allowed end of a call: the clause that allows it, the reply, and the state afterwards.

    `shows` are further clauses that this call puts to the test: what it does shows in this answer and in later ones.
    """

    clause: str
    reply: Reply
    state: State
    shows: tuple[str, ...] = ()
    rest: None = None
    """Every call of the snapshotter takes effect at one instant: nothing is left of it."""


# --- the one against the other ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where a response departs from one outcome."""

    clause: str
    expected: str
    came: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The response fits; `learned` holds the snapshots about which it told something new. `clauses` were looked at."""

    clauses: tuple[str, ...]
    learned: tuple[tuple[str, Snapshot], ...] = ()


Judgement = Accepted | Mismatch


def judge(outcome: Outcome, response: Returned | Failed) -> Judgement:
    """Whether `response` is what `outcome` allows."""
    reply = outcome.reply
    if isinstance(response, Failed):
        if isinstance(reply, Refused) and response.error in reply.errors:
            return Accepted((outcome.clause, *outcome.shows))
        return Mismatch(outcome.clause, describe(reply), f"{response.error.value}: {response.message}".rstrip(": "))
    verdict = _judge_value(outcome, response.value)
    if verdict is None:
        return Mismatch(outcome.clause, describe(reply), describe_value(response.value))
    if isinstance(verdict, Accepted):
        return Accepted((outcome.clause, *outcome.shows, *verdict.clauses), verdict.learned)
    return verdict


def _judge_value(outcome: Outcome, value: Value) -> Judgement | None:
    """None: the value is not even of the expected form."""
    state = outcome.state
    match outcome.reply, value:
        case Done(), None:
            return Accepted(())
        case Gives(key), tuple() if all(isinstance(m, Mount) for m in value):
            return _judge_mounts(state, key, value)  # type: ignore[arg-type]  # the guard above is beyond mypy
        case Tells(name), Info():
            return _judge_info(name, state.snapshots[name], value)
        case Lists(names), tuple() if all(isinstance(i, Info) for i in value):
            return _judge_list(outcome.clause, state, names, value)  # type: ignore[arg-type]  # as above
        case Measures(key), Reading():
            return _judge_usage(state, key, value)
        case Changed(results), tuple() if len(value) == len(results):
            return _judge_changes(results, value)  # type: ignore[arg-type]  # as above
        case Shows(key), Tree():
            return _judge_tree(state, key, value)
        case _:
            return None


# --- records


def _judge_info(name: str, snapshot: Snapshot, info: Info) -> Judgement:
    wrong = _wrong_record(name, snapshot, info) or _wrong_times(snapshot, info)
    if wrong is not None:
        return wrong
    created = Span(info.created, info.created)
    updated = None if snapshot.updated is None else Span(info.updated, info.updated)
    clauses = ["SNAP-STAT-3", "SNAP-KIND-1", "SNAP-PARENT-3", "SNAP-LABEL-1", "SNAP-TIME-1", "SNAP-TIME-2", "SNAP-TIME-3"]
    if info.labels != snapshot.labels:
        clauses.append("SNAP-LABEL-3")
    if snapshot.created == created and snapshot.updated == updated:
        return Accepted((*clauses, "SNAP-TIME-4"))
    return Accepted(tuple(clauses), ((name, replace(snapshot, created=created, updated=updated)),))


def _wrong_record(name: str, snapshot: Snapshot, info: Info) -> Mismatch | None:
    if info.name != name:
        return Mismatch("SNAP-STAT-3", f"the record of {name!r}", f"a record named {info.name!r}")
    if info.kind is not snapshot.kind:
        return Mismatch("SNAP-KIND-1", f"kind {snapshot.kind.value}", f"kind {info.kind.value}")
    if info.parent != snapshot.parent:
        return Mismatch("SNAP-PARENT-3", f"parent {snapshot.parent!r}", f"parent {info.parent!r}")
    if _own_labels(info.labels, snapshot.labels) != snapshot.labels:
        return Mismatch("SNAP-LABEL-1", f"labels {dict(snapshot.labels)}", f"labels {dict(info.labels)}")
    return None


PRIVATE_LABELS = "containerd.io/snapshot/"


def _own_labels(came: Labels, expected: Labels) -> Labels:
    """The labels without those that a driver may add of its own (SNAP-LABEL-3)."""
    keys = {k for k, _ in expected}
    return tuple((k, v) for k, v in came if k in keys or not k.startswith(PRIVATE_LABELS))


def _wrong_times(snapshot: Snapshot, info: Info) -> Mismatch | None:
    if not within(*snapshot.created, info.created):
        return _wrong_time("created", snapshot.created, info.created)
    if snapshot.updated is None:
        if info.updated == info.created:
            return None
        return Mismatch("SNAP-TIME-2", f"updated = created = {info.created}", f"updated {info.updated}")
    if not within(*snapshot.updated, info.updated):
        return _wrong_time("updated", snapshot.updated, info.updated)
    if info.updated < info.created:
        return Mismatch("SNAP-TIME-3", f"updated no earlier than created, {info.created}", f"updated {info.updated}")
    return None


def _wrong_time(field: str, span: Span, came: int) -> Mismatch:
    if span.earliest == span.latest:
        return Mismatch("SNAP-TIME-4", f"{field} {span.earliest}, as told before", f"{field} {came}")
    return Mismatch("SNAP-TIME-1", f"{field} within the call: {span.earliest} to {span.latest}", f"{field} {came}")


def _judge_list(clause: str, state: State, names: tuple[str, ...], infos: tuple[Info, ...]) -> Judgement:
    came = sorted(i.name for i in infos)
    if came != sorted(names):
        return Mismatch(clause, f"records {sorted(names)}", f"records {came}")
    learned: list[tuple[str, Snapshot]] = []
    for info in infos:
        verdict = _judge_info(info.name, state.snapshots[info.name], info)
        if isinstance(verdict, Mismatch):
            return verdict
        learned.extend(verdict.learned)
    return Accepted(("SNAP-WALK-6",), tuple(learned))


# --- mounts


def _judge_mounts(state: State, key: str, mounts: tuple[Mount, ...]) -> Judgement:
    snapshot = state.snapshots[key]
    normal = normal_mounts(mounts)
    if snapshot.mounts is not None:
        if normal == snapshot.mounts:
            return Accepted(("SNAP-MOUNTS-3",))
        return Mismatch("SNAP-MOUNTS-3", f"the list as first given, {_text(snapshot.mounts)}", _text(mounts))
    if not mounts:
        return Mismatch("SNAP-MOUNTS-4", "at least one mount", "an empty list")
    wrong = _wrong_layers(state, key, mounts) or _shared_place(state, key, mounts)
    if wrong is not None:
        return wrong
    clauses = ("SNAP-MOUNTS-4", "SNAP-MOUNTS-6", "SNAP-MOUNTS-8")
    return Accepted(clauses, ((key, replace(snapshot, mounts=normal)),))


def normal_mounts(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """The list with the options of each mount in one order: theirs is not contract, that of the lower directories is."""
    return tuple(replace(mount, options=tuple(sorted(mount.options))) for mount in mounts)


def option(mount: Mount, name: str) -> str:
    """The value of `name=value` among the options; "" where there is none."""
    return next((o[len(name) + 1 :] for o in mount.options if o.startswith(name + "=")), "")


def lower_directories(mount: Mount) -> tuple[str, ...]:
    """The lower directories of an overlay mount, nearest first."""
    return tuple(part for part in option(mount, "lowerdir").split(":") if part)


def _wrong_layers(state: State, key: str, mounts: tuple[Mount, ...]) -> Mismatch | None:
    """An overlay has one lower directory for each ancestor, none twice, none its own upper one (SNAP-MOUNTS-6)."""
    overlay = next((m for m in mounts if "overlay" in m.type and "/" not in m.type), None)
    if overlay is None:
        return None
    lowers = lower_directories(overlay)
    depth = len(ancestors(state, key))
    if len(lowers) == len(set(lowers)) == depth and option(overlay, "upperdir") not in lowers:
        return None
    return Mismatch("SNAP-MOUNTS-6", f"{depth} lower directories, each once, none the upper one", _text(mounts))


def writable_places(mounts: tuple[Mount, ...]) -> frozenset[str]:
    """The directories that a list writes to: upper and work directories, sources of writable binds."""
    places = set()
    for mount in mounts:
        places |= {option(mount, "upperdir"), option(mount, "workdir")}
        if mount.type == "bind" and "ro" not in mount.options:
            places.add(mount.source)
    return frozenset(places - {""})


def _shared_place(state: State, key: str, mounts: tuple[Mount, ...]) -> Mismatch | None:
    """No two snapshots write to one place (SNAP-MOUNTS-8)."""
    own = writable_places(mounts)
    for other, snapshot in state.snapshots.items():
        if other != key and snapshot.mounts is not None and own & writable_places(snapshot.mounts):
            return Mismatch("SNAP-MOUNTS-8", f"no writable directory in common with {other!r}", _text(mounts))
    return None


def _text(mounts: tuple[Mount, ...]) -> str:
    return "; ".join(f"{m.type} {m.source} {','.join(m.options)}".strip() for m in mounts) or "an empty list"


# --- usage

#: Room for one inode's own blocks: a directory's entries, an attribute block, an extent block.
SLACK = 3 * 4096


def _judge_usage(state: State, key: str, reading: Reading) -> Judgement:
    snapshot, usage = state.snapshots[key], reading.usage
    if usage.size < 0 or usage.inodes < 0:
        return Mismatch("SNAP-USAGE-4", "nothing below zero", _usage(usage))
    if snapshot.kind is Kind.VIEW:
        if usage == Usage(0, 0):
            return Accepted(("SNAP-USAGE-2", "SNAP-USAGE-4"))
        return Mismatch("SNAP-USAGE-2", _usage(Usage(0, 0)), _usage(usage))
    if snapshot.usage is not None and usage != snapshot.usage:
        return Mismatch("SNAP-USAGE-3", f"{_usage(snapshot.usage)}, as told before", _usage(usage))
    wrong = _wrong_measure(state, snapshot, reading)
    if wrong is not None:
        return wrong
    clauses = ("SNAP-USAGE-4", "SNAP-USAGE-5", "SNAP-USAGE-6", "SNAP-USAGE-7")
    if snapshot.kind is Kind.ACTIVE:
        return Accepted(clauses)
    return Accepted((*clauses, "SNAP-USAGE-3"), ((key, replace(snapshot, usage=usage)),))


def _wrong_measure(state: State, snapshot: Snapshot, reading: Reading) -> Mismatch | None:
    measure = state.profile.usage
    usage, measured = reading.usage, reading.measured
    if measure is Measure.OPAQUE:
        return None
    if measure in (Measure.LAYER, Measure.COPY) and measured is not None and usage != measured:
        return Mismatch("SNAP-USAGE-5", f"{_usage(measured)}, as measured in its directory", _usage(usage))
    most = most_usage(state, snapshot)
    if usage.size > most.size or usage.inodes > most.inodes:
        return Mismatch("SNAP-USAGE-6", f"at most {_usage(most)}", _usage(usage))
    least = 0 if measure is Measure.DELTA else least_size(state, snapshot)
    if usage.size < least:
        return Mismatch("SNAP-USAGE-7", f"at least {least} bytes, its own data", _usage(usage))
    return None


def most_usage(state: State, snapshot: Snapshot) -> Usage:
    """The most that the layer can take: all it touched, or all it shows where the driver keeps full copies."""
    whole = state.profile.usage is Measure.COPY
    paths = frozenset(snapshot.tree.nodes) if whole else snapshot.touched
    # Whole files count, holes too: an overlay's copy-up may fill them.
    data = sum(-(-node.data.size // BLOCK) * BLOCK for node in distinct(snapshot.tree, paths))
    inodes = len(paths | snapshot.touched) + 1
    return Usage(usage_limit(data, inodes, SLACK), inodes)


def least_size(state: State, snapshot: Snapshot) -> int:
    """The data that is certainly the layer's own: files whose data the parent does not show at that path."""
    lower = lower_tree(state, snapshot).nodes
    own = frozenset(
        path
        for path, node in snapshot.tree.nodes.items()
        if node.type is FileType.FILE and (path not in lower or lower[path].data != node.data)
    )
    # A short tail may be kept inside the inode, so that only whole sectors are sure to be counted.
    return sum(len(block) // 512 * 512 for node in distinct(snapshot.tree, own) for _, block in node.data.blocks)


def _usage(usage: Usage) -> str:
    return f"{usage.size} bytes in {usage.inodes} inodes"


# --- content


def _judge_changes(allowed: tuple[frozenset[str], ...], came: tuple[str, ...]) -> Judgement:
    for number, (words, word) in enumerate(zip(allowed, came, strict=True)):
        if word not in words:
            clause = "SNAP-MOUNTS-5" if "EROFS" in words or word == "EROFS" else "SNAP-CONTENT-2"
            return Mismatch(clause, f"change {number + 1}: {' or '.join(sorted(words))}", word)
    return Accepted(("SNAP-CONTENT-2", "SNAP-MOUNTS-5"))


def _judge_tree(state: State, key: str, came: Tree) -> Judgement:
    expected = state.snapshots[key].tree
    if expected != came:
        return Mismatch("SNAP-CONTENT-1", "the tree of the model", "; ".join(differences(expected, came)))
    depth = len(ancestors(state, key))
    root = "SNAP-CONTENT-5" if depth else "SNAP-CONTENT-6"
    # Only a chain of two lower directories has an order to be seen.
    return Accepted(("SNAP-CONTENT-1", root, "SNAP-MOUNTS-7") if depth > 1 else ("SNAP-CONTENT-1", root))


# --- in words


def describe(reply: Reply) -> str:
    """The expected reply in a few words."""
    match reply:
        case Refused(errors):
            return "any error" if len(errors) == len(ErrorClass) else " or ".join(sorted(e.value for e in errors))
        case Done():
            return "success"
        case Gives(key):
            return f"the mount list of {key!r}"
        case Tells(name):
            return f"the record of {name!r}"
        case Lists(names):
            return f"the records {sorted(names)}"
        case Measures(key):
            return f"the usage of {key!r}"
        case Changed():
            return "the changes made"
    return f"the tree of {reply.key!r}"


def describe_value(value: Value) -> str:
    """What came, in a few words."""
    match value:
        case None:
            return "success"
        case Info(name=name):
            return f"success, the record of {name!r}"
        case Reading(usage=usage):
            return f"success, {_usage(usage)}"
        case Tree():
            return "success, a tree"
        case _:
            return f"success, {len(value)} entries"
