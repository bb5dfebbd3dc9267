"""The scan of what a directory takes: exact, at any depth, over what changes meanwhile, and stopped when told."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from stores import du

from snapspec.impl.scan import Stopped, measure
from snapspec.impl.syscalls import syncfs
from snapspec.model.values import Usage


@pytest.fixture
def never() -> threading.Event:
    return threading.Event()


def settle(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    syncfs(fd)
    os.close(fd)


def test_an_empty_directory_is_one_inode(tmp_path: Path, never: threading.Event) -> None:
    assert measure(str(tmp_path), never) == Usage(os.lstat(tmp_path).st_blocks * 512, 1) == du(tmp_path)


def test_links_count_once_and_holes_not_at_all(tmp_path: Path, never: threading.Event) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(os.urandom(100_000))
    for number in range(10):
        os.link(tmp_path / "a" / "file", tmp_path / f"link{number}")
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"x")
    (tmp_path / "out").symlink_to("/")
    settle(tmp_path)
    usage = measure(str(tmp_path), never)
    assert usage == du(tmp_path)
    assert usage.inodes == 5
    assert usage.size < 200_000


def test_a_tree_deeper_than_any_path(tmp_path: Path, never: threading.Event) -> None:
    depth, name = 400, "d" * 100
    at = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(depth):
        os.mkdir(name, dir_fd=at)
        if number % 100 == 0:
            os.link(os.path.join(tmp_path, "file"), "file", dst_dir_fd=at) if number else Path(tmp_path, "file").write_text("x")
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    settle(tmp_path)
    usage = measure(str(tmp_path), never)
    assert usage == du(tmp_path)
    assert usage.inodes == 1 + depth + 1


def test_what_vanishes_meanwhile_is_passed_over(tmp_path: Path, never: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"directory{number}").mkdir()
        (tmp_path / f"directory{number}" / "file").touch()
    real, seen = os.scandir, []

    def scandir(directory: Any) -> Any:
        seen.append(directory)
        entries = real(directory)
        if len(seen) == 10:
            for number in range(40):  # read already, waiting to be read, and being read
                (tmp_path / f"directory{number}" / "file").unlink(missing_ok=True)
                (tmp_path / f"directory{number}").rmdir()
            for number in range(40, 45):
                (tmp_path / f"directory{number}").rename(tmp_path / f"moved{number}")
        return entries

    monkeypatch.setattr(os, "scandir", scandir)
    usage = measure(str(tmp_path), never)
    assert 51 <= usage.inodes <= 101


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path, never: threading.Event) -> None:
    with pytest.raises(FileNotFoundError):
        measure(str(tmp_path / "none"), never)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        measure(str(tmp_path / "link"), never)


def test_it_stops_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"directory{number}" / "deep").mkdir(parents=True)
    stop, real, seen = threading.Event(), os.scandir, []

    def scandir(directory: Any) -> Any:
        seen.append(directory)
        if len(seen) == 5:
            stop.set()
        return real(directory)

    monkeypatch.setattr(os, "scandir", scandir)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Stopped):
        measure(str(tmp_path), stop)
    assert len(seen) == 5
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left open"
