"""Predictions of windows, and their scores: pooled, by subject, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import metrics
from ..errors import DataError, short
from .data import Trial, WindowTable

SMOOTH = {"valence": 20, "arousal": 50}  # frames, the published code's lengths
PUBLISHED_STEPS = "_published_every_step"  # of an extra: every step, later ones in view, instead of last steps


@dataclass
class Predictions:
    """Test windows with labels and outputs; the last step is the result.

    outputs: `pain` (W, S) logit of class 1 against 0, `valence`, `arousal` (W, S). attention (W, S, M) or empty. A
    bundle's engine gives the last step alone, S = 1 in both. sequence: seconds between steps, and steps between the
    windows that the released codes score (`published_steps`); (0, 0) where only last steps are known or labelled.
    """

    names: tuple[str, ...]
    subject: NDArray[np.str_]
    trial: NDArray[np.str_]
    end: NDArray[np.float64]
    labels: dict[str, NDArray[np.float32]]
    outputs: dict[str, NDArray[np.float32]]
    present: NDArray[np.float32]
    attention: NDArray[np.float32]
    temperature: float = 1.0
    frames: dict[str, Trial] = field(default_factory=dict)
    sequence: tuple[float, int] = (0.0, 0)

    def probability(self) -> NDArray[np.float64]:
        """(W,) calibrated pain probability of the last step."""
        return 1 / (1 + np.exp(-np.clip(self.outputs["pain"][:, -1].astype(float) / self.temperature, -60, 60)))

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {
            "names": np.array(self.names), "temperature": self.temperature, "subject": self.subject,
            "recording": self.trial, "end": self.end, "present": self.present, "attention": self.attention,
            "sequence": np.array(self.sequence),
        }  # fmt: skip
        arrays |= {f"label_{o}": y for o, y in self.labels.items()}
        arrays |= {f"output_{o}": y for o, y in self.outputs.items()}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Inverse of `save`. Raises DataError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as data:
                groups = {
                    kind: {k.removeprefix(f"{kind}_"): data[k] for k in data.files if k.startswith(f"{kind}_")}
                    for kind in ("label", "output")
                }
                return cls(
                    tuple(data["names"].tolist()), data["subject"], data["recording"], data["end"], groups["label"],
                    groups["output"], data["present"], data["attention"], float(data["temperature"]),
                    sequence=(float(data["sequence"][0]), int(data["sequence"][1])),
                )  # fmt: skip
        except Exception as error:  # zipfile, zlib and NumPy's headers raise what they meet
            raise DataError(f"{path} has no predictions ({short(error)}); run the evaluation again") from None

    def fill(self, parts: Mapping[str, list[NDArray[np.float32]]]) -> None:
        """Take the batches of outputs, of `present` and of `attention`."""
        for name, batches in parts.items():
            values = np.concatenate(batches)
            if name in ("present", "attention"):
                setattr(self, name, values)
            else:
                self.outputs[name] = values

    def scaled(self, o: str) -> NDArray[np.float32]:
        """An output for combination with other systems' or folds': pain logits divided by their own temperature."""
        return self.outputs[o] / np.float32(self.temperature) if o == "pain" else self.outputs[o]

    def take(self, index: NDArray[np.int64]) -> Predictions:
        """The windows at `index`."""
        columns = {k: getattr(self, k)[index] for k in ("subject", "trial", "end", "present", "attention")}
        return replace(
            self, **columns, labels={o: y[index] for o, y in self.labels.items()},
            outputs={o: y[index] for o, y in self.outputs.items()},
        )  # fmt: skip

    @classmethod
    def mean(cls, parts: list[Predictions]) -> Predictions:
        """The mean output of several systems on the same windows (of pain, the mean calibrated logit).

        Raises ValueError where their windows differ.
        """
        orders = [np.lexsort((p.end, p.trial)) for p in parts]
        first, at = parts[0], orders[0]
        for p, order in zip(parts, orders):
            if len(order) != len(at) or (p.trial[order] != first.trial[at]).any():
                raise ValueError("the systems were scored on different windows")

        outputs = {o: np.mean([p.scaled(o)[k] for p, k in zip(parts, orders)], axis=0) for o in first.outputs}
        return replace(
            first, subject=first.subject[at], trial=first.trial[at], end=first.end[at],
            labels={o: y[at] for o, y in first.labels.items()}, outputs=outputs,
            present=first.present[at], attention=np.empty(0, np.float32), temperature=1.0,
        )  # fmt: skip

    @classmethod
    def join(cls, parts: list[Predictions]) -> Predictions:
        """Several folds as one set, each scaled by its own temperature; a single fold is returned unchanged."""
        first = parts[0]
        if len(parts) == 1:
            return first
        columns: dict[str, Any] = {
            key: np.concatenate([getattr(p, key) for p in parts])
            for key in ("subject", "trial", "end", "present", "attention")
        }
        labels = {o: np.concatenate([p.labels[o] for p in parts]) for o in first.labels}
        outputs = {o: np.concatenate([p.scaled(o) for p in parts]) for o in first.outputs}
        frames = {k: v for p in parts for k, v in p.frames.items()}
        return cls(first.names, labels=labels, outputs=outputs, frames=frames, sequence=first.sequence, **columns)


def empty_predictions(windows: WindowTable, names: tuple[str, ...]) -> Predictions:
    """The labels of `windows`, without outputs (`Predictions.fill`)."""
    return Predictions(
        names,
        windows.subject,
        np.array([windows.trials[i].id for i in windows.trial], dtype=str),
        windows.end,
        windows.labels,
        {},
        np.empty(0, np.float32),
        np.empty(0, np.float32),
        frames={r.id: r for i in np.unique(windows.trial) if (r := windows.trials[i]).kind == "affwild2"},
    )


def published_steps(p: Predictions) -> Predictions:
    """Every step as a window of its own, as the released codes score: with up to S - 1 later steps in view.

    The windows follow each other by `p.sequence[1]` steps, from the first that is full on; each trial's last is added.
    JMT's do not overlap (S = 16), RJCMA's do (K = 300 every 200), and a step in several of them has their mean.
    """
    stride, apart = p.sequence
    steps = p.present.shape[1]
    seen = np.asarray(p.present.any(-1))
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    first: dict[str, float] = {}
    for name in dict.fromkeys(p.trial.tolist()):
        at = np.flatnonzero(p.trial == name)
        at = at[np.argsort(p.end[at])]
        first[name] = float(p.end[at[0]])
        number = (p.end[at] - first[name]) / stride  # of the step that a window ends with
        whole = np.abs(number - np.rint(number)) < 1e-3  # windows may be closer than steps
        at, number = at[whole], np.rint(number[whole]).astype(int)
        wanted = np.searchsorted(number, np.arange(steps - 1, number[-1] + 1, apart))  # or the next, if it is missing
        for i in np.union1d(wanted, len(at) - 1):
            for s in np.flatnonzero(seen[at[i]]):
                found.setdefault((name, int(number[i]) - (steps - 1 - int(s))), []).append((int(at[i]), int(s)))
    w, s = np.array([places[0] for places in found.values()], int).T
    means = {
        o: np.array([np.mean([y[place] for place in places]) for places in found.values()], np.float32)[:, None]
        for o, y in p.outputs.items()
    }
    return replace(
        p, subject=p.subject[w], trial=p.trial[w], outputs=means, present=p.present[w, s][:, None],
        end=np.array([first[name] + number * stride for name, number in found]), sequence=(0.0, 0),
        labels={o: y[w, s][:, None] for o, y in p.labels.items()}, attention=np.empty(0, np.float32),
    )  # fmt: skip


@dataclass
class Scores:
    """`pooled[metric]`; `interval[metric]` (low, high) where there is one; `subjects[metric]` {subject: value}."""

    windows: int
    pooled: dict[str, float]
    interval: dict[str, tuple[float, float]]
    subjects: dict[str, dict[str, float]]
    extras: dict[str, float] = field(default_factory=dict)

    def mean_sd(self, metric: str) -> tuple[float, float]:
        values = np.array(list(self.subjects.get(metric, {}).values()))
        return (float(values.mean()), float(values.std())) if values.size else (float("nan"), float("nan"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "windows": self.windows,
            "pooled": _plain(self.pooled),
            "interval95": {k: [_number(v) for v in pair] for k, pair in self.interval.items()},
            "subject_mean_sd": {k: [_number(v) for v in self.mean_sd(k)] for k in self.subjects},
            "subjects": {k: _plain(v) for k, v in self.subjects.items()},
            "extras": _plain(self.extras),
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def _plain(table: dict[str, float]) -> dict[str, float | None]:
    return {k: _number(v) for k, v in table.items()}


@dataclass
class Judged:
    """A metric with its input: (n,) predictions, labels and subjects."""

    name: str
    metric: Callable[[ArrayLike, ArrayLike], float]
    prediction: NDArray[np.float64]
    label: NDArray[np.float64]
    subject: NDArray[np.str_]


def judged(p: Predictions, pain: str = "accuracy") -> list[Judged]:
    """A metric of pain, and the CCC of valence and of arousal. Video frames are smoothed causally, as in live."""
    found = []
    if "pain" in p.labels:
        metric, y = metrics.PAIN_METRICS[pain], p.labels["pain"][:, -1].astype(float)
        found.append(Judged(pain, metric, p.probability(), y, p.subject))
    for o in ("valence", "arousal"):
        if o in p.labels:
            x, truth, who = _frames(p, o)
            if p.frames:
                x = _smooth(x, _groups(p), SMOOTH[o], metrics.smooth_causal)
            found.append(Judged(f"ccc_{o}", metrics.ccc, x, truth, who))
    return found


def score(p: Predictions, *, draws: int = 1000, published: bool = False) -> Scores:
    """All scores of the labelled outputs: of last steps, which no later sample can change.

    Extras, where the windows are sequences of affect: every step with later ones in view, as the papers score.
    published: also unlabelled frames as the published code handles them.
    """
    pooled: dict[str, float] = {}
    interval: dict[str, tuple[float, float]] = {}
    subjects: dict[str, dict[str, float]] = {}
    extras: dict[str, float] = {}
    if "pain" in p.labels:
        y, probability = p.labels["pain"][:, -1], p.probability()
        for name, metric in metrics.PAIN_METRICS.items():
            pooled[name] = metric(probability, y)
            if name in ("accuracy", "balanced_accuracy", "auc"):
                interval[name] = metrics.bootstrap_interval(metric, probability, y, p.subject, draws=draws)
                subjects[name] = metrics.by_subject(metric, probability, y, p.subject)
    for part in judged(p):
        if part.name == "accuracy":
            continue
        name, x, truth = part.name, part.prediction, part.label
        if p.frames:
            o = name.removeprefix("ccc_")
            raw, groups = _frames(p, o)[0], _groups(p)
            extras[f"{name}_not_smoothed"] = metrics.ccc(raw, truth)
            extras[f"{name}_centred_smoothing"] = metrics.ccc(
                _smooth(raw, groups, SMOOTH[o], metrics.smooth_centred), truth
            )
            if published:
                # the released code scores unlabelled frames as label = prediction = 0
                labels = np.concatenate([p.frames[r].labels.values[o] for r in dict.fromkeys(p.trial.tolist())])
                absent = np.isnan(labels)
                extras[f"{name}_published_unlabelled_as_0"] = metrics.ccc(
                    np.where(absent, 0, x), np.where(absent, 0, labels)
                )
        pooled[name] = metrics.ccc(x, truth)
        interval[name] = metrics.bootstrap_interval(
            metrics.ccc, x, truth, part.subject, draws=min(draws, 300) if len(x) > 20_000 else draws
        )
        subjects[name] = metrics.by_subject(metrics.ccc, x, truth, part.subject)
    if "ccc_valence" in pooled and "ccc_arousal" in pooled:
        pooled["ccc_mean"] = (pooled["ccc_valence"] + pooled["ccc_arousal"]) / 2
    if p.sequence[1] and len(p.end):
        every = [part for part in judged(published_steps(p)) if part.name != "accuracy"]
        found = {part.name: metrics.ccc(part.prediction, part.label) for part in every}
        found["ccc_mean"] = float(np.mean(list(found.values())))
        extras |= {f"{name}{PUBLISHED_STEPS}": value for name, value in found.items()}
    known = {name: pair for name, pair in interval.items() if not np.isnan(pair).any()}
    return Scores(len(p.end), pooled, known, subjects, extras)


def validation_loss(p: Predictions) -> float:
    """The trainer's loss on all labelled steps: cross-entropy of pain plus the mean 1 - CCC of affect.

    NaN for a network that diverged.
    """
    if not all(np.isfinite(y).all() for y in p.outputs.values()):
        return float("nan")
    affect = [1 - metrics.ccc(p.outputs[o], y) for o, y in p.labels.items() if o != "pain" and (~np.isnan(y)).sum() > 1]
    total = float(np.mean(affect)) if affect else 0.0
    if "pain" in p.labels:
        keep = ~np.isnan(p.labels["pain"])
        z, y = p.outputs["pain"][keep].astype(float), p.labels["pain"][keep]
        total += float(np.mean(np.logaddexp(0, z) - y * z)) if z.size else 0.0
    return total


def _groups(p: Predictions) -> list[int]:
    """Number of frames of each trial, in the order of `_frames`."""
    return [len(p.frames[r].labels.times) for r in dict.fromkeys(p.trial.tolist())]


def _smooth(x: NDArray[np.float64], groups: list[int], frames: int, rule: Any) -> NDArray[np.float64]:
    return np.concatenate([rule(part, frames) for part in np.split(x, np.cumsum(groups)[:-1])])


def _frames(p: Predictions, output: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    """Prediction, label and subject of each moment that is scored: the windows, or for videos every frame, which takes
    the latest result at or before it, as a live display does. Frames before the first result count as unlabelled.
    """
    if not p.frames:
        return p.outputs[output][:, -1].astype(float), p.labels[output][:, -1].astype(float), p.subject
    x, y, who = [], [], []
    for name in dict.fromkeys(p.trial.tolist()):
        at = np.flatnonzero(p.trial == name)
        order = at[np.argsort(p.end[at])]
        trial = p.frames[name]
        latest = np.searchsorted(p.end[order], trial.labels.times + 1e-6, side="right") - 1
        x.append(p.outputs[output][order, -1][np.maximum(latest, 0)].astype(float))
        y.append(np.where(latest < 0, np.nan, trial.labels.values[output]))
        who.append(np.full(len(latest), trial.subject))
    return np.concatenate(x), np.concatenate(y), np.concatenate(who)


def fit_temperature(logit: NDArray[Any], label: NDArray[Any]) -> float:
    """The T that minimises the cross-entropy of sigmoid(logit / T) (Guo et al. 2017), by golden section on log T."""
    x, y = np.asarray(logit, float).ravel(), np.asarray(label, float).ravel()
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    if len(np.unique(y)) < 2 or not np.isfinite(x).all():
        return 1.0

    def loss(log_t: float) -> float:
        z = x / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - y * z))

    low, high, ratio = -3.0, 3.0, (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))
