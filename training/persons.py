"""The mode "calibrated": each person's skin conductance in units of their own mean and SD.

It needs a recording of the person beforehand and no label of theirs; scores obtained with it must say so, and live,
which meets a person for the first time, cannot use it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .clips import ClipStore
from .data import Windows
from .keys import digest

FLOOR = 0.01  # µS; a person with less spread than that shows the sensor's noise


def calibrate(store: ClipStore, windows: Windows) -> ClipStore:
    """`store` of EDA clips (µS) such that the network sees mean 0 and SD 1 over all usable clips of each person."""
    subject = np.array([windows.recordings[number].subject for number, _ in windows.clips["eda"]])
    m = store.modality
    mean, std = (m.mean or (0.0,))[0], (m.std or (1.0,))[0]
    data = np.array(store.data, np.float32)
    for who in np.unique(subject):
        rows = subject == who
        own = data[rows & store.present].astype(np.float64)
        if own.size:
            data[rows] = (data[rows] - own.mean()) / max(float(own.std()), FLOOR) * std + mean
    return replace(store, data=data, key=f"{store.key}-calibrated", content=digest(data, store.present))
