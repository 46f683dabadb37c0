"""From the same file, live, training and calibration cut the same clips, bit for bit, and judge them alike."""

from __future__ import annotations

import wave
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import av
import numpy as np
import pytest
from live_fixture import hand_bundle

from jmt_edge.calibration.sources import clips_of
from jmt_edge.capture import open_source
from jmt_edge.capture.simulated.expression import Expressions
from jmt_edge.capture.simulated.face import FaceRenderer
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.engine.backends.base import TwoCalls
from jmt_edge.live import Observer, Options, Result, run
from jmt_edge.preprocessing.actions import as_measured
from jmt_edge.tasks import AUDIO_RATE, Task, as_released, get_task, split_steps
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, Labels, Problems, Trial, cut_windows
from jmt_edge.training.readers import open_cohort

LENGTH = 6.1  # s of every file
ENDS = tuple(np.arange(3, 12) * 0.5)  # of the windows that are compared
OFF_GRID = 4.27  # a window end that no live run has
SIZE = (240, 180)


def with_measures(task: Task) -> Task:
    """The task with clips of facial measures, as the backbone `face_actions` takes them."""
    return replace(task, modalities=tuple(as_measured(m) if m.name == "face" else m for m in task.modalities))


TASKS: dict[str, Task] = {
    **{name: get_task(name, "demo") for name in ("pain", "affect", "trimodal")},
    "split": split_steps(get_task("pain", "demo"), 4),
    **{f"{name}, measured": with_measures(get_task(name, "demo")) for name in ("pain", "affect")},
}

Clip = np.ndarray | None  # None: absent


# ---- the three rooms -----------------------------------------------------------------------------------------


