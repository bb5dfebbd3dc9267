"""OCI images for tests: built of layers in memory, and replayed layer by layer into a plain directory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: The prefix of a name that deletes, and the name that makes its directory hide all that is below.
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"

_XATTR = "SCHILY.xattr."
_TIME = 1_600_000_000
_MEDIA = "application/vnd.oci.image."


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer. `to`: where a symbolic link points, or the name that a hard link is another of."""

    path: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    to: str = ""
    xattrs: dict[str, str] = field(default_factory=dict)
    device: tuple[int, int] = (0, 0)

    def member(self) -> tarfile.TarInfo:
        """As tar has it."""
        info = tarfile.TarInfo(self.path)
        info.type, info.mode, info.size, info.linkname, info.mtime = self.kind, self.mode, len(self.data), self.to, _TIME
        info.uid, info.gid = self.owner
        info.devmajor, info.devminor = self.device
        info.pax_headers = {_XATTR + name: value for name, value in self.xattrs.items()}
        return info


def directory(path: str, mode: int = 0o755, **more: object) -> Entry:
    return Entry(path, tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]


def symlink(path: str, to: str) -> Entry:
    return Entry(path, tarfile.SYMTYPE, mode=0o777, to=to)


def link(path: str, to: str) -> Entry:
    return Entry(path, tarfile.LNKTYPE, to=to)


def gone(path: str) -> Entry:
    """A whiteout of `path`."""
    head, _, name = path.rpartition("/")
    return Entry(f"{head}/{WHITEOUT}{name}".lstrip("/"))


def opaque(path: str) -> Entry:
    """The mark that the directory `path` shows nothing of lower layers."""
    return Entry(f"{path}/{OPAQUE}")


Layer = list[Entry]


