"""The person's own rest in a run of several signals: what is compared with it, and what is promised then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, hand_bundle

from jmt_edge.capture.base import State, Status
from jmt_edge.clips.cutter import signal_format
from jmt_edge.clips.presence import Cut, Presence
from jmt_edge.engine.uncertainty import Uncertainty
from jmt_edge.live import Pipeline, Result
from jmt_edge.live import pipeline as room
from jmt_edge.result import Quality
from jmt_edge.tasks import Task, get_task
from jmt_edge.training.recipes import load_recipe

Signal = Callable[[str, float], "np.ndarray | None"]  # (modality, the clip's end in s) -> the clip, None where unusable


def play(
    task: Task, signal: Signal, folder: Path, monkeypatch: pytest.MonkeyPatch, *, rest_at: dict[int, float | None],
    modalities: list[str], seconds: float = 60.0,
) -> list[Result]:  # fmt: skip
    """A run whose cutters give `signal`. modalities: those that the weights compare with the rest."""

    def cut(plan: Any, cutter: Any, end: float, t: float, status: Status) -> Cut:
        clip = signal(plan.m.name, end)
        if clip is None or end < plan.m.span - 1e-6:
            return Cut(None, Presence.POOR, Quality(False, "bad"))
        return Cut(clip, Presence.USABLE, Quality(True, "", 0.9, track=int(plan.m.name == "face")))

    monkeypatch.setattr(room, "cut_of_device", cut)
    names = task.names
    limits = {frozenset(names): {o: (0.2, 0.2) if o == "pain" else 0.5 for o in task.outputs}}
    for name in names:
        limits[frozenset(names) - {name}] = limits[frozenset(names)]
    promise = Uncertainty(0.9, 20, 100, limits).to_manifest()
    entry = {"mode": "rest", "seconds": 30.0, "modalities": modalities}
    bundle = hand_bundle(task, folder / "own.jmt", extra={"baseline": entry, "uncertainty": promise})
    pipeline = Pipeline(bundle, FakeEngine(task), 0.5, names)
    status = dict.fromkeys(names, Status(State.STREAMING))
    results = []
    for i in range(1, int(seconds / 0.5) + 1):
        if i in rest_at:
            length = rest_at[i]
            pipeline.forget_rest() if length is None else pipeline.begin_rest(length)
        pipeline.begin_window()
        results.append(pipeline.infer(i, status))
    return results


def of(task: Task, name: str, value: float, seed: int, noise: float = 0.01) -> np.ndarray:
    shape, dtype = signal_format(task.modality(name))
    return (value + noise * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def test_a_calm_face_stays_near_its_rest_once_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clips are moved from then on; the difference is that of the clips as they were cut."""
    task = load_recipe("demo-pain", ["backbone.face=face_actions", "augment.eda_sensor=0"]).resolve()

    def signal(name: str, end: float) -> np.ndarray:
        return of(task, name, 3.0, round(2 * end))

    results = play(task, signal, tmp_path, monkeypatch, rest_at={1: 40.0}, modalities=["face"])
    after = [r.rest for r in results if r.t > 40]
    assert all(rest is not None and rest["calibrated"] == ["face"] for rest in after)
    assert max(rest["difference"]["face"]["spreads"] for rest in after if rest) < 4


def test_a_response_before_the_rest_is_not_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first clips of a rest reach back before it; in training there is nothing before."""
    task = get_task("pain")
    span = task.modality("eda").span
    until = 20.0  # s, when a response of 3 uS has just gone

    def calm(name: str, end: float) -> np.ndarray:
        return of(task, name, 5.0, round(2 * end), 0.1)

    def after_a_response(name: str, end: float) -> np.ndarray:
        clip = calm(name, end)
        if name == "eda":
            clip[..., np.linspace(end - span, end, clip.shape[-1]) < until] += 3
        return clip

    how: dict[str, Any] = {"rest_at": {41: 30.0}, "modalities": ["eda"]}
    one = play(task, calm, tmp_path / "a", monkeypatch, **how)
    two = play(task, after_a_response, tmp_path / "b", monkeypatch, **how)
    own = [[r.outputs for r in run if r.rest and r.rest.get("calibrated")] for run in (one, two)]
    assert len(own[0]) == 20 and own[0] == own[1]


def test_the_next_person_is_not_compared_with_the_rest_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = get_task("trimodal")

    def signal(name: str, end: float) -> np.ndarray:
        return of(task, name, 3.0 if end < 60 else 8.0, round(2 * end))

    names = ["voice", "eda"]
    forgotten = play(
        task, signal, tmp_path / "a", monkeypatch, rest_at={1: 30.0, 120: None}, modalities=names, seconds=80
    )
    never = play(task, signal, tmp_path / "b", monkeypatch, rest_at={}, modalities=names, seconds=80)
    assert forgotten[118].rest is not None and forgotten[118].rest["calibrated"] == names
    after = [r for r in forgotten if r.t >= 60]
    assert all(r.rest == {"calibrated": []} for r in after)
    assert forgotten[-1].outputs == never[-1].outputs, "once the clips of the last person are gone"


def test_nothing_is_promised_until_the_sequence_is_full_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("trimodal")
    m = task.modality("voice")

    def signal(name: str, end: float) -> np.ndarray:
        return of(task, name, 1.0, round(2 * end))

    results = play(task, signal, tmp_path, monkeypatch, rest_at={1: 30.0}, modalities=["voice"])
    none = [r.t for r in results if r.t > task.window and r.uncertainty is None]
    assert none == [t for t in (r.t for r in results) if 30 < t < 30.5 + task.window - m.span - 1e-6]
    assert len(none) >= 3


def test_nothing_is_promised_where_only_a_part_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and limits know all of it or nothing; a person who is silent at rest has no level of the voice."""
    task = get_task("trimodal")

    def signal(name: str, end: float) -> np.ndarray | None:
        silent = name == "voice" and (end <= 30 or end > 50)
        return None if silent else of(task, name, 1.0 if name != "eda" else 5.0, round(2 * end))

    results = play(task, signal, tmp_path, monkeypatch, rest_at={1: 30.0}, modalities=["voice", "eda"])
    assert all(r.rest is not None for r in results)
    some = [r for r in results if 40 < r.t < 50]
    assert {tuple(r.rest["calibrated"]) for r in some if r.rest} == {("eda",)}
    assert all(r.quality["voice"].ok and r.uncertainty is None for r in some)
    assert all(r.uncertainty is not None for r in results if r.t > 52)  # EDA alone, as it was trained and measured
