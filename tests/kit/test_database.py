"""Findings that are kept and shared: by a directory, by a real Redis server, by an artifact as GitHub gives it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis.database import InMemoryExampleDatabase

from snapspec.conformance import database
from snapspec.conformance.database import LOCAL, drop, keep, kept, name_of, open_database
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding, Step
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.model import ops, ref_ops
from snapspec.model.replies import Failed, Mismatch, Returned
from snapspec.model.tree import MakeFile
from snapspec.model.values import ErrorClass

MISMATCH = (Mismatch("SNAP-COMMIT-4", "FailedPrecondition", "success"),)
REF_MISMATCH = (Mismatch("REF-MUT-2", "Locked", "success, GotHandle"),)

DRIVER = Finding((Step(ops.View("a"), Failed(ErrorClass.NOT_FOUND, "é")), Step(ops.Commit("b", "a"), Returned())), MISMATCH)
FAULTS = Finding((Step(Faulted(call=ops.Prepare("a"), at="mkdir", error="EIO"), Returned()),), MISMATCH)
OVERLAP = Finding((Step(AtOnce(first=(ops.Prepare("a"),), lanes=((ops.Remove("a"),),)), Returned(("1", "2"))),), MISMATCH)
REFS = RefFinding(
    (Burst((ref_ops.New("m", "hm"),)), Burst((ref_ops.Write("hm", (MakeFile("f", b"x"),)), ref_ops.Prune()), (1, 0), kill=3)),
    ("1  new('m', 'hm') begins",),
    REF_MISMATCH,
    free=True,
)
KINDS = {"driver": DRIVER, "faults": FAULTS, "overlap": OVERLAP, "refs": REFS}


@dataclass
class Server:
    """A Redis server of this test. `end` ends it, once."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def words(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    pytest.importorskip("redis", reason="needs the package redis: pip install snapspec[redis]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield Server(port, process)
        finally:
            if process.poll() is None:
                process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server does not listen")


# --- what is kept


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_finding_comes_back_as_it_was_kept(kind: str) -> None:
    shared = InMemoryExampleDatabase()
    keep(shared, "driver", "core", KINDS[kind])
    assert kept(shared, "driver", "core") == [KINDS[kind]]


def test_findings_of_another_driver_or_level_are_not_given() -> None:
    shared = InMemoryExampleDatabase()
    keep(shared, "driver", "core", DRIVER)
    assert kept(shared, "other", "core") == kept(shared, "driver", "faults") == []


def test_the_shortest_comes_first_and_each_once() -> None:
    shared = InMemoryExampleDatabase()
    longer = replace(DRIVER, steps=(DRIVER.steps[0], *DRIVER.steps))
    for found in (longer, DRIVER, longer):
        keep(shared, "driver", "core", found)
    assert kept(shared, "driver", "core") == [DRIVER, longer]


def test_what_is_dropped_is_gone_and_the_rest_stays() -> None:
    shared = InMemoryExampleDatabase()
    keep(shared, "driver", "core", DRIVER)
    keep(shared, "driver", "core", FAULTS)
    drop(shared, "driver", "core", DRIVER)
    assert kept(shared, "driver", "core") == [FAULTS]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"\xff\x00",
        lambda value: value[: len(value) // 2],
        lambda value: value.replace(b"snapspec history 1", b"snapspec history 9"),
        lambda value: value.replace(b"ops.Commit", b"ops.Renamed"),
        lambda value: b"[1]",
        lambda value: json.dumps({**json.loads(value), "steps": []}).encode(),
    ],
    ids=["bytes", "half", "another version", "an unknown call", "no object", "no step"],
)
def test_what_does_not_decode_is_left_alone(damage: object) -> None:
    shared = InMemoryExampleDatabase()
    keep(shared, "driver", "core", DRIVER)
    (key,) = shared.data
    (value,) = shared.fetch(key)
    damaged = damage(value)  # type: ignore[operator]  # it is one of the functions above
    shared.save(key, damaged)
    assert kept(shared, "driver", "core") == [DRIVER]
    assert damaged in set(shared.fetch(key)), "it may be another version's, who can read it"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("containerd:/run/a.sock?snapshotter=native&namespace=x", "containerd:/tmp/b.sock?snapshotter=native"),
        ("plugin:/run/a.sock?snapshotter=x", "plugin:/b.sock?snapshotter=x"),
        ("refs:containerd:/a.sock?snapshotter=native", "refs:containerd:/b.sock?snapshotter=native"),
        ("exec:/opt/adapter", "exec:./adapter"),
        ("model:?usage=copy&door=metadata", "model:?door=metadata&usage=copy"),
    ],
)
def test_what_differs_between_machines_is_not_in_the_name(one: str, other: str) -> None:
    assert name_of(one) == name_of(other)


def test_what_makes_another_driver_is_in_the_name() -> None:
    subjects = [
        *("ref:overlay", "ref:copy", "ref:overlay?fs=xfs", "refs:overlay", "model:", "model:?door=metadata", "mutant:a04"),
        *("containerd:/a?snapshotter=native", "refs:containerd:/a?snapshotter=native", "containerd:/a?snapshotter=btrfs"),
        *("plugin:/a?snapshotter=native", "exec:./a", "exec:./b", "exec:./a?level=refs"),
    ]
    assert len({name_of(subject) for subject in subjects}) == len(subjects)


