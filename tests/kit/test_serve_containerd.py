"""The reference as a proxy plugin of Debian's containerd: images are unpacked on it, mounted and run; the kit finds nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import containerd as daemons
import images
import pytest
from images import standard
from served import Server, environment, served
from verdicts import nothing_wrong

from snapspec.conformance.files import scan

pytestmark = pytest.mark.root

IMAGE = "example.invalid/layers:1"

PATIENCE = 60.0

#: In a shell of the image, whose programs are all in one file.
PROGRAMS = "".join(f'{name}() {{ /bin/busybox {name} "$@"; }}; ' for name in ("cat", "ls", "rm", "id"))

#: Where ctr and the shims of containers make directories, whatever containerd's own are.
RUN = Path("/run/containerd")


class Both:
    """A containerd with the server as the snapshotter `snapspec`, below one directory."""

    def __init__(self, directory: Path, server: Server, daemon: daemons.Daemon) -> None:
        self.directory = directory
        self.server = server
        self.daemon = daemon

    def ctr(self, *words: str) -> str:
        """What ctr says; it has succeeded."""
        run = subprocess.run(
            ["ctr", "--address", str(self.daemon.socket), "--namespace", "n", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert run.returncode == 0, f"ctr {' '.join(words)}: {run.stdout}{run.stderr}\n{self.daemon.log_tail()}"
        return run.stdout

    def kit(self, command: str, subject: str, *arguments: str) -> None:
        """The kit finds nothing."""
        words = [sys.executable, "-m", "snapspec.conformance", command, subject, *arguments]
        run = subprocess.run(words, env=environment(), cwd=self.directory, capture_output=True, text=True, timeout=400)
        nothing_wrong(run)


def busybox() -> Path | None:
    """A shell that needs no libraries, if there is one here."""
    found = shutil.which("busybox")
    if found is None or b"/ld-" in Path(found).read_bytes()[:8192]:
        return None
    return Path(found)


@pytest.fixture(scope="module")
def both(clean_session: Path) -> Iterator[Both]:
    """They serve all tests of this file: each start takes a while."""
    if shutil.which("ctr") is None:
        pytest.skip("needs ctr: apt-get install containerd")
    directory = Path(tempfile.mkdtemp(prefix="sp-", dir=clean_session))
    (directory / "p").mkdir()
    (directory / "c").mkdir()
    with served(directory / "p") as server:
        proxies = {"snapspec": server.socket}
        with left_as_it_was(), daemons.start_containerd(directory / "c", proxies=proxies, tasks=True) as daemon:
            yield Both(directory, server, daemon)


@contextlib.contextmanager
def left_as_it_was() -> Iterator[None]:
    """What is empty below RUN, and was not there before, is removed."""
    made = [path for path in (RUN / "runc" / "n", RUN / "runc", RUN / "fifo", RUN / "s", RUN) if not path.exists()]
    yield
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()


@pytest.fixture(scope="module")
def image(both: Both) -> Iterator[str]:
    """The image of all that layers can do, imported and unpacked."""
    archive = both.directory / "image.tar"
    images.build(archive, IMAGE, standard(busybox()))
    both.ctr("images", "import", "--snapshotter", "snapspec", "--base-name", IMAGE.partition(":")[0], str(archive))
    yield IMAGE
    both.ctr("images", "rm", "--sync", IMAGE)
    assert "sha256:" not in both.ctr("snapshots", "--snapshotter", "snapspec", "ls"), "what nobody needs is collected"


def same(both: Both, image: str, layers: list[images.Layer]) -> None:
    """The mounted image is, file by file, what a replay of its layers is."""
    flat, target = both.directory / "flat", both.directory / "mnt"
    for path in (flat, target):
        path.mkdir()
    images.replay(layers, flat)
    both.ctr("images", "mount", "--snapshotter", "snapspec", image, str(target))
    try:
        assert os.path.ismount(target)
        shown, wanted = scan(str(target)).nodes, scan(str(flat)).nodes
        assert sorted(shown) == sorted(wanted)
        assert {path: (shown[path], wanted[path]) for path in wanted if path and shown[path] != wanted[path]} == {}
        assert images.times(target) == images.times(flat)
    finally:
        both.ctr("images", "unmount", "--rm", "--snapshotter", "snapspec", str(target))
        shutil.rmtree(flat)
        target.rmdir()


def test_an_image_shows_what_its_layers_say(both: Both, image: str) -> None:
    same(both, image, standard(busybox()))


def test_a_container_runs_on_it(both: Both, image: str) -> None:
    """It sees the image, writes to its own layer, and leaves the image as it was."""
    if busybox() is None:
        pytest.skip("needs a shell without libraries for the image: apt-get install busybox-static")
    if shutil.which("runc") is None:
        pytest.skip("needs runc: apt-get install runc")
    script = "cd /; cat opt/b/deep/f etc/changed; echo; ls opt/c; ls opt/d; echo mine > etc/passwd; rm usr/linked; ls usr; id -u"
    words = ("run", "--rm", "--snapshotter", "snapspec", image, "c1", "/bin/busybox", "sh", "-c", PROGRAMS + script)
    try:
        said = both.ctr(*words)
    except AssertionError as error:
        if "cgroup" in str(error):
            pytest.skip(f"needs cgroups that a container can be put into: {error}")
        raise
    assert said.split() == ["deepnew", "g", "new", "attributed", "lib", "setgid", "setuid", "0"]
    same(both, image, standard(busybox()))


@pytest.mark.deep
def test_a_large_image_shows_what_its_layers_say(both: Both) -> None:
    """Thousands of files, of which a third is deleted again, and twenty times the same four layers."""
    layers = [*standard(extra=6000), *(layer for _ in range(20) for layer in standard())]
    archive, name = both.directory / "large.tar", "example.invalid/large:1"
    images.build(archive, name, layers)
    both.ctr("images", "import", "--snapshotter", "snapspec", "--base-name", name.partition(":")[0], str(archive))
    same(both, name, layers)
    both.ctr("images", "rm", "--sync", name)


def test_the_kit_finds_nothing(both: Both) -> None:
    both.kit("smoke", f"containerd:{both.daemon.socket}?snapshotter=snapspec")


@pytest.mark.deep
def test_the_kit_finds_nothing_for_long(both: Both) -> None:
    """Neither at the plugin's own socket nor through containerd, but for what is known of containerd itself."""
    options = ("--seed", "5", "--jobs", "1", "--examples", "20")
    both.kit("check", f"plugin:{both.server.socket}", *options)
    both.kit("check", f"containerd:{both.daemon.socket}?snapshotter=snapspec", "--without", "collect", *options)
