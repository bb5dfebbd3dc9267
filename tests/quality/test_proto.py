"""The generated gRPC code is what the protos give: `make proto` writes it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snapspec.conformance.proto import generate

GENERATED = [f"snapspec.conformance.proto.{path.stem}" for path in sorted(generate.HERE.glob("*_pb2*.py"))]


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    """Byte for byte, and no file more or less."""
    made = {path.name: path.read_bytes() for path in generate.generate(tmp_path)}
    kept = {path.name: path.read_bytes() for path in generate.HERE.glob("*_pb2*.py*")}
    assert made == kept, "the generated gRPC code is stale: run `make proto`"


def test_each_proto_has_its_modules() -> None:
    """Messages and stubs for each of the five: the other tests here do not pass for want of files."""
    assert len(GENERATED) == 2 * len(list(generate.HERE.glob("*.proto"))) == 10


@pytest.mark.parametrize("module", GENERATED)
def test_importing_it_gives_no_warning(module: str) -> None:
    """In a fresh interpreter, with every warning an error; nothing is printed either."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
