"""Data sets that anybody may obtain, in small copies of their layouts: names and columns are theirs, contents made up.

CREMA-D: names and folders as in its repository (CheyneyComputerScience/CREMA-D). RAVDESS: as on Zenodo (1188976).
SILVER-Pain: folders and columns as its own code writes them (straybird16/SILVER-pain, `process_young_adults_data.py`).
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jmt_edge.clips.cut import cut_clips
from jmt_edge.errors import DataError
from jmt_edge.opencv import cv2
from jmt_edge.tasks import get_task
from jmt_edge.training.data import cut_windows
from jmt_edge.training.open_data import PLACES, silver_table
from jmt_edge.training.readers import default_task, open_cohort
from jmt_edge.training.sources import open_trial

CommandLine = Callable[..., tuple[int, str, str]]


def wav(path: Path, seconds: float = 2.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 3000 * np.sin(2 * np.pi * 220 * np.arange(round(16_000 * seconds)) / 16_000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(tone.astype("<i2").tobytes())


def small_video(path: Path, frames: int = 20) -> None:
    """20 frames at 25 a second, in the container that the name says."""
    codec = 2 if path.suffix == ".flv" else cv2.VideoWriter.fourcc(*"mp4v")  # 2: FLV1, in FFmpeg's table for FLV
    writer = cv2.VideoWriter(str(path), codec, 25.0, (64, 64))
    for i in range(frames):
        writer.write(np.full((64, 64, 3), 8 * i, np.uint8))
    writer.release()
    assert path.stat().st_size


def crema_d(root: Path) -> Path:
    """Two actors; one clip's level is written with a single X, as in the original."""
    for stem in ("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1040_ITH_SAD_X", "1040_IEO_NEU_XX"):
        wav(root / "AudioWAV" / f"{stem}.wav")
    (root / "VideoFlash").mkdir()
    for stem in ("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1040_ITH_SAD_X"):
        small_video(root / "VideoFlash" / f"{stem}.flv")
    (root / "SentenceFilenames.csv").write_text('"Stimulus_Number","Filename"\n1,"1001_IEO_NEU_XX"\n')
    return root


def test_crema_d_gives_the_actor_and_the_emotions_place(tmp_path: Path) -> None:
    cohort = open_cohort(crema_d(tmp_path / "crema"))
    assert cohort.layout == "crema-d" and cohort.subjects == ["1001", "1040"] and "not a rating" in cohort.rule
    by_id = {t.id: t for t in cohort.trials}
    assert by_id["1040_ITH_SAD_X"].labels.at("valence", np.array([1.0])) == [PLACES["sad"][0]]
    assert by_id["1001_DFA_ANG_XX"].files["face"].name == "1001_DFA_ANG_XX.flv"
    assert by_id["1001_DFA_ANG_XX"].duration == pytest.approx(2.5)
    assert set(by_id["1040_IEO_NEU_XX"].files) == {"voice"}  # its video is absent, and counted
    assert cohort.problems.absent["face file"] == 1
    windows = cut_windows(cohort, default_task(cohort))
    assert windows.task.name == "affect" and sorted(set(windows.subject)) == ["1001", "1040"]


def test_an_own_table_of_emotions_takes_the_place_of_the_default(tmp_path: Path) -> None:
    root = crema_d(tmp_path / "crema")
    (root / "emotions.csv").write_text("emotion,valence,arousal\nangry,-0.4,0.8\n")
    cohort = open_cohort(root)
    assert [t.id for t in cohort.trials] == ["1001_DFA_ANG_XX"] and "emotions.csv" in cohort.rule
    assert cohort.trials[0].labels.at("arousal", np.array([0.0])) == [0.8]
    assert cohort.problems.absent["place of the emotion 'sad' in emotions.csv (its clips are left out)"] == 1
    (root / "emotions.csv").write_text("emotion,valence,arousal\nangry,-4,8\n")
    with pytest.raises(DataError, match=r"emotions.csv row 2"):
        open_cohort(root)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    root = crema_d(tmp_path / "crema")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (root / "AudioWAV" / "1001_DFA_ANG_XX.wav").write_text(pointer)
    with pytest.raises(DataError, match="git lfs pull"):
        open_cohort(root)
    assert len(open_cohort(root, skip_bad=True).trials) == 3
    (root / "AudioWAV" / "1001_DFA_ANG.wav").write_bytes((root / "AudioWAV" / "1040_IEO_NEU_XX.wav").read_bytes())
    with pytest.raises(DataError, match="not named as a clip of CREMA-D"):
        open_cohort(root)


