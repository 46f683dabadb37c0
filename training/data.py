"""A data set for training: trials with labels, cut into windows of clips.

A reader (`readers.py`) turns a folder into a `Cohort`, and `cut_windows` turns that into windows. A window ends at some
time of a trial and refers, for each modality and step, to a row in that modality's list of distinct clips, so windows
share clips that are computed once.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..capture.simulated.person import BIOVID_NON_REACTIVE
from ..errors import DataError, SourceError
from ..tasks import Modality, Task

PAIN_CLASSES = ("BL1", "PA4")  # BioVid's no pain and strongest pain
Clip = tuple[int, float]  # trial number, end of the clip in seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Labels:
    """Labels over time: `values[output]` holds one number for each of `times` (s), NaN where unlabelled."""

    times: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]

    def at(self, output: str, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The label of the last labelled moment at or before each `t`; NaN before the first."""
        if output not in self.values:
            return np.full(np.shape(t), np.nan)
        index = np.searchsorted(self.times, np.asarray(t) + 1e-6, side="right") - 1
        return np.where(index >= 0, self.values[output][np.maximum(index, 0)], np.nan)


@dataclass(frozen=True)
class Trial:
    """One continuous piece of one person's data. files: of each modality (`sources.py`)."""

    id: str
    subject: str
    files: Mapping[str, Path]
    duration: float
    labels: Labels
    ends: tuple[float, ...] = ()  # window ends, where the layout fixes them
    part: str = ""  # "train" or "validation" where the data set has an official split
    kind: str = "trial"


@dataclass
class Problems:
    """Samples that cannot be used: an error at once, or with `skip` counted and listed."""

    skip: bool = False
    bad: list[str] = field(default_factory=list)
    absent: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    _counted: set[tuple[str, str]] = field(default_factory=set, repr=False)  # several steps look for a file

    def guard(self, read: Callable[[], T]) -> T | None:
        """`read()`; None where it fails and bad samples are skipped."""
        try:
            return read()
        except (DataError, SourceError) as error:
            self.refuse(str(error))
            return None

    def refuse(self, why: str) -> None:
        """A sample that cannot be used: raises DataError, or with `skip` counts it."""
        if not self.skip:
            raise DataError(f"{why} (or pass --skip-bad)") from None
        if why not in self.bad:
            self.bad.append(why)

    def missing(self, what: str, path: Path) -> None:
        """Count a file that a real copy may lack, each once however often it is looked for, and keep one example."""
        if (what, str(path)) in self._counted:
            return
        self._counted.add((what, str(path)))
        self.absent[what] += 1
        self.examples.setdefault(what, str(path))

    def lines(self) -> list[str]:
        out = [f"{n} absent: {what} (for example {self.examples[what]})" for what, n in self.absent.items()]
        if self.bad:
            out += [f"{len(self.bad)} bad samples skipped:"] + [f"  {line}" for line in self.bad]
        return out


@dataclass
class Cohort:
    """A data set as found on disk."""

    layout: str
    root: Path
    trials: list[Trial]
    problems: Problems
    numbers: dict[str, int] = field(default_factory=dict)  # subject -> the data set's own number, if it has one
    rate: float = 0.0  # PainMonit: samples per second of X
    people: str = ""  # the data set that its subject ids belong to; the same id in another data set is another person
    classes: tuple[str, ...] = ()  # names of pain's classes 0 and 1
    rule: str = ""  # where the labels come from

    @property
    def subjects(self) -> list[str]:
        return sorted({r.subject for r in self.trials})

    @property
    def modalities(self) -> list[str]:
        return [m for m in ("face", "voice", "eda") if any(m in r.files for r in self.trials)]

    def of_part(self, part: str) -> list[str]:
        """Subjects of a part of the official split."""
        return sorted({t.subject for t in self.trials if t.part == part})

    def reactive(self, subjects: Iterable[str]) -> list[str]:
        """`subjects` without BioVid's 20 non-reactive ones. Raises DataError without subject numbers."""
        if not self.numbers:
            raise DataError(f"{self.root} has no samples.csv with subject numbers, which the 67-subject protocol needs")
        return [s for s in subjects if self.numbers[s] not in BIOVID_NON_REACTIVE]


def person(subject: str) -> str:
    """A subject id for comparison, without differences of case, width and spaces."""
    return " ".join(unicodedata.normalize("NFKC", subject).casefold().split())


