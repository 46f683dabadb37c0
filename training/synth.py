"""Synthetic cohorts in the real datasets' layouts: BioVid, Affwild2, PainMonit, and BioVid with voice (`trimodal`).

The people come from `jmt_edge.capture.simulated`, the generator behind `sim:`; this module only cuts trials and writes
files. Layouts, latent truth and parameters: `docs/reference/data-sets.md`.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import threading
import wave
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from jmt_edge.capture.simulated.eda import Skin
from jmt_edge.capture.simulated.expression import Expressions, pspi
from jmt_edge.capture.simulated.face import FaceRenderer
from jmt_edge.capture.simulated.person import BIOVID_NON_REACTIVE, Coupling, Person
from jmt_edge.capture.simulated.randomness import BIOPOTENTIAL, COHORT, SESSION, Key, draw
from jmt_edge.capture.simulated.scenario import CLASS_NAMES, TRIAL, Episodes, Scenario, Session
from jmt_edge.capture.simulated.voice import RATE, Speech
from jmt_edge.errors import DataError
from jmt_edge.opencv import cv2
from jmt_edge.training.keys import code, write

FPS, TRIAL_FRAMES = 25.0, 138
BIO_RATE, BIO_ROWS = 512, 2816
BIO_COLUMNS = ("time", " gsr", " ecg", " emg_trapezius", " emg_corrugator", " emg_zygomaticus")
SAMPLE_COLUMNS = ("subject_id", "subject_name", "class_id", "class_name", "sample_id", "sample_name")
PAINMONIT_HZ, PAINMONIT_SECONDS, PAINMONIT_TRUTH = 250, 10.0, 5.0  # the last: rows of truth a second
_FIRST_NUMBER = {"PA1": 0, "PA2": 1, "PA3": 2, "PA4": 3, "BL1": 4}  # BL1 samples are numbered last: BL1-081
_BIOVID_SUBJECTS = 87
_MARKER = "synth.json"
_CHUNK = 8  # trials that a worker makes at a time


Truth = dict[str, float]


@dataclass(frozen=True)
class CohortPlan:
    """What to generate. `trials` counts per class and subject; `seconds` is the length of an Affwild2 video."""

    kind: str
    subjects: int
    seed: int
    trials: int = 20
    classes: tuple[str, ...] = CLASS_NAMES
    seconds: float = 60.0
    width: int = 320
    height: int = 240
    correlation: float = 0.0  # of the reactions of face and skin, see `Coupling`
    movement: float = 0.0  # movements a minute that both show

    def person(self, subject: Subject, scenario: Scenario) -> Person:
        """The person behind a subject of this cohort."""
        coupling = Coupling(self.correlation, self.movement)
        return Person(subject.key, scenario, responder=subject.responder, coupling=coupling)


@dataclass(frozen=True)
class Subject:
    """One person of a cohort; `number` is BioVid's subject id."""

    number: int
    name: str
    key: Key
    responder: bool


def cohort_subjects(plan: CohortPlan) -> list[Subject]:
    """The subjects of a cohort.

    Up to 87 are a random subset of BioVid's ids, so that its 20 non-reactive people, whose skin does not respond here
    either, are as frequent as in the real set; further subjects are non-reactive with probability 20/87.
    """
    g = draw((COHORT, plan.seed, 0), SESSION)
    count = min(plan.subjects, _BIOVID_SUBJECTS)
    numbers = sorted(int(n) for n in 1 + g.choice(_BIOVID_SUBJECTS, count, replace=False))
    numbers += range(_BIOVID_SUBJECTS + 1, plan.subjects + 1)
    subjects, used = [], set()
    for number in numbers:
        responder = number not in BIOVID_NON_REACTIVE if number <= _BIOVID_SUBJECTS else bool(g.random() >= 20 / 87)
        key = Person.cohort_key(plan.seed, number)
        traits = Person(key, Session(key, 1)).traits
        while True:
            name = f"{g.integers(1, 13):02d}{g.integers(1, 29):02d}{g.integers(9, 14):02d}_{traits.sex}_{traits.age}"
            if name not in used:
                break
        used.add(name)
        subjects.append(Subject(number, name, key, responder))
    return subjects


# --- one person in every modality ----------------------------------------------------------------------------------


