"""What every test run stands on: a mount namespace of its own, drawing that repeats, directories that must be left clean."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

ROOT = Path(__file__).resolve().parent.parent

# The folders model/ and impl/ are imported as snapspec.model and snapspec.impl alone: with the root of the repository on the
# path (`python -m pytest` puts it there) `import model` would work too and give every class twice.
sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]

# What Hypothesis reads out of the sources once takes half a second in each process that does not find it there.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".hypothesis"))

settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile(
    "nightly",
    max_examples=1000,
    database=DirectoryBasedExampleDatabase(ROOT / ".hypothesis" / "examples"),
    deadline=None,
    print_blob=True,
)
settings.load_profile(os.environ.get("SNAPSPEC_PROFILE", "ci"))


def _enter_namespace() -> str:
    """Put this thread, and with it every thread and process that it starts, into a private mount namespace.

    Gives the reason when it is refused. It runs when this file is imported: in the main thread, before a test or a fixture has
    started a thread. The workers of pytest-xdist are started by a process that has done it already, so that even the thread
    that execnet starts before this file is read is not in the machine's own namespace.
    """
    if os.geteuid() != 0:
        return "needs root: run the tests as root"
    from snapspec.impl.syscalls import enter_private_namespace

    try:
        enter_private_namespace()
    except OSError as error:
        return f"needs a private mount namespace, which this machine refuses: {error}"
    return ""


def _loop_refused() -> str:
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"needs loop devices: {error}; load the loop module (modprobe loop)"
    return ""


NO_NAMESPACE = _enter_namespace()
NO_ROOT = NO_NAMESPACE or _loop_refused()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `root` where it cannot run, and say why."""
    if NO_ROOT and item.get_closest_marker("root") is not None:
        pytest.skip(NO_ROOT)


def mount_points() -> list[str]:
    """The mount points that this process sees, as mountinfo spells them."""
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def attached_below(directories: tuple[Path, ...]) -> list[str]:
    """The loop devices whose backing file lies below one of `directories`, deleted or not."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().rstrip("\n")
        except OSError:  # detached since it was listed
            continue
        if any(backing.startswith(f"{directory}/") for directory in directories):
            found.append(f"/dev/{entry.parent.parent.name} on {backing}")
    return found


@pytest.fixture(scope="session", autouse=True)
def clean_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The temporary directory of the session, which the kit and its children use too; a mount or loop device left is an error."""
    from snapspec.impl.mounts import remove_tree

    kept = tmp_path_factory.getbasetemp()  # before the change below: pytest keeps its own directories for a look afterwards
    before = mount_points()
    scratch = Path(tempfile.mkdtemp(prefix="ss-"))
    patch = pytest.MonkeyPatch()
    patch.setenv("TMPDIR", str(scratch))
    patch.setattr(tempfile, "tempdir", str(scratch))
    try:
        yield scratch
    finally:
        patch.undo()
    mounted = [point for point in mount_points() if point not in before] if not NO_NAMESPACE else []
    attached = attached_below((kept, scratch))
    for _ in range(50):  # the kernel detaches after the last close, in its own time
        if not attached:
            break
        time.sleep(0.1)
        attached = attached_below((kept, scratch))
    assert not mounted, f"mounts are left: {mounted}"
    assert not attached, f"loop devices are left: {attached}"
    remove_tree(str(scratch))


@pytest.fixture
def workdir(clean_session: Path) -> Iterator[Path]:
    """A new directory with a short path. It is removed afterwards; the test fails when something is still mounted below it."""
    from snapspec.impl.mounts import mountpoints_below, remove_tree

    directory = Path(tempfile.mkdtemp(dir=clean_session))
    yield directory
    left = mountpoints_below(str(directory))
    assert not left, f"still mounted after the test: {left}"
    remove_tree(str(directory))
