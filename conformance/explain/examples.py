"""The examples of all clauses: made by `make examples`, kept in examples.json, read from there.

Written ones come first, then those that chance finds (`drawn`), then exhibits of the museum for what shows inside a manager only.
The same sources give the same file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from snapspec.conformance.clauses import clauses
from snapspec.conformance.codec import decode, encode
from snapspec.conformance.explain import written, written_refs
from snapspec.conformance.explain.drawn import PROFILES, Kind, Pair, drivers, managers, pairs
from snapspec.conformance.explain.events import Answers, Example, decode_example, encode_example, judge
from snapspec.conformance.explain.script import Script
from snapspec.conformance.history import decode_finding, encode_finding, load
from snapspec.conformance.ref_history import RefFinding

FORMAT = "snapspec examples 1"

#: Exhibits of the museum that show what no answer of the model can: by clause.
EXHIBITS = {"REF-NOTE-1": "i01", "REF-ERROR-5": "d02"}

#: Why a clause has no illegal example, or none at all.
LACKING = {
    "SNAP-LIVE-1": "a call that does not answer leaves nothing to judge: the kit waits for its deadline, and names this clause",
    "SNAP-HOLD-1": "what a call returned changes in memory, without any call: the kit compares it afterwards",
    "SNAP-FAULT-5": "open files, mounts and devices stand in no history: the kit looks for them after each failure",
    "REF-HANDLE-5": "to read the id of a handle is no call: the kit reads all of them at the end",
    "REF-MOUNT-7": "it leaves something undefined: no answer breaks it",
    "REF-SIZE-3": "how often the driver is asked shows in no answer: the kit counts at the gates",
    "REF-OPEN-3": "a snapshot that somebody takes away from under its record is outside the model's histories",
    "REF-CLOSE-2": "a history has one manager: the kit opens a second one at its end",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """The examples of a clause. The illegal one is the legal one with a wrong last answer, or a history of the mutant `exhibit`.

    `why` says why one or both are not there.
    """

    legal: Example | None = None
    illegal: Example | RefFinding | None = None
    exhibit: str = ""
    why: str = ""


@cache
def examples() -> dict[str, Entry]:
    """By clause, what examples.json holds."""
    text = files("snapspec.conformance.explain").joinpath("examples.json").read_text("ascii")
    return {clause: _decoded(entry) for clause, entry in json.loads(text)["clauses"].items()}


# --- made


def made(seed: int = 1) -> dict[str, Entry]:
    """By clause, in the order of the spec, what can be shown of it. Raises ValueError when a written example is wrong."""
    found = {clause: entry for kind, scripts in _written() for clause, entry in _entries(kind, scripts)}
    drawn = _drawn(seed, [clause for clause in clauses() if clause not in found])
    found |= {clause: Entry(pair.legal, pair.illegal) for clause, pair in drawn.items()}
    for clause, name in EXHIBITS.items():
        found[clause] = Entry(found[clause].legal, _visited(name, clause), name)
    for clause, why in LACKING.items():
        found[clause] = Entry(found[clause].legal if clause in found else None, None, "", why)
    return {clause: found[clause] for clause in clauses() if clause in found}


def _written() -> Iterator[tuple[Kind, tuple[Script, ...]]]:
    yield from ((drivers(profile), scripts) for profile, scripts in written.SCRIPTS)
    yield managers(), written_refs.SCRIPTS


def _entries(kind: Kind, scripts: tuple[Script, ...]) -> Iterator[tuple[str, Entry]]:
    for script in scripts:
        legal, illegal = script.legal(kind), script.illegal(kind)
        if judge(legal).mismatches:
            raise ValueError(f"{script.clause}: the legal example is not: {judge(legal).mismatches}")
        if illegal is not None and judge(illegal).answers != judge(legal).answers - 1:
            raise ValueError(f"{script.clause}: the illegal example is legal, or wrong too soon")
        yield script.clause, Entry(legal, illegal)


def _drawn(seed: int, wanted: list[str]) -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for kind in (*map(drivers, PROFILES), managers()):
        found |= {clause: pair for clause, pair in pairs(kind, seed, wanted).items() if clause not in found}
        wanted = [clause for clause in wanted if clause not in found or found[clause].illegal is None]
        found = {clause: pair for clause, pair in found.items() if clause not in wanted}
    return found


def _visited(name: str, clause: str) -> RefFinding:
    """The shortest history that the checker finds of an exhibit. Raises ValueError when it breaks another clause."""
    with tempfile.TemporaryDirectory(prefix="snapspec-") as directory:
        out = Path(directory, "report")
        command = [sys.executable, "-m", "snapspec.conformance", "check", f"mutant:{name}", "--seed", "1", "--jobs", "1"]
        subprocess.run([*command, "--deadline", "5s", "--first", "--out", str(out)], stdout=subprocess.DEVNULL, check=False)
        (file,) = out.glob("findings/*.json")
        found = load(file)
    if not isinstance(found, RefFinding) or found.clause != clause:
        raise ValueError(f"mutant:{name} breaks {found.clause}, not {clause}: name another exhibit in EXHIBITS")
    return found


# --- as JSON


def spelled(entries: dict[str, Entry]) -> str:
    """The file's text: a line for each clause, members sorted, ASCII."""
    lines = (
        f"{json.dumps(clause)}: {json.dumps(_encoded(entry), sort_keys=True, separators=(',', ':'))}"
        for clause, entry in entries.items()
    )
    return f'{{"format": {json.dumps(FORMAT)}, "clauses": {{\n' + ",\n".join(lines) + "\n}}\n"


def _encoded(entry: Entry) -> dict[str, Any]:
    form: dict[str, Any] = {} if entry.legal is None else {"legal": encode_example(entry.legal)}
    if isinstance(entry.illegal, Example):
        last = entry.illegal.events[-1]
        assert isinstance(last, Answers), "an illegal example is the legal one with another last answer"
        form |= {"wrong": encode(last.response), "shows": judge(entry.illegal).mismatches[0].clause}
    elif entry.illegal is not None:
        form |= {"finding": encode_finding(entry.illegal), "exhibit": entry.exhibit}
    return form | ({"why": entry.why} if entry.why else {})


def _decoded(form: dict[str, Any]) -> Entry:
    legal = decode_example(form["legal"]) if "legal" in form else None
    illegal: Any = decode_finding(form["finding"]) if "finding" in form else None
    if legal is not None and "wrong" in form:
        illegal = legal.with_last(decode(form["wrong"]))
    return Entry(legal, illegal, form.get("exhibit", ""), form.get("why", ""))


def main() -> None:
    """Write examples.json anew, beside this file."""
    entries = made()
    Path(__file__).with_name("examples.json").write_text(spelled(entries), encoding="ascii")
    lacking = [clause for clause in clauses() if clause not in entries or entries[clause].illegal is None]
    print(f"examples: {len(entries)} of {len(clauses())} clauses, without an illegal one: {', '.join(lacking)}")


if __name__ == "__main__":
    main()
