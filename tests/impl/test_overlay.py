"""The snapshotters, call by call: the order of errors, records, mount lists, content and usage, on real file systems."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from stores import KINDS, Place, asynchronous, layer, names, records, refusal, refused, shown, source, state

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.errors import FailedPrecondition, InvalidArgument, NotFound
from snapspec.impl.loopback import PoolBusy
from snapspec.impl.mounts import mounted
from snapspec.impl.overlay import open_overlay
from snapspec.model.values import Info, Kind, Mount

pytestmark = pytest.mark.root


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


@pytest.fixture(params=["plain", "pool"])
def overlay(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


async def one_of_each(store: BaseSnapshotter) -> None:
    """`base` and `committed` over it; `active` and `view` on top of `base`; `bare`, an active one without a parent."""
    await layer(store, "base", shared="of base")
    await layer(store, "committed", "base")
    await store.prepare("active", "base")
    await store.view("view", "base")
    await store.prepare("bare")


# --- the order of errors ---

#: What a name stands for in the tables: itself where it is there.
PRESENT = ("active", "view", "committed")


def expected_of_prepare(key: str, parent: str) -> str:
    if parent == "absent":
        return "NotFound"
    if parent in ("active", "view"):
        return "InvalidArgument"
    if key in PRESENT:
        return "AlreadyExists"
    return "" if key else "InvalidArgument"


@asynchronous
async def test_prepare_and_view_answer_in_the_order_of_their_errors(place: Place) -> None:
    async with place.opened() as store:
        await one_of_each(store)
        before, infos = await state(store), await records(store)
        cases = itertools.product(("prepare", "view"), ("free", "", *PRESENT), ("", "absent", *PRESENT), ({}, {"": "x"}))
        for call, key, parent, labels in cases:
            expected = expected_of_prepare(key, parent) or ("InvalidArgument" if labels else "")
            assert await refusal(getattr(store, call)(key, parent, labels)) == expected, (call, key, parent, labels)
            if not expected:
                await store.remove(key)
            assert await records(store) == infos, (call, key, parent, labels)
        assert await state(store) == before


def expected_of_commit(name: str, key: str, asked: str) -> str:
    if key == "absent":
        return "NotFound"
    if name in (*PRESENT, "bare"):
        return "AlreadyExists"
    if not name:
        return "InvalidArgument"
    if key in ("view", "committed"):
        return "FailedPrecondition"
    own = "base" if key == "active" else ""
    return "" if asked in ("", own) else "InvalidArgument"


@asynchronous
async def test_commit_answers_in_the_order_of_its_errors(place: Place) -> None:
    async with place.opened() as store:
        await one_of_each(store)
        before, infos = await state(store), await records(store)
        keys = ("absent", "bare", *PRESENT)
        cases = itertools.product(("free", "", "bare", *PRESENT), keys, ("", "base", *keys), ({}, {"": "x"}))
        for name, key, asked, labels in cases:
            expected = expected_of_commit(name, key, asked) or ("InvalidArgument" if labels else "")
            assert await refusal(store.commit(name, key, labels, asked)) == expected, (name, key, asked, labels)
            if not expected:
                await store.remove(name)
                await store.prepare(key, before[key][0].parent)
                before, infos = await state(store), await records(store)
            assert await records(store) == infos, (name, key, asked, labels)
        assert await state(store) == before


@asynchronous
async def test_the_other_calls_answer_in_the_order_of_their_errors(place: Place) -> None:
    async with place.opened() as store:
        await one_of_each(store)
        before = await state(store)
        for absent in ("absent", ""):
            missing = Info(absent, "", Kind.ACTIVE, (), 0, 0)
            for call in (store.mounts(absent), store.stat(absent), store.usage(absent), store.remove(absent)):
                await refused(call, NotFound)
            await refused(store.update(missing), NotFound)
            await refused(store.update(missing, ["bad"]), NotFound)
        await refused(store.mounts("committed"), FailedPrecondition)
        for child in (None, "active", "view", "committed"):
            if child:
                await store.remove(child)
                before.pop(child)
            if child != "committed":
                await refused(store.remove("base"), FailedPrecondition)
            assert await state(store) == before
        await store.remove("base")
        assert await names(store) == ["bare"]


# --- records ---


@asynchronous
async def test_records_tell_kind_parent_labels_and_times(place: Place) -> None:
    async with place.opened() as store:
        moments = [time.time_ns()]
        await store.prepare("key", labels={"a": "1", "empty": ""})
        moments.append(time.time_ns())
        active = await store.stat("key")
        await store.commit("name", "key", {"b": "2", "empty": ""})
        moments.append(time.time_ns())
        committed = await store.stat("name")
        await store.view("view", "name")
        view = await store.stat("view")
    assert active == Info("key", "", Kind.ACTIVE, (("a", "1"),), active.created, active.created)
    assert committed == Info("name", "", Kind.COMMITTED, (("b", "2"),), committed.created, committed.created)
    assert view == Info("view", "name", Kind.VIEW, (), view.created, view.created)
    assert moments[0] <= active.created <= moments[1] <= committed.created <= moments[2] <= view.created


UPDATES: list[tuple[tuple[str, ...], dict[str, str], dict[str, str] | None]] = [
    ((), {"c": "3", "e": ""}, {"c": "3"}),
    ((), {}, {}),
    (("labels",), {"c": "3"}, {"c": "3"}),
    (("labels.a",), {"a": "9", "c": "3"}, {"a": "9", "b.x/y": "2"}),
    (("labels.a",), {}, {"b.x/y": "2"}),
    (("labels.a",), {"a": ""}, {"b.x/y": "2"}),
    (("labels.b.x/y",), {"b.x/y": "9"}, {"a": "1", "b.x/y": "9"}),
    (("labels.none",), {}, {"a": "1", "b.x/y": "2"}),
    (("labels.a", "labels"), {"c": "3"}, {"c": "3"}),
    (("labels", "labels.a"), {"a": "9"}, {"a": "9"}),
    (("labels.a", "labels.a"), {"a": "9"}, {"a": "9", "b.x/y": "2"}),
    (("labels.a", "kind"), {"a": "9"}, None),
    ((), {"": "x"}, None),
    (("labels",), {"": "x"}, None),
    ((), {"": "", "c": "3"}, {"c": "3"}),
    (("labels.c",), {"": "x", "c": "3"}, {"a": "1", "b.x/y": "2", "c": "3"}),
    *(((bad,), {"a": "9"}, None) for bad in ("", "name", "kind", "parent", "created", "created_at", "updated", "Labels")),
    *(((bad,), {"a": "9"}, None) for bad in ("label.a", "labels.", "labelsx", "labels/a", ".labels", " labels")),
]


@pytest.mark.parametrize("kind", ["plain", "copy"])
@asynchronous
async def test_update_changes_labels_alone(kind: str, workdir: Path) -> None:
    async with Place(kind, workdir).opened() as store:
        await one_of_each(store)
        for name, (paths, given, expected) in itertools.product(PRESENT, UPDATES):
            await store.update(Info(name, "", Kind.ACTIVE, (("a", "1"), ("b.x/y", "2")), 0, 0))
            before = await state(store)
            info = before[name][0]
            wanted = Info(name, "elsewhere", Kind.VIEW, tuple(given.items()), 1, 2)
            if expected is None:
                await refused(store.update(wanted, paths), InvalidArgument)
                assert await state(store) == before, (name, paths, given)
                continue
            now = await store.update(wanted, paths)
            assert now == replace(info, labels=tuple(sorted(expected.items())), updated=now.updated), (name, paths, given)
            assert info.updated < now.updated <= time.time_ns()
            assert await store.stat(name) == now
            assert await state(store) == {**before, name: (now, *before[name][1:])}


@pytest.mark.parametrize("kind", ["plain", "copy"])
@asynchronous
async def test_walk_gives_each_record_once_sorted_and_filtered(kind: str, workdir: Path) -> None:
    async with Place(kind, workdir).opened() as store:
        assert await names(store) == []
        await one_of_each(store)
        await store.update(Info("view", "", Kind.VIEW, (("tier", "gold"), ("a.b", "c")), 0, 0))

        async def found(*filters: str) -> list[str]:
            return [info.name async for info in store.walk(filters)]

        everything = ["active", "bare", "base", "committed", "view"]
        assert await found() == await found("") == await found("name==none", "") == everything
        assert [await store.stat(name) for name in everything] == await records(store)
        assert await found("kind==committed") == ["base", "committed"]
        assert await found("kind==committed", "name==view", "kind==committed") == ["base", "committed", "view"]
        assert await found("kind==committed,parent==base") == ["committed"]
        assert await found('labels.tier==gold,labels."a.b"==c') == ["view"]
        assert await found('parent!=""', "name~=^ba") == everything
        assert await found("unknown") == []
        for bad in ("name=x", "==", "name==", "a,,b"):
            iterator = aiter(store.walk(["kind==active", bad]))
            await refused(anext(iterator), InvalidArgument)
        # What comes is one moment: changes during the walk are not in it.
        walked = []
        async for info in store.walk():
            walked.append(info.name)
            if info.name == "active":
                await store.remove("view")
                await store.prepare("zzz")
        assert walked == everything


ODD = ("a/b c:d\ne", "namespace/1/name", "\udcff", "-rf", "..", ".", "a,b", '"', "k" * 3000, "ключ", " ")


@asynchronous
async def test_any_text_is_a_key(place: Place) -> None:
    async with place.opened() as store:
        for key in ODD:
            await store.prepare(key, labels={key: key})
            await store.commit(f"{key} committed", key, {key: key})
            await store.prepare(key, f"{key} committed")
            assert shown(await store.mounts(key), place) == {}
    async with place.opened() as store:
        assert set(await names(store)) == {*ODD, *(f"{key} committed" for key in ODD)}
        for key in ODD:
            assert (await store.stat(key)).parent == f"{key} committed"
            assert (await store.stat(f"{key} committed")).labels == ((key, key),)


@asynchronous
async def test_a_removed_key_is_free_at_once_and_nothing_of_it_returns(place: Place) -> None:
    async with place.opened() as store:
        (source(await store.prepare("key", labels={"a": "1"})) / "file").write_text("old")
        await store.remove("key")
        await refused(store.stat("key"), NotFound)
        await refused(store.usage("key"), NotFound)
        await refused(store.mounts("key"), NotFound)
        assert shown(await store.view("key"), place) == {}
        assert (await store.stat("key")).labels == ()
        await store.remove("key")
        await store.prepare("other")
        await store.commit("key", "other")
        assert (await store.stat("key")).kind is Kind.COMMITTED


# --- mount lists ---


@pytest.mark.parametrize("userxattr", [False, True])
@asynchronous
async def test_mount_lists_of_overlay(userxattr: bool, workdir: Path) -> None:
    store = await open_overlay(str(workdir / "s"), userxattr=userxattr)
    await layer(store, "one")
    await layer(store, "two", "one")
    lists = {
        "active0": await store.prepare("active0"),
        "active1": await store.prepare("active1", "one"),
        "active2": await store.prepare("active2", "two"),
        "view0": await store.view("view0"),
        "view1": await store.view("view1", "one"),
        "view2": await store.view("view2", "two"),
    }
    await store.close()
    s = f"{workdir}/s/s"
    plain = ("index=off", "userxattr") if userxattr else ("index=off", "redirect_dir=off", "metacopy=off")
    assert lists == {
        "active0": (Mount("bind", f"{s}/3/fs", ("rw", "rbind")),),
        "active1": (Mount("overlay", "overlay", (*plain, f"workdir={s}/4/work", f"upperdir={s}/4/fs", f"lowerdir={s}/1/fs")),),
        "active2": (
            Mount("overlay", "overlay", (*plain, f"workdir={s}/5/work", f"upperdir={s}/5/fs", f"lowerdir={s}/2/fs:{s}/1/fs")),
        ),
        "view0": (Mount("bind", f"{s}/6/fs", ("ro", "rbind")),),
        "view1": (Mount("bind", f"{s}/1/fs", ("ro", "rbind")),),
        "view2": (Mount("overlay", "overlay", (*plain, "ro", f"lowerdir={s}/2/fs:{s}/1/fs")),),
    }
    store = await open_overlay(str(workdir / "s"), userxattr=userxattr)
    for key, mounts in lists.items():
        assert await store.mounts(key) == mounts
        Path(workdir / "m").mkdir(exist_ok=True)
        with mounted(mounts, str(workdir / "m")) as root:
            file = Path(root, "file")
            if key.startswith("active"):
                file.write_text("written")
            else:
                with pytest.raises(OSError, match="Read-only"):
                    file.write_text("refused")
    await store.close()


@asynchronous
async def test_a_root_with_signs_that_overlay_splits_at_mounts_all_the_same(workdir: Path) -> None:
    place = Place("plain", workdir)
    store = await open_overlay(str(workdir / "a:b,c\\d"))
    parent = ""
    for name in ("one", "two", "three"):
        with mounted(await store.prepare("key", parent), place.target) as root:
            Path(root, name).write_text(name)
        await store.commit(name, "key")
        parent = name
    assert shown(await store.view("view", "three"), place) == {name: name for name in ("one", "two", "three")}
    await store.close()


# --- content ---


@asynchronous
async def test_each_layer_shows_its_parents_and_leaves_them_alone(place: Place) -> None:
    async with place.opened() as store:
        await layer(store, "one", kept="1", changed="1", deleted="1")
        with mounted(await store.prepare("key", "one"), place.target) as root:
            Path(root, "changed").write_text("2")
            Path(root, "deleted").unlink()
            Path(root, "directory").mkdir()
            Path(root, "directory", "new").write_text("2")
        await store.commit("two", "key")
        two = {"kept": "1", "changed": "2", "directory/new": "2"}
        with mounted(await store.prepare("key", "two"), place.target) as root:
            shutil.rmtree(f"{root}/directory")
            Path(root, "directory").mkdir()
            Path(root, "directory", "other").write_text("3")
        assert shown(await store.mounts("key"), place) == {"kept": "1", "changed": "2", "directory/other": "3"}
        assert shown(await store.view("view two", "two"), place) == two
        assert shown(await store.view("view one", "one"), place) == {"kept": "1", "changed": "1", "deleted": "1"}
    async with place.opened() as store:
        assert shown(await store.mounts("key"), place) == {"kept": "1", "changed": "2", "directory/other": "3"}
        assert shown(await store.mounts("view two"), place) == two


@asynchronous
async def test_a_chain_of_140_layers_mounts(workdir: Path) -> None:
    overlay = Place("pool", workdir)
    async with overlay.opened() as store:
        for depth in range(140):
            await layer(store, f"layer{depth}", f"layer{depth - 1}" if depth else "", **{f"own{depth}": "x", "all": str(depth)})
        expected = {**{f"own{depth}": "x" for depth in range(140)}, "all": "139"}
        assert shown(await store.view("view", "layer139"), overlay) == expected
        assert shown(await store.view("middle", "layer69"), overlay)["all"] == "69"
        with mounted(await store.prepare("key", "layer139"), overlay.target) as root:
            Path(root, "all").write_text("140")
        assert shown(await store.mounts("key"), overlay) == {**expected, "all": "140"}


def acl(*entries: tuple[int, int]) -> bytes:
    """A POSIX access control list as its attribute holds it, from (tag, permissions)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, 0xFFFFFFFF) for tag, perm in entries)