# --- a directory


def test_a_directory_shares_between_runs(tmp_path: Path) -> None:
    keep(open_database(str(tmp_path)), "driver", "core", DRIVER)
    assert kept(open_database(str(tmp_path)), "driver", "core") == [DRIVER]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("", "write DIR, redis://"),
        ("ftp://x", "write DIR, redis://"),
        ("github:alone", "write github:OWNER/REPO"),
        ("github:../etc/x", "write github:OWNER/REPO"),
        ("redis://127.0.0.1:x/0", "write redis://HOST:PORT/DB"),
    ],
)
def test_words_of_no_known_form_are_told_the_forms(words: str, remedy: str) -> None:
    with pytest.raises(CannotRun, match=remedy):
        open_database(words)


def test_a_directory_that_is_not_there_is_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="mkdir -p"):
        open_database(str(tmp_path / "absent"))
    (tmp_path / "file").touch()
    with pytest.raises(CannotRun, match="mkdir -p"):
        open_database(str(tmp_path / "file"))


# --- Redis


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_kept_on_one_machine_is_found_on_another(server: Server, kind: str) -> None:
    one, other = open_database(server.words), open_database(server.words)
    keep(one, "driver", "core", KINDS[kind])
    assert kept(other, "driver", "core") == [KINDS[kind]]
    drop(other, "driver", "core", KINDS[kind])
    assert kept(one, "driver", "core") == []
    assert one.note == other.note == ""


def test_what_nobody_asks_for_expires(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from redis import Redis

    keep(open_database(server.words), "driver", "core", DRIVER)
    with Redis.from_url(server.words) as client:
        (key,) = client.keys("snapspec:*")
        assert 0 < client.ttl(key) <= database.KEPT_FOR.total_seconds()
        monkeypatch.setattr(database, "KEPT_FOR", database.timedelta(seconds=1))
        assert kept(open_database(server.words), "driver", "core") == [DRIVER], "which sets the time anew"
        time.sleep(1.2)
        assert client.keys("*") == []
    assert kept(open_database(server.words), "driver", "core") == []


def test_a_server_that_goes_away_ends_no_check_and_is_told_once(server: Server) -> None:
    shared = open_database(server.words)
    keep(shared, "driver", "core", DRIVER)
    server.end()
    assert kept(shared, "driver", "core") == []
    note = shared.note
    assert note.startswith(f"findings are not shared through {server.words}: ")
    keep(shared, "driver", "core", DRIVER)
    drop(shared, "driver", "core", DRIVER)
    assert shared.note == note


def test_a_server_that_does_not_answer_cannot_be_used(server: Server) -> None:
    server.end()
    with pytest.raises(CannotRun, match=r"does not answer.*: start it"):
        open_database(server.words)


def test_a_password_is_not_printed(server: Server) -> None:
    words = server.words.replace("redis://", "redis://me:secret@")
    with pytest.raises(CannotRun) as told:
        open_database(words)
    assert "secret" not in str(told.value)
    assert f"127.0.0.1:{server.port}" in str(told.value)


def test_without_the_package_the_extra_is_named() -> None:
    """In a process of its own, which cannot import redis."""
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from snapspec.conformance.database import open_database\n"
        "from snapspec.conformance.errors import CannotRun\n"
        "try: open_database('redis://127.0.0.1:1/0')\n"
        "except CannotRun as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip().endswith("pip install snapspec[redis]")


# --- an artifact of GitHub: its download needs GitHub, so what was downloaded before is read here


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory for `github:`, and no way to GitHub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path / "hypothesis"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path


def _uploaded(directory: Path, cache: Path) -> None:
    """What a workflow uploads of `directory`, where Hypothesis keeps what it has downloaded."""
    cache.mkdir()
    stamp = datetime.now(UTC).isoformat().replace(":", "_")
    with zipfile.ZipFile(cache / f"{stamp}.zip", "w") as archive:
        for path in directory.rglob("*"):
            archive.write(path, path.relative_to(directory))


def test_findings_of_an_artifact_are_read_and_new_ones_go_into_a_directory(elsewhere: Path) -> None:
    earlier = elsewhere / "earlier"
    earlier.mkdir()
    keep(open_database(str(earlier)), "driver", "core", DRIVER)
    _uploaded(earlier, elsewhere / f"{LOCAL}-cache")
    shared = open_database("github:owner/repo")
    assert kept(shared, "driver", "core") == [DRIVER]
    keep(shared, "driver", "core", FAULTS)
    drop(shared, "driver", "core", DRIVER)
    assert kept(open_database(LOCAL), "driver", "core") == [FAULTS], "the directory that is uploaded next"
    assert kept(shared, "driver", "core") == sorted([DRIVER, FAULTS], key=lambda f: len(f.steps)), "an artifact stays as it is"
    assert shared.note == ""


def test_github_out_of_reach_ends_no_check_and_is_told_once(elsewhere: Path) -> None:
    shared = open_database("github:owner/repo")
    assert kept(shared, "driver", "core") == []
    assert shared.note.startswith("findings are not shared through github:owner/repo: Could not connect to GitHub")
    keep(shared, "driver", "core", DRIVER)
    assert kept(shared, "driver", "core") == [DRIVER], "what was found here is kept all the same"
