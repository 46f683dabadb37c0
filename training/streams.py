"""Simulated people as endless streams, as in a live run, with windows at any time relative to events.

Trials cut at their stimulus would train a fixed alignment, which live data does not have. The demo bundles are
therefore trained on streams of `sim:` people, rendered only where there is a window; nothing but the clip cache is
written to disk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..capture.simulated.person import Person
from ..capture.simulated.scenario import Episodes
from ..tasks import Task
from .data import Cohort, Labels, Problems, Trial, step_times

FIRST_SEED = 1_000_000  # people of training; live runs and tests use small seeds
NON_RESPONDERS = 20 / 87  # share of people whose skin does not respond, as in BioVid
WARM = 6.0  # s before the first window
EPISODE = 80.0  # s; several episodes a person


def simulated_cohort(task: Task, *, subjects: int, windows: int, seed: int = 0) -> Cohort:
    """`subjects` people with `windows` windows each.

    One-step tasks have windows at random times, half in pain and half at rest; sequences have consecutive windows, one
    per stride, which share clips. Pain is labelled by `Episodes.window_label` (None, in transition, is unlabelled);
    valence and arousal are those of the person.
    """
    rng = np.random.default_rng([seed, 7])
    quiet = np.zeros(subjects, bool)
    quiet[rng.permutation(subjects)[: round(NON_RESPONDERS * subjects)]] = True
    trials = []
    for i in range(subjects):
        number = FIRST_SEED + 1000 * seed + i
        spec = f"sim:seed={number}" + ("&responder=0" if quiet[i] else "")
        person = Person.live(number, responder=not quiet[i])
        ends = _ends(person, task, windows, rng)
        times = np.unique(np.concatenate([step_times(task, end) for end in ends]).round(6))
        times = times[times > 0]
        truth = [person.truth(float(t)) for t in times]
        values = {o: np.array([row[o] for row in truth]) for o in ("valence", "arousal")}
        values["pain"] = np.array([_label(person, float(t)) for t in times])
        labels = Labels(times, {o: values[o] for o in task.outputs})
        files = {m: Path(spec) for m in task.names}
        trials.append(Trial(f"sim{number}", f"sim{number}", files, float(max(ends)), labels, tuple(ends), kind="sim"))
    return Cohort("simulated", Path(f"sim:seed={seed}"), trials, Problems(), people="simulated")


def _ends(person: Person, task: Task, windows: int, rng: np.random.Generator) -> list[float]:
    stride = max(m.stride for m in task.modalities)
    if stride:
        first = float(rng.uniform(WARM, EPISODE))
        return [round(first + stride * i, 6) for i in range(windows)]
    found: dict[int, list[float]] = {0: [], 1: []}
    half = windows // 2
    while min(len(v) for v in found.values()) < half:
        end = round(float(rng.uniform(WARM, 12 * EPISODE)), 3)
        label = _label(person, end)
        if not np.isnan(label) and len(found[int(label)]) < half:
            found[int(label)].append(end)
    return sorted(found[0] + found[1])


def _label(person: Person, end: float) -> float:
    assert isinstance(person.scenario, Episodes)
    label = person.scenario.window_label(end)
    return float("nan") if label is None else float(label)