def metadata(root: str) -> tuple[int, int, int, dict[str, bytes]]:
    info = os.lstat(root)
    # Overlay hides its own attributes in a mount, but not in the directory that a bind shows.
    own = [name for name in os.listxattr(root) if not name.startswith("trusted.overlay.")]
    return info.st_mode, info.st_uid, info.st_gid, {name: os.getxattr(root, name) for name in own}


@asynchronous
async def test_the_root_follows_the_parents_root(place: Place) -> None:
    async with place.opened() as store:
        with mounted(await store.prepare("key"), place.target) as root:
            assert metadata(root) == (0o40755, os.geteuid(), os.getegid(), {})
            os.chown(root, 1234, 2345)
            os.chmod(root, 0o3750)
            os.setxattr(root, "user.colour", b"blue")
            os.setxattr(root, "trusted.secret", b"x")
            os.setxattr(root, "system.posix_acl_default", acl((1, 7), (4, 5), (0x20, 0)))
            first = metadata(root)
            assert first[3].keys() == {"user.colour", "trusted.secret", "system.posix_acl_default"}
        await store.commit("one", "key")
        for name, parent in (("two", "one"), ("three", "two"), ("four", "three")):
            with mounted(await store.prepare("key", parent), place.target) as root:
                assert metadata(root) == first
                Path(root, name).touch()
            await store.commit(name, "key")
            with mounted(await store.view("view", name), place.target) as root:
                assert metadata(root) == first
            await store.remove("view")
        with mounted(await store.prepare("key", "four"), place.target) as root:
            os.chmod(root, 0o711)
            os.removexattr(root, "user.colour")
        await store.commit("five", "key")
        with mounted(await store.view("view", "five"), place.target) as root:
            assert metadata(root)[0] == 0o40711
            assert "user.colour" not in metadata(root)[3]


