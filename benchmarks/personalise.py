"""What personalising a bundle gains on simulated people, of whom some need it.

    python -m benchmarks.personalise predict OUT.npz [--tune]     # the pain demo's outputs; 20 min of a core
    python -m benchmarks.personalise report IN.npz OUT.json

Three kinds of people, who were used for nothing before: usual ones, non-responders (their skin hardly reacts) and stoic
ones (their face hardly does). Each is rated 40 times, half of them in pain; one rating in 20 is on the wrong side. The
first half of the ratings, by time, is fitted to, and the other half judges, as `jmt-edge personalise` does. `--tune`
simulates nine other people, on whom the priors were chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from jmt_edge.capture.simulated import person as simulated
from jmt_edge.capture.simulated.randomness import Key
from jmt_edge.clips.plan import HOP
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.engine.personal import Personal
from jmt_edge.errors import DataError
from jmt_edge.metrics import bootstrap, interval95
from jmt_edge.recording.personalise import fit, judge
from jmt_edge.recording.ratings import Rated, split
from jmt_edge.training.clips import default_cache
from jmt_edge.training.limits import predict_subsets
from jmt_edge.training.streams import FIRST_SEED, simulated_cohort

from .common import ROOT, stamp, write

BUNDLE = ROOT / "jmt_edge" / "engine" / "bundles" / "pain-demo.jmt"
KINDS = ("usual", "non-responder", "stoic")
NAMES, WINDOW = ("face", "eda"), 5.5
SLIPS = 0.05
RATINGS = 40
PEOPLE, SEED = 24, 311
TUNE_PEOPLE, TUNE_SEED = 9, 312
STOIC = 0.05  # share of strong pain that shows in a stoic face; at least 0.75 in the others


def kind_of(number: int) -> str:
    """Of the person with that number in a cohort."""
    return KINDS[number % len(KINDS)]


def predict(people: int, seed: int) -> dict[str, np.ndarray]:
    """The logits of the pain demo from both modalities and from each alone, with time, label and person: each (N,)."""
    bundle = load_bundle(BUNDLE)
    whole = simulated_cohort(bundle.task, subjects=people, windows=RATINGS, seed=seed)
    numbers = {f"sim{FIRST_SEED + 1000 * seed + i}": i for i in range(people)}
    trials = []
    for trial in whole.trials:
        spec = f"sim:seed={trial.subject.removeprefix('sim')}"
        spec += "&responder=0" if kind_of(numbers[trial.subject]) == "non-responder" else ""
        # windows on the grid of a live run would be cut after a live run up to there
        ends = tuple(e for e in trial.ends if abs(e / HOP - round(e / HOP)) > 1e-6)
        trials.append(replace(trial, files={m: Path(spec) for m in bundle.task.names}, ends=ends))
    stoic = {FIRST_SEED + 1000 * seed + i for i in range(people) if kind_of(i) == "stoic"}
    drawn = simulated.draw_traits

    def traits(key: Key, responder: bool) -> simulated.Traits:
        found = drawn(key, responder)
        return replace(found, expressiveness=STOIC) if key[1] in stoic else found

    simulated.draw_traits = traits
    try:
        subset = predict_subsets(bundle, replace(whole, trials=trials), cache=default_cache() / "personalise")
    finally:
        simulated.draw_traits = drawn
    both, face, eda = (subset[frozenset(some)] for some in (("face", "eda"), ("face",), ("eda",)))
    return {
        "logit": both.outputs["pain"][:, -1] / bundle.temperature,
        "face": face.outputs["pain"][:, -1] / bundle.temperature,
        "eda": eda.outputs["pain"][:, -1] / bundle.temperature,
        "pain": both.labels["pain"][:, -1],
        "end": both.end,
        "person": np.array([numbers[name] for name in both.subject]),
        "present": both.present[:, -1],
    }


def rated(found: Mapping[str, np.ndarray], person: int) -> list[Rated]:
    """The ratings of a person, one window each: 5 to 10 in pain and 0 to 2 without, one in 20 on the wrong side."""
    rng = np.random.default_rng([SEED, person])
    rows = np.flatnonzero((found["person"] == person) & (found["present"] > 0).any(1) & ~np.isnan(found["pain"]))
    ratings = []
    for row in rows[np.argsort(found["end"][rows])]:
        pain = (found["pain"][row] == 1) != (rng.random() < SLIPS)
        rating = int(rng.integers(5, 11) if pain else rng.integers(0, 3))
        both = (found["present"][row] > 0).all()
        without = (found["eda"][row], found["face"][row]) if both else (np.nan, np.nan)  # without the face, without EDA
        end = found["end"][row : row + 1]
        ratings.append(Rated(float(end[0]), rating, end, found["logit"][row : row + 1], np.array([without], float)))
    return ratings


def refit_all(found: Mapping[str, np.ndarray], **options: Any) -> list[dict[str, Any]]:
    """One row a person, as the command would print it."""
    rows = []
    for number in np.unique(found["person"]):
        row = {"person": int(number), "kind": kind_of(int(number))}
        try:
            support, test = split(rated(found, number), WINDOW)
        except DataError as error:
            rows.append({**row, "refused": str(error)})
            continue
        new = fit(support, NAMES, **options)
        rows.append({
            **row, "support": len(support), "test": len(test), "parameters": new.to_manifest(),
            **asdict(judge(test, NAMES, new, Personal())),
        })  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each kind: the mean Brier score and share on the wrong side before and after, the mean gain with its interval
    (95 %, by person), and whether anybody was hurt: for how many the gain is below 0, and certainly so.
    """
    found = {}
    for kind in KINDS:
        own = [r for r in rows if r["kind"] == kind and "gain" in r]
        gains = np.array([r["gain"] for r in own])
        low, high = interval95(bootstrap(lambda at, g=gains: float(g[at].mean()), np.arange(len(gains))))
        found[kind] = {
            "people": len(own),
            "brier": [float(np.mean([r["brier"][k] for r in own])) for k in (0, 1)],
            "wrong": [float(np.mean([r["wrong"][k] for r in own])) for k in (0, 1)],
            "gain": float(gains.mean()),
            "interval": [low, high],
            "worse": int((gains < 0).sum()),
            "certainly_worse": sum(r["interval"][1] < 0 for r in own),
            "brier_as_written": float(np.mean([r["brier"][int(r["gain"] > 0)] for r in own])),
        }
        said = found[kind]
        print(
            f"{kind:<14} {len(own):2d} people  Brier {said['brier'][0]:.3f} -> {said['brier'][1]:.3f}  gain "
            f"{said['gain']:+.3f} ({low:+.3f} to {high:+.3f})  wrong {said['wrong'][0]:.0%} -> {said['wrong'][1]:.0%}  "
            f"worse {said['worse']}, certainly {said['certainly_worse']}"
        )
    return found


def main() -> None:
    if sys.argv[1] == "predict":
        tune = "--tune" in sys.argv
        found = predict(*((TUNE_PEOPLE, TUNE_SEED) if tune else (PEOPLE, SEED)))
        np.savez_compressed(sys.argv[2], **found)
        return
    report = stamp(f"python -m benchmarks.personalise report {Path(sys.argv[2]).name} {Path(sys.argv[3]).name}")
    with np.load(sys.argv[2]) as data:
        found = dict(data)
    report |= {"bundle": load_bundle(BUNDLE).id, "ratings_each": RATINGS, "slips": SLIPS, "seed": SEED}
    report["with_what_ifs"] = {"people": (rows := refit_all(found)), "kinds": summary(rows)}
    print("scale and bias alone:")
    report["scale_and_bias"] = {"people": (rows := refit_all(found, what_ifs=False)), "kinds": summary(rows)}
    write(Path(sys.argv[3]), report)


if __name__ == "__main__":
    main()
