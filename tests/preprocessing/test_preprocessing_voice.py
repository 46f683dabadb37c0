"""The mel spectrogram against librosa and torch.stft."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jmt_edge.errors import ConfigError, DataError
from jmt_edge.preprocessing.voice import log_mel, mel_filters, voice_clip
from jmt_edge.tasks import RELEASED_PAD, RELEASED_TOP_DB, Task, as_released, get_task
from jmt_edge.training.recipes import load_recipe, names

M = get_task("affect").modality("voice")
RELEASED = as_released(get_task("affect")).modality("voice")


def sound(n: int = 47_040, seed: int = 0) -> np.ndarray:
    """A gliding tone with harmonics, noise, and a silent stretch."""
    t = np.arange(n) / 44_100
    phase = 2 * np.pi * (120 * t + 60 * t**2)
    x = sum(0.3 / k * np.sin(k * phase) for k in range(1, 30)) + np.random.default_rng(seed).normal(0, 0.01, n)
    x[n // 3 : n // 3 + 6000] = 0
    return (0.3 * x).astype(np.float32)


def test_librosa_gives_the_same() -> None:
    librosa = pytest.importorskip("librosa")
    x = sound()
    mel = librosa.feature.melspectrogram(
        y=x.astype(np.float64), sr=44_100, n_fft=1024, win_length=882, hop_length=441, window="hann", center=True,
        pad_mode="reflect", power=2.0, n_mels=64, fmin=0, fmax=22_050, htk=True, norm=None,
    )  # fmt: skip
    expected = (10 * np.log10(np.maximum(mel, 1e-10)) + 14.8) / 19.895
    ours = log_mel(x, M)
    assert ours.shape == (1, 64, 107) and ours.dtype == np.float32
    np.testing.assert_allclose(ours[0], expected, atol=2e-5)
    assert ours.min() == pytest.approx((-100 + 14.8) / 19.895)  # the floor, in the silent stretch


def test_torch_stft_gives_the_same() -> None:
    torch = pytest.importorskip("torch")
    x = sound(seed=1)
    spectrum = torch.stft(
        torch.from_numpy(x).double(), 1024, hop_length=441, win_length=882,
        window=torch.hann_window(882, dtype=torch.float64), center=True, pad_mode="reflect", return_complex=True,
    )  # fmt: skip
    mel = torch.from_numpy(mel_filters()) @ spectrum.abs() ** 2
    expected = (10 * torch.log10(mel.clamp(min=1e-10)) + 14.8) / 19.895
    np.testing.assert_allclose(log_mel(x, M)[0], expected.numpy(), atol=2e-5)


def test_filters_are_librosas() -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=44_100, n_fft=1024, n_mels=64, fmin=0, fmax=22_050, htk=True, norm=None)
    np.testing.assert_allclose(mel_filters(), expected, atol=1e-6)


def test_short_audio_is_padded_on_the_left_and_long_audio_keeps_its_end() -> None:
    x = sound()
    short = voice_clip(x[-10_000:], M)
    assert short.shape == (1, 64, 107)
    np.testing.assert_array_equal(short, log_mel(np.concatenate([np.zeros(37_040, np.float32), x[-10_000:]]), M))
    np.testing.assert_array_equal(voice_clip(np.concatenate([sound(seed=3), x]), M), log_mel(x, M))
    silence = voice_clip(np.empty(0, np.float32), M)
    assert (silence == silence[0, 0, 0]).all()


def test_too_short_for_a_spectrogram() -> None:
    assert log_mel(np.zeros(513, np.float32), M).shape == (1, 64, 2)
    with pytest.raises(DataError, match="513"):
        log_mel(np.zeros(512, np.float32), M)


def released_chain(sound: np.ndarray, columns: int) -> np.ndarray:
    """The released code's clip, written from its description alone: silence on the left up to 45 599 samples, power mel
    spectrogram, decibels at most 80 below the maximum, normalisation, columns of 0 on the left."""
    padded = np.zeros(max(len(sound), 45_599))
    padded[len(padded) - len(sound) :] = sound
    padded = np.concatenate([padded[512:0:-1], padded, padded[-2:-514:-1]])
    window = np.zeros(1024)
    window[71 : 71 + 882] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(882) / 882)
    starts = range(0, len(padded) - 1024 + 1, 441)
    power = np.stack([np.abs(np.fft.rfft(padded[i : i + 1024] * window)) ** 2 for i in starts], 1)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 22_050 / 700), 66) / 2595) - 1)
    bands = [np.interp(np.linspace(0, 22_050, 513), edges[i : i + 3], [0, 1, 0]) for i in range(64)]
    decibels = 10 * np.log10(np.maximum(np.stack(bands) @ power, 1e-10))
    clipped = (np.maximum(decibels, decibels.max() - 80) + 14.8) / 19.895
    return np.concatenate([np.zeros((64, columns - clipped.shape[1])), clipped], 1)


@pytest.mark.parametrize("length", [47_040, 45_600, 45_599, 43_000, 20_000, 1])
def test_the_released_values_give_the_released_chain(length: int) -> None:
    x = sound()[-length:]
    ours = voice_clip(x, RELEASED)
    assert ours.shape == M.shape
    np.testing.assert_allclose(ours[0], released_chain(x, 107), atol=2e-5)


def test_the_values_differ_where_a_clip_is_quiet_or_young_and_nowhere_else() -> None:
    x = sound()
    ours, theirs = voice_clip(x, M)[0], voice_clip(x, RELEASED)[0]
    floor = ours.max() - 80 / 19.895
    assert 0.01 < (ours < floor - 1e-6).mean() < 0.5  # the silent stretch
    np.testing.assert_allclose(theirs, np.maximum(ours, floor), atol=1e-6)
    young = voice_clip(x[-43_000:], RELEASED)[0]
    assert (young[:, :3] == 0).all() and (young[:, 3] != 0).all()
    assert (voice_clip(x[-43_000:], M)[0, :, :3] != 0).all()


def test_a_bundle_without_the_two_fields_keeps_its_clips() -> None:
    described = get_task("affect").to_dict()
    for m in described["modalities"]:
        del m["top_db"], m["pad"]
    assert Task.from_dict(json.loads(json.dumps(described))) == get_task("affect")
    for field, value in (("top_db", -1.0), ("top_db", "80"), ("pad", -1), ("pad", 47_041), ("pad", 1.5)):
        described["modalities"][1][field] = value
        with pytest.raises(ConfigError, match=rf"modalities\[1\]\.{field}"):
            Task.from_dict(described)
        del described["modalities"][1][field]


def test_papers_recipes_and_imports_take_the_released_values_and_the_presets_ours() -> None:
    for name in names():
        for variant in ("full", "demo"):
            task = load_recipe(name, variant=variant).resolve()
            found = {(m.top_db, m.pad) for m in task.modalities if m.name == "voice"}
            wanted = {(RELEASED_TOP_DB, RELEASED_PAD)} if name.startswith("affwild2") else {(0.0, 0)}
            assert found <= wanted, name
    assert (M.top_db, M.pad) == (0.0, 0) and (RELEASED.top_db, RELEASED.pad) == (80.0, 45_599)
    assert as_released(get_task("pain")) == get_task("pain")


@pytest.mark.parametrize("wrong", ["voice_top_db=-5", "voice_pad=47041", "voice_pad=-1", "voice_pad=1.5"])
def test_a_recipe_cannot_ask_for_what_no_clip_has(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        load_recipe("affwild2-jmt", [wrong])
    assert load_recipe("affwild2-jmt", ["voice_pad=47040", "voice_top_db=0"]).resolve()
