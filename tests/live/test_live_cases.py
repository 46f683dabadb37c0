"""What wards, labs and the internet feed it, through the command line: situation -> outcome, one row a case.

`EDA`, `VIDEOS`, `RECIPES`, `SOUND_RECIPES` and `RECORDINGS` are the table to read. The files are those of the cases
beside the checkout; the recipes are made here from the real clips. Each run has a limit of time and of memory, ends with
the code of its row, and never prints a traceback.
"""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import signal
from scipy.io import wavfile
from test_recording_damage import CASES as RECORDINGS
from warm import jmt_edge

sys.path.append(str(Path(__file__).resolve().parents[1] / "preprocessing"))
from coverings import COVERINGS

TIME, MEMORY = 240, 700  # s, MB (of 4096 at most): a hang and a leak, not a measurement
LIVE = ("live", "--speed", "max", "--output", "jsonl", "--novelty", "off", "--duration", "60")


@dataclass
class Done:
    code: int
    lines: list[dict[str, Any]]
    err: str

    def outputs(self) -> int:
        return sum(bool(line["outputs"]) for line in self.lines)

    def verdicts(self, modality: str) -> Counter[str]:
        return Counter(line["quality"][modality]["reason"] or "ok" for line in self.lines)


def command(*args: object) -> Done:
    done = jmt_edge(*args, seconds=TIME)
    err = done.stderr.strip()
    assert "Traceback" not in err and done.peak < MEMORY, (err, done.peak)
    assert done.returncode in (0, 2), (done.returncode, err)
    if done.returncode == 2:
        assert not done.stdout and err.count("\n") <= 1, err
    lines = [json.loads(x) for x in done.stdout.splitlines()] if args[0] == "live" else []
    return Done(done.returncode, lines, err)


@pytest.fixture(scope="module")
def cases() -> Path:
    own = Path(__file__).resolve().parents[3] / "shared/cases/eda"
    path = Path(os.environ.get("JMT_EDGE_TEST_CASES", own)).parent
    if not path.is_dir():
        pytest.skip(f"no cases at {path} (set JMT_EDGE_TEST_CASES)")
    return path


# ---- EDA: file and settings -> (outcome; what the summary or the refusal says)

USED, REFUSED = "outputs", "refused"
EDA: dict[str, tuple[str, str]] = {
    "ok.csv": (USED, ""),
    "crlf.csv": (USED, ""),
    "os_ok.txt": (USED, ""),
    "empatica_ok.csv": (USED, ""),
    "burst_20us.csv": (USED, "spread evenly"),
    "burst_us.csv": (USED, "spread evenly"),
    "burst_ns.csv": (USED, "spread evenly"),
    "bad_time.csv": (USED, "1 sample lost; row"),
    "min_rtc.csv": (USED, "1 sample lost; row 2: a wild time stamp"),
    "dst_back.csv": (USED, "the clock stepped back by 3599.98 s"),
    "reset_ms.csv": (USED, "the clock stepped back"),
    "unix_ms.csv": (USED, "taken as ms"),
    "second_stamps.csv": (USED, "spread evenly"),
    "tab_time_gsr.txt": (USED, ""),
    "os_multi.txt": (USED, ""),
    "os_two_eda.txt": (REFUSED, "column=A4"),
    "os_two_eda.txt?column=A4": (USED, ""),
    "os_conv.txt": (USED, "in µS already"),
    "os_conv_key.txt": (USED, "in µS already"),
    "empatica_comma.csv": (USED, "decimal commas"),
    "semi_comma.csv": (USED, "decimal commas"),
    "acc.csv": (REFUSED, "acceleration"),
    "temp.csv": (REFUSED, "TEMP.csv"),
    "kohm.csv": (REFUSED, "unit="),
    "kohm.csv?unit=kohm": (USED, "converted from kohm"),
    "volts.csv": (REFUSED, "unit="),
    "volts.csv?unit=V": (USED, "converted from V"),
    "raw_adc.csv": (REFUSED, "unit="),
    "raw_adc.csv?unit=adc": (USED, "converted from adc"),
    "shimmer.csv": (USED, ""),
    "boot_line.csv": (USED, "header is repeated"),
    "headless.csv": (USED, ""),
    "na.csv": (USED, ""),
    "quoted.csv": (USED, ""),
    "iso.csv": (USED, ""),
    "utf16.csv": (USED, ""),
}


@pytest.mark.parametrize("name", EDA)
def test_eda(name: str, cases: Path) -> None:
    outcome, says = EDA[name]
    done = command(*LIVE, "--task", "pain", "--camera", "none", "--eda", cases / "eda" / name)
    assert says in done.err, done.err
    assert (done.code == 2) == (outcome == REFUSED), done.err
    if outcome == USED:
        assert 12 <= len(done.lines) <= 120, len(done.lines)  # no years of empty windows
        if name == "min_rtc.csv":  # its value never changes: used until that is known
            assert done.outputs() >= 5 and any("frozen" in why for why in done.verdicts("eda")), done.verdicts("eda")
            return
        assert done.outputs() >= 0.7 * (len(done.lines) - 10), done.verdicts("eda")


