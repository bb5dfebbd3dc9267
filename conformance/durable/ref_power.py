"""Power cuts for refs: the store of the manager stands in the pool beside the snapshots, so that one image holds both.

A history of overlapping calls is made on a recorded image. On each image that a power cut may leave, the driver and a manager are
opened and judged by the two layers of the model (`model.ref_durable`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random

from snapspec.conformance import ref_draw
from snapspec.conformance.aside import covered, kind_of
from snapspec.conformance.durable import images, power
from snapspec.conformance.durable.images import Cut, Disk
from snapspec.conformance.durable.place import Place
from snapspec.conformance.durable.recorder import Event, read_log
from snapspec.conformance.durable.ref_kills import draw_calls
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.free import FreeRun
from snapspec.conformance.ref_history import Burst, RefFinding, size
from snapspec.conformance.ref_search import shorter
from snapspec.conformance.ref_session import RefDivergence, RefSession
from snapspec.conformance.ref_watch import RefDiverged, RefWatch
from snapspec.conformance.ref_words import told
from snapspec.conformance.refs_subject import RefResponse
from snapspec.conformance.report.document import Picture
from snapspec.conformance.schedule import Answered, Choice, Unsound
from snapspec.conformance.shorten import shortest
from snapspec.conformance.subjects.refs import Opens, RefsSubject
from snapspec.impl.manager import open_manager
from snapspec.model import ref_durable, ref_ops
from snapspec.model.linear import Divergence, TooManyStates
from snapspec.model.nodes import Tree
from snapspec.model.ref_durable import RefLayers
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import RefReturned
from snapspec.model.refs import Declared, RefState, snapshot_of
from snapspec.model.replies import Mismatch
from snapspec.model.state import State
from snapspec.model.tree import MakeFile

#: How many images are made of one history.
IMAGES = power.IMAGES

#: Bursts of a drawn history.
BURSTS = 8

_WRITTEN = (MakeFile("f", b"after the cut"),)


# --- a history, recorded


@dataclass(frozen=True, slots=True)
class Told:
    """A call that begins, or answers: how long the log was then, and its number. `what` is the call, or the answer."""

    position: int
    call: int
    what: RefOperation | RefResponse
    answers: bool


class RecordedRun(FreeRun[RefOperation, RefResponse]):
    """A run that tells when each call began and answered, by the log of the image."""

    def __init__(self, session: RefSession, position: Callable[[], int]) -> None:
        super().__init__(session.world.adapter.perform, session.watch)
        self.tells: list[Told] = []
        self._position = position

    async def _call(self, op: RefOperation) -> None:
        number = len(self.operations) + 1
        self.tells.append(Told(self._position(), number, op, answers=False))
        await super()._call(op)

    async def answer(self, op: RefOperation, number: int) -> RefResponse:
        """See `FreeRun`."""
        answer = await super().answer(op, number)
        self.tells.append(Told(self._position(), number, answer, answers=True))
        return answer


class PowerSession(RefSession):
    """A session on a manager in this process, whose store stands in the pool; nothing is held at gates."""

    def open(self, position: Callable[[], int]) -> None:
        """Open the driver and the manager, for one history."""
        self._begin(None)
        self.recorded = RecordedRun(self, position)
        self.free = self.recorded
        with self._judged(nullcontext()):
            self.outside(self.world.adapter.start())

    def make(self, ops: Sequence[RefOperation]) -> None:
        """Calls that begin together. Raises RefDivergence."""
        self.bursts.append(Burst(tuple(ops)))
        with self._judged(nullcontext()):
            self._together(ops)

    async def end_subject(self) -> None:
        """The store before the driver: both stand in the pool. The manager is left as a process leaves it that dies."""
        if hasattr(self, "world"):
            await self.world.ground.let_go()
        await super().end_subject()


#: Makes the calls of a history.
Calls = Callable[[PowerSession], None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A history as the caller and as the disk saw it.

    `layers` holds what was allowed before each of `tells`, and at the end; `happened` and `operations` are those of the run.
    """

    bursts: tuple[Burst, ...]
    tells: tuple[Told, ...]
    layers: tuple[RefLayers, ...]
    events: tuple[Event, ...]
    happened: tuple[Choice | Answered, ...]
    operations: Mapping[int, RefOperation]

    def spans(self) -> list[range]:
        """The moments of each call that answered, if the disk was told something meanwhile."""
        begun = {tell.call: tell.position for tell in self.tells if not tell.answers}
        ends = [(begun[tell.call], tell.position) for tell in self.tells if tell.answers]
        moments = [[images.moment_of(self.events, position) for position in both] for both in ends]
        return [range(begin, end + 1) for begin, end in moments if end > begin]


