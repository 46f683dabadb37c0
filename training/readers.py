"""Readers of data sets in their own layouts: BioVid Part A, Affwild2 / ABAW, PainMonit, and the synthetic trimodal
cohort (BioVid's layout plus sound and valence-arousal); those that anybody may obtain are in `open_data.py`.

Readers list files and labels and decode nothing, so opening a cohort takes seconds. They accept the gaps of real copies
(missing files and frames, stray spaces) and refuse whatever would give wrong numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..capture.simulated.scenario import CLASS_NAMES
from ..errors import DataError, short
from ..media.tables import column_indices, label_lines, read_table
from ..media.video import video_times
from ..tasks import Task, get_task
from .data import PAIN_CLASSES, Cohort, Labels, Problems, Trial, one_spelling, person
from .open_data import read_open

TRIAL = 5.5  # seconds of a BioVid sample
VIDEO_RATE = 25.0  # frames per second of its video
PAINMONIT_CHANNELS = ("Bvp", "Eda_E4", "Resp", "Eda_RB", "Ecg", "Emg")
PAINMONIT_RATE, PAINMONIT_WINDOW = 250.0, 10.0  # Hz, s
_VIDEOS = (".mp4", ".avi", ".mpg", ".mkv", ".mov")


def open_cohort(
    root: str | Path,
    *,
    classes: Sequence[str] = PAIN_CLASSES,
    channel: str = "Eda_RB",
    rate: float | None = None,
    skip_bad: bool = False,
) -> Cohort:
    """Recognise the layout of `root` and read it.

    classes: BioVid's negative and positive class. channel: PainMonit's EDA channel. rate: samples per second of its X;
    without one, PainMonit's own, and X must hold its windows of 10 s.
    Raises DataError where no layout matches or a label file is wrong.
    """
    path = Path(root)
    if not path.is_dir():
        raise DataError(f"no data folder at {path}; give the folder that holds the data set")
    problems = Problems(skip_bad)
    part_a = path / "PartA" if (path / "PartA").is_dir() else path
    if (path / "VA_Estimation_Challenge").is_dir() or (path / "cropped_aligned").is_dir():
        cohort = read_affwild2(path, problems)
    elif (path / "X.npy").is_file():
        cohort = read_painmonit(path, problems, channel=channel, rate=rate)
    elif (part_a / "video").is_dir() or _biosignals(part_a).is_dir():
        cohort = read_biovid(path, problems, classes=classes)
    elif (found := read_open(path, problems)) is not None:
        cohort = found
    else:
        raise DataError(
            f"{path} has no known layout: expected PartA/video (BioVid), VA_Estimation_Challenge (Affwild2), X.npy "
            "(PainMonit), VideoFlash (CREMA-D), Actor_01 (RAVDESS) or young_adults/processed_data (SILVER-Pain); give "
            "the folder that has one of them"
        )
    return one_spelling(cohort)


# ---- BioVid and trimodal -------------------------------------------------------------------------------------


def read_biovid(root: Path, problems: Problems, *, classes: Sequence[str] = PAIN_CLASSES) -> Cohort:
    """BioVid Part A, or the trimodal cohort if `audio/` exists.

    Samples are listed by `samples.csv`, or else by the file names. Label 0 is `classes[0]`, label 1 `classes[1]`; other
    classes are skipped.
    """
    part_a = root / "PartA" if (root / "PartA").is_dir() else root
    unknown = [c for c in classes if c not in CLASS_NAMES]
    if unknown or len(classes) != 2:
        raise DataError(f"classes {','.join(classes)} are not two of {', '.join(CLASS_NAMES)}; give two of these")
    samples, numbers = _biovid_samples(root, part_a, problems)
    affect = _first_dir(part_a / "valence_arousal", root / "valence_arousal")
    audio = _first_dir(part_a / "audio", root / "audio")
    trials = []
    for subject, sample, name in samples:
        if name not in classes:
            continue
        wanted = {
            "face": _first_file(part_a / "video" / subject, sample, _VIDEOS),
            "eda": _biosignals(part_a) / subject / f"{sample}_bio.csv",
        }
        if audio:
            wanted["voice"] = audio / subject / f"{sample}.wav"
        files = {}
        for modality, file in wanted.items():
            if file.is_file():
                files[modality] = file
            else:
                problems.missing(f"{modality} file", file)
        if not files:
            continue
        labels = problems.guard(lambda: _trial_labels(affect, subject, sample, float(name == classes[1])))  # noqa: B023
        if labels is not None:
            trials.append(Trial(sample, subject, files, TRIAL, labels, ends=(TRIAL,)))
    if not trials:
        raise DataError(f"{part_a} lists no sample of {' or '.join(classes)} with a file; check the folder")
    return Cohort(
        "trimodal" if audio else "biovid", root, trials, problems, numbers, people="biovid", classes=tuple(classes),
        rule="heat level of the stimulus",
    )  # fmt: skip


def _biosignals(part_a: Path) -> Path:
    raw = part_a / "biosignals_raw"
    return raw if raw.is_dir() else part_a / "biosignals_filtered"


def _biovid_samples(root: Path, part_a: Path, problems: Problems) -> tuple[list[tuple[str, str, str]], dict[str, int]]:
    """(subject, sample, class) of every sample, and each subject's number."""
    found = [p for p in (part_a / "starting_point" / "samples.csv", part_a / "samples.csv", root / "samples.csv")
             if p.is_file()]  # fmt: skip
    if found:
        return _samples_csv(found[0], problems)
    folder = part_a / "video" if (part_a / "video").is_dir() else _biosignals(part_a)
    problems.missing("samples.csv (the samples are taken from the file names)", part_a / "starting_point/samples.csv")
    samples = []
    for file in sorted(folder.glob("*/*")):
        sample = file.stem.removesuffix("_bio")
        match = re.fullmatch(r".+-(BL1|PA[1-4])-\d+", sample)
        if match:
            samples.append((file.parent.name, sample, match.group(1)))
    return samples, {}