def one_spelling(cohort: Cohort) -> Cohort:
    """`cohort` with each subject id spelled as where it first occurs: `A` and `a ` are one subject."""
    first: dict[str, str] = {}
    trials = []
    for r in cohort.trials:
        name = first.setdefault(person(r.subject), r.subject)
        trials.append(r if name == r.subject else replace(r, subject=name))
    numbers = {first.get(person(s), s): n for s, n in cohort.numbers.items()}
    return replace(cohort, trials=trials, numbers=numbers)


@dataclass
class WindowTable:
    """Windows over a cohort. Shapes: rows[m] (W, S) int, -1 where a clip is absent; labels[o] (W, S) float32."""

    task: Task
    trials: list[Trial]
    clips: dict[str, list[Clip]]
    rows: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.float32]]
    trial: NDArray[np.int64]
    end: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.end)

    @property
    def subject(self) -> NDArray[np.str_]:
        return np.array([self.trials[i].subject for i in self.trial], dtype=str)

    def take(self, index: NDArray[np.int64]) -> WindowTable:
        return replace(
            self,
            rows={m: r[index] for m, r in self.rows.items()},
            labels={o: y[index] for o, y in self.labels.items()},
            trial=self.trial[index],
            end=self.end[index],
        )

    def with_used_clips(self) -> WindowTable:
        """The same windows without unused clips, so that only the used ones are computed."""
        clips, rows = {}, {}
        for name, table in self.rows.items():
            used = np.unique(table[table >= 0])
            clips[name] = [self.clips[name][i] for i in used]
            rows[name] = np.where(table >= 0, np.searchsorted(used, table), -1)
        return replace(self, clips=clips, rows=rows)

    def of(self, subjects: Iterable[str]) -> WindowTable:
        """The windows of these subjects."""
        return self.take(np.flatnonzero(np.isin(self.subject, np.array(sorted(subjects), dtype=str))))


def step_times(task: Task, end: float) -> NDArray[np.float64]:
    """(S,) the time of each step: its clip's end, without the offset of the video's crop."""
    stride = max(m.stride for m in task.modalities)
    return end - stride * np.arange(task.steps - 1, -1, -1, dtype=np.float64)


def cut_windows(cohort: Cohort, task: Task, *, hop: float | None = None) -> WindowTable:
    """Cut every trial into the task's windows.

    A trial has the windows that its layout fixes, or else one every `hop` seconds (default: the task's stride) from its
    first clip on, so early windows lack steps as in a live run. With a hop longer than the stride, the last window
    still ends with the trial. Raises DataError where no window is left.
    """
    stride = max(m.stride for m in task.modalities)
    hop = hop or stride or task.window
    clips: dict[str, list[Clip]] = {m.name: [] for m in task.modalities}
    rows: dict[str, list[NDArray[np.int64]]] = {m.name: [] for m in task.modalities}
    labels: dict[str, list[NDArray[np.float64]]] = {o: [] for o in task.outputs}
    owner: list[NDArray[np.int64]] = []
    ends: list[NDArray[np.float64]] = []
    for number, trial in enumerate(cohort.trials):
        at = np.asarray(trial.ends or _grid(trial.duration, hop, stride), np.float64)
        window = {m.name: _rows(m, task.steps, number, trial, at, clips[m.name]) for m in task.modalities}
        truth = {o: trial.labels.at(o, at[:, None] + step_times(task, 0.0)) for o in task.outputs}
        seen = np.any([row[:, -1] >= 0 for row in window.values()], axis=0)
        keep = np.flatnonzero(seen & np.any([(~np.isnan(y)).any(1) for y in truth.values()], axis=0))
        for name, row in window.items():
            rows[name].append(row[keep])
        for o, y in truth.items():
            labels[o].append(y[keep])
        owner.append(np.full(len(keep), number, np.int64))
        ends.append(at[keep])
    if not sum(map(len, owner)):
        longest = max((r.duration for r in cohort.trials), default=0.0)
        raise DataError(
            f"{cohort.root} has no window that task '{task.name}' can use: it has {', '.join(cohort.modalities)} in "
            f"trials of up to {longest:.1f} s for clips of {max(m.span for m in task.modalities):.1f} s; run "
            "`jmt-edge train --check` on it (PainMonit: with its --rate)"
        )
    return WindowTable(
        task,
        cohort.trials,
        clips,
        {m: np.concatenate(r) for m, r in rows.items()},
        {o: np.concatenate(y).astype(np.float32) for o, y in labels.items()},
        np.concatenate(owner),
        np.concatenate(ends),
    )