def subject(here: Place, opens: Opens = open_manager) -> RefsSubject:
    """The manager over the pool as its image is now, with its store in the pool."""
    under = here.subject()
    return RefsSubject("power", under, here.directory / "pool" / "mnt", Declared(), opens)


def record(here: Place, calls: Calls, opens: Opens = open_manager) -> Recorded:
    """Make the calls on a new store whose image is recorded. Raises RefDivergence for what is wrong without a cut."""
    name = here.recorder.name()
    images.copy_sparse(here.template, here.recorder.backing / name)
    session = PowerSession(subject(here, opens), here.runner)
    try:
        with here.recorder.under(here.image, name), session.started():
            session.open(lambda: here.recorder.position(name))
            calls(session)
        events = read_log(here.recorder.log(name))
    except Exception:
        here.recorder.require()  # without it every call fails, and that is no fault of the manager
        raise
    finally:
        here.recorder.forget(name)
    made = session.recorded
    layers = _layers(_empty(session.subject), made.tells)
    return Recorded(tuple(session.bursts), tuple(made.tells), layers, events, tuple(made.events), made.operations)


def _empty(subject: RefsSubject) -> RefState:
    return RefState(driver=State(profile=subject.profile), declared=subject.declared)


def _layers(state: RefState, tells: Sequence[Told]) -> tuple[RefLayers, ...]:
    """What the model allows before each begin and answer, and after the last."""
    found = [ref_durable.begin(state)]
    for tell in tells:
        if tell.answers:
            after = ref_durable.respond(found[-1], tell.call, tell.what)
            assert not isinstance(after, Divergence), "the session has judged it already"
        else:
            after = ref_durable.invoke(found[-1], tell.call, tell.what)  # type: ignore[arg-type]  # a call that begins
        found.append(after)
    return tuple(found)


def drawn(random: Random, here: Place, length: int = BURSTS) -> Calls:
    """A history of bursts, as the state machine of refs draws them."""

    def make(session: PowerSession) -> None:
        for op in ref_draw.prelude(random.choice):
            session.make((op,))
        for _ in range(random.randint(1, length)):
            session.make(draw_calls(random.choice, session, here.limits))

    return make


def written(bursts: Sequence[Burst]) -> Calls:
    """A history that is given."""

    def make(session: PowerSession) -> None:
        for burst in bursts:
            session.make(burst.ops)

    return make


# --- an image, judged


def judge(
    here: Place,
    recorded: Recorded,
    disk: Disk,
    cut: Cut,
    opens: Opens = open_manager,
    *,
    kernel: bool = True,
    reached: Counter[str] | None = None,
) -> RefFinding | None:
    """Make the image and open a manager on it; what the spec does not allow of what is there, or None.

    The journal is replayed by the `kernel`, in a mount before the driver's own, or as the pool does it. `reached` counts the
    clauses that were put to the test.
    """
    disk.cut(cut, here.image)
    number = _told_at(recorded, cut)
    before, bursts = _before(recorded, number, cut), _begun(recorded, number)
    wrong = here.replayed() if kernel else ""
    if wrong:
        return RefFinding(bursts, before, (Mismatch("REF-POWER-4", "a clean file system", wrong),), free=True, power=True)
    survivor = Survivor(subject(here, opens), here.runner, ref_durable.power_cut(recorded.layers[number]))
    found = survivor.found()
    if reached is not None:
        reached.update(survivor.reached)
    if found is None:
        return None
    after = (f"     after it: {line.strip()}" for line in survivor.lines())
    return RefFinding(bursts, (*before, *after), found, free=True, power=True, pictures=survivor.pictures)


