"""What counts as speech, and what is said of sound that does not: a table to read, and what holds for all sounds."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import sounds
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import without_report
from scipy import signal
from sounds import NOT_SPEECH, RATE

import jmt_edge.preprocessing.speech as speech_module
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.errors import DataError
from jmt_edge.media.sound import sound_blocks
from jmt_edge.preprocessing.network import open_network
from jmt_edge.preprocessing.quality import Verdict, VoiceQuality
from jmt_edge.preprocessing.resample import StreamResampler
from jmt_edge.preprocessing.speech import WEIGHTS, SpeechDetector, SpeechStep

SPAN = 1.0667  # s of a clip
Sound = Callable[[], np.ndarray]


def verdicts(x: np.ndarray, first: float = 1.5, last: float | None = None) -> list[Verdict]:
    """One each half second: 21 of the 12 s of a sound."""
    quality, times, at = VoiceQuality(), np.arange(len(x)) / RATE, 0
    found = []
    for end in np.arange(first, (len(x) / RATE if last is None else last) - 0.01, 0.5):
        stop = min(len(x), int(end * RATE) + 1)
        quality.update(times[at:stop], x[at:stop].astype(np.float32))
        at = stop
        found.append(quality.verdict(float(end), SPAN))
    return found


@lru_cache(maxsize=8)
def simulated(seed: int, seconds: int = 12) -> np.ndarray:
    return np.asarray(Speech(Person.live(seed)).samples(0, seconds * RATE))


def noisy(x: np.ndarray, decibels: float) -> np.ndarray:
    """With white noise `decibels` below the speech."""
    return x + np.random.default_rng(0).standard_normal(len(x)) * np.sqrt(np.mean(x**2) / 10 ** (decibels / 10))


# --- the table ---

OK = ""
# situation, sound, reason (part of it), who reported it or its kind
SITUATIONS: list[tuple[str, Sound, str, str]] = [
    ("speech", lambda: simulated(0), OK, ""),
    ("speech, noise 10 dB below", lambda: noisy(simulated(0), 10), OK, ""),
    ("high-priority alarm", lambda: sounds.alarm_high(0), "no speech", "snakers4/silero-vad#430"),
    ("medium-priority alarm", lambda: sounds.alarm_medium(0), "no speech", "snakers4/silero-vad#430"),
    ("beep of an ECG monitor", lambda: sounds.ecg_beep(0), "no speech", "snakers4/silero-vad#430"),
    ("busy tone", lambda: sounds.busy_tone(0), "no speech", "snakers4/silero-vad#430"),
    ("infusion pump", lambda: sounds.pump(0), "no speech", "snakers4/silero-vad#430"),
    ("hum that swells", lambda: sounds.hum(0), "no speech", "screenpipe/screenpipe#3097"),
    ("clicks", lambda: sounds.clicks(0), "no speech", "screenpipe/screenpipe#3097"),
    ("fan", lambda: sounds.fan(0), "no speech", "gkonovalov/android-vad#2"),
    ("piano", lambda: sounds.piano(0), "speech", "TEN-framework/ten-vad#50"),
    ("groan", sounds.groan, "vocal, not speech", "https://pmc.ncbi.nlm.nih.gov/articles/PMC5646576"),
    ("cry", sounds.cry, "vocal, not speech", "https://pmc.ncbi.nlm.nih.gov/articles/PMC5646576"),
    ("telephone or Bluetooth, 8 kHz", lambda: sounds.through(simulated(0), 8000), "narrow-band", "arkq/bluez-alsa#430"),
    ("Bluetooth, 16 kHz", lambda: sounds.through(simulated(0), 16_000), "narrow-band", "jlawyerorg/j-lawyer-org#2879"),
    ("samples that are NaN", lambda: np.where(sounds.T % 1 < 0.1, np.nan, simulated(0)), "NaN", "orasanen/ALICE#24"),
    ("muted", lambda: np.zeros(sounds.N), "dead or muted", "goodroot/hyprwhspr#47"),
    ("overdriven", lambda: np.clip(20 * simulated(0), -1, 1), "clipped", "google/aiyprojects-raspbian#47"),
    ("far away", lambda: 0.001 * simulated(0), "too quiet", "xinnan-tech/xiaozhi-esp32-server#3146"),
]
CONTROLS = {"speech", "speech, noise 10 dB below"}  # good sound: nothing to report


def test_each_situation_cites_a_public_report() -> None:
    assert without_report({name: report for name, _, _, report in SITUATIONS}) == CONTROLS


@pytest.mark.parametrize(
    ("sound", "reason"),
    [pytest.param(sound, reason, id=name) for name, sound, reason, _ in SITUATIONS],
)
def test_situation_and_reason(sound: Sound, reason: str) -> None:
    x = sound()
    found = verdicts(x if reason not in ("no speech", "speech", "vocal, not speech") else sounds.in_a_room(x))
    right = [v.ok and v.reason == "" if reason == OK else not v.ok and reason in v.reason for v in found]
    # the clip of a voice that groans now and then is silent in part, and a pause of the simulated voice is one
    least = {"vocal, not speech": 0.75, OK: 0.95, "narrow-band": 0.95, "clipped": 0.8, "too quiet": 0.95}
    assert sum(right) >= least.get(reason, 1.0) * len(found), [v.reason for v in found]
    assert all(v.score == 0 for v in found if not v.ok)


# --- no speech ---


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sound", NOT_SPEECH, ids=lambda f: f.__name__)
def test_no_sound_of_a_ward_is_speech(sound: Callable[[int], np.ndarray], seed: int) -> None:
    found = verdicts(sounds.in_a_room(sound(seed), seed))
    assert len(found) == 21
    assert sum(v.ok for v in found) <= 1


@pytest.mark.parametrize("sound", [sounds.groan, sounds.cry], ids=["groan", "cry"])
def test_a_groan_or_a_cry_is_never_speech(sound: Sound) -> None:
    assert sum(v.ok for v in verdicts(sounds.in_a_room(sound()))) <= 1


# --- speech ---


@pytest.mark.parametrize("seed", range(3))
def test_the_simulated_voice_is_speech(seed: int) -> None:
    """Where there is any: a pause can fill a whole clip."""
    x = simulated(seed, 40)
    found = [v for v in verdicts(x) if "quiet" not in v.reason]
    assert sum(v.ok for v in found) >= 0.95 * len(found)


@pytest.mark.parametrize("decibels", [20, 10])
@pytest.mark.parametrize("seed", range(2))
def test_speech_in_noise_is_speech(seed: int, decibels: float) -> None:
    found = verdicts(noisy(simulated(seed, 40), decibels))
    assert sum(v.ok for v in found) >= 0.95 * len(found)


TEXT = (
    "The quick brown fox jumps over the lazy dog, and then it goes home. I would like some water, please. "
    "My back hurts a little when I move, but the night was fine."
)


def espeak(voice: str) -> np.ndarray:
    if shutil.which("espeak-ng") is None:
        pytest.skip("no espeak-ng: install the package espeak-ng")
    wav = subprocess.run(["espeak-ng", "-v", voice, "--stdout", TEXT], capture_output=True, check=True).stdout
    samples = wav[wav.index(b"data") + 8 :]
    x = np.frombuffer(samples[: len(samples) // 2 * 2], "<i2").astype(np.float32) / 65536
    resample = StreamResampler(22_050)
    return np.concatenate([resample(x), resample.flush()])


@pytest.mark.parametrize("decibels", [None, 10])
@pytest.mark.parametrize("voice", ["en-us", "en-us+f3", "de", "fr-fr", "es"])
def test_spoken_sentences_are_speech(voice: str, decibels: float | None) -> None:
    x = espeak(voice)
    found = verdicts(x if decibels is None else noisy(x, decibels))
    assert len(found) > 10 and sum(v.ok for v in found) >= 0.95 * len(found)


def grid(shared_data: Path) -> dict[str, np.ndarray]:
    pytest.importorskip("av")
    folder = shared_data / "av" / "grid"
    return {path.name: np.concatenate([x for _, x in sound_blocks(path)]) for path in sorted(folder.glob("*.mpg"))}


@pytest.mark.parametrize("decibels", [None, 10])
def test_read_sentences_are_speech(shared_data: Path, decibels: float | None) -> None:
    for name, x in grid(shared_data).items():
        loud = np.flatnonzero(np.abs(x) > 0.1 * np.abs(x).max()) / RATE
        first, last = loud[0] + 0.5, loud[-1] + 0.3  # clips that are speech for half of their time
        found = verdicts(x if decibels is None else noisy(x, decibels), max(SPAN, first), last)
        assert found and all(v.ok for v in found), (name, found)


# --- the upper band ---


@pytest.mark.parametrize("rate", [8000, 11_000, 12_000, 16_000])
def test_narrow_band_is_named_with_its_edge(rate: int) -> None:
    found = [
        v
        for v in verdicts(sounds.through(simulated(1, 40), rate))
        if not v.reason.startswith(("no sp", "too", "vocal"))
    ]
    narrow = [v for v in found if not v.ok]
    assert len(narrow) >= 0.9 * len(found)
    for v in narrow:
        assert v.reason.startswith("narrow-band sound, nothing above")
        edge = float(v.reason.split()[-2])
        assert 0.8 * rate / 2000 <= edge <= rate / 2000 + 0.5


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_narrow_band_of_read_sentences(rate: int, shared_data: Path) -> None:
    for name, x in grid(shared_data).items():
        for loudness in (1.0, 0.2):
            found = verdicts(sounds.through(loudness * x, rate), 1.5, 2.4)
            assert all("narrow-band" in v.reason for v in found), (name, loudness, found)


def test_a_resampled_device_of_16_khz_is_narrow_band() -> None:
    resample = StreamResampler(16_000)
    low = signal.resample_poly(simulated(0), 160, 441).astype(np.float32)
    found = verdicts(np.concatenate([resample(low), resample.flush()]))
    assert sum("narrow-band" in v.reason for v in found) >= 20


@pytest.mark.parametrize(("codec", "suffix", "bits"), [("libmp3lame", ".mp3", 64_000), ("aac", ".m4a", 64_000)])
def test_lossy_sound_is_not_narrow_band(codec: str, suffix: str, bits: int, tmp_path: Path, shared_data: Path) -> None:
    """MP3 has no band above 16 kHz, which is no loss."""
    av = pytest.importorskip("av")
    for name, x in {"simulated": simulated(0), **grid(shared_data)}.items():
        path = tmp_path / f"{name}{suffix}"
        with av.open(str(path), "w") as container:
            track = container.add_stream(codec, rate=RATE)
            track.layout, track.bit_rate = "mono", bits
            for i in range(0, len(x), 1152):
                part = np.ascontiguousarray(x[None, i : i + 1152], np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.rate, frame.pts = RATE, i
                container.mux(track.encode(frame))
            container.mux(track.encode())
        found = verdicts(np.concatenate([b for _, b in sound_blocks(path)]))
        assert any(v.ok for v in found)
        assert not any("narrow-band" in v.reason for v in found), name


# --- the detector ---


def steps(x: np.ndarray, pieces: Sequence[int], times: np.ndarray | None = None) -> list[SpeechStep]:
    detector = SpeechDetector(RATE)
    times = np.arange(len(x)) / RATE if times is None else times
    parts = np.split(np.arange(len(x)), sorted(min(p, len(x)) for p in pieces))
    return [step for part in parts for step in detector.update(times[part], x[part])]


def test_the_graph_is_that_of_the_notice() -> None:
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in notice


def test_a_missing_graph_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speech_module, "WEIGHTS", tmp_path / "none.onnx")
    with pytest.raises(DataError, match="reinstall jmt-edge"):
        SpeechDetector(RATE)


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, 5 * RATE), max_size=8))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    """Over a reset and a gap."""
    x, times = simulated(0)[: 5 * RATE], np.arange(5 * RATE) / RATE + SpeechDetector.RESET - 3
    keep = (np.arange(5 * RATE) < 1.5 * RATE) | (np.arange(5 * RATE) > 1.6 * RATE)
    whole = steps(x[keep], [], times[keep])
    assert len(whole) > 140 and steps(x[keep], cuts, times[keep]) == whole


def test_steps_are_causal() -> None:
    """A step is given once its last sample is known, and what comes later changes nothing."""
    x = simulated(0)[: 3 * RATE]
    whole = steps(x, [])
    for stop in (20_000, 50_001, 88_200):
        early = steps(x[:stop], [])
        assert early == whole[: len(early)]
        assert [s for s in whole if s.known <= (stop - 1) / RATE] == early
    assert all(0 < s.known - s.t < 0.17 for s in whole)
    assert np.allclose(np.diff([s.t for s in whole]), 0.032, atol=1e-4)


def test_a_step_does_not_depend_on_when_the_stream_began() -> None:
    """From a reset on, every stream gives the same, so a day of speech cannot wear the network's memory out."""
    reset = SpeechDetector.RESET
    x, times = simulated(0), np.arange(12 * RATE) / RATE + reset - 4
    late = times >= reset - 1
    after = [s for s in steps(x, [], times) if s.t > reset]
    assert len(after) > 240 and after == [s for s in steps(x[late], [], times[late]) if s.t > reset]
    again = [s.speech for s in steps(x, [], times + reset) if s.t > 2 * reset]
    assert again == [s.speech for s in after]


