"""Managers of refs behind gates: a set-up, calls that overlap on one record or pair, and in the end nothing is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from snapspec.conformance.gates import GatedSnapshotter, GatedStore, Gates
from snapspec.conformance.loop import gated_loop
from snapspec.conformance.memory import Disk, MemorySnapshotter, MemoryStore
from snapspec.conformance.refs_subject import RefResponse, RefsAdapter
from snapspec.conformance.schedule import Budget, Choose, Observer, Run, Unsound, whole
from snapspec.impl.manager import Manager, open_manager
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import Record
from snapspec.model.tree import MakeFile

RefRun = Run[RefOperation, RefResponse]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Calls one after the other, then calls that overlap."""

    name: str
    setup: tuple[RefOperation, ...]
    calls: tuple[RefOperation, ...]


class World:
    """A manager behind gates, over a driver and a disk in memory, which outlive it.

    `open_with` is what opens a manager on the two: `open_manager`, or a broken one.
    """

    def __init__(self, open_with: Callable[..., Awaitable[Manager]] = open_manager) -> None:
        self.gates = Gates(gated_loop())
        self.driver = MemorySnapshotter()
        self.disk = Disk()
        self.subject = RefsAdapter(self._open, self.driver)
        self._open_with = open_with

    async def _open(self, new_id: Callable[[], str]) -> Manager:
        driver = GatedSnapshotter(self.gates, self.driver)
        return await self._open_with(driver, GatedStore(self.gates, MemoryStore(self.disk)), new_id=new_id)

    def crashed(self) -> None:
        """The process has died (after `Run.crash`): the next call is Restart."""
        self.disk.held = False
        self.subject.crashed()

    def records(self) -> dict[str, tuple[Record, int]]:
        """The manager's records in the model's form, each with the number of its open handles."""
        known = self.subject.manager.records() if self.subject.manager is not None else ()
        return {r.id: (Record(r.mutable, r.parent, r.equal, r.size), r.handles) for r in known}

    def unnoted(self) -> set[str]:
        """The snapshots of the driver that no entry of the store names (REF-NOTE-1)."""
        return self.driver.state.snapshots.keys() - self.disk.entries.keys()

    def left(self) -> str:
        """What records, store and driver still hold; empty when that is nothing."""
        left = {
            "records": list(self.records()),
            "entries": list(self.disk.entries),
            "snapshots": list(self.driver.state.snapshots),
        }
        return ", ".join(f"{what} {names}" for what, names in left.items() if names)


def play(
    world: World, scenario: Scenario, observer: Observer[RefOperation, RefResponse], choose: Choose, budget: Budget | None = None
) -> RefRun:
    """One run of the scenario in a new world. Raises Unsound, and what the observer raises."""
    run: RefRun = Run(world.gates, world.subject.perform, observer, choose)
    with whole(run):
        run.aside(world.subject.start())
        run.sequence(scenario.setup)
        run.burst(scenario.calls, budget)
        if run.crashed:
            world.crashed()
        run.sequence([ref_ops.Read(name) for name in world.subject.lists])  # what was given still shows what it showed
        finish(run, world)
    return run


def finish(run: RefRun, world: World) -> None:
    """Release, prune and close, as part of the history; then nothing is left (REF-LEAK-1). Raises as `play` does."""
    if world.subject.closed or world.subject.manager is None:
        run.sequence([ref_ops.Restart()])
    releases = [ref_ops.Release(name) for name in world.subject.handles]
    run.sequence([*releases, ref_ops.Prune(), ref_ops.DiskUsage()])
    left = world.left()
    if left:
        raise Unsound("REF-LEAK-1", f"all is released and pruned, and there is still: {left}")
    run.sequence([ref_ops.Close()])
    if world.disk.held:
        raise Unsound("REF-CLOSE-1", "the manager is closed and its store is not")


# --- what is run in every order

_FILE = (MakeFile("f", b"x" * 600),)
_MUTABLE: tuple[RefOperation, ...] = (ref_ops.New("m", "hm"), ref_ops.Write("hm", _FILE))
_PAIR: tuple[RefOperation, ...] = (*_MUTABLE, ref_ops.Commit("hm", "e", "he"))
_IDLE_MUTABLE: tuple[RefOperation, ...] = (*_MUTABLE, ref_ops.Release("hm"))
_TWO: tuple[RefOperation, ...] = (*_PAIR, ref_ops.Get("e", "h2", "e2"))
_IDLE: tuple[RefOperation, ...] = (*_PAIR, ref_ops.Release("he"))
_CHAIN: tuple[RefOperation, ...] = (
    *_PAIR,
    ref_ops.New("c", "hc", "he"),
    ref_ops.Write("hc", (MakeFile("g", b"y" * 600),)),
    ref_ops.Commit("hc", "d", "hd"),
)
_IDLE_CHAIN: tuple[RefOperation, ...] = (*_CHAIN, ref_ops.Release("hd"), ref_ops.Release("he"))

_SIZE = ref_ops.Size("he")
_FINALIZE = ref_ops.Finalize("he")
_RELEASE = ref_ops.Release("he")
_REOPEN = ref_ops.GetMutable("m", "hx")
_GET = ref_ops.Get("m", "hg", "eg")
_LIST = ref_ops.Mount("he", readonly=True)
_LIST_FINAL = ref_ops.Mount("he", readonly=False)
_NEW = ref_ops.New("n", "hn", "he")
_USAGE = ref_ops.DiskUsage()
_PRUNE = ref_ops.Prune()
_COMMIT = ref_ops.Commit("hm", "e", "he")
_MORE = (MakeFile("more", b"z" * 600),)

