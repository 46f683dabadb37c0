"""The table of the published defects: each defect is what it says, alone, and the command reproduces the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from jmt_edge.training.data import Labels, Trial, WindowTable
from jmt_edge.training.experiment import Prepared
from jmt_edge.training.matching import DataFacts
from jmt_edge.training.networks import fusion_of
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.splits import k_fold

PEOPLE, EACH = 12, 12


@pytest.fixture
def defects(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, which is no part of the package."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2]), *sys.path])
    from benchmarks import published_defects

    return published_defects


@pytest.fixture
def prepared() -> tuple[Prepared, dict[str, np.ndarray]]:
    """A cohort with features in which a class looks different in every person: nothing is common to people, and
    everything about a window can be learnt from other windows of its person."""
    recipe = load_recipe("demo-pain", ["fusion.epochs=40", "fusion.lr=3e-3", "masking.modality=0", "fusion.dropout=0"])
    task = recipe.resolve()
    rng = np.random.default_rng(0)
    count = PEOPLE * EACH
    who, y = np.repeat(np.arange(PEOPLE), EACH), np.tile([0, 1], count // 2)
    looks = rng.normal(size=(PEOPLE, 2, task.dim))
    x = (looks[who, y] + 0.1 * rng.normal(size=(count, task.dim))).astype(np.float32)
    rows = {m: np.arange(count)[:, None] for m in task.names}
    trials = [Trial(f"p{i}", f"p{i:02d}", {}, 99.0, Labels(np.zeros(1), {})) for i in range(PEOPLE)]
    windows = WindowTable(
        task, trials, {m: [] for m in task.names}, rows, {"pain": y[:, None].astype(np.float32)}, who,
        np.tile(np.arange(EACH, dtype=float), PEOPLE),
    )  # fmt: skip
    stores: Any = {
        m: SimpleNamespace(present=np.ones(count, bool), pause=np.zeros(count, bool), track=np.zeros(count, np.int32))
        for m in task.names
    }
    cohort: Any = None
    return Prepared(cohort, recipe, task, windows, stores, DataFacts("", "", 0, 0), cohort), dict.fromkeys(
        task.names, x[None]
    )


def accuracy(defects: Any, prepared: Prepared, features: dict[str, np.ndarray], **how: Any) -> tuple[float, float]:
    """Over two folds of the people of `prepared`: with the epoch by validation, and with the best test epoch."""
    people = prepared.windows.subject
    hits: list[list[np.ndarray]] = [[], []]
    for split in k_fold(sorted(set(people.tolist())), 2):
        course = defects.train_course(prepared, split, features, people, across=False, seed=0, **how)
        for best in (False, True):
            hits[best].append(course.chosen("", best))
    return float(np.mean(np.concatenate(hits[0]))), float(np.mean(np.concatenate(hits[1])))


def test_folds_of_windows_score_what_folds_of_people_cannot(
    defects: Any, prepared: tuple[Prepared, dict[str, np.ndarray]]
) -> None:
    data, features = prepared
    sound, best = accuracy(defects, data, features)
    leaked, _ = accuracy(defects, defects.of_windows(data), features)
    assert 0.3 < sound < 0.7  # nothing can be known of new people
    assert leaked > 0.9
    assert best >= sound  # by construction


def test_windows_as_people_keep_everything_but_the_person(
    defects: Any, prepared: tuple[Prepared, dict[str, np.ndarray]]
) -> None:
    data, _ = prepared
    alone = defects.of_windows(data).windows
    assert len(set(alone.subject.tolist())) == len(alone) == PEOPLE * EACH
    assert alone.rows is data.windows.rows and alone.labels is data.windows.labels
    assert len(set(data.windows.subject.tolist())) == PEOPLE


def test_batch_attention_reads_the_rest_of_the_batch_and_only_the_defect_does(defects: Any) -> None:
    recipe = load_recipe("demo-pain")
    torch.manual_seed(0)
    sound = fusion_of(recipe, recipe.resolve(), 0.0).eval()
    x = {m: torch.randn(6, 1, sound.dims[0]) for m in sound.modalities}
    other = {m: torch.cat([v[:1], torch.randn(5, 1, sound.dims[0])]) for m, v in x.items()}
    with torch.inference_mode():
        alone = sound({m: v[:1] for m, v in x.items()})["pain"]
        assert torch.allclose(sound(x)["pain"][:1], alone, atol=1e-5)
        across = defects.with_batch_attention(sound)
        # a batch of one is the sound model, as in the released code
        assert torch.allclose(across({m: v[:1] for m, v in x.items()})["pain"], alone, atol=1e-6)
        assert (across(x)["pain"][0] - across(other)["pain"][0]).abs().max() > 1e-3


def test_the_epoch_is_chosen_by_validation_or_by_the_test_side(defects: Any) -> None:
    right = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]], bool)
    course = defects.Course(np.array([0.9, 0.8, 0.5]), {"": right})
    assert course.chosen("", False).tolist() == right[2].tolist()
    assert course.chosen("", True).tolist() == right[1].tolist()


def test_differences_are_paired_by_person(defects: Any) -> None:
    rng = np.random.default_rng(0)
    who = np.repeat([f"p{i}" for i in range(20)], 10)
    chance = np.repeat(np.linspace(0.2, 1.0, 20), 10)
    sound = rng.random((3, 200)) < chance
    better = sound | (np.arange(200) % 10 == 0)  # the first window of each person, always
    rows = defects.table_rows({defects.SOUND: sound, "defect": better}, who)
    assert rows[0]["difference_interval95"] == [0, 0]
    gain = (better.mean(0) - sound.mean(0)).reshape(20, 10).mean(1)
    error = 1.96 * gain.std() / np.sqrt(20)
    assert rows[1]["difference"] == pytest.approx(gain.mean(), abs=1e-4)
    assert rows[1]["difference_interval95"] == pytest.approx([gain.mean() - error, gain.mean() + error], abs=error / 3)
    low, high = rows[1]["interval95"]
    assert high - low > 3 * np.diff(rows[1]["difference_interval95"])[0]  # what both share cancels


def test_the_command_writes_the_table(defects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--people", "6", "--windows", "4", "--folds", "2", "--seeds", "2", "--threads", "1", "--workers", "1",
             "--set", "face.epochs=1", "--set", "eda.epochs=1", "--set", "fusion.epochs=2", "--set",
             'shapes={"face":[3,10,32,32]}', "--cache", str(tmp_path / "cache"), "--quiet"]  # fmt: skip
    defects.main([*small, "--out", str(tmp_path / "published-defects.json")])
    report = json.loads((tmp_path / "published-defects.json").read_text())
    assert [row["row"] for row in report["rows"]] == list(defects.ROWS)
    assert (report["people"], report["windows"], report["folds"], report["seeds"]) == (6, 24, 2, 2)
    rows = {row["row"]: row for row in report["rows"]}
    assert rows["best test epoch"]["difference"] >= 0
    assert all(len(row["seeds"]) == 2 and 0 <= row["accuracy"] <= 1 for row in report["rows"])
    # again, from the cache: the same table
    defects.main([*small, "--out", str(tmp_path / "again.json")])
    assert json.loads((tmp_path / "again.json").read_text())["rows"] == report["rows"]
    from benchmarks import tables

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = "\n".join(tables.block("published-defects", tmp_path))
    assert "6 simulated people" in text and text.count("\n| ") == 1 + len(defects.ROWS)
    assert f"| sound | {rows['sound']['accuracy']:.3f} |" in text


def test_each_defect_is_switched_on_alone(defects: Any) -> None:
    sound = defects.ROWS[defects.SOUND]
    alone = [row for name, row in defects.ROWS.items() if name != defects.SOUND and not name.startswith("all")]
    assert sound == (False, "", False)
    assert all(sum(bool(x) for x in row) == 1 for row in alone) and len(alone) == 4
