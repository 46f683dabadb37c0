"""Whether a model and a data set belong together: window, sensors, rate, unit and classes.

A window of another length is cut at another time after the stimulus, or, read with a wrong rate, stretched in time; the
network takes both without complaint. So wherever a model meets data they are compared here, and a difference is refused
with both values. `cross` makes equal what can be made equal (`evaluate --cross`) and names the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..preprocessing.quality import EdaQuality
from ..tasks import TASK_NAMES, Modality, Task, get_task
from .biosignals import Facts, sample_of
from .data import Cohort, Trial

SAME = 0.02  # relative difference up to which two windows or two rates are the same
LOOKED_AT = 24  # EDA signals of a data set, spread evenly


@dataclass(frozen=True)
class DataFacts:
    """What a model's numbers depend on, of the data that it was trained on or is scored on.

    rates: Hz of each signal, as far as known. units: of each signal. classes: names of pain's classes 0 and 1, empty
    where unknown. share: of the trials, those of class 1; None without pain labels. rule: where the labels come from.
    """

    layout: str
    root: str
    trials: int
    subjects: int
    rates: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    share: float | None = None
    rule: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for a run's `data.json` and a bundle's provenance."""
        return {
            "layout": self.layout, "root": self.root, "recordings": self.trials, "subjects": self.subjects,
            "rates": {k: round(v, 3) for k, v in self.rates.items()}, "units": dict(self.units),
            "classes": list(self.classes), "share": self.share, "rule": self.rule,
        }  # fmt: skip

    @classmethod
    def of_recipe(cls, data: Mapping[str, Any], recipe: Mapping[str, Any]) -> DataFacts:
        """Inverse of `to_dict`. What an earlier version did not record is unknown, except for the classes of a recipe
        for BioVid's layout."""
        known = recipe.get("layout") in ("biovid", "trimodal", "simulated")
        return cls(
            data.get("layout", ""), data.get("root", ""), data.get("recordings", 0), data.get("subjects", 0),
            data.get("rates", {}), data.get("units", {}),
            tuple(data.get("classes") or (recipe.get("classes", ()) if known else ())), data.get("share"),
            data.get("rule", ""),
        )  # fmt: skip


def window_of(task: Task) -> float:
    """Seconds of a trial in which the task looks for pain; 0.0 for sequences of valence and arousal, which may begin
    anywhere. A face's clip is shorter than the window that it was cut from, so the EDA's decides."""
    if "pain" not in task.outputs:
        return 0.0
    if "eda" in task.names:
        steps, m = task.steps, task.modality("eda")
    elif task.name in TASK_NAMES:
        preset = get_task(task.name)
        steps, m = preset.steps, preset.modality("eda")
    else:
        return task.window
    return m.span - min(m.clip_ends(steps))


def facts_of(cohort: Cohort) -> DataFacts:
    """The facts of a data set; some of its EDA signals are read. Raises DataError where they are not in µS."""
    rates, units = {}, {}
    found = [f for f in sample_of(cohort, LOOKED_AT).values() if not f.error]
    if found:
        _require_microsiemens(cohort, found)
        rates["eda"], units["eda"] = float(np.median([f.rate for f in found])), "µS"
    pain = [float(r.labels.values["pain"][-1]) for r in cohort.trials if "pain" in r.labels.values and r.ends]
    known = [y for y in pain if not np.isnan(y)] if cohort.layout != "simulated" else []
    share = round(float(np.mean(known)), 4) if known else None
    root = "".join(c if c.isprintable() else "?" for c in cohort.root.name)[:200]
    return DataFacts(
        cohort.layout, root, len(cohort.trials), len(cohort.subjects), rates, units, cohort.classes, share,
        cohort.rule,
    )  # fmt: skip


def facts_of_bundle(manifest: Mapping[str, Any]) -> DataFacts:
    """The facts of the data that a bundle was trained on, as far as its manifest has them."""
    provenance = manifest["provenance"]
    return DataFacts.of_recipe(provenance.get("data", {}), provenance.get("recipe", {}))


def _require_microsiemens(cohort: Cohort, found: list[Facts]) -> None:
    """Raises DataError where most signals cannot be skin conductance in µS: scaled, standardised or another unit."""
    low, high = EdaQuality.RANGE
    middle = [f.middle for f in found]
    outside = sum(not low <= value <= high for value in middle)
    remedy = "export it in µS, neither scaled nor standardised"
    if 2 * outside > len(found):
        raise DataError(
            f"the EDA of {cohort.root} is not in µS: {outside} of {len(found)} signals have a median outside "
            f"{low:g}-{high:g} (in all {np.median(middle):.3g}); {remedy}"
        )
    if len(found) > 1 and sum((f.low, f.high) == (0.0, 1.0) for f in found) * 2 > len(found):
        raise DataError(f"the EDA of {cohort.root} is not in µS: each signal is scaled to 0-1; {remedy}")


