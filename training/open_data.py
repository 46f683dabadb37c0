"""Readers of data sets that anybody may obtain: CREMA-D and RAVDESS (acted emotions in face and voice), SILVER-Pain (a
wristband's skin conductance with continuous pain ratings). Licences and downloads: `docs/reference/data-sets.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..media.sound import WavFile
from ..media.tables import column_indices, label_lines, number_rows
from ..media.video import video_times
from .data import Cohort, Labels, Problems, Trial

VIDEOS = (".flv", ".mp4", ".avi", ".mkv", ".mov")

# Valence and arousal of the words for emotions (Russell and Mehrabian 1977, J. Res. Pers. 11, 273-294); neutral is the
# origin by definition. Actors meant an emotion: nobody rated valence or arousal in these two data sets.
PLACES = {
    "neutral": (0.0, 0.0), "happy": (0.81, 0.51), "sad": (-0.63, -0.27), "angry": (-0.51, 0.59),
    "fearful": (-0.64, 0.60), "disgust": (-0.60, 0.35), "surprised": (0.40, 0.67),
}  # fmt: skip
RULE = "the acted emotion, at its place in Russell and Mehrabian (1977); not a rating"
OWN_RULE = "the acted emotion, at its place in emotions.csv; not a rating"

_CREMA = re.compile(r"(?P<actor>1\d{3})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_(LO|MD|HI|XX?)")
_CREMA_WORDS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_RAVDESS = re.compile(
    r"(?P<kind>0[123])-(?P<rest>(?P<channel>0[12])-(?P<emotion>0[1-8])-\d\d-\d\d-\d\d-(?P<actor>\d\d))"
)
_RAVDESS_WORDS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

PAINFUL = 4.0  # the lowest rating of 0 to 10 that counts as pain; below it only 0 is no pain
_SILVER = "*_merged_*with_*.csv"  # <subject>_merged_64hz_with_pain.csv, ..._with_self_report.csv
_COHORTS = ("young_adults", "older_adults")
_TICKS = (1e9, 1e6, 1e3, 1.0)  # a second, where stamps are in ns, µs, ms or s
_STEPS = (1 / 128, 1 / 4)  # s between two rows: the grid is 64 Hz, EDA alone 4 Hz. No two units fit one step
_LATEST = 1e10  # s since 1970: the year 2286


def read_open(root: Path, problems: Problems) -> Cohort | None:
    """The cohort in `root` where it has the layout of CREMA-D, RAVDESS or SILVER-Pain; None where it has none of them.

    Raises DataError for files that are wrong.
    """
    if (root / "VideoFlash").is_dir() or (root / "AudioWAV").is_dir():
        return read_crema_d(root, problems)
    if next(_actors(root), None) is not None:
        return read_ravdess(root, problems)
    if _silver_files(root):
        return read_silver(root, problems)
    return None


# ---- acted emotions ------------------------------------------------------------------------------------------


def read_crema_d(root: Path, problems: Problems) -> Cohort:
    """CREMA-D: `VideoFlash/<clip>.flv` (face, and its sound where there is no WAV) and `AudioWAV/<clip>.wav`, the clips
    named as `1001_DFA_ANG_XX`: actor, sentence, emotion, level.
    """
    faces = _by_stem(root / "VideoFlash", VIDEOS)
    sounds = _by_stem(root / "AudioWAV", (".wav",))
    clips: dict[str, tuple[str, str, dict[str, Path]]] = {}
    for stem in sorted(faces.keys() | sounds.keys()):
        match = _CREMA.fullmatch(stem)
        if match is None or match["emotion"] not in _CREMA_WORDS:
            problems.refuse(f"{faces.get(stem, sounds.get(stem))} is not named as a clip of CREMA-D; remove it")
            continue
        files = {"face": faces[stem]} if stem in faces else {}
        if (sound := sounds.get(stem, faces.get(stem))) is not None:
            files["voice"] = sound
        for modality, there in (("face", stem in faces), ("voice", stem in sounds)):
            if not there:
                folder = "VideoFlash" if modality == "face" else "AudioWAV"
                problems.missing(f"{modality} file", root / folder / stem)
        clips[stem] = match["actor"], _CREMA_WORDS[match["emotion"]], files
    return _acted("crema-d", root, clips, problems)


def read_ravdess(root: Path, problems: Problems) -> Cohort:
    """RAVDESS, speech: `Actor_01/01-01-03-02-01-01-01.mp4` (face and voice), or the same clip as `02-...mp4` (face) and
    `03-...wav` (voice). Song (the second number is 02) is left out, because a sung voice is another one.
    """
    parts: dict[str, dict[str, Path]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for folder in _actors(root):
        for file in sorted(folder.iterdir()):
            match = _RAVDESS.fullmatch(file.stem)
            if file.suffix.lower() not in (*VIDEOS, ".wav") or file.name.startswith("."):
                continue
            if match is None:
                problems.refuse(f"{file} is not named as a clip of RAVDESS; remove it")
            elif match["channel"] == "02":
                problems.missing("speech (songs are left out)", file)
            else:
                parts.setdefault(match["rest"], {})[match["kind"]] = file
                facts[match["rest"]] = match["actor"], _RAVDESS_WORDS[int(match["emotion"]) - 1]
    clips: dict[str, tuple[str, str, dict[str, Path]]] = {}
    for name, found in sorted(parts.items()):
        files = {
            m: found[k] for m, kinds in (("face", ("01", "02")), ("voice", ("03", "01"))) if (k := _first(found, kinds))
        }
        for modality in {"face", "voice"} - files.keys():
            problems.missing(f"{modality} file", next(iter(found.values())))
        clips[name] = (*facts[name], files)
    return _acted("ravdess", root, clips, problems)


def _acted(
    layout: str, root: Path, clips: Mapping[str, tuple[str, str, dict[str, Path]]], problems: Problems
) -> Cohort:
    """clips: id -> (actor, emotion, files)."""
    places = _places(root)
    trials = []
    for name, (actor, emotion, files) in clips.items():
        if emotion not in places:
            problems.missing(f"place of the emotion '{emotion}' in emotions.csv (its clips are left out)", root / name)
            continue
        seconds = problems.guard(lambda: _seconds(files))  # noqa: B023
        if seconds is not None:
            at = {o: np.array([value]) for o, value in zip(("valence", "arousal"), places[emotion])}
            trials.append(Trial(name, actor, files, seconds, Labels(np.zeros(1), at)))
    if not trials:
        raise DataError(f"{root} has no clip of {layout} that can be read; check the download")
    rule = OWN_RULE if (root / "emotions.csv").is_file() else RULE
    return Cohort(layout, root, trials, problems, people=layout, rule=rule)


def _places(root: Path) -> dict[str, tuple[float, float]]:
    """Emotion -> (valence, arousal): of `emotions.csv` in the data folder, else `PLACES`."""
    file = root / "emotions.csv"
    if not file.is_file():
        return dict(PLACES)
    lines = label_lines(file)
    word, valence, arousal = column_indices(file, lines[0], ",", ("emotion", "valence", "arousal"))
    found = {}
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in line.split(",")]
        try:
            place = float(cells[valence]), float(cells[arousal])
            if not all(abs(x) <= 1 for x in place):
                raise ValueError
            found[cells[word].lower()] = place
        except (ValueError, IndexError):
            raise DataError(
                f"{file} row {number}: '{line[:60]}' is not an emotion and two numbers within -1 to 1"
            ) from None
    return found


def _seconds(files: Mapping[str, Path]) -> float:
    """How long a clip lasts, by its sound where that is a WAV file, else by its video."""
    for path in files.values():
        _not_a_pointer(path)
    voice = files.get("voice")
    if voice is not None and voice.suffix.lower() == ".wav":
        sound = WavFile(voice)
        return sound.frames / float(sound.rate)
    times = video_times(files.get("face") or files["voice"])
    return float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0.04))


def _not_a_pointer(path: Path) -> None:
    """Raises DataError for a file that Git has not fetched yet."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise DataError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in the data set")


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = (f for f in sorted(folder.iterdir()) if f.suffix.lower() in suffixes and not f.name.startswith("."))
    return {f.stem: f for f in files}


