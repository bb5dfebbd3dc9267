"""Writes the generated modules beside the protos: `make proto`, or `python -m snapspec.conformance.proto.generate`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "snapspec/conformance/proto"


def generate(scratch: Path) -> list[Path]:
    """Generate from every proto of this folder into `scratch`; give the files made. Needs grpcio-tools (the dev extra)."""
    # The protos are read under the name of the package, so that generated modules import each other by it.
    outputs = [f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")]
    protos = sorted(str(path) for path in HERE.glob("*.proto"))
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PACKAGE}={HERE}", *outputs, *protos], check=True)
    return sorted((scratch / PACKAGE).iterdir())


def main() -> None:
    """Replace the generated modules; one whose proto is gone goes too."""
    with tempfile.TemporaryDirectory() as scratch:
        made = {path.name: path.read_bytes() for path in generate(Path(scratch))}
    for stale in HERE.glob("*_pb2*.py*"):
        stale.unlink()
    for name, content in made.items():
        (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