# ---- what is refused -----------------------------------------------------------------------------------------------


def require_window(cohort: Cohort, task: Task, remedy: str) -> None:
    """Raises DataError where the cohort's trials are windows of another length than the task's."""
    wanted = window_of(task)
    odd = next((r for r in cohort.trials if wanted and _is_window(r) and not _same(r.ends[0], wanted)), None)
    if odd is not None:
        raise DataError(
            f"the windows of {cohort.root} last {odd.duration:.4g} s and the model's {wanted:.4g} s; {remedy}"
        )


def retrain_remedy(cohort: Cohort, task: Task) -> str:
    """How a recipe gets the cohort's window, for an error of `train`."""
    seconds = next((r.duration for r in cohort.trials if r.ends), 0.0)
    eda = next((m for m in task.modalities if m.name == "eda"), None)
    if eda is None or task.steps > 1:
        return "choose a recipe for such windows, or export other windows"
    samples = round(seconds * eda.shape[-1] / eda.span)
    return (
        f"choose a recipe for such windows, or pass --set 'spans={{\"eda\":{seconds:.4g}}}' "
        f"--set 'shapes={{\"eda\":[1,{samples}]}}'"
    )


def require_same(
    name: str,
    task: Task,
    model: DataFacts,
    cohort: Cohort,
    remedy: str = "pass --cross to make equal what can be equal",
) -> DataFacts:
    """The cohort's facts. Raises DataError where it differs from a model's training data in window, sensors, rate,
    unit or classes; name: of the model."""
    require_window(cohort, task, remedy)
    lacking = [m for m in task.names if m not in cohort.modalities]
    if lacking:
        raise DataError(
            f"{name} takes {' and '.join(task.names)}, and {cohort.root} has no {' and no '.join(lacking)}; {remedy}"
        )
    here = facts_of(cohort)
    for signal, rate in here.rates.items():
        trained = model.rates.get(signal, rate)
        if signal in task.names and not _same(rate, trained):
            raise DataError(
                f"{name} was trained on {signal} at {trained:.3g} Hz, and that of {cohort.root} has {rate:.3g} Hz; "
                f"{remedy}"
            )
    if "pain" in task.outputs and model.classes and here.classes and model.classes != here.classes:
        raise DataError(
            f"{name} tells {' from '.join(reversed(model.classes))}, and the classes of {cohort.root} are "
            f"{' and '.join(here.classes)}; {remedy}"
        )
    return here


def clip_facts(m: Modality) -> dict[str, Any]:
    """What a backbone's weights depend on, of the clips that it was trained on; written into the weights' file."""
    return {"seconds": m.span, "samples": m.shape[-1], "mean": list(m.mean), "SD": list(m.std)}


def require_same_clips(source: str, m: Modality) -> None:
    """Raises DataError where the file of initial weights was trained on EDA clips of another length, rate or scale: a
    filter of EDA spans so many samples of a response. A filter of pictures or spectrograms does not depend on it, and
    files of other programs do not say."""
    from safetensors import SafetensorError, safe_open

    if m.name != "eda" or not source.endswith(".safetensors"):
        return
    try:
        with safe_open(source, "pt") as file:
            kept = json.loads((file.metadata() or {}).get("clip", "{}"))
    except (OSError, SafetensorError, ValueError):
        return  # reading the weights says what is wrong with the file
    mine = clip_facts(m)
    different = next((what for what in mine if what in kept and kept[what] != mine[what]), None)
    if different is not None:
        raise DataError(
            f"{source} was trained on {m.name} clips with {different} = {kept[different]}, and this recipe's have "
            f"{mine[different]}; give weights of such clips, or change the recipe with --set"
        )


def _is_window(trial: Trial) -> bool:
    """Whether a trial is one window, as its layout cuts it, and not a stretch that windows are cut from."""
    return len(trial.ends) == 1 and trial.kind != "sim"


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(abs(a), abs(b))


# ---- another data set ----------------------------------------------------------------------------------------------


