"""`exec:./adapter?level=refs`: a manager of another make behind an adapter, whose calls overlap as it lets them.

It is held to its answers alone. Each history begins with a hello, and with an empty store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from snapspec.conformance.adapter import wire
from snapspec.conformance.adapter.client import Adapter, Refusal
from snapspec.conformance.adapter.subject import BY_CALLS, Attended, read
from snapspec.conformance.adapter.wire import arguments, words
from snapspec.conformance.contents import Contents
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.free import FreeRun
from snapspec.conformance.ref_history import Burst
from snapspec.conformance.ref_reached import by_answer
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.ref_watch import Records, RefWatch
from snapspec.conformance.refs_subject import RefResponse
from snapspec.conformance.schedule import CANCELLED, Answered, Budget, Cancelled, Choice, Choose, Move, Unsound
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.subjects.remote import TransportLost
from snapspec.conformance.workspace import Workspace
from snapspec.impl.mounts import MountError
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotRows, GotWords, RefFailed, RefReturned, RefValue
from snapspec.model.refs import Declared, RefError, RefState
from snapspec.model.state import Profile, State
from snapspec.model.values import Mount

Answer = RefResponse | Cancelled


class ExecRefs(Attended):
    """The manager behind the adapter that `words` start. Every method may raise CannotRun."""

    fresh = True
    in_memory = False

    def __init__(self, name: str, contents: Contents, workspace: Workspace, words: Sequence[str]) -> None:
        self.name = name
        self.note = f"the adapter {' '.join(words)}"
        self.profile = Profile()
        self.declared = Declared()
        self.contents: Contents | None = contents
        self.log = workspace.directory / "adapter.log"
        self.words = tuple(words)
        self._workspace = workspace

    async def start(self) -> None:
        """Learn what the adapter declares. CannotRun with the remedy."""
        await self.begin()

    async def begin(self) -> Adapter:
        """The adapter of a new history."""
        place = self._workspace.scratch("adapter")
        if self.adapter is not None and self.adapter.alive:
            hello = await self.adapter.greet("refs", place)
        else:
            self.adapter = Adapter(self.words, self.log, self.patience)
            hello = await self.adapter.start("refs", place)
        self.note = f"{hello.name}, through the adapter {' '.join(self.words)}"
        self.profile, self.declared = hello.profile, hello.declared
        if not hello.mounts:
            self.contents = None
        return self.adapter


class ExecManager:
    """Makes the model's operations by an adapter. Content goes by calls where there are no `contents` to mount."""

    def __init__(self, adapter: Adapter, contents: Contents | None) -> None:
        self.handles: dict[str, None] = {}
        """The names of all that were given."""
        self.lists: dict[str, tuple[Mount, ...]] = {}
        """The last list that each handle gave."""
        self.serves = True
        self._adapter = adapter
        self._contents = contents
        self._numbers: dict[int, int] = {}
        """The adapter's numbers of the calls of the history that run."""

    async def perform(self, op: RefOperation, call: int) -> Answer:
        """Make the call numbered `call`. Raises CannotRun, and TransportLost where no answer comes."""
        if self._contents is not None and isinstance(op, ref_ops.Write | ref_ops.Read):
            return await self._through(op, call, self._contents)
        answer = await self._ask(op, call)
        match op, answer:
            case ref_ops.Close(), RefReturned():
                self.serves = False
            case ref_ops.Restart(), RefReturned():
                self.serves = True
            case ref_ops.Mount(handle), RefReturned(tuple() as mounts) if self._contents is not None:
                self.lists[handle] = mounts
            case _, RefReturned(GotHandle()):
                self.handles[getattr(op, "given", getattr(op, "handle", ""))] = None
        return answer

    async def _ask(self, op: RefOperation, call: int) -> Answer:
        name = words(op)
        number = self._numbers[call] = self._adapter.send(name, **arguments(op))
        try:
            answer = await self._adapter.answer(number)
        finally:
            del self._numbers[call]
        if not isinstance(answer, Refusal):
            return RefReturned(self._value(op, name, answer))
        if answer.error == "Canceled":
            return CANCELLED
        if answer.error == "Unimplemented":
            raise CannotRun(f"the adapter does not offer {name}: leave it out with --without {name}")
        return RefFailed(RefError(answer.error), answer.message)

    def _value(self, op: RefOperation, name: str, answer: Any) -> RefValue:
        if self._contents is None and isinstance(op, ref_ops.Mount):
            read(name, wire.nothing, answer)
            return (Mount(BY_CALLS, op.handle),)
        return read(name, wire.REF_VALUES[name], answer)

    async def _through(self, op: ref_ops.Write | ref_ops.Read, call: int, contents: Contents) -> Answer:
        """Mount the handle, and write or read through its list."""
        answer = await self._ask(ref_ops.Mount(op.handle, readonly=isinstance(op, ref_ops.Read)), call)
        if not isinstance(answer, RefReturned):
            return answer
        mounts: tuple[Mount, ...] = answer.value  # type: ignore[assignment]  # a mount gives a list
        try:
            if isinstance(op, ref_ops.Write):
                return RefReturned(GotWords(await contents.write(mounts, op.changes)))
            return RefReturned(await contents.read(self.lists.get(op.handle, mounts)))
        except (MountError, FileNotFoundError) as error:
            return RefFailed(RefError.DRIVER, f"the list cannot be mounted: {error}")

    def cancel(self, call: int) -> bool:
        """Cancel the call of the history, if it runs; whether it does."""
        number = self._numbers.get(call)
        if number is None:
            return False
        self._adapter.cancel(number)
        return True