def _rows(
    m: Modality, steps: int, number: int, trial: Trial, ends: NDArray[np.float64], clips: list[Clip]
) -> NDArray[np.int64]:
    """(windows, S) rows in `clips` of the clips of windows that end at `ends`, -1 where absent; new clips are added in
    the order in which the windows need them.
    """
    times = ends[:, None] + np.array(m.clip_ends(steps))
    usable = _usable(times, m.span, trial.duration) & (m.name in trial.files)
    rows = np.full(times.shape, -1, np.int64)
    distinct, first, which = np.unique(times[usable].round(6), return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) + len(clips)
    rows[usable] = place[which]
    clips += [(number, float(t)) for t in distinct[order]]
    return rows


def _grid(duration: float, hop: float, stride: float) -> NDArray[np.float64]:
    """Every `hop` seconds, and the last clip's end where the hop does not reach it."""
    ends = hop * np.arange(1, int(duration / hop + 1e-6) + 1)
    last = stride * int(duration / stride + 1e-6) if stride else 0.0
    longer = last > (ends[-1] if ends.size else 0.0) + 1e-6
    return np.asarray(np.append(ends, last) if longer else ends, np.float64)


def _usable(ends: NDArray[np.float64], span: float, duration: float) -> NDArray[np.bool_]:
    """Whether at least half of each clip lies inside the trial."""
    return np.asarray(np.minimum(ends, duration) - np.maximum(ends - span, 0.0) >= span / 2 - 1e-6)


def re_paired(windows: WindowTable, seed: int = 0) -> WindowTable:
    """`windows` in which the EDA of each is that of another window of the same person and pain class.

    Every signal, label and split stays, but face and skin no longer belong to the same moment: a gain of a fusion that
    survives this is not joint information. Where a person has one window of a class, it stays as it is. Raises
    DataError without pain labels or with EDA alone.
    """
    if "pain" not in windows.labels or "eda" not in windows.rows or len(windows.rows) < 2:
        raise DataError(
            f"re-pairing needs pain labels, EDA and another modality; task '{windows.task.name}' has labels of "
            f"{', '.join(windows.labels)} and {', '.join(windows.rows)}"
        )
    rng = np.random.default_rng(seed)
    rows = windows.rows["eda"].copy()
    who, label = windows.subject, windows.labels["pain"][:, -1]
    for name in np.unique(who):
        for y in np.unique(label[who == name]):
            at = rng.permutation(np.flatnonzero((who == name) & (label == y)))
            rows[at] = windows.rows["eda"][np.roll(at, 1)]  # a cycle: none keeps its own
    return replace(windows, rows={**windows.rows, "eda": rows})


def class_counts(windows: WindowTable) -> dict[int, int]:
    """Number of windows by the pain class of their last step."""
    y = windows.labels["pain"][:, -1]
    values, counts = np.unique(y[~np.isnan(y)], return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts)}


def require_two_classes(windows: WindowTable, side: str) -> None:
    """Raises DataError where a side of a split has windows of only one pain class."""
    if "pain" not in windows.labels:
        return
    counts = class_counts(windows)
    if len(counts) < 2:
        who = ", ".join(sorted(set(windows.subject))[:3]) or "no subjects"
        raise DataError(
            f"the {side} side ({who}, ...) has {len(windows)} windows, only of class {next(iter(counts), 'none')}; use "
            "fewer folds or other subjects"
        )


def describe(cohort: Cohort, windows: WindowTable | None) -> list[str]:
    """The lines of `train --check`."""
    lines = [f"layout      {cohort.layout} at {cohort.root}"]
    lines.append(f"found       {len(cohort.trials)} trials of {len(cohort.subjects)} subjects")
    for m in cohort.modalities:
        lines.append(f"  {m:<9} {sum(m in r.files for r in cohort.trials)} trials")
    parts = Counter(r.part for r in cohort.trials if r.part)
    if parts:
        lines.append("official    " + ", ".join(f"{n} {part}" for part, n in sorted(parts.items())))
    if windows is not None:
        task = windows.task
        lines.append(f"task        {task.name} ({task.variant}): {len(windows)} windows of {task.steps} steps")
        for o, y in windows.labels.items():
            y = y[~np.isnan(y)]
            if o == "pain":
                lines.append("  pain      " + ", ".join(f"class {c}: {n}" for c, n in class_counts(windows).items()))
            elif y.size:
                lines.append(f"  {o:<9} {y.size} labels, mean {y.mean():+.3f}, SD {y.std():.3f}")
        for m, clips in windows.clips.items():
            absent = int((windows.rows[m] < 0).sum())
            lines.append(f"  {m:<9} {len(clips)} distinct clips, {absent} absent steps")
    return lines + cohort.problems.lines()