class Spy(TwoCalls, Observer):
    """An engine that computes nothing but remembers the clips that came: a clip's feature is its number."""

    name = "spy"

    def __init__(self, task: Task) -> None:
        self.precision = dict.fromkeys((*task.names, "fusion"), "fp32")
        self.newest: dict[int, dict[str, Clip]] = {}  # window -> modality -> its newest clip
        self._task, self._clips = task, [np.empty(0, np.float32)]
        self._now: dict[str, Clip] = {}

    def backbones(self, clips: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        features = {}
        for name, batch in clips.items():
            numbers = np.arange(len(self._clips), len(self._clips) + len(batch), dtype=np.float32)
            self._clips += [*batch]
            features[name] = np.repeat(numbers[:, None], self._task.dim, 1)
        return features

    def fusion(self, features: Mapping[str, np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
        rows = len(present)
        if rows == 1:  # the window itself, not what it would be without each modality
            for j, name in enumerate(self._task.names):
                number = int(features[name][0, -1, 0])
                self._now[name] = self._clips[number] if present[0, -1, j] else None
        zero = np.zeros((rows, 1), np.float32)
        outputs = {o: np.zeros((rows, 1, 2), np.float32) if o == "pain" else zero for o in self._task.outputs}
        return {"attention": np.zeros((rows, 1, len(self._task.names)), np.float32), **outputs}

    def on_result(self, result: Result) -> None:
        self.newest[result.index] = self._now
        self._now = {}

    def close(self) -> None:
        """Nothing to close."""


def live(task: Task, files: Mapping[str, Path], folder: Path) -> dict[str, dict[float, Clip]]:
    """{modality: {window's end: its newest clip}} of a run as fast as the files can be read."""
    spy = Spy(task)
    sources = {name: source for name, file in files.items() if (source := open_source(name, str(file)))}
    run(
        hand_bundle(task, Path(mkdtemp(dir=folder)) / "hand.jmt"), spy, sources, Options(hop=0.5, realtime=False), [spy]
    )
    return {name: {end: spy.newest.get(round(end / 0.5), {}).get(name) for end in ENDS} for name in files}


def training(
    task: Task, files: Mapping[str, Path], ends: tuple[float, ...], cache: Path
) -> dict[str, dict[float, Clip]]:
    labels = Labels(np.zeros(1), {o: np.zeros(1) for o in task.outputs})
    trial = Trial("a", "a", files, LENGTH, labels, ends)
    return cached(Cohort("biovid", cache, [trial], Problems()), task, cache)


def cached(cohort: Cohort, task: Task, cache: Path) -> dict[str, dict[float, Clip]]:
    """{modality: {window's end: its newest clip}} of the cohort's only recording."""
    windows = cut_windows(cohort, task)
    found: dict[str, dict[float, Clip]] = {}
    for name, store in build_clips(windows, cache, cohort.problems).items():
        rows = windows.rows[name][:, -1]
        there = [row >= 0 and bool(store.present[row]) for row in rows]
        found[name] = {
            float(end): store.load(np.array([row]))[0] if here else None
            for end, row, here in zip(windows.end, rows, there)
        }
    return found


def calibration(task: Task, files: Mapping[str, Path]) -> dict[str, dict[float, Clip]]:
    sources = {name: open_source(name, str(files[name])) if name in files else Silence(name) for name in task.names}
    clips, present = clips_of(task, sources, ENDS)  # type: ignore[arg-type]
    return {
        name: {
            end: clips[name][i, -1] if present[i, -1, task.names.index(name)] else None for i, end in enumerate(ENDS)
        }
        for name in files
    }


class Silence:
    """A source of nothing, for a modality that is not under test."""

    def __init__(self, name: str) -> None:
        self.modality, self.name, self.realtime = name, "silence", False

    def open(self, origin: float) -> None: ...

    def read(self, until: float):  # type: ignore[no-untyped-def]
        from jmt_edge.media.chunk import empty_chunk

        return empty_chunk(self.modality)

    def status(self): ...  # type: ignore[no-untyped-def]

    def close(self) -> None: ...


def assert_same(task: Task, files: Mapping[str, Path], folder: Path, at_least: int) -> dict[str, dict[float, Clip]]:
    """Every room's clips of `files`; `at_least` that many are there of each modality, so that something is compared."""
    expected = live(task, files, folder)
    for name in files:
        assert sum(clip is not None for clip in expected[name].values()) >= at_least, name
    rooms = {
        "training": training(task, files, ENDS, folder / "all"),
        "training, one trial": training(task, files, (5.5,), folder / "one"),
        "training, off the grid": training(task, files, (2.5, OFF_GRID, 5.5), folder / "off"),
        "calibration": calibration(task, files),
    }
    for room, found in rooms.items():
        for name in files:
            for end, clip in found[name].items():
                if end == OFF_GRID:
                    continue
                wanted = expected[name][end]
                assert (clip is None) == (wanted is None), f"{room}, {name} at {end}: presence"
                if clip is not None and wanted is not None:
                    differ = np.mean(clip != wanted)
                    assert np.array_equal(clip, wanted), f"{room}, {name} at {end}: {differ:.0%} of the numbers differ"
    return expected


# ---- files ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def person() -> tuple[FaceRenderer, Expressions, Speech]:
    who = Person.live(5)
    speech = Speech(who)
    return FaceRenderer(who, *SIZE), Expressions(who, speech), speech


@lru_cache(maxsize=1)
def speech() -> np.ndarray:
    """(n,) float32 at 44.1 kHz."""
    return np.asarray(person()[2].samples(20 * AUDIO_RATE, round(LENGTH * AUDIO_RATE)), np.float32)


def frame_stamps(rate: str) -> list[int]:
    """When each frame is taken, in microseconds."""
    if rate != "variable":
        step = Fraction(rate)
        return [round(1_000_000 * i / step) for i in range(round(LENGTH * step))]
    rng = np.random.default_rng(3)
    gaps = rng.choice([15_000, 33_000, 40_000, 41_000, 90_000], 400)
    stamps = np.concatenate([[0], np.cumsum(gaps)])
    return [int(t) for t in stamps if t < LENGTH * 1e6 and not 3_100_000 < t < 3_300_000]


def write_video(
    path: Path, rate: str, *, picture_at: float = 0.0, sound: np.ndarray | None = None, sound_at: float = 0.0
) -> Path:
    """The person at `rate` frames a second, and (channels, n) sound; each begins at its own time."""
    renderer, expression, _ = person()
    mpeg = path.suffix == ".mpg"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg1video" if mpeg else "libx264", rate=Fraction(rate) if mpeg else None)
        video.width, video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = 1 / Fraction(rate) if mpeg else Fraction(1, 1_000_000)
        video.options = {"qscale": "2"} if mpeg else {"preset": "ultrafast", "crf": "16", "bf": "0"}
        track = None
        if sound is not None:
            track = container.add_stream("mp2" if mpeg else "aac", rate=AUDIO_RATE)
            track.layout = "mono" if len(sound) == 1 else "stereo"
        for i, stamp in enumerate(frame_stamps(rate)):
            t = stamp / 1e6
            frame = av.VideoFrame.from_ndarray(renderer.frame(20 + t, expression(20 + t)), format="bgr24")
            frame = frame.reformat(format="yuv420p")
            frame.time_base = video.codec_context.time_base
            frame.pts = i if mpeg else stamp + round(1e6 * picture_at)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if track is not None and sound is not None:
            encode_sound(container, track, sound, "s16" if mpeg else "fltp", sound_at)
    return path


def encode_sound(
    container: av.container.OutputContainer, track: av.AudioStream, sound: np.ndarray, form: str, at: float
) -> None:
    size = track.codec_context.frame_size or 1152
    layout = track.codec_context.layout.name
    for i in range(0, sound.shape[1], size):
        block = sound[:, i : i + size]
        values = block if form.endswith("p") else block.T.reshape(1, -1)
        if "flt" not in form:
            values = np.int16(np.clip(np.round(values * 32768), -32768, 32767))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=form, layout=layout)
        frame.rate, frame.time_base = AUDIO_RATE, Fraction(1, AUDIO_RATE)
        frame.pts = i + round(at * AUDIO_RATE)
        container.mux(track.encode(frame))
    container.mux(track.encode())


SOUNDS = {"wav": ("pcm_s16le", "s16"), "flac": ("flac", "s16"), "mp3": ("libmp3lame", "s16p"), "m4a": ("aac", "fltp")}


def channels(layout: str) -> np.ndarray:
    """(channels, n) of the speech, each channel different."""
    voice = speech()
    count = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    return np.stack([np.roll(voice, 30 * k) * 0.9 / (1 + 0.3 * k) for k in range(count)]).astype(np.float32)


def write_sound(path: Path, layout: str) -> Path:
    codec, form = SOUNDS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=AUDIO_RATE)
        track.layout = layout
        encode_sound(container, track, channels(layout), form, 0.0)
    return path


def skin(times: np.ndarray) -> np.ndarray:
    return 4 + 0.5 * np.sin(0.8 * times) + 0.4 / (1 + np.exp(-4 * (times - 3.2)))


def write_eda(path: Path, kind: str) -> Path:
    rng = np.random.default_rng(1)
    rate = {"biovid": 512, "irregular": 100, "fast": 1000, "slow": 8, "gaps": 128}[kind]
    t = np.arange(round(LENGTH * rate)) / rate
    if kind == "irregular":
        t = np.sort(t + rng.uniform(0, 0.009, t.size))
    if kind == "gaps":
        t = t[((t < 2.0) | (t > 2.2)) & ((t < 4.2) | (t > 4.75))]
    rows = [f"{a * 1e6:.0f}\t{v:.5f}\t0\t0\t0\t0" for a, v in zip(t, skin(t))]
    header = "time\tgsr\tecg\temg_trapezius\temg_corrugator\temg_zygomaticus"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("videos")

    @lru_cache(maxsize=8)
    def get(rate: str) -> Path:
        return write_video(folder / f"{rate.replace('/', '_')}.mp4", rate)

    return get


# ---- tests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("pain", "24"), ("pain", "25"), ("pain", "30000/1001"), ("pain", "variable"), ("split", "25"),
        ("affect", "25"), ("affect", "30"), ("affect", "variable"), ("trimodal", "25"), ("trimodal", "50"),
        ("pain, measured", "25"), ("pain, measured", "variable"), ("affect, measured", "30"),
    ],
)  # fmt: skip
def test_faces(name: str, rate: str, video: Callable[[str], Path], tmp_path: Path) -> None:
    assert_same(TASKS[name], {"face": video(rate)}, tmp_path, 4)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("kind", SOUNDS)
