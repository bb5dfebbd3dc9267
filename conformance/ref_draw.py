"""What histories of refs are drawn from, chosen by the state that the model believes in; the simplest choice first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from snapspec.conformance.draw import Limits, Pick, change
from snapspec.model import ref_ops
from snapspec.model.nodes import EMPTY
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import RefState, content, is_open
from snapspec.model.tree import Change, MakeFile, outcomes_of


@dataclass(frozen=True, slots=True)
class RefScope:
    """What a call is drawn for: the state believed, the limits of the run, and the number of the call, which names what it makes.

    `careful`: the call is to succeed, as far as that can be; otherwise its handle or id is as often wrong as right. Where it can,
    the call is to be about the records `about`.
    """

    pick: Pick
    state: RefState
    limits: Limits
    number: int
    careful: bool = True
    about: frozenset[str] = frozenset()

    @property
    def fresh(self) -> str:
        """The id of the record that this call makes."""
        return f"r{self.number}"

    @property
    def given(self) -> str:
        """The name of the handle that this call gives."""
        return f"h{self.number}"


def _handles(scope: RefScope, *, mutable: bool | None = None) -> list[str]:
    """The open handles, of one kind or of both; the latest ones are where a history is at work."""
    known = scope.state.handles
    fit = [name for name in known if is_open(scope.state, name) and mutable in (None, known[name].mutable)]
    return [name for name in fit if known[name].record in scope.about] or fit


def _handle(scope: RefScope, *, mutable: bool | None = None) -> str:
    """An open handle of the wanted kind; when not careful, as often any other, released ones among them."""
    right = _handles(scope, mutable=mutable)
    wrong = [name for name in scope.state.handles if name not in right]
    if right and (scope.careful or not wrong or not scope.pick((False, True))):
        return scope.pick(right)
    return scope.pick(wrong or right)


def _record(scope: RefScope) -> str:
    """The id of a record; when not careful, as often one that is gone or never was."""
    known = [name for name in scope.state.records if name in scope.about] or list(scope.state.records)
    gone = sorted({h.record for h in scope.state.handles.values()} - set(known))
    if known and (scope.careful or not scope.pick((False, True))):
        return scope.pick(known)
    return scope.pick([*gone[-2:], "absent", "", "neighbour"])


def new(scope: RefScope) -> RefOperation:
    """new over nothing, an immutable handle, or something that is none."""
    over = scope.pick((False, True, True)) and bool(scope.state.handles)
    return ref_ops.New(scope.fresh, scope.given, _handle(scope, mutable=False) if over else None)


def get(scope: RefScope) -> RefOperation:
    """get of any record, mutable ones among them."""
    return ref_ops.Get(_record(scope), scope.given, scope.fresh) if scope.state.records else new(scope)


def get_mutable(scope: RefScope) -> RefOperation:
    """get_mutable of a mutable record, or of anything."""
    mutable = [name for name, record in scope.state.records.items() if record.mutable]
    mutable = [name for name in mutable if name in scope.about] or mutable
    record = scope.pick(mutable) if mutable and scope.careful else _record(scope)
    return ref_ops.GetMutable(record, scope.given)


def _with(make: Callable[[RefScope, str], RefOperation], mutable: bool | None) -> Callable[[RefScope], RefOperation]:
    """The call on a handle of this kind; new while a careful scope has none."""

    def drawn(scope: RefScope) -> RefOperation:
        if not scope.state.handles or (scope.careful and not _handles(scope, mutable=mutable)):
            return new(scope)
        return make(scope, _handle(scope, mutable=mutable))

    return drawn


commit = _with(lambda scope, handle: ref_ops.Commit(handle, scope.fresh, scope.given), mutable=True)
finalize = _with(lambda _, handle: ref_ops.Finalize(handle), mutable=False)
release = _with(lambda _, handle: ref_ops.Release(handle), mutable=None)
size = _with(lambda _, handle: ref_ops.Size(handle), mutable=None)
parent = _with(lambda scope, handle: ref_ops.Parent(handle, scope.given), mutable=None)
mount = _with(lambda scope, handle: ref_ops.Mount(handle, scope.pick((True, False))), mutable=None)
read = _with(lambda _, handle: ref_ops.Read(handle), mutable=None)


def _write(scope: RefScope, handle: str) -> RefOperation:
    state, known = scope.state, scope.state.handles[handle]
    tree = content(state, known.record) if known.record in state.records else EMPTY
    changes: list[Change] = []
    for _ in range(scope.pick((1, 2, 3)) if known.mutable else 1):
        drawn = change(scope.pick, tree, scope.limits)
        changes.append(drawn)
        tree = outcomes_of(EMPTY, tree, drawn)[0].tree
    return ref_ops.Write(handle, tuple(changes))


_write_any = _with(_write, mutable=True)


def write(scope: RefScope) -> RefOperation:
    """Changes through a mutable handle, the sooner where there is nothing yet; or one through any, which may be refused."""
    state = scope.state
    bare = [name for name in _handles(scope, mutable=True) if content(state, state.handles[name].record) == EMPTY]
    return _write(scope, bare[-1]) if bare and scope.careful else _write_any(scope)


def prelude(pick: Pick) -> tuple[RefOperation, ...]:
    """The calls that many histories begin with: a pair with something in it, and perhaps what makes more of it."""
    changes = (MakeFile("f", b"y" * 5000),)
    pair = (ref_ops.New("m", "hm"), ref_ops.Write("hm", changes), ref_ops.Commit("hm", "e", "he"))
    layer = (ref_ops.New("n", "hn", "he"), ref_ops.Write("hn", (MakeFile("g", b"x"),)))
    held_twice = (ref_ops.Finalize("he"), ref_ops.Get("e", "hs", "es"))
    both = (*layer, ref_ops.Commit("hn", "d", "hd"))
    begun = pick(((), pair, (*pair, *layer), (*pair, *held_twice), (*pair, *both), (*pair, ref_ops.Release("he"))))
    return pick((begun, begun, begun, (*begun, ref_ops.Restart()))) if begun else begun


def fewer_kinds(pick: Pick, limits: Limits) -> Limits:
    """The limits of one history: all kinds of calls, or about a half of those that can be left out."""
    if not pick((False, True, True)):
        return limits
    left_out = frozenset(entry.name for entry in OPERATIONS if not entry.needed and pick((False, True)))
    return replace(limits, without=limits.without | left_out)


def disk_usage(_: RefScope) -> RefOperation:
    """disk_usage."""
    return ref_ops.DiskUsage()


def prune(_: RefScope) -> RefOperation:
    """prune."""
    return ref_ops.Prune()


def restart(_: RefScope) -> RefOperation:
    """Close the manager and open another one on the same store."""
    return ref_ops.Restart()


def close(_: RefScope) -> RefOperation:
    """Close the manager: what follows is refused until the next restart."""
    return ref_ops.Close()


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation of the machine and how often it is drawn. Those that are `needed` are never left out."""

    name: str
    drawn: Callable[[RefScope], RefOperation]
    weight: int
    needed: bool = False