def cross(
    name: str, task: Task, model: DataFacts, cohort: Cohort, *, trained: int, end: float | None = None
) -> tuple[Cohort, list[str]]:
    """`cohort` with the model's window cut from each trial, and the lines that say what differs.

    end: s after a trial's start where the window ends; by default as in training, where it begins with the trial.
    trained: number of subjects that the model was trained on. Raises DataError where the windows are too short, no
    sensor is common, the labels are of something else, or the EDA is not in µS.
    """
    lacking = [m for m in task.names if m not in cohort.modalities]
    if len(lacking) == len(task.names):
        raise DataError(
            f"{name} takes {' and '.join(task.names)}, and {cohort.root} has {' and '.join(cohort.modalities)}; give "
            "data with a sensor of the model"
        )
    labelled = {o for r in cohort.trials for o in r.labels.values}
    common = [o for o in task.outputs if o in labelled]
    if not common:
        raise DataError(
            f"{name} estimates {' and '.join(task.outputs)}, and {cohort.root} has labels of "
            f"{' and '.join(sorted(labelled)) or 'nothing'}; give data with labels of what the model estimates"
        )
    here = facts_of(cohort)
    cut, window = _cut(name, task, cohort, end)
    lines = [
        f"cross-dataset: {name}, trained on {_named(model)}, scored on {_named(here)}",
        f"  window    {window}",
        *(f"  rate      {line}" for line in _rates(task, model, here)),
        f"  sensor    {_sensors(task, lacking, here)}",
    ]
    if "pain" in common:
        lines.append(f"  labels    trained on {_classes(model)}; here {_classes(here)}")
        lines.append(f"  shares    class 1: {_percent(model.share)} in training, {_percent(here.share)} here")
    if len(common) < len(task.outputs):
        lines.append(f"  labels    none of {', '.join(o for o in task.outputs if o not in common)} here: not scored")
    lines.append(f"  subjects  {trained} trained on; {here.subjects} here")
    return cut, lines


def _cut(name: str, task: Task, cohort: Cohort, end: float | None) -> tuple[Cohort, str]:
    """The cohort with the model's window in each trial, and what was cut."""
    wanted = window_of(task)
    if not wanted or not any(_is_window(r) for r in cohort.trials):
        if end is not None:
            raise DataError(f"--window-end has no effect: {cohort.root} is not cut into one window a trial; omit it")
        return cohort, "cut from the whole of each trial, as in training"
    at = wanted if end is None else end
    least = min(r.duration for r in cohort.trials)
    if at > least * (1 + SAME) or at < wanted * (1 - SAME):
        raise DataError(
            f"{name} needs windows of {wanted:.4g} s, and {wanted:.4g} s that end at {at:.4g} s do not lie within "
            f"trials of {least:.4g} s in {cohort.root}; "
            + ("export longer windows, or train a model on windows of this length" if end is None else
               f"give --window-end between {wanted:.4g} and {least:.4g}")
        )  # fmt: skip
    if all(_same(r.ends[0], at) for r in cohort.trials if _is_window(r)):
        return cohort, f"{wanted:.4g} s in both"
    at = min(at, least)
    trials = [replace(r, ends=(at,)) if _is_window(r) else r for r in cohort.trials]
    why = ", from the trial's start as in training" if end is None else ""
    return replace(cohort, trials=trials), (
        f"{wanted:.4g} s in training, trials of {least:.4g} s here: seconds {max(at - wanted, 0):.4g} to {at:.4g} of "
        f"each are used{why}"
    )


def _named(facts: DataFacts) -> str:
    return f"{facts.layout or 'unknown data'} ({facts.root})" if facts.root else facts.layout or "unknown data"


def _rates(task: Task, model: DataFacts, here: DataFacts) -> list[str]:
    lines = []
    for m in task.modalities:
        if m.name in here.rates:
            trained = f"{model.rates[m.name]:.3g} Hz" if m.name in model.rates else "an unknown rate"
            same = m.name in model.rates and _same(model.rates[m.name], here.rates[m.name])
            here_at = "the same here" if same else f"{here.rates[m.name]:.3g} Hz here"
            lines.append(f"{m.name} at {trained} in training, {here_at}; resampled to the model's {grid(m):.4g} Hz")
    return lines


def grid(m: Modality) -> float:
    """Samples a second that the network of EDA takes."""
    return m.shape[-1] / m.span


def _sensors(task: Task, lacking: list[str], here: DataFacts) -> str:
    parts = [m + (f" in {here.units[m]}" if m in here.units else "") for m in task.names if m not in lacking]
    absent = f"; no {' and no '.join(lacking)} here, scored as a live run without it" if lacking else ""
    return " and ".join(parts) + absent


def _classes(facts: DataFacts) -> str:
    names = " and ".join(f"{name} ({i})" for i, name in enumerate(facts.classes)) or "classes that were not recorded"
    return names + (f" ({facts.rule})" if facts.rule else "")


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{share:.0%}"
