"""How much converted networks differ from float32: per network, and end to end in the task's scores.

Both sides run in onnxruntime on the same windows, so the comparison is of the graph's arithmetic (FP16 rounding, INT8
Q/DQ), not of preprocessing. onnxruntime's CPU kernels compute some FP16 nodes in FP32 between roundings; a device's
sums can differ further, which only the device can show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips.window_set import WindowSet
from ..engine.bundle import Bundle
from ..engine.session import session
from ..metrics import accuracy, auc, bootstrap, ccc, interval95
from ..tasks import Task

LIMITS = {"fp16": {"ccc": 0.002, "accuracy": 0.002}, "int8": {"ccc": 0.01, "accuracy": 0.005}}
Array = NDArray[np.float64]
# {modality: (1, S, d)}, present (1, S, M) -> {output: (1, S or 1, ...)}, as `Engine.fusion`
FusionCall = Callable[[Mapping[str, NDArray[np.float32]], NDArray[np.bool_]], Mapping[str, NDArray[Any]]]
Run = tuple[dict[str, NDArray[np.float32]], dict[str, Array]]  # what `run_networks` returns


@dataclass(frozen=True)
class NetworkFidelity:
    """Features (or raw fusion outputs) against float32: mean and worst cosine, relative L2 error."""

    network: str
    cosine_mean: float
    cosine_min: float
    relative_error: float


@dataclass(frozen=True)
class ScoreChange:
    """A score on float32, on the converted networks, the change, and its 95 % bootstrap interval by subject."""

    output: str
    score: str
    reference: float
    converted: float
    change: float
    low: float
    high: float
    limit: float | None

    @property
    def holds(self) -> bool:
        return self.limit is None or not abs(self.change) > self.limit


@dataclass(frozen=True)
class Fidelity:
    """The whole comparison. `holds` is False as soon as one limited score changed by more than its limit."""

    precision: str
    windows: int
    origin: str
    networks: tuple[NetworkFidelity, ...]
    scores: tuple[ScoreChange, ...]
    outputs: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict, repr=False)

    @property
    def holds(self) -> bool:
        return all(score.holds for score in self.scores)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def run_backbones(
    task: Task,
    models: Mapping[str, bytes],
    windows: WindowSet,
    known: Mapping[str, NDArray[np.float32]] | None = None,
    on_clip: Callable[[str, float], None] = lambda name, fraction: None,
) -> dict[str, NDArray[np.float32]]:
    """Features (N, S or 1, d) per modality. A clip shared by several windows is run once; absent ones stay zero.

    The backbones in `known` are not run again. `on_clip(modality, fraction)` reports progress.
    """
    ready = dict(known or {})
    for m in task.modalities:
        if m.name in ready:
            continue
        run = session(models[m.name])
        clips = windows.clips[m.name]
        there = windows.present_mask(task, m.name)
        features = np.zeros((*clips.rows.shape, task.dim), np.float32)
        rows = clips.distinct(there)
        of_row = np.zeros((len(rows), task.dim), np.float32)
        for i, row in enumerate(rows):
            on_clip(m.name, i / len(rows))
            of_row[i] = run.run(["features"], {"clip": clips.stored[row][None]})[0][0]
        held = there & (clips.rows >= 0)
        features[held] = of_row[np.searchsorted(rows, clips.rows[held])]
        ready[m.name] = features
    return ready


def fusion_feeds(
    task: Task, features: Mapping[str, NDArray[np.float32]], windows: WindowSet
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The fusion network's inputs, window by window: each modality (1, S, d) and `present` (1, S, M)."""
    for i in range(len(windows)):
        feeds = {
            m.name: np.broadcast_to(features[m.name][i : i + 1], (1, task.steps, task.dim)).astype(np.float32)
            for m in task.modalities
        }
        yield feeds | {"present": windows.present[i : i + 1].astype(np.float32)}


def outputs_of(
    task: Task, fusion: FusionCall, features: Mapping[str, NDArray[np.float32]], windows: WindowSet
) -> dict[str, Array]:
    """Raw outputs of the last step from any implementation of the fusion: pain logits (N, 2), else (N,)."""
    results: dict[str, list[Array]] = {name: [] for name in task.outputs}
    for feeds in fusion_feeds(task, features, windows):
        present = feeds.pop("present") > 0
        for name, value in fusion(feeds, present).items():
            if name in results:
                results[name].append(np.asarray(value, np.float64)[0, -1])
    return {name: np.stack(values) for name, values in results.items()}


def run_networks(
    task: Task,
    models: Mapping[str, bytes],
    windows: WindowSet,
    known: Mapping[str, NDArray[np.float32]] | None = None,
    on_clip: Callable[[str, float], None] = lambda name, fraction: None,
) -> Run:
    """`run_backbones`, and the raw fusion outputs of the last step: pain logits (N, 2), else (N,)."""
    features = run_backbones(task, models, windows, known, on_clip)
    return features, outputs_of(task, _opened(task, models["fusion"]), features, windows)


def _opened(task: Task, model: bytes) -> FusionCall:
    run, names = session(model), [*task.outputs]
    return lambda features, present: dict(
        zip(names, run.run(names, {**features, "present": present.astype(np.float32)}))
    )