@asynchronous
async def test_what_overlay_wrote_on_a_root_is_not_the_childs(overlay: Place) -> None:
    async with overlay.opened() as store:
        await layer(store, "one", a="1")
        mounts = await store.prepare("key", "one")
        with mounted(mounts, overlay.target) as root:
            Path(root, "a").write_text("2")
        await store.commit("two", "key")
        assert [name for name in os.listxattr(source(mounts)) if name.startswith("trusted.overlay.")]
        assert os.listxattr(source(await store.prepare("key", "two"))) == []


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o22, 0o77, 0o777])
@asynchronous
async def test_a_root_without_a_parent_has_its_mode_whatever_is_around_it(mask: int, workdir: Path) -> None:
    root = workdir / "s"
    root.mkdir()
    os.chown(root, 0, 4321)
    os.chmod(root, 0o2777)
    os.setxattr(root, "system.posix_acl_default", acl((1, 7), (4, 7), (0x20, 7)))
    for kind in ("plain", "copy"):
        with umask(mask):
            async with Place(kind, workdir).opened() as store:
                assert metadata(str(source(await store.prepare("key"))))[:3] == (0o40755, 0, os.getegid())
                await store.commit("one", "key")
                child = metadata(str(source(await store.prepare("child", "one"))))
                assert child == (0o40755, 0, os.getegid(), {})
                await store.remove("child")
                await store.remove("one")


