"""Log-mel spectrogram of the voice, as the papers' ResNet-18 takes it, without torchaudio.

Power spectrogram (n_fft 1024; 882-sample periodic Hann window, zero-padded in the centre of the 1024; hop 441; frames
centred, the signal's ends reflected), 64 triangular mel bands (HTK scale, peak 1, 0-22.05 kHz), decibels with a floor
of 1e-10, then (x - mean) / std of the modality.

Two settings differ between the papers' released code and our presets, and are fields of the modality. `top_db` (80 in
the released code, torchaudio's `AmplitudeToDB`; 0 here) raises all levels to that many dB below the clip's maximum.
`pad` (45 599 there; 0, the whole clip, here) is the number of samples to which a recording that has only begun is
filled with silence on its left; the columns that are then missing are 0 in the network's input, as where the released
code collects clips of different lengths. A bundle records both, so the same bundle always gives the same clips.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tasks import AUDIO_RATE, Modality
from .filters import hann

N_FFT, WINDOW, HOP, MELS = 1024, 882, 441, 64
FLOOR = 1e-10


def log_mel(samples: NDArray[np.float32], m: Modality) -> NDArray[np.float32]:
    """(1, 64, 1 + n // 441) float32 of `samples`, (n,) float mono in [-1, 1] at 44.1 kHz.

    Raises DataError for fewer than 513 samples, which cannot be reflected at the ends.
    """
    if len(samples) <= N_FFT // 2:
        raise DataError(f"{len(samples)} audio samples are too few for a spectrogram; give at least {N_FFT // 2 + 1}")
    # only the 882 samples under the window matter, and the phase does not
    skip = (N_FFT - WINDOW) // 2
    padded = np.pad(np.asarray(samples, np.float64), N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded[skip : len(padded) - skip], WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * _window(), N_FFT)
    mel = mel_filters() @ (spectrum.real**2 + spectrum.imag**2).T
    decibels = 10 * np.log10(np.maximum(mel, FLOOR))
    if m.top_db:
        decibels = np.maximum(decibels, decibels.max() - m.top_db)
    mean, std = (m.mean[0], m.std[0]) if m.mean else (0.0, 1.0)
    return ((decibels - mean) / std)[None].astype(np.float32)


def voice_clip(samples: NDArray[np.float32], m: Modality) -> NDArray[np.float32]:
    """One clip (1, 64, 107) float32 of the last `m.span` seconds of `samples` (44.1 kHz mono).

    Shorter audio is filled with silence on the left: up to `m.pad` samples, then up to the span with columns of 0.
    """
    wanted = round(m.span * AUDIO_RATE)
    last = np.asarray(samples, np.float32)[-wanted:]
    spectrogram = log_mel(np.pad(last, (max((m.pad or wanted) - len(last), 0), 0)), m)
    columns = 1 + wanted // HOP - spectrogram.shape[-1]
    return np.pad(spectrogram, ((0, 0), (0, 0), (columns, 0))) if columns else spectrogram


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float64]:
    """(64, 513) triangles, evenly spaced on the HTK mel scale 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + AUDIO_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.linspace(0, AUDIO_RATE / 2, N_FFT // 2 + 1)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float64]:
    return hann(WINDOW)
