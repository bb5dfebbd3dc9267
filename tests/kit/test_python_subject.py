"""`py:`: what a driver in Python gets wrong before the spec comes into it is told to its author, and is no fault of the kit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aio import asynchronous

from snapspec.conformance.contents import Contents
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.python import METHODS, PythonSubject, Threaded, find_factory
from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.errors import SnapshotError, Unimplemented
from snapspec.model.state import Profile
from snapspec.model.values import ErrorClass


class Empty:
    """Has no method but close, and counts those."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Rough(Empty):
    """Raises what it likes."""

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(name)
        return self.missing

    def missing(self, *_: object) -> None:
        raise KeyError("a")


class Unfinished(Rough):
    """Has no walk yet."""

    def walk(self, _: object) -> None:
        raise Unimplemented("walk comes later")


class Vague(Rough):
    """Its walk gives names, and no records."""

    def walk(self, _: object) -> list[str]:
        return ["a"]


def subject(driver: object, directory: Path) -> PythonSubject:
    return PythonSubject("py:a:b", Contents(directory, mounts=False, root=False), directory, lambda _: driver, Profile())


@asynchronous
async def test_what_lacks_methods_is_told_all_of_them_and_is_closed(tmp_path: Path) -> None:
    driver = Empty()
    lacking = subject(driver, tmp_path)
    with pytest.raises(CannotRun, match=r"the Empty that py:a:b gives lacks prepare, view, .*, walk, cleanup: give it all"):
        await lacking.start()
    await lacking.stop()
    assert driver.closed == 1


def test_the_methods_are_those_of_the_port() -> None:
    assert all(callable(getattr(CopySnapshotter, name)) for name in METHODS)
    assert all(callable(getattr(Threaded, name)) for name in METHODS)


@asynchronous
async def test_what_is_no_error_of_the_contract_has_no_class() -> None:
    with pytest.raises(SnapshotError, match=r"^KeyError: 'a'$") as caught:
        await Threaded(Rough()).remove("a")
    assert caught.value.error is ErrorClass.UNKNOWN
    with pytest.raises(SnapshotError, match="walk gave 'a', which is no Info"):
        _ = [info async for info in Threaded(Vague()).walk()]


@pytest.mark.parametrize("driver", [Rough(), Unfinished(), Vague()], ids=lambda driver: type(driver).__name__)
def test_a_driver_that_cannot_clear_up_is_no_fault_of_the_kit(driver: Rough, tmp_path: Path) -> None:
    async def cleared() -> None:
        rough = subject(driver, tmp_path)
        await rough.start()
        await rough.begin()
        await rough.clear()

    asyncio.run(cleared())


def test_a_factory_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command of an installed package has it: nothing of the directory is on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    (tmp_path / "driver_of_this_test.py").write_text("def open(directory): ...\n", encoding="utf-8")
    assert find_factory("driver_of_this_test:open").__name__ == "open"
