"""Mutation: each mutant of the files below is run through the kit, and what nobody notices is told.

    python run.py ROOM [--sample N] [--only PATH] [--jobs N] [--again]

ROOM is `impl` or `model`. Every mutant stands in a copy of the checkout, is run in mount and process namespaces of its own, in
which only that copy can be written, and has a deadline. What survives the kit in the room `model` is tried on `tests/model` too.
All that came is kept in `build/mutation/ROOM.json`. The exit status is 1 when a survivor is not judged in `judged.toml`.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from governed import GOVERNED, NOT_COUNTED, WITHIN, judged
from mutants import Mutant, mutant_at, places_of

ROOT = Path(__file__).resolve().parents[2]

#: What a copy holds: all that the kit and the tests of the model need.
COPIED = ("model", "impl", "conformance", "tests", "spec.md", "pyproject.toml")

#: Seconds that all checks of one mutant may take together, and those that the tests of the model may.
DEADLINE, TESTS_DEADLINE = 300.0, 300.0

#: How much longer each check may search for what has survived once, with `--again`.
LONGER = 4

#: Mount namespace, process namespace: whatever a mutant does, it ends with them and writes to nothing but its copy.
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && cd "$1" && shift && exec "$@"'


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a mutant. `how` is `finding`, `error`, `hang`, `tests` or `none`."""

    path: str
    line: int
    before: str
    after: str
    operator: str
    how: str
    check: str = ""
    why: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> tuple[str, str, str]:
        """See `Mutant.name`."""
        return self.path, self.before, self.after


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants of a room and print the score."""
    options = _options(arguments)
    if os.geteuid() != 0:
        print("mutation: needs root for mounts and namespaces: run it as root", file=sys.stderr)
        return 2
    kept = ROOT / "build" / "mutation" / f"{options.room}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    before = [Result(**each) for each in json.loads(kept.read_text())] if options.again else []
    mutants = _chosen(options.room, options.sample, options.only)
    if options.again:
        known = {name for name, each in judged().items() if each["verdict"] in NOT_COUNTED}
        survived = {each.name for each in before if each.how in ("none", "tests")} - known
        mutants = [mutant for mutant in mutants if mutant.name in survived]
    print(f"mutation: {len(mutants)} mutants of {options.room}", flush=True)
    fresh = []
    for result in _run(mutants, options.room, options.jobs, LONGER if options.again else 1):
        fresh.append(result)
        print(_line(len(fresh), result), flush=True)
        again = {each.name for each in fresh}
        kept.write_text(json.dumps([asdict(r) for r in (*(r for r in before if r.name not in again), *fresh)], indent=1))
    return _report([Result(**each) for each in json.loads(kept.read_text())], options.room)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=GOVERNED)
    parser.add_argument("--sample", type=int, default=1, help="run each N-th place only (default: all)")
    parser.add_argument("--only", default="", help="run the mutants of this file only")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    parser.add_argument(
        "--again", action="store_true", help="run those that survived the kit the last time once more, for longer"
    )
    return parser.parse_args(arguments)


def _chosen(room: str, sample: int, only: str) -> list[Mutant]:
    """Each `sample`-th place of the room, by files and lines: the same ones each time."""
    places = [place for path in GOVERNED[room] for place in places_of(ROOT, path, WITHIN.get(path, ()))][::sample]
    made = (mutant_at(ROOT, place) for place in places if only in ("", place.path))
    return [mutant for mutant in made if mutant is not None]


def _run(mutants: list[Mutant], room: str, jobs: int, times: int) -> Iterator[Result]:
    """The results, in the order of the mutants. Raises SystemExit when the unchanged tree is found wrong."""
    with tempfile.TemporaryDirectory(prefix="snapspec-mutation-") as top:
        copies: queue.Queue[Path] = queue.Queue()
        first = _copy(Path(top) / "unchanged")
        for checks in sorted({GOVERNED[room][mutant.path] for mutant in mutants}):
            found = _kit(first, checks)
            if found["how"] != "none":
                raise SystemExit(f"mutation: the unchanged tree is found wrong, mend that first: {found}")
        for number in range(jobs):
            copies.put(_copy(Path(top) / str(number)))

        def one(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                return _judge(mutant, copy, room, times)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as threads:
            yield from threads.map(one, mutants)


def _copy(place: Path) -> Path:
    """The checkout, with its link farm and room for what runs make; compiled so that no mutant is taken for its origin."""
    place.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place / name)
    farm = place / "build" / "farm" / "snapspec"
    farm.mkdir(parents=True)
    for room in ("model", "impl", "conformance"):
        (farm / room).symlink_to(f"../../../{room}")
        compileall.compile_dir(place / room, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    (place / "tmp").mkdir()
    return place


def _judge(mutant: Mutant, copy: Path, room: str, times: int) -> Result:
    found = {"how": "none"}
    with _in_place(mutant, copy):
        found = _kit(copy, GOVERNED[room][mutant.path], times)
        if found["how"] == "none" and room == "model":
            found = _tests(copy)
    of = {"path": mutant.path, "line": mutant.line, "before": mutant.before, "after": mutant.after, "operator": mutant.operator}
    return Result(**of, **found)  # type: ignore[arg-type]


@contextmanager
def _in_place(mutant: Mutant, copy: Path) -> Iterator[None]:
    file = copy / mutant.path
    before = file.read_text()
    file.write_text(mutant.text)
    try:
        yield
    finally:
        file.write_text(before)


def _kit(copy: Path, checks: str, times: int = 1) -> dict[str, str]:
    command = [sys.executable, "tests/mutation/kit_run.py", checks, str(times)]
    status, output = _alone(copy, command, DEADLINE * times)
    if status is None:
        return {"how": "hang", "why": "the run does not end"}
    try:
        found: dict[str, str] = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        return {"how": "error", "why": (output.strip().splitlines() or [f"status {status}"])[-1], "check": "start"}
    return found


def _tests(copy: Path) -> dict[str, str]:
    """Whether the tests of the model notice it, all but those of CrossHair, which take longer than all the others."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not deep", "-p", "no:cacheprovider", "tests/model"]
    status, output = _alone(copy, [*command, "--ignore", "tests/model/test_crosshair.py"], TESTS_DEADLINE)
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if status == 0:
        return {"how": "none"}
    return {"how": "tests", "check": "tests/model", "why": (failed or ["it does not end"])[0]}