class Body:
    """A cohort person's face, voice and skin, made when first needed."""

    def __init__(self, person: Person, width: int, height: int) -> None:
        self.person = person
        self.speech = Speech(person)
        self.expression = Expressions(person, self.speech)
        self.skin = Skin(person)
        self.renderer = FaceRenderer(person, width, height)

    def truth(self, t: float, since: float, expression: Any) -> Truth:
        """The latent truth at session time `t`, stamped from `since` on."""
        return {"t": t - since, **self.person.truth(t), "pspi": pspi(expression.aus), **expression.aus}


@dataclass(frozen=True)
class TrialPlan:
    """One BioVid sample: the window [start, start + 5.5 s) of its subject's session."""

    subject: Subject
    class_name: str
    sample: str
    start: float


def subject_trials(plan: CohortPlan, subject: Subject) -> tuple[Session, list[TrialPlan]]:
    """A subject's session and its trials, ordered by class and number."""
    session = Session(subject.key, plan.trials, plan.classes)
    per_class = max(plan.trials, 20)
    trials = []
    for class_name, i, start in session.windows:
        number = _FIRST_NUMBER[class_name] * per_class + i + 1
        trials.append(TrialPlan(subject, class_name, f"{subject.name}-{class_name}-{number:03d}", start))
    return session, sorted(trials, key=lambda t: (CLASS_NAMES.index(t.class_name), t.sample))


# --- BioVid and trimodal -------------------------------------------------------------------------------------------


def _write_trial(root: Path, plan: CohortPlan, body: Body, trial: TrialPlan) -> None:
    part, folder = root / "PartA", trial.subject.name
    times = trial.start + np.arange(TRIAL_FRAMES) / FPS
    truth = _write_video(part / "video" / folder / f"{trial.sample}.mp4", body, times)
    _write_biosignals(part, folder, trial, body, truth)
    if plan.kind == "trimodal":
        first = round(trial.start * RATE)
        _write_wav(part / "audio" / folder / f"{trial.sample}.wav", body.speech.samples(first, round(TRIAL * RATE)))
        _write_truth(part / "valence_arousal" / folder / f"{trial.sample}.txt", truth, ["valence", "arousal"])
    _write_truth(_trial_truth(root, trial), truth)  # last: it marks the trial as complete


def _trial_truth(root: Path, trial: TrialPlan) -> Path:
    return root / "truth" / trial.subject.name / f"{trial.sample}.csv"


