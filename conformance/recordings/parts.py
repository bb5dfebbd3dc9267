"""A recording as parts that have nothing to do with each other.

Snapshots belong together when a call names them together, or a record at the beginning does: a parent, and a name that a key is
committed to. A walk tells of all of them. Each part has it with what it says of this part; and where calls that change several
parts overlap with one walk, these parts are one, for there the walk tells in which order they changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.linear import Call
from snapspec.conformance.recordings.recording import Made, Store
from snapspec.conformance.recordings.store import CHANGES, Asked, Part, StoreModel, names, told_names
from snapspec.model import ops
from snapspec.model.frozen import Map
from snapspec.model.guards import Door, Rebase
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Lost, Response, Returned
from snapspec.model.state import Measure, Profile, Snapshot, Span, State, well_formed
from snapspec.model.values import ErrorClass, Info

#: Parts become one for the sake of a walk as long as the whole has no more calls than this; beyond it a walk is held against each
#: of them by itself.
GLUED = 2_000


def profiles(store: Store, made: Sequence[Made]) -> list[Profile]:
    """What the driver of the store declares, or may have: a recording of somebody else's does not say."""
    if store.profile is not None:
        return [store.profile]
    door = Door.DIRECT if store.namespace is None else Door.METADATA
    offered = not any(isinstance(m.op, ops.Cleanup) and _error(m.response) is ErrorClass.UNIMPLEMENTED for m in made)
    asked = any(isinstance(m.op, ops.Commit) and m.op.parent for m in made)
    rebases = (Rebase.IGNORED, Rebase.REFUSED, Rebase.MERGED) if asked else (Rebase.IGNORED,)
    return [Profile(door, wire=True, cleanup=offered, rebase=rebase, usage=Measure.OPAQUE) for rebase in rebases]


def _error(response: Response) -> ErrorClass | None:
    return response.error if isinstance(response, Failed) else None


def split(store: Store, profile: Profile, made: Sequence[Made], released: bool = False) -> list[Part]:
    """The calls on one store as parts. Raises CannotRun when nobody knows how it began."""
    groups = _Groups()
    for record in _records(store):
        groups.join(record.name, *([record.parent] if record.parent else []))
    for call in made:
        groups.join(*_named(call.op))
        for name in told_names(call.response):
            groups.join(name)
    told = _told(store, made, groups)
    last = max((call.clock_ended for call in made), default=0)
    calls: dict[str, list[Call]] = defaultdict(list)
    for number, call in enumerate(made):
        for group in {groups.of(name) for name in told.get(number, [_named(call.op)[0]])}:
            calls[group].append(_call(call, group, groups, last))
    collected = _collectable(store, made, released)
    return [Part(StoreModel(_initial(store, profile, group, groups), collected), tuple(c)) for group, c in calls.items()]


def _records(store: Store) -> tuple[Info, ...]:
    if store.records is None:
        raise CannotRun(f"what {store.snapshotter!r} held at the beginning is not known ({store.why}): record again")
    return store.records


def _named(op: Operation) -> tuple[str, ...]:
    """The names of the call, or the empty one, which never names anything."""
    return names(op) or ("",)


def _initial(store: Store, profile: Profile, group: str, groups: _Groups) -> State:
    records = (record for record in _records(store) if groups.of(record.name) == group)
    state = State(Map((record.name, _snapshot(record)) for record in records), profile)
    if not well_formed(state):
        raise CannotRun(f"the records of {store.snapshotter!r} at the beginning are not those of a store: check the driver first")
    return state


def _snapshot(record: Info) -> Snapshot:
    updated = None if record.updated == record.created else Span(record.updated, record.updated)
    return Snapshot(record.kind, record.parent, record.labels, Span(record.created, record.created), updated)


def _call(made: Made, group: str, groups: _Groups, last: int) -> Call:
    """The call as the part has it: of a walk, what it tells of the part."""
    response = made.response
    if isinstance(made.op, ops.Walk) and isinstance(response, Returned) and isinstance(response.value, tuple):
        infos = tuple(info for info in response.value if isinstance(info, Info) and groups.of(info.name) == group)
        response = Returned(infos)
    ended = last if isinstance(response, Lost) else made.clock_ended
    asked = Asked(made.op, Span(made.clock_began, max(made.clock_began, ended)))
    return Call(asked, None if isinstance(response, Lost) else response, made.began, made.ended, str(made.caller))


