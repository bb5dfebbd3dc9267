"""The layout: what a wheel holds, who imports whom, what no committed file names, which make targets the README names."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("model", "impl", "conformance")

#: All that the model may import besides itself: no I/O, clock, randomness, thread or event loop is among it.
PURE = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "icontract",
    "itertools",
    "operator",
    "re",
    "typing",
}

#: Built-in functions that reach out of a pure program.
IMPURE_CALLS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}

#: An absolute path of one machine: below a home or a place of work, at the start of a word.
HOST_PATH = re.compile(r"(?<![\w.})\]*~/-])/(?:work|root|home|Users)/\w")

NOT_OURS = {".git", "build", "dist", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def committed_files() -> list[Path]:
    """What is in git or would be added to it; every file outside the build folders where the tree is no git checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        return sorted(_walk(ROOT))
    return sorted(path for name in listed if name and (path := ROOT / name).is_file())


def _walk(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.name in NOT_OURS or path.suffix == ".egg-info" or (path / "pyvenv.cfg").exists():
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


FILES = committed_files()
SOURCES = [path for path in FILES if path.suffix == ".py"]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file it stands; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            # `from snapspec import impl` names the room in the list.
            if module == "snapspec":
                yield from (f"snapspec.{alias.name}" for alias in node.names)


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def importing(room: str, *packages: str) -> list[str]:
    """The imports of `room` that are within `packages`, each with its file."""
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in SOURCES
        if room_of(path) == room
        for module in imports(path)
        if within(module, *packages)
    ]


def test_the_model_imports_only_what_is_pure() -> None:
    impure = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in SOURCES
        if room_of(path) == "model"
        for module in imports(path)
        if module not in PURE and not within(module, "snapspec.model")
    ]
    assert not impure


def test_the_model_calls_no_builtin_that_reaches_out() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}"
        for path in SOURCES
        if room_of(path) == "model"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
    ]
    assert not calls


def test_imports_point_one_way() -> None:
    assert not importing("model", "snapspec.impl", "snapspec.conformance")
    assert not importing("impl", "snapspec.conformance")
    assert not [line for room in ROOMS for line in importing(room, "tests")]


def test_the_rooms_are_imported_by_their_full_names() -> None:
    """`import model` would work with the root of the repository on the path, and give every class twice."""
    bare = [line for room in (*ROOMS, "tests") for line in importing(room, *ROOMS)]
    relative = [f"{path.relative_to(ROOT)} imports {module}" for path in SOURCES for module in imports(path) if module[:1] == "."]
    assert not bare
    assert not relative


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_sources(room: str) -> None:
    """The checks above would pass on nothing."""
    assert [path for path in SOURCES if room_of(path) == room]


def test_no_file_names_a_path_of_one_machine() -> None:
    named = []
    for path in FILES:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:  # no text, so no path that someone wrote
            continue
        named += [f"{path.relative_to(ROOT)}: {match.group()}" for match in HOST_PATH.finditer(text)]
    assert not named


@pytest.mark.parametrize(
    ("text", "named"),
    [("cd |work/tree", True), ("'|root/x'", True), ("=|home/me", True), ("{upper}|work/inodes", False), ("a|root/b", False)],
)
def test_a_path_of_one_machine_is_recognized(text: str, named: bool) -> None:
    path = text.replace("|", "/")  # written out, this file would name them
    assert (HOST_PATH.search(path) is not None) is named


def test_the_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    readme = (ROOT / "README.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, re.DOTALL))
    named = set(re.findall(r"\bmake ([a-z]+)", code))
    assert {"check", "test"} <= named, "the README opens with make check and make test"
    assert named <= targets


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the committed files alone: what a build left in the tree is not there to help."""
    tree = tmp_path_factory.mktemp("tree")
    for path in FILES:
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    # Without isolation: a test must not need a registry. setuptools comes with the dev extra.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree / "out"), str(tree)]
    built = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (tree / "out").glob("*.whl")
    return found


def test_a_wheel_holds_snapspec_alone(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {re.sub(r"-[^-]+\.dist-info$", ".dist-info", top) for top in tops} == {"snapspec", "snapspec.dist-info"}


def test_a_wheel_holds_every_module_and_the_spec(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        wanted = {f"snapspec/{path.relative_to(ROOT)}" for path in SOURCES if room_of(path) in ROOMS}
        wanted |= {f"snapspec/{room}/py.typed" for room in ROOMS}
        assert wanted <= held, f"the wheel lacks {sorted(wanted - held)}: name its package in pyproject.toml"
        specs = [archive.read(name) for name in held if name.endswith("/spec.md")]
    assert specs == [(ROOT / "spec.md").read_bytes()], "the spec is to be in the wheel once, as it is in the repository"


def test_an_unpacked_wheel_can_be_imported(wheel: Path, tmp_path: Path) -> None:
    """From a folder that is not the repository, and without `model` on the path."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    modules = sorted(
        ".".join(("snapspec", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCES
        if room_of(path) in ROOMS and path.stem != "__main__"
    )
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(sys.modules['snapspec.model'].__file__)\n"
        "try: import model\n"
        "except ImportError: print('no model')\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))))
    environment = dict(os.environ, PYTHONPATH=path)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n") == [str(tmp_path / "site/snapspec/model/__init__.py"), "no model", ""]