def _write_video(path: Path, body: Body, times: NDArray[np.float64]) -> list[Truth]:
    """Render the frames at `times` (session time) and return the truth of each; `t` counts from the first."""
    renderer, truth = body.renderer, []
    temporary = path.with_suffix(".part.mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(temporary), fourcc, FPS, (renderer.width, renderer.height))
    if not writer.isOpened():
        raise DataError(f"cannot write the video {path}; check the free space and that OpenCV has an MPEG-4 encoder")
    for t in times:
        expression = body.expression(t)
        writer.write(renderer.frame(t, expression))
        truth.append(body.truth(t, times[0], expression))
    writer.release()
    os.replace(temporary, path)
    return truth


def _write_biosignals(part: Path, folder: str, trial: TrialPlan, body: Body, truth: list[Truth]) -> None:
    gsr = body.skin.samples(round(trial.start * BIO_RATE), BIO_ROWS, BIO_RATE)
    noise = draw(trial.subject.key, BIOPOTENTIAL, round(trial.start * 10))
    t = np.arange(BIO_ROWS) / BIO_RATE
    at = [row["t"] for row in truth]
    muscle = {name: np.interp(t, at, [row[name] for row in truth]) for name in ("AU4", "AU12")}
    raw = np.stack(
        [
            gsr,
            _ecg(t, noise),
            5 * noise.standard_normal(BIO_ROWS),
            (2 + 6 * muscle["AU4"]) * noise.standard_normal(BIO_ROWS),
            (2 + 6 * muscle["AU12"]) * noise.standard_normal(BIO_ROWS),
        ],
        axis=1,
    )
    filtered = raw.copy()
    filtered[:, 0] = sosfiltfilt(butter(2, 5, "lowpass", fs=BIO_RATE, output="sos"), raw[:, 0])
    filtered[:, 1] = sosfiltfilt(butter(3, (0.5, 100), "bandpass", fs=BIO_RATE, output="sos"), raw[:, 1])
    filtered[:, 2:] = sosfiltfilt(butter(3, (20, 250), "bandpass", fs=BIO_RATE, output="sos"), raw[:, 2:], axis=0)
    micros = np.round(np.linspace(0, TRIAL * 1e6, BIO_ROWS))[:, None]
    for kind, values in (("biosignals_raw", raw), ("biosignals_filtered", filtered)):
        path = part / kind / folder / f"{trial.sample}_bio.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        line = "%d" + "\t%.5f" * 5
        text = "\n".join(line % tuple(row) for row in np.hstack([micros, values]).tolist())
        write(path, "\t".join(BIO_COLUMNS) + "\n" + text + "\n")


def _ecg(t: NDArray[np.float64], g: np.random.Generator) -> NDArray[np.float64]:
    """A simple electrocardiogram in µV: P, QRS and T as Gaussians. No model uses it."""
    beats = np.cumsum(60 / 70 * (1 + 0.04 * g.standard_normal(12))) - 0.8
    value = 15 * g.standard_normal(len(t))
    for height, offset, width in ((120, -0.17, 0.03), (-120, -0.03, 0.01), (1100, 0, 0.012), (250, 0.25, 0.05)):
        value += height * np.exp(-(((t[:, None] - beats - offset) / width) ** 2)).sum(axis=1)
    return value


# --- PainMonit -----------------------------------------------------------------------------------------------------


def painmonit_window(skin: Skin, trial: TrialPlan) -> NDArray[np.float32]:
    """(2500, 6) the 10 s from the start of a BioVid trial on, channels in PainMonit's order; EDA in µS."""
    count = round(PAINMONIT_SECONDS * PAINMONIT_HZ)
    noise = draw(trial.subject.key, BIOPOTENTIAL, round(trial.start * 10) + 1)
    t = np.arange(count) / PAINMONIT_HZ
    eda = skin.samples(round(trial.start * PAINMONIT_HZ), count, PAINMONIT_HZ)
    wrist = np.interp(t, t[::62], eda[::62])  # the wrist sensor has 4 Hz
    pulse, breath = np.sin(2 * np.pi * 1.17 * t), np.sin(2 * np.pi * 0.25 * t)
    ecg = _ecg(t, noise)
    emg = 5 * noise.standard_normal(count)
    return np.stack([pulse, wrist, breath, eda, ecg, emg], axis=1).astype(np.float32)


def _write_painmonit(root: Path, plan: CohortPlan) -> None:
    """X.npy, y_heater.npy (heat level 0 to 4) and subjects.npy (BioVid's subject ids), a row a trial."""
    x, y, who = [], [], []
    for subject in cohort_subjects(plan):
        session, trials = subject_trials(plan, subject)
        skin = Skin(plan.person(subject, session))
        for trial in trials:
            x.append(painmonit_window(skin, trial))
            y.append(CLASS_NAMES.index(trial.class_name))
            who.append(subject.number)
    for name, values in (("X", np.stack(x)), ("y_heater", np.array(y)), ("subjects", np.array(who))):
        temporary = root / f"{name}.part.npy"
        np.save(temporary, values)
        os.replace(temporary, root / f"{name}.npy")


# --- files ---------------------------------------------------------------------------------------------------------


def _write_csv(path: Path, header: list[str], rows: list[list[str]], separator: str = ",") -> None:
    lines = [separator.join(header), *(separator.join(row) for row in rows)]
    write(path, "\n".join(lines) + "\n")


def _write_truth(path: Path, truth: list[Truth], columns: Sequence[str] = (), skip: Iterable[bool] = ()) -> None:
    """One row per frame, of some or all columns; -5, the data sets' mark of no label, in frames to `skip`."""
    columns = columns or list(truth[0])
    skipped = [*skip] or [False] * len(truth)
    rows = [["-5"] * len(columns) if gap else [f"{row[c]:.4f}" for c in columns] for row, gap in zip(truth, skipped)]
    _write_csv(path, list(columns), rows)


def _write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Mono 16 bit at 44.1 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    os.replace(temporary, path)


# --- Affwild2 ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Video:
    """One Affwild2 video of one person, or of two side by side (`_left`, `_right`)."""

    name: str
    subjects: tuple[Subject, ...]
    fps: float
    part: str  # Train_Set or Validation_Set

    @property
    def sides(self) -> list[str]:
        return [self.name] if len(self.subjects) == 1 else [f"{self.name}_left", f"{self.name}_right"]


def affwild2_videos(plan: CohortPlan) -> list[Video]:
    """A video for each subject; every ninth and tenth subject share one. Every fourth video is for validation."""
    subjects = cohort_subjects(plan)
    groups: list[tuple[Subject, ...]] = []
    while subjects:
        size = 2 if len(groups) % 9 == 8 and len(subjects) > 1 else 1
        groups.append(tuple(subjects[:size]))
        subjects = subjects[size:]
    rates = (30.0, 30.0, 25.0, 24.0)
    return [
        Video(
            f"{i + 1}-{rates[i % 4]:.0f}-{plan.width * len(group)}x{plan.height}",
            group,
            rates[i % 4],
            "Validation_Set" if (i % 4 == 3) or (len(groups) < 4 and i == len(groups) - 1 > 0) else "Train_Set",
        )
        for i, group in enumerate(groups)
    ]


def _spans(g: np.random.Generator, count: int, fps: float, share: float, longest: float) -> NDArray[np.bool_]:
    """(count,) flags: stretches of 0.2 s up to `longest` s that cover about `share` of the frames."""
    flags = np.zeros(count, bool)
    mean = (0.2 + longest) / 2 * fps
    for _ in range(g.poisson(share * count / mean)):
        start = int(g.integers(0, count))
        flags[start : start + int(fps * g.uniform(0.2, longest))] = True
    return flags


def _write_affwild2_video(root: Path, plan: CohortPlan, video: Video) -> bool:
    """A video with sound, its cropped faces, labels and truth; False where it was stopped before the end."""
    import av

    from jmt_edge.preprocessing.face import FaceDetector, FaceTracker, align_crop

    bodies = [Body(plan.person(s, Episodes(s.key)), plan.width, plan.height)
              for s in video.subjects]  # fmt: skip
    count = round(plan.seconds * video.fps)
    times = np.arange(count) / video.fps
    chance = [draw(s.key, SESSION, 2) for s in video.subjects]
    absent = [_spans(g, count, video.fps, 0.03, 1.5) for g in chance]
    unlabelled = [_spans(g, count, video.fps, 0.02, 1.0) | away for g, away in zip(chance, absent)]
    trackers = [FaceTracker(FaceDetector()) for _ in bodies]
    truth: list[list[Truth]] = [[] for _ in bodies]
    for side in video.sides:
        (root / "cropped_aligned" / side).mkdir(parents=True, exist_ok=True)

    path = root / "videos" / f"{video.name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part.mp4")
    with av.open(str(temporary), "w") as container:
        picture = container.add_stream("mpeg4", rate=round(video.fps))
        picture.width, picture.height, picture.pix_fmt = plan.width * len(bodies), plan.height, "yuv420p"
        picture.bit_rate = 2_000_000 * len(bodies)
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for i, t in enumerate(times):
            if _asked_to_stop():
                return False
            halves = []
            for k, (body, side) in enumerate(zip(bodies, video.sides)):
                expression = body.expression(float(t))
                frame = (
                    body.renderer.without_face(t, dark=False) if absent[k][i] else body.renderer.frame(t, expression)
                )
                halves.append(frame)
                face = trackers[k].update(frame, float(t))
                if face is not None:
                    crop = cv2.cvtColor(align_crop(frame, face, 112), cv2.COLOR_RGB2BGR)
                    cv2.imwrite(str(root / "cropped_aligned" / side / f"{i + 1:05d}.jpg"), crop)
                truth[k].append(body.truth(float(t), 0.0, expression))
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.hstack(halves)), format="bgr24")
            container.mux(picture.encode(image))
        samples = np.sum([body.speech.samples(0, round(plan.seconds * RATE)) for body in bodies], axis=0)
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        for start in range(0, len(pcm), RATE):
            block = av.AudioFrame.from_ndarray(pcm[None, start : start + RATE], format="s16", layout="mono")
            block.sample_rate, block.pts = RATE, start
            container.mux(sound.encode(block))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    os.replace(temporary, path)

    for k, side in enumerate(video.sides):
        labels = root / "VA_Estimation_Challenge" / video.part / f"{side}.txt"
        _write_truth(labels, truth[k], ["valence", "arousal"], unlabelled[k])
    for k, side in enumerate(video.sides):
        _write_truth(root / "truth" / f"{side}.csv", truth[k])  # last: it marks the video as complete
    return True