# ---- the files of the cases: what the summary says, and what the windows say of the face


def shown(video: object, *more: object) -> Done:
    return command(*LIVE, "--task", "pain", "--camera", video, "--eda", "none", *more)


def test_person_swap(cases: Path) -> None:
    done = shown(cases / "video" / "person_swap.mp4")
    tracks = [line["quality"]["face"].get("track") for line in done.lines]
    assert {1, 2} <= set(tracks), tracks
    assert any("another person" in line["quality"]["face"]["reason"] for line in done.lines) or tracks[-1] == 2
    assert all(track in (None, 2) for track in tracks[tracks.index(2) :]), tracks


@pytest.mark.parametrize(
    ("name", "says", "windows"),
    [
        ("concat_reset.ts", "step back", (28, 34)),
        ("jump1h.mkv", "step ahead", (14, 18)),
        ("av1.mp4", "", (6, 9)),
        ("phone_rot90.mp4", "", (6, 9)),
    ],
)
def test_video(name: str, says: str, windows: tuple[int, int], cases: Path) -> None:
    done = shown(cases / "video" / name)
    assert done.code == 0 and says in done.err, done.err
    assert windows[0] <= len(done.lines) <= windows[1], len(done.lines)
    assert "no face" not in done.lines[-1]["quality"]["face"]["reason"], done.verdicts("face")
    assert not done.lines[-1]["quality"]["face"].get("turn")


def test_joined_streams_have_both_picture_and_sound(cases: Path) -> None:
    path = cases / "video" / "concat_reset.ts"
    done = command(*LIVE, "--task", "affect", "--camera", path, "--microphone", path)
    assert done.code == 0 and done.err.count("step back") >= 2, done.err
    assert done.lines[-1]["t"] >= 15.5


# ---- recipes of pictures, from one real clip: 8 s at 25 fps

Recipe = Callable[[np.ndarray], np.ndarray]


def drawn(kind: str) -> Recipe:
    from jmt_edge.preprocessing.face import FaceDetector

    detector = FaceDetector()

    def draw(frame: np.ndarray) -> np.ndarray:
        image = frame.copy()
        COVERINGS[kind][0](image, detector.detect(frame)[0], np.random.default_rng(1))  # the same in each frame
        return image

    return draw


def turned(quarter: int) -> Callable[[], Recipe]:
    return lambda: lambda frame: np.ascontiguousarray(np.rot90(frame, -quarter))


RECIPES: dict[str, tuple[Callable[[], Recipe], str]] = {
    "as it is": (lambda: lambda frame: frame, "ok"),
    "turned by 90 degrees": (turned(1), "turn 90"),
    "turned by 180 degrees": (turned(2), "turn 180"),
    "turned by 270 degrees": (turned(3), "turn 270"),
    **{kind: (lambda kind=kind: drawn(kind), COVERINGS[kind][1]) for kind in COVERINGS},  # type: ignore[misc]
}


@pytest.fixture(scope="module")
def clip(shared_data: Path) -> list[np.ndarray]:
    video, frames = cv2.VideoCapture(str(sorted((shared_data / "av" / "grid").glob("*.mpg"))[0])), []
    while (read := video.read())[0]:
        frames.append(read[1])
    return frames


def long(frames: list[np.ndarray]) -> list[np.ndarray]:
    """8 s: there, back and there again, without a jump."""
    return [*frames, *frames[-2::-1], *frames][:200]


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2]
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (width, height))
    for frame in frames:
        out.write(frame)
    out.release()
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, clip: list[np.ndarray], tmp_path: Path) -> None:
    recipe, expected = RECIPES[name][0](), RECIPES[name][1]
    done = shown(write_video(tmp_path / "v.avi", long([recipe(frame) for frame in clip])))
    assert done.code == 0
    faces = [line["quality"]["face"] for line in done.lines]
    found = Counter(
        face["reason"] or f"turn {face['turn']}" if face.get("turn") else face["reason"] or "ok" for face in faces
    )
    right = sum(n for why, n in found.items() if expected in why)
    assert right >= 0.6 * len(faces), found  # what begins as another reason, a face that is looked for, is not counted
    if expected != "ok":
        assert not found["ok"], found