def decide(task: Task, raw: Mapping[str, Array], temperature: float = 1.0) -> dict[str, Array]:
    """Pain probability (N,) from logits, valence and arousal clipped to [-1, 1], as `live` shows them."""
    out = {}
    for name in task.outputs:
        if name == "pain":
            margin = (raw[name][:, 1] - raw[name][:, 0]) / temperature
            out[name] = 1 / (1 + np.exp(-margin))
        else:
            out[name] = np.clip(raw[name].reshape(len(raw[name])), -1, 1)
    return out


class Comparison:
    """Compares converted networks with the float32 ones of a bundle on the same windows; each graph runs once.

    Scores need labels; without them, the concordance between the two sides is reported instead, under its own name. On
    noise it is reported without a limit: the outputs of random weights on noise vary less than the rounding of any
    precision.
    """

    def __init__(
        self, bundle: Bundle, windows: WindowSet, exact: Mapping[str, bytes],
        on_step: Callable[[str, float], None] = lambda what, fraction: None,
    ) -> None:  # fmt: skip
        """`exact`: the float32 graphs. on_step: called with a step's name and the fraction done."""
        windows.check(bundle.task)
        self._task, self._windows, self._on_step = bundle.task, windows, on_step
        self._temperature = bundle.temperature
        self._features: dict[tuple[str, str], NDArray[np.float32]] = {}  # by network and graph
        self._known: dict[tuple[Any, ...], Fidelity] = {}
        self._exact = self._run(exact, _digests(exact), "float32 reference")

    def __call__(
        self, models: Mapping[str, bytes], precision: str, what: str = "", fusion: FusionCall | None = None
    ) -> Fidelity:
        """Of `models`, held to the limits of `precision`. `fusion`, if given, replaces the fusion's graph; what: the
        step's name."""
        digests = _digests(models)
        at = (*digests.items(), precision, fusion is not None)
        if at not in self._known:
            self._known[at] = self._compare(models, self._run(models, digests, what), precision, fusion)
        return self._known[at]

    def _run(self, models: Mapping[str, bytes], digests: Mapping[str, str], what: str) -> Run:
        ready = {n: self._features[n, d] for n, d in digests.items() if (n, d) in self._features}
        run = run_networks(
            self._task, models, self._windows, ready, lambda name, done: self._on_step(f"{name}: {what}", done)
        )
        self._features.update(((name, digests[name]), values) for name, values in run[0].items())
        return run

    def _compare(self, models: Mapping[str, bytes], run: Run, precision: str, fusion: FusionCall | None) -> Fidelity:
        task, windows, (exact_features, exact_raw), (features, raw) = self._task, self._windows, self._exact, run
        if fusion is not None:
            raw = outputs_of(task, fusion, features, windows)
        there = {m.name: windows.present_mask(task, m.name) for m in task.modalities}
        networks = [
            _network(name, exact_features[name][here], features[name][here])
            for name, here in there.items()
            if here.any()
        ]
        alone = outputs_of(task, fusion or _opened(task, models["fusion"]), exact_features, windows)
        flat = [
            np.concatenate([side[o].reshape(len(windows), -1) for o in task.outputs], 1)
            for side in (exact_raw, alone, raw)
        ]
        networks.append(_network("fusion", flat[0], flat[1]))
        networks.append(_network("fusion (with its backbones)", flat[0], flat[2]))
        exact, approximate = (decide(task, side, self._temperature) for side in (exact_raw, raw))
        limits = {} if windows.noise else LIMITS.get(precision, {})
        scores: list[ScoreChange] = []
        for name in task.outputs:
            label = windows.targets.get(name, np.full(len(windows), np.nan))
            scores += _changes(name, exact[name], approximate[name], label, windows.subjects, limits)
        outputs = {name: (exact[name].tolist(), approximate[name].tolist()) for name in task.outputs}
        return Fidelity(precision, len(windows), windows.origin, tuple(networks), tuple(scores), outputs)


def _digests(models: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(model).hexdigest() for name, model in models.items()}


def _network(name: str, exact: NDArray[Any], other: NDArray[Any]) -> NetworkFidelity:
    a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (exact, other))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1)
    cosine = np.where(norms > 0, cosine, np.all(a == b, axis=1))
    error = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30))
    return NetworkFidelity(name, float(cosine.mean()), float(cosine.min()), error)


def _changes(
    output: str, exact: Array, other: Array, label: Array, subjects: NDArray[np.str_], limits: Mapping[str, float]
) -> list[ScoreChange]:
    labelled = ~np.isnan(label)
    if not labelled.any():
        # 1 - ccc(float32, converted) is not a bound on a score's change, but 0 means equal numbers too
        value = ccc(other, exact)
        return [
            ScoreChange(
                output, "CCC with float32 (no labels)", 1.0, value, value - 1, value - 1, value - 1, limits.get("ccc")
            )
        ]
    kinds: Sequence[tuple[str, Callable[[Array, Array], float], float | None]]
    if output == "pain":
        kinds = (
            ("accuracy", lambda p, y: accuracy(p >= 0.5, y), limits.get("accuracy")),
            ("AUC", auc, None),
        )
    else:
        kinds = (("CCC", ccc, limits.get("ccc")),)
    people = subjects if len(subjects) == len(label) else np.arange(len(label)).astype(str)
    rows = []
    for score, measure, limit in kinds:
        before, after = measure(exact, label), measure(other, label)
        changes = bootstrap(lambda i, m=measure: m(other[i], label[i]) - m(exact[i], label[i]), people)  # type: ignore[misc]
        low, high = interval95(changes)
        rows.append(ScoreChange(output, score, before, after, after - before, low, high, limit))
    return rows
