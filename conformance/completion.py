"""The scripts by which a shell completes the words of `snapspec`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import shtab

from snapspec.conformance import machine, ref_draw
from snapspec.conformance.clauses import clauses, families
from snapspec.conformance.draw import CONTENT
from snapspec.conformance.machines import OPTIONAL
from snapspec.conformance.mutants.hall import EXHIBITS
from snapspec.conformance.options import ALL, LEVELS
from snapspec.conformance.options import SHELLS as SHELLS
from snapspec.conformance.subjects.address import MUTANT

#: How subjects begin; what follows the colon of some is the user's own.
SUBJECTS = (
    *("ref:overlay", "ref:copy", "model:", "refs:overlay", "refs:copy", "refs:model:"),
    *(f"{kind}:{machine.CONTAINERD_SOCKET}?snapshotter=" for kind in ("containerd", "refs:containerd")),
    *("plugin:", "py:", "exec:./"),
    *(f"{MUTANT}{exhibit.name}" for exhibit in EXHIBITS),
)

#: bash takes a word apart at colons and equals signs: here it is put together, completed, and told without what stands already.
_BASH = r"""
_snapspec_whole_words() {
  local word rest=$COMP_LINE number=0 at=0
  local -a joined=()
  for word in "${COMP_WORDS[@]}"; do
    if [[ $number != 0 && $rest != [[:space:]]* && $rest == "$word"* ]]; then
      joined[${#joined[@]}-1]+=$word
    else
      joined+=("$word")
    fi
    [[ $number == "$COMP_CWORD" ]] && at=$(( ${#joined[@]} - 1 ))
    rest=${rest#*"$word"} number=$(( number + 1 ))
  done
  local typed=${joined[at]}
  local -a COMP_WORDS=("${joined[@]}")
  local COMP_CWORD=$at
  _shtab_snapspec
  COMPREPLY=("${COMPREPLY[@]#"${typed%"${typed##*[:=]}"}"}")
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:=/] ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -o bashdefault -F _snapspec_whole_words snapspec
"""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for `shell`, one of SHELLS, of a parser as `words.parser` gives it, which it changes."""
    for action in _actions(parser):
        complete = _complete(action)
        if complete:
            setattr(action, "complete", complete)  # noqa: B010  # shtab reads it there, and argparse has no such attribute
    made = str(shtab.complete(parser, shell))
    return made + _BASH if shell == "bash" else made


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action


def _complete(action: argparse.Action) -> dict[str, Any]:
    """What shtab is to offer for the argument; nothing where its own words suffice."""
    match action.dest:
        case "subject":
            return _one_of(SUBJECTS)
        case "clause":
            return _one_of((*families(), *clauses()))
        case "names":
            return _one_of(exhibit.name for exhibit in EXHIBITS)
        case "level" if action.choices is None:
            return _some_of("level", [*LEVELS, ALL])
        case "without":
            return _some_of("part", sorted({*OPTIONAL, *ref_draw.OPTIONAL, *CONTENT}))
    if action.type is Path:
        found: dict[str, Any] = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
        return found
    return {}


def _one_of(words: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = shtab.cmd(f"echo {shlex.join(words)}")
    return found


def _some_of(name: str, words: list[str]) -> dict[str, Any]:
    """Names with commas between; `name` is what one is called, and no other list's."""
    bash = f"""
_snapspec_{name}s() {{
  local before=${{1%"${{1##*,}}"}}
  compgen -P "$before" -W "{" ".join(words)}" -- "${{1##*,}}"
}}"""
    return {
        "bash": f"_snapspec_{name}s",
        "zsh": f"_values -s , {name} {' '.join(words)}",
        "fish": f"(__fish_complete_list , 'printf \"%s\\\\n\" {' '.join(words)}')",
        "preamble": {"bash": bash},
    }
