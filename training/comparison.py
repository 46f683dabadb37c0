"""Several systems under one protocol, ranked: intervals by subject, and the differences from the best single modality.

The same subjects are drawn for all systems, so what two systems share cancels in the interval of their difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import markdown
from ..metrics import interval95, subject_draws
from . import score_table
from .scores import PUBLISHED_STEPS, Predictions, judged
from .search import Protocol

DRAWS = 2000
Difference = tuple[float, float, float]  # of pooled scores, and its 95 % interval by subject


def drawn(p: Predictions, metric: str, draws: list[NDArray[np.int64]], subjects: Sequence[str]) -> NDArray[np.float64]:
    """The metric (one of pain's, or `ccc_mean`) under each draw of subjects (indices into `subjects`)."""
    pain = metric != "ccc_mean"
    parts = [part for part in judged(p, metric if pain else "accuracy") if part.name.startswith("ccc_") != pain]
    columns = []
    for part in parts:
        rows = {s: np.flatnonzero(part.subject == s) for s in subjects}
        taken = (np.concatenate([rows[subjects[i]] for i in draw]) for draw in draws)
        columns.append([part.metric(part.prediction[at], part.label[at]) for at in taken])
    return np.asarray(np.mean(columns, axis=0))


def paired(
    systems: Mapping[str, Predictions], metric: str, references: Sequence[str], *, seed: int = 0
) -> tuple[dict[str, tuple[float, float]], dict[str, dict[str, Difference]]]:
    """Each system's 95 % interval, and by reference the differences of all other systems from it.

    Only subjects that every system was scored on are drawn.
    """
    subjects = _shared(systems)
    draws = subject_draws(len(subjects), DRAWS, seed)
    everyone = [np.arange(len(subjects))]
    under = {s: drawn(p, metric, draws, subjects) for s, p in systems.items()}
    pooled = {s: float(drawn(p, metric, everyone, subjects)[0]) for s, p in systems.items()}
    above = {
        r: {s: (pooled[s] - pooled[r], *interval95(under[s] - under[r])) for s in systems if s != r} for r in references
    }
    return {s: interval95(values) for s, values in under.items()}, above


def compare(protocols: Sequence[Protocol], out: Path, *, seed: int = 0) -> list[str]:
    """Ranks by accuracy where pain is labelled (the papers' measure), else by the mean CCC.

    Writes `comparison.json` and `comparison.md` into `out`; returns the lines of the table. The papers' way of scoring
    (every step, later ones in view) is the last column where a system has it; nothing is ranked by it.
    """
    metric = "accuracy" if "pain" in protocols[0].predictions.labels else "ccc_mean"
    ranked = sorted(protocols, key=lambda p: -p.scores.pooled[metric])
    single = next((p.recipe.name for p in ranked if p.recipe.fusion == "unimodal"), None)
    systems = {p.recipe.name: p.predictions for p in ranked}
    intervals, above = paired(systems, metric, [single] if single else [], seed=seed)
    extra = metric + PUBLISHED_STEPS
    published = any(extra in p.scores.extras for p in ranked)
    rows, cells = [], []
    for p in ranked:
        name, scores = p.recipe.name, p.scores
        mean, sd = (None if np.isnan(v) else round(v, 4) for v in scores.mean_sd(metric))
        row: dict[str, Any] = {
            "recipe": name, "fusion": p.recipe.fusion, "windows": scores.windows,
            metric: round(scores.pooled[metric], 4), "interval95": _rounded(intervals[name]),
            "subjects_mean": mean, "subjects_sd": sd,
            "pooled": {k: round(v, 4) for k, v in scores.pooled.items()},
            "splits": {r.split.name: round(r.scores.pooled[metric], 4) for r in p.results},
            "seconds": round(sum(sum(r.seconds.values()) for r in p.results), 1),
        }  # fmt: skip
        shown = ""
        if single is not None and name != single:
            gain, *limits = above[single][name]
            row |= {"above_best_single": round(gain, 4), "above_best_single_interval95": _rounded(limits)}
            shown = score_table.difference(gain, *limits)
        if published:
            row["published_every_step"] = round(scores.extras[extra], 4) if extra in scores.extras else None
        rows.append(row)
        cells.append([
            name, f"{scores.pooled[metric]:.3f}", score_table.interval(intervals[name]),
            score_table.mean_sd(scores, metric), shown,
            *([f"{scores.extras[extra]:.3f}" if extra in scores.extras else ""] if published else []),
        ])  # fmt: skip
    data = {"metric": metric, "subjects": len(_shared(systems)), "best_single": single, "ranking": rows}
    (out / "comparison.json").write_text(json.dumps(data, indent=1) + "\n")
    above_single = f"above {single or 'the best single modality'}"
    header = ["system", metric, "95 % by subject", "subjects mean (SD)", above_single]
    if published:
        header.append(f"{metric} at every step with later ones in view (as published)")
    lines = markdown.table(header, cells)
    (out / "comparison.md").write_text("\n".join(lines) + "\n")
    return lines


def _shared(systems: Mapping[str, Predictions]) -> list[str]:
    return sorted(set.intersection(*({str(s) for s in p.subject} for p in systems.values())))


def _rounded(pair: Sequence[float]) -> list[float]:
    return [round(v, 4) for v in pair]
