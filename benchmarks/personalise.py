"""What personalising a bundle gains on simulated people, of whom some need it.

    python -m benchmarks.personalise predict OUT.npz SEED    # the pain demo's outputs for 24 people; 6 min of a core
    python -m benchmarks.personalise report IN.npz... OUT.json

Three kinds of people: usual ones, non-responders (their skin hardly reacts) and stoic ones (their face hardly does).
Each is rated 40 times, half of them in pain; one rating in 20 is on the wrong side. The first half of the ratings, by
time, decides, and the other half judges, as `jmt-edge personalise` does. The priors and the rule were chosen on the
people of seeds 313 and 316; those of 311 and 314 are reported.
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
from jmt_edge.recording.personalise import decide, fit, judge
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
PEOPLE = 24  # of a seed
STOIC = 0.05  # share of strong pain that shows in a stoic face; at least 0.75 in the others


def kind_of(number: int) -> str:
    """Of the person with that number in a cohort."""
    return KINDS[number % len(KINDS)]


def predict(seed: int) -> dict[str, np.ndarray]:
    """The pain demo's logits from both modalities and from each alone, with time, label, person and seed: each (N,)."""
    people = PEOPLE
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
        "seed": np.full(len(both.end), seed),
    }


def rated(found: Mapping[str, np.ndarray], seed: int, person: int) -> list[Rated]:
    """The ratings of a person, one window each: 5 to 10 in pain and 0 to 2 without, one in 20 on the wrong side."""
    rng = np.random.default_rng([seed, person])
    whose = (found["seed"] == seed) & (found["person"] == person)
    rows = np.flatnonzero(whose & (found["present"] > 0).any(1) & ~np.isnan(found["pain"]))
    ratings = []
    for row in rows[np.argsort(found["end"][rows])]:
        pain = (found["pain"][row] == 1) != (rng.random() < SLIPS)
        rating = int(rng.integers(5, 11) if pain else rng.integers(0, 3))
        both = (found["present"][row] > 0).all()
        without = (found["eda"][row], found["face"][row]) if both else (np.nan, np.nan)  # without the face, without EDA
        end = found["end"][row : row + 1]
        ratings.append(Rated(float(end[0]), rating, end, found["logit"][row : row + 1], np.array([without], float)))
    return ratings


def refit_all(found: Mapping[str, np.ndarray], *, always: bool = False, **options: Any) -> list[dict[str, Any]]:
    """One row a person, as the command would print it. always: fit whatever the support ratings say."""
    rows = []
    for seed, number in np.unique(np.column_stack([found["seed"], found["person"]]), axis=0).tolist():
        row = {"seed": seed, "person": number, "kind": kind_of(number)}
        try:
            support, test = split(rated(found, seed, number), WINDOW)
        except DataError as error:
            rows.append({**row, "refused": str(error)})
            continue
        decided = decide(support, NAMES, WINDOW, **options)
        new = fit(support, NAMES, **options) if always else decided.personal
        rows.append({
            **row, "support": len(support), "test": len(test), "parameters": new.to_manifest(),
            "left_out": {"gain": decided.gain, "interval": decided.interval}, "changed": always or decided.worth,
            **asdict(judge(test, NAMES, new, Personal())),
        })  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each kind: the mean Brier score and share on the wrong side before and after, the mean gain with its interval
    (95 %, by person), how many are changed, and whether anybody was hurt: for how many the gain is below 0, and
    certainly so. as_written: the mean gain where people who lose keep the general parameters, as in the command.
    """
    found = {}
    for kind in KINDS:
        own = [r for r in rows if r["kind"] == kind and "gain" in r]
        gains = np.array([r["gain"] for r in own])
        low, high = interval95(bootstrap(lambda at, g=gains: float(g[at].mean()), np.arange(len(gains))))
        found[kind] = {
            "people": len(own),
            "changed": sum(r["changed"] for r in own),
            "brier": [float(np.mean([r["brier"][k] for r in own])) for k in (0, 1)],
            "wrong": [float(np.mean([r["wrong"][k] for r in own])) for k in (0, 1)],
            "gain": float(gains.mean()),
            "interval": [low, high],
            "worse": int((gains < 0).sum()),
            "certainly_worse": sum(r["interval"][1] < 0 for r in own),
            "as_written": float(np.maximum(gains, 0).mean()),
            "largest_loss": float(min(0.0, gains.min())),
        }
        said = found[kind]
        print(
            f"{kind:<14} {said['changed']} of {said['people']} changed  Brier {said['brier'][0]:.3f} -> "
            f"{said['brier'][1]:.3f}  gain {said['gain']:+.4f} ({low:+.4f} to {high:+.4f})  "
            f"wrong {said['wrong'][0]:.0%} -> {said['wrong'][1]:.0%}  "
            f"worse {said['worse']}, certainly {said['certainly_worse']}, by at most "
            f"{-said['largest_loss']:.3f}; as written {said['as_written']:+.4f}"
        )
    return found


def main() -> None:
    if sys.argv[1] == "predict":
        np.savez_compressed(sys.argv[2], **predict(int(sys.argv[3])))
        return
    *inputs, out = sys.argv[2:]
    report = stamp("python -m benchmarks.personalise report IN.npz... OUT.json")
    parts = [dict(np.load(name)) for name in inputs]
    found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    report |= {"bundle": load_bundle(BUNDLE).id, "ratings_each": RATINGS, "slips": SLIPS}
    ways: dict[str, dict[str, Any]] = {
        "with_what_ifs": {}, "scale_and_bias": {"what_ifs": False}, "always_fitted": {"always": True},
    }  # fmt: skip
    for name, options in ways.items():
        print(f"{name}:")
        report[name] = {"people": (rows := refit_all(found, **options)), "kinds": summary(rows)}
    write(Path(out), report)


if __name__ == "__main__":
    main()
