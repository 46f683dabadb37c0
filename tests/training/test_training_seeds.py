"""The suite over seeds: trained side by side as one by one, faults that hit where they should, statistics by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from jmt_edge import metrics
from jmt_edge.capture.simulated import open_simulated
from jmt_edge.cli import cli
from jmt_edge.models.joint import build_fusion
from jmt_edge.training import claims, faults
from jmt_edge.training.keys import Key
from jmt_edge.training.networks import FusionStep
from jmt_edge.training.recipes import Masking, Stage, load_recipe
from jmt_edge.training.scores import Predictions
from jmt_edge.training.seeds import fit_seeds, last_outputs
from jmt_edge.training.sets import FeatureSet
from jmt_edge.training.suite_seeds import aligned
from jmt_edge.training.trainer import Device, fit

TASK = load_recipe("biovid-jmt-s4", variant="demo").resolve()


def feature_set(count: int, masking: Masking | None) -> FeatureSet:
    g = torch.Generator().manual_seed(count)
    y = torch.randint(0, 2, (count, 1), generator=g).float().expand(count, 4)
    features = {m: torch.randn(1, count * 4, 64, generator=g) for m in TASK.names}
    for table in features.values():
        table[0, :, 0] += y.reshape(-1)
    rows = {m: torch.arange(count * 4).view(count, 4) for m in TASK.names}
    return FeatureSet(features, rows, torch.ones(count, 4, 2), {"pain": y.clone()}, masking)


@pytest.mark.parametrize("fusion", ["jmt", "rjcma"])
def test_seeds_side_by_side_are_those_of_the_trainer_one_by_one(fusion: str, tmp_path: Path) -> None:
    stage = Stage("adamw", 1e-3, 0.01, batch=16, epochs=4, patience=2, schedule="cosine", warmup=1)
    train, validation = feature_set(40, Masking(modality=0.3, step=0.1, noise=0.1)), feature_set(24, None)

    def fresh(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        network = build_fusion(TASK, fusion, dropout=0.0)
        for module in network.modules():  # the one thing that differs is its random numbers
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return network

    states = fit_seeds([fresh(3), fresh(5)], train, validation, stage, [3, 5])  # type: ignore[list-item]
    outputs = last_outputs(fresh(0), states, validation)["pain"]  # type: ignore[arg-type]
    for i, seed in enumerate((3, 5)):
        alone = fresh(seed)
        fit(FusionStep(alone), train, validation, stage, tmp_path / str(seed), name="", seed=seed, key=Key({"s": seed}),
            device=Device("cpu", quiet=True))  # type: ignore[arg-type]  # fmt: skip
        inputs, _ = validation[np.arange(24), 0]
        with torch.no_grad():
            y = alone(**inputs)["pain"][:, -1]
        np.testing.assert_allclose(outputs[i], (y[:, 1] - y[:, 0]).numpy(), atol=2e-4)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01


@pytest.mark.parametrize("name", ["biovid-jmt-s4", "affwild2-jmt", "trimodal-jmt"])
def test_the_control_has_as_many_parameters(name: str) -> None:
    task = load_recipe(name, variant="demo").resolve()
    mine, control, narrow = (
        sum(p.numel() for p in build_fusion(task, kind).parameters())
        for kind in ("jmt", "jmt_no_joint_wide", "jmt_no_joint")
    )
    assert abs(control - mine) < 0.002 * mine
    assert narrow < 0.8 * mine


# ---- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modality", "fault"), [(m, f) for m in ("eda", "voice") for f in faults.FAULTS[m]])
def test_a_fault_depends_on_the_time_alone_and_changes_the_signal(modality: str, fault: str) -> None:
    duration = 60.0 if modality == "eda" else 12.0  # a saturated amplifier shows once the level has risen

    def read(step: float, trial: str = "a", fault: str = fault) -> tuple[np.ndarray, np.ndarray]:
        source = open_simulated(modality, "sim:seed=3")
        if fault:
            source = faults.spoiled(source, modality, fault, trial, duration)  # type: ignore[assignment]
        source.open(0.0)
        chunks = [source.read(t) for t in np.arange(step, duration + step / 2, step)]
        return np.concatenate([c.times for c in chunks]), np.concatenate([c.values for c in chunks])

    times, values = read(0.25)
    for other, same in ((read(2.0), True), (read(0.25, trial="b"), fault == "clipping")):
        assert (len(other[0]) == len(times) and np.allclose(other[1], values, atol=2e-3)) == same
    clean = read(0.25, fault="")[1]
    assert len(values) < 0.8 * len(clean) if fault == faults.DROPOUTS else not np.allclose(values, clean, atol=1e-3)


@pytest.mark.parametrize("fault", faults.FAULTS["face"])
def test_a_fault_of_the_face_leaves_what_it_does_not_reach(fault: str) -> None:
    m = TASK.modality("face")
    clip = np.random.default_rng(0).integers(60, 200, (10, 64, 64, 3), np.uint8)
    out, usable = faults.spoil_face(clip, m, fault, "a", 5.5, 4.25)
    assert out.shape == clip.shape and (out != clip).any()
    if fault == "occlusion":
        assert (out[:, :32] == clip[:, :32]).all() and (out[:, 40:] == out[0, 63, 63]).all()
    if fault == "darkness":
        assert out.mean() < 0.15 * clip.mean()
    if fault == "blur":
        assert out.std() < 0.3 * clip.std() and abs(out.mean() - clip.mean()) < 2
    if fault == faults.DROPOUTS:
        kept = [i for i in range(10) if (out[i] == clip[i]).all()]
        assert usable == (len(kept) >= 5)
        assert all(any((frame == clip[i]).all() for i in kept) for frame in out)


# ---- statistics ---------------------------------------------------------------------------------------------------


def predictions(seed: int) -> Predictions:
    g = np.random.default_rng(seed)
    who = np.array([f"p{i % 5}" for i in range(60)])
    y = np.random.default_rng(9).integers(0, 2, 60).astype(np.float32)
    affect = np.random.default_rng(8).uniform(-1, 1, (2, 60)).astype(np.float32)
    labels = {"pain": y[:, None], "valence": affect[0][:, None], "arousal": affect[1][:, None]}
    outputs = {o: (v + g.normal(0, 0.7, v.shape)).astype(np.float32) for o, v in labels.items()}
    outputs["pain"] -= 0.5
    return Predictions(("face",), who, who, np.arange(60.0), labels, outputs, np.ones((60, 1, 1), np.float32),
                       np.empty(0, np.float32))  # fmt: skip


@pytest.mark.parametrize("metric", ["balanced_accuracy", "ccc_valence", "ccc_mean"])
def test_scores_from_sums_are_those_from_the_windows(metric: str) -> None:
    seeds = [predictions(s) for s in range(3)]
    people, sums = claims.sums_of(seeds)

    def direct(p: Predictions, at: np.ndarray) -> float:
        if metric == "balanced_accuracy":
            return metrics.balanced_accuracy(p.outputs["pain"][at, 0] >= 0, p.labels["pain"][at, 0])
        names = ("valence", "arousal") if metric == "ccc_mean" else ("valence",)
        return float(np.mean([metrics.ccc(p.outputs[o][at, 0], p.labels[o][at, 0]) for o in names]))

    drawn = [0, 0, 3, 4, 4]
    at = np.concatenate([np.flatnonzero(seeds[0].subject == people[i]) for i in drawn])
    counts = np.bincount(drawn, minlength=5)[None].astype(float)
    assert claims.measure(sums, metric) == pytest.approx([direct(p, np.arange(60)) for p in seeds])
    assert claims.measure(sums, metric, counts)[0] == pytest.approx([direct(p, at) for p in seeds])


def test_intervals_cover_people_and_seeds() -> None:
    """Of 200 people and 10 seeds with known spreads, the standard error is that of the textbook."""
    g = np.random.default_rng(0)
    share = np.clip(0.7 + g.normal(0, 0.1, (1, 200)) + g.normal(0, 0.03, (10, 1)), 0, 1)
    table = np.stack([np.full_like(share, 50), 50 * share, np.full_like(share, 50), 50 * share], -1)
    e = claims.estimate([{"balanced_accuracy": table}], "balanced_accuracy", claims.Draws.make(200, 10))
    expected = np.sqrt(share.mean(0).var() / 200 + share.mean(1).var() / 10)
    assert e.drawn.std() == pytest.approx(expected, rel=0.05)


def test_holm_and_equivalence_by_hand() -> None:
    assert claims.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})

    def difference(mean: float, spread: float) -> claims.Estimate:
        drawn = mean + spread * np.random.default_rng(1).standard_normal(10_000)
        return claims.Estimate(mean, drawn, np.array([mean, mean]))

    words = {
        name: v.word
        for name, v in claims.judge({
            "above": difference(0.05, 0.01), "below": difference(-0.05, 0.01), "equivalent": difference(0.002, 0.008),
            "undecided": difference(0.01, 0.02), "above, within the margin": difference(0.01, 0.002),
        }).items()
    }  # fmt: skip
    assert words == {name: name for name in words}
    assert claims.p_value(np.zeros(99)) == 1.0
    # the 90 % interval decides: 0.013 + 1.645 * 0.005 lies just outside
    assert not claims.judge({"x": difference(0.013, 0.005)})["x"].equivalent


def test_features_of_two_backbones_are_brought_together() -> None:
    g = np.random.default_rng(0)
    hidden = g.normal(size=(400, 8))
    mine, theirs = (hidden @ g.normal(size=(8, 16)) + g.normal(size=16) for _ in range(2))
    moved = aligned(mine[:300].astype(np.float32), theirs[:300].astype(np.float32))
    assert np.abs(moved(mine[300:]) - theirs[300:]).mean() < 0.1 * np.abs(theirs).mean()


# ---- the command --------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.slow
def test_the_suite_over_seeds_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    cohort = ["synth", "biovid", "--subjects", "6", "--trials", "2", "--classes", "BL1,PA4", "--jobs", "1", "--quiet"]
    assert CliRunner().invoke(cli, [*cohort, "--out", str(data)], catch_exceptions=False).exit_code == 0
    arguments = [
        "evaluate", "--suite", "--seeds", "2", "--re-pair", "--cross-fit", "--recipe", "biovid-jmt-s4", "--variant",
        "demo", "--data", data, "--protocol", "kfold:2", "--fractions", "1", "--systems", "eda,concat", "--out",
        tmp_path / "out", "--cache", tmp_path / "cache", "--workers", "1", "--threads", "1", "--quiet",
        *(part for s in ("face", "eda", "fusion") for part in ("--set", f"{s}.epochs=1")),
        "--set", 'shapes={"face": [3, 10, 32, 32]}',
    ]  # fmt: skip
    first = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert first.exit_code == 0, first.output
    report, page = ((tmp_path / "out" / f"claims.{kind}").read_text() for kind in ("md", "html"))
    assert f"<title>{report.splitlines()[0].removeprefix('# ')}</title>" in page
    for text in ("within ±0.02", "Holm", "### Is a gain joint information?", "### Out-of-fold features",
                 "electrode loss, eda", "occlusion + electrode pops", "JMT without joint, widened"):  # fmt: skip
        assert text in report
    rows = list(csv.DictReader((tmp_path / "out" / "claims.csv").open()))
    assert {(r["system"], r["way"]) for r in rows} == {
        ("eda", "masked"), ("concat", "masked"), ("concat", "unmasked"), ("concat", "cross-fit"),
        *((s, w) for s in ("jmt", "jmt_no_joint_wide") for w in ("masked", "unmasked", "re-paired", "cross-fit")),
    }  # fmt: skip
    # EDA alone does not see the face
    eda = {r["condition"]: r["value"] for r in rows if r["system"] == "eda"}
    assert eda["darkness, face"] == eda["clean"] == eda["without face"] and eda["without eda"] == "0.50000"
    found = json.loads((tmp_path / "out" / "claims.json").read_text())["metrics"]["balanced_accuracy"]
    assert len(found["claim"]) == 2 * 5
    # finished folds are read back, and not under other conditions
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("outputs.npz")}
    again = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert again.exit_code == 0 and stamps == {f: f.stat().st_mtime_ns for f in stamps}
    arguments[arguments.index("--seeds") + 1] = "3"
    monkeypatch.setattr("jmt_edge.training.suite_seeds.prepare", lambda *_, **__: pytest.fail("clips were cut first"))
    assert "seeds = 2, not 3" in str(CliRunner().invoke(cli, [str(a) for a in arguments]).exception)


def test_a_schedule_that_seeds_cannot_share_is_refused() -> None:
    network = build_fusion(TASK, "concat")
    with pytest.raises(Exception, match="constant or cosine"):
        fit_seeds([network], feature_set(8, None), feature_set(8, None), replace(Stage(), schedule="plateau"), [0])
