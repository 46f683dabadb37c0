"""Each subject's own baseline (`baseline = rest` in a recipe), from a slice that is neither trained on nor scored.

The slice is the subject's first `baseline_seconds` without pain (of affect: near neutral), as `live --rest` takes the
first seconds of a run; what is measured there and what it makes of the other clips is `clips.baseline`, in every room.
Nothing of a subject reaches another one: a baseline comes from its own subject, and the usual person's is fixed.

Training shows every window twice, with the baseline and without, so that one set of weights knows both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips.baseline import Baseline, Signal, measured, with_baseline
from ..errors import DataError
from .clips import ClipStore
from .data import WindowTable
from .keys import digest
from .sets import presence

NEUTRAL = 0.2  # valence and arousal up to which a window without pain labels may belong to the rest
MOST_OF_REST = 0.5  # of a subject's neutral windows: the others are needed to train and score


@dataclass(frozen=True)
class Calibrated:
    """A cohort's windows with the baselines applied.

    windows: those to train on and to score; their rows are calibrated clips. stores: calibrated clips, then the same
    without baseline, `shift` rows later. support: the slices, which nobody is scored on. lacking: modality -> subjects
    without a baseline, and why; their clips are the same both ways.
    """

    windows: WindowTable
    stores: dict[str, ClipStore]
    shift: dict[str, int]
    support: WindowTable
    lacking: dict[str, dict[str, str]]

    def line(self, seconds: float) -> str:
        """What a table of scores must say."""
        return note(seconds, self.windows, self.lacking)


def calibrate(windows: WindowTable, stores: Mapping[str, ClipStore], seconds: float) -> Calibrated:
    """The usable windows without each subject's support slice, and the clips with that subject's baseline.

    Raises DataError where nothing is left.
    """
    windows = usable(windows, stores)
    support, touched = slices(windows, seconds)
    subject = windows.subject
    everyone = np.unique(subject)
    shift, found, clips, rows = {}, dict(stores), dict(windows.clips), dict(windows.rows)
    lacking: dict[str, dict[str, str]] = {}
    for name in with_baseline(windows.task):
        if name not in stores:
            continue
        store = stores[name]
        owner = np.array([windows.trials[number].subject for number, _ in windows.clips[name]])
        data = np.array(store.data, np.float32)
        for who in everyone:
            rest = _rest(store, windows.rows[name][support & (subject == who), -1])
            if rest.refused:
                lacking.setdefault(name, {})[str(who)] = rest.refused
                continue
            own = owner == who
            data[own] = Baseline.of(rest, store.modality).apply(data[own], store.modality)
        shift[name] = len(data)
        found[name] = _doubled(store, data)
        clips[name] = windows.clips[name] * 2
    whole = replace(windows, clips=clips, rows=rows)
    kept = whole.take(np.flatnonzero(~touched))
    if not len(kept):
        raise DataError(f"a rest of {seconds:g} s leaves no window to train on; lower baseline_seconds")
    return Calibrated(kept, found, shift, whole.take(np.flatnonzero(support)), lacking)


def usable(windows: WindowTable, stores: Mapping[str, ClipStore]) -> WindowTable:
    """Only windows whose last step shows at least one modality. Raises DataError where there are none."""
    seen = np.any([presence(windows, stores, m)[:, -1] for m in windows.task.names], axis=0)
    if not seen.any():
        raise DataError("no window has a usable clip at its end; run `jmt-edge train --check` on the data")
    return windows.take(np.flatnonzero(seen))


def slices(windows: WindowTable, seconds: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(W,) windows of the support slices, and (W,) those that share any moment with one, which include them.

    A slice holds the subject's first neutral windows, in the order of the trials, until they cover `seconds`, and at
    most half of them.
    """
    neutral, subject, span = _neutral(windows), windows.subject, windows.task.window
    support, touched = np.zeros(len(windows), bool), np.zeros(len(windows), bool)
    order = np.lexsort((windows.end, windows.trial))
    for who in np.unique(subject):
        own = order[(subject == who)[order]]
        calm = own[neutral[own]]
        covered, last = 0.0, dict[int, float]()  # trial -> end of what it has given
        for i in calm[: int(MOST_OF_REST * len(calm))]:
            if covered >= seconds - 1e-6:
                break
            trial, end = int(windows.trial[i]), float(windows.end[i])
            covered += end - max(last.get(trial, 0.0), end - span, 0.0)
            last[trial] = end
            support[i] = True
        for trial in last:
            mine = own[windows.trial[own] == trial]
            ends = windows.end[own[support[own] & (windows.trial[own] == trial)]]
            near = np.abs(windows.end[mine][:, None] - ends[None, :]) < span - 1e-6
            touched[mine] |= near.any(1)
    return support, touched


def uncalibrated(windows: WindowTable, shift: Mapping[str, int]) -> WindowTable:
    """The same windows with the clips as they were measured."""
    rows = {m: np.where(r >= 0, r + shift.get(m, 0), -1) for m, r in windows.rows.items()}
    return replace(windows, rows=rows)


def both_ways(windows: WindowTable, shift: Mapping[str, int]) -> WindowTable:
    """Each window with the subject's baseline, then each without; `windows` where there are no baselines."""
    if not shift:
        return windows
    twice = windows.take(np.tile(np.arange(len(windows)), 2))
    plain = uncalibrated(windows, shift)
    return replace(twice, rows={m: np.concatenate([windows.rows[m], plain.rows[m]]) for m in windows.rows})


def note(seconds: float, windows: WindowTable, lacking: Mapping[str, Mapping[str, str]]) -> str:
    """`baseline = rest: ...`, for every table of scores."""
    count = len(np.unique(windows.subject))
    less = "".join(f"; without a baseline of {m}: {len(who)} of {count} subjects" for m, who in lacking.items())
    return f"baseline = rest: clips relative to each person's first {seconds:g} s of rest, which are not scored{less}"


def _neutral(windows: WindowTable) -> NDArray[np.bool_]:
    if "pain" in windows.labels:
        return np.asarray(windows.labels["pain"][:, -1] == 0)
    return np.all([np.abs(y[:, -1]) <= NEUTRAL for y in windows.labels.values()], axis=0)


def _rest(store: ClipStore, rows: NDArray[np.int64]) -> Signal:
    """The subject's slice in one modality: the newest clip of each window, as in a live run."""
    rest = Signal()
    for row in rows:
        if row >= 0 and store.present[row]:
            rest.values.append(measured(store.data[row], store.modality))
        else:
            rest.reasons["no usable clip"] += 1
    return rest


def _doubled(store: ClipStore, data: NDArray[np.float32]) -> ClipStore:
    raw = np.asarray(store.data, np.float32)
    parts: dict[str, Any] = {
        name: np.tile(x, 2) for name, x in (("present", store.present), ("track", store.track), ("pause", store.pause))
    }
    whole = np.concatenate([data, raw])
    content = digest(whole, parts["present"], parts["track"])
    return replace(store, data=whole, key=f"{store.key}-baseline", content=content, **parts)
