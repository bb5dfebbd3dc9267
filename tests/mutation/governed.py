"""What is mutated, what is run for it, and what was thought of the survivors that were read."""

from __future__ import annotations

import tomllib
from pathlib import Path

#: The files that the spec governs, and the row of `kit_run.CHECKS` that is run for their mutants.
GOVERNED: dict[str, dict[str, str]] = {
    "impl": {
        "impl/base.py": "driver",
        "impl/copy.py": "copy",
        "impl/filetree.py": "copy",
        "impl/flight.py": "refs",
        "impl/layout.py": "layout",
        "impl/manager.py": "refs",
        "impl/metadata.py": "store",
        "impl/mounts.py": "refs",
        "impl/overlay.py": "driver",
        "impl/records.py": "driver",
        "impl/refs.py": "refs",
        "impl/scan.py": "driver",
        "impl/sqlite.py": "both",
        "impl/threads.py": "both",
    },
    "model": {
        "model/durable.py": "model",
        "model/faults.py": "model",
        "model/filters.py": "model",
        "model/frozen.py": "oracle",
        "model/guards.py": "model",
        "model/layers.py": "model",
        "model/linear.py": "oracle",
        "model/nodes.py": "model",
        "model/oracle.py": "model",
        "model/ref_changes.py": "ref model",
        "model/ref_durable.py": "ref model",
        "model/ref_faults.py": "ref model",
        "model/ref_guards.py": "ref model",
        "model/ref_oracle.py": "ref model",
        "model/ref_outcomes.py": "ref model",
        "model/ref_replies.py": "ref model",
        "model/ref_state.py": "ref model",
        "model/refs.py": "ref model",
        "model/replies.py": "model",
        "model/snapshots.py": "model",
        "model/state.py": "model",
        "model/tree.py": "model",
        "model/values.py": "model",
    },
}

#: Of these files the spec governs some functions only.
WITHIN = {"impl/mounts.py": ("read_only", "_read_only_options", "escape_layer")}

#: What a survivor can be. `equivalent`: nobody can tell it from the original. `free`: the spec lets it be: it is speed, the log,
#: what no clause asks for. `rare`: the kit can notice it, but needs longer. `open`: a check or a clause is missing.
VERDICTS = ("equivalent", "free", "rare", "open")

#: Those that no check can be asked to notice.
NOT_COUNTED = ("equivalent", "free")


def judged() -> dict[tuple[str, str, str], dict[str, str]]:
    """The survivors that were read, by file, line before and line after; each with its `verdict` and the `reason`."""
    entries = tomllib.loads((Path(__file__).parent / "judged.toml").read_text()).get("survivor", [])
    return {(each["path"], each["before"], each["after"]): each for each in entries}
