"""What is under test, named by a string: `KIND:PLACE?OPTION=VALUE&...`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from snapspec.conformance.adapter.client import words_of
from snapspec.conformance.adapter.refs import ExecRefs
from snapspec.conformance.adapter.subject import ExecSubject
from snapspec.conformance.contents import Contents
from snapspec.conformance.durable.process import command
from snapspec.conformance.durable.ref_world import KilledRefs
from snapspec.conformance.durable.reference import KilledReference
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults.subject import FaultedReference, InProcess, into_memory
from snapspec.conformance.machine import Answer, Surroundings
from snapspec.conformance.mutants.hall import find
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.conformance.subjects.base import Subject
from snapspec.conformance.subjects.grpc import DIRECTORY, ContainerdSubject, PluginSubject
from snapspec.conformance.subjects.python import PythonSubject, find_factory
from snapspec.conformance.subjects.reference import KINDS, ReferenceSubject, choose_ground
from snapspec.conformance.subjects.refs import RefsSubject
from snapspec.conformance.workspace import Workspace
from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.model.guards import Door, Rebase
from snapspec.model.refs import Declared
from snapspec.model.state import Measure, Profile, RootMetadata

#: What containerd's own drivers declare; options on the address say otherwise.
KNOWN: dict[str, Profile] = {
    "overlayfs": Profile(usage=Measure.LAYER, root=RootMetadata.OWNER),
    "native": Profile(usage=Measure.COPY, cleanup=False),
    "btrfs": Profile(usage=Measure.DELTA, cleanup=False),
}

#: The snapshotter that a socket is taken for when its address names none: the reference, as `snapspec serve` serves it. It looks
#: at the parent given at commit, which services that are older than that field ignore.
SERVED = "snapspec"

#: Drivers of containerd whose commit takes the lists away that were given before (REF-MOUNT-4).
LOSE_LISTS = ("btrfs",)

#: The options that declare an alternative of the profile.
DECLARED = ("cleanup", "rebase", "usage", "root")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address."""

    text: str
    kind: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict)
    refs: bool = False
    """Whether it is the reference manager over that driver."""

    @property
    def own_refs(self) -> bool:
        """Whether it is a manager of another make."""
        return self.kind == "exec" and self.options.get("level") == "refs"


OPTIONS: dict[str, tuple[str, ...]] = {
    "ref": ("size", "fs", "plain"),
    "mutant": (),
    "model": ("door", *DECLARED),
    "py": DECLARED,
    "containerd": ("snapshotter", "namespace", *DECLARED),
    "plugin": ("snapshotter", *DECLARED),
    "exec": ("level",),
}

FORMS = (
    "ref:overlay, ref:copy, model:, py:package.module:factory, containerd:SOCKET?snapshotter=NAME, "
    "plugin:SOCKET?snapshotter=NAME, exec:./adapter, exec:./adapter?level=refs"
    "; refs: before one of these, or refs:overlay, for a manager of refs over it; mutant:NAME for a bug of the museum"
)

#: Kinds of drivers of this package: they run in the kit, or in a process that it makes.
OURS = ("ref", "mutant")

#: Before another address: the manager over that driver.
REFS = "refs:"

#: Before the name of an exhibit.
MUTANT = "mutant:"


def parse(text: str) -> Address:
    """Take an address apart. CannotRun, naming what would be right, for an unknown kind or option."""
    if text.startswith(MUTANT):
        return _parse(text, text, refs=bool(find(text.removeprefix(MUTANT).partition("?")[0]).over))
    if not text.startswith(REFS):
        return _parse(text, text, refs=False)
    driver = text.removeprefix(REFS)
    short = driver.partition("?")[0] in KINDS
    return _parse(text, f"ref:{driver}" if short else driver, refs=True)


def _parse(whole: str, text: str, *, refs: bool) -> Address:
    head, _, tail = text.partition("?")
    kind, colon, place = head.partition(":")
    if not colon or kind not in OPTIONS:
        raise CannotRun(f"{whole!r} names no subject: write one of {FORMS}")
    try:
        pairs = parse_qsl(tail, keep_blank_values=True, strict_parsing=bool(tail))
    except ValueError:
        raise CannotRun(f"the options {tail!r} are not of the form OPTION=VALUE&OPTION=VALUE: correct them") from None
    for name, _ in pairs:
        possible = (*OPTIONS[kind], *(("lists",) if refs else ()))
        if name not in possible:
            raise CannotRun(f"{kind}: has no option {name!r}: it takes {', '.join(possible)}")
    address = Address(whole, kind, place, dict(pairs), refs)
    _choice(address, "level", {"snapshots": None, "refs": None}, None)
    if address.own_refs and refs:
        raise CannotRun(f"{whole!r} puts a manager over a manager: leave refs: out, or level=refs")
    return address


