"""The ablation suite's report in Markdown: what was done, tables and plots for each metric, and the costs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..machine import describe
from . import suite_plots
from .comparison import DRAWS
from .evaluation import NOISE_LEVELS
from .published import NOTE, PUBLISHED
from .recipes import Recipe

if TYPE_CHECKING:
    from .suite import Difference, Findings

NAMES = {"jmt_no_joint": "JMT without joint", "jmt": "JMT", "jca": "JCA", "rjcma": "RJCMA"}
LABELS = {"balanced_accuracy": "balanced accuracy", "ccc_mean": "mean CCC"}
STRONG = 1.0  # the noise that is shown for the smaller shares


def shown(system: str, recipe: Recipe) -> str:
    """A system's name in the report."""
    if system.startswith("jmt_") and "+" in system:
        return f"JMT {system.removeprefix('jmt_').replace('+', ' + ')}"
    trimodal = system == "jmt" and len(recipe.modalities) > 2
    return "JMT, trimodal" if trimodal else NAMES.get(system, {"eda": "EDA"}.get(system, system))


def write(out: Path, found: Findings, command: str) -> Path:
    """`report.md` in `out`, with its plots; returns its path."""
    lines = [f"# Ablation suite: {found.recipe.title}", "", *_about(found, command), "", *_legend(found)]
    for metric in found.metrics():
        lines += ["", f"## {LABELS[metric][0].upper()}{LABELS[metric][1:]}", "", *_clean(found, metric)]
        lines += ["", finding(found, metric), "", f"![systems](systems_{metric}.png)"]
        lines += ["", "### Noise and absence", "", *_disturbed(found, metric), "", f"![noise](noise_{metric}.png)"]
        if len(found.results) > 1:
            lines += ["", "### Fewer training subjects", "", *_fewer(found, metric), "", f"![data](data_{metric}.png)"]
        names = {s: shown(s, r) for s, r in found.systems.items()}
        suite_plots.all_plots(out, found, metric, LABELS[metric], names)
    lines += ["", "## Cost", "", *_costs(found), *_published(found)]
    path = out / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _about(found: Findings, command: str) -> list[str]:
    recipe, task, machine = found.recipe, found.recipe.resolve(), describe()
    clips = "; ".join(f"{m.name}: {m.backbone}, width {m.width}, {m.span:g} s" for m in task.modalities)
    masking = recipe.masking
    counts = ", ".join(f"{float(f):.0%}: {_range(found.trained[f])}" for f in sorted(found.results, key=float))
    packages = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k in ("jmt-edge", "torch", "numpy"))
    rows = [
        ("date", datetime.now(timezone.utc).strftime("%Y-%m-%d")),
        ("command", f"`{command}`" if command else ""),
        ("versions", f"{packages}, Python {machine['python']}; {machine['processor']}, {machine['cores']} cores"),
        ("cohort", found.cohort + (f"; classes {', '.join(recipe.classes)}" if "pain" in task.outputs else "")),
        ("protocol", f"{found.protocol}, seed {found.seed}"),
        ("scored", f"{found.windows} windows of {found.subjects} subjects"),
        ("training subjects", f"{counts}; epoch and temperature are chosen on {_range(found.selected)} others"),
        ("recipe", f"`{recipe.name}`, {recipe.variant} width, S = {task.steps}; {clips}"),
        (
            "masking in training", f"a modality absent in {masking.modality:.0%} of the windows, steps in "
            f"{masking.step:.0%}, the beginning in {masking.warmup:.0%}; noise of {masking.noise:g} SD on features",
        ),
    ]  # fmt: skip
    return [*_head("", ""), *(_row(*row) for row in rows if row[1])]


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def _legend(found: Findings) -> list[str]:
    levels = ", ".join(f"{v:g}" for v in NOISE_LEVELS)
    return [
        f"Scores are pooled over the windows of all test sides. Intervals draw whole subjects {DRAWS} times, the same "
        "subjects for every system, so a difference's interval is of the difference itself; they say nothing of "
        "another seed, and nothing is corrected for the number of comparisons. The backbones of a split are trained "
        "once and frozen, and serve every system.",
        "",
        f"Noise of {levels} is Gaussian, on every feature of one modality, in units of that modality's SD over all "
        "clips and features; a missing modality is declared absent to the fusion, which never sees it.",
    ]