def _actors(root: Path) -> Iterator[Path]:
    """The folders `Actor_NN`, in `root` or in the folders that its archives were unpacked into."""
    for pattern in ("Actor_[0-9][0-9]", "*/Actor_[0-9][0-9]"):
        yield from (p for p in sorted(root.glob(pattern)) if p.is_dir())


def _first(found: Mapping[str, Path], kinds: tuple[str, ...]) -> str:
    return next((kind for kind in kinds if kind in found), "")


# ---- SILVER-Pain ---------------------------------------------------------------------------------------------


def read_silver(root: Path, problems: Problems) -> Cohort:
    """SILVER-Pain, processed: `processed_data/with_self_report/<subject>_merged_64hz_with_*.csv` of each cohort, with
    the columns `timestamp_ns`, `eda` (µS) and `PainLevel` (0 to 10 where it was given, blank elsewhere).

    A rating holds until the next one. Pain is a rating of 4 or more, no pain is 0; between them, and before the first
    rating, nothing is labelled. One trial a subject, named after the cohort.
    """
    trials = []
    for file in _silver_files(root):
        trial = problems.guard(lambda: _silver_trial(file))  # noqa: B023
        if trial is not None:
            trials.append(trial)
    if not trials:
        raise DataError(f"{root} has no subject of SILVER-Pain that can be read; check the download")
    rule = f"the last rating: 0 is no pain, {PAINFUL:g} or more is pain"
    return Cohort(
        "silver",
        root,
        trials,
        problems,
        people="silver-pain",
        classes=("rating 0", f"rating {PAINFUL:g} to 10"),
        rule=rule,
    )


