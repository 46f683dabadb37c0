"""The model card that every exported bundle has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jmt_edge.compiler.card import CARD, model_card
from jmt_edge.compiler.export import random_bundle
from jmt_edge.engine.bundle import INTENDED_USE, load_bundle
from jmt_edge.tasks import get_task

yaml = pytest.importorskip("yaml")


def manifest_of(**changes: Any) -> dict[str, Any]:
    provenance = {
        "data": {"layout": "biovid", "root": "cohort: 1 # [x](y)", "recordings": 40, "subjects": 9},
        "split": {"train": 5, "validation": 2, "test": 2, "train_subjects": ["anna"], "test_subjects": ["bert"]},
        "seed": 3,
        "recipe": {"name": "biovid-jmt", "source": "arXiv 2403.10488v2", "masking": {"modality": 0.3}},
        "scores": {"on": "test subjects, none of them trained on", "windows": 80, "accuracy": 0.8125, "auc": None,
                   "ece": 0.1, "interval95": {"accuracy": [0.7, 0.9]}},
    }  # fmt: skip
    return {"name": "my: model `a`", "task": get_task("pain").to_dict(), "provenance": provenance, **changes}


def parts(card: bytes) -> tuple[dict[str, Any], str]:
    before, front, body = card.decode().split("---\n", 2)
    assert before == ""
    return yaml.safe_load(front), body


def test_front_matter_is_the_hubs() -> None:
    front, body = parts(model_card(manifest_of()))
    assert front["library_name"] == "jmt-edge"
    assert {"pain", "face", "eda", "onnx"} <= set(front["tags"])
    ((model,),) = [front["model-index"]]
    assert model["name"] == "my: model `a`"
    (result,) = model["results"]
    assert result["dataset"] == {"type": "biovid", "name": "cohort: 1 # [x](y)"}
    # the Hub needs a type and a value of each metric; one that is not a number is left out
    assert [(m["type"], m["name"], m["value"]) for m in result["metrics"]] == [
        ("accuracy", "accuracy", 0.8125), ("ece", "ece", 0.1),
    ]  # fmt: skip
    assert "| accuracy | 0.812 | 0.700 to 0.900 |" in body
    assert "80 windows of test subjects, none of them trained on" in body
    assert "5 train, 2 validation, 2 test" in body and "`biovid-jmt`" in body and INTENDED_USE in body
    assert "was trained with absent modalities" in body


def test_no_person_is_in_it_and_no_name_is_markup() -> None:
    text = model_card(manifest_of()).decode()
    assert "anna" not in text and "bert" not in text
    assert "# `my: model 'a'`" in text and "`cohort: 1 # [x](y)`" in text


def test_it_says_what_a_bundle_is_not() -> None:
    plain = model_card(manifest_of()).decode()
    assert "Demo weights" not in plain and "Untrained" not in plain
    assert "trained on simulated people" in model_card(manifest_of(demo=True)).decode()
    assert (
        "the weights of face, fusion. Its results are meaningless"
        in model_card(manifest_of(untrained_networks=["face", "fusion"])).decode()
    )
    bare = model_card(manifest_of(provenance={})).decode()
    assert "Not recorded." in bare and "## Scores" not in bare and "model-index" not in bare
    assert "no recipe on record trained" in bare


def test_every_export_has_it_and_it_is_sealed(tmp_path: Path) -> None:
    task = get_task("pain", "demo")
    task = replace(task, modalities=(task.modality("eda"), replace(task.modality("eda"), name="voice")))
    bundle = random_bundle(task, tmp_path / "x.jmt")
    front, body = parts(load_bundle(bundle.path).read(CARD))
    assert "model-index" not in front and "random weights" in body and "Untrained" in body