def _collectable(store: Store, made: Iterable[Made], released: bool) -> frozenset[str]:
    """What containerd may collect: what no lease is known to keep. A driver that declares what it is, is checked by the kit,
    which keeps all that it makes."""
    if store.namespace is None or store.profile is not None:
        return frozenset()
    unkept = {record.name for record in _records(store)}
    for call in made:
        if released or not call.leased:
            unkept.update(_makes(call.op))
    return frozenset(unkept)


def _makes(op: Operation) -> tuple[str, ...]:
    """What the call makes, when it succeeds."""
    match op:
        case ops.Prepare(key=name) | ops.View(key=name) | ops.Commit(name=name):
            return (name,)
    return ()


def _takes(op: Operation) -> tuple[str, ...]:
    """What the call takes away, when it succeeds."""
    return (op.key,) if isinstance(op, ops.Remove | ops.Commit) else ()


class _Groups:
    """Names that belong together; each group is known by one of them."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The group of the name."""
        above = self._above.setdefault(name, name)
        while above != name:
            self._above[name] = self._above[above]
            name, above = above, self._above[above]
        return name

    def join(self, *together: str) -> None:
        """They belong together."""
        first = self.of(together[0])
        for name in together[1:]:
            self._above[self.of(name)] = first


# --- walks


@dataclass(slots=True)
class _Present:
    """Which names may be there, at one moment of a recording."""

    last_made: dict[str, int] = field(default_factory=dict)
    """When the last call began that makes the name."""
    making: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)

    def begun(self, call: Made) -> None:
        """The call may take effect from now on."""
        for name in _makes(call.op):
            self.last_made[name] = call.began
            self.making[name] += 1
            self.names.add(name)

    def ended(self, call: Made) -> None:
        """The call was answered."""
        for name in _makes(call.op):
            self.making[name] -= 1
        for name in _takes(call.op) if isinstance(call.response, Returned) else ():
            if not self.making[name] and self.last_made.get(name, 0) < call.began:
                self.names.discard(name)


def _told(store: Store, made: Sequence[Made], groups: _Groups) -> dict[int, set[str]]:
    """For each walk names of all parts that it can tell of; parts that change under one walk are joined."""
    told: dict[int, set[str]] = {}
    changed: dict[int, set[str]] = {}
    present = _Present(names={record.name for record in _records(store)})
    changing: dict[int, Made] = {}
    walking: set[int] = set()
    for _, number, begins in _events(made):
        call = made[number]
        if isinstance(call.op, ops.Walk):
            if begins:
                walking.add(number)
                told[number] = {"", *told_names(call.response), *present.names}
                changed[number] = {_named(other.op)[0] for other in changing.values()}
            else:
                walking.discard(number)
        elif isinstance(call.op, CHANGES) and begins:
            changing[number] = call
            present.begun(call)
            for walk in walking:
                told[walk].update(_makes(call.op))
                changed[walk].add(_named(call.op)[0])
        elif isinstance(call.op, CHANGES):
            del changing[number]
            present.ended(call)
    _join(made, groups, changed.values())
    return told


def _events(made: Sequence[Made]) -> list[tuple[int, int, bool]]:
    """The beginnings and the answers, in order: the moment, the place of the call, whether it begins."""
    events = [(call.began, number, True) for number, call in enumerate(made)]
    events += [(call.ended, number, False) for number, call in enumerate(made) if call.ended is not None]
    return sorted(events)


def _join(made: Sequence[Made], groups: _Groups, changed: Iterable[set[str]]) -> None:
    sizes = Counter(groups.of(_named(call.op)[0]) for call in made)
    for together in changed:
        found = {groups.of(name) for name in together}
        size = sum(sizes[group] for group in found)
        if len(found) > 1 and size <= GLUED:
            groups.join(*found)
            sizes[groups.of(next(iter(found)))] = size
