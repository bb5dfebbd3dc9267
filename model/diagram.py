"""The parts of the spec that are made from the model: the lives of what it speaks of, and what each call answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from snapspec.model import ops, ref_ops, ref_replies
from snapspec.model.explore import NOBODY, RefUniverse, Universe, ref_transitions, transitions
from snapspec.model.frozen import Map
from snapspec.model.guards import Door
from snapspec.model.ops import Operation
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import (
    ChangedThrough,
    GivesHandle,
    GivesList,
    ListsRows,
    Pruned,
    RefOutcome,
    RefRefused,
    RefState,
    ShowsTree,
    TellsSize,
    held,
)
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
    return _diagram(PLACES, _arrows())


def _diagram(places: tuple[str, ...], arrows: Iterable[tuple[str, str, str]]) -> str:
    """The diagram of these arrows, each a place before, a place after and a call; the first place is where it begins."""
    calls: dict[tuple[str, str], set[str]] = defaultdict(set)
    for before, after, call in arrows:
        calls[before, after].add(call)
    lines = ["stateDiagram-v2", f"    [*] --> {places[0]}"]
    for arrow in product(places, places):
        if arrow in calls:
            lines.append(f"    {' --> '.join(arrow)}: {'<br/>'.join(sorted(calls[arrow]))}")
    return "\n".join(("```mermaid", *lines, "```", ""))


def _arrows() -> Iterator[tuple[str, str, str]]:
    """What a key was, what it is then, and the call, for each call that succeeds."""
    for door in Door:
        for state, op, outcome in transitions(SMALL, State(profile=Profile(door))):
            if _succeeds(outcome):
                for key, role in _named(op, state, outcome.state):
                    yield _place(state, key), _place(outcome.state, key), role


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


# --- refs: all that a few records and handles can do

#: What a record can be, in the order in which it becomes that. An open M is one with an open handle.
RECORD_PLACES = ("absent", "open_M", "idle_M", "M_of_a_pair", "E_of_a_pair", "final_E")

#: What the records of a pair can be, before, during and after it.
PAIR_PLACES = ("M_alone", "pair_held", "pair_idle", "E_alone", "none")

#: What a handle can be.
HANDLE_PLACES = ("not_given", "on_M", "on_E_of_a_pair", "on_final_E", "not_open")


class RefStep(NamedTuple):
    """One call that overlaps with no other, and how it ended."""

    before: RefState
    op: RefOperation
    outcome: RefOutcome


@cache
def ref_steps(records: int = 3, handles: int = 2) -> tuple[RefStep, ...]:
    """Every call in every state of so many records at most, and open handles on each; content is forgotten."""
    return tuple(RefStep(*step) for step in ref_transitions(RefUniverse(records, handles)))


def ref_call(op: RefOperation) -> str:
    """What the spec calls the operation."""
    match op:
        case ref_ops.New(parent=str()):
            return "new over it"
        case ref_ops.GetMutable():
            return "get_mutable"
        case ref_ops.DiskUsage():
            return "disk_usage"
        case ref_ops.Mount(readonly=readonly):
            return "mount to read" if readonly else "mount to write"
        case ref_ops.Read():
            return "reading through its list"
        case ref_ops.Write():
            return "writing through its list"
    return type(op).__name__.lower()


def _handle_of(op: RefOperation) -> str | None:
    """The handle that the call is made on, or over."""
    match op:
        case ref_ops.New(parent=handle):
            return handle
        case ref_ops.Get() | ref_ops.GetMutable() | ref_ops.DiskUsage() | ref_ops.Prune() | ref_ops.Close() | ref_ops.Restart():
            return None
    return op.handle


def _subject(state: RefState, op: RefOperation) -> str:
    """The record that the call names, by its id or by an open handle; "" where there is none."""
    if isinstance(op, ref_ops.Get | ref_ops.GetMutable):
        return op.record
    handle = _handle_of(op)
    return state.handles[handle].record if handle is not None and handle in state.handles else ""


def _in_hand(state: RefState, record: str) -> bool:
    """Whether the record has an open handle: no handle of a closed manager is open (REF-CLOSE-1)."""
    return held(state, record) and not state.closed


# --- refs: the three lives


def life_of_a_record() -> str:
    """A mermaid state diagram of what a record can be."""
    return _diagram(RECORD_PLACES, _ref_arrows(_record_arrows))


def life_of_a_pair() -> str:
    """A mermaid state diagram of what becomes of a mutable record and of the E that was committed of it."""
    return _diagram(PAIR_PLACES, _ref_arrows(_pair_arrows))


def life_of_a_handle() -> str:
    """A mermaid state diagram of what a handle can be."""
    return _diagram(HANDLE_PLACES, _ref_arrows(_handle_arrows))


Arrows = Iterator[tuple[str, str, str]]


def _ref_arrows(arrows: Callable[[RefStep], Arrows]) -> Arrows:
    """The arrows of each call of an open manager that succeeds; what is done through a list begins with a mount."""
    for step in ref_steps():
        through = isinstance(step.op, ref_ops.Read | ref_ops.Write)
        if not (through or step.before.closed or isinstance(step.outcome.reply, RefRefused)):
            yield from arrows(step)


def _record_place(state: RefState, name: str) -> str:
    record = state.records.get(name)
    if record is None:
        return "absent"
    if record.equal:
        return "M_of_a_pair" if record.mutable else "E_of_a_pair"
    if not record.mutable:
        return "final_E"
    return "open_M" if _in_hand(state, name) else "idle_M"


def _record_arrows(step: RefStep) -> Arrows:
    """Of each record that the call names or changes."""
    before, op, after = step.before, step.op, step.outcome.state
    subject = _subject(before, op)
    for record in dict.fromkeys((*before.records, *after.records)):
        places = _record_place(before, record), _record_place(after, record)
        above = isinstance(op, ref_ops.Parent) and record == before.records[subject].parent
        if places[0] != places[1] or record == subject or above:
            yield *places, "parent of a child" if above else _as_seen_by(record, subject, step)


def _as_seen_by(record: str, subject: str, step: RefStep) -> str:
    """The call in words, where `record` is what it names, or makes, or the other half of that."""
    call = ref_call(step.op)
    if isinstance(step.op, ref_ops.New) and record == step.op.record:
        return "new"
    if subject in ("", record):
        return call
    other = "its E" if (step.before.records.get(record) or step.outcome.state.records[record]).mutable else "its M"
    return f"new over {other}" if call == "new over it" else f"{call} of {other}"


def _pair_place(state: RefState, mutable: str, final: str) -> str:
    if final not in state.records:
        return "M_alone" if mutable in state.records else "none"
    if not state.records[final].equal:
        return "E_alone"
    return "pair_held" if _in_hand(state, final) else "pair_idle"


def _pair_arrows(step: RefStep) -> Arrows:
    """Of each pair that was or is there; a call that leaves it as it is, where it names one of the halves."""
    before, op, after = step.before, step.op, step.outcome.state
    subject = _subject(before, op)
    for mutable, final in sorted(_pairs(before) | _pairs(after)):
        places = _pair_place(before, mutable, final), _pair_place(after, mutable, final)
        if places[0] == places[1] and subject not in (mutable, final):
            continue
        half = "M" if subject == mutable else "E"
        if isinstance(op, ref_ops.Get):
            yield *places, f"get of {half}"
        else:
            yield *places, "new over E" if isinstance(op, ref_ops.New) else ref_call(op)


def _pairs(state: RefState) -> set[tuple[str, str]]:
    return {(name, record.equal) for name, record in state.records.items() if record.mutable and record.equal}


def _handle_place(state: RefState, name: str) -> str:
    handle = state.handles.get(name)
    if handle is None:
        return "not_open" if name == NOBODY else "not_given"
    if state.closed or not handle.open:
        return "not_open"
    if handle.mutable:
        return "on_M"
    return "on_E_of_a_pair" if state.records[handle.record].equal else "on_final_E"


def _handle_arrows(step: RefStep) -> Arrows:
    """Of each handle that the call is made on, gives or changes."""
    own = _handle_of(step.op)
    for handle in dict.fromkeys((*step.outcome.state.handles, *((NOBODY,) if own == NOBODY else ()))):
        places = _handle_place(step.before, handle), _handle_place(step.outcome.state, handle)
        if places[0] != places[1] or handle == own:
            gives = places[0] == "not_given"
            yield *places, "new" if gives and isinstance(step.op, ref_ops.New) else ref_call(step.op)


# --- refs: what each call answers

#: What the record can be that a call names. A held pair is one whose E has an open handle.
RECORD_COLUMNS = (
    "absent",
    "open M",
    "idle M",
    "M of a held pair",
    "M of an idle pair",
    "E of a held pair",
    "E of an idle pair",
    "final E",
)

#: What the handle can be that a call is made on or over.
HANDLE_COLUMNS = ("not open", "on M", "on E of a pair", "on a final E")

CLOSED = "any, the manager closed"


def answers_by_record() -> str:
    """A markdown table: what the calls that name a record by its id answer, by what the record is."""
    return _ref_table((*RECORD_COLUMNS, CLOSED), _record_column)


def answers_by_handle() -> str:
    """A markdown table: what the calls on and over a handle answer, by what the handle is."""
    return _ref_table((*HANDLE_COLUMNS, CLOSED), _handle_column)


def answers_by_manager() -> str:
    """A markdown table: what the other calls answer."""
    return _ref_table(("open manager", "closed manager"), _manager_column)


def _ref_table(columns: tuple[str, ...], column_of: Callable[[RefStep], str]) -> str:
    """The answers of the calls that have a column, each with its clauses, in the order in which they are met."""
    cells: dict[str, dict[str, dict[str, set[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for step in ref_steps():
        column = column_of(step)
        if column:
            cells[ref_call(step.op)][column][_ref_words(step)].add(step.outcome.clause)
    lines = [_row("call", columns), _row("---", ("---",) * len(columns))]
    for call, row in cells.items():
        lines.append(_row(call, tuple(_ref_cell(row[column]) for column in columns)))
    return "\n".join((*lines, ""))


def _ref_cell(answers: dict[str, set[str]]) -> str:
    """What the call gives comes before an error that it may answer with instead."""
    return " or ".join(f"{words} ({', '.join(sorted(clauses))})" for words, clauses in answers.items())


def _record_column(step: RefStep) -> str:
    if not isinstance(step.op, ref_ops.Get | ref_ops.GetMutable):
        return ""
    if step.before.closed:
        return CLOSED
    return _record_words(step.before, step.op.record)


def _record_words(state: RefState, name: str) -> str:
    place = _record_place(state, name)
    if place not in ("M_of_a_pair", "E_of_a_pair"):
        return place.replace("_", " ")
    record = state.records[name]
    paired = "a held pair" if held(state, record.equal if record.mutable else name) else "an idle pair"
    return f"{'M' if record.mutable else 'E'} of {paired}"


def _handle_column(step: RefStep) -> str:
    handle = _handle_of(step.op)
    if handle is None:
        return ""
    return CLOSED if step.before.closed else _HANDLE_WORDS[_handle_place(step.before, handle)]


_HANDLE_WORDS = dict(zip(("not_open", "on_M", "on_E_of_a_pair", "on_final_E"), HANDLE_COLUMNS, strict=True))


def _manager_column(step: RefStep) -> str:
    if isinstance(step.op, ref_ops.Get | ref_ops.GetMutable) or _handle_of(step.op) is not None:
        return ""
    return "closed manager" if step.before.closed else "open manager"


def _ref_words(step: RefStep) -> str:
    """The reply in words that are the same for every record and handle of a kind."""
    state = step.outcome.state
    match step.outcome.reply:
        case GivesHandle(record=record):
            return f"a handle on {'M' if state.records[record].mutable else 'E'}"
        case GivesList(writable=writable):
            return "its list" if writable else "its list, read-only"
        case TellsSize():
            return "its size"
        case ShowsTree():
            return "the content"
        case ChangedThrough(record=record):
            return "the changes" if state.records[record].mutable else "no change"
        case ListsRows():
            return "the rows"
        case Pruned():
            return "the rows of what is gone"
        case _:
            return ref_replies.describe(step.outcome)
