"""All exhibits, by name, and the rows that cannot be one."""

from __future__ import annotations

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.mutants import Exhibit
from snapspec.conformance.mutants.drivers import DRIVERS
from snapspec.conformance.mutants.refs import REFS
from snapspec.conformance.mutants.refs_durable import REFS_DURABLE
from snapspec.conformance.mutants.refs_size import REFS_SIZE
from snapspec.conformance.mutants.seed import SEED

EXHIBITS: tuple[Exhibit, ...] = (*SEED, *REFS, *REFS_SIZE, *REFS_DURABLE, *DRIVERS)

_BY_NAME = {exhibit.name: exhibit for exhibit in EXHIBITS}


def find(name: str) -> Exhibit:
    """The exhibit of that name. CannotRun, with what there is, when there is none."""
    if name not in _BY_NAME:
        raise CannotRun(f"there is no exhibit {name!r}: `snapspec museum --list` names them")
    return _BY_NAME[name]
