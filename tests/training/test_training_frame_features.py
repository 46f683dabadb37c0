"""Precomputed features: what is read of each kind of file, at which times, and that a recipe trains on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training_tools import write_biovid

from jmt_edge.clips.cutter import network_input
from jmt_edge.errors import ConfigError, DataError
from jmt_edge.tasks import get_task
from jmt_edge.training.data import Labels, Trial
from jmt_edge.training.experiment import TrainingOptions, exportable, make_splits, prepare, require_fit, run_split
from jmt_edge.training.frame_features import RATE, as_precomputed, cut_features, read_frames, with_features
from jmt_edge.training.novelty import fit_windows
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.search import _changed
from jmt_edge.training.trainer import Device

OPENFACE = "frame, face_id, timestamp, confidence, success, gaze_angle_x, pose_Tx, pose_Rx, x_0, AU04_r, AU12_r, AU04_c"
PY_FEAT = "frame,approx_time,FaceRectX,FaceScore,Pitch,AU04,AU12,anger,input"


def openface(path: Path, rows: int = 60, rate: float = 30.0) -> Path:
    """AU04 is the time; every tenth frame shows no face; a second face in the third frame."""
    lines = [OPENFACE]
    for i in range(rows):
        seen = int(i % 10 != 9)
        lines.append(f"{i + 1}, 0, {i / rate:.3f}, 0.98, {seen}, 0.1, 5.5, 0.2, 300, {i / rate:.3f}, 1.5, 1")
        if i == 2:
            lines.append(f"{i + 1}, 1, {i / rate:.3f}, 0.98, 1, 9, 9, 9, 9, 9, 9, 1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_of_openface_the_actions_and_the_pose_are_used(tmp_path: Path) -> None:
    frames = read_frames(openface(tmp_path / "a.csv"), duration=99.0)
    assert frames.names == ("gaze_angle_x", "pose_Rx", "AU04_r", "AU12_r")
    assert frames.values.shape == (60, 4) and frames.times[-1] == pytest.approx(59 / 30, abs=1e-3)
    assert np.isnan(frames.values[9]).all() and frames.values[2].max() < 9  # no face; not the second face


def test_of_py_feat_frames_are_spread_over_the_trial(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rows = [f"{10 * i},00:0{i},120.5,0.99,3.1,{i / 10},{'' if i == 2 else 0.4},0.01,/videos/a.mp4" for i in range(5)]
    file.write_text("\n".join([PY_FEAT, *rows]) + "\n")
    frames = read_frames(file, duration=2.5)
    assert frames.names == ("Pitch", "AU04", "AU12")
    assert frames.times == pytest.approx([0, 0.5, 1.0, 1.5, 2.0]) and np.isnan(frames.values[2, 2])


def test_an_array_is_spread_evenly_and_another_table_is_used_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(20, dtype=np.float64).reshape(10, 2))
    frames = read_frames(tmp_path / "a.npy", duration=5.0)
    assert frames.times == pytest.approx(np.arange(10) / 2) and frames.values[3].tolist() == [6, 7]
    (tmp_path / "b.csv").write_text("time,f0,f1\n0.0,1,2\n0.5,3,\n")
    frames = read_frames(tmp_path / "b.csv", duration=5.0)
    assert frames.names == ("f0", "f1") and frames.times.tolist() == [0, 0.5] and np.isnan(frames.values[1, 1])


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", "time,f0\n0.0,x\n", "row 2"),
        ("a.csv", "time,f0\n1.0,1\n0.5,1\n", "order of time"),
        ("a.csv", "frame,success\n1,1\n", "no column of features"),
        ("a.csv", "time,f0\n", "no data row"),
        ("a.npy", "text", "not a readable array"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: str, part: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=part):
        read_frames(tmp_path / name, 1.0)


@pytest.mark.parametrize("name", ["face", "voice", "eda"])
def test_a_clip_holds_the_newest_rows_and_nothing_later(name: str, tmp_path: Path) -> None:
    """AU04 is the time, so a clip of it must be the moments of the clip, each up to a frame late."""
    file = openface(tmp_path / "t.csv", rows=300)
    m = as_precomputed(replace(get_task("trimodal").modality(name), span=2.0), tmp_path)
    assert m.shape == (4, 20) and m.precomputed
    trial = Trial("t", "s", {name: file}, 10.0, Labels(np.zeros(1), {}))
    clips, present = cut_features(trial, m, [6.0, 1.0, 0.5, 40.0])
    assert present.tolist() == [1, 1, 0, 0]  # half of it there; a quarter; long after the end
    au04 = network_input(clips, m)[:, 2]
    assert network_input(clips, m).shape == (4, 4, 20)
    late = 4 + (np.arange(20) + 1) / RATE - au04[0]
    assert late.min() > -1e-3 and late.max() < 2 / 30 + 1e-3
    assert (au04[1, :9] == 0).all() and au04[1, -1] == pytest.approx(1.0, abs=0.07)


def test_columns_are_taken_by_their_names(tmp_path: Path) -> None:
    """A file with another order is read alike; one with other features of the same number is refused."""
    rows = "".join(f"{t / 10},1,2\n" for t in range(100))
    for name, columns in (("a", "AU04_r,AU12_r"), ("b", "AU12_r,AU04_r"), ("c", "AU12_r,AU26_r")):
        (tmp_path / f"{name}.csv").write_text(f"timestamp,{columns}\n{rows}")
    m = as_precomputed(get_task("pain").modality("eda"), tmp_path)
    a, b, c = (Trial(n, "s", {"eda": tmp_path / f"{n}.csv"}, 10.0, Labels(np.zeros(1), {})) for n in "abc")
    assert network_input(cut_features(a, m, [6.0])[0], m)[0, :, -1].tolist() == [1, 2]
    assert network_input(cut_features(b, m, [6.0])[0], m)[0, :, -1].tolist() == [2, 1]
    with pytest.raises(DataError, match=r"AU26_r.* and others 2 .AU04_r, AU12_r.*export all alike"):
        cut_features(c, m, [6.0])


def test_a_recipe_takes_the_features_of_a_folder(tmp_path: Path) -> None:
    openface(tmp_path / "of" / "x.csv")
    recipe = load_recipe("biovid-jmt", [f"features.face={tmp_path / 'of'}"])
    face = recipe.resolve().modality("face")
    assert face.shape == (4, 30) and face.backbone == "frame_features" and "face" not in recipe.weights
    assert not exportable(recipe, recipe.resolve())
    for wrong in ("features.voice=x", "features.face=x"):
        with pytest.raises((ConfigError, DataError), match=r"no voice|no folder x"):
            load_recipe("biovid-jmt", [wrong])
    with pytest.raises(ConfigError, match="second"):
        load_recipe("affwild2-jmt-intra-fc", [f"features.face={tmp_path / 'of'}"])


@pytest.mark.parametrize("name", ["voice", "eda"])
def test_features_of_no_picture_describe_no_novelty(name: str, tmp_path: Path) -> None:
    """What describes a spectrogram or a conductance does not describe them; a fit ended in a traceback."""
    cohort = open_cohort(write_biovid(tmp_path / "data", subjects=2, trials=2, video=False))
    (tmp_path / "npy").mkdir()
    for trial in cohort.trials:
        np.save(tmp_path / "npy" / f"{trial.id}.npy", np.ones((55, 3)))
    recipe = load_recipe("demo-trimodal", [f"features.{name}={tmp_path / 'npy'}"])
    task = recipe.resolve()
    m = task.modality(name)
    table = SimpleNamespace(subject=np.zeros(2), rows={name: np.arange(2)})
    assert m.precomputed and fit_windows(replace(task, modalities=(m,)), table, table, ({}, {})) == {}  # type: ignore


def test_a_setting_of_a_grid_has_its_own_features(tmp_path: Path) -> None:
    cohort = open_cohort(write_biovid(tmp_path / "data", subjects=2, trials=2, video=False))
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        for trial in cohort.trials:
            np.save(tmp_path / folder / f"{trial.id}.npy", np.full((55, 3), value))
    a, b = (load_recipe("demo-pain", [f"features.face={tmp_path / name}"]) for name in "ab")
    options = TrainingOptions(cache=tmp_path / "cache", device=Device("cpu", quiet=True))
    prepared = prepare(cohort, a, options)
    other = _changed(prepared, b, options)
    assert (prepared.stores["face"].load(np.arange(1)).max(), other.stores["face"].load(np.arange(1)).max()) == (1, 2)
    assert _changed(prepared, a, options).stores is prepared.stores
    for trial in cohort.trials[1:]:  # a folder that lacks trials takes none from the next setting
        (tmp_path / "a" / f"{trial.id}.npy").unlink()
    fewer = prepare(cohort, a, options)
    faces = [sum("face" in t.files for t in p.cohort.trials) for p in (fewer, _changed(fewer, b, options))]
    assert faces == [1, len(cohort.trials)]


def test_a_data_set_without_video_trains_on_features_and_eda(tmp_path: Path) -> None:
    """The face's features tell pain, so a small run must find it."""
    cohort = open_cohort(write_biovid(tmp_path / "data", subjects=6, trials=4, video=False))
    rng = np.random.default_rng(0)
    for trial in cohort.trials[1:]:
        pain = float(trial.labels.values["pain"][0])
        (tmp_path / "npy").mkdir(exist_ok=True)
        np.save(tmp_path / "npy" / f"{trial.id}.npy", rng.normal(2 * pain, 0.3, (55, 3)))
    epochs = [f"{stage}.epochs=8" for stage in ("face", "eda", "fusion")]
    recipe = load_recipe("demo-pain", [f"features.face={tmp_path / 'npy'}", *epochs])
    found = with_features(cohort, recipe.features)
    assert sum("face" in t.files for t in found.trials) == len(cohort.trials) - 1
    assert cohort.problems.absent["face features of a trial"] == 1
    options = TrainingOptions(cache=tmp_path / "cache", device=Device("cpu", quiet=True))
    require_fit(cohort, recipe)
    prepared = prepare(cohort, recipe, options)
    assert cohort.problems.absent["face features of a trial"] == 1  # however often it was looked for
    assert prepared.stores["face"].present.all() and prepared.stores["face"].data.shape[1:] == (30, 3)
    (split,) = make_splits(prepared.cohort, "holdout", seed=0)
    result = run_split(prepared, split, tmp_path / "run", seed=0, options=options)
    assert result.scores.pooled["auc"] > 0.9
    with pytest.raises(DataError, match="has no features for the trials"):
        with_features(cohort, {"face": str(tmp_path)})
