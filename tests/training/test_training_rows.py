"""Every row of docs/reference/recipes.md from the command line: trained, evaluated, bundled where live has it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import training_tools as tools
from click.testing import CliRunner, Result

from jmt_edge.cli import cli
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.models.joint import build_fusion
from jmt_edge.training.recipes import load_recipe, names
from jmt_edge.training.suite import systems_of
from jmt_edge.training.suite_costs import measure, peak_memory

BUNDLED = ("biovid-jmt-s4", "trimodal-jmt")  # an export takes longer than the rest of a row
# every layout, backbone and way of fusion once; the others differ from these by one setting
EACH_KIND = (*BUNDLED, "affwild2-jmt", "affwild2-rjcma", "affwild2-face-i3d", "affwild2-voice", "biovid-concat",
             "painmonit-eda")  # fmt: skip
ROWS = [n for n in names() if load_recipe(n).row]
QUICK = ["--variant", "demo", "--workers", "1", "--accelerator", "cpu", "--threads", "1", "--quiet"]
SMALL_FACE = '{"face": [3, %d, 32, 32]}'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small cohort in each layout, and text features for the videos."""
    root = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    affwild2 = tools.write_affwild2(root / "affwild2", 6, 120)
    text = root / "text"
    text.mkdir()
    for file in affwild2.glob("VA_Estimation_Challenge/*/*.txt"):
        np.save(text / f"{file.stem}.npy", rng.normal(size=(40, 768)).astype(np.float32))
    # faces have to be found in these two: they are drawn
    call("synth", "trimodal", "--subjects", "5", "--trials", "2", "--classes", "BL1,PA4", "--jobs", "1", "--quiet",
         "--out", root / "trimodal")  # fmt: skip
    shutil.copytree(root / "trimodal", root / "biovid", ignore=shutil.ignore_patterns("audio", "valence_arousal"))
    x, y = rng.normal(5, 0.05, (24, 2500)), np.arange(24) % 2
    x[y == 1, 1200:] += 0.5
    return {
        "affwild2": affwild2, "text": text,
        "biovid": root / "biovid", "trimodal": root / "trimodal",
        "painmonit": tools.write_painmonit(root / "painmonit", x, y, np.arange(24) // 4),
    }  # fmt: skip


def call(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done


def flags_of(name: str, data: dict[str, Path]) -> list[str]:
    """What makes a recipe small: short stages, few steps, small faces."""
    recipe = load_recipe(name, variant="demo")
    flags = [f"{stage}.epochs=1" for stage in recipe.stages]
    frames = {"biovid": 10, "painmonit": 0}.get(recipe.layout, 8)
    if "face" in recipe.resolve().names:
        flags.append(f"shapes={SMALL_FACE % frames}")
    if recipe.layout == "affwild2":
        flags += ["steps=4", *(["hop=3", f"text={data['text']}"] if name == "affwild2-rjcma" else [])]
    protocol = {"affwild2": "official", "painmonit": "kfold:2"}.get(recipe.layout, "holdout")
    return [*(part for flag in flags for part in ("--set", flag)), "--protocol", protocol]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n if n in EACH_KIND else pytest.param(n, marks=pytest.mark.nightly) for n in ROWS])