#: The simplest first.
OPERATIONS = (
    Entry("new", new, 5, needed=True),
    Entry("commit", commit, 5, needed=True),
    Entry("release", release, 5, needed=True),
    Entry("get", get, 4),
    Entry("get_mutable", get_mutable, 3),
    Entry("finalize", finalize, 3),
    Entry("size", size, 4),
    Entry("write", write, 4),
    Entry("read", read, 3),
    Entry("mount", mount, 2),
    Entry("parent", parent, 2),
    Entry("disk_usage", disk_usage, 2),
    Entry("prune", prune, 2),
    Entry("close", close, 1),
    Entry("restart", restart, 1),
)

#: What a run may leave out.
OPTIONAL = tuple(entry.name for entry in OPERATIONS if not entry.needed)

#: While closed everything is refused: a little of that is enough.
_CLOSED = (release, get, size, new, disk_usage, restart, restart, restart)


def choices(state: RefState, limits: Limits, *, alone: bool) -> Sequence[Callable[[RefScope], RefOperation]]:
    """The operations to draw from, each as often as it is to be drawn, for a call that is to be `alone` or not."""
    if state.closed and alone:
        return _CLOSED
    return _weighted(limits.without if alone else limits.without | {"restart"})


@cache
def _weighted(without: frozenset[str]) -> tuple[Callable[[RefScope], RefOperation], ...]:
    return tuple(entry.drawn for entry in OPERATIONS if entry.name not in without for _ in range(entry.weight))