# --- the whole cohort ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """Work for one process, and the number of samples (trials or videos) that it makes."""

    root: Path
    plan: CohortPlan
    subject: Subject | None = None
    first: int = 0
    count: int = 1
    video: Video | None = None


def _units(root: Path, plan: CohortPlan) -> list[Unit]:
    if plan.kind == "affwild2":
        return [Unit(root, plan, video=v) for v in affwild2_videos(plan)]
    total = plan.trials * len(plan.classes)
    return [
        Unit(root, plan, subject, first, min(_CHUNK, total - first))
        for subject in cohort_subjects(plan)
        for first in range(0, total, _CHUNK)
    ]


_stop: Any = None  # set in each worker: an event that asks it to stop after the current sample


def _start_worker(stop: Any) -> None:
    global _stop
    _stop = stop


def _asked_to_stop() -> bool:
    return _stop is not None and bool(_stop.is_set())


def _work(unit: Unit) -> int:
    """Make the missing samples of `unit`; returns how many are there afterwards."""
    if unit.video is not None:
        there = all((unit.root / "truth" / f"{side}.csv").is_file() for side in unit.video.sides)
        return int(there or _write_affwild2_video(unit.root, unit.plan, unit.video))
    assert unit.subject is not None
    session, trials = subject_trials(unit.plan, unit.subject)
    body, done = None, 0
    for trial in trials[unit.first : unit.first + unit.count]:
        if _asked_to_stop():
            break
        if not _trial_truth(unit.root, trial).is_file():
            if body is None:
                person = unit.plan.person(unit.subject, session)
                body = Body(person, unit.plan.width, unit.plan.height)
            if unit.plan.kind == "painmonit":
                times = trial.start + np.arange(0, PAINMONIT_SECONDS, 1 / PAINMONIT_TRUTH)
                truth = [body.truth(t, times[0], body.expression(t)) for t in times]
                _write_truth(_trial_truth(unit.root, trial), truth)
            else:
                _write_trial(unit.root, unit.plan, body, trial)
        done += 1
    return done