def _alone(copy: Path, command: list[str], deadline: float) -> tuple[int | None, str]:
    """The exit status, None when it took too long, and what was printed. Nothing of it is left afterwards."""
    environment = {**os.environ, "PYTHONPATH": "build/farm", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(copy / "tmp")}
    try:
        done = subprocess.run(
            [*ALONE, "sh", "-c", READ_ONLY, "sh", str(copy), *command],
            env=environment,
            timeout=deadline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        _clear(copy / "tmp")


def _clear(directory: Path) -> None:
    """Detach the loop devices of images in it and empty it: what was mounted there went with its namespace."""
    listed = subprocess.run(["losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"], stdout=subprocess.PIPE)
    for line in listed.stdout.decode(errors="replace").splitlines():
        device, _, image = line.partition(" ")
        if image.startswith(f"{directory}/"):
            subprocess.run(["losetup", "--detach", device], check=False)
    shutil.rmtree(directory)
    directory.mkdir()


# --- the score


def _line(number: int, result: Result) -> str:
    what = f"{result.how} by {result.check}: {result.why}" if result.how != "none" else "SURVIVED"
    text = f"{number:4} {result.path}:{result.line} {result.operator}: {what} ({result.seconds:g} s)"
    return text[:200] + (f"\n       - {result.before}\n       + {result.after}" if result.how == "none" else "")


def _report(results: list[Result], room: str) -> int:
    verdicts = {name: each["verdict"] for name, each in judged().items()}
    print(f"\n{'file':26}{'mutants':>9}{'finding':>9}{'error':>7}{'hang':>6}{'tests':>7}{'survived':>10}")
    for path in [*GOVERNED[room], "all"]:
        how = Counter(result.how for result in results if path in ("all", result.path))
        numbers = (how.total(), how["finding"], how["error"], how["hang"], how["tests"], how["none"])
        if how:
            print(f"{path:26}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, (9, 9, 7, 6, 7, 10), strict=True)))
    by = Counter(result.check for result in results if result.how not in ("none", "tests"))
    print("\nnoticed first by: " + ", ".join(f"{check} {count}" for check, count in by.most_common()))
    survivors = [result for result in results if result.how in ("none", "tests")]
    kinds = Counter(verdicts.get(r.name, "by tests only" if r.how == "tests" else "not judged") for r in survivors)
    counted = len(results) - sum(verdicts.get(result.name) in NOT_COUNTED for result in results)
    killed = sum(result.how in ("finding", "error", "hang") for result in results)
    print(f"survivors: {', '.join(f'{kind} {count}' for kind, count in kinds.most_common()) or 'none'}")
    print(f"killed by the kit: {killed} of {counted} that are not equivalent or free: {100 * killed / max(counted, 1):.1f} %")
    for result in survivors:
        if result.how == "none" and result.name not in verdicts:
            print(f"  not judged: {result.path}:{result.line}\n       - {result.before}\n       + {result.after}")
    return 1 if kinds["not judged"] else 0


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"{time.monotonic() - began:.0f} s")
    raise SystemExit(status)
