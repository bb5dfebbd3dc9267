"""REF-ERROR-1: which error wins in a call that breaks several rules, in tables that are written out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from states import manager, ref_word

from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import outcomes
from snapspec.model.tree import MakeFile

#: The calls with a handle, by their names.
ON_HANDLE: dict[str, Callable[[str], RefOperation]] = {
    "new": lambda handle: ref_ops.New("new", "h", handle),
    "commit": lambda handle: ref_ops.Commit(handle, "new", "h"),
    "finalize": ref_ops.Finalize,
    "size": ref_ops.Size,
    "parent": lambda handle: ref_ops.Parent(handle, "h"),
    "mount to read": lambda handle: ref_ops.Mount(handle, readonly=True),
    "mount to write": lambda handle: ref_ops.Mount(handle, readonly=False),
    "read": ref_ops.Read,
    "write": lambda handle: ref_ops.Write(handle, (MakeFile("g", b""),)),
}

ANY = tuple(ON_HANDLE)

HANDLES = [
    # the handle, what calls of which names answer and by which clause
    ("old", ("new",), "Invalid", "REF-NEW-3"),
    ("old", ANY[1:], "Invalid", "REF-HANDLE-4"),
    ("unheard of", ("new",), "Invalid", "REF-NEW-3"),
    ("unheard of", ANY[1:], "Invalid", "REF-HANDLE-4"),
    ("h_open", ("new",), "Invalid", "REF-NEW-3"),
    ("h_open", ("finalize",), "Invalid", "REF-ERROR-1"),
    ("h_open", ("commit",), "ok", "REF-COMMIT-1"),
    ("h_open", ("size",), "ok", "REF-SIZE-6"),
    ("h_open", ("mount to read", "mount to write", "read", "write"), "ok", "REF-MOUNT-1"),
    ("h_child", ("commit",), "ok", "REF-COMMIT-1"),
    ("h_held_e", ("commit",), "Invalid", "REF-ERROR-1"),
    ("h_held_e", ("new",), "ok", "REF-NEW-2"),
    ("h_held_e", ("finalize",), "ok", "REF-FINAL-1"),
    ("h_held_e", ("size",), "ok", "REF-SIZE-1"),
    ("h_held_e", ("mount to read",), "ok", "REF-MOUNT-4"),
    ("h_held_e", ("mount to write",), "ok", "REF-MOUNT-3"),
    ("h_held_e", ("read",), "ok", "REF-COMMIT-3"),
    ("h_held_e", ("write",), "ok", "REF-MOUNT-2"),
    ("h_base", ("commit",), "Invalid", "REF-ERROR-1"),
    ("h_base", ("new",), "ok", "REF-NEW-2"),
    ("h_base", ("finalize",), "ok", "REF-FINAL-2"),
    ("h_base", ("mount to read", "mount to write"), "ok", "REF-MOUNT-5"),
]

#: Handles of every kind; on a closed manager the calls answer Closed, whatever else is wrong with them.
EVERY_HANDLE = ("old", "unheard of", "h_open", "h_child", "h_held_e", "h_base")

IDS = [
    # the id, then answer and clause of get and of get_mutable
    ("unheard of", ("NotFound", "REF-ERROR-2"), ("NotFound", "REF-ERROR-2")),
    ("", ("NotFound", "REF-ERROR-2"), ("NotFound", "REF-ERROR-2")),
    ("h_open", ("NotFound", "REF-ERROR-2"), ("NotFound", "REF-ERROR-2")),  # a handle's name is no id
    ("open", ("Locked", "REF-GET-2"), ("Locked", "REF-MUT-2")),
    ("child", ("Locked", "REF-GET-2"), ("Locked", "REF-MUT-2")),
    ("idle", ("ok", "REF-GET-4"), ("ok", "REF-MUT-3")),
    ("held_m", ("ok or Locked", "REF-GET-3"), ("Locked", "REF-MUT-2")),
    ("held_e", ("ok", "REF-GET-1"), ("Invalid", "REF-MUT-1")),  # held and immutable: Invalid comes before Locked
    ("rest_m", ("ok", "REF-GET-3"), ("ok", "REF-MUT-3")),
    ("rest_e", ("ok", "REF-GET-1"), ("Invalid", "REF-MUT-1")),
    ("leaf", ("ok", "REF-GET-1"), ("Invalid", "REF-MUT-1")),
    ("base", ("ok", "REF-GET-1"), ("Invalid", "REF-MUT-1")),
]


def answer(op: RefOperation, closed: bool = False) -> tuple[str, str]:
    """What the call answers in words, and the clause."""
    found = outcomes(manager(closed=closed), op)
    (clause,) = {outcome.clause for outcome in found}
    return " or ".join(dict.fromkeys(map(ref_word, found))), clause


@pytest.mark.parametrize(("handle", "calls", "answered", "clause"), HANDLES)
def test_a_call_on_a_handle(handle: str, calls: tuple[str, ...], answered: str, clause: str) -> None:
    """REF-HANDLE-4, REF-NEW-3: a handle that is not open comes before the wrong kind."""
    for call in calls:
        assert answer(ON_HANDLE[call](handle)) == (answered, clause)


@pytest.mark.parametrize("handle", EVERY_HANDLE)
def test_closed_comes_before_whatever_is_wrong_with_a_handle(handle: str) -> None:
    """REF-CLOSE-1: not open, wrong kind, or nothing wrong at all."""
    for call in ON_HANDLE.values():
        assert answer(call(handle), closed=True) == ("Closed", "REF-CLOSE-1")


@pytest.mark.parametrize(("name", "get", "get_mutable"), IDS)
def test_a_call_with_an_id(name: str, get: tuple[str, str], get_mutable: tuple[str, str]) -> None:
    """NotFound, then the wrong kind, then Locked."""
    assert answer(ref_ops.Get(name, "h", "new")) == get
    assert answer(ref_ops.GetMutable(name, "h")) == get_mutable


@pytest.mark.parametrize("name", [name for name, _, _ in IDS])
def test_closed_comes_before_whatever_is_wrong_with_an_id(name: str) -> None:
    assert answer(ref_ops.Get(name, "h", "new"), closed=True) == ("Closed", "REF-CLOSE-1")
    assert answer(ref_ops.GetMutable(name, "h"), closed=True) == ("Closed", "REF-CLOSE-1")


@pytest.mark.parametrize("op", [ref_ops.New("new", "h"), ref_ops.DiskUsage(), ref_ops.Prune()])
def test_a_call_that_names_nothing_is_refused_by_a_closed_manager_alone(op: RefOperation) -> None:
    assert answer(op)[0] == "ok"
    assert answer(op, closed=True) == ("Closed", "REF-CLOSE-1")


@pytest.mark.parametrize("handle", EVERY_HANDLE)
def test_release_close_and_a_start_are_never_refused(handle: str) -> None:
    """REF-HANDLE-2, REF-CLOSE-1."""
    for closed in (False, True):
        for op in (ref_ops.Release(handle), ref_ops.Close(), ref_ops.Restart()):
            assert answer(op, closed)[0] == "ok"
