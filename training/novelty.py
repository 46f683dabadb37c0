"""Novelty densities of a bundle: what its training people's clips look like, and a limit from other people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..clips.cutter import network_input
from ..engine.novelty import DESCRIPTIONS, MIN_CLIPS, Novelty, fit
from ..tasks import Modality, Task
from .clips import ClipStore
from .data import WindowTable
from .sensors import as_sensor

F32 = NDArray[np.float32]
Described = Mapping[str, F32]  # modality -> (N, D)
Stores = tuple[Mapping[str, ClipStore], Mapping[str, ClipStore]]  # of the training people, of the others
CHUNK = 64  # clips in memory at a time


def fit_all(training: Described, held_out: Sequence[Described]) -> dict[str, Novelty]:
    """The density of each modality of which there are enough clips, from descriptions (N, D) of them. held_out: of each
    person.
    """
    found = {}
    for name, clips in training.items():
        others = [person[name] for person in held_out if len(person[name])]
        if len(others) > 1 and min(len(clips), sum(map(len, others))) >= MIN_CLIPS:
            found[name] = fit(clips, others)
    return found


def described(m: Modality, store: ClipStore, rows: NDArray[np.int64], *, boards_from: int | None = None) -> F32:
    """Descriptions (N, D) of the usable clips among `rows` of a store; EDA from row `boards_from` on also as boards
    give it. Rows before it are moved by their person's rest, which comes after a board.
    """
    rows = np.unique(rows[rows >= 0])
    rows = rows[store.present[rows]]
    found = []
    for i in range(0, max(len(rows), 1), CHUNK):
        clips = store.load(rows[i : i + CHUNK])
        every = [clips]
        if boards_from is not None and m.name == "eda" and (raw := rows[i : i + CHUNK] >= boards_from).any():
            every += boards(clips[raw], m)
        found += [DESCRIPTIONS[m.name](some) for some in every]
    return np.concatenate(found)


def boards(clips: F32, m: Modality) -> list[F32]:
    """EDA clips (N, 1, T) as a converter of 10 bits over 25 uS (BITalino) and a wrist-band at 4 Hz (E4) give them.

    They belong to the limit: a known sensor is not a reason to refuse a person.
    """
    mean, std = (m.mean[0], m.std[0]) if m.mean else (0.0, 1.0)
    us = clips * np.float64(std) + mean
    return [network_input(as_sensor(us, sensor, m.span).astype(np.float32), m) for sensor in ("bitalino", "e4")]


def fit_windows(
    task: Task, training: WindowTable, held_out: WindowTable, stores: Stores, shift: Mapping[str, int] | None = None
) -> dict[str, Novelty]:
    """The densities for the people of two tables of windows, with the stores of each side's clips.

    shift: see `baseline.Calibrated`. None for precomputed features: they are not run live, and nothing describes them.
    """
    modalities = [m for m in task.modalities if not m.precomputed]
    raw = shift or {}
    known = {m.name: described(m, stores[0][m.name], training.rows[m.name]) for m in modalities}
    others = [
        {
            m.name: described(
                m,
                stores[1][m.name],
                held_out.rows[m.name][held_out.subject == person],
                boards_from=raw.get(m.name, 0),
            )
            for m in modalities
        }
        for person in np.unique(held_out.subject)
    ]
    return fit_all(known, others)
