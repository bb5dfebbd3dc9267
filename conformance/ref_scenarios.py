"""Calls that overlap on one record or pair, written down: what is run in every order."""

from __future__ import annotations

from dataclasses import dataclass

from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.tree import MakeFile


@dataclass(frozen=True, slots=True)
class Scenario:
    """Calls one after the other, then calls that overlap."""

    name: str
    setup: tuple[RefOperation, ...]
    calls: tuple[RefOperation, ...]


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
_SEEN: tuple[RefOperation, ...] = (*_PAIR, _LIST_FINAL)
_SEEN_TWICE: tuple[RefOperation, ...] = (*_TWO, _LIST_FINAL, ref_ops.Mount("h2", readonly=False))
_FOUND: tuple[RefOperation, ...] = (*_CHAIN, ref_ops.Restart(), ref_ops.Get("d", "hf", "f"))
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
    Scenario("release of the view, get", _SEEN, (_RELEASE, ref_ops.Get("e", "hg", "eg"))),
    Scenario("release, read through the view, new", _SEEN_TWICE, (_RELEASE, ref_ops.Read("h2"), ref_ops.New("n", "hn"))),
    Scenario("prune, get of a final E", (*_SEEN, _RELEASE), (_PRUNE, ref_ops.Get("e", "hg", "eg"))),
    Scenario("size, size of another", _CHAIN, (_SIZE, ref_ops.Size("hd"))),
    Scenario("new over, prune of a child", (*_CHAIN, ref_ops.Release("hd")), (_NEW, _PRUNE)),
    Scenario("finalize of what a start has found, prune", _FOUND, (ref_ops.Finalize("hf"), _PRUNE)),
    Scenario("close, size, finalize", _PAIR, (ref_ops.Close(), _SIZE, _FINALIZE)),
    Scenario("close, commit, prune", _MUTABLE, (ref_ops.Close(), _COMMIT, _PRUNE)),
)

#: Of one call, that nothing overlaps with: it is disturbed.
STARTS = (Scenario("restart", _CHAIN, (ref_ops.Restart(),)),)

#: Of five calls: thousands of schedules each, and some ten times as many for each kind of disturbance.
FIVE_CALLS = (
    Scenario("size, size, finalize, release, get_mutable", _PAIR, (_SIZE, _SIZE, _FINALIZE, _RELEASE, _REOPEN)),
    Scenario("size, finalize, release, get_mutable, get", _PAIR, (_SIZE, _FINALIZE, _RELEASE, _REOPEN, _GET)),
    Scenario("size, release, get_mutable, get, prune", _PAIR, (_SIZE, _RELEASE, _REOPEN, _GET, _PRUNE)),
    Scenario("commit, get, get_mutable, release, prune", _MUTABLE, (_COMMIT, _GET, _REOPEN, ref_ops.Release("hm"), _PRUNE)),
    Scenario("new over, get, get_mutable, release, prune", _PAIR, (_NEW, _GET, _REOPEN, _RELEASE, _PRUNE)),
)
