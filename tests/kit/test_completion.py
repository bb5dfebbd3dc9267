"""Completion of the command's words: in bash as it is typed, in other shells as far as they are there."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapspec.conformance import completion, words
from snapspec.conformance.clauses import clauses
from snapspec.conformance.cli import main


def no_action(_: object) -> int:
    return 0


def script(shell: str) -> str:
    return completion.script(words.parser(dict.fromkeys(words._COMMANDS, no_action)), shell)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, in a file."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash: apt-get install bash")
    path = tmp_path_factory.mktemp("completion") / "snapspec.bash"
    path.write_text(script("bash"))
    return path


def completed(path: Path, typed: str) -> list[str]:
    """What bash is offered for the end of a line; readline takes words apart at colons and equals signs too."""
    parts = [part for word in typed.split(" ") for part in (re.findall("[:=]+|[^:=]+", word) or [""])]
    code = (
        'source "$1"; COMP_LINE=$2; shift 2; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))\n'
        '_snapspec_whole_words; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(
        ["bash", "-c", code, "bash", path, typed, *parts], capture_output=True, text=True, check=True, cwd=path.parent
    )
    assert ran.stderr == ""
    return sorted(filter(None, ran.stdout.split("\n")))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("snapspec exp", ["explain"]),
        ("snapspec check model: --lev", ["--level"]),
        ("snapspec check model: --level co", ["concurrent", "content", "core"]),
        ("snapspec check ref:o", ["overlay"]),
        ("snapspec check refs:m", ["model:"]),
        ("snapspec check ref:overlay --level f", ["faults"]),
        ("snapspec smoke containerd:", ["/run/containerd/containerd.sock?snapshotter="]),
        ("snapspec check mutant:a0", ["a01", "a02", "a04", "a05", "a07"]),
        ("snapspec museum s09", ["s09a", "s09b"]),
        ("snapspec check model: --without dev", ["devices"]),
        ("snapspec check model: --without links,dev", ["links,devices"]),
        ("snapspec explain SNAP-COMMIT-1", ["SNAP-COMMIT-1", "SNAP-COMMIT-10", "SNAP-COMMIT-11"]),
        ("snapspec replay snapspec.b", ["snapspec.bash"]),
        ("snapspec completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_bash_is_offered_what_fits(bash: Path, typed: str, offered: list[str]) -> None:
    assert completed(bash, typed) == offered


def test_bash_is_offered_every_clause(bash: Path) -> None:
    assert set(clauses()) < set(completed(bash, "snapspec explain "))


@contextmanager
def interactive(path: Path) -> Iterator[int]:
    """A bash that somebody types into, with the script."""
    terminal, inner = pty.openpty()
    command = ["bash", "--norc", "--noprofile", "-i"]
    env = {**os.environ, "PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null"}
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env, start_new_session=True) as shell:
        os.close(inner)
        try:
            os.write(terminal, f"source {path}; bind 'set bell-style none'; echo re''ady\n".encode())
            told(terminal, "\nready")
            yield terminal
        finally:
            shell.kill()
            os.close(terminal)


def told(terminal: int, wanted: str) -> str:
    """What the terminal shows, until it shows what is wanted. Fails when that takes too long."""
    shown, until = "", time.monotonic() + 10
    while wanted not in shown.replace("\r", ""):
        ready, _, _ = select.select([terminal], [], [], until - time.monotonic())
        assert ready, f"{wanted!r} does not come: {shown!r}"
        shown += os.read(terminal, 1 << 12).decode(errors="replace")
    return shown


def test_a_subject_is_completed_as_it_is_typed(bash: Path) -> None:
    """Through readline itself, which has its own mind about colons."""
    with interactive(bash) as terminal:
        os.write(terminal, b"snapspec check refs:ov\t--lev\tfau\t")
        told(terminal, "snapspec check refs:overlay --level faults ")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}: apt-get install {shell}")
    path = tmp_path / "script"
    path.write_text(script(shell))
    ran = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_prints_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed == script(shell) + "\n"
    assert "SNAP-COMMIT-4" in printed
    assert "--without" in printed or "-l without" in printed


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "choose from" in capsys.readouterr().err
