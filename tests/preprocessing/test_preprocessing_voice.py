"""The mel spectrogram against librosa and torch.stft."""

from __future__ import annotations

import numpy as np
import pytest

from jmt_edge.errors import DataError
from jmt_edge.preprocessing.voice import log_mel, mel_filters, voice_clip
from jmt_edge.tasks import get_task

M = get_task("affect").modality("voice")


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
