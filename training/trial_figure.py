"""Figure 4 of the JMT paper: the attention over the time of one trial, with the face at each step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from ..clips.face import tracked
from ..tasks import Task
from .data import Trial, step_times
from .plots import COLOURS, drawn_by_subject, limits95, save, style
from .scores import Predictions
from .sources import open_trial

mpl.use("Agg")
from matplotlib import pyplot as plt

STEPS = 4  # a window of fewer has no course over time
SIDE = 112  # pixels of a facial frame
NAME = "trial_attention"


def shown_trial(p: Predictions) -> int:
    """The window whose weights change most, of those in pain with all steps present, else of all with all steps."""
    whole = p.present.all((1, 2))
    pain = p.labels["pain"][:, -1] == 1 if "pain" in p.labels else whole
    change = np.ptp(p.attention, axis=1).max(-1)
    return int(np.argmax(change + np.where(whole & pain, 2, np.where(whole, 1, 0))))


def facial_frames(trial: Trial, task: Task, times: Sequence[float]) -> list[NDArray[np.uint8] | None]:
    """The aligned face (SIDE, SIDE, 3) RGB in the frame at or before each time (s); None where none is found."""
    source, find = open_trial(trial, task.modality("face"))
    find = find or tracked(SIDE)
    source.open(0.0)
    try:
        found: list[NDArray[np.uint8] | None] = []
        for t in times:
            chunk = source.read(t + 1e-6)
            crop = find(chunk.values[len(chunk) - 1], float(chunk.times[-1])).crop if len(chunk) else None
            found.append(crop)
        return found
    finally:
        source.close()


def trial_attention(out: Path, p: Predictions, task: Task, trials: Sequence[Trial], *, faces: bool) -> None:
    """Writes `trial_attention.png`, `.pdf` and `.svg`: the weight of each modality at each step of one trial, the mean
    over all trials of its class with its interval, and with `faces` the person's face at each step.
    """
    i = shown_trial(p)
    trial = next(r for r in trials if r.id == p.trial[i])
    times = step_times(task, float(p.end[i]))
    same = np.arange(len(p.end))
    if "pain" in p.labels:
        same = np.flatnonzero(p.labels["pain"][:, -1] == p.labels["pain"][i, -1])
    of_class = p.take(same)
    drawn = drawn_by_subject(of_class, lambda rows: of_class.attention[rows].mean(0))
    images = facial_frames(trial, task, times.tolist()) if faces and "face" in trial.files else []
    apart = max(m.stride for m in task.modalities)
    width = max(6.4, 0.55 * len(times))
    figure, ax = plt.subplots(figsize=(width, 3.2 + (1.2 if images else 0)), layout="constrained")
    for k, m in enumerate(p.names):
        if drawn.size:
            ax.fill_between(times, *limits95(drawn)[:, :, k], color=COLOURS.get(m), alpha=0.2, lw=0)
        ax.plot(times, p.attention[i, :, k], label={"eda": "EDA"}.get(m, m), **style(m))
    label = f", pain {p.labels['pain'][i, -1]:.0f}" if "pain" in p.labels else ""
    what = "trials of this class" if "pain" in p.labels else "windows"
    ax.set(xlabel=f"time in the trial (s); steps end {apart:.2g} s apart", ylabel="attention weight", ylim=(0, 1))
    ax.set_xlim(times[0] - apart / 2, times[-1] + apart / 2)
    ax.set_xticks(times, [f"{t:.2f}" for t in times], fontsize=8 if len(times) <= 8 else 6)
    title = f"{trial.id}{label}; bands: mean of {len(same)} {what}, 95 % by subject"
    figure.suptitle(title, fontsize=9)
    _draw_faces(ax, times, images)
    ax.legend(fontsize=8, frameon=False)
    with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}):  # text stays text
        for kind in ("pdf", "svg"):
            figure.savefig(out / f"{NAME}.{kind}")
    save(figure, out / f"{NAME}.png")


def _draw_faces(ax: Any, times: NDArray[np.float64], images: Sequence[NDArray[np.uint8] | None]) -> None:
    """Above the axes, each over the time of its frame."""
    if not images:
        return
    half = min(0.46 * float(times[1] - times[0]) / float(np.ptp(ax.get_xlim())), 0.12)
    for t, image in zip(times, images):
        x = (float(t) - ax.get_xlim()[0]) / float(np.ptp(ax.get_xlim()))
        inset = ax.inset_axes((x - half, 1.02, 2 * half, 0.4))
        if image is not None:
            inset.imshow(image)
        else:
            inset.text(0.5, 0.5, "no face", ha="center", va="center", fontsize=7, transform=inset.transAxes)
        inset.set(xticks=[], yticks=[])
