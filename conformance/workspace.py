"""The run directory: where a run keeps all that it makes, and how the next run finds what a killed one left.

A run directory lies in one base directory of the user and holds

- `lock`, marked as the kit's and held with flock for the life of the process: however that ends, the lock is free then;
- `run.json`, the notes of what the run made elsewhere, each written before the thing itself is made;
- the scratch directories.

A directory without the mark, and one whose lock is held, is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.machine import outer_uid
from snapspec.impl.mounts import MountError, mountpoints_below, remove_tree

#: What a lock file holds: a directory without it is not the kit's.
MARK = b"snapspec run directory 1\n"

#: One thing that a run made outside its directory, as its subject describes it to the run that has to clean up.
Note = Mapping[str, str]

_LOCK, _NOTES, _PREFIX = "lock", "run.json", "run-"

# The lock of a dead process is free shortly before the kernel has taken its mounts down and detached its loop devices.
_SETTLE_SECONDS = 10.0


def default_base() -> Path:
    """`snapspec-UID` in the temporary directory, UID being the user's outside any user namespace that the kit entered."""
    return Path(tempfile.gettempdir()) / f"snapspec-{outer_uid()}"


def _checked(base: Path) -> Path:
    """`base` with no symlink above it. CannotRun when somebody else could have put it there or could change it."""
    base = base.parent.resolve() / base.name
    found = os.lstat(base)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise CannotRun(f"{base} is not a directory of this user: move it away, or set TMPDIR to another directory")
    if found.st_mode & 0o077:
        raise CannotRun(f"{base} is open to other users: chmod 700 it after a look inside, or set TMPDIR to another directory")
    return base


class Workspace:
    """A run directory that this process holds. A context manager; `close` removes the directory and all in it.

    What was noted and not struck is something made elsewhere that is still there: then the notes stay behind for the next run.
    """

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self._notes: list[dict[str, str]] = []
        self._count = 0

    @classmethod
    def create(cls, base: Path | None = None) -> Self:
        """A new run directory in `base`, `default_base` unless told. CannotRun when the base is not safe or cannot be made."""
        try:
            base = base or default_base()
            with contextlib.suppress(FileExistsError):
                base.mkdir(mode=0o700)
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_checked(base)))
            return cls(directory, _locked(directory))
        except OSError as error:
            where = base or "the temporary directory"
            raise CannotRun(
                f"no run directory can be made in {where}: {error.strerror}; set TMPDIR to another directory"
            ) from error

    def scratch(self, name: str) -> Path:
        """A new empty directory; `name` is a word that tells a reader what it is for."""
        self._count += 1
        directory = self.directory / f"{name}-{self._count}"
        directory.mkdir(mode=0o700)
        return directory

    def note(self, note: Note) -> None:
        """Keep `note` for the run that cleans up after this one. To be called before the thing is made."""
        self._notes.append(dict(note))
        self._write_notes()

    def strike(self, note: Note) -> None:
        """The thing of `note` is gone: forget it."""
        self._notes.remove(dict(note))
        self._write_notes()

    def _write_notes(self) -> None:
        # Renamed into place: a process that is killed here leaves the old notes or the new ones.
        written = self.directory / f"{_NOTES}.new"
        written.write_text(json.dumps(self._notes))
        written.replace(self.directory / _NOTES)

    def close(self) -> None:
        """Remove the directory and let the lock go; a second close does nothing.

        MountError when something is still mounted below it; the directory stays then, and so does the lock.
        """
        if self._lock < 0:
            return
        _remove_scratch(self.directory)
        if not self._notes:
            _remove_rest(self.directory)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _locked(directory: Path) -> int:
    """The lock of a new run directory, held and marked."""
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Waits for a run that looks at this directory just now: it finds no mark yet, and lets go.
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, MARK)
    except BaseException:
        _remove_rest(directory)
        os.close(lock)
        raise
    return lock


def _remove_scratch(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.name in (_LOCK, _NOTES):
            continue
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(str(entry))
        else:
            entry.unlink()


def _remove_rest(directory: Path) -> None:
    # The lock goes last: whoever is stopped on the way leaves a directory that still carries its mark.
    (directory / _NOTES).unlink(missing_ok=True)
    (directory / _LOCK).unlink()
    directory.rmdir()


@dataclass(frozen=True, slots=True)
class Leftover:
    """The run directory of a process that is gone. Its lock is held here until `discard` or `keep`, one of which must follow."""

    directory: Path
    notes: tuple[Note, ...]
    lock: int

    def discard(self) -> str:
        """Remove the directory, once the things of its notes are gone. Gives why it stays, or an empty string."""
        try:
            in_use = _wait_until_unused(self.directory)
            if not in_use:
                _remove_scratch(self.directory)
                _remove_rest(self.directory)
        except (OSError, MountError) as error:
            in_use = f"{self.directory} cannot be removed: {error}"
        finally:
            os.close(self.lock)
        return in_use

    def keep(self) -> None:
        """Leave the directory as it is to a later run: what it notes cannot be cleaned now."""
        os.close(self.lock)


def _wait_until_unused(directory: Path) -> str:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while in_use := _in_use(directory):
        if time.monotonic() > deadline:
            return in_use
        time.sleep(0.05)
    return ""


def _in_use(directory: Path) -> str:
    for point in mountpoints_below(str(directory)):
        return f"{directory} is kept: {point} is mounted; unmount it first (umount {point})"
    for device, image in _attached():
        if image.startswith(f"{directory}/"):
            return f"{directory} is kept: {device} is attached to {image}; detach it first (losetup -d {device})"
    return ""


def _attached() -> Iterator[tuple[str, str]]:
    """The loop devices of this machine and the paths of their backing files."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached since it was listed
            yield f"/dev/{entry.parent.parent.name}", entry.read_text().rstrip("\n")


def reclaim(base: Path | None = None) -> list[Leftover]:
    """The run directories in `base` whose processes are gone, each locked for the caller.

    A run that lives, a directory without the mark and anything else in `base` is left alone. CannotRun when the base is not safe.
    """
    try:
        base = _checked(base or default_base())
    except FileNotFoundError:
        return []
    return [left for entry in sorted(base.glob(f"{_PREFIX}*")) if (left := _take(entry)) is not None]


def _take(directory: Path) -> Leftover | None:
    try:
        if not stat.S_ISDIR(os.lstat(directory).st_mode):
            return None
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have taken and removed the directory since its lock was opened.
        if os.path.samestat(os.fstat(lock), os.lstat(directory / _LOCK)) and os.pread(lock, len(MARK) + 1, 0) == MARK:
            return Leftover(directory, _read_notes(directory), lock)
    except (OSError, ValueError):
        pass  # it lives, or it is not as a run leaves it
    os.close(lock)
    return None


def _read_notes(directory: Path) -> tuple[Note, ...]:
    try:
        notes = json.loads((directory / _NOTES).read_text())
    except FileNotFoundError:  # nothing was made elsewhere
        return ()
    if not isinstance(notes, list) or not all(_is_note(note) for note in notes):
        raise ValueError(f"{directory / _NOTES} holds no notes")
    return tuple(notes)


def _is_note(note: object) -> bool:
    return isinstance(note, dict) and all(isinstance(text, str) for pair in note.items() for text in pair)
