"""`refs:` before a driver's address: the reference manager over it, from the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import containerd as daemons
import pytest
from test_cli import refused, snapspec
from verdicts import nothing_wrong, saved

from snapspec.conformance.history import Finding, Step, save
from snapspec.conformance.owed import owed
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.subjects.address import parse
from snapspec.model import ops, ref_ops
from snapspec.model.replies import Mismatch, Returned

pytestmark = pytest.mark.root

containerd = daemons.containerd

#: What comes up by chance only, and may be missed in a run as short as these.
RARE = {"REF-MOUNT-2", "REF-FINAL-3", "REF-FINAL-4", "REF-COMMIT-4", "REF-PRUNE-2", "REF-SIZE-5"}


def broken(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, where it finds the broken drivers of these tests."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("subject", ["refs:overlay", "refs:copy", "refs:model:"])
def test_a_first_build(subject: str) -> None:
    run = snapspec("smoke", subject)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0].startswith("  on the reference manager over ")
    assert any(line.startswith("    4  size('he') -> ") for line in lines)
    assert lines[-1].startswith(f"CONFORMS: {subject}: 1 histories, ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "refs:"), "refs: before one of these"),
        (("check", "refs:nothing"), "refs: before one of these"),
        (("check", "refs:refs:overlay"), "refs: before one of these"),
        (("check", "refs:overlay?lists=maybe"), "write lists= with one of kept, lost"),
        (("check", "ref:overlay?lists=kept"), "has no option 'lists'"),
        (("check", "refs:overlay?fs=zfs"), "one of ext4, xfs, btrfs"),
        (("check", "refs:model:", "--without", "new"), "what can is get, "),
        (("check", "containerd:/absent/c.sock?snapshotter=native", "--level", "faults"), "level faults is for "),
        (("check", "refs:model:", "--without", "walk"), "cannot be left out"),
        (("check", "refs:containerd:/absent/c.sock?snapshotter=native"), "no socket"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(*arguments)


def test_an_address_is_of_the_manager_or_of_the_driver() -> None:
    assert [parse(text).refs for text in ("ref:overlay", "refs:overlay", "refs:model:", "model:")] == [False, True, True, False]
    assert parse("refs:copy?size=1g").kind == "ref"
    assert parse("refs:copy?size=1g").text == "refs:copy?size=1g"


def test_a_history_is_replayed_on_its_own_kind_only(tmp_path: Path) -> None:
    mismatch = (Mismatch("REF-NEW-1", "", ""),)
    save(tmp_path / "refs.json", RefFinding((Burst((ref_ops.New("m", "h"),)),), (), mismatch), "refs:model:")
    save(tmp_path / "driver.json", Finding((Step(ops.Prepare("a"), Returned()),), mismatch), "model:")
    assert "replay it on refs:" in refused("replay", str(tmp_path / "refs.json"), "model:")
    assert "replay it on the driver's address alone" in refused("replay", str(tmp_path / "driver.json"), "refs:model:")
    run = snapspec("replay", str(tmp_path / "refs.json"), "refs:model:")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[1] == "    1  new('m', 'h') -> a handle on 'm'"
    assert run.stdout.splitlines()[-1].endswith("is allowed now.")


def test_a_driver_that_hangs_is_found_under_the_manager(tmp_path: Path) -> None:
    run = broken("check", "refs:py:unruly:never_measuring", "--seed", "1", "--deadline", "2s", "--out", str(tmp_path))
    assert (run.returncode, run.stderr) == (1, "")
    assert "DIVERGES from SNAP-LIVE-1" in run.stdout
    assert json.loads(saved(tmp_path).read_text())["bursts"]


def missed(run: subprocess.CompletedProcess[str]) -> set[str]:
    nothing_wrong(run)
    return {clause for found in re.findall(r"not put to the test at level \w+: (.*)", run.stdout) for clause in found.split(", ")}


@pytest.mark.parametrize(
    "subject", ["refs:overlay", *(pytest.param(s, marks=pytest.mark.deep) for s in ("refs:model:", "refs:copy"))]
)
def test_the_reference_conforms_and_is_held_to_all(subject: str) -> None:
    assert missed(snapspec("check", subject, "--examples", "20", "--seed", "2")) <= RARE


def told(run: subprocess.CompletedProcess[str]) -> Counter[str]:
    """How often calls were disturbed, by the line that says so."""
    nothing_wrong(run)
    found = re.search(r"disturbed: (.*)", run.stdout)
    assert found is not None
    counts: Counter[str] = Counter()
    for count, _, kind in (part.partition(" ") for part in found[1].split(", ")):
        counts[kind.partition(" before ")[0].partition(" after ")[0]] += int(count)
    return counts


def test_level_faults_says_what_it_has_done() -> None:
    run = snapspec("check", "refs:model:", "--level", "faults", "--budget", "3s", "--examples", "1", "--seed", "1")
    assert min(told(run)[kind] for kind in ("faults", "cancellations")) > 100


@pytest.mark.deep
def test_level_faults_disturbs_every_scenario_at_every_point_over_real_drivers_too() -> None:
    run = snapspec("check", "refs:overlay", "--level", "faults", "--examples", "1", "--seed", "1")
    assert min(told(run)[kind] for kind in ("faults", "cancellations", "held answers", "crashes")) > 100
    points = re.search(r"fault points: (.*)", run.stdout)
    assert points is not None
    assert {"new 3", "finalize 2", "prune 2"} <= set(points[1].split(", "))


@pytest.mark.deep
def test_no_single_fault_and_no_crash_loses_anything(capsys: pytest.CaptureFixture[str]) -> None:
    """In every schedule of the written scenarios at once; the figures are those that the project gives."""
    run = snapspec("check", "refs:model:", "--level", "faults", "--seed", "1", timeout=900)
    with capsys.disabled():
        print("\n".join(["", *run.stdout.splitlines()[-3:]]))
    assert told(run)["faults"] > 20_000
    assert told(run)["crashes"] > 5_000


def test_all_that_is_owed_is_said() -> None:
    assert all(clause.startswith("REF-") for clause in owed(None, refs=True))
    assert not any(clause.startswith("REF-") for clause in owed(None))


@pytest.mark.parametrize("snapshotter", ["overlayfs", *(pytest.param(s, marks=pytest.mark.deep) for s in ("native", "btrfs"))])
def test_the_drivers_of_containerd_under_the_load_of_a_builder(containerd: daemons.Daemon, snapshotter: str) -> None:
    if snapshotter not in containerd.snapshotters:
        pytest.skip(f"this containerd has no {snapshotter}: {daemons.btrfs_refused()}")
    subject = f"refs:containerd:{containerd.socket}?snapshotter={snapshotter}"
    run = snapspec("check", subject, "--examples", "12", "--budget", "4s", "--seed", "1", "--without", "links")
    nothing_wrong(run)
