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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tasks import AUDIO_RATE, Modality
from .filters import hann

N_FFT, WINDOW, HOP, MELS = 1024, 882, 441, 64
FLOOR = 1e-10


class Known(NamedTuple):
    """Columns (n, 64) in dB of a clip, which follow each other from column `first` on."""

    first: int
    columns: NDArray[np.float64]


def log_mel(samples: NDArray[np.float32], m: Modality) -> NDArray[np.float32]:
    """(1, 64, 1 + n // 441) float32 of `samples`, (n,) float mono in [-1, 1] at 44.1 kHz.

    Raises DataError for fewer than 513 samples, which cannot be reflected at the ends.
    """
    return spectrogram(decibels(frames(samples)), m)


def frames(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """(1 + n // 441, 882): what the window of each column of `samples` (n,) shows, the signal's ends reflected.

    Column i stands at sample 441 i and shows the 441 samples before it and as many from it on. Raises as `log_mel`.
    """
    if len(samples) <= N_FFT // 2:
        raise DataError(f"{len(samples)} audio samples are too few for a spectrogram; give at least {N_FFT // 2 + 1}")
    # only the 882 samples under the window matter, and the phase does not
    skip = (N_FFT - WINDOW) // 2
    padded = np.pad(np.asarray(samples, np.float64), N_FFT // 2, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded[skip : len(padded) - skip], WINDOW)[::HOP]


def decibels(frames: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(n, 64) mel bands in dB of `frames` (n, 882). No bit of a column depends on the others: it may be computed alone.

    That is why the bands are summed by parts and not by a matrix product, whose order of summation has no rule.
    """
    spectrum = np.fft.rfft(frames * _window(), N_FFT)
    power = spectrum.real**2 + spectrum.imag**2
    up, down, starts, empty = _mel_parts()
    rise, fall = (np.where(empty, 0.0, np.add.reduceat(power * w, starts, axis=1)) for w in (up, down))
    return 10 * np.log10(np.maximum(rise[:, :-1] + fall[:, 1:], FLOOR))


def spectrogram(decibels: NDArray[np.float64], m: Modality) -> NDArray[np.float32]:
    """(1, 64, n) float32 as the network of `m` takes the columns `decibels` (n, 64)."""
    if m.top_db:
        decibels = np.maximum(decibels, decibels.max() - m.top_db)
    mean, std = (m.mean[0], m.std[0]) if m.mean else (0.0, 1.0)
    return np.ascontiguousarray(((decibels - mean) / std).T[None], np.float32)


def voice_clip(samples: NDArray[np.float32], m: Modality, known: Known | None = None) -> NDArray[np.float32]:
    """One clip (1, 64, 107) float32 of the last `m.span` seconds of `samples` (44.1 kHz mono).

    Shorter audio is filled with silence on the left: up to `m.pad` samples, then up to the span with columns of 0.
    known: columns of the whole clip that were computed before.
    """
    wanted = round(m.span * AUDIO_RATE)
    last = np.asarray(samples, np.float32)[-wanted:]
    shown = frames(np.pad(last, (max((m.pad or wanted) - len(last), 0), 0)))
    if known is None:
        columns = decibels(shown)
    else:
        stop = known.first + len(known.columns)
        columns = np.concatenate([decibels(shown[: known.first]), known.columns, decibels(shown[stop:])])
    clip = spectrogram(columns, m)
    missing = 1 + wanted // HOP - clip.shape[-1]
    return np.pad(clip, ((0, 0), (0, 0), (missing, 0))) if missing else clip


def mel_filters() -> NDArray[np.float64]:
    """(64, 513) triangles, evenly spaced on the HTK mel scale 2595 log10(1 + f / 700)."""
    edges, bins = _mel_edges()
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))


def _mel_edges() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(66,) Hz where a triangle begins, has its peak and ends; (513,) Hz of the spectrum."""
    top = 2595 * np.log10(1 + AUDIO_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    return np.asarray(edges, np.float64), np.linspace(0, AUDIO_RATE / 2, N_FFT // 2 + 1)


@lru_cache(maxsize=1)
def _mel_parts() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """The filters by the 65 parts of the spectrum between two edges, in each of which one triangle rises and the one
    before it falls: ((513,) the rising one, (513,) the falling one, (65,) the first bin of each part, (65,) whether the
    part holds none)."""
    edges, bins = _mel_edges()
    part = np.clip(np.searchsorted(edges, bins, side="right") - 1, 0, MELS)
    filters, at = np.pad(mel_filters(), ((1, 1), (0, 0))), np.arange(len(bins))
    starts = np.searchsorted(part, np.arange(MELS + 1))
    empty = np.bincount(part, minlength=MELS + 1) == 0
    return filters[part + 1, at], filters[part, at], np.minimum(starts, len(bins) - 1), empty


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float64]:
    return hann(WINDOW)
