"""`jmt-edge synth`: the real layouts, the truth beside them, effect sizes, and a clean stop."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from warm import jmt_edge

from jmt_edge.errors import DataError
from jmt_edge.training.synth import CohortPlan, cohort_subjects, generate, measure_effects, prepare, total_samples

TRIMODAL = CohortPlan("trimodal", 2, 4, 1, ("BL1", "PA4"), width=160, height=120)


def _write(root: Path, cohort: CohortPlan, jobs: int = 1) -> Path:
    prepare(root, cohort)
    assert list(generate(root, cohort, jobs))[-1] == total_samples(cohort)
    return root


@pytest.fixture(scope="module")
def trimodal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("synth") / "trimodal", TRIMODAL)


def _rows(path: Path, separator: str = ",") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def test_biovid_layout(trimodal: Path) -> None:
    part = trimodal / "PartA"
    samples = _rows(part / "starting_point" / "samples.csv", "\t")
    assert list(samples[0]) == ["subject_id", "subject_name", "class_id", "class_name", "sample_id", "sample_name"]
    assert len(samples) == 4
    for row in samples:
        subject, sample = row["subject_name"], row["sample_name"]
        assert re.fullmatch(r"\d{6}_[mw]_\d\d", subject)
        assert re.fullmatch(rf"{subject}-(BL1|PA4)-\d{{3}}", sample)
        assert int(row["class_id"]) == {"BL1": 0, "PA4": 4}[row["class_name"]]
        for kind in ("biosignals_raw", "biosignals_filtered"):
            lines = (part / kind / subject / f"{sample}_bio.csv").read_text().splitlines()
            names = [name.strip() for name in lines[0].split("\t")]
            assert names == ["time", "gsr", "ecg", "emg_trapezius", "emg_corrugator", "emg_zygomaticus"]
            values = np.array([[float(v) for v in line.split("\t")] for line in lines[1:]])
            assert values.shape == (2816, 6)
            assert values[0, 0] == 0
            assert values[-1, 0] == 5_500_000
            assert np.all((values[:, 1] > 0.05) & (values[:, 1] < 60))
        video = cv2.VideoCapture(str(part / "video" / subject / f"{sample}.mp4"))
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(25)
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 138
        ok, frame = video.read()
        assert ok
        assert frame.shape == (120, 160, 3)
        assert frame.std() > 10
    assert {r["sample_name"].rsplit("-", 2)[1:][0] + r["sample_name"][-3:] for r in samples} == {"BL1081", "PA4061"}


def test_trimodal_adds_sound_and_affect(trimodal: Path) -> None:
    sounds = sorted((trimodal / "PartA" / "audio").glob("*/*.wav"))
    assert len(sounds) == 4
    for path in sounds:
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (44_100, 1, 242_550)
        table = _rows(trimodal / "PartA" / "valence_arousal" / path.parent.name / f"{path.stem}.txt")
        truth = _rows(trimodal / "truth" / path.parent.name / f"{path.stem}.csv")
        assert len(table) == len(truth) == 138
        assert [r["valence"] for r in table] == [r["valence"] for r in truth]


def test_truth_says_what_was_felt(trimodal: Path) -> None:
    for row in _rows(trimodal / "truth.csv"):
        frames = _rows(trimodal / "truth" / row["subject_name"] / f"{row['sample_name']}.csv")
        pain = np.array([float(f["pain"]) for f in frames])
        if row["class_name"] == "BL1":
            assert pain.max() == 0
            assert row["onset"] == ""
        else:
            assert pain.max() == 1
            assert -1 <= float(row["onset"]) <= 0.5


def test_the_training_readers_accept_it(trimodal: Path) -> None:
    readers = pytest.importorskip("jmt_edge.training.readers")
    cohort = readers.open_cohort(trimodal)
    assert len(cohort.trials) == 4
    assert all(set(r.files) == {"face", "voice", "eda"} for r in cohort.trials)


def test_a_half_filled_cohort_of_another_generator_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path / "c", TRIMODAL)
    prepare(tmp_path / "c", TRIMODAL)
    monkeypatch.setattr("jmt_edge.training.synth.code", lambda names: "a later version")
    with pytest.raises(DataError, match="an unfinished cohort with another generator"):
        prepare(tmp_path / "c", TRIMODAL)


def test_same_seed_same_files_whatever_the_jobs_and_the_interruptions(trimodal: Path, tmp_path: Path) -> None:
    other = tmp_path / "again"
    prepare(other, TRIMODAL)
    running = generate(other, TRIMODAL, 2)
    next(running)
    running.close()  # as Ctrl-C does
    assert "complete" not in json.loads((other / "synth.json").read_text())
    prepare(other, TRIMODAL)  # the same command again goes on
    list(generate(other, TRIMODAL, 1))
    files = sorted(p.relative_to(trimodal) for p in trimodal.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for file in files:
        if file.suffix in (".csv", ".txt", ".wav", ".json"):
            assert (other / file).read_bytes() == (trimodal / file).read_bytes(), file


def test_nothing_is_overwritten(trimodal: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complete"):
        prepare(trimodal, TRIMODAL)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        prepare(tmp_path, TRIMODAL)
    half = tmp_path / "half"
    prepare(half, TRIMODAL)
    with pytest.raises(DataError, match="seed"):
        prepare(half, CohortPlan(**{**TRIMODAL.__dict__, "seed": 5}))


def test_affwild2_layout(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    pytest.importorskip("jmt_edge.preprocessing.face")
    cohort = CohortPlan("affwild2", 10, 1, seconds=0.5, width=160, height=120)
    root = tmp_path / "aff"
    _write(root, cohort)
    labels = sorted((root / "VA_Estimation_Challenge").glob("*/*.txt"))
    assert len(labels) == 10
    assert {p.parent.name for p in labels} == {"Train_Set", "Validation_Set"}
    assert {p.stem[-5:] for p in labels if "_" in p.stem} == {"_left", "right"}
    for path in labels:
        video = root / "videos" / f"{re.sub('_(left|right)$', '', path.stem)}.mp4"
        with av.open(str(video)) as container:
            fps = float(container.streams.video[0].average_rate)
            sound = container.streams.audio[0]
            assert sound.rate == 44_100
            pcm = np.concatenate([f.to_ndarray().ravel() for f in container.decode(sound)])
        assert pcm.std() > 1e-4
        assert len(pcm) == pytest.approx(22_050, abs=3000)
        rows = _rows(path)
        assert list(rows[0]) == ["valence", "arousal"]
        assert len(rows) == round(fps / 2)
        assert all(-1 <= float(r["valence"]) <= 1 or float(r["valence"]) == -5 for r in rows)
        crops = sorted((root / "cropped_aligned" / path.stem).glob("*.jpg"))
        assert crops
        assert all(re.fullmatch(r"\d{5}\.jpg", c.name) and 1 <= int(c.stem) <= len(rows) for c in crops)
        assert cv2.imread(str(crops[0])).shape == (112, 112, 3)


def test_long_videos_have_gaps_and_unlabelled_rows() -> None:
    from jmt_edge.training.synth import _spans

    flags = [_spans(np.random.default_rng(i), 1800, 30.0, 0.03, 1.5) for i in range(200)]
    assert 0.015 < np.mean(flags) < 0.045


def test_twenty_of_87_do_not_respond() -> None:
    everyone = cohort_subjects(CohortPlan("biovid", 87, 0))
    assert sum(not s.responder for s in everyone) == 20
    assert len({s.name for s in everyone}) == 87
    many = cohort_subjects(CohortPlan("biovid", 400, 0))
    assert 0.15 < np.mean([not s.responder for s in many]) < 0.32


def test_effect_sizes() -> None:
    """Real pain: mean skin-conductance response 0.109 µS at high and 0.039 µS at low intensity."""
    effects = {e.class_name: e for e in measure_effects(CohortPlan("biovid", 87, 2, 4, ("BL1", "PA1", "PA4")))}
    assert effects["PA4"].scr == pytest.approx(0.109, abs=0.025)
    assert effects["PA1"].scr == pytest.approx(0.039, abs=0.012)
    assert effects["BL1"].scr == 0
    assert effects["PA4"].rise > effects["PA1"].rise > effects["BL1"].rise > 0
    assert 0.5 < effects["PA4"].shows < 0.72
    assert effects["PA4"].pspi_mean > 3 > 1 > effects["BL1"].pspi_mean


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["biovid"], "--out"),
        (["biovid", "--out", "{tmp}", "--classes", "PA5"], "PA5"),
        (["affwild2", "--effects"], "affwild2"),
        (["biovid", "--out", "{tmp}"], "empty"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], word: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = jmt_edge("synth", *(a.format(tmp=tmp_path) for a in arguments))
    assert done.returncode == 2
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_interrupt_stops_cleanly(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    arguments = ["biovid", "--subjects", "4", "--trials", "20", "--jobs", "2", "--out", str(out), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge", "synth", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("truth/*/*.csv")) and time.monotonic() < deadline:
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "to resume in" in errors
    assert "Traceback" not in errors
    assert not (out / "truth.csv").exists()
