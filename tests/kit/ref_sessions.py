"""Sessions of refs: over the model, with everything in memory, and over copies, with real files and a real store."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from snapspec.conformance.contents import Contents
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.conformance.subjects.python import PythonSubject
from snapspec.conformance.subjects.refs import RefsSubject
from snapspec.impl.copy import open_copy
from snapspec.impl.manager import Manager, open_manager
from snapspec.model.refs import Declared
from snapspec.model.state import Measure, Profile

Open = Callable[..., Awaitable[Manager]]


@cache
def _runner() -> asyncio.Runner:
    """A loop, on which nothing in memory waits."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


def in_memory(open_with: Open = open_manager) -> RefSession:
    """A session over the model. There is nothing to end."""
    subject = RefsSubject("refs:model:", ModelSubject("model:", Profile()), Path(), Declared(), open_with)
    return RefSession(subject, _runner())


@contextmanager
def over_copies(directory: Path, open_with: Open = open_manager) -> Iterator[RefSession]:
    """A session over the copying reference and stores in sqlite, below the empty directory."""
    for place in ("mnt", "driver", "stores"):
        (directory / place).mkdir()

    async def factory(place: Path) -> object:
        return await open_copy(str(place))

    under = PythonSubject("py:", Contents(directory / "mnt"), directory / "driver", factory, Profile(usage=Measure.COPY))
    with asyncio.Runner() as runner:
        session = RefSession(RefsSubject("refs:", under, directory / "stores", Declared(), open_with), runner)
        with session.started():
            yield session