def make(
    address: Address, surroundings: Surroundings, workspace: Workspace, deadline: float = DEADLINE
) -> Subject | RefsSubject | ExecRefs:
    """The subject, not yet started; its calls have `deadline` seconds. CannotRun for a place or a value that cannot be."""
    if address.kind == "mutant" and address.refs:
        shown = find(address.place)
        under = _driver(_parse(shown.over, shown.over, refs=False), surroundings, workspace, deadline)
        return RefsSubject(address.text, under, workspace.scratch("refs"), Declared(), shown.manager)
    if address.own_refs:
        return ExecRefs(address.text, _contents(surroundings, workspace), workspace, words_of(address.place))
    driver = _driver(address, surroundings, workspace, deadline)
    if not address.refs:
        return driver
    return RefsSubject(address.text, driver, workspace.scratch("refs"), _declared_refs(address))


def _declared_refs(address: Address) -> Declared:
    """What the manager declares over the driver of the address."""
    # An adapter's lists may stand for calls, which name a snapshot by the key that a commit takes away.
    default = address.options.get("snapshotter", "") not in LOSE_LISTS and address.kind != "exec"
    return Declared(commit_keeps_lists=_choice(address, "lists", {"kept": True, "lost": False}, default))


#: Subjects whose process the kit ends and starts: the server of a socket, and the reference.
Restarted = PluginSubject | KilledReference


def require_process(address: Address, start: str, kill: bool) -> None:
    """CannotRun, saying what is missing or too much, unless the process of the subject can be ended and started with these."""
    if address.refs:
        _require_own(address, start)
        return
    if address.kind not in (*OURS, "containerd", "plugin"):
        raise CannotRun(f"{address.text} has no process of its own to end: level durable is for ref:, containerd: and plugin:")
    if address.kind in OURS and (start or kill):
        raise CannotRun("the kit starts and kills the reference by itself: leave --start and --kill out")
    if address.kind not in OURS and not start:
        raise CannotRun("level durable ends the driver and starts it again: say how it is started, with --start 'COMMAND'")
    if start:
        command(start)
    if (DIRECTORY in start) != address.place.startswith(f"{DIRECTORY}/"):
        raise CannotRun(f"{DIRECTORY} stands for one directory: write it in --start and at the beginning of the socket's path")


#: Subjects whose power can be cut: the kit puts them on a pool for that.
_POWERED = "ref:overlay, ref:copy, and refs: before these"


def require_image(address: Address, start: str, kill: bool) -> None:
    """CannotRun, saying why, unless the subject keeps all that it has in one image whose power can be cut."""
    if start or kill:
        raise CannotRun("a power cut ends no process: leave --start and --kill out, or --power")
    if address.kind not in OURS or (address.text.startswith(MUTANT) and address.refs):
        raise CannotRun(f"{address.text} keeps its data where the kit has no image of it: power cuts are for {_POWERED}")
    if _plain(address):
        raise CannotRun(f"{address.text} stands on a plain directory, which has no image: leave plain= out")
    if "size" in address.options:
        raise CannotRun("the pool whose power is cut has a size of its own: leave size= out")


def powered(address: Address, surroundings: Surroundings) -> tuple[type[BaseSnapshotter], str]:
    """The driver's class and the file system of the pool whose power is cut. CannotRun, with the remedy, where no pool can be."""
    ground = choose_ground("overlay", False, surroundings)
    if not ground.pool:
        raise CannotRun(f"power cuts need root, loop devices and overlay mounts: run as root, see snapspec doctor ({ground.why})")
    return _class(address), _file_system(address)


def _plain(address: Address) -> bool:
    plain: bool = _choice(address, "plain", {"yes": True, "no": False}, False)
    return plain


def _file_system(address: Address) -> str:
    kind: str = _choice(address, "fs", {"ext4": "ext4", "xfs": "xfs", "btrfs": "btrfs"}, "ext4")
    return kind


