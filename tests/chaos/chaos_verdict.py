"""A run's recording against what was sent: numbers, samples, marks, recovery, and what a kill cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chaos_devices import RATE, number_of

from jmt_edge.media.video import lossless_frames
from jmt_edge.recording.reader import Passed, Recording
from jmt_edge.tasks import get_task

EDA_TOLERANCE = 0.2  # µS between a recorded sample and the skin at its time
FRAME_LATE, FRAME_EARLY = 0.1, 0.1  # s between a picture's way out and its recorded time
FRESH = 1.5  # s: the newest sample of a modality in use is at most this old
LEAST = 0.5  # share of its samples, or of the moments at which it wants a picture, that a clip in use must have
EDGE = 0.2  # s around a clip
NEAR = 0.126  # s from such a moment to its picture, as docs/reference/clips.md promises
RECOVERY, KILLED = 2.0, 1.0  # s
GRAIN = 0.55  # s between two windows, at which the recording notes the states


@dataclass
class Fault:
    """On `device` from `begins` to `ends` (host s)."""

    device: str
    mode: str
    begins: float
    ends: float = float("inf")


@dataclass
class Sent:
    """What the run was given. marks: (text, host s); killed: host s of kill -9."""

    marks: list[tuple[str, float]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    disturbed: list[tuple[float, float]] = field(default_factory=list)  # the process was stopped or starved
    jumps: list[tuple[float, float]] = field(default_factory=list)  # the wall clock was set
    killed: float | None = None
    full: bool = False  # the disk was, or answered EIO at the end
    after_eio: int | None = None  # results in the 3 s in which it did


def judge(folder: Path, sent: Sent, skin: Any, camera: Any) -> dict[str, Any]:
    """Figures, and under `wrong` one sentence for each broken promise."""
    wrong: list[str] = []
    recording = Recording(folder)
    marks = recording.marks()
    host = dict(sent.marks)
    known = [host[m.text] - m.t for m in marks if m.text in host]
    if not known:
        return {"wrong": [] if sent.full else ["no mark was recorded"], "marks": 0, "results": 0}
    origin = max(known)  # a mark is read a little after it was sent
    wrong += _marks(marks, sent, origin)
    times, values = recording.eda()
    good = np.isfinite(values)
    off = np.abs(values[good] - skin.at(times[good] + origin))
    if (off > EDA_TOLERANCE).any():
        at = times[good][off > EDA_TOLERANCE]
        wrong.append(f"{len(at)} EDA samples are not the skin's, the first at {at[0]:.2f} s by {off.max():.2f} µS")
    frames = _frames(folder, recording)
    numbers = np.array([n for _, n in frames], int)
    seen = np.array([t for t, _ in frames])
    valid = (numbers >= 0) & (numbers < len(camera.sent))
    if not valid.all():
        wrong.append(f"{int((~valid).sum())} pictures were never sent")
    late = seen[valid] + origin - np.array(camera.sent)[numbers[valid]] if len(seen) else np.empty(0)
    stale = (late > FRAME_LATE) | (late < -FRAME_EARLY)
    if stale.any():
        wrong.append(f"{int(stale.sum())} pictures have a wrong time, by up to {np.abs(late).max():.2f} s")
    faces = seen[valid][[n not in camera.bad for n in numbers[valid]]] if len(seen) else seen
    results = recording.results()
    used = _numbers(results, {"eda": times[good], "face": faces}, wrong)
    recovery = _recovery(recording, sent, origin, wrong)
    wrong += _jumps([r["t"] + origin for r in results], sent)
    if sent.after_eio is not None and sent.after_eio < 2:
        wrong.append(f"{sent.after_eio} results in 3 s of a disk that fails")
    newest = max([r["t"] for r in results] + [m.t for m in marks] + [*times[-1:]] + [*seen[-1:]], default=0.0)
    lost = None
    if sent.killed is not None:
        lost = sent.killed - origin - newest
        if lost > KILLED:
            wrong.append(f"{lost:.2f} s of the recording were lost at kill -9")
    if sent.killed is None and not sent.full and not recording.complete:
        wrong.append("the recording was not closed")
    return {
        "wrong": wrong, "results": len(results), "numbers": used, "marks": len(marks), "eda_samples": len(times),
        "eda_largest_error_us": float(off.max()) if len(off) else 0.0, "pictures": len(frames),
        "picture_latest_s": float(late.max()) if len(late) else 0.0, "recovery_s": recovery, "lost_at_kill_s": lost,
    }  # fmt: skip


def _marks(marks: list[Any], sent: Sent, origin: float) -> list[str]:
    end = np.inf if sent.killed is None else sent.killed - KILLED
    if sent.full:
        end = origin + max(m.t for m in marks)
    wanted = [text for text, at in sent.marks if at < end]
    texts = [m.text for m in marks if not m.text.startswith("the clock was set ")]  # the program's own
    missing = [text for text in wanted if texts.count(text) != 1]
    wrong = [f"{len(missing)} marks lost or doubled, first {missing[0]}"] if missing else []
    if texts != sorted(texts, key=[text for text, _ in sent.marks].index):
        wrong.append("marks are out of order")
    return wrong


def _jumps(ends: list[float], sent: Sent) -> list[str]:
    """Where the wall clock was set, and nothing else was done, windows must have come as before; a disk that was full
    by then recorded none."""
    wrong = []
    for a, b in sent.jumps:
        if sent.full and b > max(ends, default=0.0):
            continue
        came = sum(a < end <= b for end in ends)
        if not any(c < b and d > a for c, d in sent.disturbed) and came < (b - a) / 0.5 - 2:
            wrong.append(f"{came} windows in {b - a:.1f} s after the wall clock was set")
    return wrong


def _frames(folder: Path, recording: Recording) -> list[tuple[float, int]]:
    """(recorded time, number) of each picture."""
    found: list[tuple[float, int]] = []
    for event in recording.events("face"):
        if isinstance(event, Passed) and event.modality == "face" and event.chunk is not None:
            found += [(float(t), number_of(image)) for t, image in zip(event.chunk.times, event.chunk.values)]
    return found


def _numbers(results: list[dict[str, Any]], samples: dict[str, Any], wrong: list[str]) -> int:
    """How many results have numbers; each modality in use must have had true samples in its clip."""
    task = get_task("trimodal", "demo")
    used = 0
    for result in results:
        if result["outputs"] is None:
            continue
        used += 1
        in_use = [name for name, quality in result["quality"].items() if quality["ok"]]
        if not in_use:
            wrong.append(f"at {result['t']:.1f} s: a number from nothing")
        for name in {"eda", "face"} & set(in_use):
            m = task.modality(name)
            here = samples[name][(samples[name] > result["t"] - m.span - EDGE) & (samples[name] <= result["t"] + EDGE)]
            if name == "face":
                wanted = result["t"] - np.arange(m.shape[1])[:, None] * m.span / m.shape[1]
                share = float((np.abs(here - wanted) <= NEAR).any(1).mean())
            else:
                share = len(here) / (m.span * RATE)
            if share < LEAST or result["t"] - here[-1] > FRESH:
                wrong.append(f"at {result['t']:.1f} s: {name} is in use with {share:.0%} of its samples")
    return used


def _recovery(recording: Recording, sent: Sent, origin: float, wrong: list[str]) -> list[dict[str, Any]]:
    """Seconds from the end of each device's fault until the last state that is not `streaming`, where nothing else
    went on."""
    found = []
    states = list(recording.statuses())
    modality = {"board": "eda", "camera": "face", "microphone": "voice"}
    last = origin + (states[-1][0] if states else 0.0)
    for fault in sent.faults:
        if any(a < fault.ends + RECOVERY + 1 and b > fault.begins for a, b in sent.disturbed):
            continue
        if fault.ends + RECOVERY + 2 * GRAIN > last:
            continue
        # states are noted at windows, so the return lies between two of them: this is the earlier one
        took = 0.0
        for t, plain in states:
            if t + origin > fault.ends:
                if plain.get(modality[fault.device], {}).get("state") == "streaming":
                    break
                took = t + origin - fault.ends
        found.append({"device": fault.device, "fault": fault.mode, "s": round(took, 2)})
        if took > RECOVERY:
            wrong.append(f"the {fault.device} took {took:.1f} s to come back after {fault.mode}")
    return found


__all__ = ["Fault", "Sent", "judge", "lossless_frames"]
