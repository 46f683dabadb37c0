"""Small cohorts in the real layouts, written without the synthetic generator: seconds, not minutes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from noneeg import write_painmonit
from numpy.typing import NDArray

from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.training import trainer

__all__ = [
    "Stopped",
    "stop_before_epoch",
    "write_affwild2",
    "write_bio",
    "write_biovid",
    "write_painmonit",
    "write_video",
]

CLASSES = ("BL1", "PA1", "PA2", "PA3", "PA4")


def write_biovid(
    root: Path,
    subjects: int = 4,
    trials: int = 3,
    *,
    video: bool = True,
    seed: int = 0,
    kinds: tuple[str, ...] = ("BL1", "PA4"),
) -> Path:
    """BioVid Part A: pain raises the skin conductance. Videos are noise: no face in them."""
    rng = np.random.default_rng(seed)
    part = root / "PartA"
    rows = ["subject_id\tsubject_name\tclass_id\tclass_name\tsample_id\tsample_name"]
    number = 0
    for i in range(subjects):
        subject = f"07{i + 1:02d}09_{'wm'[i % 2]}_{20 + i}"
        level = rng.uniform(2, 10)
        for kind in kinds:
            for k in range(trials):
                number += 1
                sample = f"{subject}-{kind}-{CLASSES.index(kind) * 20 + k + 1:03d}"
                rows.append(f"{i + 1}\t{subject}\t{CLASSES.index(kind)}\t{kind}\t{number}\t{sample}")
                write_bio(part / "biosignals_raw" / subject / f"{sample}_bio.csv", level, kind == "PA4", rng)
                if video:
                    write_video(part / "video" / subject / f"{sample}.mp4", rng)
    (part / "starting_point").mkdir(parents=True)
    (part / "starting_point" / "samples.csv").write_text("\n".join(rows) + "\n")
    return root


def write_bio(path: Path, level: float, pain: bool, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(2816) / 512
    gsr = level + 0.02 * rng.normal(size=1) + pain * 0.8 / (1 + np.exp(-4 * (t - 3.5))) + 0.01 * rng.normal(size=2816)
    body = "\n".join(f"{round(a * 1e6)}\t{b:.5f}\t0\t0\t0\t0" for a, b in zip(t, gsr))
    path.write_text("time\t gsr\t ecg\t emg_trapezius\t emg_corrugator\t emg_zygomaticus\n" + body + "\n")


def write_video(path: Path, rng: np.random.Generator, frames: int = 20, fps: float = 25.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (64, 64))
    image = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for _ in range(frames):
        writer.write(image)
    writer.release()


@lru_cache
def speech(seed: int, count: int) -> NDArray[np.float32]:
    """(count,) samples of a simulated person's speech, louder than half of full scale at its loudest."""
    sound = Speech(Person.live(seed)).samples(0, count)
    return sound * np.float32(0.9 / np.abs(sound).max())


def write_affwild2(root: Path, videos: int = 4, frames: int = 240, seed: int = 0) -> Path:
    """Affwild2: the brightness of the crop is the valence, the loudness of the voice the arousal. No video files."""
    from scipy.io import wavfile

    rng = np.random.default_rng(seed)
    wave = np.sign(np.sin(np.arange(112) / 5))
    pattern = 30 * wave[:, None] * wave  # contrast and edges, without which a face is not usable
    for i in range(videos):
        name = f"{i + 1}-30-640x480" + ("_left" if i == 1 else "")
        part = "Validation_Set" if i % 4 == 3 else "Train_Set"
        phase = rng.uniform(0, 6)
        t = np.arange(frames) / 30
        valence, arousal = 0.8 * np.sin(1.1 * t + phase), 0.8 * np.cos(0.9 * t + phase)
        folder = root / "cropped_aligned" / name
        folder.mkdir(parents=True)
        for n in range(frames):
            if n % 50 != 20:  # gaps, as in real copies
                shade = np.uint8(127 + 60 * valence[n] + pattern)
                cv2.imwrite(str(folder / f"{n + 1:05d}.jpg"), np.repeat(shade[..., None], 3, 2))
        labels = root / "VA_Estimation_Challenge" / part
        labels.mkdir(parents=True, exist_ok=True)
        rows = [f"{v:.4f},{a:.4f}" if n % 60 != 7 else "-5,-5.0" for n, (v, a) in enumerate(zip(valence, arousal))]
        (labels / f"{name}.txt").write_text("valence,arousal\n" + "\n".join(rows) + "\n")
        (root / "audio").mkdir(exist_ok=True)
        at = np.arange(frames / 30 * 44100) / 44100
        loud = np.interp(at, t, 0.1 + 0.45 * (arousal + 1))
        sound = loud * speech(i, at.size)
        wavfile.write(
            root / "audio" / f"{name.removesuffix('_left')}.wav", 44100, np.int16(np.clip(sound, -1, 1) * 32767)
        )
    return root


class Stopped(Exception):
    """A run that ended in the middle."""


def stop_before_epoch(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training stage ends when it begins this epoch, until `monkeypatch.undo()`."""
    begin = trainer._Module.on_train_epoch_start

    def interrupted(module: trainer._Module) -> None:
        if module.current_epoch == epoch:
            raise Stopped
        begin(module)

    monkeypatch.setattr(trainer._Module, "on_train_epoch_start", interrupted)