def test_ravdess_takes_speech_from_whole_clips_or_from_their_parts(tmp_path: Path) -> None:
    """Unpacked into one folder, or each archive into its own."""
    first, second = tmp_path / "Video_Speech_Actor_01" / "Actor_01", tmp_path / "Audio_Speech_Actors_01-24" / "Actor_02"
    first.mkdir(parents=True)
    small_video(first / "01-01-05-02-01-01-01.mp4")
    small_video(first / "02-01-05-02-01-01-01.mp4")  # the same clip without sound
    small_video(first / "02-01-04-01-02-01-01.mp4")
    wav(first / "03-01-04-01-02-01-01.wav")
    wav(second / "03-01-06-02-02-02-02.wav")
    wav(second / "03-02-03-01-01-01-02.wav")  # sung
    wav(second / "03-01-02-01-01-01-02.wav")  # calm
    cohort = open_cohort(tmp_path)
    assert cohort.layout == "ravdess" and cohort.subjects == ["01", "02"]
    files = {t.id: {m: f.name[:2] for m, f in t.files.items()} for t in cohort.trials}
    assert files == {
        "01-05-02-01-01-01": {"face": "01", "voice": "01"},
        "01-04-01-02-01-01": {"face": "02", "voice": "03"},
        "01-06-02-02-02-02": {"voice": "03"},
    }
    fearful = next(t for t in cohort.trials if t.subject == "02")
    assert fearful.labels.at("arousal", np.array([0.5])) == [PLACES["fearful"][1]]
    assert cohort.problems.absent["speech (songs are left out)"] == 1
    assert any("'calm'" in what for what in cohort.problems.absent)


def silver(
    root: Path, subject: str = "101", cohort: str = "young_adults", ratings: dict[int, float] | None = None
) -> Path:
    """Two minutes on the grid of 64 Hz, EDA at 4 Hz, as `merge.py` joins them."""
    folder = root / "data" / cohort / "processed_data" / "with_self_report"
    folder.mkdir(parents=True, exist_ok=True)
    name = "with_pain" if cohort == "young_adults" else "with_self_report"
    start = 1_741_789_373_700_000_000
    lines = ["timestamp_ns,datetime_utc,segment,section,bvp,eda,temperature,hr,PainLevel,Trial"]
    given = {10: 0.0, 60: 3.0, 80: 7.0} if ratings is None else ratings
    for i in range(120 * 64):
        eda = f"{2 + 0.01 * (i // 16)}" if i % 16 == 0 else ""
        rating = given.get(i // 64, "") if i % 64 == 0 else ""
        lines.append(f"{start + i * 15_625_000},2025-03-12 14:22:53.700,0,0,1.5,{eda},33.1,71,{rating},1")
    file = folder / f"{subject}_merged_64hz_{name}.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_silver_pain_holds_a_rating_until_the_next(tmp_path: Path) -> None:
    silver(tmp_path)
    silver(tmp_path, "001", "older_adults")
    cohort = open_cohort(tmp_path)
    assert cohort.layout == "silver" and cohort.subjects == ["older 001", "young 101"]
    trial = cohort.trials[0]
    at = trial.labels.at("pain", np.array([5.0, 12.0, 59.0, 61.0, 79.0, 81.0, 119.0]))
    assert np.isnan(at[[0, 3, 4]]).all() and at[[1, 2, 5, 6]].tolist() == [0, 0, 1, 1]
    assert trial.duration == pytest.approx(120, abs=0.02)
    task = default_task(cohort)
    assert task.names == ("eda",)
    windows = cut_windows(cohort, task)
    assert set(np.unique(windows.labels["pain"])) == {0.0, 1.0}


def test_silver_pains_conductance_is_read_at_its_own_rate(tmp_path: Path) -> None:
    """The blanks of the finer grid are no samples, and times keep the milliseconds of nanoseconds since 1970."""
    silver(tmp_path)
    trial = open_cohort(tmp_path).trials[0]
    m = get_task("pain").modality("eda")
    source, find = open_trial(trial, m)
    assert find is None
    source.open(0.0)
    chunk = source.read(1.0)
    assert chunk.times == pytest.approx([0, 0.25, 0.5, 0.75, 1.0], abs=1e-5)
    assert chunk.values == pytest.approx([2, 2.01, 2.02, 2.03, 2.04])
    task = default_task(open_cohort(tmp_path))
    clips = dict(cut_clips(open_trial(trial, m)[0], task, "eda", [20.0, 40.0]))
    assert [c.quality.ok for c in clips.values()] == [True, True], [c.quality for c in clips.values()]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda text: text.replace(",7.0,", ",17.0,"), "rating of 17"),
        (lambda text: text.replace(",PainLevel", ",Level"), "no column 'painlevel'"),
        (lambda text: text.replace(",1.5,2.0,", ",1.5,x,"), "row 2"),
        (lambda text: "\n".join(sorted(text.splitlines(), reverse=True)), "before that of the row above"),
    ],
)
def test_a_damaged_file_of_silver_pain_is_named(change: Callable[[str], str], part: str, tmp_path: Path) -> None:
    file = silver(tmp_path)
    header, *rows = file.read_text().splitlines()
    text = change("\n".join(rows)) if "above" in part else None
    file.write_text(f"{header}\n{text}\n" if text else change(file.read_text()))
    with pytest.raises(DataError, match=part):
        open_cohort(tmp_path)