def standard(busybox: Path | None = None, extra: int = 0) -> list[Layer]:
    """Four layers with deletions, replaced directories, hard links, attributes, setuid files, and `extra` files in all."""
    program = [directory("bin"), Entry("bin/busybox", data=busybox.read_bytes(), mode=0o755)] if busybox else []
    first = [
        *program,
        *(directory(name) for name in ("etc", "proc", "sys", "dev", "usr", "usr/lib", "var", "opt")),
        directory("tmp", 0o1777),
        directory("home", 0o2750, owner=(1000, 2000)),
        Entry("etc/passwd", data=b"root:x:0:0::/:/bin/sh\n"),
        Entry("etc/changed", data=b"old", mode=0o600, owner=(3, 4)),
        Entry("etc/deleted", data=b"x" * 5000),
        Entry("usr/setuid", data=b"#!", mode=0o4755),
        Entry("usr/setgid", data=b"#!", mode=0o2711, owner=(5, 6)),
        Entry("usr/attributed", data=b"a", xattrs={"user.note": "one", "user.other": "two"}),
        Entry("usr/linked", data=b"three names"),
        link("usr/linked-2", "usr/linked"),
        link("usr/lib/linked-3", "usr/linked"),
        symlink("usr/lib/dangling", "../no/such"),
        Entry("var/fifo", tarfile.FIFOTYPE, mode=0o622),
        Entry("var/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
        *(entry for name in "abcd" for entry in (directory(f"opt/{name}"), Entry(f"opt/{name}/f", data=name.encode()))),
        directory("opt/a/deep"),
        Entry("opt/a/deep/f", data=b"deep"),
    ]
    second = [
        gone("etc/deleted"),
        Entry("etc/changed", data=b"new", mode=0o640, owner=(7, 8)),
        directory("opt/a", 0o700, owner=(9, 9)),  # only its mode and its owner change
        directory("opt/b"),
        opaque("opt/b"),
        Entry("opt/b/only", data=b"b"),
        Entry("opt/c", data=b"a file now"),
        gone("opt/d"),
        gone("usr/linked-2"),
        Entry("usr/lib/linked-3", data=b"two names"),
        link("usr/lib/linked-4", "usr/lib/linked-3"),
        *(Entry(f"var/many-{number:05}", data=b"%d" % number) for number in range(extra)),
    ]
    third = [
        directory("opt/c", 0o711),  # and a directory again
        Entry("opt/c/g", data=b"g"),
        directory("opt/d"),
        Entry("opt/d/new", data=b"back", xattrs={"user.note": "in a directory that was deleted"}),
        Entry("usr/setuid", data=b"#!", mode=0o755),  # no setuid any more
        Entry("usr/attributed", data=b"a", xattrs={"user.note": "three"}),
        gone("opt/b"),
        *(gone(f"var/many-{number:05}") for number in range(0, extra, 3)),
    ]
    fourth = [symlink("opt/b", "a"), Entry("home/ü and \t", data=b"odd", owner=(1000, 1000)), Entry("etc/deleted", data=b"again")]
    return [first, second, third, fourth]


# --- an image


def build(path: Path, name: str, layers: Iterable[Layer]) -> None:
    """Write the image `name` of these layers as a tar file in the OCI layout; every other layer is compressed."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": _MEDIA + kind, "digest": f"sha256:{digest}", "size": len(data)}

    tars = [_tar(layer) for layer in layers]
    packed = [
        blob("layer.v1.tar+gzip", gzip.compress(data, 1, mtime=0)) if number % 2 else blob("layer.v1.tar", data)
        for number, data in enumerate(tars)
    ]
    ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {"architecture": machine, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}, "config": {}}
    manifest = {"schemaVersion": 2, "config": blob("config.v1+json", _json(config)), "layers": packed}
    index = {"schemaVersion": 2, "manifests": [blob("manifest.v1+json", _json(manifest)) | {"annotations": _names(name)}]}
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        for digest, data in blobs.items():
            _add(archive, f"blobs/sha256/{digest}", data)


def _names(name: str) -> dict[str, str]:
    return {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(Entry(name, data=data).member(), io.BytesIO(data))


def _tar(layer: Layer) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in layer:
            archive.addfile(entry.member(), io.BytesIO(entry.data))
    return out.getvalue()


# --- the flat replay


def replay(layers: Iterable[Layer], root: Path) -> None:
    """Make in `root` what the layers show, with no layers: each deletes first, then adds."""
    for layer in layers:
        for entry in layer:
            head, _, name = entry.path.rpartition("/")
            if name == OPAQUE:
                for child in (root / head).iterdir():
                    _delete(child)
            elif name.startswith(WHITEOUT):
                _delete(root / head / name.removeprefix(WHITEOUT))
        times = [entry for entry in layer if not entry.path.rpartition("/")[2].startswith(WHITEOUT)]
        for entry in times:
            _put(root, entry)
        for entry in times:  # at last, for what is put into a directory changes its time
            os.utime(root / entry.path, (_TIME, _TIME), follow_symlinks=False)


def _put(root: Path, entry: Entry) -> None:
    path = root / entry.path
    if not (entry.kind == tarfile.DIRTYPE and path.is_dir() and not path.is_symlink()):
        _delete(path)
        _make(root, path, entry)
    if entry.kind == tarfile.LNKTYPE:
        return
    os.chown(path, *entry.owner, follow_symlinks=False)
    if entry.kind != tarfile.SYMTYPE:
        os.chmod(path, entry.mode)
    for name, value in entry.xattrs.items():
        os.setxattr(path, name, value.encode(), follow_symlinks=False)


def _make(root: Path, path: Path, entry: Entry) -> None:
    match entry.kind:
        case tarfile.DIRTYPE:
            path.mkdir()
        case tarfile.SYMTYPE:
            path.symlink_to(entry.to)
        case tarfile.LNKTYPE:
            path.hardlink_to(root / entry.to)
        case tarfile.FIFOTYPE:
            os.mkfifo(path)
        case tarfile.CHRTYPE:
            os.mknod(path, stat.S_IFCHR | entry.mode, os.makedev(*entry.device))
        case _:
            path.write_bytes(entry.data)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def times(root: Path) -> dict[str, int]:
    """The time of change of each file below `root`, in seconds; of directories it is nobody's promise."""
    found = {}
    for where, _, names in os.walk(root):
        for name in names:
            path = Path(where, name)
            found[str(path.relative_to(root))] = int(path.lstat().st_mtime)
    return found
