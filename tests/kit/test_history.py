"""Histories in files and in words: every one comes back as it was, and no foreign file is taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FURNISHED, changes, trees

from snapspec.conformance.codec import decode, encode
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, answer_text, call_text, decode_finding, encode_finding, line, load, save
from snapspec.conformance.report.text import finding_lines
from snapspec.model import ops
from snapspec.model.guards import Door, Rebase
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Lost, Mismatch, Reading, Response, Returned
from snapspec.model.state import Measure, Profile, RootMetadata
from snapspec.model.tree import MakeFile, WriteAt
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

# Any code point, lone surrogates and pairs of them too: that is what a name, a label or a driver's message can hold.
texts = st.text(st.characters(), max_size=6) | st.sampled_from(("", "\ud800\udc00", "\udcff", "a\nb", "x" * 300))
labels = st.lists(st.tuples(texts, texts), max_size=2).map(tuple)
kinds = st.sampled_from(Kind)
numbers = st.integers(-1, 1 << 63)
usages = st.builds(Usage, numbers, numbers)
mounts = st.builds(Mount, texts, texts, st.lists(texts, max_size=2).map(tuple), texts)
infos = st.builds(Info, texts, texts, kinds, labels, numbers, numbers)
written = st.lists(changes(FURNISHED), min_size=1, max_size=3).map(tuple)

nameable = st.one_of(
    st.builds(ops.Prepare, texts, texts, labels),
    st.builds(ops.View, texts, texts, labels),
    st.builds(ops.Commit, texts, texts, labels, texts),
    st.builds(ops.Remove, texts),
    st.builds(ops.Mounts, texts),
    st.builds(ops.Stat, texts),
    st.builds(ops.Update, texts, labels, st.lists(texts, max_size=2).map(tuple), texts, kinds),
    st.builds(ops.Usage, texts),
    st.builds(ops.Walk, st.lists(texts, max_size=2).map(tuple)),
)
operations: st.SearchStrategy[Operation] = st.one_of(
    nameable,
    st.builds(ops.Nowhere, nameable),
    st.builds(ops.Cleanup),
    st.builds(ops.Reopen, st.booleans()),
    st.builds(ops.Collect, st.lists(texts, max_size=2).map(tuple)),
    st.builds(ops.Write, texts, written, st.booleans()),
    st.builds(ops.Read, texts, st.booleans()),
)
values = st.one_of(
    st.none(),
    st.lists(mounts, max_size=2).map(tuple),
    infos,
    st.lists(infos, max_size=2).map(tuple),
    st.builds(Reading, usages, st.none() | usages),
    trees(FURNISHED, 3),
    st.lists(texts, max_size=2).map(tuple),
)
responses: st.SearchStrategy[Response] = st.one_of(
    st.builds(Returned, values), st.builds(Failed, st.sampled_from(ErrorClass), texts), st.builds(Lost, texts)
)
steps = st.builds(Step, operations, responses, st.integers(0, 1), st.booleans())
mismatches = st.lists(st.builds(Mismatch, texts, texts, texts), min_size=1, max_size=2).map(tuple)
findings = st.builds(Finding, st.lists(steps, min_size=1, max_size=3).map(tuple), mismatches)
profiles = st.builds(
    Profile,
    st.sampled_from(Door),
    st.booleans(),
    st.booleans(),
    st.sampled_from(Rebase),
    st.sampled_from(Measure),
    st.sampled_from(RootMetadata),
)

FOUND = Finding(
    (
        Step(ops.Prepare("a"), Returned((Mount("bind", "/s/1", ("rw",)),))),
        Step(ops.Walk(), Returned(()), check=True),
        Step(ops.Write("a", (MakeFile("f", b"\0" * 5000), WriteAt("f", 1, b"x"))), Returned(("ok", "ok"))),
        Step(ops.Stat("a"), Failed(ErrorClass.NOT_FOUND, "a: not\n found"), 1),
    ),
    (Mismatch("SNAP-STAT-1", "the record of 'a'", "NotFound"),),
)


def as_saved(document: object) -> Any:
    """What a file makes of a document."""
    return json.loads(json.dumps(document).encode())


@given(findings)
def test_a_finding_comes_back_as_it_was(found: Finding) -> None:
    assert decode_finding(as_saved(encode_finding(found))) == found


@given(profiles)
def test_a_profile_comes_back_as_it_was(profile: Profile) -> None:
    assert decode(as_saved(encode(profile))) == profile


def test_a_file_holds_the_whole_finding(workdir: Path) -> None:
    save(workdir / "f.json", FOUND, "model:")
    assert load(workdir / "f.json") == FOUND
    document = json.loads((workdir / "f.json").read_text())
    assert (document["format"], document["subject"], document["clause"]) == ("snapspec history 1", "model:", "SNAP-STAT-1")
    assert [step["line"] for step in document["steps"]] == [line(step) for step in FOUND.steps]


def test_a_file_that_cannot_be_written_is_refused(workdir: Path) -> None:
    with pytest.raises(CannotRun, match="--out"):
        save(workdir, FOUND, "model:")


@given(steps)
def test_a_call_is_one_line_of_what_can_be_printed(step: Step) -> None:
    text = line(step)
    assert len(text.splitlines()) == 1
    assert text.startswith(call_text(step.op))
    assert text.endswith(answer_text(step.response))
    assert call_text(step.op).isprintable()


@pytest.mark.parametrize(
    ("op", "response", "text"),
    [
        (ops.Prepare("a"), Returned((Mount("bind", "/s"),)), "prepare('a') -> bind mount"),
        (ops.View("v", "a", (("k", "1"),)), Failed(ErrorClass.NOT_FOUND), "view('v', parent='a', labels={'k': '1'}) -> NotFound"),
        (ops.Commit("n", "a", parent="p"), Returned(), "commit('n', 'a', parent='p') -> done"),
        (ops.Walk(), Returned(()), "walk() -> nothing"),
        (ops.Usage("a"), Returned(Reading(Usage(4096, 1))), "usage('a') -> 4096 bytes, 1 inodes"),
        (
            ops.Stat("a"),
            Returned(Info("a", "p", Kind.VIEW, (("k", "1"),), 0, 0)),
            "stat('a') -> view, parent 'p', labels {'k': '1'}",
        ),
        (ops.Read("x" * 70, held=True), Lost("gone"), f"read('{'x' * 20}'... (70 characters), held=True) -> no answer: gone"),
        (
            ops.Write("a", (MakeFile("f", b"y" * 17),)),
            Returned(("EEXIST",)),
            "write('a', [MakeFile('f', 17 bytes, 420)]) -> EEXIST",
        ),
        (ops.Nowhere(ops.Stat("a")), Returned(None), "without a namespace: stat('a') -> done"),
        (ops.Remove("a"), Failed(ErrorClass.UNKNOWN, "one\n two\t three"), "remove('a') -> Unknown: one two three"),
    ],
)
def test_a_call_in_words(op: Operation, response: Response, text: str) -> None:
    assert line(Step(op, response)) == text
    assert line(Step(op, response, 1)) == text.replace(" -> ", " in namespace 1 -> ", 1)


def test_a_driver_that_says_much_is_cut_short() -> None:
    assert len(answer_text(Failed(ErrorClass.UNKNOWN, "x" * 10_000))) < 400


def test_a_finding_in_words_leaves_out_what_only_looked() -> None:
    text = "\n".join(finding_lines(FOUND))
    assert text.startswith("DIVERGES from SNAP-STAT-1, with 3 calls:")
    assert "walk()" not in text
    for part in (
        "at call 3, stat('a'):",
        "allowed  the record of 'a'  [SNAP-STAT-1]",
        "came     NotFound",
        "SNAP-STAT-1: Stat of",
    ):
        assert part in text


# --- what is no history

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
tags = st.sampled_from(
    ("ops.Prepare", "ops.Change", "values.Kind", "bytes", "text", "map", "replies.Failed", "nodes.os", "a", "")
)
keys = st.sampled_from(("is", "key", "name", "items", "base64", "error", "steps", "op"))
documents = st.recursive(
    scalars | tags,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(lambda tag, rest: {**rest, "is": tag}, tags, st.dictionaries(keys, inner, max_size=2))
    ),
    max_leaves=8,
)


@given(documents)
def test_any_document_is_a_value_or_is_refused(document: object) -> None:
    try:
        value = decode(document)
    except CannotRun:
        return
    assert decode(as_saved(encode(value))) == value


@given(documents)
def test_any_document_is_a_finding_or_is_refused(document: object) -> None:
    with pytest.raises(CannotRun, match="snapspec check has saved"):
        decode_finding(document)


@pytest.mark.parametrize(
    "document",
    [
        {"is": "ops.Prepare", "key": 5},
        {"is": "ops.Prepare"},
        {"is": "ops.Prepare", "key": "a", "colour": "red"},
        {"is": "ops.Prepare", "key": "a", "labels": [["k"]]},
        {"is": "ops.Prepare", "key": "a", "labels": "k"},
        {"is": "ops.Nowhere", "call": {"is": "ops.Cleanup"}},
        {"is": "values.Kind", "name": "LOST"},
        {"is": "replies.Returned", "value": {"is": "ops.Cleanup"}},
        {"is": "bytes", "base64": "?"},
        {"is": "text", "base64": "/w=="},
        {"is": "map", "items": [1]},
        {"is": "frozen.Map"},
        1.5,
    ],
)
def test_a_value_of_another_type_is_refused(document: object) -> None:
    with pytest.raises(CannotRun):
        decode(document)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "snapspec history 2"},
        {"steps": []},
        {"mismatches": []},
        {"steps": [{"op": {"is": "ops.Cleanup"}, "answer": {"is": "ops.Cleanup"}, "space": 0, "check": False}]},
        {"steps": [{"op": {"is": "replies.Lost"}, "answer": {"is": "replies.Lost"}, "space": 0, "check": False}]},
        {"steps": [{"op": {"is": "ops.Cleanup"}, "answer": {"is": "replies.Lost"}}]},
        {"mismatches": ["SNAP-STAT-1"]},
    ],
)
def test_a_file_of_another_kind_is_refused(change: dict[str, object], workdir: Path) -> None:
    file = workdir / "f.json"
    save(file, FOUND, "model:")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CannotRun, match="snapspec check has saved"):
        load(file)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"{", b'"text"'])
def test_a_file_that_is_no_json_document_of_ours_is_refused(content: bytes, workdir: Path) -> None:
    (workdir / "f.json").write_bytes(content)
    with pytest.raises(CannotRun, match="name a file that snapspec check has saved"):
        load(workdir / "f.json")


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_file_that_cannot_be_read_is_refused(name: str, workdir: Path) -> None:
    with pytest.raises(CannotRun, match="cannot read"):
        load(workdir / name)
