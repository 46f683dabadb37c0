"""`jmt-edge train` and `evaluate` as commands: folds over processes, grids, comparisons, kills, logs, wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import training_tools as tools
from click.testing import CliRunner
from sklearn.metrics import balanced_accuracy_score

from jmt_edge.cli import cli, main
from jmt_edge.training.comparison import compare, paired
from jmt_edge.training.experiment import TrainingOptions, console_progress, prepare
from jmt_edge.training.locks import lock, share_out
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.scores import Predictions, score
from jmt_edge.training.search import Protocol
from jmt_edge.training.sets import _delay

QUICK = ["--variant", "demo", "--workers", "1", "--accelerator", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def biovid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.write_biovid(tmp_path_factory.mktemp("commands"), 6, 4, video=False)


def train(biovid: Path, out: Path, *arguments: str, recipe: str = "biovid-eda") -> list[str]:
    return [
        "train", "--recipe", recipe, "--data", str(biovid), "--out", str(out), "--cache", str(out.parent / "cache"),
        "--set", "eda.epochs=3", "--set", "eda.batch=8", *QUICK, *arguments,
    ]  # fmt: skip


def call(arguments: list[str]) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def outputs(folder: Path) -> np.ndarray:
    return Predictions.load(folder / "predictions.npz").outputs["pain"]


# ---- folds, grids, comparisons -----------------------------------------------------------------------------------


def test_folds_over_two_processes_give_one_table_and_are_found_again(biovid: Path, tmp_path: Path) -> None:
    arguments = train(biovid, tmp_path / "run", "--folds", "3", "--processes", "2", "--quiet", "--protocol", "loso")
    table = call(arguments)  # --folds is the shorter word for a protocol and wins
    assert [f"fold{k}of3" in table for k in (1, 2, 3)] == [True] * 3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["splits"], summary["windows"], summary["pooled"]["auc"] > 0.9) == (3, 48, True)
    assert len(summary["subjects"]["accuracy"]) == 6
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").glob("*/scores.json")}
    assert call(arguments) == table
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps  # nothing was trained again
    alone = call(train(biovid, tmp_path / "alone", "--folds", "3", "--quiet", "--cache", str(tmp_path / "c2")))
    assert alone.splitlines()[:-1] == table.splitlines()[:-1]  # sharing the folds out changes no number


def test_a_piece_of_work_is_done_once_and_a_dead_holder_frees_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from jmt_edge.training.locks import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)\n"
    )
    path = tmp_path / "job" / "run.lock"
    holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with lock(path, wait=False) as mine:
            assert not mine
        done: list[str] = []

        def waited(what: str) -> None:
            # everything else is done by now; the holder dies without a word
            assert (what, done) == ("job", ["free"])
            holder.kill()
            holder.wait()

        def work(name: str) -> str:
            done.append(name)
            return name

        jobs = [(path, lambda: None, lambda: work("taken")), (tmp_path / "b", lambda: None, lambda: work("free"))]
        assert share_out(jobs, wait=waited, poll=0.01) == ["taken", "free"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_grid_is_chosen_by_validation_alone_and_goes_on(biovid: Path, tmp_path: Path) -> None:
    arguments = train(biovid, tmp_path / "run", "--protocol", "holdout", "--grid", "lr=3e-3,1e-7", "--quiet")
    table = call([*arguments, "--processes", "2"])
    assert "grid (validation loss):" in table
    chosen = json.loads((tmp_path / "run" / "recipe.json").read_text())["stages"]["eda"]["lr"]
    assert chosen == 3e-3  # with 1e-7 nothing is learnt
    tried = sorted((tmp_path / "run" / "grid").glob("*/scores.json"))
    records = [json.loads(f.read_text()) for f in tried]
    assert {r["scored"] for r in records} == {"validation"}
    stamps = [f.stat().st_mtime_ns for f in tried]
    # a third value joins the journal of the first two; it diverges, and nothing is tried twice
    more = train(biovid, tmp_path / "run", "--protocol", "holdout", "--grid", "lr=3e-3,1e-7,1e30", "--quiet")
    assert "lr=1e30" in call(more).splitlines()[3]
    assert [f.stat().st_mtime_ns for f in tried] == stamps
    assert len(list((tmp_path / "run" / "grid").glob("*/run.lock"))) == 3


def test_recipes_are_compared_with_paired_intervals(biovid: Path, tmp_path: Path) -> None:
    span = ["--set", 'spans={"eda": 5.5}', "--set", 'shapes={"eda": [1, 2816]}']  # PainMonit's windows are longer
    both = "biovid-eda,painmonit-eda"
    table = call(train(biovid, tmp_path / "runs", "--folds", "2", "--quiet", *span, recipe=both))
    found = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    first, second = found["ranking"]
    assert {first["recipe"], second["recipe"]} == {"biovid-eda", "painmonit-eda"}
    assert first["accuracy"] >= second["accuracy"]
    assert (found["subjects"], found["best_single"]) == (6, first["recipe"])
    low, high = second["above_best_single_interval95"]
    assert low <= second["above_best_single"] <= high <= 0.5
    assert f"| {first['recipe']} |" in table


def test_the_difference_of_equal_systems_has_no_spread(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    people = np.repeat([f"p{i}" for i in range(8)], 10)
    y = np.tile([0.0, 1.0], 40).astype(np.float32)

    def protocol(name: str, logit: np.ndarray) -> Protocol:
        p = Predictions(
            ("eda",), people, np.arange(80).astype(str), np.ones(80), {"pain": y[:, None]},
            {"pain": logit[:, None].astype(np.float32)}, np.ones((80, 1, 1), np.float32), np.empty(0, np.float32),
        )  # fmt: skip
        recipe = replace(load_recipe("biovid-eda"), name=name)
        return Protocol(recipe, [], p, score(p, draws=10), [])

    # people differ widely in how well they are recognised
    logit = (2 * y - 1) * np.where(rng.random(80) < np.linspace(0.3, 1, 8).repeat(10), 1, -1)
    better = np.where(np.arange(80) % 10 < 2, 2 * y - 1, logit)
    rows = {}
    lines = compare([protocol("a", logit), protocol("b", logit * 3), protocol("c", better)], tmp_path)
    for row in json.loads((tmp_path / "comparison.json").read_text())["ranking"]:
        rows[row["recipe"]] = row
    low, high = rows["a"]["interval95"]
    assert high - low > 0.1
    assert rows["a"].get("above_best_single_interval95", rows["b"].get("above_best_single_interval95")) is not None
    best = json.loads((tmp_path / "comparison.json").read_text())["best_single"]
    assert best == "c"
    assert rows["a"]["above_best_single_interval95"] == rows["b"]["above_best_single_interval95"]
    width = np.diff(rows["a"]["above_best_single_interval95"])[0]
    assert 0 <= width < high - low  # what two systems share cancels
    assert len(lines) == 5

    # the suite pairs any two systems, by any metric; of the wide spread over people nothing is left in a difference
    clean = {name: protocol(name, z).predictions for name, z in (("a", logit), ("b", logit * 3), ("c", better))}
    interval, above = paired(clean, "balanced_accuracy", ["a"])
    assert np.diff(interval["a"])[0] > 0.1
    assert above["a"]["b"] == (0, 0, 0)
    gain, low, high = above["a"]["c"]
    assert gain == pytest.approx(balanced_accuracy_score(y, better > 0) - balanced_accuracy_score(y, logit > 0))
    right = ((better > 0) == y).astype(float) - ((logit > 0) == y)
    people_gain = [np.mean(right[people == p]) for p in np.unique(people)]
    # each class has as many windows of each person, so the pooled difference is the mean of the people's
    se = np.std(people_gain) / np.sqrt(len(people_gain))
    assert (low, high) == pytest.approx((gain - 1.96 * se, gain + 1.96 * se), abs=0.25 * (high - low))


def test_seeds_are_averaged_beside_their_spread(biovid: Path, tmp_path: Path) -> None:
    printed = call(train(biovid, tmp_path / "run", "--folds", "2", "--seeds", "2", "--seed", "4", "--quiet"))
    found = json.loads((tmp_path / "run" / "seeds.json").read_text())
    assert found["seeds"] == [4, 5]
    assert "over 2 seeds mean" in printed
    logit: dict[str, list[float]] = {}
    for folder in sorted((tmp_path / "run").glob("seed*/fold*")):
        p = Predictions.load(folder / "predictions.npz")
        for name, value in zip(p.trial, p.outputs["pain"][:, -1] / p.temperature):
            logit.setdefault(str(name), []).append(float(value))
    assert {len(v) for v in logit.values()} == {2}
    right = [(np.mean(v) >= 0) == ("PA4" in name) for name, v in logit.items()]
    assert found["mean_prediction"]["pooled"]["accuracy"] == pytest.approx(np.mean(right), abs=1e-4)


def test_the_calibrated_mode_is_named_and_scales_each_person(biovid: Path, tmp_path: Path) -> None:
    recipe = load_recipe("biovid-eda", ["calibrated=true"], variant="demo")
    prepared = prepare(open_cohort(biovid), recipe, TrainingOptions(cache=tmp_path))
    store = prepared.stores["eda"]
    people = np.array([prepared.windows.trials[n].subject for n, _ in prepared.windows.clips["eda"]])
    for who in np.unique(people):
        own = store.load(np.flatnonzero(people == who))
        assert own.mean() == pytest.approx(0, abs=1e-3)
        assert own.std() == pytest.approx(1, abs=1e-3)
    said = call(train(biovid, tmp_path / "run", "--protocol", "holdout", "--quiet", "--set", "calibrated=true"))
    assert "calibrated = true" in said
    assert "calibrated = true" in call(
        ["evaluate", str(tmp_path / "run"), "--data", str(biovid), "--quiet", "--cache", str(tmp_path / "cache"),
         "--no-robustness", "--workers", "1"]
    )  # fmt: skip


def test_a_shifted_clip_is_the_signal_earlier_or_later() -> None:
    ramp = np.arange(100, dtype=np.float32)[None, None].repeat(3, 0)
    moved = _delay(ramp, np.array([0.1, -0.1, 0.0]))
    assert moved[0, 0, :12].tolist() == [0] * 10 + [0, 1]
    assert moved[1, 0, -12:].tolist() == [98, 99] + [99] * 10
    assert (moved[2] == ramp[2]).all()


def test_a_run_with_folds_is_evaluated_by_the_weights_that_never_saw_a_subject(biovid: Path, tmp_path: Path) -> None:
    call(train(biovid, tmp_path / "run", "--folds", "2", "--quiet"))
    arguments = ["evaluate", str(tmp_path / "run"), "--data", str(biovid), "--cache", str(tmp_path / "cache"),
                 "--workers", "1", "--quiet"]  # fmt: skip
    printed = call(arguments)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())["conditions"]
    assert results["clean"]["pooled"] == pytest.approx(summary["pooled"], abs=1e-4)
    assert results["clean"]["interval95"].keys() >= {"accuracy", "auc"}
    assert (
        "JMT Table 2, EDA (1-D CNN): 0.772" in printed
        and "settings other than those of biovid-eda: the demo width" in printed
    )
    assert results["noise 2 on eda"]["pooled"]["auc"] <= results["clean"]["pooled"]["auc"]
    names = {f.name for f in (tmp_path / "run" / "evaluation").iterdir()}
    assert {"results.csv", "subjects.csv", "predictions.csv", "confusion.png", "roc.png", "reliability.png"} <= names


# ---- killed, logged, in mixed precision --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_with_the_same_numbers(biovid: Path, tmp_path: Path) -> None:
    settings = ["--protocol", "holdout", "--set", "eda.epochs=30", "--set", "eda.patience=30", "--quiet"]
    arguments = train(biovid, tmp_path / "killed" / "run", *settings)
    last = tmp_path / "killed" / "run" / "eda" / "checkpoints" / "last.ckpt"
    run = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge.cli", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        while not last.is_file():
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(0.1)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert 0 <= int(torch.load(last, weights_only=True)["epoch"]) < 29
    assert not (tmp_path / "killed" / "run" / "scores.json").exists()
    call(arguments)
    call(train(biovid, tmp_path / "whole" / "run", *settings))
    assert json.loads((tmp_path / "killed/run/eda/finished.json").read_text())["epochs"] == 30
    assert np.array_equal(outputs(tmp_path / "killed" / "run"), outputs(tmp_path / "whole" / "run"))


def test_logs_progress_and_mixed_precision(biovid: Path, tmp_path: Path) -> None:
    said = call(train(biovid, tmp_path / "run", "--protocol", "holdout", "--precision", "bf16-mixed"))
    assert "eda (holdout): epoch 1/3" in said
    assert "s left" in said
    rows = (tmp_path / "run" / "eda" / "csv" / "metrics.csv").read_text().splitlines()
    assert {"epoch", "loss", "val_loss"} <= set(rows[0].split(","))
    assert list((tmp_path / "run" / "eda" / "tensorboard").glob("events.out.tfevents.*"))
    whole = tmp_path / "whole" / "run"
    call(train(biovid, whole, "--protocol", "holdout", "--quiet"))
    mixed, exact = outputs(tmp_path / "run"), outputs(whole)
    assert np.isfinite(mixed).all()
    assert (mixed != exact).any()  # the flag reached the trainer


# ---- wrong input: exit code 2, one sentence with file and row ------------------------------------------------------


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["jmt-edge", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jmt-edge: ")]
    assert len(said) == 1
    return said[0]


def _garbage(file: Path) -> None:
    file.write_bytes(bytes(range(128, 256)) * 20)


def _column(file: Path) -> None:
    file.write_text(file.read_text().replace(" gsr", " skin", 1))


def _word(file: Path) -> None:
    lines = file.read_text().splitlines()
    lines[41] = "\t".join([lines[41].split("\t")[0], "high", "0", "0", "0", "0"])
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_garbage, "no time column"), (_column, "no column"), (_word, "row 42")],
)
def test_a_wrong_recording_is_one_sentence_or_skipped(
    spoil: object, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tools.write_biovid(tmp_path / "data", 4, 2, video=False)
    bad = sorted(data.rglob("*_bio.csv"))[3]
    spoil(bad)  # type: ignore[operator]
    arguments = train(data, tmp_path / "run", "--protocol", "holdout", "--quiet")
    said = refused(arguments, monkeypatch, capsys)
    assert says in said
    assert str(bad) in said
    assert "--skip-bad" in said
    output = call([*arguments, "--skip-bad"])
    assert "1 bad samples skipped:" in output
    assert str(bad) in output


def test_a_recording_cut_short_is_absent_and_named(tmp_path: Path) -> None:
    data = tools.write_biovid(tmp_path / "data", 4, 2, video=False)
    short = sorted(data.rglob("*_bio.csv"))[3]
    short.write_text("\n".join(short.read_text().splitlines()[:100]) + "\n")
    output = call(train(data, tmp_path / "run", "--protocol", "holdout", "--quiet"))
    assert "1 absent: usable eda clip of a trial" in output
    assert str(short) in output


def test_a_checkpoint_of_another_model_is_one_sentence(
    biovid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(8, 1, 3)}, other)
    arguments = train(biovid, tmp_path / "run", "--protocol", "holdout", "--quiet", "--weights", f"eda={other}")
    assert str(other) in refused(arguments, monkeypatch, capsys)
    call(train(biovid, tmp_path / "run2", "--protocol", "holdout", "--quiet"))
    save_file({"conv1.weight": torch.zeros(8, 1, 3)}, tmp_path / "run2" / "backbone-eda.safetensors")
    said = refused(
        ["evaluate", str(tmp_path / "run2"), "--data", str(biovid), "--cache", str(tmp_path / "cache"), "--quiet"],
        monkeypatch, capsys,
    )  # fmt: skip
    assert "backbone-eda.safetensors" in said
    assert "another model" in said


def test_weights_from_a_file_are_where_training_starts(biovid: Path, tmp_path: Path) -> None:
    call(train(biovid, tmp_path / "first", "--protocol", "holdout", "--quiet"))
    file = tmp_path / "first" / "backbone-eda.safetensors"
    call(train(biovid, tmp_path / "second", "--protocol", "holdout", "--quiet", "--weights", f"eda={file}",
               "--set", "eda.epochs=0"))  # fmt: skip
    assert file.read_bytes() == (tmp_path / "second" / "backbone-eda.safetensors").read_bytes()
    assert "keys used, 0 ignored, 0 missing" in (tmp_path / "second" / "weights-eda.txt").read_text()


def test_other_mistakes(
    biovid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.pt"
    text.write_text("root:x:0:0")
    for arguments, says in (
        (["train", "--recipe", "biovid-eda"], "--out"),
        (train(biovid, text), "cannot be a folder"),
        (train(biovid, tmp_path / "a", "--weights", f"eda={text}"), "cannot be read as a checkpoint"),
        (train(biovid, tmp_path / "a", "--weights", f"skin={text}"), "no recipe has that network; choose from eda"),
        (train(biovid, tmp_path / "a", "--precision", "8-bit"), "'8-bit' is unknown; choose 32-true"),
        (train(biovid, tmp_path / "a", "--set", "eda.batch=0"), "batch cannot be 0"),
        (train(biovid, tmp_path / "a", "--protocol", "kfold:x"), "unknown protocol 'kfold:x'"),
        (train(biovid, tmp_path / "a", "--set", 'backbone={"eda": "eda_pooled"}', "--set", "calibrated=true"),
         "use eda_cnn1d_centred"),
        (train(biovid, tmp_path / "a", "--set", "augment.eda_contact=0.5", "--set", "calibrated=true"),
         "set augment.eda_contact = 0"),
        (["train", "--recipe", "biovid-eda", "--out", str(tmp_path)], "--data"),
        (train(biovid, tmp_path / "a", "--folds", "9"), "9 folds"),
        (train(biovid, tmp_path / "a", "--protocol", "random"), "unknown protocol"),
        (train(biovid, tmp_path / "a", "--grid", "lr"), "--grid"),
        (train(biovid, tmp_path / "a", recipe="biovid-eda,biovid-eda"), "different names"),
        (["evaluate", str(tmp_path), "--data", str(biovid)], "neither a bundle nor a finished run"),
        (["evaluate", "--suite", "--data", str(biovid)], "--recipe and --out"),
        (["evaluate", str(tmp_path), "--data", str(biovid), "--seeds", "3"], "--seeds repeats the fusions of --suite"),
        (["evaluate", "--suite", "--data", str(biovid), "--cross-fit"], "--cross-fit is a part of --suite --seeds N"),
        (["evaluate", "--suite", "--data", str(biovid), "--recipe", "biovid-jmt", "--out", str(tmp_path),
          "--fractions", "0,2"], "(0, 1]"),
    ):  # fmt: skip
        assert says in refused([*arguments, "--quiet"], monkeypatch, capsys)


def test_time_left_is_that_of_this_fold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """15 batches at a second each, in two folds with minutes of other work between them."""
    now = [0.0]
    monkeypatch.setattr("jmt_edge.training.experiment.time.monotonic", lambda: now[0])
    show = console_progress()
    for fold in range(2):
        for done in range(1, 16):
            show("face features", done, 15)
            now[0] += 1.0
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1] == "face features: 15/15, 0 s left"
        left = {int(line.split()[2].split("/")[0]): int(line.split()[3]) for line in lines if "left" in line}
        assert left and all(seconds == 15 - done for done, seconds in left.items())
        assert fold == 0 or "face features: 1/15" in lines  # nothing is known yet
        now[0] += 300.0