def prepare(root: Path, plan: CohortPlan) -> None:
    """Make `root` ready, or check that an interrupted run of the same command left it, which `generate` then resumes.

    Raises DataError where `root` holds anything else or a complete cohort: nothing is overwritten.
    """
    marker = root / _MARKER
    generator = code(("training.synth", "capture.simulated"))
    wanted = json.loads(json.dumps({**asdict(plan), "generator": generator}))
    if marker.is_file():
        held = json.loads(marker.read_text(encoding="utf-8"))
        if held.pop("complete", False):
            raise DataError(f"{root} already holds a complete synthetic cohort; choose another --out or delete it")
        if held != wanted:
            changed = ", ".join(k for k in wanted if held.get(k) != wanted[k])
            raise DataError(
                f"{root} holds an unfinished cohort with another {changed}; repeat its command or delete the folder"
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is not an empty folder; choose another --out")
    else:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {root} ({error.strerror}); choose another --out") from None
        write(marker, json.dumps(wanted, indent=2) + "\n")


def total_samples(plan: CohortPlan) -> int:
    """Trials, or videos of an Affwild2 cohort."""
    return sum(unit.count for unit in _units(Path(), plan))


def generate(root: Path, plan: CohortPlan, jobs: int = 1) -> Iterator[int]:
    """Write the cohort into the prepared folder `root`; yields the number of samples made so far.

    When the iterator is closed (Ctrl-C), each worker finishes its current sample; the same call later resumes there.
    """
    done = 0
    for count in _finished(_units(root, plan), jobs):
        done += count
        yield done
    if plan.kind != "affwild2":
        _write_lists(root, plan)
    marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    write(root / _MARKER, json.dumps({**marker, "complete": True}, indent=2) + "\n")


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C inside, here and in processes started inside, which inherit this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _finished(units: list[Unit], jobs: int) -> Iterator[int]:
    if jobs <= 1:
        yield from map(_work, units)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(units)), context, _start_worker, (stop,))
    try:
        with _interrupts_ignored():  # Ctrl-C stops the parent only, which sets `stop`
            futures = [pool.submit(_work, unit) for unit in units]
        for future in as_completed(futures):
            yield future.result()
    finally:
        with _interrupts_ignored():  # a second Ctrl-C must not interrupt this
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


TRUTH_COLUMNS = (
    "sample_name", "subject_name", "subject_id", "class_name", "pain", "responder", "onset", "face_shown",
    "face_delay", "scr", "scr_onset", "scr_rise", "scr_decay", "pspi_mean", "pspi_max", "valence_mean", "arousal_mean",
    "movements",
)  # fmt: skip