def _require_own(address: Address, start: str) -> None:
    """The same for a manager: the kit kills it together with the driver and the store, which are in its process then."""
    if address.kind != "ref":
        raise CannotRun(f"{address.text} has no process of its own to end: level durable is for refs:overlay and refs:copy")
    if start:
        raise CannotRun("the kit starts and kills the reference by itself: leave --start out")


def make_killed_refs(address: Address, surroundings: Surroundings, workspace: Workspace) -> KilledRefs:
    """The subject, not yet started, whose process the kit kills. CannotRun for a place or a value that cannot be."""
    under = _reference(address, surroundings, workspace, _contents(surroundings, workspace), ReferenceSubject)
    return KilledRefs(address.text, under, workspace.scratch("refs"), _declared_refs(address))


def make_restarted(
    address: Address,
    surroundings: Surroundings,
    workspace: Workspace,
    deadline: float,
    start: str,
    kill: bool,
    stop: str = "",
    kill_command: str = "",
) -> Restarted:
    """The subject, not yet started, whose process the kit starts by the command `start`. CannotRun as `require_process`.

    `stop` and `kill_command` end it in place of SIGTERM and SIGKILL, where they are not empty.
    """
    require_process(address, start, kill)
    contents = _contents(surroundings, workspace)
    if address.kind in OURS:
        return _reference(address, surroundings, workspace, contents, KilledReference)
    subject = _remote(address, contents, workspace, deadline)
    subject.restarted(command(start), "kill" if kill else "stop", *ending(stop, kill_command))
    return subject