# --- closing and opening ---


@asynchronous
async def test_what_was_closed_comes_back_as_it_was(place: Place) -> None:
    async with place.opened() as store:
        await one_of_each(store)
        before = await state(store)
    async with place.opened() as store:
        assert await state(store) == before
        assert shown(await store.mounts("active"), place) == {"shared": "of base"}


@asynchronous
async def test_a_closed_snapshotter_says_so(place: Place) -> None:
    store = await place.open()
    await store.prepare("key")
    await store.close()
    await store.close()
    info = Info("key", "", Kind.ACTIVE, (), 0, 0)
    for call in (
        store.prepare("new"),
        store.view("new"),
        store.commit("new", "key"),
        store.remove("key"),
        store.mounts("key"),
        store.stat("key"),
        store.update(info),
        store.usage("key"),
        anext(aiter(store.walk())),
        store.cleanup(),
    ):
        assert "closed" in str(await refused(call, FailedPrecondition))


@asynchronous
async def test_a_second_opener_is_refused_and_the_first_goes_on(place: Place) -> None:
    async with place.opened() as store:
        with pytest.raises((FailedPrecondition, PoolBusy), match="close it there"):
            await place.open()
        await store.prepare("key")
        assert await names(store) == ["key"]


@asynchronous
async def test_directories_without_records_are_not_touched(workdir: Path) -> None:
    precious = workdir / "s" / "s" / "7"
    precious.mkdir(parents=True)
    for kind in ("plain", "copy"):
        with pytest.raises(FailedPrecondition, match="choose an empty directory"):
            await Place(kind, workdir).open()
    assert precious.is_dir()
    assert os.listdir(workdir / "s") == ["s"]


