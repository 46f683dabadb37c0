"""The report of the suite over seeds: what was decided beforehand, the verdicts, and every score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl

from ..machine import describe
from ..markdown import table
from . import score_table
from .claims import DRAWS, LEVEL, MARGIN, Draws, Estimate, Sums, Verdict, estimate, judge
from .evaluation import write_csv
from .faults import conditions, faults_of
from .html_page import write_report_files
from .keys import write
from .plots import LABELS, save
from .recipes import Recipe
from .suite_findings import METRICS
from .suite_report import NAMES

mpl.use("Agg")
from matplotlib import pyplot as plt

CLEAN, WITHOUT = "clean", "without"
MASKED, UNMASKED, REPAIRED, CROSS_FIT = "masked", "unmasked", "re-paired", "cross-fit"


@dataclass(frozen=True)
class ClaimsFound:
    """Share -> variant -> condition -> sums of all folds' test people; shares and variants as in the folders' names.

    variants: name -> (system, way of training). primary: the system of the claim and its control. trained, selected:
    fewest and most people of a fold. parameters: of the fusions. seconds: of this command.
    """

    recipe: Recipe
    variants: dict[str, tuple[str, str]]
    sums: dict[str, dict[str, dict[str, Sums]]]
    primary: tuple[str, str]
    protocol: str
    seed: int
    seeds: int
    subjects: int
    windows: int
    trained: dict[str, tuple[int, int]]
    selected: tuple[int, int]
    cohort: str
    parameters: dict[str, int]
    seconds: float

    @cached_property
    def draws(self) -> Draws:
        return Draws.make(self.subjects, self.seeds)

    def metrics(self) -> list[str]:
        some = next(iter(next(iter(self.sums.values())).values()))[CLEAN]
        both = {"ccc_valence", "ccc_arousal"} <= set(some)
        return [m for m in METRICS if m in some or (m == "ccc_mean" and both)]

    @property
    def shares(self) -> list[str]:
        """The largest first."""
        return sorted(self.sums, key=float, reverse=True)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Group of conditions -> its conditions."""
        modalities = self.recipe.resolve().modalities
        names = [m.name for m in modalities]
        found = {CLEAN: [CLEAN]}
        for m in modalities:
            found[f"faults of {m.name}"] = [f"{fault}, {m.name}" for fault in faults_of(m)]
        if len(names) > 1:
            found["faults of all"] = [c for c, faults in conditions(self.recipe.resolve()).items() if len(faults) > 1]
            found["one modality absent"] = [f"{WITHOUT} {m}" for m in names]
        return found

    def score(self, share: str, system: str, way: str, group: Sequence[str], metric: str) -> Estimate:
        variant = next(v for v, of in self.variants.items() if of == (system, way))
        return estimate([self.sums[share][variant][c] for c in group], metric, self.draws)

    def has(self, share: str, system: str, way: str) -> bool:
        return any(of == (system, way) and v in self.sums[share] for v, of in self.variants.items())

    def systems(self, share: str, way: str) -> list[str]:
        return [s for v, (s, w) in self.variants.items() if w == way and v in self.sums[share]]

    # ---- the families, each corrected for its own number of comparisons ----------------------------------------------

    def claim(self, metric: str) -> dict[tuple[str, str, str], Verdict]:
        """(share, way, group) -> the claim's system minus its control."""
        mine, control = self.primary
        differences = {
            (share, way, name): self.score(share, mine, way, group, metric)
            - self.score(share, control, way, group, metric)
            for share in self.shares
            for way in (MASKED, UNMASKED)
            if self.has(share, mine, way)
            for name, group in self.groups.items()
        }
        return _judged(differences)

    def joint_information(self, metric: str) -> dict[str, tuple[Estimate, Estimate, Verdict]]:
        """Share -> the gain on true pairs, on re-paired windows, and their difference."""
        mine, control = self.primary
        found = {}
        for share in self.shares:
            if self.has(share, mine, REPAIRED):
                true, mixed = (
                    self.score(share, mine, way, [CLEAN], metric) - self.score(share, control, way, [CLEAN], metric)
                    for way in (MASKED, REPAIRED)
                )
                found[share] = (true, mixed, true - mixed)
        verdicts = judge({share: d for share, (_, _, d) in found.items()}) if found else {}
        return {share: (true, mixed, verdicts[share]) for share, (true, mixed, _) in found.items()}

    def out_of_fold(self, metric: str) -> dict[tuple[str, str, str], Verdict]:
        """(share, system, group) -> trained on out-of-fold features minus trained on the backbones' own."""
        differences = {
            (share, system, name): self.score(share, system, CROSS_FIT, group, metric)
            - self.score(share, system, MASKED, group, metric)
            for share in self.shares
            for system in self.systems(share, CROSS_FIT)
            for name, group in self.groups.items()
            if name in (CLEAN, "faults of face")
        }
        return _judged(differences)

    def best_single(self, metric: str) -> str:
        share = self.shares[0]
        alone = [s for s in self.systems(share, MASKED) if s not in self.parameters]
        return max(alone, key=lambda s: self.score(share, s, MASKED, [CLEAN], metric).value)


