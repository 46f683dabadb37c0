"""Runs from a data set's layout to scores, resumed, repeated, in two processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import training_tools as tools
from click.testing import CliRunner

from jmt_edge.errors import ConfigError, DataError
from jmt_edge.training import splits
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, cut_windows
from jmt_edge.training.experiment import Prepared, TrainingOptions, make_splits, prepare, run_split
from jmt_edge.training.features import extract
from jmt_edge.training.networks import backbone_of
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import Masking, Recipe, from_dict, load_recipe, names
from jmt_edge.training.sets import mask
from jmt_edge.training.trainer import Device, one_cycle

QUICK = {"optimizer": "adamw", "lr": 3e-3, "batch": 16, "epochs": 3, "patience": 3}


def quick(**changes: object) -> Recipe:
    """A small EDA recipe: seconds on one core."""
    base = {
        "name": "quick", "title": "", "source": "", "task": "pain", "variant": "demo", "fusion": "unimodal",
        "modalities": ["eda"], "backbone": {"eda": "eda_cnn1d_centred"}, "eda_moments": [0.0, 0.1],
        "stages": {"eda": QUICK, "fusion": QUICK},
    }  # fmt: skip
    return from_dict({**base, **changes})


def options(folder: Path) -> TrainingOptions:
    return TrainingOptions(cache=folder / "cache", device=Device("cpu", quiet=True))


@pytest.fixture(scope="module")
def biovid(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(tools.write_biovid(tmp_path_factory.mktemp("biovid"), 6, 4, video=False))


@pytest.fixture(scope="module")
def prepared(biovid: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, TrainingOptions]:
    settings = options(tmp_path_factory.mktemp("kept"))
    return prepare(biovid, quick(), settings), settings


def test_every_recipe_resolves_and_survives_a_round_trip() -> None:
    for name in names():
        recipe = load_recipe(name)
        assert recipe.name == name
        recipe.resolve()
        assert from_dict(recipe.to_dict()) == recipe
    assert {load_recipe(n).row for n in names()} == set(range(13))


def test_recipes_hold_the_papers_values() -> None:
    jmt = load_recipe("biovid-jmt")
    fusion, face, eda = (jmt.stage(n) for n in ("fusion", "face", "eda"))
    assert (fusion.optimizer, fusion.lr, fusion.batch) == ("adam", 5e-6, 128)
    assert (face.optimizer, face.lr, face.batch) == ("sgd", 1e-3, 64)
    assert (eda.optimizer, eda.lr, eda.batch) == ("sgd", 1e-4, 1024)
    affect = load_recipe("affwild2-jmt")
    assert (affect.stage("face").dropout, affect.stage("voice").lr, affect.stage("fusion").epochs) == (0.8, 1e-2, 5)
    assert load_recipe("affwild2-rjcma").resolve().steps == 300


def test_flags_override_a_recipe() -> None:
    recipe = load_recipe("biovid-jmt", ["fusion.lr=1e-4", "lr=2e-4", "masking.modality=0.5", "variant=demo"])
    assert (recipe.stage("fusion").lr, recipe.masking.modality, recipe.variant) == (2e-4, 0.5, "demo")
    for wrong in ("fusion.speed=1", "nothing=1", "seed", "fusion.batch=many"):
        with pytest.raises(ConfigError):
            load_recipe("biovid-jmt", [wrong])
    with pytest.raises(ConfigError, match="unknown recipe"):
        load_recipe("biovid-jtm")


def test_a_run_learns_and_a_repetition_gives_the_same_numbers(
    prepared: tuple[Prepared, TrainingOptions], biovid: Cohort, tmp_path: Path
) -> None:
    data, settings = prepared
    (split,) = make_splits(biovid, "holdout", seed=0)
    first = run_split(data, split, tmp_path / "a", seed=0, options=replace(settings, cache=tmp_path / "c1"))
    again = run_split(data, split, tmp_path / "b", seed=0, options=replace(settings, cache=tmp_path / "c2"))
    other = run_split(data, split, tmp_path / "c", seed=1, options=replace(settings, cache=tmp_path / "c3"))
    assert (first.predictions.outputs["pain"] == again.predictions.outputs["pain"]).all()
    assert (first.predictions.outputs["pain"] != other.predictions.outputs["pain"]).any()
    assert first.scores.pooled["auc"] > 0.9
    assert set(first.predictions.subject) == set(split.test)
    kept = json.loads((tmp_path / "a" / "recipe.json").read_text())
    assert from_dict(kept) == quick()


def test_an_interrupted_stage_resumes_where_it_was(
    prepared: tuple[Prepared, TrainingOptions], biovid: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = prepared
    (split,) = make_splits(biovid, "holdout", seed=0)
    whole = run_split(data, split, tmp_path / "whole", seed=3, options=replace(settings, cache=tmp_path / "c1"))
    half = replace(settings, cache=tmp_path / "c2")
    tools.stop_before_epoch(1, monkeypatch)
    with pytest.raises(tools.Stopped):
        run_split(data, split, tmp_path / "stopped", seed=3, options=half)
    monkeypatch.undo()
    # the checkpoint of one epoch, and neither `finished` nor kept weights
    last = torch.load(tmp_path / "stopped" / "eda" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert not (tmp_path / "stopped" / "eda" / "finished.json").exists()
    resumed = run_split(data, split, tmp_path / "stopped", seed=3, options=half)
    assert np.allclose(whole.predictions.outputs["pain"], resumed.predictions.outputs["pain"], atol=1e-6)


@pytest.mark.parametrize("steps", [*range(1, 13), 100])
def test_the_cycle_of_rates_has_any_number_of_steps(steps: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], 1e-3)
    schedule = one_cycle(optimizer, 1e-3, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(1)
        optimizer.step()
        if len(rates) < steps:
            schedule.step()
    assert all(0 < r <= 1e-3 + 1e-9 for r in rates)
    if steps > 2:
        assert max(rates) > 9e-4
    if steps >= 10:  # as before
        same = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.2)
        assert schedule._schedule_phases == same._schedule_phases


def test_ddp_in_two_processes(prepared: tuple[Prepared, TrainingOptions], biovid: Cohort, tmp_path: Path) -> None:
    data, settings = prepared
    (split,) = make_splits(biovid, "holdout", seed=0)
    two = replace(settings, cache=tmp_path / "c", device=Device("cpu", devices=2, quiet=True))
    result = run_split(data, split, tmp_path / "ddp", seed=0, options=two)
    assert result.scores.pooled["auc"] > 0.9
    finished = json.loads((tmp_path / "ddp" / "eda" / "finished.json").read_text())
    assert finished["epochs"] == 3


def test_features_are_keyed_by_weights_and_data(prepared: tuple[Prepared, TrainingOptions], tmp_path: Path) -> None:
    data, _ = prepared
    store = data.stores["eda"]
    torch.manual_seed(0)
    backbone = backbone_of(data.task, data.task.modalities[0])
    first = extract(backbone, store, tmp_path)
    assert first.shape == (1, len(store.data), data.task.dim)
    assert np.allclose(first[0, :3], backbone(torch.from_numpy(store.load(np.arange(3)))).detach(), atol=1e-6)
    extract(backbone, store, tmp_path)
    assert len(list((tmp_path / "features").glob("*.npy"))) == 1
    with torch.no_grad():
        backbone.fc.bias += 1
    extract(backbone, store, tmp_path)
    extract(backbone, replace(store, content="other"), tmp_path)
    assert len(list((tmp_path / "features").glob("*.npy"))) == 3


def test_a_changed_file_is_another_clip_cache(tmp_path: Path) -> None:
    cohort = open_cohort(tools.write_biovid(tmp_path / "d", 1, 1, video=False))
    task = quick().resolve()
    key = build_clips(cut_windows(cohort, task), tmp_path, cohort.problems)["eda"].key
    assert build_clips(cut_windows(cohort, task), tmp_path, cohort.problems)["eda"].key == key
    file = cohort.trials[0].files["eda"]
    file.write_text(file.read_text().replace("\t0\t0\t0\t0\n", "\t0\t0\t0\t1\n", 1))
    assert build_clips(cut_windows(cohort, task), tmp_path, cohort.problems)["eda"].key != key


def test_bad_files_name_file_and_row_or_are_skipped(tmp_path: Path) -> None:
    tools.write_biovid(tmp_path, 2, 2, video=False)
    bad = sorted(tmp_path.rglob("*_bio.csv"))[0]
    lines = bad.read_text().splitlines()
    lines[9] = lines[9].replace(lines[9].split("\t")[1], "5,3")
    bad.write_text("\n".join(lines) + "\n")
    cohort = open_cohort(tmp_path)
    with pytest.raises(DataError, match="row 10") as error:
        build_clips(cut_windows(cohort, quick().resolve()), tmp_path / "c1", cohort.problems)
    assert str(bad) in str(error.value)
    for attempt in range(2):  # the second time the verdict comes from the cache
        cohort = open_cohort(tmp_path, skip_bad=True)
        stores = build_clips(cut_windows(cohort, quick().resolve()), tmp_path / "c2", cohort.problems)
        assert (stores["eda"].present.sum(), len(cohort.problems.bad)) == (7, 1), attempt


def test_a_corrupt_video_is_one_sentence(tmp_path: Path) -> None:
    tools.write_biovid(tmp_path, 1, 1)
    video = next(tmp_path.rglob("*.mp4"))
    video.write_bytes(b"not a video" * 100)
    cohort = open_cohort(tmp_path)
    task = replace(quick().resolve(), modalities=(load_recipe("demo-pain").resolve().modality("face"),))
    with pytest.raises(DataError, match="video") as error:
        build_clips(cut_windows(cohort, task), tmp_path, cohort.problems)
    assert video.name in str(error.value)


def test_a_fold_with_one_class_is_refused(
    prepared: tuple[Prepared, TrainingOptions], biovid: Cohort, tmp_path: Path
) -> None:
    data, settings = prepared
    subjects = biovid.subjects
    rest = np.flatnonzero(~((data.windows.subject != subjects[0]) & (data.windows.labels["pain"][:, -1] == 1)))
    one = replace(data, windows=data.windows.take(rest))
    split = splits.Split("x", tuple(subjects[2:]), (subjects[1],), (subjects[0],))
    with pytest.raises(DataError, match="class 0"):
        run_split(one, split, tmp_path / "run", seed=0, options=settings)


def test_masks_always_leave_something_to_see() -> None:
    g = torch.Generator().manual_seed(0)
    present = torch.ones(500, 4, 3)
    present[:100, :, 2] = 0
    out = mask(present, Masking(modality=0.5, step=0.5, warmup=0.5), g)
    assert (out[:, -1].sum(-1) >= 1).all()
    assert (out <= present).all()
    assert 0.2 < float(out.mean()) < 0.6
    assert torch.equal(mask(present, Masking(), g), present)


# ---- affect, both modalities, from the command line ------------------------------------------------------------


@pytest.fixture(scope="module")
def affwild2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.write_affwild2(tmp_path_factory.mktemp("affwild2"), 8, 300)


AFFECT = [
    "--set", "variant=demo", "--set", "steps=4", "--set", "shapes={\"face\": [3, 8, 32, 32]}",
    "--set", "face.epochs=1", "--set", "voice.epochs=1", "--set", "fusion.epochs=2", "--set", "augment.variants=2",
    "--set", "weights={}", "--workers", "1", "--accelerator", "cpu", "--threads", "1", "--quiet",
]  # fmt: skip


def test_affwild2_from_the_command_line(affwild2: Path, tmp_path: Path) -> None:
    from jmt_edge.cli import cli

    common = ["--data", str(affwild2), "--cache", str(tmp_path / "cache"), *AFFECT]
    run = CliRunner()
    done = run.invoke(cli, ["train", "--recipe", "affwild2-jmt", "--out", str(tmp_path / "run"), *common])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "published" in done.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["pooled"]) == {"ccc_valence", "ccc_arousal", "ccc_mean"}
    assert "ccc_valence_not_smoothed" in summary["extras"]
    bundle = tmp_path / "run" / "affwild2-jmt.jmt"
    again = run.invoke(cli, ["train", "--recipe", "affwild2-jmt", "--out", str(tmp_path / "run"), *common])
    assert again.output == done.output
    manifest = bundle / "manifest.json"
    kept = manifest.read_text()
    record = json.loads((tmp_path / "run" / "scores.json").read_text())
    checksum = bundle / "manifest.sha256"
    kept_checksum = checksum.read_text()
    manifest.write_text(kept.replace(record["key"], "0" * 20))
    checksum.write_text(f"{hashlib.sha256(manifest.read_bytes()).hexdigest()}  manifest.json\n")
    other = run.invoke(cli, ["train", "--recipe", "affwild2-jmt", "--out", str(tmp_path / "run"), *common])
    assert isinstance(other.exception, ConfigError)
    assert f"{bundle} is the bundle of another run; pass --overwrite" in str(other.exception)
    manifest.write_text(kept)
    checksum.write_text(kept_checksum)
    checked = run.invoke(
        cli,
        ["evaluate", str(bundle), "--data", str(affwild2), "--protocol", "official", "--cache", str(tmp_path / "cache"),
         "--workers", "1", "--quiet", "--no-robustness", "--out", str(tmp_path / "e")],
    )  # fmt: skip
    assert checked.exit_code == 0, checked.output + repr(checked.exception)
    assert "published" in checked.output
    results = json.loads((tmp_path / "e" / "results.json").read_text())["conditions"]["clean"]["pooled"]
    # onnxruntime on the exported bundle gives what torch gave on the run
    assert results["ccc_valence"] == pytest.approx(summary["pooled"]["ccc_valence"], abs=2e-3)
    assert {"attention.png", "ccc_valence.png", "over_time.png"} <= {f.name for f in (tmp_path / "e").iterdir()}
    refused = run.invoke(
        cli, ["evaluate", str(tmp_path / "run"), "--data", str(affwild2), "--protocol", "all", "--quiet",
              "--workers", "1", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "f")],
    )  # fmt: skip
    assert isinstance(refused.exception, DataError)
    assert "was trained on" in str(refused.exception)