def _told_at(recorded: Recorded, cut: Cut) -> int:
    """How many of the begins and answers came before the power failed."""
    position = recorded.events[cut.moment - 1].end if cut.moment else 0
    for number, tell in enumerate(recorded.tells):
        if tell.position > position or (tell.position == position and not tell.answers):
            return number
    return len(recorded.tells)


def _begun(recorded: Recorded, number: int) -> tuple[Burst, ...]:
    """The bursts that had begun by then, the first of all at least."""
    begun = sum(not tell.answers for tell in recorded.tells[:number])
    before = [sum(len(burst.ops) for burst in recorded.bursts[:at]) for at in range(len(recorded.bursts))]
    return tuple(burst for burst, calls in zip(recorded.bursts, before, strict=True) if calls < max(begun, 1))


def under_way(recorded: Recorded, cut: Cut) -> tuple[str, ...]:
    """The names of the calls that had begun and not answered when the power failed."""
    calls = recorded.layers[_told_at(recorded, cut)].belief.calls.values()
    return tuple(type(call.op).__name__.lower() for call in calls)


def _before(recorded: Recorded, number: int, cut: Cut) -> tuple[str, ...]:
    """The history up to the cut in words."""
    calls = ", ".join(under_way(recorded, cut)) or "no call"
    lines = told(recorded.happened[:number], recorded.operations)
    return (*lines, f"     the power is cut, {calls} under way; on the disk, of what was not yet flushed: {cut.how}")


