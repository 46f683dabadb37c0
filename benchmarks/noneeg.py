"""Twenty real people, relaxed against cognitive stress, each left out once: the EDA network beside hand-made features.

    python -m benchmarks.noneeg write noneeg_20subj_eda_8hz.mat DATA      # windows of 30 s in PainMonit's format
    jmt-edge train --recipe painmonit-eda --data DATA --rate 8 --set variant=demo \
        --set 'shapes={"eda":[1,240]}' --set 'spans={"eda":30.0}' --loso --seeds 5 --out RUN
    python -m benchmarks.noneeg report DATA RUN OUT.json
    python -m benchmarks.noneeg baseline DATA FOLDER OUT.json      # of runs FOLDER/NETWORK-none and FOLDER/NETWORK-rest

The recording is the skin conductance of a public data set (20 people, 8 Hz, eight phases each). The report holds the
scores of every seed and of the mean of their predictions, those of logistic regression on the same windows under the
same protocol, and the differences with intervals by person.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE, SECONDS = 8, 30
RELAX, COGNITIVE = (0, 2, 5, 7), 4  # phases of the recording, in order
FEATURES = ("mean", "SD", "slope", "number of responses", "sum of their amplitudes")
RESPONSE = 0.01  # µS, the least prominence of a response


def stress_windows(mat: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(N, 240) µS, labels and subjects: consecutive 30 s windows of the relax and cognitive phases."""
    from scipy.io import loadmat

    x, y, who = [], [], []
    length = RATE * SECONDS
    for number, person in enumerate(loadmat(mat, squeeze_me=True, struct_as_record=False)["s"]):
        signal = np.asarray(person.x, float)
        onsets = [int(v) - 1 for v in person.y] + [len(signal)]  # MATLAB counts from 1
        for phase in (*RELAX, COGNITIVE):
            for start in range(onsets[phase], onsets[phase + 1] - length + 1, length):
                x.append(signal[start : start + length])
                y.append(float(phase == COGNITIVE))
                who.append(number)
    return np.array(x), np.array(y), np.array(who)


def write_painmonit(root: Path, x: NDArray[Any], y: NDArray[Any], subjects: NDArray[Any]) -> Path:
    """PainMonit arrays out of EDA windows (N, L): the other five channels are zero."""
    root.mkdir(parents=True, exist_ok=True)
    whole = np.zeros((*x.shape, 6), np.float32)
    whole[..., 3] = x
    np.save(root / "X.npy", whole)
    np.save(root / "y_heater.npy", y)
    np.save(root / "subjects.npy", subjects)
    return root


def hand_made(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 5): FEATURES of windows (N, L) in µS, the slope in µS/s."""
    from scipy.signal import find_peaks

    t = np.arange(x.shape[1]) / RATE
    t -= t.mean()
    found = [find_peaks(row, prominence=RESPONSE)[1]["prominences"] for row in x]
    columns = [x.mean(1), x.std(1), x @ t / (t @ t), [len(f) for f in found], [f.sum() for f in found]]
    return np.stack(columns, 1).astype(float)


def compressed(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with each feature as sign(v) log(1 + |v| / 0.01): people differ by factors."""
    return np.sign(features) * np.log1p(np.abs(features) / 0.01)


