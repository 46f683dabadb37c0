"""Several systems under one protocol, ranked: intervals by subject, and each one's difference from the best single
modality with its own interval (the same subjects are drawn for both, so what they share cancels).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..metrics import interval95, subject_draws
from .scores import Predictions, judged
from .search import Protocol

DRAWS = 2000


def main_metric(p: Predictions) -> str:
    """What a ranking is by: accuracy where pain is labelled (the papers' measure), else the mean CCC."""
    return "accuracy" if "pain" in p.labels else "ccc_mean"


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


def compare(protocols: Sequence[Protocol], out: Path, *, seed: int = 0) -> list[str]:
    """Lines of the ranking; writes `comparison.json` and `comparison.md` into `out`."""
    if not protocols:
        raise ConfigError("a comparison needs at least one recipe")
    metric = main_metric(protocols[0].predictions)
    subjects = sorted(set.intersection(*({str(s) for s in p.predictions.subject} for p in protocols)))
    draws = subject_draws(len(subjects), DRAWS, seed)
    under = {p.recipe.name: drawn(p.predictions, metric, draws, subjects) for p in protocols}
    ranked = sorted(protocols, key=lambda p: -p.scores.pooled[metric])
    single = next((p for p in ranked if p.recipe.fusion == "unimodal"), None)
    rows = []
    for p in ranked:
        mean, sd = _mean_sd(p, metric)
        row: dict[str, Any] = {
            "recipe": p.recipe.name, "fusion": p.recipe.fusion, "windows": p.scores.windows,
            metric: round(p.scores.pooled[metric], 4), "interval95": rounded(interval95(under[p.recipe.name])),
            "subjects_mean": mean, "subjects_sd": sd,
            "pooled": {k: round(v, 4) for k, v in p.scores.pooled.items()},
            "splits": {r.split.name: round(r.scores.pooled[metric], 4) for r in p.results},
            "seconds": round(sum(sum(r.seconds.values()) for r in p.results), 1),
        }  # fmt: skip
        if single is not None and p is not single:
            row["above_best_single"] = round(p.scores.pooled[metric] - single.scores.pooled[metric], 4)
            difference = under[p.recipe.name] - under[single.recipe.name]
            row["above_best_single_interval95"] = rounded(interval95(difference))
        rows.append(row)
    data = {"metric": metric, "subjects": len(subjects), "best_single": single and single.recipe.name, "ranking": rows}
    (out / "comparison.json").write_text(json.dumps(data, indent=1) + "\n")
    lines = table(data)
    (out / "comparison.md").write_text("\n".join(lines) + "\n")
    return lines


def table(data: dict[str, Any]) -> list[str]:
    """The ranking as a Markdown table."""
    metric, best = data["metric"], data["best_single"]
    lines = [
        f"| system | {metric} | 95 % by subject | subjects mean (SD) | above {best or 'the best single modality'} |",
        "|---|---|---|---|---|",
    ]
    for row in data["ranking"]:
        above = ""
        if "above_best_single" in row:
            above = f"{row['above_best_single']:+.3f} {_shown(row['above_best_single_interval95'])}"
        mean = "" if row["subjects_mean"] is None else f"{row['subjects_mean']:.3f} ({row['subjects_sd']:.3f})"
        lines.append(f"| {row['recipe']} | {row[metric]:.3f} | {_shown(row['interval95'])} | {mean} | {above} |")
    return lines


def _shown(pair: Sequence[float]) -> str:
    return f"[{pair[0]:.3f}, {pair[1]:.3f}]"


def rounded(pair: Sequence[float]) -> list[float]:
    return [round(v, 4) for v in pair]


def _mean_sd(p: Protocol, metric: str) -> tuple[float | None, float | None]:
    mean, sd = p.scores.mean_sd(metric)
    return (None, None) if np.isnan(mean) else (round(mean, 4), round(sd, 4))