class ExecWorld:
    """What the watch of a history looks at: nothing but answers."""

    gates = None

    def __init__(self, manager: ExecManager) -> None:
        self.adapter = manager

    def records(self) -> Records:
        """None are known."""
        return {}

    def unnoted(self) -> set[str]:
        """None are known."""
        return set()


class AnswersAlone(RefWatch):
    """The watch over a manager that cannot be looked into."""

    def quiet(self) -> None:
        """Nothing is looked at."""


class ExecRun(FreeRun[RefOperation, Any]):
    """One run on an adapter. Of the calls of a burst its choices say which are cancelled as soon as they have begun."""

    def __init__(self, manager: ExecManager, watch: RefWatch) -> None:
        super().__init__(self._never, watch)
        self._manager = manager
        self._watch = watch

    async def _never(self, _: RefOperation) -> Answer:
        raise AssertionError("answer makes the calls, for it knows their numbers")

    async def answer(self, op: RefOperation, call: int) -> Answer:
        """See `FreeRun`."""
        return await self._manager.perform(op, call)

    async def play(self, burst: Burst) -> None:
        """Begin the calls together, cancel those that are to be, and wait for all. Raises what the watch raises, and Unsound."""
        first = len(self.operations) + 1
        calls = [asyncio.create_task(self._call(op)) for op in burst.ops]
        await asyncio.sleep(0)  # until each is on its way
        for index in burst.choices[: burst.budget.cancels]:
            if index < len(calls) and self._manager.cancel(first + index):
                self.events.append(Choice(Move.CANCEL, first + index))
                self._watch.disturb(first + index, "cancel")
        for error in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(error, TransportLost):
                raise Unsound("SNAP-LIVE-1", str(error))
            if isinstance(error, BaseException):
                raise error


class ExecRefSession(RefSession):
    """A session with a manager behind an adapter."""

    subject: ExecRefs  # type: ignore[assignment]  # it stands on no ground of the kit's
    run: ExecRun  # type: ignore[assignment]  # nothing waits at gates in it
    world: ExecWorld  # type: ignore[assignment]  # as above
    repeats = False
    without: frozenset[str] = frozenset()
    """The calls that are left out, at the end of a history too."""

    def __init__(
        self, subject: ExecRefs, runner: asyncio.Runner, deadline: float = DEADLINE, signals: Sequence[int] = ()
    ) -> None:
        super().__init__(subject, runner, deadline, signals)  # type: ignore[arg-type]  # as above

    def begin(self) -> None:
        """A new history, on an adapter of its own."""
        adapter = self.runner.run(self.subject.begin())
        manager = ExecManager(adapter, self.subject.contents)
        self.world = ExecWorld(manager)
        state = RefState(driver=State(profile=self.subject.profile), declared=self.subject.declared)
        self.watch = AnswersAlone(state, self.world)
        self.run = self.free = ExecRun(manager, self.watch)
        self.bursts = []
        self._named = 0
        self.histories += 1

    def play(self, ops: Sequence[RefOperation], budget: Budget, choose: Choose) -> None:
        """Calls that begin together, none of which is cancelled. Raises RefDivergence."""
        self.make(Burst(tuple(ops)))

    def make(self, burst: Burst) -> None:
        """The burst. Raises RefDivergence."""
        if self.signals:
            raise SystemExit(1)
        self.bursts.append(burst)
        self.calls += len(burst.ops)
        seen = len(self.run.events)
        with self._judged(nullcontext()):
            self.outside(self.run.play(burst))
        self.reached.update(self.watch.clauses())
        for event in self.run.events[seen:]:
            if isinstance(event, Answered):
                op = self.run.operations[event.call]
                self.reached.update(by_answer(op, event.answer, together=len(burst.ops) > 1))
            elif event.what is Move.CANCEL:
                self.disturbed[f"{self._kind(event.call)}: cancel"] += 1

    def end(self) -> None:
        """Release, prune, look and close, as part of the history; nothing is shown after the prune (REF-LEAK-1)."""
        for op in [op for op in self._last() if words(op) not in self.without]:
            self.make(Burst((op,)))
            if isinstance(op, ref_ops.DiskUsage):
                self._nothing_shown()

    def _nothing_shown(self) -> None:
        answer = next(event.answer for event in reversed(self.run.events) if isinstance(event, Answered))
        if isinstance(answer, RefReturned) and isinstance(answer.value, GotRows) and not answer.value.rows:
            self.reached["REF-LEAK-1"] += 1

    def clear(self) -> None:
        """See `BaseSession`."""
        if not self.over:
            self.finish(self.subject.clear())


def history(session: ExecRefSession, bursts: Sequence[Burst]) -> Callable[[], None]:
    """What makes the bursts as one history."""

    def made() -> None:
        session.begin()
        for burst in bursts:
            session.make(burst)
        session.end()

    return made