def ending(stop: str, kill: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of the commands that end a driver, empty where there is none. CannotRun when one names no program."""
    return command(stop, "commands.stop =") if stop else (), command(kill, "commands.kill =") if kill else ()


#: What can be served: a driver in this process.
Served = ReferenceSubject | PythonSubject


def make_served(address: Address, root: Path) -> Served:
    """The subject, not yet started, over the store in `root`, in the namespaces of this process. CannotRun for any other."""
    if address.refs or address.kind not in ("ref", "py"):
        raise CannotRun(f"{address.text} is no driver of this process: serve ref:overlay, ref:copy or py:package.module:factory")
    contents = Contents(root, mounts=False, root=False)  # whoever asks for mount lists mounts them
    if address.kind == "py":
        return PythonSubject(address.text, contents, root, find_factory(address.place), Profile())
    is_root = os.geteuid() == 0
    if address.place == "overlay" and not is_root:
        raise CannotRun("what ref:overlay gives is mounted by root alone: run as root, or serve ref:copy")
    here = Surroundings("root" if is_root else "none", "no root", Answer(is_root, "as root"))
    subject = _reference_at(root, address, here, contents, ReferenceSubject)
    subject.take_over = True
    return subject


def require_in_process(address: Address) -> None:
    """CannotRun unless something can be made to fail: the ports of a manager, or the system under a driver in this process."""
    if not address.refs and address.kind not in (*OURS, "py"):
        raise CannotRun(
            f"{address.text} cannot be made to fail from outside: level faults is for ref: and py:, which run in the kit, and "
            "for refs: over any driver"
        )


def make_faulted(address: Address, surroundings: Surroundings, workspace: Workspace) -> InProcess:
    """The subject, not yet started, on a file system in memory where one can be mounted. CannotRun as `require_in_process`.

    To be called in a block of `points.watched`.
    """
    require_in_process(address)
    if address.kind in OURS:
        contents = _contents(surroundings, workspace)
        subject: InProcess = _reference(address, surroundings, workspace, contents, FaultedReference)
    else:
        made = _driver(address, surroundings, workspace, DEADLINE)
        assert isinstance(made, PythonSubject), "py: is nothing else"
        subject = made
    if surroundings.how != "none":
        into_memory(subject.directory)
    return subject


def _contents(surroundings: Surroundings, workspace: Workspace) -> Contents:
    return Contents(workspace.scratch("mnt"), mounts=surroundings.how != "none", root=surroundings.how == "root")


def _driver(address: Address, surroundings: Surroundings, workspace: Workspace, deadline: float) -> Subject:
    contents = _contents(surroundings, workspace)
    match address.kind:
        case "ref" | "mutant":
            return _reference(address, surroundings, workspace, contents, ReferenceSubject)
        case "model":
            return _model(address)
        case "py":
            factory = find_factory(address.place)
            profile = _declared(getattr(factory, "profile", Profile()), address)
            return PythonSubject(address.text, contents, workspace.scratch("driver"), factory, profile)
        case "exec":
            return ExecSubject(address.text, contents, workspace, words_of(address.place))
        case _:
            return _remote(address, contents, workspace, deadline)


Reference = TypeVar("Reference", bound=ReferenceSubject)


def _class(address: Address) -> type[BaseSnapshotter]:
    """The class of the reference, or of an exhibit that is made of it."""
    if address.kind == "mutant":
        return find(address.place).driver
    if address.place not in KINDS:
        raise CannotRun(f"there is no reference {address.place!r}: write ref:overlay or ref:copy")
    return KINDS[address.place]


def _reference(
    address: Address, surroundings: Surroundings, workspace: Workspace, contents: Contents, kind: type[Reference]
) -> Reference:
    return _reference_at(workspace.scratch("store"), address, surroundings, contents, kind)


def _reference_at(
    directory: Path, address: Address, surroundings: Surroundings, contents: Contents, kind: type[Reference]
) -> Reference:
    file_system, driver = _file_system(address), _class(address)
    size = _size(address, _LEAST[file_system])
    wanted = "overlay" if issubclass(driver, OverlaySnapshotter) else "copy"
    ground = choose_ground(wanted, _plain(address), surroundings)
    if ground.driver != wanted and address.kind == "mutant":
        raise CannotRun(f"{address.text} is an overlay driver, and here is none: {ground.why}")
    made = driver if ground.driver == wanted else None
    return kind(address.text, contents, directory, ground, size, file_system, made)


#: The size of a pool that was given none.
_LEAST = {"ext4": 256 << 20, "xfs": 512 << 20, "btrfs": 512 << 20}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(address: Address, default: int) -> int:
    if "size" not in address.options:
        return default
    found = re.fullmatch(r"(\d+)([kmg]?)", address.options["size"].lower())
    if found is None:
        raise CannotRun(f"{address.options['size']!r} is no size: write a number with k, m or g, such as size=256m")
    return int(found[1]) * _UNITS[found[2]]


def _model(address: Address) -> Subject:
    if address.place:
        raise CannotRun(f"the model has no place {address.place!r}: write model: and options only")
    door = _choice(address, "door", {d.value: d for d in Door}, Door.DIRECT)
    return ModelSubject(address.text, _declared(Profile(door=door), address))


def _remote(address: Address, contents: Contents, workspace: Workspace, deadline: float) -> PluginSubject:
    if not address.place:
        raise CannotRun(f"{address.kind}: names no socket: write {address.kind}:/path/to/socket?snapshotter=NAME")
    snapshotter = address.options.get("snapshotter", "" if address.kind == "containerd" else SERVED)
    if not snapshotter:
        raise CannotRun(f"{address.text} names no snapshotter: add ?snapshotter=NAME (`ctr plugins ls` lists them)")
    door = Door.METADATA if address.kind == "containerd" else Door.DIRECT
    known = KNOWN.get(snapshotter, Profile())
    rebase = Rebase.REFUSED if (snapshotter, door) == (SERVED, Door.DIRECT) else Rebase.IGNORED
    profile = _declared(replace(known, door=door, wire=True, rebase=rebase), address)
    place = address.place if address.place.startswith(f"{DIRECTORY}/") else Path(address.place).absolute()
    socket = f"unix://{place}"
    # The session's deadline comes first: the kit then knows that the call hangs, and does not take its end for an answer.
    deadline = 3 * deadline
    if door is Door.DIRECT:
        return PluginSubject(address.text, contents, workspace, socket, snapshotter, profile, deadline)
    namespace = address.options.get("namespace", "")
    return ContainerdSubject(address.text, contents, workspace, socket, snapshotter, profile, deadline, namespace)


def _declared(profile: Profile, address: Address) -> Profile:
    """The profile with what the options declare."""
    return replace(
        profile,
        cleanup=_choice(address, "cleanup", {"yes": True, "no": False}, profile.cleanup),
        rebase=_choice(address, "rebase", _by_value(Rebase), profile.rebase),
        usage=_choice(address, "usage", _by_value(Measure), profile.usage),
        root=_choice(address, "root", _by_value(RootMetadata), profile.root),
    )


def _by_value(choices: type[Enum]) -> dict[str, Any]:
    return {choice.value: choice for choice in choices}


def _choice(address: Address, option: str, choices: Mapping[str, Any], default: Any) -> Any:
    given = address.options.get(option)
    if given is None:
        return default
    if given not in choices:
        raise CannotRun(f"{option}={given} is not possible: write {option}= with one of {', '.join(choices)}")
    return choices[given]
