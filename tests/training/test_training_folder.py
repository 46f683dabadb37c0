"""Files of a run's folder that were cut, edited or mixed up: one sentence that names the file, before they are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jmt_edge.errors import ConfigError, DataError
from jmt_edge.training.evaluation import require_one_run
from jmt_edge.training.experiment import facts_of_run, recipe_of
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.run_folder import FACTS, RECIPE, SCORES, SPLIT, UNCERTAINTY, read

GOOD: dict[str, Any] = {
    FACTS: {"layout": "biovid", "root": "data", "recordings": 4, "subjects": 2, "rates": {"eda": 512.0},
            "units": {"eda": "µS"}, "classes": ["BL1", "PA4"], "share": 0.5, "rule": ""},
    RECIPE: load_recipe("biovid-jmt").to_dict(),
    SCORES: {"split": "a", "seed": 0, "key": "0" * 20, "seconds": {"fusion": 1.5}, "temperature": 1.2,
             "validation_loss": None, "scored": "test", "windows": 8, "pooled": {"accuracy": 0.5}, "interval95": {}},
    SPLIT: {"name": "a", "train": ["p1"], "validation": [], "test": ["p2"], "people": "biovid"},
    UNCERTAINTY: {"coverage": 0.9, "people": 20, "windows": 80, "limits": {"eda": {"pain": [0.2, 0.3]}}},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name, content in GOOD.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_what_train_writes_is_read(run: Path) -> None:
    assert {name: read(run, name) for name in GOOD} == GOOD
    (run / UNCERTAINTY).write_text("{}")
    assert read(run, UNCERTAINTY) == {}
    assert recipe_of(run) == load_recipe("biovid-jmt") and facts_of_run(run).classes == ("BL1", "PA4")


@pytest.mark.parametrize("name", GOOD)
def test_damage_is_named(name: str, run: Path) -> None:
    text = (run / name).read_text(encoding="utf-8")
    for damage, said in (
        (text[: len(text) // 2].encode(), "not readable JSON"),
        (b"", "not readable JSON"),
        (text.encode().replace(b"a", b"\xff", 1), "not readable JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "it is a list, not a table"),
        (b"null", "it is null, not a table"),
    ):
        (run / name).write_bytes(damage)
        with pytest.raises(DataError, match=rf"{name} is damaged: .*{said}.*; restore it, or remove .* train it again"):
            read(run, name)
    (run / name).unlink()
    with pytest.raises(DataError, match=f"{name} does not exist"):
        read(run, name)


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        (SCORES, "temperature", 0, "temperature is 0, not a number above 0"),
        (SCORES, "temperature", float("nan"), "temperature is nan, not a number above 0"),
        (SCORES, "seed", "0", "seed is '0', not a whole number"),
        (SCORES, "seconds", {"fusion": -1}, "seconds.fusion is -1, not a number of at least 0"),
        (SCORES, "validation_loss", "low", "validation_loss is 'low', not a number, or null"),
        (SPLIT, "train", "p1", "train is 'p1', not a list"),
        (SPLIT, "test", [1], r"test\[0\] is 1, not a text"),
        (FACTS, "rates", {"eda": "fast"}, "rates.eda is 'fast', not a number above 0"),
        (FACTS, "share", 2, "share is 2, not a share from 0 to 1, or null"),
        (UNCERTAINTY, "limits", {"eda": {"pain": [0.2]}}, "limits.eda.pain is a list, not a list of two"),
    ],
)
def test_a_wrong_value_is_named(name: str, key: str, value: Any, said: str, run: Path) -> None:
    (run / name).write_text(json.dumps({**GOOD[name], key: value}))
    with pytest.raises(DataError, match=f"is damaged: {said}"):
        read(run, name)


@pytest.mark.parametrize("key", ["seed", "key", "temperature", "windows"])
def test_a_missing_value_is_named(key: str, run: Path) -> None:
    (run / SCORES).write_text(json.dumps({k: v for k, v in GOOD[SCORES].items() if k != key}))
    with pytest.raises(DataError, match=f"it lacks {key}"):
        read(run, SCORES)


def test_folds_of_two_seeds_are_not_one_run(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, seed in zip(folders, (0, 1)):
        folder.mkdir()
        (folder / RECIPE).write_text(json.dumps(GOOD[RECIPE]))
        (folder / SCORES).write_text(json.dumps({**GOOD[SCORES], "seed": seed}))
    with pytest.raises(ConfigError, match="runs of several seeds"):
        require_one_run(tmp_path, folders)
    (folders[1] / SCORES).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        require_one_run(tmp_path, folders)
