"""The ablation suite: every fusion, clean and disturbed, with all and with few subjects, and what each costs.

Backbones are trained once per share of the subjects and serve every fusion, so the fusions differ in nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..tasks import Task
from .data import Cohort
from .evaluation import NOISE_LEVELS, RunScorer
from .experiment import Options, make_splits, prepare, run_split
from .networks import fusion_of
from .recipes import Recipe
from .scores import Scores, score
from .splits import fraction

mpl.use("Agg")
from matplotlib import pyplot as plt

FUSIONS = ("concat", "vanilla", "jmt_no_joint", "jmt", "jca", "rjcma")
NAMES = {"jmt_no_joint": "JMT without joint", "jmt": "JMT", "jca": "JCA", "rjcma": "RJCMA"}


@dataclass(frozen=True)
class Cost:
    """Of one fusion at batch 1: parameters, FLOPs, latency in ms (median, this machine's CPU), peak memory in MB."""

    parameters: int
    flops: int
    latency_ms: float
    memory_mb: float


def systems_of(recipe: Recipe) -> dict[str, Recipe]:
    """System name -> recipe: each modality alone, then every fusion on all modalities of the task."""
    names = recipe.modalities or recipe.resolve().names
    found = {m: replace(recipe, name=f"{recipe.name}-{m}", fusion="unimodal", modalities=(m,)) for m in names}
    for fusion in FUSIONS:
        found[fusion] = replace(recipe, name=f"{recipe.name}-{fusion}", fusion=fusion, modalities=tuple(names))
    return found


def run_suite(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    fractions: Sequence[float],
    systems: Sequence[str] = (),
    options: Options,
) -> Path:
    """Train and score everything (finished parts are found again); returns the report's path."""
    wanted = systems_of(recipe)
    unknown = [s for s in systems if s not in wanted]
    if unknown:
        raise ConfigError(f"unknown system '{unknown[0]}': choose among {', '.join(wanted)}")
    chosen = {k: v for k, v in wanted.items() if not systems or k in systems}
    (whole,) = make_splits(cohort, "holdout", seed=seed)
    results: dict[str, dict[str, dict[str, Scores]]] = {}  # fraction -> system -> condition
    total, done = len(fractions) * len(chosen), 0
    for share in fractions:
        split = fraction(whole, share, seed=seed) if share < 1 else whole
        for name, system in chosen.items():
            prepared = prepare(cohort, system, options)
            folder = out / f"{share:g}" / name
            if not (folder / "scores.json").is_file():
                run_split(prepared, split, folder, seed=seed, options=options)
            scorer = RunScorer(prepared, folder, options)
            test = scorer.windows.of(split.test)
            table = {"clean": score(scorer.predict(test))}
            if share == max(fractions):
                for m in prepared.task.names:
                    for level in NOISE_LEVELS:
                        table[f"noise {level:g} on {m}"] = score(scorer.predict(test, noise=(m, level)), draws=200)
                    if len(prepared.task.names) > 1:
                        table[f"without {m}"] = score(scorer.predict(test, without=m), draws=200)
            results.setdefault(f"{share:g}", {})[name] = table
            done += 1
            options.progress("suite", done, total)
    costs = {k: measure(fusion_of(r, r.resolve(), 0.0).eval(), r.resolve()) for k, r in chosen.items()}
    data = {
        "recipe": recipe.to_dict(), "seed": seed, "split": whole.to_dict(),
        "results": {f: {s: {c: v.to_dict() for c, v in t.items()} for s, t in r.items()} for f, r in results.items()},
        "costs": {k: vars(c) for k, c in costs.items()},
    }  # fmt: skip
    (out / "suite.json").write_text(json.dumps(data, indent=1) + "\n")
    return report(out, recipe, results, costs)


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


def report(out: Path, recipe: Recipe, results: dict[str, dict[str, dict[str, Scores]]], costs: dict[str, Cost]) -> Path:
    """`report.md` with three tables and three plots."""
    full = results[max(results, key=float)]
    metric = "balanced_accuracy" if "pain" in recipe.resolve().outputs else "ccc_mean"
    order = sorted(full, key=lambda s: -full[s]["clean"].pooled[metric])
    lines = [f"# Ablation suite: {recipe.title}", "", f"Score: {metric}, pooled over the windows of the test subjects; "
             "95 % interval by drawing subjects. Sorted by the clean score.", ""]  # fmt: skip
    lines += [
        "| system | clean | 95 % | parameters | MFLOPs | ms (1 CPU thread) | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in order:
        clean, cost = full[s]["clean"], costs[s]
        pair = clean.interval.get(metric)
        shown = f"[{pair[0]:.3f}, {pair[1]:.3f}]" if pair else ""
        lines.append(
            f"| {NAMES.get(s, s)} | {clean.pooled[metric]:.3f} | {shown} | {cost.parameters:,} | "
            f"{cost.flops / 1e6:.2f} | {cost.latency_ms:.2f} | {cost.memory_mb:.1f} |"
        )
    conditions = list(dict.fromkeys(c for s in order for c in full[s] if c != "clean"))
    lines += ["", "## Noise and absence", "", "Noise is added to a modality's features, in units of their SD.", ""]
    lines += ["| condition | " + " | ".join(NAMES.get(s, s) for s in order) + " |", "|---" * (len(order) + 1) + "|"]
    for c in conditions:
        cells = [f"{full[s][c].pooled[metric]:.3f}" if c in full[s] else "" for s in order]
        lines.append(f"| {c} | " + " | ".join(cells) + " |")
    header = " | ".join(NAMES.get(s, s) for s in order)
    lines += ["", "## Less data", "", f"| share of the training subjects | {header} |", "|---" * (len(order) + 1) + "|"]
    for share in sorted(results, key=float):
        lines.append(
            f"| {share} | " + " | ".join(f"{results[share][s]['clean'].pooled[metric]:.3f}" for s in order) + " |"
        )
    lines += ["", finding(full, order, metric), ""]
    lines += [f"![{n}]({n}.png)" for n in ("systems", "noise", "data")]
    _plots(out, full, results, order, metric)
    path = out / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def finding(full: dict[str, dict[str, Scores]], order: list[str], metric: str) -> str:
    """One sentence: whether a fusion beats the best single modality beyond its interval."""
    single = [s for s in order if s not in FUSIONS]
    fused = [s for s in order if s in FUSIONS]
    if not single or not fused:
        return ""
    a, b = full[fused[0]]["clean"], full[single[0]]["clean"]
    gain = a.pooled[metric] - b.pooled[metric]
    low = a.interval[metric][0] if metric in a.interval else float("nan")
    verdict = "lies above" if low > b.pooled[metric] else "does not exclude"
    return (
        f"The best fusion ({NAMES.get(fused[0], fused[0])}) scores {gain:+.3f} against the best single modality "
        f"({single[0]}); its interval {verdict} that modality's score."
    )


def _plots(
    out: Path,
    full: dict[str, dict[str, Scores]],
    results: dict[str, dict[str, dict[str, Scores]]],
    order: list[str],
    metric: str,
) -> None:
    figure, ax = plt.subplots(figsize=(7, 3.2))
    values = [full[s]["clean"].pooled[metric] for s in order]
    pairs = [full[s]["clean"].interval.get(metric, (v, v)) for s, v in zip(order, values)]
    errors = [[max(0.0, v - p[0]) for v, p in zip(values, pairs)], [max(0.0, p[1] - v) for v, p in zip(values, pairs)]]
    ax.bar([NAMES.get(s, s) for s in order], values, yerr=errors, capsize=3, color="#1b6ca8")
    ax.set_ylabel(metric)
    ax.tick_params(axis="x", rotation=30)
    figure.tight_layout()
    figure.savefig(out / "systems.png", dpi=110)
    plt.close(figure)
    modalities = sorted({c.split(" on ")[1] for s in order for c in full[s] if c.startswith("noise")})
    figure, axes = plt.subplots(1, len(modalities), figsize=(4 * len(modalities), 3.2), squeeze=False, sharey=True)
    for ax, m in zip(axes[0], modalities):
        for s in order:
            levels = [level for level in NOISE_LEVELS if f"noise {level:g} on {m}" in full[s]]
            if levels:
                y = [full[s]["clean"].pooled[metric]] + [full[s][f"noise {v:g} on {m}"].pooled[metric] for v in levels]
                ax.plot([0, *levels], y, "o-", ms=3, label=NAMES.get(s, s))
        ax.set(xlabel=f"noise on {m} (SD)", ylabel=metric)
    axes[0][0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(out / "noise.png", dpi=110)
    plt.close(figure)
    figure, ax = plt.subplots(figsize=(5, 3.2))
    shares = sorted(results, key=float)
    for s in order:
        ax.plot(
            [float(f) for f in shares],
            [results[f][s]["clean"].pooled[metric] for f in shares],
            "o-",
            ms=3,
            label=NAMES.get(s, s),
        )
    ax.set(xlabel="share of the training subjects", ylabel=metric)
    ax.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(out / "data.png", dpi=110)
    plt.close(figure)