def _write_lists(root: Path, plan: CohortPlan) -> None:
    """`samples.csv` of the real layout (PainMonit: its arrays), and `truth.csv` with the latent truth of each trial."""
    samples: list[list[str]] = []
    truth: list[list[str]] = []
    for subject in cohort_subjects(plan):
        session, trials = subject_trials(plan, subject)
        person = plan.person(subject, session)
        for trial in trials:
            class_id = str(CLASS_NAMES.index(trial.class_name))
            row = [str(subject.number), subject.name, class_id, trial.class_name, str(len(samples) + 1), trial.sample]
            samples.append(row)
            truth.append(_trial_row(root, person, subject, trial))
    if plan.kind == "painmonit":
        _write_painmonit(root, plan)
    else:
        _write_csv(root / "PartA" / "starting_point" / "samples.csv", list(SAMPLE_COLUMNS), samples, "\t")
    _write_csv(root / "truth.csv", list(TRUTH_COLUMNS), truth)


def _trial_row(root: Path, person: Person, subject: Subject, trial: TrialPlan) -> list[str]:
    """One row of `truth.csv`; times are from the window's start, and empty where nothing happened."""
    with _trial_truth(root, trial).open(encoding="utf-8", newline="") as file:
        frames = list(csv.DictReader(file))

    def column(name: str) -> NDArray[np.float64]:
        return np.array([float(frame[name]) for frame in frames])

    own = person.reactions(trial.start - 1.5, trial.start + 1.0)
    cells = [trial.sample, subject.name, str(subject.number), trial.class_name]
    if not own:
        cells += ["0", str(int(subject.responder)), "", "0", "", "0", "", "", ""]
    else:
        r = own[0]
        onset = r.stimulus.onset - trial.start
        cells += [f"{r.stimulus.pain:g}", str(int(subject.responder)), f"{onset:.3f}", f"{r.face:.3f}"]
        cells += [f"{r.face_delay:.3f}" if r.face else "", f"{r.scr:.4f}"]
        skin = (onset + r.scr_delay, r.scr_rise, r.scr_decay)
        cells += [f"{value:.3f}" for value in skin] if r.scr else ["", "", ""]
    pain = column("pspi")
    values = (pain.mean(), pain.max(), column("valence").mean(), column("arousal").mean())
    moved = [f"{m.time - trial.start:.3f}" for m in person.movements(trial.start, trial.start + TRIAL)]
    return cells + [f"{value:.3f}" for value in values] + [" ".join(moved)]


# --- how large the effects are -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What one class shows, over all trials of a cohort.

    scr: mean evoked response in µS, trials without one counting 0. responds, shows: share of trials with a skin
    response and with a facial one. rise: mean of the largest rise of the conductance within the window, µS, sensor
    noise and spontaneous responses included. pspi: mean over 2.0 to 5.0 s of the window, and mean of its maximum.
    together: correlation between whether the face and whether the skin reacts, of responders; NaN where both always do
    or never.
    """

    class_name: str
    trials: int
    scr: float
    responds: float
    rise: float
    shows: float
    pspi_mean: float
    pspi_max: float
    together: float


def measure_effects(plan: CohortPlan) -> list[Effect]:
    """The effect of each class in a BioVid or trimodal cohort, computed without drawing frames."""
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in plan.classes}
    both: dict[str, list[tuple[bool, bool]]] = {name: [] for name in plan.classes}
    for subject in cohort_subjects(plan):
        session, trials = subject_trials(plan, subject)
        person = plan.person(subject, session)
        expression, skin = Expressions(person, Speech(person)), Skin(person)
        for trial in trials:
            own = person.reactions(trial.start - 1.5, trial.start + 1.0)
            scr, face = (own[0].scr, own[0].face) if own else (0.0, 0.0)
            gsr = skin.samples(round(trial.start * BIO_RATE), BIO_ROWS, BIO_RATE)
            smooth = gsr.reshape(-1, 64).mean(axis=1)
            rise = float((smooth - np.minimum.accumulate(smooth)).max())
            pain = [pspi(expression(trial.start + t).aus) for t in np.arange(2.0, 5.0, 0.2)]
            rows[trial.class_name].append((scr, float(scr > 0), rise, float(face > 0), float(np.mean(pain)), max(pain)))
            if subject.responder:
                both[trial.class_name].append((scr > 0, face > 0))
    effects = []
    for name, r in rows.items():
        scr, responds, rise, shows, mean, peak = (float(v) for v in np.mean(r, axis=0))
        effects.append(Effect(name, len(r), scr, responds, rise, shows, mean, peak, _phi(both[name])))
    return effects


def _phi(pairs: list[tuple[bool, bool]]) -> float:
    """Correlation of two columns of yes and no; NaN where one of them has only one value."""
    x, y = np.array(pairs, float).reshape(-1, 2).T
    return float(np.corrcoef(x, y)[0, 1]) if len(x) and x.std() and y.std() else float("nan")