def stamped(file: Path, first: int, step: float) -> Path:
    """The same rows, with stamps `step` apart from `first` on."""
    header, *rows = file.read_text().splitlines()
    lines = [f"{first + i * step:.15g},{row.split(',', 1)[1]}" for i, row in enumerate(rows)]
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


@pytest.mark.parametrize("ticks", [10**9, 10**6, 10**3, 1], ids=["ns", "us", "ms", "s"])
@pytest.mark.parametrize("start", [0, 5, 1_741_789_373], ids=["from 0", "from 5 s", "since 1970"])
def test_the_unit_of_silver_pains_stamps_is_told_by_their_step(ticks: int, start: int, tmp_path: Path) -> None:
    """64 rows a second, whatever they begin at. Stamps from 0 ns were taken for seconds."""
    times, _ = silver_table(stamped(silver(tmp_path), start * ticks, ticks / 64))
    assert times[-1] == pytest.approx(120 - 1 / 64, abs=1e-3)


@pytest.mark.parametrize(
    ("first", "step", "part"),
    [
        (0, 10**6, "unit of timestamp_ns cannot be told"),  # 1 ms in ns, or 1 s in µs
        (0, 0, "steps of 0"),
        (1_741_789_373 * 10**9, 15_625, "unit of timestamp_ns cannot be told"),  # a date in ns, steps in µs
    ],
)
def test_stamps_of_silver_pain_without_a_unit_are_refused(first: int, step: int, part: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=part):
        silver_table(stamped(silver(tmp_path), first, step))


def test_a_subject_of_silver_pain_without_ratings_is_refused(tmp_path: Path) -> None:
    file = silver(tmp_path, ratings={})
    with pytest.raises(DataError, match="no rating"):
        open_cohort(tmp_path)
    times, table = silver_table(file)
    assert times[-1] == pytest.approx(120 - 1 / 64, abs=1e-4) and np.isnan(table["painlevel"]).all()


def test_train_check_lists_what_a_download_holds(tmp_path: Path, command_line: CommandLine) -> None:
    code, said, err = command_line("train", "--check", crema_d(tmp_path / "crema"), "--cache", tmp_path / "cache")
    assert code == 0, err
    assert "crema-d" in said and "4 trials of 2 subjects" in said
