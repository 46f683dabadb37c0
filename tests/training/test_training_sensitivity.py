"""What noise that nobody can see does to a bundle's outputs: found by one function, written down and printed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from live_fixture import hand_bundle

from jmt_edge.capture.base import LazyFrames
from jmt_edge.capture.simulated import open_simulated
from jmt_edge.clips.cut import cut_clips
from jmt_edge.clips.cutter import network_input
from jmt_edge.clips.plan import time_key
from jmt_edge.engine.bundle import load_bundle, write_bundle
from jmt_edge.errors import BundleError
from jmt_edge.media.chunk import Chunk
from jmt_edge.tasks import get_task
from jmt_edge.training.data import Cohort, cut_windows
from jmt_edge.training.evaluation import evaluate
from jmt_edge.training.experiment import TrainingOptions
from jmt_edge.training.faults import GREY_NOISE, spoiled
from jmt_edge.training.limits import with_limits
from jmt_edge.training.sensitivity import LIMITS, PEOPLE, Sensitivity, measure, some
from jmt_edge.training.streams import simulated_cohort

TASK = get_task("pain", "demo")


class Frames:
    def __init__(self, values: object) -> None:
        self.values = values

    def open(self, origin: float) -> None: ...

    def read(self, until: float) -> Chunk:
        return Chunk(np.array([0.0, 0.04, 0.08]), self.values)

    def close(self) -> None: ...


def test_each_value_of_a_frame_is_one_level_off_or_as_it_is() -> None:
    looked_at = []

    def make(i: int) -> np.ndarray | None:
        looked_at.append(i)
        return None if i == 2 else np.full((40, 60, 3), (0, 128)[i], np.uint8)

    found = [spoiled(Frames(LazyFrames(make, range(3))), "face", GREY_NOISE, "a", 1.0).read(1.0).values for _ in "ab"]
    assert not looked_at  # nobody asked for a frame
    assert set(np.unique(found[0][0])) == {0, 1} and set(np.unique(found[0][1])) == {127, 128, 129}
    assert found[0][2] is None
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert (found[0][0].astype(int) != found[0][1].astype(int) - 128).any()


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulated_cohort(TASK, subjects=2, windows=2, seed=77)


def test_the_change_is_that_of_clips_cut_by_hand(cohort: Cohort, tmp_path: Path) -> None:
    """The networks of `hand_bundle`: pain's logits are (0, the clips' means summed)."""
    bundle = hand_bundle(TASK, tmp_path / "hand.jmt")
    found = measure(bundle, cohort, TrainingOptions(cache=tmp_path / "cache"))
    changes = []
    for trial in cohort.trials:
        ends = [end + TASK.modality("face").end for end in trial.ends]
        spec = str(trial.files["face"])
        plain, noisy = open_simulated("face", spec, lazy=True), open_simulated("face", spec, lazy=True)
        shaken = spoiled(noisy, "face", GREY_NOISE, trial.id, trial.duration)
        faces = [dict(cut_clips(source, TASK, "face", ends)) for source in (plain, shaken)]
        skin = dict(cut_clips(open_simulated("eda", spec), TASK, "eda", trial.ends))
        for end, at in zip(ends, trial.ends):
            level = network_input(skin[time_key(at)].signal, TASK.modality("eda")).mean()
            sums = [level + network_input(f[time_key(end)].signal, TASK.modality("face")).mean() for f in faces]
            before, after = (1 / (1 + math.exp(-s)) for s in sums)
            changes.append(abs(before - after))
    assert (found.people, found.windows) == (2, 4)
    assert found.outputs["pain"]["largest"] == pytest.approx(max(changes), rel=1e-2, abs=1e-6) and max(changes) > 0
    assert found.outputs["pain"]["p95"] == pytest.approx(np.percentile(changes, 95), rel=1e-2, abs=1e-6)
    assert found.outputs["pain"]["within"] == 1 and found.outputs["pain"]["limit"] == LIMITS["pain"]


def test_evaluate_prints_it_and_keeps_it(cohort: Cohort, tmp_path: Path) -> None:
    bundle = hand_bundle(TASK, tmp_path / "hand.jmt")
    options = TrainingOptions(cache=tmp_path / "cache")
    lines = evaluate(bundle.path, cohort, tmp_path / "out", protocol="", options=options)
    wanted = measure(bundle, cohort, options).lines()
    assert len(wanted) == 1 and wanted[0].startswith("noise of ±1 grey level (4 windows of 2 people): pain changes by")
    assert wanted[0] in lines and wanted[0].split(":")[0] in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert '"within": 1.0' in (tmp_path / "out" / "sensitivity.json").read_text()
    clean = evaluate(bundle.path, cohort, tmp_path / "clean", protocol="", options=options, robustness=False)
    assert not any("grey level" in line for line in clean)


def test_people_are_spread_and_windows_are_the_first() -> None:
    windows = cut_windows(simulated_cohort(TASK, subjects=9, windows=6, seed=3), TASK)
    table = some(windows)
    people = np.unique(windows.subject)
    assert sorted(set(table.subject)) == [people[0], people[4], people[8]] and PEOPLE == 3
    assert len(table) == 18 and len(table.clips["face"]) == 18


def test_it_is_written_beside_the_networks_and_checked(tmp_path: Path) -> None:
    bundle = hand_bundle(TASK, tmp_path / "hand.jmt")
    known = Sensitivity(3, 120, {"pain": {"limit": 0.03, "within": 0.99, "p95": 0.01, "largest": 0.04}})
    written = with_limits(bundle, {}, None, known)
    assert load_bundle(written.path).manifest["sensitivity"] == known.to_manifest()
    assert "sensitivity" not in with_limits(written, {}, None, Sensitivity(0, 0, {})).manifest
    entry = known.to_manifest()
    entry["outputs"]["pain"]["within"] = 2
    with pytest.raises(BundleError, match=r"sensitivity\.outputs\.pain\.within"):
        write_bundle(tmp_path / "x.jmt", {**bundle.manifest, "sensitivity": entry}, bundle.files)