def _judged(differences: Mapping[Any, Estimate]) -> dict[Any, Verdict]:
    return judge(differences) if differences else {}


# ---- the report ---------------------------------------------------------------------------------------------------


def write_report(out: Path, found: ClaimsFound, command: str) -> Path:
    """`claims.html` and `.md` with their plots, `.json` (families) and `.csv` (every score); returns the first."""
    lines = [f"# Does the joint branch help? {found.recipe.title}", "", *_about(found, command), "", *_decided(found)]
    data: dict[str, Any] = {"recipe": found.recipe.to_dict(), "margin": MARGIN, "draws": DRAWS, "metrics": {}}
    for metric in found.metrics():
        claim, joint, folds = found.claim(metric), found.joint_information(metric), found.out_of_fold(metric)
        lines += ["", f"## {LABELS[metric][0].upper()}{LABELS[metric][1:]}", "", "### Conclusion", ""]
        lines += conclusion(found, metric, claim, joint, folds)
        lines += ["", "### The claim", "", *_claim(found, metric, claim)]
        _plot(out / f"claims_{metric}.png", found, claim, metric)
        lines += ["", f"![differences](claims_{metric}.png)"]
        if joint:
            lines += ["", "### Is a gain joint information?", "", *_joint(found, joint)]
        if folds:
            lines += ["", "### Out-of-fold features", "", *_folds(found, metric, folds)]
        lines += ["", "### All systems", "", *_systems(found, metric)]
        lines += ["", "### Every condition", "", *_conditions(found, metric)]
        data["metrics"][metric] = {
            "claim": {" | ".join(k): _plain(v) for k, v in claim.items()},
            "joint_information": {k: _plain(v) for k, (_, _, v) in joint.items()},
            "out_of_fold": {" | ".join(k): _plain(v) for k, v in folds.items()},
        }
    write(out / "claims.json", json.dumps(data, indent=1) + "\n")
    header = ["share", "system", "way", "condition", "metric", "value", "low95", "high95", "seeds SD"]
    write_csv(out / "claims.csv", header, _rows(found))
    return write_report_files(out / "claims", lines)


def _plain(v: Verdict) -> dict[str, Any]:
    return {
        "difference": round(v.difference.value, 5), "interval95": [round(x, 5) for x in v.difference.interval],
        "p": round(v.p, 5), "p_holm": round(v.p_holm, 5), "equivalent": v.equivalent, "verdict": v.word,
        "seeds": [round(float(x), 5) for x in v.difference.by_seed],
    }  # fmt: skip


def _about(found: ClaimsFound, command: str) -> list[str]:
    recipe, task, machine = found.recipe, found.recipe.resolve(), describe()
    packages = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k in ("jmt-edge", "torch", "numpy"))
    counts = ", ".join(f"{float(f):.0%}: {_range(found.trained[f])}" for f in found.shares)
    clips = "; ".join(f"{m.name}: {m.backbone}, width {m.width}, {m.span:.3g} s" for m in task.modalities)
    mask, stage = recipe.masking, recipe.stage("fusion")
    rows = [
        ("date", datetime.now(timezone.utc).strftime("%Y-%m-%d")),
        ("command", f"`{command}`" if command else ""),
        ("versions", f"{packages}, Python {machine['python']}; {machine['processor']}, {machine['cores']} cores"),
        ("cohort", found.cohort),
        ("folds", f"{found.protocol}, drawn with seed {found.seed}, the same for all seeds"),
        ("seeds", f"{found.seeds} of each fusion; the backbones of a fold are trained once"),
        ("scored", f"{found.windows} windows of {found.subjects} people, each by the fold that tests them; the "
                   f"smallest possible change of an accuracy is 1/{found.windows * found.seeds}, a window of a seed"),
        ("training people", f"{counts}; {_range(found.selected)} others select the epoch"),
        ("recipe", f"`{recipe.name}`, {recipe.variant} width, S = {task.steps}; {clips}; fusion: {stage.optimizer}, "
                   f"rate {stage.lr:g}, up to {stage.epochs} epochs"),
        ("masking", f"masked: a modality absent in {mask.modality:.0%} of the training windows, noise of "
                    f"{mask.noise:g} SD on the features; unmasked: neither"),
        ("parameters", ", ".join(f"{shown(k)} {v:,}" for k, v in found.parameters.items())),
        ("seconds of this run", f"{found.seconds:.0f}; finished folds are read back and take none"),
    ]  # fmt: skip
    return table(["", ""], [row for row in rows if row[1]])


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def shown(system: str) -> str:
    return NAMES.get(system, {"eda": "EDA"}.get(system, system))