def finding(found: Findings, metric: str) -> str:
    """Which fusions differ from the best single modality, and the other systems from JMT, by paired intervals."""
    single, text = found.best_single(metric), []
    fused = {s for s in found.full if found.systems[s].fusion != "unimodal"}
    if single and fused:
        name = shown(single, found.systems[single])
        text.append(_verdict(found, found.above[metric][single], fused, f"the best single modality ({name})"))
    if "jmt" in found.above[metric] and len(fused) > 1:
        text.append(_verdict(found, found.above[metric]["jmt"], fused - {"jmt"}, "JMT"))
    return " ".join(text)


def _verdict(found: Findings, above: dict[str, Difference], systems: set[str], reference: str) -> str:
    better = [s for s in above if s in systems and above[s][1] > 0]
    worse = [s for s in above if s in systems and above[s][2] < 0]
    rest = [s for s in above if s in systems and s not in better and s not in worse]

    def named(some: list[str]) -> str:
        return ", ".join(
            f"{shown(s, found.systems[s])} ({_difference(above[s])})" for s in sorted(some, key=lambda s: -above[s][0])
        )

    parts = [f"{word} {named(some)}" for word, some in (("above it", better), ("below it", worse)) if some]
    if rest:
        parts.append(f"not distinguishable from it {named(rest)}")
    return f"Against {reference}: {'; '.join(parts)}."


def _difference(d: Difference) -> str:
    return f"{d[0]:+.3f}, {d[1]:+.3f} to {d[2]:+.3f}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---" * len(cells) + "|"]


def _clean(found: Findings, metric: str) -> list[str]:
    references = found.above[metric]
    lines = _head(
        "system", LABELS[metric], "95 %", "subjects mean (SD)",
        *(f"minus {shown(r, found.systems[r])} (95 %)" for r in references),
    )  # fmt: skip
    for s in found.order(metric):
        clean = found.full[s]["clean"]
        low, high = found.interval[metric][s]
        mean, sd = clean.mean_sd(metric)
        lines.append(
            _row(
                shown(s, found.systems[s]), f"{clean.pooled[metric]:.3f}", f"{low:.3f} to {high:.3f}",
                "" if np.isnan(mean) else f"{mean:.3f} ({sd:.3f})",
                *(_difference(above[s]) if s in above else "" for above in references.values()),
            )
        )  # fmt: skip
    return lines


def _disturbed(found: Findings, metric: str) -> list[str]:
    order = found.order(metric)
    lines = _head("condition", *(shown(s, found.systems[s]) for s in order))
    return lines + [_row(c, *(_cell(found, max(found.results, key=float), s, c, metric) for s in order))
                    for c in found.conditions()]  # fmt: skip


def _fewer(found: Findings, metric: str) -> list[str]:
    """Clean, strong noise and absence; `suite.csv` has every level."""
    order = found.order(metric)
    kept = [c for c in found.conditions() if not c.startswith("noise") or c.startswith(f"noise {STRONG:g} ")]
    lines = _head("condition", "training subjects", *(shown(s, found.systems[s]) for s in order))
    for c in kept:
        for f in sorted(found.results, key=float):
            share = f"{float(f):.0%} ({_range(found.trained[f])})"
            lines.append(_row(c, share, *(_cell(found, f, s, c, metric) for s in order)))
    return [*lines, "", "All levels of noise: `suite.csv`."]


def _cell(found: Findings, share: str, system: str, condition: str, metric: str) -> str:
    table = found.results[share][system]
    return f"{table[condition].pooled[metric]:.3f}" if condition in table else ""


def _published(found: Findings) -> list[str]:
    """The papers' numbers for these systems, where they have any."""
    rows = [(s, line) for s in found.systems for line in PUBLISHED.get(f"{found.recipe.layout}-{s}", ())]
    if not rows:
        return []
    lines = [_row(shown(s, found.systems[s]), line) for s, line in rows]
    return ["", "## Beside it", "", f"{NOTE[0].upper()}{NOTE[1:]}.", "", *_head("system", "published"), *lines]


def _costs(found: Findings) -> list[str]:
    lines = [
        "The network behind the backbones alone, batch 1, one thread of this machine's CPU in PyTorch. FLOPs are those "
        "of matrix products and convolutions; memory is the weights and what is alive beside them at the peak.",
        "",
    ]
    lines += _head("system", "parameters", "MFLOPs", "latency (ms)", "peak memory (MB)")
    for s, cost in found.costs.items():
        lines.append(
            _row(
                shown(s, found.systems[s]), f"{cost.parameters:,}", f"{cost.flops / 1e6:.3g}",
                f"{cost.latency_ms:.2f}", f"{cost.memory_mb:.3g}",
            )
        )  # fmt: skip
    return lines
