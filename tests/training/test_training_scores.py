"""What is scored: last steps, which no later sample can change; and, as an extra, every step as the papers score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jmt_edge import metrics
from jmt_edge.training.clips import ClipStore
from jmt_edge.training.comparison import compare
from jmt_edge.training.data import Cohort, Labels, Problems, Trial, cut_windows
from jmt_edge.training.experiment import Prepared, predict
from jmt_edge.training.matching import facts_of
from jmt_edge.training.networks import fusion_of
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.scores import Predictions, judged, published_steps, score
from jmt_edge.training.search import Protocol

STRIDE = 1.0666666666666667
FRAMES = 32  # per step
Features = dict[str, NDArray[np.float32]]


def prepared_of(fusion: str, *, steps: int = 4, hop: float = 0.0, clips: int = 19, kind: str = "affwild2") -> Prepared:
    """Two videos of `clips` steps, 32 labelled frames in each."""
    recipe = replace(load_recipe("affwild2-jmt", variant="demo"), fusion=fusion, steps=steps, hop=hop)
    task = recipe.resolve()
    rng = np.random.default_rng(5)
    trials = []
    for i in range(2):
        times = np.arange(1, FRAMES * clips + 1) * STRIDE / FRAMES
        values = {o: np.cumsum(rng.normal(0, 0.1, len(times))) for o in task.outputs}
        files = {m: Path(f"{i}") for m in task.names}
        trials.append(Trial(f"v{i}", f"p{i}", files, STRIDE * clips, Labels(times, values), kind=kind))
    cohort = Cohort("affwild2", Path("x"), trials, Problems())
    windows = cut_windows(cohort, task)
    stores = {}
    for m in task.modalities:
        n = len(windows.clips[m.name])
        stores[m.name] = ClipStore(
            m, "", np.zeros((n, 1)), np.ones(n, bool), np.zeros(n, np.int32), np.zeros(n, bool), ""
        )
    return Prepared(cohort, recipe, task, windows, stores, facts_of(cohort), cohort)


def features_of(prepared: Prepared, later_than: float = np.inf) -> Features:
    """Random features (1, N, d); those of clips that end after `later_than` are others."""
    found = {}
    for number, (m, clips) in enumerate(prepared.windows.clips.items()):
        ends = np.array([end for _, end in clips])
        first, other = (np.random.default_rng([number, k]).normal(size=(len(clips), 64)) for k in range(2))
        found[m] = np.where((ends > later_than + 1e-6)[:, None], other, first).astype(np.float32)[None]
    return found


def run(prepared: Prepared, features: Features | None = None) -> Predictions:
    """What the recipe's fusion, with the same random weights each time, predicts."""
    torch.manual_seed(0)
    fusion = fusion_of(prepared.recipe, prepared.task, 0.0).eval()
    return predict(prepared, fusion, features or features_of(prepared), prepared.windows, {})


@pytest.mark.parametrize("fusion", ["jmt", "vanilla", "concat", "jca", "rjca", "rjcma"])
@pytest.mark.parametrize("hop", [0.0, 2 * STRIDE])
def test_the_future_changes_no_score_of_the_past(fusion: str, hop: float) -> None:
    prepared = prepared_of(fusion, hop=hop)
    now = 10 * STRIDE
    runs = [run(prepared, features_of(prepared, t)) for t in (np.inf, now)]
    past = np.concatenate([t.labels.times <= now + 1e-6 for t in prepared.cohort.trials])

    def until(p: Predictions) -> list[NDArray[np.float64]]:
        return [part.prediction[past] for part in judged(p)]

    for before, after in zip(*map(until, runs)):
        np.testing.assert_allclose(before, after, atol=1e-5)
        assert before.std() > 0
    beyond = [part.prediction[~past] for run in runs for part in judged(run)]
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(beyond[:2], beyond[2:]))
    # what was published is another matter: a step's answer knows the later steps of its window
    every = [[part.prediction[past] for part in judged(published_steps(run))] for run in runs]
    changed = any(np.abs(a - b).max() > 1e-3 for a, b in zip(*every))
    assert changed == (fusion != "concat")


def test_the_score_of_a_recording_is_that_of_the_same_recording_cut_short() -> None:
    long, short = prepared_of("rjca", clips=19), prepared_of("rjca", clips=10)
    whole = run(long)
    features = features_of(long)
    cut = {
        m: features[m][:, [long.windows.clips[m].index(clip) for clip in short.windows.clips[m]]]
        for m in short.task.names
    }
    part = run(short, cut)
    short_times = short.cohort.trials[0].labels.times
    for a, b in zip(judged(whole), judged(part)):
        inside = np.concatenate([t.labels.times <= short_times[-1] + 1e-6 for t in long.cohort.trials])
        np.testing.assert_allclose(a.prediction[inside], b.prediction, atol=1e-5)


def test_all_fusions_are_scored_at_the_same_moments() -> None:
    moments = set()
    for fusion in ("jmt", "concat", "jca", "rjcma"):
        for hop in (0.0, 3 * STRIDE):
            prepared = prepared_of(fusion, hop=hop)
            p = run(prepared)
            moments.add((tuple(p.trial), tuple(p.end.round(6)), tuple(np.isfinite(judged(p)[0].label))))
    assert len(moments) == 1