def _silver_files(root: Path) -> list[Path]:
    folders = [root, root / "data"]
    homes = [folder / cohort for folder in folders for cohort in _COHORTS] + [root]
    return [f for home in homes for f in sorted((home / "processed_data" / "with_self_report").glob(_SILVER))]


def _silver_trial(file: Path) -> Trial:
    times, table = silver_table(file)
    ratings = table["painlevel"]
    given = np.flatnonzero(~np.isnan(ratings))
    odd = given[(ratings[given] < 0) | (ratings[given] > 10)]
    if odd.size:
        raise DataError(
            f"{file}: a rating of {ratings[odd[0]]:g} at {times[odd[0]]:.1f} s is not from 0 to 10; fix the file"
        )
    if not given.size:
        raise DataError(
            f"{file} has no rating (its PainLevel is blank throughout); merge it with the self-report again"
        )
    level = ratings[given]
    pain = np.where(level >= PAINFUL, 1.0, np.where(level == 0, 0.0, np.nan))
    cohort = next((c.split("_")[0] for c in _COHORTS if c in file.parts), "")
    subject = f"{cohort} {file.name.split('_')[0]}".strip()
    labels = Labels(times[given], {"pain": pain})
    return Trial(f"silver {subject}", subject, {"eda": file}, float(times[-1]), labels, kind="silver")


def silver_table(file: Path) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """(times in s from the first row on, the columns `eda` and `painlevel` with NaN for blanks), each (rows,).

    Raises DataError, naming file and row, for what is not numbers or not in the order of time, and for stamps whose
    unit cannot be told.
    """
    lines = label_lines(file)
    at = column_indices(file, lines[0], ",", ("timestamp_ns", "eda", "painlevel"))
    rows = []
    for number, values in number_rows(lines, 1, ",", at, len(lines[0].split(","))):
        if values is None or np.isnan(values[0]):
            raise DataError(f"{file} row {number}: '{lines[number - 1][:60]}' is not a time and numbers; fix the file")
        rows.append(values)
    if len(rows) < 2:
        raise DataError(f"{file} holds fewer than two rows; merge it again")
    table = np.array(rows)
    stamps = table[:, 0]
    if (late := np.flatnonzero(np.diff(stamps) < 0)).size:
        raise DataError(
            f"{file} row {int(late[0]) + 3}: its time lies before that of the row above; sort the file by time"
        )
    times = (stamps - stamps[0]) / _ticks(file, stamps)
    return times, {"eda": table[:, 1], "painlevel": table[:, 2]}


def _ticks(file: Path, stamps: NDArray[np.float64]) -> float:
    """How many of the stamps' unit are a second, by the step between rows: the column's name says nanoseconds, but may
    have outlived a conversion, and stamps may begin at 0. Raises DataError where no unit fits.
    """
    steps = np.diff(stamps)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    low, high = _STEPS
    ticks = next((ticks for ticks in _TICKS if low <= step / ticks <= high), 0.0)
    if not ticks or stamps[0] / ticks > _LATEST:
        raise DataError(
            f"{file}: the unit of timestamp_ns cannot be told: it begins at {stamps[0]:.0f} with steps of {step:g}, "
            f"which in no unit are a date and {low * 1e3:.0f} to {high * 1e3:.0f} ms; merge it again, in ns at 64 Hz"
        )
    return ticks


def silver_eda(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """(times in s, µS) of the conductance, without the rows that have none: 4 Hz on a grid of 64 Hz."""
    times, table = silver_table(trial.files["eda"])
    there = ~np.isnan(table["eda"])
    return times[there], table["eda"][there].astype(np.float32)
