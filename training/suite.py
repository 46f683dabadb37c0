"""The ablation suite: every fusion, clean and disturbed, with all and with few subjects, and what each costs.

Backbones are trained once per share of the subjects and serve every fusion, so the fusions differ in nothing else.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..tasks import Task
from . import suite_plots
from .data import Cohort
from .evaluation import NOISE_LEVELS, RunScorer
from .experiment import Options, Prepared, Result, make_splits, prepare
from .networks import fusion_of
from .recipes import Recipe
from .scores import Predictions, Scores, score
from .search import run_splits
from .splits import fraction

FUSIONS = ("concat", "vanilla", "jmt_no_joint", "jmt", "jca", "rjcma")
NAMES = {"jmt_no_joint": "JMT without joint", "jmt": "JMT", "jca": "JCA", "rjcma": "RJCMA"}
METRICS = {"balanced_accuracy": "balanced accuracy", "ccc_mean": "mean CCC"}
Table = dict[str, Scores]  # condition -> scores


@dataclass(frozen=True)
class Cost:
    """Of one fusion at batch 1: parameters, FLOPs, latency in ms (median, this machine's CPU), peak memory in MB."""

    parameters: int
    flops: int
    latency_ms: float
    memory_mb: float


def systems_of(recipe: Recipe) -> dict[str, Recipe]:
    """System name -> recipe: each modality alone, JMT on each pair of three, then every fusion on all of them."""
    names = recipe.modalities or recipe.resolve().names
    found = {m: _on(recipe, m, "unimodal", (m,)) for m in names}
    if len(names) > 2:
        for pair in itertools.combinations(names, 2):
            found[f"jmt_{'+'.join(pair)}"] = _on(recipe, f"jmt_{'+'.join(pair)}", "jmt", pair)
    for fusion in FUSIONS:
        found[fusion] = _on(recipe, fusion, fusion, tuple(names))
    return found


def _on(recipe: Recipe, name: str, fusion: str, modalities: tuple[str, ...]) -> Recipe:
    stages = {k: v for k, v in recipe.stages.items() if k in modalities or k == "fusion"}
    backbone = {k: v for k, v in recipe.backbone.items() if k in modalities}
    return replace(
        recipe, name=f"{recipe.name}-{name}", fusion=fusion, modalities=modalities, stages=stages, backbone=backbone
    )


def shown(system: str, recipe: Recipe) -> str:
    """A system's name in the report."""
    if system.startswith("jmt_") and "+" in system:
        return f"JMT {system.removeprefix('jmt_').replace('+', ' + ')}"
    trimodal = system == "jmt" and len(recipe.modalities) > 2
    return "JMT, trimodal" if trimodal else NAMES.get(system, {"eda": "EDA"}.get(system, system))


def run_suite(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    fractions: Sequence[float],
    systems: Sequence[str] = (),
    protocol: str = "holdout",
    options: Options,
) -> Path:
    """Train and score everything (finished parts are found again); returns the report's path.

    protocol: as in training; with folds, each subject is scored by the weights of the fold that never saw it.
    """
    wanted = systems_of(recipe)
    unknown = [s for s in systems if s not in wanted]
    if unknown:
        raise ConfigError(f"unknown system '{unknown[0]}': choose among {', '.join(wanted)}")
    if not fractions or not all(0 < f <= 1 for f in fractions):
        raise ConfigError(f"--fractions {','.join(map(str, fractions))}: each must lie in (0, 1]")
    chosen = {k: v for k, v in wanted.items() if not systems or k in systems}
    splits = make_splits(cohort, protocol, seed=seed)
    results: dict[str, dict[str, Table]] = {}  # fraction -> system -> condition
    total, done = len(fractions) * len(chosen), 0
    for share in fractions:
        for name, system in chosen.items():
            prepared = prepare(cohort, system, options)
            parts = [fraction(s, share, seed=seed) if share < 1 else s for s in splits]
            trained = run_splits(prepared, parts, out / f"{share:g}" / name, seed=seed, options=options)
            results.setdefault(f"{share:g}", {})[name] = _conditions(
                prepared, trained, options, disturbed=share == max(fractions)
            )
            done += 1
            options.progress("suite", done, total)
    costs = {k: measure(fusion_of(r, r.resolve(), 0.0).eval(), r.resolve()) for k, r in chosen.items()}
    data = {
        "recipe": recipe.to_dict(), "seed": seed, "protocol": protocol, "splits": [s.to_dict() for s in splits],
        "results": {f: {s: {c: v.to_dict() for c, v in t.items()} for s, t in r.items()} for f, r in results.items()},
        "costs": {k: vars(c) for k, c in costs.items()},
    }  # fmt: skip
    (out / "suite.json").write_text(json.dumps(data, indent=1) + "\n")
    return report(out, Findings(recipe, chosen, results, costs, protocol, len({s for p in splits for s in p.test})))


def _conditions(prepared: Prepared, trained: Sequence[Result], options: Options, *, disturbed: bool) -> Table:
    """Clean, and with `disturbed` also under noise and absence, all folds together."""
    scorers = [(RunScorer(prepared, r.folder, options), r.split.test) for r in trained]

    def under(draws: int = 200, **change: Any) -> Scores:
        found = [s.predict(s.windows.of(test), **change) for s, test in scorers]
        return score(Predictions.join(found) if len(found) > 1 else found[0], draws=draws)

    table = {"clean": under(1000)}
    if disturbed:
        for m in prepared.task.names:
            table |= {f"noise {level:g} on {m}": under(noise=(m, level)) for level in NOISE_LEVELS}
        if len(prepared.task.names) > 1:
            table |= {f"without {m}": under(without=m) for m in prepared.task.names}
    return table


def measure(fusion: nn.Module, task: Task) -> Cost:
    """Cost of a fusion's forward pass at batch 1 on this CPU with one thread."""
    names = fusion.modalities  # type: ignore[union-attr]
    x = {m: torch.randn(1, task.steps, task.dim) for m in names}  # type: ignore[union-attr]
    present = torch.ones(1, task.steps, len(x))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            fusion(x, present)
        times = _times(lambda: fusion(x, present))
        memory = _peak(fusion, x, present)
    parameters = sum(p.numel() for p in fusion.parameters())
    return Cost(parameters, counter.get_total_flops(), 1000 * float(np.median(times)), memory / 1e6)


def _times(run: Callable[[], Any], count: int = 30) -> list[float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            run()
        times = []
        for _ in range(count):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return times
    finally:
        torch.set_num_threads(threads)


def _peak(fusion: nn.Module, x: dict[str, Tensor], present: Tensor) -> float:
    """Bytes of weights plus the largest sum of tensors alive during the pass, by torch's own profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        fusion(x, present)
    alive = peak = 0
    for event in sorted((e for e in profile.events() if e.name == "[memory]"), key=lambda e: e.time_range.start):
        alive += event.cpu_memory_usage if hasattr(event, "cpu_memory_usage") else event.self_cpu_memory_usage
        peak = max(peak, alive)
    return float(peak + sum(p.numel() * p.element_size() for p in fusion.parameters()))


# ---- report --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Findings:
    """All that the report shows. results: fraction -> system -> condition -> scores."""

    recipe: Recipe
    systems: dict[str, Recipe]
    results: dict[str, dict[str, Table]]
    costs: dict[str, Cost]
    protocol: str
    subjects: int  # scored

    @property
    def full(self) -> dict[str, Table]:
        return self.results[max(self.results, key=float)]

    def metrics(self) -> list[str]:
        some = next(iter(self.full.values()))["clean"].pooled
        return [m for m in METRICS if m in some]

    def order(self, metric: str) -> list[str]:
        """Systems, the best clean score first."""
        return sorted(self.full, key=lambda s: -self.full[s]["clean"].pooled[metric])

    def name(self, system: str) -> str:
        return shown(system, self.systems[system])


def report(out: Path, found: Findings) -> Path:
    """`report.md`: for each metric three tables and three plots, then what each fusion costs."""
    recipe = found.recipe
    lines = [
        f"# Ablation suite: {recipe.title}", "",
        f"Recipe `{recipe.name}` ({recipe.variant}), protocol {found.protocol}, {found.subjects} subjects scored. "
        "Scores are pooled over their windows; intervals draw whole subjects.",
    ]  # fmt: skip
    for metric in found.metrics():
        lines += ["", f"## {METRICS[metric][0].upper()}{METRICS[metric][1:]}", "", *_clean(found, metric)]
        lines += ["", finding(found, metric), "", f"![systems](systems_{metric}.png)"]
        lines += ["", "### Noise and absence", "", *_disturbed(found, metric), "", f"![noise](noise_{metric}.png)"]
        if len(found.results) > 1:
            lines += ["", "### Fewer training subjects", "", *_fewer(found, metric), "", f"![data](data_{metric}.png)"]
        suite_plots.all_plots(out, found, metric, METRICS[metric])
    lines += ["", "## Cost", "", *_costs(found)]
    path = out / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---" * len(cells) + "|"]


def _clean(found: Findings, metric: str) -> list[str]:
    lines = _head("system", METRICS[metric], "95 %", "subjects mean (SD)")
    for s in found.order(metric):
        clean = found.full[s]["clean"]
        pair = clean.interval.get(metric)
        mean, sd = clean.mean_sd(metric)
        lines.append(
            _row(
                found.name(s), f"{clean.pooled[metric]:.3f}", f"{pair[0]:.3f} to {pair[1]:.3f}" if pair else "",
                "" if np.isnan(mean) else f"{mean:.3f} ({sd:.3f})",
            )
        )  # fmt: skip
    return lines


def _disturbed(found: Findings, metric: str) -> list[str]:
    order = found.order(metric)
    conditions = list(dict.fromkeys(c for s in order for c in found.full[s]))
    lines = ["Noise is added to a modality's features, in units of their SD.", ""]
    lines += _head("condition", *(found.name(s) for s in order))
    for c in conditions:
        lines.append(_row(c, *(f"{found.full[s][c].pooled[metric]:.3f}" if c in found.full[s] else "" for s in order)))
    return lines


def _fewer(found: Findings, metric: str) -> list[str]:
    order = found.order(metric)
    lines = _head("share", *(found.name(s) for s in order))
    for share in sorted(found.results, key=float):
        row = found.results[share]
        lines.append(_row(f"{float(share):.0%}", *(f"{row[s]['clean'].pooled[metric]:.3f}" for s in order)))
    return lines


def _costs(found: Findings) -> list[str]:
    lines = ["The network behind the backbones alone, batch 1, one thread of this machine's CPU.", ""]
    lines += _head("system", "parameters", "MFLOPs", "latency (ms)", "memory (MB)")
    for s, cost in found.costs.items():
        lines.append(
            _row(
                found.name(s), f"{cost.parameters:,}", f"{cost.flops / 1e6:.3g}", f"{cost.latency_ms:.2f}",
                f"{cost.memory_mb:.1f}",
            )
        )  # fmt: skip
    return lines


def finding(found: Findings, metric: str) -> str:
    """One sentence: whether a fusion beats the best single modality beyond its interval."""
    order = found.order(metric)
    single = [s for s in order if found.systems[s].fusion == "unimodal"]
    fused = [s for s in order if found.systems[s].fusion != "unimodal"]
    if not single or not fused:
        return ""
    a, b = found.full[fused[0]]["clean"], found.full[single[0]]["clean"]
    gain = a.pooled[metric] - b.pooled[metric]
    text = (
        f"The best fusion ({found.name(fused[0])}) scores {gain:+.3f} against the best single modality "
        f"({found.name(single[0])})"
    )
    if metric not in a.interval:
        return f"{text}."
    verdict = "lies above" if a.interval[metric][0] > b.pooled[metric] else "does not exclude"
    return f"{text}; its interval {verdict} that modality's score."
