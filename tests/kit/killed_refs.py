"""Sessions of refs on a manager in a process that is killed, over the overlay reference on a pool or over copies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from snapspec.conformance.contents import Contents
from snapspec.conformance.durable.ref_kill import RefKillSession
from snapspec.conformance.durable.ref_world import KilledRefs
from snapspec.conformance.subjects.reference import Ground, ReferenceSubject
from snapspec.model.refs import Declared

GROUNDS = {
    "overlay": Ground("overlay", True, False, "a pool of its own"),
    "copy": Ground("copy", False, False, "plain copies"),
}

OPENS = ("snapspec.impl.manager", "open_manager")


@contextmanager
def killed(directory: Path, driver: str = "copy", opens: tuple[str, str] = OPENS) -> Iterator[RefKillSession]:
    """A session on a manager that is killed, below the empty directory. The process finds the modules of these tests."""
    for place in ("mnt", "driver", "stores"):
        (directory / place).mkdir(mode=0o700)
    contents = Contents(directory / "mnt")
    under = ReferenceSubject("ref:", contents, directory / "driver", GROUNDS[driver], 64 << 20, "ext4")
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with patch.dict(os.environ, PYTHONPATH=path), asyncio.Runner() as runner:
        session = RefKillSession(KilledRefs("refs:", under, directory / "stores", Declared(), opens), runner)
        with session.started():
            yield session
