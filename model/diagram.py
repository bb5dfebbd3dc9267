"""The parts of the spec that are made from the model: the life of a key, and what each call answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from snapspec.model import ops
from snapspec.model.explore import Universe, transitions
from snapspec.model.frozen import Map
from snapspec.model.guards import Door
from snapspec.model.ops import Operation
from snapspec.model.replies import Changed, Gives, Measures, Outcome, Refused, Shows, Tells, describe
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Profile, Snapshot, State
from snapspec.model.tree import MakeFile
from snapspec.model.values import Kind

#: What a key can be, in the order in which it becomes that.
PLACES = ("absent", "active", "view", "committed")

CHANGE = MakeFile("file", b"")

#: Two keys: one can be the other's parent, and one the other's name.
SMALL = Universe(keys=("a", "b"), masks=((),), changes=((CHANGE,),), collections=True)

# --- the life of a key


def life_of_a_key() -> str:
    """A mermaid state diagram: an arrow for each change of a key, and one for all that leaves it as it is.

    It is found by going through all that a store with two keys can do, at both doors.
    """
    arrows = _arrows()
    lines = ["stateDiagram-v2", "    [*] --> absent"]
    for before in PLACES:
        for after in PLACES:
            if (before, after) in arrows:
                lines.append(f"    {before} --> {after}: {'<br/>'.join(arrows[before, after])}")
    return _fenced(lines)


def _fenced(lines: list[str]) -> str:
    return "\n".join(("```mermaid", *lines, "```", ""))


def _arrows() -> dict[tuple[str, str], list[str]]:
    """The calls that succeed, in the order in which they are met, by what a key was and what it is then."""
    arrows: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for door in Door:
        for state, op, outcome in transitions(SMALL, State(profile=Profile(door))):
            if _succeeds(outcome):
                for key, role in _named(op, state, outcome.state):
                    arrows[_place(state, key), _place(outcome.state, key)][role] = None
    return {arrow: sorted(roles) for arrow, roles in arrows.items()}


def _succeeds(outcome: Outcome) -> bool:
    if isinstance(outcome.reply, Changed):
        return any("ok" in words for words in outcome.reply.results)
    return not isinstance(outcome.reply, Refused)


def _place(state: State, key: str) -> str:
    snapshot = state.get(key)
    return "absent" if snapshot is None else snapshot.kind.value


def _named(op: Operation, before: State, after: State) -> Iterator[tuple[str, str]]:
    """The keys that the call names, each with what the call does with it in words."""
    match op:
        case ops.Prepare(key, parent) | ops.View(key, parent):
            name = "prepare" if isinstance(op, ops.Prepare) else "view"
            yield key, name
            yield from ((parent, f"{name} over it"),) if parent else ()
        case ops.Commit(name, key):
            yield from ((key, "commit of it"), (name, "commit to it"))
        case ops.Update(name):
            yield name, "update"
        case ops.Collect():
            yield from ((key, "collection") for key in before.snapshots if key not in after.snapshots)
        case ops.Remove(key) | ops.Mounts(key) | ops.Stat(key) | ops.Usage(key) | ops.Read(key) | ops.Write(key):
            yield key, type(op).__name__.lower()


# --- what each call answers

#: The key that stands for each column.
COLUMNS = {"absent": "absent", "active": "active", "view": "view", "committed": "leaf", "committed, with a child": "base"}

STORE = Map(
    {
        "active": Snapshot(Kind.ACTIVE),
        "view": Snapshot(Kind.VIEW),
        "leaf": Snapshot(Kind.COMMITTED),
        "base": Snapshot(Kind.COMMITTED),
        "child": Snapshot(Kind.ACTIVE, "base"),
    }
)


def answers(door: Door = Door.DIRECT) -> str:
    """A markdown table: for each call and each thing that the key in question can be, the answer and its clause.

    All else that the call names is right; so it is the same table for both doors.
    """
    state = State(STORE, Profile(door))
    lines = [_row("call", tuple(COLUMNS)), _row("---", ("---",) * len(COLUMNS))]
    for calls in zip(*(_calls(key) for key in COLUMNS.values()), strict=True):
        lines.append(_row(calls[0][0], tuple(_cell(state, op) for _, op in calls)))
    return "\n".join((*lines, ""))


def _row(head: str, cells: tuple[str, ...]) -> str:
    return f"| {' | '.join((head, *cells))} |"


def _calls(key: str) -> list[tuple[str, Operation]]:
    """Every call that names a key, with `key` in each of its places."""
    return [
        ("prepare, the key", ops.Prepare(key)),
        ("prepare, the parent", ops.Prepare("new", key)),
        ("view, the key", ops.View(key)),
        ("view, the parent", ops.View("new", key)),
        ("commit, the key", ops.Commit("new", key)),
        ("commit, the name", ops.Commit(key, "child")),
        ("remove", ops.Remove(key)),
        ("mounts", ops.Mounts(key)),
        ("stat", ops.Stat(key)),
        ("update", ops.Update(key)),
        ("usage", ops.Usage(key)),
        ("reading through its mounts", ops.Read(key)),
        ("writing through its mounts", ops.Write(key, (CHANGE,))),
    ]


def _cell(state: State, op: Operation) -> str:
    return "; ".join(f"{_words(outcome)} ({outcome.clause})" for outcome in outcomes(state, op))


def _words(outcome: Outcome) -> str:
    match outcome.reply:
        case Gives():
            return "the mount list"
        case Tells():
            return "the record"
        case Measures():
            return "the usage"
        case Shows():
            return "the content"
        case Changed(results):
            return " or ".join(sorted(results[0]))
    return describe(outcome.reply)