def _decided(found: ClaimsFound) -> list[str]:
    mine, control = map(shown, found.primary)
    return [
        "## Decided before the run",
        "",
        f"- **Margin.** Differences within ±{MARGIN:g} are of no consequence. Two systems are *equivalent* where the "
        "90 % interval of their difference lies within the margin (two one-sided tests at 5 %).",
        f"- **The claim.** {mine} against {control}, which has as many parameters and no joint source: clean, with "
        "faults of each modality, with faults of all at the same time, with one absent; trained with and without "
        "masking; on all training people and on fewer. A group's score is the mean over its conditions.",
        f"- **Intervals.** {DRAWS} draws of people and of seeds, both with replacement, the same for all systems. A "
        "score is the mean over seeds. They do not cover the draw of the folds, the backbones' seed or the cohort.",
        f"- **Many comparisons.** p is two-sided and corrected by Holm within each table of differences; *above* and "
        f"*below* mean corrected p < {LEVEL:g}, *undecided* neither that nor equivalent.",
        "- **Joint information.** A gain that is as large when the EDA of each window is that of another window of the "
        "same person and class is not joint information: it has to exceed the gain on such re-paired windows.",
        "- **Faults.** EDA and sound are spoiled at the source and pass the live quality rules, which may treat them "
        "as absent. Faces are spoiled as crops of the clean picture, and no rule intervenes. No system was trained on "
        "faults.",
    ]


def conclusion(
    found: ClaimsFound,
    metric: str,
    claim: Mapping[tuple[str, str, str], Verdict],
    joint: Mapping[str, tuple[Estimate, Estimate, Verdict]],
    folds: Mapping[tuple[str, str, str], Verdict],
) -> list[str]:
    """What the numbers say, in sentences."""
    mine, control = map(shown, found.primary)
    words = [v.word for v in claim.values()]
    counts = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))
    above = [k for k, v in claim.items() if v.word.startswith("above")]
    verdict = (
        f"{mine} is above {control} in {len(above)} of {len(claim)} comparisons ({'; '.join(map(_case, above))})"
        if above
        else f"{mine} is above {control} in none of {len(claim)} comparisons"
    )
    best = found.best_single(metric)
    share = found.shares[0]
    gain = found.score(share, found.primary[0], MASKED, [CLEAN], metric) - found.score(
        share, best, MASKED, [CLEAN], metric
    )
    lines = [f"- {verdict}: {counts}."]
    lines.append(
        f"- {mine}, clean, all training people, minus the best single modality ({shown(best)}): {_signed(gain)}."
    )
    for s, (_, _, v) in joint.items():
        lines.append(
            f"- Joint information ({float(s):.0%} of the people): the gain over {control} exceeds that on re-paired "
            f"windows by {_signed(v.difference)}, {v.word}."
        )
    for (s, system, group), v in folds.items():
        if group == CLEAN:
            lines.append(
                f"- {shown(system)} on {float(s):.0%} of the people: out-of-fold features change it by "
                f"{_signed(v.difference)}, {v.word}."
            )
    return lines


def _case(key: tuple[str, str, str]) -> str:
    share, way, group = key
    return f"{group}, {way}, {float(share):.0%} of the people"


def _signed(e: Estimate) -> str:
    return score_table.difference(e.value, *e.interval)


def _verdict_cells(v: Verdict) -> list[str]:
    spread = float(v.difference.by_seed.std(ddof=1)) if len(v.difference.by_seed) > 1 else 0.0
    return [_signed(v.difference), f"{spread:.3f}", f"{v.p_holm:.3f}", v.word]


_JUDGED = ["difference (95 %)", "SD over seeds", "p (Holm)", "verdict"]


def _claim(found: ClaimsFound, metric: str, claim: Mapping[tuple[str, str, str], Verdict]) -> list[str]:
    mine, control = found.primary
    rows = []
    for (share, way, name), v in claim.items():
        scores = (found.score(share, s, way, found.groups[name], metric).value for s in (mine, control))
        rows.append([f"{float(share):.0%}", way, name, *(f"{x:.3f}" for x in scores), *_verdict_cells(v)])
    return table(["people", "training", "test", shown(mine), shown(control), *_JUDGED], rows)