def test_windows_of_a_longer_hop_are_those_that_the_hop_would_cut() -> None:
    prepared = prepared_of("rjcma", hop=3 * STRIDE)
    chosen = prepared.fusion_windows
    direct = cut_windows(prepared.cohort, prepared.task, hop=3 * STRIDE)
    np.testing.assert_allclose(chosen.end, direct.end, atol=1e-6)
    np.testing.assert_array_equal(chosen.trial, direct.trial)
    for m in prepared.task.names:
        mine = [[chosen.clips[m][i] if i >= 0 else None for i in row] for row in chosen.rows[m]]
        assert mine == [[direct.clips[m][i] if i >= 0 else None for i in row] for row in direct.rows[m]]
    assert prepared_of("jmt").fusion_windows is not None and len(prepared_of("jmt").fusion_windows) == 2 * 19


def test_frames_before_the_first_result_are_not_scored() -> None:
    prepared = prepared_of("concat")
    p = run(prepared)
    label = judged(p)[0].label
    assert np.isnan(label[: FRAMES - 1]).all() and np.isfinite(label[FRAMES - 1 : FRAMES * 19]).all()


def by_hand(outputs: NDArray[np.float32], steps: int, apart: int) -> list[float]:
    """The published answer for each step of one video: outputs (windows, steps), one window for each step."""
    clips = len(outputs)
    windows = sorted({*range(steps - 1, clips, apart), clips - 1})
    answers: list[list[np.float32]] = [[] for _ in range(clips)]
    for w in windows:
        for place in range(steps):
            if (step := w - (steps - 1) + place) >= 0:
                answers[step].append(outputs[w, place])
    return [float(np.mean(a)) for a in answers if a]


@pytest.mark.parametrize(("clips", "steps", "hop"), [(19, 4, 0), (19, 4, 3), (4, 4, 0), (3, 4, 0), (11, 5, 2)])
def test_published_steps_by_hand(clips: int, steps: int, hop: int) -> None:
    prepared = prepared_of("jca", steps=steps, hop=hop * STRIDE, clips=clips, kind="trial")
    p = run(prepared)
    assert p.sequence == (STRIDE, hop or steps)
    found = published_steps(p)
    for video in ("v0", "v1"):
        rows = np.flatnonzero(p.trial == video)
        expected = by_hand(p.outputs["valence"][rows], steps, hop or steps)
        mine = found.trial == video
        order = np.argsort(found.end[mine])
        np.testing.assert_allclose(found.outputs["valence"][mine][order, 0], expected, atol=1e-6)
    q = score(p)
    x, y = found.outputs["arousal"][:, 0], found.labels["arousal"][:, 0]
    assert q.extras["ccc_arousal_published_every_step"] == pytest.approx(metrics.ccc(x, y), abs=1e-6)
    assert q.pooled["ccc_arousal"] != pytest.approx(q.extras["ccc_arousal_published_every_step"], abs=1e-6)


def test_predictions_keep_what_the_published_way_needs(tmp_path: Path) -> None:
    prepared = prepared_of("jca", kind="trial")
    p = run(prepared)
    p.save(tmp_path / "p.npz")
    for other in (Predictions.load(tmp_path / "p.npz"), Predictions.join([p]), Predictions.mean([p, p])):
        assert score(other, draws=10).extras == pytest.approx(score(p, draws=10).extras)
    halves = [replace(p, **{k: getattr(p, k)[at] for k in ("subject", "trial", "end", "present")},
                      labels={o: y[at] for o, y in p.labels.items()},
                      outputs={o: y[at] for o, y in p.outputs.items()})
              for at in (np.flatnonzero(p.trial == "v0"), np.flatnonzero(p.trial == "v1"))]  # fmt: skip
    assert score(Predictions.join(halves), draws=10).extras == pytest.approx(score(p, draws=10).extras)


def test_a_comparison_has_the_published_way_as_its_last_column_and_ranks_without_it(tmp_path: Path) -> None:
    found = []
    for fusion in ("jmt", "jca", "concat"):
        prepared = prepared_of(fusion, kind="trial")
        p = run(prepared)
        found.append(Protocol(replace(prepared.recipe, name=fusion), [], p, score(p, draws=10), []))
    # an engine's answers have last steps alone
    alone = replace(found[2].predictions, sequence=(0.0, 0))
    found[2] = replace(found[2], predictions=alone, scores=score(alone, draws=10))
    table = compare(found, tmp_path)
    assert table[0].rstrip(" |").endswith("(as published)")
    rows = json.loads((tmp_path / "comparison.json").read_text())["ranking"]
    assert [r["ccc_mean"] for r in rows] == sorted((r["ccc_mean"] for r in rows), reverse=True)
    by_name = {r["recipe"]: r["published_every_step"] for r in rows}
    assert by_name["concat"] is None
    for p in found[:2]:
        assert by_name[p.recipe.name] == pytest.approx(p.scores.extras["ccc_mean_published_every_step"], abs=1e-4)
