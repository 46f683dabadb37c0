"""The backbone `face_actions`: any recipe trains on measures of the face, exports them, and runs live."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from jmt_edge.capture import open_source
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.engine.novelty import DESCRIPTIONS
from jmt_edge.errors import ConfigError
from jmt_edge.live import Observer, Options, Result, run
from jmt_edge.models.backbones import build_backbone
from jmt_edge.preprocessing.actions import CHANNELS, LEVELS, SPREADS, as_measured, mirrored, normalise_measures
from jmt_edge.tasks import Task, get_task
from jmt_edge.training.experiment import TrainingOptions, export_run, load_run, make_splits, prepare, run_split
from jmt_edge.training.faults import DROPOUTS, conditions
from jmt_edge.training.recipes import Augment, load_recipe, names
from jmt_edge.training.sets import vary
from jmt_edge.training.streams import simulated_cohort
from jmt_edge.training.trainer import Device

MEASURED = "backbone.face=face_actions"
WITH_FACE = [n for n in names() if "face" in load_recipe(n).resolve().names and not load_recipe(n).second]


@pytest.mark.parametrize("name", WITH_FACE)
def test_every_recipe_takes_measures(name: str) -> None:
    before, recipe = load_recipe(name), load_recipe(name, [MEASURED])
    old, new = before.resolve().modality("face"), recipe.resolve().modality("face")
    assert new.shape == (len(CHANNELS), old.shape[1])  # as many frames
    assert (new.span, new.stride, new.end) == (old.span, old.stride, old.end)
    assert "face" not in recipe.weights and new.measured and not old.measured
    assert Task.from_dict(json.loads(json.dumps(recipe.resolve().to_dict()))) == recipe.resolve()
    assert build_backbone(new.backbone, new.shape, new.width, 16)(torch.zeros(2, *new.shape)).shape == (2, 16)


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ("demo-pain", "backbone.eda=face_actions"),
        ("demo-pain", "backbone.face=face_actions+r3d_18"),
        ("affwild2-jmt-intra-fc", "second=face_actions"),
    ],
)
def test_measures_go_with_no_other_network(recipe: str, change: str) -> None:
    with pytest.raises(ConfigError, match="use it alone, with backbone"):
        load_recipe(recipe, [change])


def test_a_clip_of_measures_is_normalised_and_mirrored() -> None:
    m = as_measured(get_task("pain", "demo").modality("face"))
    clip = np.tile(np.array(LEVELS, np.float32), (m.shape[1], 1))
    np.testing.assert_allclose(normalise_measures(clip, m), 0, atol=1e-6)
    clip[3] += np.array(SPREADS, np.float32)
    np.testing.assert_allclose(normalise_measures(clip, m)[:, 3], 1, atol=1e-4)
    clip = np.random.default_rng(0).normal(size=(4, 10, len(CHANNELS))).astype(np.float32)
    other = mirrored(clip)
    np.testing.assert_array_equal(mirrored(other), clip)
    np.testing.assert_array_equal(other[..., CHANNELS.index("eye_left")], clip[..., CHANNELS.index("eye_right")])
    np.testing.assert_array_equal(other[..., CHANNELS.index("yaw")], -clip[..., CHANNELS.index("yaw")])
    np.testing.assert_array_equal(other[..., CHANNELS.index("jaw")], clip[..., CHANNELS.index("jaw")])
    # crops and brightness are of pictures; a flip is of both
    plain = normalise_measures(clip, m)
    pictures = Augment(crop=4, brightness=0.3)
    np.testing.assert_array_equal(vary(clip, m, pictures, np.random.default_rng(1)), plain)
    flipped = vary(clip, m, Augment(flip=True), np.random.default_rng(1))
    turned = [bool((a != b).any()) for a, b in zip(flipped, plain)]
    assert any(turned) and not all(turned)
    np.testing.assert_array_equal(
        flipped, [normalise_measures(mirrored(c), m) if f else p for c, f, p in zip(clip, turned, plain)]
    )


def test_faults_of_a_picture_are_not_among_those_of_measures() -> None:
    found = conditions(load_recipe("demo-pain", [MEASURED]).resolve())
    assert {name for name, faults in found.items() if set(faults) == {"face"}} == {f"{DROPOUTS}, face"}


def test_what_describes_a_clip_of_measures_is_level_and_movement() -> None:
    still = np.random.default_rng(0).normal(size=(5, 11, 1)).repeat(10, 2).astype(np.float32)
    moving = still + np.sin(np.arange(10, dtype=np.float32))
    calm, lively = DESCRIPTIONS["face"](still), DESCRIPTIONS["face"](moving)
    assert calm.shape == (5, 22)
    np.testing.assert_allclose(calm[:, :11], still[..., 0], rtol=1e-5)
    assert (lively[:, 11:] > calm[:, 11:] + 1).all()


class Watch(Observer):
    def __init__(self) -> None:
        self.results: list[Result] = []

    def on_result(self, result: Result) -> None:
        self.results.append(result)


def test_it_trains_exports_and_runs_live(tmp_path: Path) -> None:
    """A small cohort of drawn people; what the network learns from a large one is in docs/reference/actions.md."""
    short = [f"{stage}.epochs=2" for stage in ("face", "eda", "fusion")]
    recipe = load_recipe("demo-pain", [MEASURED, *short])
    cohort = simulated_cohort(recipe.resolve(), subjects=8, windows=6, seed=3)
    options = TrainingOptions(cache=tmp_path / "cache", device=Device("cpu", quiet=True))
    prepared = prepare(cohort, recipe, options)
    store = prepared.stores["face"]
    assert store.data.shape[1:] == (10, len(CHANNELS)) and store.present.mean() > 0.8
    level = store.load(np.flatnonzero(store.present)).mean((0, 2))
    assert np.abs(level).max() < 5  # drawn faces, in SDs of real ones: the units are the same
    (split,) = make_splits(cohort, "holdout", seed=0)
    result = run_split(prepared, split, tmp_path / "run", seed=0, options=options)
    assert np.isfinite(result.scores.pooled["auc"])
    target = tmp_path / "measured.jmt"
    export_run(result, target, prepared=prepared, name="measured", demo=True, overwrite=False, options=options)
    bundle = load_bundle(target)
    assert bundle.task.modality("face").measured
    # the engine computes what the trained network does
    rows = np.flatnonzero(store.present)[:4]
    clips = store.load(rows)
    engine = open_engine(bundle, "onnxruntime", 1)
    backbone = load_run(tmp_path / "run")[1]["face"]
    with torch.no_grad():
        expected = backbone(torch.from_numpy(clips)).numpy()
    np.testing.assert_allclose(engine.backbones({"face": clips})["face"], expected, atol=1e-4)
    watch = Watch()
    sources = {name: open_source(name, "sim:seed=12") for name in ("face", "eda")}
    live = Options(realtime=False, duration=8.0, novelty="off", actions=True)
    run(bundle, engine, {n: s for n, s in sources.items() if s is not None}, live, [watch])
    last = watch.results[-1]
    assert last.outputs is not None and last.used == ["face", "eda"]
    assert last.actions is not None and last.actions["measures"] is not None
