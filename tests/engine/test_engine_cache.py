"""The plan cache: every part of the key matters, and a damaged entry is a miss."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from jmt_edge.compiler.plan_cache import PlanCache, PlanKey, cache_root
from jmt_edge.engine.device import current_device, l4t_release
from jmt_edge.errors import BackendError

KEY = PlanKey("g", "s", "fp16", "", "tensorrt", "10.3.0", "12.6", "sm_87", "36.4", "{}")


def test_only_the_same_key_hits(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", {"layers": 3})
    assert cache.get(KEY) == (b"plan", {"layers": 3})
    for field in fields(PlanKey):
        other = replace(KEY, **{field.name: getattr(KEY, field.name) + "x"})
        assert cache.get(other) is None, field.name


def test_a_key_whose_hash_collides_still_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlanKey, "digest", lambda self: "same")
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", {})
    assert cache.get(replace(KEY, target="sm_110")) is None


@pytest.mark.parametrize("file", ["plan.bin", "entry.json"])
@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_damage_is_a_miss_and_is_mended(tmp_path: Path, file: str, damage: bytes | None) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", {})
    target = tmp_path / KEY.digest() / file
    target.unlink() if damage is None else target.write_bytes(damage)
    assert cache.get(KEY) is None
    cache.put(KEY, b"plan", {})
    assert cache.get(KEY) == (b"plan", {})


def test_an_unwritable_cache_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="cannot write the plan to"):
        PlanCache(tmp_path / "file").put(KEY, b"plan", {})


def test_cache_root_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "jmt-edge" / "plans"


def test_l4t_is_read_from_the_release_file(tmp_path: Path) -> None:
    assert l4t_release(tmp_path) == ""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    assert l4t_release(tmp_path) == "36.4.3"


def test_without_a_driver_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")

    def missing(flags: int) -> None:
        raise RuntimeError("libcuda.so.1 not found")

    monkeypatch.setattr(driver, "cuInit", missing)
    with pytest.raises(BackendError, match=r"no NVIDIA driver here \(libcuda\.so\.1 not found\)"):
        current_device()
