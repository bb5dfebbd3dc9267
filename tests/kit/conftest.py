"""What the tests of the kit stand on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what a check writes that was not told where."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(autouse=True)
def _elsewhere(elsewhere: Path) -> Iterator[None]:
    """Each worker of pytest works in a directory of its own."""
    before = Path.cwd()
    os.chdir(elsewhere)
    yield
    os.chdir(before)
