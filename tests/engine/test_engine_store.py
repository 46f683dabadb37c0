"""A unit's bundles: whole or not at all, one in use, the last good one kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import Bundle, load_bundle, write_bundle
from jmt_edge.engine.store import Store
from jmt_edge.errors import BundleError
from jmt_edge.tasks import get_task

CommandLine = Callable[..., tuple[int, str, str]]


def made(folder: Path, name: str, content: bytes = b"graph") -> Path:
    manifest = {"name": name, "task": get_task("pain").to_dict(), "networks": {}}
    return write_bundle(folder / f"{name}-{len(content)}.jmt", manifest, {"nets/a.onnx": content}).path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_add_use_and_go_back(store: Store, tmp_path: Path) -> None:
    old, new = made(tmp_path, "pain"), made(tmp_path, "pain", b"a better graph")
    first, fresh = store.add(old)
    assert fresh and store.add(old) == (first, False)
    second, _ = store.add(new)
    assert sorted(store.names()) == sorted([first, second]) and store.current is None
    with pytest.raises(BundleError, match="bundle use"):
        store.current_path()
    store.use(first)
    assert store.use(second) == store.current == second and store.previous == first
    copy = load_bundle(store.current_path())
    assert copy.id == second and copy.read("nets/a.onnx") == b"a better graph"
    assert load_bundle(store.folder / "current").id == second  # the link works too
    assert store.rollback() == first and (store.current, store.previous) == (first, second)
    assert store.use(first) == first and store.previous == second  # to use it again forgets nothing
    assert store.rollback() == second


def test_what_is_damaged_is_neither_added_nor_used_and_the_good_one_stays(store: Store, tmp_path: Path) -> None:
    good, _ = store.add(made(tmp_path, "good"))
    bad, _ = store.add(made(tmp_path, "bad"))
    store.use(good)
    file = store.folder / f"{bad}.jmt" / "nets" / "a.onnx"
    file.write_bytes(b"grapf")
    with pytest.raises(BundleError, match="altered"):
        store.use(bad)
    broken = made(tmp_path, "broken")
    (broken / "nets" / "a.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="altered"):
        store.add(broken)
    assert store.current == good and not list(store.folder.glob(".partial*"))
    file.write_bytes(b"graph")
    store.use(bad)
    shutil.rmtree(store.folder / f"{good}.jmt")
    with pytest.raises(BundleError, match="nothing to go back to"):
        store.rollback()
    assert store.current == bad


def test_an_id_of_another_bundle_is_not_there_already(store: Store, tmp_path: Path) -> None:
    """An id has eight digits of the hash, and a bundle can be made to have them."""
    source = made(tmp_path, "a")
    name, new = store.add(source)
    (store.folder / ".partial-lost").mkdir()  # by a unit that lost its power
    assert new and store.add(source) == (name, False)
    assert not list(store.folder.glob(".partial-*"))

    def forged(path: Path) -> Bundle:
        bundle = load_bundle(path)
        return replace(bundle, sha256=bundle.sha256[:8] + "0" * 56) if path == source else bundle

    with pytest.raises(BundleError, match="is another bundle than the a@"):
        Store(store.folder, forged).add(source)


def test_names_that_do_not_tell(store: Store, tmp_path: Path) -> None:
    for content in (b"1", b"22"):
        store.add(made(tmp_path, "pain", content))
    with pytest.raises(BundleError, match="several bundles begin with 'pain'"):
        store.use("pain")
    with pytest.raises(BundleError, match="no bundle 'x' was added; there are: pain@"):
        store.use("x")


def test_a_service_of_another_user_can_read_what_root_added(store: Store, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        name, _ = store.add(made(tmp_path, "pain"))
        store.use(name)
    finally:
        os.umask(before)
    for path in (store.folder, *store.folder.rglob("*")):
        if not path.is_symlink() and path.name != ".lock":
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize("at", range(9))
def test_a_unit_that_loses_its_power_while_it_switches_has_the_old_pair_or_the_new(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The process dies before the `at`-th change of the file system that a switch makes."""
    import jmt_edge.engine.store as module

    names = [store.add(made(tmp_path, name))[0] for name in ("a", "b", "c")]
    store.use(names[0])
    store.use(names[1])

    class PowerLostError(BaseException):
        pass

    left = at

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                raise PowerLostError
            left -= 1
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", counted(Path.symlink_to))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(module, "_to_disk", counted(module._to_disk))
        patch.setattr(module.shutil, "rmtree", counted(shutil.rmtree))
        with suppress(PowerLostError):
            store.use(names[2])
    pair = (store.current, store.previous)
    assert pair in ((names[1], names[0]), (names[2], names[1]))
    assert load_bundle(store.folder / "current").id == pair[0]
    store.use(names[0])  # the next switch works, whatever the last one left
    assert (store.current, store.previous) == (names[0], pair[0])
    assert len(list((store.folder / ".states").iterdir())) == 1


def test_the_commands(command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JMT_EDGE_BUNDLES", str(tmp_path / "store"))
    code, out, _ = command_line("bundle", "add", demo_bundle("pain"), "--use")
    assert code == 0
    name = out.split()[0]
    assert out.splitlines() == [f"{name} added", f"{name} is in use"]
    assert command_line("bundle", "add", made(tmp_path, "other"), "--use")[0] == 0
    assert command_line("bundle", "list")[1].splitlines()[-1] == f"{name}  before"
    assert command_line("bundle", "rollback")[1] == f"{name} is in use again\n"
    code, _, err = command_line(
        "live", "--bundle", "current", "--duration", "1", "--speed", "max", "--output", "none", "--threads", "1"
    )
    assert code == 0 and f"{name}, onnxruntime" in err
    code, _, err = command_line("bundle", "use", "nothing")
    assert code == 2 and len(err.splitlines()) == 1
    assert command_line("bundle", "use", "other")[0] == 0


def test_only_what_somebody_signed(command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    trusted = tmp_path / "home/.config/jmt-edge/trusted"
    trusted.mkdir(parents=True, mode=0o755)
    trusted.chmod(0o755)
    place = tmp_path / "store"
    bundle = made(tmp_path, "pain")
    assert command_line("keygen", tmp_path / "lab.key")[0] == 0
    shutil.copyfile(tmp_path / "lab.key.pub", trusted / "lab.pub")
    code, _, err = command_line("bundle", "add", bundle, "--require-signed", "--store", place)
    assert code == 2 and "is not signed" in err
    assert command_line("sign", bundle, "--key", tmp_path / "lab.key")[0] == 0
    assert command_line("bundle", "add", bundle, "--require-signed", "--use", "--store", place)[0] == 0
    (copy,) = place.glob("*.jmt")
    assert (copy / "signature.json").is_file()
    os.remove(trusted / "lab.pub")
    code, _, err = command_line("bundle", "use", "pain", "--require-signed", "--store", place)
    assert code == 2 and "jmt-edge: " in err