def _samples_csv(path: Path, problems: Problems) -> tuple[list[tuple[str, str, str]], dict[str, int]]:
    lines = label_lines(path)
    needed = ("subject_id", "subject_name", "class_name", "sample_name")
    at = dict(zip(needed, column_indices(path, lines[0], "\t", needed)))
    samples: list[tuple[str, str, str]] = []
    numbers: dict[str, int] = {}
    names: dict[int, str] = {}  # subject_id -> subject_name
    ids: dict[str, int] = {}  # person -> subject_id

    def row(number: int, line: str) -> None:
        cells = [cell.strip() for cell in line.split("\t")]
        try:
            subject, sample, name = (cells[at[k]] for k in ("subject_name", "sample_name", "class_name"))
            subject_id = int(cells[at["subject_id"]])
        except (IndexError, ValueError):
            raise DataError(f"{path} row {number}: '{line[:60]}' is not a sample; fix the row") from None
        if name not in CLASS_NAMES:
            raise DataError(f"{path} row {number}: class '{name}' is not one of {', '.join(CLASS_NAMES)}; fix the row")
        if not subject:
            raise DataError(f"{path} row {number}: the subject has no name; restore the row")
        # one person under two names could be trained on and tested
        if person(names.setdefault(subject_id, subject)) != person(subject):
            raise DataError(
                f"{path} row {number}: subject_id {subject_id} is {names[subject_id]} in an earlier row and {subject} "
                "here; give one person one name"
            )
        if ids.setdefault(person(subject), subject_id) != subject_id:
            raise DataError(
                f"{path} row {number}: {subject} has subject_id {ids[person(subject)]} in an earlier row and "
                f"{subject_id} here; give one person one id"
            )
        numbers[subject] = subject_id
        samples.append((subject, sample, name))

    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            problems.guard(lambda: row(number, line))  # noqa: B023
    return samples, numbers


def _trial_labels(affect: Path | None, subject: str, sample: str, pain: float) -> Labels:
    if affect is None:
        return Labels(np.zeros(1), {"pain": np.array([pain])})
    table = read_va(affect / subject / f"{sample}.txt")
    frames = len(table["valence"])
    return Labels(np.arange(frames) / VIDEO_RATE, {"pain": np.full(frames, pain), **table})


# ---- Affwild2 ------------------------------------------------------------------------------------------------


def read_va(path: Path) -> dict[str, NDArray[np.float64]]:
    """Valence and arousal by frame; a row with -5 in either is unlabelled (NaN in both).

    Raises DataError naming file and row for anything else outside [-1, 1].
    """
    table = read_table(path, ",", ("valence", "arousal"))
    v, a = table["valence"], table["arousal"]
    unlabelled = np.isclose(v, -5) | np.isclose(a, -5)
    bad = np.flatnonzero(~unlabelled & ~((np.abs(v) <= 1) & (np.abs(a) <= 1)))
    if bad.size:
        i = int(bad[0])
        raise DataError(f"{path} row {i + 2}: valence {v[i]:g}, arousal {a[i]:g} lie outside [-1, 1]; fix the file")
    return {"valence": np.where(unlabelled, np.nan, v), "arousal": np.where(unlabelled, np.nan, a)}