def _joint(found: ClaimsFound, joint: Mapping[str, tuple[Estimate, Estimate, Verdict]]) -> list[str]:
    rows = [[f"{float(s):.0%}", _signed(t), _signed(m), *_verdict_cells(v)] for s, (t, m, v) in joint.items()]
    return table(["people", "gain, true pairs", "gain, re-paired", *_JUDGED], rows)


def _folds(found: ClaimsFound, metric: str, folds: Mapping[tuple[str, str, str], Verdict]) -> list[str]:
    rows = []
    for (share, system, name), v in folds.items():
        scores = (found.score(share, system, way, found.groups[name], metric).value for way in (MASKED, CROSS_FIT))
        rows.append([f"{float(share):.0%}", shown(system), name, *(f"{x:.3f}" for x in scores), *_verdict_cells(v)])
    return [
        "The fusion is trained on features of backbones that were not trained on the person, mapped to the fold's "
        "backbone by ridge regression on the validation people; validation and test features stay.",
        "",
        *table(["people", "system", "test", "own features", "out-of-fold", *_JUDGED], rows),
    ]


def _systems(found: ClaimsFound, metric: str) -> list[str]:
    """Every system under every way of training: the score of each group with its interval."""
    rows = []
    for share in found.shares:
        for way in (MASKED, UNMASKED, REPAIRED, CROSS_FIT):
            for system in found.systems(share, way):
                cells = []
                for group in found.groups.values():
                    if way == REPAIRED and group != [CLEAN]:
                        cells.append("")
                        continue
                    e = found.score(share, system, way, group, metric)
                    cells.append(f"{e.value:.3f} {score_table.interval(e.interval)}")
                alone = system not in found.parameters
                rows.append([f"{float(share):.0%}", "" if alone else way, shown(system), *cells])
    return table(["people", "training", "system", *found.groups], rows)


def _conditions(found: ClaimsFound, metric: str) -> list[str]:
    share = found.shares[0]
    systems = found.systems(share, MASKED)
    rows = []
    for group in found.groups.values():
        for c in group:
            rows.append([c, *(f"{found.score(share, s, MASKED, [c], metric).value:.3f}" for s in systems)])
    return [
        f"{float(share):.0%} of the training people, masked. `claims.csv` has all shares and ways, with intervals.",
        "",
        *table(["test", *map(shown, systems)], rows),
    ]


def _rows(found: ClaimsFound) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for share, variants in found.sums.items():
        for variant, table_of in variants.items():
            system, way = found.variants[variant]
            for condition, sums in table_of.items():
                for metric in found.metrics():
                    e = estimate([sums], metric, found.draws)
                    low, high = e.interval
                    spread = float(e.by_seed.std(ddof=1)) if len(e.by_seed) > 1 else 0.0
                    rows.append([share, system, way, condition, metric, f"{e.value:.5f}", f"{low:.5f}", f"{high:.5f}",
                                 f"{spread:.5f}"])  # fmt: skip
    return rows


def _plot(path: Path, found: ClaimsFound, claim: Mapping[tuple[str, str, str], Verdict], metric: str) -> None:
    """Differences with their intervals over the margin; filled markers are masked, open ones unmasked."""
    groups, shares = list(found.groups), found.shares
    figure, axes = plt.subplots(
        1, len(shares), figsize=(1.6 + 3.6 * len(shares), 0.55 * len(groups) + 1.4), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, share in zip(axes[0], shares):
        ax.axvspan(-MARGIN, MARGIN, color="0.88", label=f"margin ±{MARGIN:g}")
        ax.axvline(0, color="0.4", lw=0.8)
        for way, shift, marker, fill in ((MASKED, -0.15, "o", "black"), (UNMASKED, 0.15, "s", "white")):
            for y, name in enumerate(groups):
                if (share, way, name) not in claim:
                    continue
                d = claim[share, way, name].difference
                ax.plot(d.interval, [y + shift] * 2, color="black", lw=1.2)
                ax.plot(d.value, y + shift, marker, color="black", mfc=fill, ms=5, label=way if not y else None)
        ax.set_title(f"{float(share):.0%} of the training people", fontsize=10)
        ax.set_xlabel(f"difference of {LABELS[metric]}, 95 %")
        ax.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(groups)), groups)
    axes[0][0].invert_yaxis()
    mine, control = map(shown, found.primary)
    figure.suptitle(f"{mine} minus {control}; {found.subjects} people, {found.windows} windows, {found.seeds} seeds",
                    fontsize=10)  # fmt: skip
    handles = {h.get_label(): h for h in axes[0][0].get_legend_handles_labels()[0]}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save(figure, path)