def by_person(features: NDArray[np.float64], who: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same in units of each person's own mean and SD: the mode "calibrated", which needs them beforehand."""
    out = features.copy()
    for person in np.unique(who):
        own = features[who == person]
        out[who == person] = (own - own.mean(0)) / np.maximum(own.std(0), 1e-9)
    return out


def left_out(features: NDArray[np.float64], y: NDArray[np.float64], who: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) logits of logistic regression (scikit-learn's defaults, classes weighed) trained on everybody else."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    logit = np.zeros(len(y))
    for person in np.unique(who):
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        model.fit(features[who != person], y[who != person])
        logit[who == person] = model.decision_function(features[who == person])
    return logit


def report(data: Path, run: Path) -> dict[str, Any]:
    """Scores of the run's seeds and of the hand-made features, and their differences, on the windows of `data`."""
    from dataclasses import replace

    from jmt_edge.training.comparison import paired
    from jmt_edge.training.scores import Predictions, score

    seeds = {}
    for folder in sorted(run.glob("seed[0-9]*"), key=lambda f: int(f.name.removeprefix("seed"))):
        parts = [Predictions.load(f) for f in sorted(folder.glob("loso-*/predictions.npz"))]
        seeds[folder.name] = Predictions.join(parts)
    network = Predictions.mean(list(seeds.values()))
    x, y, who = (np.load(data / f"{name}.npy") for name in ("X", "y_heater", "subjects"))
    row = network.trial.astype(int)  # a recording of PainMonit is a row of X.npy
    if sorted(row) != list(range(len(y))) or (network.labels["pain"][:, -1] != y[row]).any():
        raise SystemExit(f"{run} was not trained on all windows of {data}")
    features = hand_made(x[..., 3].astype(float))
    baselines = {
        "five features": features,
        "five features, compressed": compressed(features),
        "calibrated: five features, compressed, by person": by_person(compressed(features), who),
    }
    systems = {"network, mean of the seeds' predictions": network, **seeds}
    for name, values in baselines.items():
        logit = left_out(values, y, who)[row, None].astype(np.float32)
        systems[name] = replace(network, outputs={"pain": logit})
    references = list(baselines)
    interval, above = paired(systems, "balanced_accuracy", references)
    scores = {name: score(p).to_dict() for name, p in systems.items()}
    each = {m: [scores[s]["pooled"][m] for s in seeds] for m in ("accuracy", "balanced_accuracy", "auc")}
    return {
        "windows": len(y), "people": len(set(who.tolist())),
        "network": {m: {"seeds": v, "mean": round(float(np.mean(v)), 5), "sd": round(float(np.std(v)), 5)}
                    for m, v in each.items()},
        "systems": {
            name: {"pooled": scores[name]["pooled"], "balanced_accuracy_interval95": interval[name],
                   "subject_mean_sd": scores[name]["subject_mean_sd"]["balanced_accuracy"]} for name in systems
        },
        "balanced_accuracy_above": {
            r: {name: [round(v, 4) for v in d] for name, d in above[r].items() if name not in baselines}
            for r in references
        },
    }  # fmt: skip


def calibrated_windows(data: Path, seconds: float) -> tuple[tuple[Any, NDArray[np.float64]], NDArray[np.float64]]:
    """((scored windows, EDA (W, L) µS with each person's baseline), the same as measured)."""
    from jmt_edge.training.baseline import calibrate, uncalibrated
    from jmt_edge.training.clips import build_clips, default_cache
    from jmt_edge.training.data import cut_windows
    from jmt_edge.training.readers import default_task, open_cohort

    cohort = open_cohort(data, rate=RATE)
    windows = cut_windows(cohort, default_task(cohort))
    stores = build_clips(windows, default_cache(), cohort.problems)
    seen = np.flatnonzero(stores["eda"].present[windows.rows["eda"][:, -1]])
    found = calibrate(windows.take(seen), stores, seconds)
    both = [w.rows["eda"][:, -1] for w in (found.windows, uncalibrated(found.windows, found.shift))]
    own, raw = (np.asarray(found.stores["eda"].data[rows][:, 0], float) for rows in both)
    return (found.windows, own), raw


def baseline_report(data: Path, folder: Path) -> dict[str, Any]:
    """Networks with and without baselines on the same windows, and five features with and without, with intervals."""
    from dataclasses import replace

    from jmt_edge.training.comparison import paired
    from jmt_edge.training.scores import Predictions, score

    def mean_of(run: Path, file: str) -> Predictions:
        """The mean of the seeds' predictions, in the order of the rows of X.npy."""
        seeds = sorted(run.glob("seed[0-9]"))
        parts = [Predictions.join([Predictions.load(f) for f in sorted(s.glob(f"loso-*/{file}"))]) for s in seeds]
        mean = Predictions.mean(parts)
        mean = replace(mean, attention=mean.present)  # one network has no attention, and `take` wants a row each
        return mean.take(np.argsort(mean.trial.astype(int)))

    systems: dict[str, Predictions] = {}
    networks = sorted({run.name.rpartition("-")[0] for run in folder.glob("*-rest")})
    kept = np.array([], int)
    for network in networks:
        rest = folder / f"{network}-rest"
        systems[f"{network}: calibrated"] = mean_of(rest, "predictions.npz")
        systems[f"{network}: the same weights, uncalibrated"] = mean_of(rest, "predictions-uncalibrated.npz")
        kept = systems[f"{network}: calibrated"].trial.astype(int)
        without = mean_of(folder / f"{network}-none", "predictions.npz")
        same = np.flatnonzero(np.isin(without.trial.astype(int), kept))
        systems[f"{network}: trained without baselines"] = without.take(same)
    (windows, own), raw = calibrated_windows(data, 120.0)
    order = np.argsort(rows := np.array([int(windows.trials[i].id) for i in windows.trial]))
    if (rows[order] != kept).any():
        raise SystemExit(f"the runs in {folder} were not scored on the windows of {data}")
    y, who = np.load(data / "y_heater.npy")[kept], np.load(data / "subjects.npy")[kept]
    template = systems[f"{networks[0]}: calibrated"]
    for name, x in (("calibrated", own[order]), ("uncalibrated", raw[order])):
        logit = left_out(compressed(hand_made(x)), y, who)[:, None].astype(np.float32)
        systems[f"five features, compressed: {name}"] = replace(template, outputs={"pain": logit}, temperature=1.0)
    references = [name for name in systems if not name.endswith(": calibrated")]
    interval, above = paired(systems, "balanced_accuracy", references)
    auc, auc_above = paired(systems, "auc", references)
    return {
        "windows": len(kept), "people": len(set(who.tolist())),
        "support": "each person's first 120 s of usable relaxed windows; neither trained on with baselines nor scored",
        "seeds": "three; the mean of their predictions is scored",
        "systems": {
            name: {"pooled": score(p).to_dict()["pooled"], "balanced_accuracy_interval95": interval[name],
                   "auc_interval95": auc[name]} for name, p in systems.items()
        },
        "calibrated_above": {
            metric: {r: found[r][c] for r in references if (c := f"{r.partition(':')[0]}: calibrated") in found[r]}
            for metric, found in (("balanced_accuracy", above), ("auc", auc_above))
        },
    }  # fmt: skip


def main() -> None:
    match sys.argv[1:]:
        case ["baseline", data, folder, out]:
            found = baseline_report(Path(data), Path(folder))
            Path(out).write_text(json.dumps(found, indent=1) + "\n")
        case ["write", mat, folder]:
            write_painmonit(Path(folder), *stress_windows(Path(mat)))
        case ["report", data, run, out]:
            Path(out).write_text(json.dumps(report(Path(data), Path(run)), indent=1) + "\n")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
