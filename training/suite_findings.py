"""What the ablation suite found: the input of its report and plots."""

from __future__ import annotations

from dataclasses import dataclass

from .comparison import Difference
from .recipes import Recipe
from .scores import Scores
from .suite_costs import Cost

METRICS = ("balanced_accuracy", "ccc_mean")
Table = dict[str, Scores]  # condition -> scores


@dataclass(frozen=True)
class Findings:
    """All that the report shows; shares are written as in the folders' names.

    results: share -> system -> condition -> scores. interval, and above[metric][reference][system] (a system minus the
    reference on the same draws of subjects), are of clean input at the largest share. trained: share -> fewest and most
    training subjects of a split; selected: the same of the validation side.
    """

    recipe: Recipe
    systems: dict[str, Recipe]
    results: dict[str, dict[str, Table]]
    interval: dict[str, dict[str, tuple[float, float]]]
    above: dict[str, dict[str, dict[str, Difference]]]
    costs: dict[str, Cost]
    protocol: str
    seed: int
    subjects: int  # scored
    windows: int
    trained: dict[str, tuple[int, int]]
    selected: tuple[int, int]
    cohort: str

    @property
    def full(self) -> dict[str, Table]:
        return self.results[max(self.results, key=float)]

    def metrics(self) -> list[str]:
        some = next(iter(self.full.values()))["clean"].pooled
        return [m for m in METRICS if m in some]

    def order(self, metric: str) -> list[str]:
        """Systems, the best clean score first."""
        return sorted(self.full, key=lambda s: -self.full[s]["clean"].pooled[metric])

    def best_single(self, metric: str) -> str:
        """The best modality alone, "" without any."""
        return next((s for s in self.order(metric) if self.systems[s].fusion == "unimodal"), "")

    def conditions(self) -> list[str]:
        found = dict.fromkeys(c for table in self.full.values() for c in table)
        return sorted(found, key=lambda c: (c != "clean", c.startswith("without")))
