"""A model meets data of other windows, sensors, rates, units or classes: refused, or made equal by `--cross`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import training_tools as tools
from click.testing import CliRunner, Result

from jmt_edge.calibration.sources import load_windows
from jmt_edge.capture.simulated.person import Person
from jmt_edge.cli import cli
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import DataError, UserError
from jmt_edge.tasks import get_task, split_steps
from jmt_edge.training import synth
from jmt_edge.training.matching import facts_of, window_of
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe, names

PLAN = synth.CohortPlan("biovid", 10, 3, 6, ("BL1", "PA4"))
DEMO = demo_bundle("pain")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def said(*arguments: object) -> str:
    """The sentence that refuses a command."""
    done = call(*arguments)
    assert isinstance(done.exception, UserError), done.output + repr(done.exception)
    text = str(done.exception)
    assert "\n" not in text
    return text


def done(*arguments: object) -> str:
    found = call(*arguments)
    assert found.exit_code == 0, found.output + repr(found.exception)
    return found.output


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same people and sessions in both layouts: 5.5 s at 512 Hz in files, and 10 s at 250 Hz in one array."""
    root = tmp_path_factory.mktemp("cohorts")
    biovid, painmonit = root / "biovid", root / "pm10"
    for subject in synth.cohort_subjects(PLAN):
        session, trials = synth.subject_trials(PLAN, subject)
        body = synth.Body(Person(subject.key, session, responder=subject.responder), 64, 48)
        for trial in trials:
            truth = [body.truth(t, trial.start, body.expression(t)) for t in trial.start + np.linspace(0, 5.5, 12)]
            synth._write_biosignals(biovid / "PartA", subject.name, trial, body, truth)
            synth._write_truth(synth._trial_truth(biovid, trial), truth)
    synth._write_lists(biovid, PLAN)
    synth._write_painmonit(_folder(painmonit), PLAN)
    return {"biovid": biovid, "painmonit": painmonit}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def run(cohorts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The EDA network, trained on the cohort in BioVid's layout."""
    out = tmp_path_factory.mktemp("run") / "eda"
    done("train", "--recipe", "biovid-eda", "--data", cohorts["biovid"], "--out", out, "--variant", "demo", "--workers",
         1, "--threads", 1, "--accelerator", "cpu", "--protocol", "holdout", "--quiet", "--cache", out.parent / "cache",
         "--set", "eda.epochs=12")  # fmt: skip
    return out


def evaluated(run: Path, data: Path, out: Path, *more: object) -> list[object]:
    return ["evaluate", run, "--data", data, "--out", out, "--workers", 1, "--threads", 1, "--quiet", "--no-robustness",
            "--cache", out.parent / "cache", *more]  # fmt: skip


def scores(out: Path) -> tuple[dict[str, float], dict[str, list[float]], np.ndarray]:
    """Pooled scores, their intervals, and the probability of every window."""
    clean = json.loads((out / "results.json").read_text())["conditions"]["clean"]
    with (out / "predictions.csv").open() as file:
        return clean["pooled"], clean["interval95"], np.array([float(r["pain"]) for r in csv.DictReader(file)])


# ---- cross-dataset -----------------------------------------------------------------------------------------------


def test_the_same_people_in_another_layout_score_the_same(run: Path, cohorts: dict[str, Path], tmp_path: Path) -> None:
    done(*evaluated(run, cohorts["biovid"], tmp_path / "own", "--protocol", "all", "--trained-too"))
    printed = done(*evaluated(run, cohorts["painmonit"], tmp_path / "other", "--cross"))
    own, interval, here = scores(tmp_path / "own")
    other, _, there = scores(tmp_path / "other")
    assert own["accuracy"] > 0.6  # there is something to lose
    low, high = interval["accuracy"]
    assert low <= other["accuracy"] <= high
    # window by window it is the same signal, resampled from another rate
    assert len(here) == len(there) == 120
    assert np.corrcoef(here, there)[0, 1] > 0.98
    for text in (
        "5.5 s in training, trials of 10 s here: seconds 0 to 5.5", "eda at 512 Hz in training, 250 Hz here",
        "BL1 (0) and PA4 (1)", "heater 0 (0) and heater 4 (1)", "50% in training, 50% here",
        "8 trained on; 10 here",
    ):  # fmt: skip
        assert text in printed, text
    assert "accuracy 0.772" not in printed  # published on another data set
    kept = json.loads((tmp_path / "other" / "cross.json").read_text())
    assert kept["data"]["rates"] == {"eda": 250.0} and kept["model"]["rates"]["eda"] == pytest.approx(512, rel=1e-3)
    # another window is another result
    done(*evaluated(run, cohorts["painmonit"], tmp_path / "late", "--cross", "--window-end", 10))
    assert np.corrcoef(here, scores(tmp_path / "late")[2])[0, 1] < 0.9


def test_a_bundle_is_scored_without_the_sensor_that_the_data_lack(cohorts: dict[str, Path], tmp_path: Path) -> None:
    printed = done(*evaluated(DEMO, cohorts["painmonit"], tmp_path / "pm", "--cross"))
    assert "no face here, scored as a live run without it" in printed
    done(*evaluated(DEMO, cohorts["biovid"], tmp_path / "bv", "--cross"))
    own, interval, here = scores(tmp_path / "bv")
    other, _, there = scores(tmp_path / "pm")
    assert np.corrcoef(here, there)[0, 1] > 0.98
    assert interval["accuracy"][0] <= other["accuracy"] <= interval["accuracy"][1]
    assert own["accuracy"] > 0.6


@pytest.mark.nightly
@pytest.mark.slow
def test_a_bundle_trained_on_biovid_scores_the_same_people_in_painmonits_layout(tmp_path: Path) -> None:
    """The whole way by commands: faces and EDA in BioVid's layout, the bundle, and the array of 10 s windows."""
    common = ["--subjects", 6, "--trials", 2, "--classes", "BL1,PA4", "--seed", 5, "--quiet", "--jobs", 1]
    done("synth", "biovid", *common, "--out", tmp_path / "biovid")
    done("synth", "painmonit", *common, "--out", tmp_path / "pm")
    done("train", "--recipe", "biovid-jmt", "--data", tmp_path / "biovid", "--out", tmp_path / "run", "--variant",
         "demo", "--workers", 1, "--threads", 1, "--accelerator", "cpu", "--protocol", "holdout", "--quiet", "--cache",
         tmp_path / "cache", "--set", 'shapes={"face":[3,10,32,32]}', "--set", "face.epochs=2")  # fmt: skip
    bundle = tmp_path / "run" / "biovid-jmt.jmt"
    assert "10 s and the model's 5.5 s; pass --cross" in said(*evaluated(bundle, tmp_path / "pm", tmp_path / "no"))
    done(*evaluated(bundle, tmp_path / "pm", tmp_path / "other", "--cross"))
    # the same files without the videos
    shutil.copytree(tmp_path / "biovid", tmp_path / "eda", ignore=shutil.ignore_patterns("video"))
    done(*evaluated(bundle, tmp_path / "eda", tmp_path / "own", "--cross", "--trained-too"))
    (_, interval, here), (other, _, there) = scores(tmp_path / "own"), scores(tmp_path / "other")
    assert len(here) == len(there) == 24
    assert np.corrcoef(here, there)[0, 1] > 0.98
    assert interval["accuracy"][0] <= other["accuracy"] <= interval["accuracy"][1]


# ---- refused -----------------------------------------------------------------------------------------------------


def test_other_windows_rates_sensors_and_classes_are_refused_with_both_values(
    run: Path, cohorts: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "e"
    text = said(*evaluated(run, cohorts["painmonit"], out))
    assert "last 10 s and the model's 5.5 s; pass --cross" in text
    x, y, who = (np.load(cohorts["painmonit"] / f"{n}.npy") for n in ("X", "y_heater", "subjects"))
    short = tools.write_painmonit(tmp_path / "short", x[:, : round(5.5 * 250), 3], y, who)
    # the window fits; the rate and the classes do not
    text = said(*evaluated(run, short, out, "--rate", 250))
    assert "eda at 512 Hz" in text and "has 250 Hz" in text
    same = tools.write_painmonit(tmp_path / "same", np.repeat(x[:, : round(5.5 * 256), 3], 2, axis=1), y, who)
    text = said(*evaluated(run, same, out, "--rate", 512))
    assert "tells PA4 from BL1" in text and "heater 0 and heater 4" in text
    # without a rate, an array of other windows is not taken for PainMonit's
    text = said(*evaluated(run, same, out))
    assert "2816 samples" in text and "11.26 s and not its 10 s" in text and "--rate" in text
    text = said(*evaluated(DEMO, cohorts["biovid"], out))
    assert "takes face and eda" in text and "has no face" in text
    assert "give both" in said(*evaluated(run, short, out, "--window-end", 5.5))


def test_what_cannot_be_made_equal_is_refused_with_cross_too(
    run: Path, cohorts: dict[str, Path], tmp_path: Path
) -> None:
    x, y, who = (np.load(cohorts["painmonit"] / f"{n}.npy") for n in ("X", "y_heater", "subjects"))
    eda, out = x[..., 3].astype(float), tmp_path / "e"
    short = tools.write_painmonit(tmp_path / "short", eda[:, :1000], y, who)
    text = said(*evaluated(run, short, out, "--cross", "--rate", 250))
    assert "needs windows of 5.5 s" in text and "trials of 4 s" in text
    text = said(*evaluated(run, cohorts["painmonit"], out, "--cross", "--window-end", 4))
    assert "--window-end between 5.5 and 10" in text
    for name, values in {
        "standard": (eda - eda.mean()) / eda.std(),
        "per window": (eda - eda.min(1, keepdims=True)) / np.ptp(eda, axis=1)[:, None],
        "kohm": 1000 / eda,
        "nS": 1000 * eda,
    }.items():
        data = tools.write_painmonit(tmp_path / name, values, y, who)
        assert "is not in µS" in said(*evaluated(run, data, out, "--cross"))
    affect = tools.write_affwild2(tmp_path / "affwild2", 2, 60)
    assert "takes eda" in said(*evaluated(run, affect, out, "--cross"))
    assert "has labels of arousal and valence" in said(*evaluated(DEMO, affect, out, "--cross"))


def test_training_refuses_a_recipe_of_other_windows(cohorts: dict[str, Path], tmp_path: Path) -> None:
    quick = ["--out", tmp_path / "r", "--cache", tmp_path / "c", "--workers", 1, "--quiet", "--variant", "demo"]
    text = said("train", "--recipe", "biovid-eda", "--data", cohorts["painmonit"], *quick)
    assert "last 10 s and the model's 5.5 s" in text and '"eda":[1,5120]' in text
    text = said("train", "--recipe", "painmonit-eda", "--data", cohorts["biovid"], *quick)
    assert "last 5.5 s and the model's 10 s" in text and '"eda":[1,1375]' in text
    assert "last 10 s" in said("train", "--check", cohorts["painmonit"], "--recipe", "biovid-eda", "--workers", 1)


def test_the_remedy_of_a_refusal_is_accepted(cohorts: dict[str, Path], tmp_path: Path) -> None:
    done("train", "--recipe", "painmonit-eda", "--data", cohorts["biovid"], "--out", tmp_path / "r", "--workers", 1,
         "--cache", tmp_path / "c", "--quiet", "--variant", "demo", "--protocol", "holdout", "--threads", 1,
         "--set", 'spans={"eda":5.5}', "--set", 'shapes={"eda":[1,1375]}', "--set", "eda.epochs=1")  # fmt: skip


def test_initial_weights_of_other_clips_are_refused(run: Path, cohorts: dict[str, Path], tmp_path: Path) -> None:
    """`eda_pooled` fits any length, so only the record in the file tells."""
    pooled = ["--variant", "demo", "--workers", 1, "--threads", 1, "--quiet", "--protocol", "holdout", "--set",
              "eda.epochs=1", "--cache", tmp_path / "c"]  # fmt: skip
    done("train", "--recipe", "painmonit-eda", "--data", cohorts["painmonit"], "--out", tmp_path / "ten", *pooled)
    weights = tmp_path / "ten" / "backbone-eda.safetensors"
    span = ["--set", 'spans={"eda":5.5}', "--set", 'shapes={"eda":[1,1375]}']
    text = said("train", "--recipe", "painmonit-eda", "--data", cohorts["biovid"], "--out", tmp_path / "five", *pooled,
                *span, "--weights", f"eda={weights}")  # fmt: skip
    assert "seconds = 10.0" in text and "5.5" in text
    done("train", "--recipe", "painmonit-eda", "--data", cohorts["painmonit"], "--out", tmp_path / "again", *pooled,
         "--weights", f"eda={weights}")  # fmt: skip


def test_calibration_refuses_data_that_the_bundle_does_not_fit(cohorts: dict[str, Path]) -> None:
    bundle = load_bundle(DEMO)
    with pytest.raises(DataError, match=r"last 10 s and the model's 5.5 s"):
        load_windows(bundle, cohorts["painmonit"], 8)
    with pytest.raises(DataError, match="has no face"):
        load_windows(bundle, cohorts["biovid"], 8)


# ---- the facts ---------------------------------------------------------------------------------------------------


def test_every_recipe_has_the_window_of_its_data_set() -> None:
    seconds = {"biovid": 5.5, "trimodal": 5.5, "simulated": 5.5, "painmonit": 10.0, "affwild2": 0.0}
    for name in names():
        recipe = load_recipe(name)
        expected = 0.0 if name == "demo-affect" else seconds[recipe.layout]
        assert window_of(recipe.resolve()) == pytest.approx(expected), name
    assert window_of(split_steps(get_task("pain"), 4)) == pytest.approx(5.5)


def test_facts_are_those_of_the_files(cohorts: dict[str, Path]) -> None:
    found = facts_of(open_cohort(cohorts["biovid"]))
    assert (found.trials, found.subjects, found.share, found.units) == (120, 10, 0.5, {"eda": "µS"})
    assert found.rates["eda"] == pytest.approx(512, rel=1e-3)
    assert found.classes == ("BL1", "PA4")