def read_affwild2(root: Path, problems: Problems) -> Cohort:
    """Affwild2 / ABAW. The subject is the video (its name without `_left`/`_right`), because people cannot be
    identified across videos; so the two sides of a video stay together.
    """
    labels = root / "VA_Estimation_Challenge"
    if not labels.is_dir():
        raise DataError(f"{root} has no folder VA_Estimation_Challenge with labels; restore it")
    trials = []
    for part, folder in (("train", "Train_Set"), ("validation", "Validation_Set")):
        files = sorted((labels / folder).glob("*.txt"))
        if not files:
            problems.missing(f"{folder} (no label file in it)", labels / folder)
        for file in files:
            trial = problems.guard(lambda: _affwild2_video(root, file, part, problems))  # noqa: B023
            if trial is not None:
                trials.append(trial)
    if not trials:
        raise DataError(f"{labels} has no label file with frames; check Train_Set, Validation_Set, cropped_aligned")
    return Cohort("affwild2", root, trials, problems, people="affwild2")


def _affwild2_video(root: Path, label_file: Path, part: str, problems: Problems) -> Trial | None:
    name = label_file.stem
    video_name = re.sub(r"_(left|right)$", "", name)
    table = read_va(label_file)
    frames = len(table["valence"])
    files: dict[str, Path] = {}
    crops = root / "cropped_aligned" / name
    if crops.is_dir() and any(crops.iterdir()):
        files["face"] = crops
    else:
        problems.missing("folder of cropped faces", crops)
    folders = [root / "videos", root / "video", *sorted(root.glob("batch*")), root]
    video = next((f for d in folders for s in _VIDEOS if (f := d / f"{video_name}{s}").is_file()), None)
    sound = next((f for n in (name, video_name) if (f := root / "audio" / f"{n}.wav").is_file()), video)
    if sound is not None:
        files["voice"] = sound
    else:
        problems.missing("video or wav with the sound", root / "audio" / f"{video_name}.wav")
    if not files:
        return None
    times = _frame_times(video or root / "videos" / f"{video_name}.mp4", frames, problems)
    duration = float(times[-1] + (times[1] - times[0] if frames > 1 else 1 / 30))
    return Trial(name, video_name, files, duration, Labels(times, table), part=part, kind="affwild2")


def _frame_times(video: Path, frames: int, problems: Problems) -> NDArray[np.float64]:
    """Times of the labelled frames: the video's, continued at its rate; 30 fps without a video."""
    times = video_times(video) if video.is_file() else np.empty(0)
    if times.size < 2:
        problems.missing("video for timestamps (30 fps is assumed)", video)
        return np.arange(frames) / 30.0
    if times.size < frames:
        step = float(np.median(np.diff(times)))
        times = np.concatenate([times, times[-1] + step * np.arange(1, frames - times.size + 1)])
    return times[:frames]


# ---- PainMonit -----------------------------------------------------------------------------------------------