def test_sound_files(kind: str, layout: str, tmp_path: Path) -> None:
    if (kind, layout) == ("mp3", "5.1"):
        pytest.skip("MP3 has two channels")
    task = TASKS["trimodal" if layout == "stereo" else "affect"]
    assert_same(task, {"voice": write_sound(tmp_path / f"a.{kind}", layout)}, tmp_path, 3)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_the_same_samples_give_the_same_clips_from_wav_and_flac(layout: str, tmp_path: Path) -> None:
    task = TASKS["affect"]
    wav, flac = (
        live(task, {"voice": write_sound(tmp_path / f"a.{kind}", layout)}, tmp_path)["voice"]
        for kind in ("wav", "flac")
    )
    assert sum(clip is not None for clip in wav.values()) >= 3
    for end in ENDS:
        np.testing.assert_array_equal(wav[end], flac[end])


@pytest.mark.parametrize(
    ("kind", "picture_at", "sound_at"),
    [("mp4", 0.0, 0.5), ("mp4", 0.4, 0.0), ("mkv", 0.0, 0.5), ("mkv", 0.4, 0.0), ("mpg", 0.0, 0.0)],
)
def test_the_sound_of_a_video(kind: str, picture_at: float, sound_at: float, tmp_path: Path) -> None:
    """Late and early sound: the clips are equal, and stand where the container's time stamps put them."""
    sound = np.stack([speech(), 0.5 * speech()])
    file = write_video(tmp_path / f"a.{kind}", "25", picture_at=picture_at, sound=sound, sound_at=sound_at)
    found = assert_same(TASKS["affect"], {"voice": file, "face": file}, tmp_path, 3)["voice"]
    # the same sound, moved, as a WAV file
    shift = round((sound_at - picture_at) * AUDIO_RATE)
    moved = np.concatenate([np.zeros(max(shift, 0), np.float32), speech()[max(-shift, 0) :]])
    with wave.open(str(tmp_path / "moved.wav"), "wb") as out:
        out.setparams((1, 2, AUDIO_RATE, 0, "NONE", ""))
        out.writeframes(np.int16(np.clip(0.75 * moved, -1, 1) * 32767).tobytes())
    reference = live(TASKS["affect"], {"voice": tmp_path / "moved.wav"}, tmp_path)["voice"]
    both = [end for end in ENDS if found[end] is not None and reference[end] is not None]
    assert len(both) >= 3
    for end in both:
        a, b = found[end], reference[end]
        assert a is not None and b is not None
        assert abs(lag(a[0], b[0])) <= 3, f"the sound at {end} is {10 * lag(a[0], b[0])} ms from where it should be"


