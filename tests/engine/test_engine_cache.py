"""The plan cache: every part of the key matters, and a damaged entry is a miss."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from jmt_edge.compiler.plan_cache import PlanCache, PlanKey, cache_root
from jmt_edge.engine.device import current_device, l4t_release
from jmt_edge.errors import BackendError, ConfigError, UserError
from jmt_edge.models.folding import FoldedPlan

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


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
DEEP = "[" * 100_000


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["key", "sha256", "report", ""]), ANYTHING)
def test_an_entry_of_any_shape_is_a_hit_or_a_miss(tmp_path: Path, name: str, value: object) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", {"a": 1})
    file = tmp_path / KEY.digest() / "entry.json"
    entry = json.loads(file.read_text())
    file.write_text(json.dumps({**entry, name: value} if name else value))
    found = cache.get(KEY)
    report = json.loads(json.dumps(value))
    assert found is None or found == (b"plan", report if name == "report" else {"a": 1}) or value != value
    file.write_text(DEEP)
    assert cache.get(KEY) is None


@settings(max_examples=100, deadline=None)
@given(ANYTHING.map(json.dumps) | st.just(DEEP) | st.text(max_size=20))
def test_a_fusion_plan_of_any_shape_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        FoldedPlan.from_safetensors(save({"tokens": np.zeros(2, np.float32)}, {"plan": text}))
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANYTHING.map(json.dumps) | st.just(DEEP) | st.text(max_size=20))
def test_a_benchmark_report_of_any_shape_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    from jmt_edge.bench.compare import load_report

    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError) as error:
        load_report(tmp_path / "report.json")
    assert "\n" not in str(error.value)


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
