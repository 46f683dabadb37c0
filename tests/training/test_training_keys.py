"""What is resumed, found again or read back belongs to this command: data, split, seed, recipe, code and weights.

The oracle is an equal command in an empty folder with an empty cache, or the equality of the conditions themselves.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_tools as tools
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.cli import cli
from jmt_edge.errors import ConfigError, DataError
from jmt_edge.training import keys
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, cut_windows
from jmt_edge.training.demo import train_demo
from jmt_edge.training.experiment import (
    Prepared,
    TrainingOptions,
    backbone_key,
    make_splits,
    prepare,
    run_key,
    run_split,
)
from jmt_edge.training.keys import CLIP_CODE, CODE, Key, claim, clip_key, foresee
from jmt_edge.training.networks import pretraining
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import Recipe, from_dict, load_recipe
from jmt_edge.training.scores import Predictions
from jmt_edge.training.search import run_splits, with_values
from jmt_edge.training.sets import clip_set
from jmt_edge.training.streams import simulated_cohort
from jmt_edge.training.trainer import Device

STAGE = {"optimizer": "adamw", "lr": 3e-3, "batch": 16, "epochs": 2, "patience": 3}
CPU = Device("cpu", quiet=True)


def small(**changes: Any) -> Recipe:
    return from_dict({
        "name": "small", "title": "", "source": "", "task": "pain", "variant": "demo", "fusion": "unimodal",
        "modalities": ["eda"], "backbone": {"eda": "eda_cnn1d_centred"}, "eda_moments": [0.0, 0.1],
        "stages": {"eda": STAGE}, **changes,
    })  # fmt: skip


def train(data: Path, out: Path, *arguments: str, recipe: str = "biovid-eda") -> Any:
    return CliRunner().invoke(
        cli,
        ["train", "--recipe", recipe, "--data", str(data), "--out", str(out), "--cache", str(out.parent / "cache"),
         "--variant", "demo", "--workers", "1", "--accelerator", "cpu", "--threads", "1", "--quiet",
         "--set", "eda.epochs=2", "--set", "eda.batch=8", "--protocol", "holdout", *arguments],
    )  # fmt: skip


def refusal(done: Any) -> str:
    """The sentence of a refused command."""
    assert isinstance(done.exception, ConfigError), done.output + repr(done.exception)
    assert done.exception.exit_code == 2
    said = str(done.exception)
    assert "\n" not in said
    assert "choose another --out or remove" in said
    return said


def logits(out: Path) -> np.ndarray:
    return Predictions.load(out / "predictions.npz").outputs["pain"]


@pytest.fixture
def biovid(tmp_path: Path) -> Path:
    return tools.write_biovid(tmp_path / "data", 6, 4, video=False)


def swap_labels(data: Path) -> None:
    """Each sample of samples.csv gets the other class."""
    file = data / "PartA" / "starting_point" / "samples.csv"
    head, *rows = file.read_text().splitlines()
    swapped = []
    for row in rows:
        cells = row.split("\t")
        cells[3] = {"BL1": "PA4", "PA4": "BL1"}[cells[3]]
        swapped.append("\t".join(cells))
    file.write_text("\n".join([head, *swapped]) + "\n")


# ---- the two leaks -----------------------------------------------------------------------------------------------


def test_another_seed_does_not_resume_an_interrupted_run(
    biovid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    tools.stop_before_epoch(1, monkeypatch)
    assert isinstance(train(biovid, out, "--seed", "0").exception, tools.Stopped)
    monkeypatch.undo()
    assert (out / "eda" / "checkpoints" / "last.ckpt").is_file()
    said = refusal(train(biovid, out, "--seed", "1"))
    assert str(out) in said
    assert "seed = 0, not 1" in said
    assert not list((tmp_path / "cache" / "backbones").glob("*.safetensors"))
    # the first run is as it was: it resumes, and ends as one that nobody stopped
    for folder, seed in ((out, "0"), (tmp_path / "other", "1")):
        assert train(biovid, folder, "--seed", seed).exit_code == 0
        whole = tmp_path / f"alone{seed}" / "run"
        assert train(biovid, whole, "--seed", seed).exit_code == 0
        assert np.array_equal(logits(folder), logits(whole))


def test_swapped_labels_do_not_get_the_old_score(biovid: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(biovid, out)
    assert first.exit_code == 0
    swap_labels(biovid)
    said = refusal(train(biovid, out))
    assert f"{out} holds runs made with different labels" in said
    changed = tmp_path / "changed"
    assert train(biovid, changed).exit_code == 0  # the same cache serves it
    alone = tmp_path / "alone" / "run"
    assert train(biovid, alone).exit_code == 0
    assert np.array_equal(logits(changed), logits(alone))
    swap_labels(biovid)
    again = train(biovid, out)
    assert again.output == first.output


# ---- no stale reuse ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = open_cohort(tools.write_biovid(tmp_path_factory.mktemp("keys"), 6, 4, video=False))
    return prepare(data, small(), TrainingOptions(cache=tmp_path_factory.mktemp("cache"), device=CPU))


@dataclass(frozen=True)
class Conditions:
    """One command. label, clip: the subject (number) whose first window is changed so, absent: whose last; or -1."""

    seed: int = 0
    split: str = "holdout:0"
    label: int = -1
    clip: int = -1
    absent: int = -1
    changes: tuple[tuple[str, str], ...] = ()
    device: Device = CPU


CHANGES = {
    "eda.lr": ("1e-3", "2e-3"), "eda.dropout": ("0.5",), "augment.eda_noise": ("0.1",), "augment.variants": ("2",),
    "masking.modality": ("0.3",), "fusion.lr": ("1e-4",), "title": ("x",),
}  # fmt: skip
STAGE_ONE = ("eda.lr", "eda.dropout", "augment.eda_noise", "augment.variants")
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 1),
    "split": st.sampled_from(["holdout:0", "holdout:1", "kfold:2:0", "kfold:3:2"]),
    "label": st.integers(-1, 5),
    "clip": st.integers(-1, 1),
    "absent": st.integers(-1, 1),
    "changes": st.sampled_from([(), *(((k, v),) for k, values in CHANGES.items() for v in values)]),
    "device": st.sampled_from([CPU, replace(CPU, precision="bf16-mixed"), replace(CPU, devices=2)]),
}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Conditions, Conditions]:
    """Two commands that differ in one thing, or in none: of pairs drawn apart nearly all differ in several."""
    a = Conditions(**{name: draw(values) for name, values in FIELDS.items()})
    name = draw(st.sampled_from(sorted(FIELDS)))
    return a, replace(a, **{name: draw(FIELDS[name])})


def split_of(prepared: Prepared, c: Conditions) -> Any:
    name, _, number = c.split.rpartition(":")
    return make_splits(prepared.cohort, name, seed=int(number))[0]


def under(prepared: Prepared, c: Conditions) -> Prepared:
    windows, store = prepared.windows, prepared.stores["eda"]
    people = prepared.cohort.subjects

    def window(number: int, which: int = 0) -> int:
        return int(np.flatnonzero(windows.subject == people[number])[which])

    if c.label >= 0:
        y = windows.labels["pain"].copy()
        y[window(c.label)] = 1 - y[window(c.label)]
        windows = replace(windows, labels={"pain": y})
    data, present = np.array(store.data), store.present.copy()
    if c.clip >= 0:
        data[window(c.clip)] += 0.01
    if c.absent >= 0:
        present[window(c.absent, -1)] = False
    store = replace(store, data=data, present=present, content=keys.digest(data, present))
    recipe = with_values(prepared.recipe, dict(c.changes))
    return replace(prepared, windows=windows, stores={"eda": store}, recipe=recipe)


def key_of_run(prepared: Prepared, c: Conditions) -> Key:
    return run_key(under(prepared, c), split_of(prepared, c), seed=c.seed, device=c.device)


def key_of_backbone(prepared: Prepared, c: Conditions) -> Key:
    mine, split = under(prepared, c), split_of(prepared, c)
    stage = mine.recipe.stage("eda")
    torch.manual_seed(c.seed)
    network = pretraining(mine.task, mine.task.modalities[0], stage.dropout)
    sides = [clip_set(mine.windows.of(side), mine.stores["eda"]) for side in (split.train, split.validation)]
    return backbone_key(mine.task, mine.recipe, stage, network, split, *sides, seed=c.seed, device=c.device)


@settings(max_examples=150, deadline=None)
@given(pair=pairs())
def test_two_runs_share_a_key_only_under_equal_conditions(
    prepared: Prepared, pair: tuple[Conditions, Conditions]
) -> None:
    a, b = pair
    mine, other = key_of_run(prepared, a), key_of_run(prepared, b)
    kept = json.loads(json.dumps(other.parts))
    assert (mine.digest == other.digest) == (a == b) == (mine.difference(kept) == "")


@settings(max_examples=300, deadline=None)
@given(pair=pairs())
def test_a_backbone_is_shared_where_its_own_conditions_are_equal(
    prepared: Prepared, pair: tuple[Conditions, Conditions]
) -> None:
    a, b = pair

    def own(c: Conditions) -> tuple[Any, ...]:
        """What stage 1 sees: the test side and the fusion are none of it."""
        split = split_of(prepared, c)
        trains = c.label >= 0 and prepared.cohort.subjects[c.label] not in split.test
        stage = tuple(change for change in c.changes if change[0] in STAGE_ONE)
        sides = (sorted(split.train), sorted(split.validation))
        return c.seed, sides, c.label if trains else -1, c.clip, c.absent, stage, c.device

    same = key_of_backbone(prepared, a).digest == key_of_backbone(prepared, b).digest
    assert same == (own(a) == own(b))


@settings(max_examples=20, deadline=None)
@given(pair=pairs())
def test_each_single_change_is_named(prepared: Prepared, pair: tuple[Conditions, Conditions]) -> None:
    a, _ = pair
    others = [
        ("seed", replace(a, seed=1 - a.seed)), ("split", replace(a, split="kfold:6:4")),
        ("labels", replace(a, label=(a.label + 2) % 7 - 1)), ("clips", replace(a, clip=1 - abs(a.clip))),
        ("clips", replace(a, absent=1 - abs(a.absent))), ("recipe", replace(a, changes=(("eda.lr", "9e-3"),))),
        ("devices", replace(a, device=replace(a.device, devices=3))),
    ]  # fmt: skip
    mine = key_of_run(prepared, a)
    for part, other in others:
        said = mine.difference(json.loads(json.dumps(key_of_run(prepared, other).parts)))
        assert part in said.partition("=")[0], (said, other)


def test_a_used_cache_gives_what_an_empty_one_gives(prepared: Prepared, tmp_path: Path) -> None:
    """Each run after others of the same data, with their backbones and features at hand, against one alone."""
    used = tmp_path / "used"
    split = split_of(prepared, Conditions())
    validation, test = (prepared.cohort.subjects.index(side[0]) for side in (split.validation, split.test))
    cases = [
        Conditions(), Conditions(seed=1), Conditions(split="holdout:1"), Conditions(label=validation),
        Conditions(clip=test), Conditions(absent=test), Conditions(changes=(("eda.lr", "1e-3"),)),
        Conditions(changes=(("augment.eda_noise", "0.1"),)),
    ]  # fmt: skip
    for number, c in enumerate(cases):
        data, split = under(prepared, c), split_of(prepared, c)
        found = [
            run_split(
                data, split, tmp_path / f"{number}-{cache.name}", seed=c.seed, options=TrainingOptions(cache, c.device)
            )
            for cache in (used, tmp_path / f"c{number}")
        ]
        assert np.array_equal(found[0].predictions.outputs["pain"], found[1].predictions.outputs["pain"]), c
        assert found[0].validation_loss == found[1].validation_loss
    assert len(list((used / "backbones").glob("*.safetensors"))) == len(cases)


def test_a_fold_is_refused_in_a_folder_of_other_folds(prepared: Prepared, tmp_path: Path) -> None:
    settings = TrainingOptions(tmp_path / "cache", CPU)
    three, two = (make_splits(prepared.cohort, f"kfold:{k}", seed=0) for k in (3, 2))
    run_splits(prepared, three, tmp_path / "run", seed=0, options=settings)
    with pytest.raises(ConfigError, match=r"split\.fold1of"):
        run_splits(prepared, two, tmp_path / "run", seed=0, options=settings)
    assert not (tmp_path / "run" / "fold1of2").exists()


def test_a_mistake_that_left_nothing_can_be_corrected_in_its_folder(biovid: Path, tmp_path: Path) -> None:
    assert isinstance(train(biovid, tmp_path / "run", "--precision", "8-bit").exception, ConfigError)
    assert train(biovid, tmp_path / "run").exit_code == 0


def test_a_grid_is_not_answered_from_another_seeds_journal(biovid: Path, tmp_path: Path) -> None:
    grid = ("--grid", "lr=3e-3,1e-7")
    assert train(biovid, tmp_path / "run", *grid).exit_code == 0
    assert "seed = 0, not 1" in refusal(train(biovid, tmp_path / "run", *grid, "--seed", "1"))
    swap_labels(biovid)
    assert "different labels" in refusal(train(biovid, tmp_path / "run", *grid))


def test_a_changed_weights_file_is_another_run(prepared: Prepared, tmp_path: Path) -> None:
    file, settings = tmp_path / "weights.pt", TrainingOptions(tmp_path / "cache", CPU)
    data = replace(prepared, recipe=with_values(prepared.recipe, {"weights.eda": json.dumps(str(file))}))
    split = split_of(prepared, Conditions())
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = pretraining(data.task, data.task.modalities[0], 0.0)
        torch.save(network.backbone.state_dict(), file)
        if seed == 0:
            run_split(data, split, tmp_path / "run", seed=0, options=settings)
    with pytest.raises(ConfigError, match=r"different weights\.eda"):
        run_split(replace(data), split, tmp_path / "run", seed=0, options=settings)
    file.unlink()
    with pytest.raises(DataError, match="no checkpoint at"):
        run_split(replace(data), split, tmp_path / "run", seed=0, options=settings)


def test_text_features_are_part_of_the_key(prepared: Prepared, tmp_path: Path) -> None:
    found = set()
    for value in (0.0, 1.0):
        for trial in prepared.cohort.trials:
            np.save(tmp_path / f"{trial.id}.npy", np.full((2, 768), value, np.float32))
        data = replace(prepared, recipe=replace(prepared.recipe, text=str(tmp_path)))
        found.add(run_key(data, split_of(prepared, Conditions()), seed=0, device=CPU).digest)
    assert len(found) == 2


def test_other_code_finds_and_resumes_nothing(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, split = TrainingOptions(tmp_path / "cache", CPU), split_of(prepared, Conditions())
    run_split(prepared, split, tmp_path / "run", seed=0, options=settings)
    monkeypatch.setattr(keys, "_code", lambda names: "another version")
    with pytest.raises(ConfigError, match="made with different code"):
        run_split(prepared, split, tmp_path / "run", seed=0, options=settings)
    run_split(prepared, split, tmp_path / "new", seed=0, options=settings)
    for kind in ("backbones", "features"):
        assert len([f for f in (tmp_path / "cache" / kind).iterdir() if f.suffix in (".safetensors", ".npy")]) == 2


def test_a_folder_without_a_record_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    """As older versions left them, or a hand that copied checkpoints."""
    settings, split = TrainingOptions(tmp_path / "cache", CPU), split_of(prepared, Conditions())
    run_split(prepared, split, tmp_path / "run", seed=0, options=settings)
    (tmp_path / "run" / "run.key.json").unlink()
    with pytest.raises(ConfigError, match=r"holds a run \(scores.json\) without a record"):
        run_split(prepared, split, tmp_path / "run", seed=0, options=settings)
    stage = tmp_path / "new" / "eda"
    shutil.copytree(tmp_path / "run" / "eda" / "checkpoints", stage / "checkpoints")
    # run_split itself would find the checkpoints; a stage does not rely on that
    with pytest.raises(ConfigError, match=r"holds a run \(eda/checkpoints/.*ckpt\) without a record"):
        run_split(prepared, split, tmp_path / "new", seed=0, options=settings)
    claim(tmp_path / "new" / "run.key.json", run_key(prepared, split, seed=0, device=CPU), "a run", ())
    with pytest.raises(ConfigError, match=r"holds a training stage \(checkpoints/.*ckpt\) without a record"):
        run_split(prepared, split, tmp_path / "new", seed=0, options=TrainingOptions(tmp_path / "empty", CPU))


def test_what_can_be_known_is_refused_before_a_clip_is_cut(
    biovid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert train(biovid, out).exit_code == 0

    def cut(*_: Any, **__: Any) -> None:
        raise AssertionError("clips were cut first")

    for module in ("search", "demo"):
        monkeypatch.setattr(f"jmt_edge.training.{module}.prepare", cut)
    assert "seed = 0, not 1" in refusal(train(biovid, out, "--seed", "1"))
    assert "eda.epochs = 2, not 3" in refusal(train(biovid, out, "--set", "eda.epochs=3"))
    monkeypatch.setattr("jmt_edge.training.experiment.code", lambda: "another")
    assert "different code" in refusal(train(biovid, out))
    shutil.copytree(out, tmp_path / "demos" / "pain-run")
    with pytest.raises(ConfigError, match=r"recipe\.name = biovid-eda, not demo-pain"):
        train_demo("pain", tmp_path / "demos", seed=0, options=TrainingOptions(tmp_path / "cache", CPU))


def test_a_claim_names_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "x.key.json"
    key = Key({"seed": 1, "recipe": {"stages": {"eda": {"lr": 0.1}}}, "labels": "ab" * 32})
    claim(file, key.also(seed=7), "a run", ("*/scores.json",))
    claim(file, key, "a run", ("*/scores.json",))  # the other command failed before it left anything
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "scores.json").touch()
    claim(file, Key(dict(reversed(key.parts.items()))), "a run", ())  # the order means nothing
    for other, says in (
        (key.also(seed=2), "seed = 1, not 2"),
        (key.also(recipe={"stages": {"eda": {"lr": 0.2}}}), "recipe.stages.eda.lr = 0.1, not 0.2"),
        (key.also(recipe={"stages": {}}), "different recipe.stages.eda"),
        (key.also(labels="cd" * 32), "different labels"),
        (key.also(code="x"), "different code"),
    ):
        with pytest.raises(ConfigError) as error:
            claim(file, other, "a run", ("*/scores.json",))
        assert str(error.value).startswith(f"{tmp_path} holds a run made with {says}; choose another --out")
        known = {name: value for name, value in other.parts.items() if value != key.parts.get(name)}
        if "code" not in known:  # which the record lacks
            with pytest.raises(ConfigError) as early:
                foresee(file, known, "a run", ("*/scores.json",))
            assert str(early.value) == str(error.value)
    foresee(file, {"seed": 1}, "a run", ("*/scores.json",))
    foresee(file, {"seed": 2}, "a run", ("*/none.json",))  # nothing that would be trusted
    foresee(tmp_path / "absent.key.json", {"seed": 2}, "a run", ("*/scores.json",))
    file.write_text(file.read_text()[:20])  # cut off: as good as none
    with pytest.raises(ConfigError, match=r"holds a run \(x/scores.json\) without a record"):
        claim(file, key, "a run", ("*/scores.json",))


# ---- files and code ----------------------------------------------------------------------------------------------


def eda_key(cohort: Cohort) -> str:
    task = small().resolve()
    return clip_key(cut_windows(cohort, task), task.modalities[0])


def test_clips_of_other_voice_settings_are_other_clips() -> None:
    cohort = simulated_cohort(load_recipe("demo-affect").resolve(), subjects=1, windows=2)

    def key(**settings: Any) -> str:
        task = replace(load_recipe("demo-affect"), **settings).resolve()
        return clip_key(cut_windows(cohort, task), task.modality("voice"))

    assert len({key(), key(voice_top_db=80.0), key(voice_pad=45_599), key(voice_top_db=80.0, voice_pad=45_599)}) == 4


def test_a_file_written_again_under_its_old_time_is_another_clip(tmp_path: Path) -> None:
    cohort = open_cohort(tools.write_biovid(tmp_path, 1, 1, video=False))
    before = eda_key(cohort)
    file = cohort.trials[0].files["eda"]
    stat = file.stat()
    file.write_bytes(file.read_bytes().replace(b"\t0\t0\t0\t0\n", b"\t0\t0\t0\t1\n"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert eda_key(cohort) != before


def test_a_frame_written_again_in_its_folder_is_another_clip(tmp_path: Path) -> None:
    cohort = open_cohort(tools.write_affwild2(tmp_path, 1, 60))
    task = load_recipe("demo-affect").resolve()
    windows = cut_windows(cohort, task)
    before = clip_key(windows, task.modality("face"))
    folder = cohort.trials[0].files["face"]
    stamp = folder.stat().st_mtime_ns
    frame = folder / "00005.jpg"
    frame.write_bytes(frame.read_bytes() + b"\0")
    assert folder.stat().st_mtime_ns == stamp
    assert clip_key(windows, task.modality("face")) != before
    # the video's time stamps choose the frames
    moved = replace(cohort.trials[0].labels, times=cohort.trials[0].labels.times + 0.5)
    other = replace(cohort, trials=[replace(r, labels=moved) for r in cohort.trials])
    assert clip_key(replace(windows, trials=other.trials), task.modality("face")) not in (before, "")


def test_a_data_set_that_was_moved_is_read_again_and_not_trained_again(biovid: Path, tmp_path: Path) -> None:
    assert train(biovid, tmp_path / "run").exit_code == 0
    stamp = (tmp_path / "run" / "scores.json").stat().st_mtime_ns
    shutil.copytree(biovid, tmp_path / "moved")
    assert train(tmp_path / "moved", tmp_path / "run").exit_code == 0
    assert (tmp_path / "run" / "scores.json").stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "cache" / "clips").glob("eda-*"))) == 2
    # and a changed file is not the same data
    file = next((tmp_path / "moved").rglob("*_bio.csv"))
    lines = file.read_text().splitlines()
    file.write_text(
        "\n".join([lines[0], *(f"{c[0]}\t{float(c[1]) + 1}\t0\t0\t0\t0" for c in map(str.split, lines[1:]))])
    )
    assert "different clips.eda" in refusal(train(tmp_path / "moved", tmp_path / "run"))


def test_clips_of_one_recording_are_not_taken_for_anothers(tmp_path: Path) -> None:
    """The cache marks recordings by number: the same clips under other numbers are another cache."""
    cohort = open_cohort(tools.write_biovid(tmp_path / "d", 2, 1, video=False))
    task = small().resolve()
    lacking = replace(cohort.trials[0], id="x", files={})
    found = {
        build_clips(cut_windows(replace(cohort, trials=rows), task), tmp_path, cohort.problems)["eda"].key
        for rows in ([lacking, *cohort.trials], [*cohort.trials, lacking])
    }
    assert len(found) == 2


def test_a_changed_source_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "data").mkdir(parents=True)
    files = [package / "__init__.py", package / "data" / "model.onnx"]
    for file in files:
        file.write_text("one")
    spec = find_spec("jmt_edge.models")
    assert spec is not None
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(keys, "find_spec", lambda name: spec if name == "jmt_edge.models" else None)
    found = [keys._code.__wrapped__(("models",))]
    for file in files:
        file.write_text("two")
        found.append(keys._code.__wrapped__(("models",)))
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_text("built")
    assert keys._code.__wrapped__(("models",)) == found[-1]
    assert len(set(found)) == 3
    with pytest.raises(AssertionError, match="no_such_module"):  # a room that moved must not drop out of the keys
        keys._code.__wrapped__(("models", "no_such_module"))
    monkeypatch.undo()
    assert keys.code() and keys.code(keys.CLIP_CODE)


def imported(entries: list[str]) -> set[str]:
    """The modules of jmt_edge that these import, at their top or later, and what those import in turn."""
    found: set[str] = set()
    todo = list(entries)
    while todo:
        name = todo.pop()
        if name in found or not name.startswith("jmt_edge."):
            continue
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:  # a name within a module
            continue
        if spec is None or spec.origin is None:
            continue
        found.add(name)
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
                module = ".".join(part for part in (base, node.module or "") if part)
                todo += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize(
    ("entries", "covered", "beside"),
    [
        # what a clip is made of; the rest of `training` says which clips there are, and that is in their key
        (["training.clips"], CLIP_CODE, {"errors", "faults", "trace", "capture.base", "training.data", "training.keys",
                                         "training.locks"}),
        (["training.trainer", "training.sets", "models.joint", "models.jca", "models.pretrained"], CODE,
         {"errors", "faults", "trace", "capture.base"}),
    ],
)  # fmt: skip
def test_the_code_of_a_key_is_all_code_that_is_used(
    entries: list[str], covered: tuple[str, ...], beside: set[str]
) -> None:
    found = {name.removeprefix("jmt_edge.") for name in imported([f"jmt_edge.{entry}" for entry in entries])}
    outside = {m for m in found if m not in covered and not any(m.startswith(f"{c}.") for c in covered)}
    assert len(found) > 10
    assert outside - {m for m in outside if any(c.startswith(f"{m}.") for c in covered)} <= beside


# ---- two data sets, several runs ---------------------------------------------------------------------------------


def evaluated(target: Path, data: Path, *arguments: str) -> Any:
    return CliRunner().invoke(
        cli,
        ["evaluate", str(target), "--data", str(data), "--rate", "10", "--out", str(target.parent / "e"), "--quiet",
         "--cache", str(target.parent / "cache"), "--workers", "1", "--no-robustness", *arguments],
    )  # fmt: skip


def test_subject_numbers_of_another_data_set_are_other_people(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, who = np.tile([0, 1], 24), np.repeat(np.arange(6), 8)
    for name in ("pmed", "pmcd"):
        x = 5 + rng.normal(0, 0.1, (48, 100)) + y[:, None] * np.linspace(0, 1, 100)
        tools.write_painmonit(tmp_path / name, x, y, who)
    window = ["--rate", "10", "--set", 'shapes={"eda": [1, 100]}', "--set", 'spans={"eda": 10.0}']
    done = train(tmp_path / "pmed", tmp_path / "run", *window, recipe="painmonit-eda")
    assert done.exit_code == 0, done.output + repr(done.exception)

    refused = evaluated(tmp_path / "run", tmp_path / "pmcd")
    assert isinstance(refused.exception, ConfigError)
    assert "held out people of painmonit pmed" in str(refused.exception)
    scored = evaluated(tmp_path / "run", tmp_path / "pmcd", "--protocol", "all")
    assert scored.exit_code == 0, scored.output + repr(scored.exception)
    assert "of painmonit pmcd is taken for another person than subject" in scored.output
    rows = (tmp_path / "e" / "subjects.csv").read_text().splitlines()
    assert len(rows) == 7
    # a copy under the same name, its numbers written as other numbers, holds the people that were trained on
    tools.write_painmonit(tmp_path / "copy" / "PMED", x, y, who.astype(float))
    leaked = evaluated(tmp_path / "run", tmp_path / "copy" / "PMED", "--protocol", "all")
    assert isinstance(leaked.exception, DataError)
    assert "was trained on" in str(leaked.exception)
    assert evaluated(tmp_path / "run", tmp_path / "copy" / "PMED").exit_code == 0


def test_several_runs_are_not_scored_as_the_folds_of_one(prepared: Prepared, biovid: Path, tmp_path: Path) -> None:
    span = ("--set", 'spans={"eda": 5.5}', "--set", 'shapes={"eda": [1, 2816]}')  # PainMonit's windows are longer
    assert train(biovid, tmp_path / "two", *span, recipe="biovid-eda,painmonit-eda").exit_code == 0
    for seed in (0, 1):
        split = split_of(prepared, Conditions())
        run_split(
            prepared, split, tmp_path / "seeds" / f"{seed}", seed=seed, options=TrainingOptions(tmp_path / "c", CPU)
        )
    for name, what in (("two", "recipes"), ("seeds", "seeds")):
        done = evaluated(tmp_path / name, biovid)
        assert isinstance(done.exception, ConfigError)
        assert f"has runs of several {what}" in str(done.exception)


def test_seeds_are_refused_before_the_work_where_each_scores_other_people(biovid: Path, tmp_path: Path) -> None:
    done = train(biovid, tmp_path / "run", "--seeds", "2")
    assert isinstance(done.exception, ConfigError)
    assert "give --folds or --loso" in str(done.exception)
    assert not list((tmp_path / "run").iterdir())
