"""Adapters: what is against the protocol is told with the remedy, two in two languages conform, their broken twins are found."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from languages import LANGUAGES
from test_clauses_reached import RARE
from test_cli import snapspec
from verdicts import nothing_wrong, saved

from snapspec.conformance.adapter import client
from snapspec.conformance.adapter.client import Adapter, words_of
from snapspec.conformance.adapter.subject import ExecDriver, read
from snapspec.conformance.adapter.wire import WrongForm, sent, tree
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.address import parse
from snapspec.conformance.subjects.remote import TransportLost
from snapspec.model.nodes import data_of
from snapspec.model.tree import MakeFile

HERE = Path(__file__).parent / "adapters"
SCHEMA = json.loads((resources.files("snapspec.conformance") / "adapter/protocol.schema.json").read_text())

ADAPTERS = {"python": f"{sys.executable} {HERE}/adapter.py", "perl": f"perl {HERE}/adapter.pl"}
LEVELS = {"snapshots": "", "refs": "?level=refs"}


def address(language: str, level: str, *, broken: bool = False) -> str:
    return f"exec:{ADAPTERS[language]}{' --broken' if broken else ''}{LEVELS[level]}"


# --- wrong turns


async def _stat(turn: str, directory: Path) -> None:
    """Greet the adapter that takes this turn, and ask it for a record."""
    adapter = Adapter(
        (sys.executable, str(HERE / "wrong.py"), turn), directory / "log", patience=0.3 if turn == "silent later" else 10.0
    )
    try:
        await adapter.start("snapshots", directory)
        await ExecDriver(adapter, mounts=False).stat("a")
        if turn == "stays":
            raise CannotRun("it was killed" if await adapter.end() is None else "it has ended")
    finally:
        await adapter.kill()


TURNS = {
    "silent": "silent for 0.3 s after hello: answer it, and flush standard output",
    "silent later": "silent for 0.3 s under call 2, stat: answer every call, and flush ",
    "dies": "has ended with status 3 under call 1, hello; its last words: out of luck: answer hello, and ",
    "old protocol": "speaks 'snapspec adapter 0', the kit 'snapspec adapter 1': use the versions",
    "no content": "the member 'content' is missing",
    "other level": "add ?level=refs to the address",
    "unknown level": "give some of snapshots, refs",
    "profile": "give an object with some of cleanup, rebase, usage, root",
    "usage": 'give one of "layer", "copy", "delta", "opaque"',
    "prints": "'looking for a' on standard output, which is not JSON: print to standard error instead",
    "array": "which is no object: answer with id and value, or id and error",
    "no id": "without a number as id",
    "wrong id": "answered call 99, which was never made: repeat the id of the call",
    "twice": "answered call 1, hello, twice: answer each call once",
    "both": "give either value or error",
    "unknown class": "the error 'NoSuchFile': give one of AlreadyExists, ",
    "missing field": "the member 'kind' is missing",
    "wrong kind": "give active, view or committed",
    "null": "None stands where an object is to be: give name, parent, kind",
    "stays": "it was killed",
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_wrong_turn_is_told_with_the_remedy(turn: str, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "HELLO", 0.3 if turn == "silent" else 10.0)
    monkeypatch.setattr(client, "PATIENCE", 0.3)
    with pytest.raises(CannotRun) as told:
        asyncio.run(_stat(turn, workdir))
    assert TURNS[turn] in str(told.value)
    assert "\n" not in str(told.value)


def test_an_adapter_that_ends_under_a_call_has_lost_it(workdir: Path) -> None:
    async def ended() -> None:
        adapter = Adapter((sys.executable, str(HERE / "wrong.py"), "none"), workdir / "log")
        await adapter.start("snapshots", workdir)
        await adapter.end()
        await adapter.ask("stat", key="a")

    with pytest.raises(TransportLost, match="has ended with status 0"):
        asyncio.run(ended())


def test_a_caller_who_is_cancelled_stays_until_the_answer_is_there(workdir: Path) -> None:
    async def cancelled() -> Any:
        adapter = Adapter((sys.executable, str(HERE / "adapter.py")), workdir / "log")
        await adapter.start("refs", workdir)
        await adapter.ask("new", record="m", handle="h", parent=None)
        asking = asyncio.create_task(adapter.ask("size", handle="h"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        number = adapter.send("size", handle="h")
        adapter.cancel(number)
        answer = await adapter.answer(number)
        await adapter.end()
        return answer

    assert asyncio.run(cancelled()).error == "Canceled"


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("exec:", "names no adapter"),
        ("exec:./absent", "name a program that is here"),
        (f"exec:{HERE}/trees.py", "make it executable with chmod +x"),
        ("exec:./adapter?level=images", "write level= with one of snapshots, refs"),
        ("refs:exec:./adapter?level=refs", "a manager over a manager"),
    ],
)
def test_what_cannot_be_started_is_refused(subject: str, said: str) -> None:
    with pytest.raises(CannotRun, match=re.escape(said)):
        words_of(parse(subject).place)


# --- values


def test_names_and_contents_of_any_bytes_go_over_the_line() -> None:
    asked = sent(MakeFile("d/\udcff", b"\0\xff"))
    assert asked["path"] == {"is": "bytes", "base64": "ZC//"}
    assert asked["data"] == {"is": "bytes", "base64": "AP8="}
    entry = {"type": "file", "mode": 0o644, "uid": 0, "gid": 0, "data": asked["data"], "inode": 7}
    root = {"path": "", "type": "directory", "mode": 0o755, "uid": 0, "gid": 0}
    came = tree([{**entry, "path": "z"}, root, {**entry, "path": asked["path"]}])
    assert came.nodes["d/\udcff"].links == ("d/\udcff", "z")
    assert came.nodes["z"].data == data_of(b"\0\xff")


@pytest.mark.parametrize("value", [None, [1], [{"path": ""}], [{"path": "", "type": "door", "mode": 1, "uid": 0, "gid": 0}]])
def test_a_tree_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(WrongForm):
        tree(value)
    with pytest.raises(CannotRun, match="answered read, and "):
        read("read", tree, value)


# --- the schema


class Overheard(Adapter):
    """Holds each line against the schema."""

    lines = 0

    def _write(self, message: dict[str, Any]) -> None:
        self.hold(message, "cancel" if "cancel" in message else "call")
        super()._write(message)

    def _judged(self, message: dict[str, Any], number: int, call: str) -> Any:
        self.hold(message, "answer")
        level = "refs" if "Locked" in self._classes else "snapshots"
        value = SCHEMA["values"][level].get(call, "null").partition(",")[0]
        if "value" in message and (message["value"] is not None or value == "null"):
            self.hold(message["value"], value) if value != "null" else None
        return super()._judged(message, number, call)

    def hold(self, message: object, name: str) -> None:
        type(self).lines += 1
        jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{name}"}]}).validate(message)


SNAPSHOT_CALLS: list[dict[str, Any]] = [
    {"call": "prepare", "key": "a", "parent": "", "labels": {"l": "1"}},
    {"call": "write", "key": "a", "changes": [sent(MakeFile("\udcff", b"x"))]},
    {"call": "read", "key": "a"},
    {"call": "usage", "key": "a"},
    {"call": "walk", "filters": []},
    {"call": "commit", "name": "b", "key": "a", "labels": {}, "parent": ""},
    {"call": "update", "name": "b", "labels": {}, "mask": []},
    {"call": "remove", "key": "absent"},
]
REF_CALLS: list[dict[str, Any]] = [
    {"call": "new", "record": "m", "handle": "h", "parent": None},
    {"call": "commit", "handle": "h", "fresh": "e", "given": "g"},
    {"call": "size", "handle": "g"},
    {"call": "mount", "handle": "g", "readonly": True},
    {"call": "disk_usage"},
    {"call": "finalize", "handle": "h"},
    {"call": "release", "handle": "g"},
    {"call": "prune"},
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_said_is_of_the_schema(language: str, workdir: Path) -> None:
    async def talk(level: str, calls: list[dict[str, Any]]) -> None:
        adapter = Overheard(ADAPTERS[language].split(), workdir / "log")
        await adapter.start(level, workdir)
        for call in calls:
            await adapter.ask(**call)
        adapter.cancel(1)
        assert await adapter.end() == 0

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    before = Overheard.lines
    asyncio.run(talk("snapshots", SNAPSHOT_CALLS))
    asyncio.run(talk("refs", REF_CALLS))
    assert Overheard.lines - before > 30
    with pytest.raises(jsonschema.ValidationError):
        Overheard((), workdir).hold({"id": 1, "call": "prepare", "key": "a"}, "call")


# --- whole runs


def conforms(subject: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    run = snapspec("check", subject, "--seed", "1", *arguments)
    nothing_wrong(run)
    return run


@pytest.mark.parametrize("language", [pytest.param("python", marks=pytest.mark.deep), *LANGUAGES[1:]])
def test_smoke_walks_through_the_protocol(language: str) -> None:
    run = snapspec("smoke", address(language, "snapshots"))
    assert (run.returncode, run.stderr) == (0, "")
    assert "  hello -> snapshots and refs in memory, " in run.stdout
    assert "  the end of the input -> the adapter ends" in run.stdout


@pytest.mark.deep
def test_smoke_shows_the_steps_before_a_wrong_turn() -> None:
    run = snapspec("smoke", f"exec:{sys.executable} {HERE}/wrong.py null")
    assert run.returncode == 2
    assert "hello -> wrong, " in run.stdout
    assert "has answered call 2, prepare, twice: answer each call once" in run.stderr


@pytest.mark.deep
@pytest.mark.parametrize("language", LANGUAGES)
def test_adapters_conform(language: str) -> None:
    run = conforms(address(language, "snapshots"), "--examples", "60")
    missed = [each for found in re.findall(r"not put to the test at level \w+: (.*)", run.stdout) for each in found.split(", ")]
    assert {*missed} <= RARE, missed  # these come up seldom
    run = conforms(address(language, "refs"), "--examples", "40", "--budget", "20s")
    assert " cancellations" in run.stdout


@pytest.mark.deep
def test_what_an_adapter_does_not_offer_is_left_out(workdir: Path) -> None:
    """The adapter without its prune."""
    for name in ("adapter.py", "trees.py"):
        (workdir / name).write_text((HERE / name).read_text().replace("async def prune(", "async def no_prune("))
    subject = f"exec:{sys.executable} {workdir}/adapter.py?level=refs"
    run = snapspec("check", subject, "--seed", "1", "--budget", "10s")
    assert run.returncode == 2
    assert "does not offer prune: leave it out with --without prune" in run.stderr
    run = conforms(subject, "--without", "prune", "--budget", "6s")
    assert "left out: prune" in run.stdout


@pytest.mark.deep
def test_the_reference_manager_stands_on_an_adapter() -> None:
    conforms(f"refs:exec:{ADAPTERS['python']}", "--examples", "5", "--budget", "10s")


#: The clauses that the broken twins are found by, whichever shows first.
FOUND = {
    ("python", "snapshots"): {"SNAP-CONTENT-1", "SNAP-MOUNTS-5", "SNAP-CONTENT-2"},
    ("python", "refs"): {"REF-PRUNE-3", "REF-NEW-2", "REF-NEW-4", "REF-PRUNE-1"},
    ("perl", "snapshots"): {"SNAP-LABEL-1"},
    ("perl", "refs"): {"REF-MUT-2", "REF-HANDLE-4", "REF-USAGE-1"},
}


@pytest.mark.deep
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_their_broken_twins_are_found(language: str, level: str, workdir: Path) -> None:
    options = ("--seed", "1", "--examples", "40", "--first", "--out", str(workdir))
    run = snapspec("check", address(language, level, broken=True), *options)
    assert (run.returncode, run.stderr) == (1, ""), run.stdout
    assert "\n  adapter: this is the broken twin" in run.stdout, "what it has written on standard error is shown"
    out = saved(workdir)
    found = json.loads(out.read_text())
    assert found["clause"] in FOUND[language, level]
    assert snapspec("replay", str(out), address(language, level, broken=True)).returncode == 1
    assert snapspec("replay", str(out), address(language, level)).returncode == 0