@pytest.mark.parametrize("name", ["name with spaces.avi", "x!appsink.avi", "12", "odd?fps=3.avi"])
def test_names(name: str, clip: list[np.ndarray], tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", clip[:50]).rename(tmp_path / name)
    done = command(*LIVE, "--task", "pain", "--camera", video, "--eda", "none")
    assert done.code == 0 and len(done.lines) >= 3, done.err


def test_a_folder_as_people_have_them_and_a_pipe(clip: list[np.ndarray], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for n, frame in enumerate(clip[:50]):
        cv2.imwrite(str(folder / f"b{n:03d}.png"), frame)
    (folder / "a.jpg").write_bytes(b"")
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "x.jpg").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    done = shown(f"{folder}?fps=25")
    assert done.code == 0 and len(done.lines) >= 3 and done.verdicts("face")
    os.mkfifo(tmp_path / "pipe")
    for option in ("--camera", "--microphone", "--eda"):
        done = command(*LIVE, "--task", "trimodal", option, tmp_path / "pipe")
        assert done.code == 2 and "is a pipe" in done.err, done.err


# ---- sound: one utterance said in many ways -> the reason, "ok" where it may be used


def band(x: np.ndarray, rate: int) -> np.ndarray:
    """Through `rate` Hz and back to 44.1 kHz."""
    return signal.resample_poly(signal.resample_poly(x, rate, 44_100), 44_100, rate)[: len(x)]


def nan_at(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[len(x) // 3 : len(x) // 2 : 50] = np.nan
    return x


SOUND_RECIPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "as it is": (lambda x: x, "ok"),
    "stereo": (lambda x: np.stack([x, x], 1), "ok"),
    "5.1, speech in the centre": (lambda x: np.stack([x * (c == 2) * 3 for c in range(6)], 1), "ok"),
    "antiphase stereo": (lambda x: np.stack([x, -x], 1), "refused: cancel each other out"),
    "8 kHz": (lambda x: band(x, 8000), "narrow-band"),
    "16 kHz": (lambda x: band(x, 16_000), "narrow-band"),
    "NaN": (nan_at, "not a number"),
    "silence": (lambda x: 0 * x, "dead or muted"),
}


@pytest.fixture(scope="module")
def utterance(shared_data: Path) -> np.ndarray:
    """(n,) 12 s of speech at 44.1 kHz: the sentences of one speaker, one after the other."""
    av = pytest.importorskip("av")
    parts = []
    for path in sorted((shared_data / "av" / "grid").glob("*.mpg"))[:1] * 7:
        with av.open(str(path)) as file:
            rate = file.streams.audio[0].rate
            sound = [frame.to_ndarray().astype(np.float32) for frame in file.decode(audio=0)]
            parts.append(np.concatenate(sound, axis=1).mean(0)[int(0.4 * rate) : int(2.3 * rate)])  # the words
    x = np.concatenate(parts)
    x = x / max(1.0, float(np.abs(x).max())) * 0.5
    return signal.resample_poly(x, 44_100, rate) if rate != 44_100 else x


def heard(path: Path) -> Done:
    return command(*LIVE, "--task", "affect", "--camera", "none", "--microphone", path)


@pytest.mark.parametrize("name", SOUND_RECIPES)
def test_sound_recipe(name: str, utterance: np.ndarray, tmp_path: Path) -> None:
    make, expected = SOUND_RECIPES[name]
    wavfile.write(tmp_path / "s.wav", 44_100, make(utterance).astype(np.float32))
    done = heard(tmp_path / "s.wav")
    if expected.startswith("refused: "):
        assert done.code == 2 and expected.removeprefix("refused: ") in done.err, done.err
        return
    found = done.verdicts("voice")
    assert done.code == 0 and len(done.lines) >= 18
    right = sum(n for why, n in found.items() if expected in why)
    assert right >= (4 if name == "NaN" else 0.7 * len(done.lines)), found
    if name in ("8 kHz", "silence"):
        assert not found["ok"], found


def test_wav_and_flac_of_the_same_samples_give_the_same(utterance: np.ndarray, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    pcm = (np.stack([utterance, utterance / 2], 1) * 32767).astype(np.int16)
    done = []
    for name in ("s.wav", "s.flac"):
        soundfile.write(str(tmp_path / name), pcm, 44_100, subtype="PCM_16")
        done.append(heard(tmp_path / name))
    assert len(done[0].lines) == len(done[1].lines) >= 18
    for one, other in zip(done[0].lines, done[1].lines):
        assert one["quality"]["voice"]["reason"] == other["quality"]["voice"]["reason"]
        for key in one["outputs"] or {}:
            assert one["outputs"][key] == pytest.approx(other["outputs"][key], abs=1e-3)


def test_no_sound_of_a_ward_is_speech(cases: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, cases / "sound" / "make_sounds.py", tmp_path], check=True, timeout=120)
    found = {path.stem: heard(path).verdicts("voice") for path in sorted(tmp_path.glob("*.wav"))}
    assert len(found) == 10
    assert all(verdicts["ok"] <= 1 and verdicts.total() >= 18 for verdicts in found.values()), found


# ---- damaged recordings: what the refusal says, or the file of which lines were left out


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name: str, cases: Path, tmp_path: Path) -> None:
    done = command("export", cases / "recordings" / name, "--to", "xdf", "--out", tmp_path / "out")
    assert RECORDINGS[name] in done.err, done.err
    assert (done.code == 2) == (" " in RECORDINGS[name])
