"""Power cuts: histories on a pool whose image records what it is told, and images of what a disk may hold when its power fails.

Each image is mounted for real, checked, opened by the driver and judged by the two layers of the model. All happens on a tmpfs of
the run, and all images come to the place that the recorded one had: the mount lists that a history was given hold there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from snapspec.conformance import draw
from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits, Scope
from snapspec.conformance.durable import images
from snapspec.conformance.durable.images import Cut, Disk
from snapspec.conformance.durable.recorder import Event, Recorder, read_log, recording
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, Step
from snapspec.conformance.machines import OPERATIONS
from snapspec.conformance.search import simpler
from snapspec.conformance.session import SPARE, Diverged, Session
from snapspec.conformance.shorten import fewer
from snapspec.conformance.subjects.reference import Ground, ReferenceSubject
from snapspec.impl import syscalls
from snapspec.impl.loopback import Pool, open_pool
from snapspec.impl.mounts import attached_loop, unmount, unmount_top
from snapspec.impl.overlay import open_overlay
from snapspec.impl.ports import Snapshotter
from snapspec.model import durable, ops
from snapspec.model.durable import Layers
from snapspec.model.ops import Operation
from snapspec.model.oracle import Divergence
from snapspec.model.replies import Mismatch, Response, Returned
from snapspec.model.state import State, children
from snapspec.model.tree import MakeFile, Tree
from snapspec.model.values import Kind

#: Opens the driver under test on an open pool, which it closes at its end.
Opener = Callable[[Pool], Awaitable[Snapshotter]]

#: Bytes of the pool: a copy of its image is quick to make.
SIZE = 32 << 20

#: How many images are made of one history.
IMAGES = 25

#: Calls of a drawn history.
CALLS = 12

#: Seconds that a finding is made shorter at most.
SHORTENING = 60.0

#: The name of the layer that is written once more on each image.
_SPARE_LAYER = "spare layer"


@dataclass(frozen=True, slots=True)
class PowerCut(ops.Reopen):
    """The power fails, `during` a call or between two, and the store is opened again. `kept`: what the disk holds, in words."""

    kept: str = ""
    during: Operation | None = None


async def reference(pool: Pool) -> Snapshotter:
    """The overlay reference on the pool."""
    return await open_overlay(pool.root, pool=pool)


# --- the place


class PoweredSubject(ReferenceSubject):
    """A driver on a pool in `directory`. Each history has a store of its own, and names without a prefix."""

    def __init__(self, contents: Contents, directory: Path, opener: Opener) -> None:
        super().__init__("power", contents, directory, Ground("overlay", True, False, "a pool of its own"), SIZE, "ext4")
        self._opener = opener

    def history_prefix(self, number: int) -> str:
        """None: names mean the same on an image as in the history."""
        return ""

    async def _open(self) -> Snapshotter:
        pool = await asyncio.to_thread(open_pool, str(self.directory), size=SIZE)
        try:
            return await self._opener(pool)
        except BaseException:
            await asyncio.to_thread(pool.close)
            raise


@dataclass(frozen=True, slots=True)
class Place:
    """Where the run happens: the tmpfs, the recorder, the event loop, and how the driver is opened."""

    directory: Path
    recorder: Recorder
    runner: asyncio.Runner
    opener: Opener
    limits: Limits

    @property
    def image(self) -> Path:
        """The image of the pool."""
        return self.directory / "pool" / "pool.img"

    @property
    def template(self) -> Path:
        """The image of a pool that was never used."""
        return self.directory / "template.img"

    def subject(self) -> PoweredSubject:
        """A subject over the pool as its image is now."""
        return PoweredSubject(Contents(self.directory / "target"), self.directory / "pool", self.opener)


@contextmanager
def place(directory: Path, opener: Opener = reference) -> Iterator[Place]:
    """The empty directory `directory` as a place, for as long as the block lasts; afterwards it is empty again.

    To be used in a private mount namespace, as root. CannotRun, with the remedy, where writes cannot be recorded.
    """
    syscalls.mount("tmpfs", str(directory), "tmpfs", 0, "mode=700,size=2g")
    try:
        with recording(directory / "recorder") as recorder, asyncio.Runner() as runner:
            for name in ("target", "replayed"):
                (directory / name).mkdir()
            here = Place(directory, recorder, runner, opener, Limits(permits(str(directory))))
            open_pool(str(directory / "pool"), size=SIZE).close()
            images.copy_sparse(here.image, here.template)
            try:
                yield here
            finally:  # what failed in the midst may have left the pool mounted, on a file that the recorder serves
                for name in ("target", "replayed", "pool"):
                    unmount(str(directory / name))
    finally:
        unmount(str(directory))


# --- a history, recorded


@dataclass(frozen=True, slots=True)
class Mark:
    """When a call began and ended, by the clock, and how long the log was before and after it."""

    began: int
    ended: int
    start: int
    end: int


class RecordedSession(Session):
    """A session that marks each call in the log of the image."""

    def __init__(self, subject: PoweredSubject, runner: asyncio.Runner, position: Callable[[], int]) -> None:
        super().__init__(subject, runner)
        self.position = position
        self.marks: list[Mark] = []

    def _answer(self, space: int, op: Operation) -> Response:
        began, start = time.time_ns(), self.position()
        response = super()._answer(space, op)
        self.marks.append(Mark(began, time.time_ns(), start, self.position()))
        return response


@dataclass(frozen=True, slots=True)
class Recorded:
    """A history as the caller and as the disk saw it; `layers` holds what was allowed before each step, and at the end."""

    steps: tuple[Step, ...]
    marks: tuple[Mark, ...]
    layers: tuple[Layers, ...]
    events: tuple[Event, ...]


#: Makes the calls of a history.
Calls = Callable[[Session], None]


def record(here: Place, calls: Calls) -> Recorded:
    """Make the calls on a new store whose image is recorded, and close it. Raises Diverged for what is wrong without a cut."""
    name = here.recorder.name()
    images.copy_sparse(here.template, here.recorder.backing / name)
    try:
        with here.recorder.under(here.image, name):
            session = RecordedSession(here.subject(), here.runner, lambda: here.recorder.position(name))
            with _started(session):
                session.begin()
                calls(session)
        events = read_log(here.recorder.log(name))
    except Exception:
        here.recorder.require()  # without it every call fails, and that is no fault of the driver
        raise
    finally:
        here.recorder.forget(name)
    steps, marks = tuple(session.steps), tuple(session.marks)
    return Recorded(steps, marks, _layers(State(profile=session.subject.profile), steps, marks), events)


@contextmanager
def _started(session: Session) -> Iterator[None]:
    session.runner.run(session.subject.start())
    try:
        yield
    finally:
        session.stop()


def _layers(state: State, steps: Sequence[Step], marks: Sequence[Mark]) -> tuple[Layers, ...]:
    """What the model allows before each step, and after the last."""
    found = [durable.begin(state)]
    for step, mark in zip(steps, marks, strict=True):
        begun = durable.invoke(found[-1], 1, step.op, mark.began)
        after = durable.respond(begun, 1, step.response, mark.ended)
        assert not isinstance(after, Divergence), "the session has judged it already"
        found.append(after)
    return tuple(found)


def drawn(random: Random, limits: Limits, length: int = CALLS) -> Calls:
    """A history of calls that are to succeed mostly, as the state machine of the kit draws them."""

    def make(session: Session) -> None:
        entries = [e for e in OPERATIONS if e.possible(session.subject) and e.name not in limits.without for _ in range(e.weight)]
        if random.random() < 0.3:
            for op in draw.prelude(limits):
                session.do(op)
        for _ in range(random.randint(1, length)):
            scope = Scope(random.choice, session.state(), limits, careful=random.random() < 0.9)
            session.do(random.choice(entries).drawn(scope))

    return make


def written(calls: Sequence[Operation]) -> Calls:
    """A history that is given."""

    def make(session: Session) -> None:
        for op in calls:
            session.do(op)

    return make


# --- an image, judged


def judge(here: Place, recorded: Recorded, disk: Disk, cut: Cut, *, kernel: bool = True) -> Finding | None:
    """Make the image, mount it and open the driver on it; what the spec does not allow of what is there, or None.

    The journal is replayed by the `kernel`, in a mount before the driver's own, or by e2fsck, as the pool does it.
    """
    disk.cut(cut, here.image)
    number, layers = _allowed(recorded, cut)
    during = recorded.steps[number].op if layers.belief.calls and number < len(recorded.steps) else None
    cut_step = Step(PowerCut(kept=cut.text(recorded.events), during=during), Returned())
    steps = [*recorded.steps[:number], cut_step]
    wrong = replayed(here) if kernel else ""
    if wrong:
        return Finding(tuple(steps), (Mismatch("SNAP-POWER-5", "a clean file system", wrong),))
    found = _survived(here, steps, durable.power_cut(layers, _now(recorded, number)))
    return found or (None if kernel else _unclean(here, steps))


def _allowed(recorded: Recorded, cut: Cut) -> tuple[int, Layers]:
    """How many calls had answered when the power failed, and the layers then: with the next call under way, if it had begun."""
    position = recorded.events[cut.moment - 1].end if cut.moment else 0
    number = next((n for n, mark in enumerate(recorded.marks) if mark.end > position), len(recorded.marks))
    layers = recorded.layers[number]
    if number < len(recorded.marks) and recorded.marks[number].start < position:
        layers = durable.invoke(layers, 1, recorded.steps[number].op, recorded.marks[number].began)
    return number, layers


def _now(recorded: Recorded, number: int) -> int:
    """The latest time of the cut: the end of the call that was under way."""
    return recorded.marks[min(number, len(recorded.marks) - 1)].ended if recorded.marks else 0


def replayed(here: Place) -> str:
    """Mount and unmount the image; what the checker of the file system then finds, empty for nothing."""
    target = str(here.directory / "replayed")
    try:
        with attached_loop(str(here.image)) as device:
            syscalls.mount(device, target, "ext4", syscalls.MS_NOATIME)
    except OSError as error:
        return f"it cannot be mounted: {error}"
    unmount_top(target)
    return checked(here.image)


def checked(image: Path) -> str:
    program = shutil.which("e2fsck", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        raise CannotRun("e2fsck is not on the path: install the Debian package e2fsprogs")
    done = subprocess.run([program, "-fn", str(image)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"e2fsck -fn ends with {done.returncode}: {' '.join(done.stdout.split())[:300]}"


def _unclean(here: Place, steps: list[Step]) -> Finding | None:
    wrong = checked(here.image)
    return (
        Finding(tuple(steps), (Mismatch("SNAP-POWER-5", "a clean file system, closed after the cut", wrong),)) if wrong else None
    )


def _survived(here: Place, steps: list[Step], layers: Layers) -> Finding | None:
    session = Survivor(here.subject(), here.runner, steps, layers)
    try:
        with _started(session):
            session.look()
    except Diverged as diverged:
        return diverged.finding
    except CannotRun as error:
        if session.began:
            raise
        return Finding(tuple(steps), (Mismatch("SNAP-POWER-5", "a store that opens", str(error)),))
    return None


class Survivor(Session):
    """A session on what a power cut has left, after the `steps` that came before."""

    def __init__(self, subject: PoweredSubject, runner: asyncio.Runner, steps: list[Step], layers: Layers) -> None:
        super().__init__(subject, runner)
        self.before = steps
        self.layers = layers
        self.began = False

    def look(self) -> None:
        """Everything that the power cut must have left, then calls of each kind that changes something. Raises Diverged."""
        self.begin()
        self.began = True
        self.steps = list(self.before)
        self.beliefs = [self.layers.belief]
        for clause, expected, step in (
            ("SNAP-POWER-1", "every call that had answered, and the one under way whole or not at all", self._records),
            ("SNAP-POWER-3", "the whole snapshot of each record", self._active),
            ("SNAP-POWER-2", "the content of each committed snapshot as it was when its commit answered", self._committed),
            ("SNAP-POWER-5", "a store that works", self._works),
        ):
            self._under(clause, expected, step)

    def _under(self, clause: str, expected: str, step: Callable[[], None]) -> None:
        """What is wrong in this step breaks `clause`, besides the clause of the call that has shown it."""
        try:
            step()
        except Diverged as diverged:
            shown = diverged.finding.mismatches
            cause = () if shown[0].clause == clause else (Mismatch(clause, expected, shown[0].came),)
            raise Diverged(replace(diverged.finding, mismatches=(*cause, *shown))) from None

    def _records(self) -> None:
        self.do(ops.Walk(), check=True)
        for key in self._keys(Kind.ACTIVE, Kind.VIEW):
            self.do(ops.Mounts(key), check=True)

    def _active(self) -> None:
        """The first look settles what an active snapshot holds."""
        for key in self._keys(Kind.VIEW):
            self.do(ops.Read(key), check=True)
        layers = replace(self.layers, belief=self.beliefs[0])
        for key in self._keys(Kind.ACTIVE):
            response = self._answer(0, ops.Read(key))
            self.steps.append(Step(ops.Read(key), response, check=True))
            if not isinstance(response, Returned) or not isinstance(response.value, Tree):
                raise self._diverged("SNAP-POWER-3", "a snapshot that can be mounted", str(response))
            settled = durable.settle(layers, key, response.value)
            if isinstance(settled, Mismatch):
                raise Diverged(Finding(tuple(self.steps), (settled,)))
            layers = settled
        self.beliefs = [layers.belief]

    def _committed(self) -> None:
        state = self.state()
        for key in self._keys(Kind.COMMITTED):
            if state.snapshots[key].usage is not None:
                self.do(ops.Usage(key), check=True)
            if not children(state, key) or state.snapshots[key].touched:
                self.do(ops.View(SPARE, key), check=True)
                self.do(ops.Read(SPARE), check=True)
                self.do(ops.Remove(SPARE), check=True)

    def _works(self) -> None:
        """A layer is made, committed and built on; then everything can be removed."""
        self.do(ops.Prepare(SPARE), check=True)
        self.do(ops.Write(SPARE, (MakeFile("f", b"after the cut"),)), check=True)
        self.do(ops.Commit(_SPARE_LAYER, SPARE), check=True)
        self.do(ops.Prepare(SPARE, _SPARE_LAYER), check=True)
        self.do(ops.Read(SPARE), check=True)
        self.end()

    def _keys(self, *kinds: Kind) -> list[str]:
        return [key for key, snapshot in self.state().snapshots.items() if snapshot.kind in kinds]


# --- a run


@dataclass
class Powered:
    """What a run has done and found. `hows` counts the images by what the disk kept, `during` by the call that was under way."""

    histories: int = 0
    calls: int = 0
    events: int = 0
    images: int = 0
    divergences: int = 0
    hows: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    finding: Finding | None = None

    def text(self) -> str:
        """The numbers on one line."""
        told = ", ".join(f"{how} {count}" for how, count in sorted(self.hows.items()))
        cut = ", ".join(f"{name} {count}" for name, count in sorted(self.during.items()))
        return (
            f"{self.images} power-cut images of {self.histories} histories ({self.calls} calls, {self.events} writes and "
            f"flushes), {self.divergences} divergences; kept: {told}; under way: {cut}"
        )


def run(
    here: Place,
    wanted: int,
    seed: int,
    *,
    per_history: int = IMAGES,
    until: float = float("inf"),
    report: Callable[[Powered], None] = lambda _: None,
) -> Powered:
    """Draw histories and cuts under `seed` until `wanted` images were judged, something was found, or the clock is at `until`.

    What was found is made shorter. The same seed draws the same as long as the driver answers the same.
    """
    done, random = Powered(), Random(seed)
    while done.images < wanted and done.finding is None and time.monotonic() < until:
        report(done)
        try:
            recorded = record(here, drawn(random, here.limits))
        except Diverged as diverged:
            done.finding = diverged.finding
            break
        done.histories += 1
        done.calls += len(recorded.steps)
        done.events += len(recorded.events)
        cuts = draw_cuts(random, recorded.events, recorded.marks, min(per_history, wanted - done.images))
        done.finding = _judge_all(here, recorded, cuts, done, random)
    if done.finding is not None:
        done.divergences = 1
        done.finding = shorten(here, done.finding, min(until, time.monotonic() + SHORTENING))
    return done


def draw_cuts(random: Random, events: Sequence[Event], marks: Sequence[Mark], number: int) -> list[Cut]:
    """Cuts in the order of their moments: at any event, within a call, and just before a flush, where most is open."""
    flushes = [cut.moment for cut in images.each(events)]
    calls = [
        range(images.moment_of(events, mark.start), images.moment_of(events, mark.end) + 1)
        for mark in marks
        if mark.end > mark.start
    ]
    pools = [range(len(events) + 1), flushes, *calls]
    weights = [1.0, 1.0, *(3.0 / len(calls) for _ in calls)]
    moments = sorted(random.choice(pool) for pool in random.choices(pools, weights, k=number))
    return [images.draw(random, events, moment) for moment in moments]


def _judge_all(here: Place, recorded: Recorded, cuts: Sequence[Cut], done: Powered, random: Random) -> Finding | None:
    disk = Disk(here.template, recorded.events, here.directory / "disk.img")
    for cut in cuts:
        found = judge(here, recorded, disk, cut, kernel=random.random() < 0.5)
        number, layers = _allowed(recorded, cut)
        done.images += 1
        done.hows[cut.how if images.pieces(recorded.events, cut.moment, cut.grain) else "nothing open"] += 1
        done.during[type(recorded.steps[number].op).__name__.lower() if layers.belief.calls else "none"] += 1
        if found is not None:
            return found
    return None


# --- made shorter


def shorten(here: Place, found: Finding, until: float) -> Finding:
    """The finding with calls left out and made simpler, as long as the plainest images of what is left break the same clause."""
    shorter: Finding | None = found
    while shorter is not None:
        found, shorter = shorter, None
        for calls in _fewer(calls_of(found)):
            if time.monotonic() > until:
                return found
            again = try_each(here, calls)
            if again is not None and again.clause == found.clause:
                shorter = again
                break
    return found


def calls_of(found: Finding) -> tuple[Operation, ...]:
    """The calls of the history that was cut, the one under way included."""
    made = [step.op.during if isinstance(step.op, PowerCut) else step.op for step in found.steps if not step.check]
    return tuple(op for op in made if op is not None)


def try_each(here: Place, calls: Sequence[Operation]) -> Finding | None:
    """What the plainest images of a given history show: none and all of what each flush was to make safe."""
    try:
        recorded = record(here, written(calls))
    except Diverged as diverged:
        return diverged.finding
    disk = Disk(here.template, recorded.events, here.directory / "disk.img")
    for cut in images.each(recorded.events):
        found = judge(here, recorded, disk, cut, kernel=False)
        if found is not None:
            return found
    return None


def _fewer(calls: tuple[Operation, ...]) -> Iterator[tuple[Operation, ...]]:
    yield from (less for less in fewer(calls) if less)
    for at, op in enumerate(calls):
        yield from ((*calls[:at], less, *calls[at + 1 :]) for less in simpler(op))
