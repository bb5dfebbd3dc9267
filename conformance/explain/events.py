"""Examples: short histories as events, put to the model's oracle, in words and in a form that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from snapspec.conformance import history, ref_words
from snapspec.conformance.codec import decode, encode
from snapspec.conformance.history import call_text
from snapspec.model import durable, faults, linear, ref_durable, ref_ops
from snapspec.model.faults import Trouble
from snapspec.model.linear import Divergence
from snapspec.model.ref_replies import RefCancelled, RefReturned
from snapspec.model.ref_state import RefState, is_open, snapshot_of
from snapspec.model.replies import Lost, Mismatch, Reading, Returned
from snapspec.model.state import Profile, State
from snapspec.model.tree import Tree
from snapspec.model.values import Info, Mount, Usage

#: Nanoseconds between two events.
TICK = 1000


@dataclass(frozen=True, slots=True)
class Begins:
    """The call numbered `call` begins, in the namespace `space`."""

    call: int
    op: Any
    space: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """The call answers; with `Lost`, no answer to it will come."""

    call: int
    response: Any


@dataclass(frozen=True, slots=True)
class Befalls:
    """What happens to the open call: it is cancelled, "cancel", or what it asks of others fails: "fault", or, where the very
    write fails by which the change begins to last, "undecided"."""

    call: int
    what: str


@dataclass(frozen=True, slots=True)
class Ends:
    """The process ends, or the machine loses its power, and the store is opened again."""

    power: bool = False


Event = Begins | Answers | Befalls | Ends


@dataclass(frozen=True, slots=True)
class Example:
    """A history on a store that is empty at first. `refs` tells whether it is of a manager; `profile` is the driver's."""

    events: tuple[Event, ...]
    profile: Profile = field(default_factory=Profile)
    refs: bool = False

    def with_last(self, response: Any) -> Example:
        """The same with another last answer."""
        *before, last = self.events
        assert isinstance(last, Answers), "the last event is an answer"
        return replace(self, events=(*before, replace(last, response=response)))