def read_painmonit(root: Path, problems: Problems, *, channel: str = "Eda_RB", rate: float | None = None) -> Cohort:
    """PainMonit arrays: X.npy (N, L, 6) or (N, 6, L), y_heater.npy or y_covas.npy, subjects.npy.

    Labels are numbers or one-hot; the lowest class is 0 and the highest 1, other classes are skipped. The trials share
    X.npy; a trial's id is its row. Each data set numbers its subjects from 0, so the name of `root` identifies them.
    """
    if channel not in PAINMONIT_CHANNELS:
        raise DataError(f"'{channel}' is not a PainMonit channel; choose one of {', '.join(PAINMONIT_CHANNELS)}")
    y_file = next((f for n in ("y_heater.npy", "y_covas.npy") if (f := root / n).is_file()), root / "y_heater.npy")
    x, y, who = (_npy(root / "X.npy", mapped=True), _npy(y_file), _npy(root / "subjects.npy"))
    if x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.ndim != 3 or len(PAINMONIT_CHANNELS) not in x.shape[1:]:
        raise DataError(f"{root / 'X.npy'} has shape {x.shape}, not (windows, samples, 6); export it again")
    if y.ndim == 2 and y.shape[1] > 1:
        y = y.argmax(1)
    y, who = y.reshape(len(y)), who.reshape(len(who))
    for name, array in ((y_file.name, y), ("subjects.npy", who)):
        if len(array) != len(x):
            raise DataError(f"{root / name} has {len(array)} rows and X.npy {len(x)}; export them together")
    if not np.issubdtype(y.dtype, np.number) or not np.isfinite(y).all():
        bad = int(np.argmin(np.isfinite(y))) if np.issubdtype(y.dtype, np.number) else 0
        raise DataError(f"{y_file} row {bad}: {y[bad]} is not a label; export two classes as numbers")
    length = x.shape[1] if x.shape[2] == len(PAINMONIT_CHANNELS) else x.shape[2]
    if rate is None:
        rate = PAINMONIT_RATE
        if abs(length / rate - PAINMONIT_WINDOW) > 0.02 * PAINMONIT_WINDOW:
            raise DataError(
                f"{root / 'X.npy'} has windows of {length} samples, which at PainMonit's {rate:g} Hz are "
                f"{length / rate:.4g} s and not its {PAINMONIT_WINDOW:g} s; give the samples per second by --rate"
            )
    elif not (np.isfinite(rate) and rate > 0):
        raise DataError(f"--rate {rate:g} is not a number of samples per second; give that of {root / 'X.npy'}")
    low, high = (int(v) for v in (np.min(y), np.max(y)))
    if low == high:
        raise DataError(f"{y_file} has only one class ({low}); export two classes")
    subjects = _subject_ids(root / "subjects.npy", who)
    column = PAINMONIT_CHANNELS.index(channel)
    trials = []
    for i in np.flatnonzero((y == low) | (y == high)):

        def check(row: int = int(i)) -> bool:
            values = x[row, :, column] if x.shape[2] == len(PAINMONIT_CHANNELS) else x[row, column]
            if not np.isfinite(values).all():
                raise DataError(
                    f"{root / 'X.npy'} row {row}: {channel} holds values that are not numbers; drop the row"
                )
            return True

        if problems.guard(check):
            labels = Labels(np.zeros(1), {"pain": np.array([float(y[i] == high)])})
            files = {"eda": root / "X.npy"}
            trials.append(
                Trial(
                    str(i), subjects[i], files, length / rate, labels, ends=(length / rate,), kind=f"painmonit:{column}"
                )
            )
    people = f"painmonit {person(root.resolve().name)}"
    kind = y_file.stem.removeprefix("y_")
    return Cohort(
        "painmonit", root, trials, problems, rate=rate, people=people,
        classes=(f"{kind} {low}", f"{kind} {high}"), rule=f"lowest and highest of {y_file.name}",
    )  # fmt: skip


def _subject_ids(path: Path, who: NDArray) -> list[str]:
    """One id per window; whole numbers of any type are written the same way."""
    ids = []
    for row, value in enumerate(who.tolist()):
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (int, str)) or not person(str(value)):
            raise DataError(f"{path} row {row}: {value!r} is not a subject id; export whole numbers or names")
        ids.append(str(value))
    return ids


def _npy(path: Path, *, mapped: bool = False) -> NDArray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; a PainMonit folder has X.npy, y_heater.npy and subjects.npy") from None
    except Exception as error:  # NumPy's reader of headers raises what it meets
        raise DataError(f"{path} is not a readable array ({short(error)}); export it again") from None


def _first_dir(*candidates: Path) -> Path | None:
    return next((c for c in candidates if c.is_dir()), None)


def _first_file(folder: Path, stem: str, suffixes: Sequence[str]) -> Path:
    return next((f for s in suffixes if (f := folder / f"{stem}{s}").is_file()), folder / f"{stem}{suffixes[0]}")


def default_task(cohort: Cohort) -> Task:
    """The task preset for a layout, for `train --check` without a recipe."""
    if cohort.layout == "painmonit":
        seconds = cohort.trials[0].duration
        eda = replace(get_task("pain").modality("eda"), span=seconds, shape=(1, round(seconds * cohort.rate)))
        return replace(get_task("pain"), modalities=(eda,))
    if cohort.layout == "silver":
        return replace(get_task("pain"), modalities=(get_task("pain").modality("eda"),))
    affect = dict.fromkeys(("affwild2", "crema-d", "ravdess"), "affect")
    return get_task({"biovid": "pain", **affect}.get(cohort.layout, "trimodal"))