class Survivor(PowerSession):
    """A session on what a power cut has left."""

    def __init__(self, subject: RefsSubject, runner: asyncio.Runner, layers: RefLayers) -> None:
        super().__init__(subject, runner)
        self._layers = layers
        self._opened = False
        self.pictures: tuple[Picture, ...] = ()
        """The states around what was found."""

    def lines(self) -> list[str]:
        """What was done after the cut, in words."""
        return self.told() if self._opened else []

    def found(self) -> tuple[Mismatch, ...] | None:
        """What is wrong with what the power cut has left, if anything is."""
        try:
            with self.started():
                self._opened = True
                self._look()
        except RefDivergence as diverged:
            self.pictures = diverged.finding.pictures
            return self._caused(diverged.finding.mismatches)
        except CannotRun as error:
            if self._opened:
                raise
            return (Mismatch("REF-POWER-4", "a driver that opens", str(error)),)
        return None

    def _caused(self, shown: tuple[Mismatch, ...]) -> tuple[Mismatch, ...]:
        cause = self._cause
        return shown if shown[0].clause == cause.clause else (Mismatch(cause.clause, cause.expected, shown[0].came), *shown)

    def _look(self) -> None:
        """Everything that the power cut must have left, then calls of each kind; at the end nothing is left."""
        self._begin(None)
        self.watch = RefWatch(self._layers.belief, self.world)
        self.recorded = RecordedRun(self, lambda: 0)
        self.free = self.recorded
        self._cause = Mismatch("REF-POWER-4", "a start that goes through, after which records and snapshots agree", "")
        try:
            self.make((ref_ops.Restart(),))
        except RefDivergence:
            if self.world.adapter.serves:
                self._cause = Mismatch("REF-POWER-1", "every record from its point of no return on", "")
            raise
        self._look_at_driver()
        self.reached["REF-POWER-1"] += 1
        self._plant()
        self._cause = Mismatch("REF-POWER-3", "of what was not final a part, or nothing", "")
        self._not_final()
        self.reached["REF-POWER-3"] += bool(self._layers.unsettled)
        self._cause = Mismatch("REF-POWER-2", "what each final record was made final with", "")
        self._final()
        self.reached["REF-POWER-2"] += any(not r.mutable and not r.equal for r in self.state.records.values())
        self._cause = Mismatch("REF-POWER-4", "a manager that works, and leaves nothing", "")
        self._works()
        self.reached["REF-POWER-4"] += 1

    def _handle(self) -> str:
        return f"look {self.named()}"

    def _not_final(self) -> None:
        """The first look settles what a record holds that is not final."""
        layers = self._layers
        for name, record in self.state.records.items():
            if record.mutable is bool(record.equal):  # M of a pair is read as E
                continue
            handle = self._handle()
            self.make((ref_ops.GetMutable(name, handle) if record.mutable else ref_ops.Get(name, handle, f"e {handle}"),))
            layers = RefLayers(self.watch.belief, layers.shown, layers.unsettled)
            with self._judged(nullcontext()):
                answer = self.outside(self.world.adapter.perform(ref_ops.Read(handle)))
                if not isinstance(answer, RefReturned) or not isinstance(answer.value, Tree):
                    raise Unsound("REF-POWER-3", f"{name!r} cannot be read: {answer}")
                settled = ref_durable.settle(layers, snapshot_of(self.state, name), answer.value)
                if isinstance(settled, Mismatch):
                    raise RefDiverged(Divergence(ref_ops.Read(handle), answer, (settled,)))
            layers = settled
            self.watch.settle(layers.belief)
            self.make((ref_ops.Read(handle),))
            self.make((ref_ops.Release(handle),))

    def _final(self) -> None:
        for name, record in self.state.records.items():
            if not record.mutable and not record.equal:
                handle = self._handle()
                self.make((ref_ops.Get(name, handle, f"e {handle}"),))
                self.make((ref_ops.Read(handle),))
                self.make((ref_ops.Size(handle),))
                self.make((ref_ops.Release(handle),))

    def _works(self) -> None:
        """A layer is made, committed, made final and built on; then all is released and pruned, and nothing is left."""
        ops: tuple[RefOperation, ...] = (
            ref_ops.New("spare", "spare m"),
            ref_ops.Write("spare m", _WRITTEN),
            ref_ops.Commit("spare m", "spare e", "spare h"),
            ref_ops.New("spare n", "spare o", "spare h"),
            ref_ops.Read("spare o"),
        )
        for op in (*ops, *self._last()):
            self.make((op,))
        with self._judged(nullcontext()):
            self._nothing_left()

    def _last(self) -> list[RefOperation]:
        """See `RefSession`: handles of the history are not this manager's, and not open."""
        given = [f"spare {what}" for what in "hmo"]
        return [*map(ref_ops.Release, given), ref_ops.Prune(), ref_ops.DiskUsage(), ref_ops.Close()]


# --- a run


@dataclass
class RefPowered(power.Powered):
    """What a run has done and found; `found` is of refs. `crowded` counts histories that overlapped too much to be judged."""

    found: RefFinding | None = None
    crowded: int = 0