@dataclass(frozen=True, slots=True)
class Judged:
    """What the oracle says of an example: the clauses that the last answer was held against, or how it departs from the spec.

    `answers` counts those that were right.
    """

    clauses: tuple[str, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    answers: int = 0


# --- judged


def judge(example: Example) -> Judged:
    """Put the events to the oracle, until one departs from the spec."""
    return _judged(_judging(example), example.events, 0)


def judge_each(example: Example, responses: Iterable[Any]) -> Iterator[tuple[Any, Judged]]:
    """The same with each of `responses` in the place of the last answer; what comes before it must be right."""
    *before, last = example.events
    assert isinstance(last, Answers)
    judging = _judging(example)
    _judged(judging, before, 0)
    for response in responses:
        yield response, _judged(copy(judging), [Answers(last.call, response)], len(before))


def _judging(example: Example) -> _Snapshots | _Refs:
    return _Refs(example.profile) if example.refs else _Snapshots(example.profile)


def _judged(judging: _Snapshots | _Refs, events: Sequence[Event], done: int) -> Judged:
    """`done` is the number of events before these."""
    answers, clauses = 0, ()  # type: int, tuple[str, ...]
    for number, event in enumerate(events, done + 1):
        came = judging.told(event, number * TICK)
        if isinstance(came, Wrong):
            return Judged(mismatches=came.mismatches, answers=answers)
        if isinstance(event, Answers):
            answers, clauses = answers + 1, came
    return Judged(clauses, answers=answers)


@dataclass(frozen=True, slots=True)
class Wrong:
    """What was allowed where an answer departs from the spec, and what came."""

    mismatches: tuple[Mismatch, ...]


Told = tuple[str, ...] | Wrong


_TROUBLES = {"fault": Trouble.FAILED, "undecided": Trouble.UNDECIDED, "cancel": Trouble.CANCELED}


class _Snapshots:
    """The layers of the stores, one for each namespace; `befallen` holds what an open call was met with."""

    def __init__(self, profile: Profile) -> None:
        # What changes is put in the place of what was: a copy of this is one of what it holds.
        self.spaces = {space: durable.begin(State(profile=profile)) for space in range(2)}
        self.open: dict[int, tuple[Begins, int]] = {}
        self.befallen: dict[int, Trouble] = {}

    def told(self, event: Event, now: int) -> Told:
        """The clauses that an answer was held against, or the mismatches."""
        match event:
            case Begins(call, op, space):
                self.open = {**self.open, call: (event, now)}
                self.spaces = {**self.spaces, space: durable.invoke(self.spaces[space], call, op, now)}
            case Befalls(call, what):
                self.befallen = {**self.befallen, call: _TROUBLES[what]}
            case Ends(power):
                end = durable.power_cut if power else durable.crash
                self.spaces = {space: end(layers, now) for space, layers in self.spaces.items()}
            case Answers(call, response):
                return self._answered(call, response, now)
        return ()

    def _answered(self, call: int, response: Any, now: int) -> Told:
        begun, since = self.open[call]
        layers = self.spaces[begun.space]
        key = getattr(begun.op, "key", "")
        if key in layers.unsettled and isinstance(response, Returned) and isinstance(response.value, Tree):
            settled = durable.settle(layers, key, response.value)
            if isinstance(settled, Mismatch):
                return Wrong((settled,))
            layers = settled
        trouble = self.befallen.get(call)
        if trouble is not None:
            before = replace(layers.belief, calls=layers.belief.calls.without(call))
            belief = faults.disturbed(before, begun.op, trouble, response, since, now)
            after = belief if isinstance(belief, Divergence) else replace(layers, belief=belief)
        else:
            after = durable.respond(layers, call, response, now)
        if isinstance(after, Divergence):
            return Wrong(after.mismatches)
        self.spaces = {**self.spaces, begun.space: after}
        return after.belief.clauses


class _Refs:
    """The layers of the manager, and its open calls."""

    def __init__(self, profile: Profile) -> None:
        self.layers = ref_durable.begin(RefState(driver=State(profile=profile)))
        self.open: dict[int, Any] = {}

    def told(self, event: Event, now: int) -> Told:
        """The clauses that an answer was held against, or the mismatches. No call of a manager tells a time."""
        layers = self.layers
        match event:
            case Begins(call, op):
                self.open = {**self.open, call: op}
                self.layers = ref_durable.invoke(layers, call, op)
            case Befalls(call, what):
                self.layers = replace(layers, belief=linear.disturb(layers.belief, call, what))
            case Ends(power):
                crashed = replace(layers, belief=linear.crash(layers.belief))
                self.layers = ref_durable.power_cut(layers) if power else crashed
            case Answers(call, response):
                return self._answered(call, response)
        return ()

    def _answered(self, call: int, response: Any) -> Told:
        layers, key = self.layers, self._looks_at(self.open[call])
        if key in layers.unsettled and isinstance(response, RefReturned) and isinstance(response.value, Tree):
            settled = ref_durable.settle(layers, key, response.value)
            if isinstance(settled, Mismatch):
                return Wrong((settled,))
            layers = settled
        after = ref_durable.respond(layers, call, response)
        if isinstance(after, Divergence):
            return Wrong(after.mismatches)
        self.layers = after
        return after.belief.clauses

    def _looks_at(self, op: Any) -> str:
        """The driver's key of what the call reads; "" where it reads nothing."""
        state: RefState = self.layers.belief.state
        opened = isinstance(op, ref_ops.Read) and is_open(state, op.handle)
        return snapshot_of(state, state.handles[op.handle].record) if opened else ""


# --- in words


def lines(example: Example, whole: bool = False) -> Iterator[str]:
    """One line for a call that nothing comes between, one for each event elsewhere; with `whole`, all that the last one told."""
    operations = {event.call: event for event in example.events if isinstance(event, Begins)}
    for at, event in enumerate(example.events):
        before = example.events[at - 1] if at else None
        if isinstance(event, Answers):
            at_once = isinstance(before, Begins) and before.call == event.call
            begun = operations[event.call]
            asked = f"{call_text(begun.op)}{_where(begun)} " if at_once else ""
            more = _told(event.response) if whole and at == len(example.events) - 1 else ""
            yield f"{event.call:2}  {asked}-> {_answer(event.response, example.refs)}{more}"
        elif isinstance(event, Begins) and not _is_answered_next(example.events, at):
            yield f"{event.call:2}  {call_text(event.op)}{_where(event)} begins"
        elif isinstance(event, Befalls):
            yield f"{event.call:2}  {_BEFALLEN[event.what]}"
        elif isinstance(event, Ends):
            yield f"    {'the power fails' if event.power else 'the process ends'}, and the store is opened again"


_BEFALLEN = {
    "cancel": "is cancelled",
    "fault": "meets with a failure of what it asks",
    "undecided": "meets with a failure of the write by which it begins to last",
}


def _is_answered_next(events: Sequence[Event], at: int) -> bool:
    begun, after = events[at], events[at + 1] if at + 1 < len(events) else None
    return isinstance(begun, Begins) and isinstance(after, Answers) and after.call == begun.call


def _where(begun: Begins) -> str:
    return f" in namespace {begun.space}" if begun.space else ""


def _answer(response: Any, refs: bool) -> str:
    if isinstance(response, Lost | RefCancelled):
        return "no answer comes"
    return ref_words.answer_text(response) if refs else history.answer_text(response)


def _told(response: Any) -> str:
    """What the words of an answer leave out: names, times, places, what was measured beside the driver, what files hold."""
    match getattr(response, "value", None):
        case Info(name=name, created=created, updated=updated):
            return f", named {name!r}, created {created}, updated {updated}"
        case (Info(labels=labels), *_):
            return f", labels {dict(labels)}"
        case (Mount(source=source, options=options), *_):
            return f", {source} {','.join(options)}"
        case Reading(measured=Usage(size, inodes)):
            return f", its directory holds {size} bytes, {inodes} inodes"
        case Tree(nodes):
            held = (f", {path!r} holds {block!r}" for path, node in sorted(nodes.items()) for _, block in node.data.blocks)
            return f", the root of mode {nodes[''].mode:04o}{''.join(held)}"
    return ""


# --- in the form that is kept


def encode_example(example: Example) -> dict[str, Any]:
    """The JSON form."""
    profile = {} if example.profile == Profile() else {"profile": encode(example.profile)}
    return {**({"refs": True} if example.refs else {}), **profile, "events": [_encoded(event) for event in example.events]}


def decode_example(document: dict[str, Any]) -> Example:
    """The example that `encode_example` gave `document` for."""
    profile = decode(document["profile"]) if "profile" in document else Profile()
    return Example(tuple(map(_decoded, document["events"])), profile, document.get("refs", False))


def _encoded(event: Event) -> dict[str, Any]:
    match event:
        case Begins(call, op, space):
            return {"begins": call, "op": encode(op), **({"space": space} if space else {})}
        case Answers(call, response):
            return {"answers": call, "response": encode(response)}
        case Befalls(call, what):
            return {"befalls": call, "what": what}
        case Ends(power):
            return {"ends": "power" if power else "process"}


def _decoded(document: dict[str, Any]) -> Event:
    match document:
        case {"begins": call, "op": op, **more}:
            return Begins(call, decode(op), more.get("space", 0))
        case {"answers": call, "response": response}:
            return Answers(call, decode(response))
        case {"befalls": call, "what": what}:
            return Befalls(call, what)
        case {"ends": what}:
            return Ends(what == "power")
    raise ValueError(f"{document!r:.80} is no event")