def test_a_wild_time_stamp_costs_nothing() -> None:
    x, times = simulated(0)[: 2 * RATE], np.arange(2 * RATE) / RATE
    times[RATE:] += 1e12
    found = steps(x, [], times)
    assert len(found) > 50 and len([s for s in found if s.t > 1e11]) > 20


def test_a_verdict_needs_no_more_than_its_history() -> None:
    x, times = simulated(2, 40), np.arange(40 * RATE) / RATE
    whole, late = VoiceQuality(), VoiceQuality()
    whole.update(times, x)
    kept = times >= np.floor(39.0 - VoiceQuality.history(SPAN))
    assert not kept[:RATE].any()
    late.update(times[kept], x[kept])
    for end in (39.0, 39.4, 39.8):
        assert whole.verdict(end, SPAN) == late.verdict(end, SPAN)


def test_steps_computed_together_are_those_computed_one_by_one() -> None:
    """The network's state is carried over from group to group."""
    x = simulated(0)[: 2 * RATE]
    resample = StreamResampler(RATE, 16_000)
    low = np.concatenate([np.zeros(64, np.float32), resample(x), resample.flush()])
    h = c = np.zeros((1, 1, 128), np.float32)
    session = open_network(WEIGHTS)
    expected = []
    for i in range(50):
        feed = {"input": low[None, 512 * i : 512 * i + 576], "h": h, "c": c}
        p, h, c = session.run(["speech_probs", "hn", "cn"], feed)
        expected.append(float(p[0]))
    np.testing.assert_allclose([s.speech for s in steps(x, [])[:50]], expected, atol=1e-4)


def test_floating_point_is_left_as_it_was() -> None:
    """onnxruntime can make the calling thread flush the smallest numbers to zero, for the whole process."""
    steps(simulated(0)[:RATE], [])
    smallest = np.full(8, 5e-324)
    assert ((smallest * 1.0) > 0).all()