def run(
    here: Place,
    wanted: int,
    seed: int,
    opens: Opens = open_manager,
    *,
    per_history: int = IMAGES,
    until: float = float("inf"),
    report: Callable[[RefPowered], None] = lambda _: None,
    signals: Sequence[int] = (),
    done: RefPowered | None = None,
) -> RefPowered:
    """Draw histories and cuts under `seed` until `wanted` images were judged, something was found, or the clock is at `until`.

    What was found is made shorter; for `done` see `power.run`. Raises SystemExit once `signals` holds something.
    """
    done, random, spoiled = done or RefPowered(), Random(seed), 0
    done.found, done.shrinking = None, False
    while done.images < wanted and done.found is None and spoiled < power.SPOILED and time.monotonic() < until:
        _heed(done, report, signals)
        try:
            recorded = record(here, drawn(random, here), opens)
        except TooManyStates:
            done.crowded += 1
            continue
        except RefDivergence as diverged:
            spoiled += 1
            if covered(kind_of(diverged.finding), done.kinds):
                continue
            done.divergences += 1
            done.found = _shorter(diverged.finding, lambda bursts: uncut(here, bursts, opens), until)
            done.kinds |= {kind_of(diverged.finding), kind_of(done.found)}
            return done
        done.histories += 1
        done.calls += len(recorded.operations)
        done.tell(recorded.events)
        number = min(per_history, wanted - done.images)
        cuts = power.draw_cuts(random, recorded.events, recorded.spans(), number, here.whole)
        done.found = _judge_all(here, recorded, cuts, done, random, opens, lambda: _heed(done, report, signals))
    if done.found is not None:
        done.divergences, done.shrinking = done.divergences + 1, True
        report(done)
        found = done.found
        done.found = _shorter(found, lambda bursts: try_last(here, bursts, opens), until)
        done.kinds |= {kind_of(found), kind_of(done.found)}
    return done


def _judge_all(
    here: Place,
    recorded: Recorded,
    cuts: Sequence[Cut],
    done: RefPowered,
    random: Random,
    opens: Opens,
    heed: Callable[[], None],
) -> RefFinding | None:
    disk = Disk(here.template, recorded.events, _owed(here))
    for cut in cuts:
        heed()
        found = judge(here, recorded, disk, cut, opens, kernel=random.random() < 0.5, reached=done.reached)
        done.images += 1
        done.hows[cut.how if images.pieces(recorded.events, cut.moment, cut.grain) else "nothing open"] += 1
        done.during.update(under_way(recorded, cut) or ("none",))
        if found is not None and not covered(kind_of(found), done.kinds):
            return found
    return None


def _heed(done: RefPowered, report: Callable[[RefPowered], None], signals: Sequence[int]) -> None:
    """Between two histories or images: say how far it is, and end when told to."""
    report(done)
    if signals:
        raise SystemExit(1)


def _owed(here: Place) -> Path:
    return here.directory / "disk.img"


def _shorter(found: RefFinding, again: Callable[[Sequence[Burst]], RefFinding | None], until: float) -> RefFinding:
    """The finding with calls left out and made simpler, as long as what is left breaks the same clause when made `again`."""
    end = min(until, time.monotonic() + power.SHORTENING)

    def tries(best: RefFinding) -> Iterator[tuple[Burst, ...]]:
        return (bursts for bursts in shorter(best.bursts) if bursts)

    return shortest(found, tries, again, size, lambda: time.monotonic() < end)


def uncut(here: Place, bursts: Sequence[Burst], opens: Opens = open_manager) -> RefFinding | None:
    """What a given history shows without any power cut."""
    try:
        record(here, written(bursts), opens)
    except RefDivergence as diverged:
        return diverged.finding
    return None


def try_each(here: Place, bursts: Sequence[Burst], opens: Opens = open_manager) -> RefFinding | None:
    """What the plainest images of a given history show: none and all of what each flush was to make safe."""
    return _try(here, bursts, opens, last=False)


def try_last(here: Place, bursts: Sequence[Burst], opens: Opens = open_manager) -> RefFinding | None:
    """What those images show that a power cut leaves in the last burst or after it."""
    return _try(here, bursts, opens, last=True)


def _try(here: Place, bursts: Sequence[Burst], opens: Opens, *, last: bool) -> RefFinding | None:
    try:
        recorded = record(here, written(bursts), opens)
    except RefDivergence as diverged:
        return diverged.finding
    disk = Disk(here.template, recorded.events, _owed(here))
    for cut in images.each(recorded.events):
        if last and len(_begun(recorded, _told_at(recorded, cut))) < len(bursts):
            continue
        found = judge(here, recorded, disk, cut, opens, kernel=False)
        if found is not None:
            return found
    return None
