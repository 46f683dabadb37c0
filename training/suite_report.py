"""The ablation suite's report: what was done, tables and plots for each metric, and the costs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from ..machine import describe
from ..markdown import table
from . import score_table, suite_plots
from .comparison import DRAWS, Difference
from .evaluation import NOISE_LEVELS
from .html_page import write_report_files
from .plots import LABELS
from .published import MEASURES, NOTE, row_text, rows_of
from .suite_findings import Findings

NAMES = {
    "jmt_no_joint": "JMT without joint", "jmt_no_joint_wide": "JMT without joint, widened", "jmt": "JMT", "jca": "JCA",
    "rjcma": "RJCMA",
}  # fmt: skip
STRONG = 1.0  # the noise that is shown for the smaller shares


def shown(found: Findings, system: str) -> str:
    """A system's name in the report."""
    if system.startswith("jmt_") and "+" in system:
        return f"JMT {system.removeprefix('jmt_').replace('+', ' + ')}"
    trimodal = system == "jmt" and len(found.systems[system].modalities) > 2
    return "JMT, trimodal" if trimodal else NAMES.get(system, {"eda": "EDA"}.get(system, system))


def write(out: Path, found: Findings, command: str) -> Path:
    """`report.html` and `report.md` in `out`, with their plots; returns the first."""
    lines = [f"# Ablation suite: {found.recipe.title}", "", *_about(found, command), "", *_legend(found)]
    for metric in found.metrics():
        lines += ["", f"## {LABELS[metric][0].upper()}{LABELS[metric][1:]}", "", *_clean(found, metric)]
        lines += ["", finding(found, metric), "", f"![systems](systems_{metric}.png)"]
        lines += ["", "### Noise and absence", "", *_disturbed(found, metric), "", f"![noise](noise_{metric}.png)"]
        if len(found.results) > 1:
            lines += ["", "### Fewer training subjects", "", *_fewer(found, metric), "", f"![data](data_{metric}.png)"]
        names = {s: shown(found, s) for s in found.systems}
        suite_plots.all_plots(out, found, metric, names)
    lines += ["", "## Cost", "", *_costs(found), *_published(found)]
    return write_report_files(out / "report", lines)


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
        ("training subjects", f"{counts}; {_range(found.selected)} others select epoch and temperature"),
        ("recipe", f"`{recipe.name}`, {recipe.variant} width, S = {task.steps}; {clips}"),
        (
            "masking in training", f"a modality absent in {masking.modality:.0%} of the windows, steps in "
            f"{masking.step:.0%}, the beginning in {masking.warmup:.0%}; noise of {masking.noise:g} SD on features",
        ),
    ]  # fmt: skip
    return table(["", ""], [row for row in rows if row[1]])


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def _legend(found: Findings) -> list[str]:
    levels = ", ".join(f"{v:g}" for v in NOISE_LEVELS)
    return [
        f"Scores are pooled over the windows of all test sides. Intervals come from {DRAWS} draws of whole subjects, "
        "the same for every system, so an interval of a difference is that of the paired difference. They do not cover "
        "the choice of the seed and are not corrected for multiple comparisons. The backbones of a split are trained "
        "once, frozen, and used by all systems.",
        "",
        f"Noise of {levels} is Gaussian, added to every feature of one modality, in units of that modality's SD over "
        "all clips and features. A missing modality is marked absent, and the fusion does not see it.",
    ]


def finding(found: Findings, metric: str) -> str:
    """Which fusions differ from the best single modality, and which from JMT, by paired intervals."""
    single, text = found.best_single(metric), []
    fused = {s for s in found.full if found.systems[s].fusion != "unimodal"}
    if single and fused:
        name = shown(found, single)
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
            f"{shown(found, s)} ({score_table.difference(*above[s])})" for s in sorted(some, key=lambda s: -above[s][0])
        )

    parts = [f"{word} {named(some)}" for word, some in (("above it", better), ("below it", worse)) if some]
    if rest:
        parts.append(f"not distinguishable from it {named(rest)}")
    return f"Against {reference}: {'; '.join(parts)}."


def _clean(found: Findings, metric: str) -> list[str]:
    references = found.above[metric]
    minus = (f"minus {shown(found, r)} (95 %)" for r in references)
    rows = []
    for s in found.order(metric):
        clean = found.full[s]["clean"]
        differences = (score_table.difference(*above[s]) if s in above else "" for above in references.values())
        rows.append([
            shown(found, s), f"{clean.pooled[metric]:.3f}", score_table.interval(found.interval[metric][s]),
            score_table.mean_sd(clean, metric), *differences,
        ])  # fmt: skip
    return table(["system", LABELS[metric], "95 %", "subjects mean (SD)", *minus], rows)


def _disturbed(found: Findings, metric: str) -> list[str]:
    order, full = found.order(metric), max(found.results, key=float)
    rows = [[c, *(_cell(found, full, s, c, metric) for s in order)] for c in found.conditions()]
    return table(["condition", *(shown(found, s) for s in order)], rows)


def _fewer(found: Findings, metric: str) -> list[str]:
    """Clean, strong noise and absence; `suite.csv` has every level."""
    order, rows = found.order(metric), []
    for c in found.conditions():
        if c.startswith("noise") and not c.startswith(f"noise {STRONG:g} "):
            continue
        for f in sorted(found.results, key=float):
            share = f"{float(f):.0%} ({_range(found.trained[f])})"
            rows.append([c, share, *(_cell(found, f, s, c, metric) for s in order)])
    lines = table(["condition", "training subjects", *(shown(found, s) for s in order)], rows)
    return [*lines, "", "All levels of noise: `suite.csv`."]


def _cell(found: Findings, share: str, system: str, condition: str, metric: str) -> str:
    of = found.results[share][system]
    return f"{of[condition].pooled[metric]:.3f}" if condition in of else ""


def _published(found: Findings) -> list[str]:
    """The papers' numbers for these systems, where they have any."""
    rows = []
    for name, recipe in found.systems.items():
        printed, changes = rows_of({**recipe.to_dict(), "name": f"{found.recipe.layout}-{name}"})
        for row in printed:
            what, differs = MEASURES[row.measure]
            rows.append((shown(found, name), row_text(row), f"{what} ({differs})", changes))
    if not rows:
        return []
    note = f"{NOTE[0].upper()}{NOTE[1:]}."
    header = ["system", "published", "measure", "this suite's recipe differs"]
    return ["", "## Published", "", note, "", *table(header, rows)]


def _costs(found: Findings) -> list[str]:
    rows = [
        [shown(found, s), f"{c.parameters:,}", f"{c.flops / 1e6:.3g}", f"{c.latency_ms:.2f}", f"{c.memory_mb:.3g}"]
        for s, c in found.costs.items()
    ]
    return [
        "Fusion and heads without the backbones, batch 1, one CPU thread, PyTorch. FLOPs are those of matrix products "
        "and convolutions; memory is the weights plus the peak of all other live tensors.",
        "",
        *table(["system", "parameters", "MFLOPs", "latency (ms)", "peak memory (MB)"], rows),
    ]
