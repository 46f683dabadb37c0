"""Skin conductance in units of each person's own mean and SD (`calibrated` in a recipe).

It needs earlier data of the same person, though no labels. Scores obtained with it must say so, and a live run, which
has no earlier data of the person, cannot use it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .clips import ClipStore
from .data import WindowTable
from .keys import digest

FLOOR = 0.01  # µS; a smaller spread is the sensor's noise
NOTE = "calibrated = true: each person's EDA in units of their own mean and SD"


def standardise_by_person(store: ClipStore, windows: WindowTable) -> ClipStore:
    """`store` of EDA clips (µS) such that the network sees mean 0 and SD 1 over all usable clips of each person."""
    subject = np.array([windows.trials[number].subject for number, _ in windows.clips["eda"]])
    m = store.modality
    mean, std = (m.mean or (0.0,))[0], (m.std or (1.0,))[0]
    data = np.array(store.data, np.float32)
    for who in np.unique(subject):
        rows = subject == who
        own = data[rows & store.present].astype(np.float64)
        if own.size:
            data[rows] = (data[rows] - own.mean()) / max(float(own.std()), FLOOR) * std + mean
    return replace(store, data=data, key=f"{store.key}-by-person", content=digest(data, store.present, store.track))