#: disk_usage with any other call.
_LOOKS: tuple[tuple[str, tuple[RefOperation, ...], RefOperation], ...] = (
    ("new", _PAIR, ref_ops.New("n", "hn")),
    ("new over", _PAIR, _NEW),
    ("get", _IDLE, _GET),
    ("get of an idle M", _IDLE_MUTABLE, _GET),
    ("get_mutable", _IDLE, _REOPEN),
    ("get_mutable of an idle M", _IDLE_MUTABLE, _REOPEN),
    ("commit", _MUTABLE, _COMMIT),
    ("finalize", _PAIR, _FINALIZE),
    ("release", _PAIR, _RELEASE),
    ("size", _PAIR, _SIZE),
    ("size of M", _MUTABLE, ref_ops.Size("hm")),
    ("parent", _CHAIN, ref_ops.Parent("hd", "hp")),
    ("mount", _PAIR, _LIST),
    ("mount for writing", _PAIR, _LIST_FINAL),
    ("write", _MUTABLE, ref_ops.Write("hm", _MORE)),
    ("read", _PAIR, ref_ops.Read("he")),
    ("disk_usage", _PAIR, _USAGE),
    ("prune", _IDLE_CHAIN, _PRUNE),
    ("close", _PAIR, ref_ops.Close()),
)

SCENARIOS = (
    Scenario("size, size, finalize", _PAIR, (_SIZE, _SIZE, _FINALIZE)),
    Scenario("size, finalize, mount", _PAIR, (_SIZE, _FINALIZE, _LIST)),
    Scenario("size, release, get_mutable", _PAIR, (_SIZE, _RELEASE, _REOPEN)),
    Scenario("size, release, get_mutable, get", _PAIR, (_SIZE, _RELEASE, _REOPEN, _GET)),
    Scenario("size, size, release, release", _TWO, (_SIZE, ref_ops.Size("h2"), _RELEASE, ref_ops.Release("h2"))),
    Scenario("release, release, size", _TWO, (_RELEASE, _RELEASE, ref_ops.Size("h2"))),
    Scenario("size, release, prune", _PAIR, (_SIZE, _RELEASE, _PRUNE)),
    Scenario("size of M, commit, release", _MUTABLE, (ref_ops.Size("hm"), _COMMIT, ref_ops.Release("hm"))),
    Scenario("commit, get, get_mutable", _MUTABLE, (_COMMIT, _GET, _REOPEN)),
    Scenario("commit, release, prune", _MUTABLE, (_COMMIT, ref_ops.Release("hm"), _PRUNE)),
    Scenario("get, get_mutable, prune", _IDLE, (_GET, _REOPEN, _PRUNE)),
    Scenario("finalize, finalize, release", _TWO, (_FINALIZE, ref_ops.Finalize("h2"), _RELEASE)),
    Scenario("finalize, mount, release", _PAIR, (_FINALIZE, _LIST, _RELEASE)),
    Scenario("finalize, mount for writing, release", _PAIR, (_FINALIZE, _LIST_FINAL, _RELEASE)),
    Scenario("mount, mount, release", _TWO, (_LIST_FINAL, ref_ops.Mount("h2", readonly=False), _RELEASE)),
    Scenario("finalize, release, get_mutable, get", _PAIR, (_FINALIZE, _RELEASE, _REOPEN, _GET)),
    Scenario("new over, release, prune", _PAIR, (_NEW, _RELEASE, _PRUNE)),
    Scenario("new over, new over, prune", _PAIR, (_NEW, ref_ops.New("o", "ho", "he"), _PRUNE)),
    Scenario("parent, release, prune", _CHAIN, (ref_ops.Parent("hd", "hp"), ref_ops.Release("hd"), _PRUNE)),
    *(Scenario(f"disk_usage, {name}", setup, (_USAGE, other)) for name, setup, other in _LOOKS),
    Scenario("disk_usage, finalize, size", _PAIR, (_USAGE, _FINALIZE, _SIZE)),
    Scenario("disk_usage, release, get_mutable", _PAIR, (_USAGE, _RELEASE, _REOPEN)),
    Scenario("disk_usage, commit, prune", _MUTABLE, (_USAGE, _COMMIT, _PRUNE)),
    Scenario("disk_usage, get_mutable, write", _IDLE_MUTABLE, (_USAGE, _REOPEN, ref_ops.Write("hx", _MORE))),
    Scenario("prune, prune", _IDLE_CHAIN, (_PRUNE, _PRUNE)),
    Scenario("prune, prune, get", _IDLE_CHAIN, (_PRUNE, _PRUNE, ref_ops.Get("d", "hg", "x"))),
    Scenario("close, size, finalize", _PAIR, (ref_ops.Close(), _SIZE, _FINALIZE)),
    Scenario("close, commit, prune", _MUTABLE, (ref_ops.Close(), _COMMIT, _PRUNE)),
)

#: Of five calls: thousands of schedules each, and some ten times as many for each kind of disturbance.
FIVE_CALLS = (
    Scenario("size, size, finalize, release, get_mutable", _PAIR, (_SIZE, _SIZE, _FINALIZE, _RELEASE, _REOPEN)),
    Scenario("size, finalize, release, get_mutable, get", _PAIR, (_SIZE, _FINALIZE, _RELEASE, _REOPEN, _GET)),
    Scenario("size, release, get_mutable, get, prune", _PAIR, (_SIZE, _RELEASE, _REOPEN, _GET, _PRUNE)),
    Scenario("commit, get, get_mutable, release, prune", _MUTABLE, (_COMMIT, _GET, _REOPEN, ref_ops.Release("hm"), _PRUNE)),
    Scenario("new over, get, get_mutable, release, prune", _PAIR, (_NEW, _GET, _REOPEN, _RELEASE, _PRUNE)),
)