IN_A_USER_NAMESPACE = """
import asyncio, os, sys
from pathlib import Path
from snapspec.impl.syscalls import enter_user_namespace
try:
    enter_user_namespace()
except OSError as error:
    print(error)
    sys.exit(77)
from snapspec.impl.loopback import PoolBusy
from snapspec.impl.mounts import mounted
from snapspec.impl.overlay import open_overlay

async def main(root, target):
    store = await open_overlay(root, userxattr=True)
    with mounted(await store.prepare("key"), target):
        for name in ("kept", "deleted", "directory/old"):
            Path(target, name).parent.mkdir(exist_ok=True)
            Path(target, name).write_text(name)
    await store.commit("one", "key")
    with mounted(await store.prepare("key", "one"), target):
        Path(target, "deleted").unlink()
        Path(target, "directory/old").unlink()
        Path(target, "directory").rmdir()
        Path(target, "directory").mkdir()
        Path(target, "directory/new").write_text("new")
    await store.commit("two", "key")
    await store.prepare("key", "two")
    await store.commit("three", "key")
    with mounted(await store.view("view", "three"), target):
        print(sorted(os.listdir(target)), os.listdir(os.path.join(target, "directory")))
    for name in ("view", "three", "two", "one"):
        await store.remove(name)
    await store.cleanup()
    print([sorted(os.listdir(os.path.join(root, name))) for name in ("s", "new", "trash")])
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_overlay_works_in_a_user_namespace(workdir: Path) -> None:
    (workdir / "m").mkdir()
    command = [sys.executable, "-c", IN_A_USER_NAMESPACE, str(workdir / "s"), str(workdir / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"needs user namespaces with overlay: {done.stdout}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['directory', 'kept'] ['new']", "[[], [], []]"]


@asynchronous
async def test_commits_that_meet_share_a_flush(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Yet each one's begins after its call: what was written before the call is on the disk before the answer."""
    began: list[float] = []
    flush = BaseSnapshotter._flush

    def slow(self: BaseSnapshotter) -> None:
        began.append(time.monotonic())
        time.sleep(0.05)
        flush(self)

    monkeypatch.setattr(BaseSnapshotter, "_flush", slow)
    async with place.opened() as store:
        for number in range(8):
            await store.prepare(f"k{number}")

        async def committed(number: int) -> None:
            await asyncio.sleep(number * 0.01)
            called = time.monotonic()
            await store.commit(f"c{number}", f"k{number}")
            assert any(called <= start <= time.monotonic() - 0.05 for start in began)

        await asyncio.gather(*(committed(number) for number in range(8)))
    assert len(began) <= 4