def test_released_voice_values_reach_all_rooms(tmp_path: Path) -> None:
    file = write_sound(tmp_path / "a.wav", "mono")
    ours = assert_same(TASKS["affect"], {"voice": file}, tmp_path, 3)["voice"]
    theirs = assert_same(as_released(TASKS["affect"]), {"voice": file}, tmp_path, 3)["voice"]
    for end, clip in theirs.items():
        if clip is not None:
            floor = clip.max() - np.float32(80 / 19.895)
            np.testing.assert_allclose(clip, np.maximum(ours[end], floor), atol=1e-5)
    assert any((clip != ours[end]).any() for end, clip in theirs.items() if clip is not None)


def lag(a: np.ndarray, b: np.ndarray) -> int:
    """By how many columns (10 ms) `a` (64, n) is later than `b`."""

    def alike(k: int) -> float:
        x, y = (a[:, k:], b[:, : b.shape[1] - k]) if k >= 0 else (a[:, :k], b[:, -k:])
        return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])

    return max(range(-60, 61), key=alike)


@pytest.mark.parametrize("name", ["pain", "split", "trimodal"])
@pytest.mark.parametrize("kind", ["biovid", "irregular", "fast", "slow", "gaps"])
def test_eda_files(kind: str, name: str, tmp_path: Path) -> None:
    assert_same(TASKS[name], {"eda": write_eda(tmp_path / "a.csv", kind)}, tmp_path, 1)


@pytest.mark.parametrize("name", ["pain", "trimodal", "affect"])
def test_a_trial_of_a_data_set(name: str, video: Callable[[str], Path], tmp_path: Path) -> None:
    """BioVid's layout, with sound beside it: what the trial's window gives is what a live run of its files gives."""
    part, who, sample = tmp_path / "d" / "PartA", "071309_w_21", "071309_w_21-PA4-081"
    for folder in ("video", "biosignals_raw", "audio", "valence_arousal"):
        (part / folder / who).mkdir(parents=True)
    files = {
        "face": part / "video" / who / f"{sample}.mp4",
        "voice": part / "audio" / who / f"{sample}.wav",
        "eda": part / "biosignals_raw" / who / f"{sample}_bio.csv",
    }
    files["face"].write_bytes(video("25").read_bytes())
    write_sound(files["voice"], "mono")
    write_eda(files["eda"], "biovid")
    rows = ["valence,arousal", *["0.1,0.2"] * 138]
    (part / "valence_arousal" / who / f"{sample}.txt").write_text("\n".join(rows) + "\n")
    task = TASKS[name]
    expected = live(task, {m: files[m] for m in task.names}, tmp_path)
    found = cached(open_cohort(tmp_path / "d"), task, tmp_path / "cache")
    for m in task.names:
        wanted = expected[m][5.5]
        assert wanted is not None, m
        np.testing.assert_array_equal(found[m][5.5], wanted)