def test_a_row_from_the_command_line(
    name: str, data: dict[str, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = load_recipe(name)
    folder, out = data[recipe.layout], tmp_path / "run"
    # the backbones of one recipe serve the next
    common = ["--data", folder, "--cache", tmp_path_factory.getbasetemp() / "rows-cache"]
    bundle = [] if name in BUNDLED else ["--no-bundle"]
    call("train", "--recipe", name, "--out", out, *common, *flags_of(name, data), *QUICK, *bundle)
    summary = json.loads((out / "summary.json").read_text())
    main = "ccc_mean" if recipe.layout == "affwild2" else "auc"
    assert np.isfinite(summary["pooled"][main])
    kept = json.loads((out if summary["splits"] == 1 else out / "fold1of2").joinpath("recipe.json").read_text())
    assert (kept["fusion"], kept["attention"], kept["head"]) == (recipe.fusion, recipe.attention, recipe.head)
    assert (out / f"{name}.jmt").is_dir() == (name in BUNDLED)
    if name in BUNDLED:
        temperature = json.loads((out / "scores.json").read_text())["temperature"]
        assert load_bundle(out / f"{name}.jmt").manifest["calibration"] == {"temperature": temperature}
    call("evaluate", out, "--protocol", "test", "--no-robustness", "--workers", "1", "--quiet", *common)
    scored = json.loads((out / "evaluation" / "results.json").read_text())["conditions"]["clean"]
    # what evaluate computes anew from the weights is what training scored
    assert scored["windows"] == summary["windows"]
    assert scored["pooled"][main] == pytest.approx(summary["pooled"][main], abs=1e-4)


def test_the_suite_holds_all_systems_of_two_and_three_modalities() -> None:
    two, three = (set(systems_of(load_recipe(n, variant="demo"))) for n in ("biovid-jmt", "trimodal-jmt"))
    fusions = {"concat", "vanilla", "jmt_no_joint", "jmt_no_joint_wide", "jmt", "jca", "rjcma"}
    assert two == {"face", "eda", *fusions}
    assert three == {"face", "voice", "eda", "jmt_face+voice", "jmt_face+eda", "jmt_voice+eda", *fusions}


def test_costs_are_what_can_be_counted_by_hand() -> None:
    task = load_recipe("biovid-jmt", variant="demo").resolve()
    d, hidden = task.dim, task.dim // 4
    cost = measure(build_fusion(task, "concat", dropout=0.0).eval(), task)
    assert cost.parameters == 2 * d + (2 * d * d + d) + (d * hidden + hidden) + (hidden * 2 + 2)
    assert cost.flops == 2 * (2 * d * d + d * hidden + hidden * 2)  # a multiplication and an addition each
    # the weights and at least the features side by side, which are no view of the input
    assert 4 * (cost.parameters + 2 * d) <= round(cost.memory_mb * 1e6) < 8 * cost.parameters
    assert cost.latency_ms > 0


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    layer, x = torch.nn.Linear(10, 1000, bias=False), torch.randn(1, 10)

    def run() -> torch.Tensor:
        y = layer(x)
        z = y * 2  # two vectors
        del y
        z = z.relu() + 1  # the third and the fourth, when the second is still held: three at once
        return z.view(10, 100)[:, :2]  # views

    assert peak_memory(layer, run) == 4 * (10_000 + 3 * 1000)


@pytest.mark.slow
def test_the_suite_from_the_command_line(data: dict[str, Path], tmp_path: Path) -> None:
    recipe = load_recipe("trimodal-jmt", variant="demo")
    small = [part for stage in recipe.stages for part in ("--set", f"{stage}.epochs=1")]
    arguments = [
        "evaluate", "--suite", "--recipe", "trimodal-jmt", "--variant", "demo", "--data", data["trimodal"],
        "--set", f"shapes={SMALL_FACE % 8}", *small, "--systems", "eda,voice,jmt,rjcma,jmt_voice+eda",
        "--fractions", "0.5,1", "--out", tmp_path / "suite", "--cache", tmp_path / "cache", "--workers", "1",
        "--threads", "1", "--quiet",
    ]  # fmt: skip
    call(*arguments)
    found = json.loads((tmp_path / "suite" / "suite.json").read_text())
    full = found["results"]["1"]
    assert set(found["results"]) == {"0.5", "1"}
    assert set(full["jmt"]) == {
        "clean", *(f"without {m}" for m in recipe.resolve().names),
        *(f"noise {v} on {m}" for m in recipe.resolve().names for v in ("0.25", "0.5", "1", "2")),
    }  # fmt: skip
    assert set(full["eda"]) == {"clean", *(f"noise {v} on eda" for v in ("0.25", "0.5", "1", "2"))}
    test = set(found["splits"][0]["test"])
    assert set(full["jmt"]["clean"]["subjects"]["accuracy"]) == test
    report = (tmp_path / "suite" / "report.md").read_text()
    for text in ("JMT, trimodal", "JMT voice + eda", "RJCMA", "## Balanced accuracy", "## Mean CCC", "## Cost"):
        assert text in report
    plots = re.findall(r"!\[\w+\]\((\w+\.png)\)", report)
    assert len(plots) == 6
    assert all((tmp_path / "suite" / name).stat().st_size > 5000 for name in plots)
    # the control: one modality alone is untouched, and the report says what it is
    control = [a if a != tmp_path / "suite" else tmp_path / "control" for a in arguments]
    control[control.index("eda,voice,jmt,rjcma,jmt_voice+eda")] = "eda,jmt_voice+eda"
    call(*control, "--re-pair")
    mixed = json.loads((tmp_path / "control" / "suite.json").read_text())["results"]
    assert mixed["1"]["eda"] == full["eda"]
    report = (tmp_path / "control" / "report.md").read_text()
    assert "face and EDA re-paired within person and class" in report and "--re-pair" in report
    # a control is not taken for the suite, nor the reverse
    again = CliRunner().invoke(cli, [str(a) for a in control])
    assert "made with different windows" in str(again.exception)
