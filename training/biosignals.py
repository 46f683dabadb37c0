"""What the biosignals of a data set hold: every EDA file is read, as training reads it, for `train --check`.

Rates, lengths, ranges, windows that the quality rule refuses and files with the same values are reported. Files that
have not changed since are not read again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..media.eda_files import Asked, read_eda_file
from ..preprocessing.quality import EdaQuality
from .data import Cohort, Trial
from .keys import write

_FEW = 32  # files that are read sooner than processes start
_ODD_RATE = 0.05  # relative distance from the usual rate
_SHOWN = 3  # examples of each finding
_RULES = 1  # raise it when Facts or what they are computed from changes


@dataclass(frozen=True)
class Facts:
    """One signal: rate in Hz, seconds, its lowest, median and highest µS; refused: why the quality rule refuses its
    end, empty where it does not; digest: of the values. error: why it cannot be read."""

    rate: float = 0.0
    seconds: float = 0.0
    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0
    refused: str = ""
    digest: str = ""
    error: str = ""


def facts(times: NDArray[np.float64], values: NDArray[np.float64], rate: float) -> Facts:
    """times: (n,) s. values: (n,) µS with at least one number."""
    quality = EdaQuality()
    quality.update(times, values.astype(np.float32))
    end = float(times[-1]) + (1.0 / rate if rate else 0.0)
    verdict = quality.verdict(end, end)
    low, middle, high = np.nanpercentile(values, [0, 50, 100]).tolist()
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
    return Facts(rate, end, low, middle, high, "" if verdict.ok else verdict.reason, digest)


def _read(path: Path) -> Facts:
    try:
        found = read_eda_file(path, Asked(column="gsr"), strict=True)
    except SourceError as error:
        return Facts(error=str(error))
    return facts(found.times, found.values, found.measured_rate)


def check_biosignals(cohort: Cohort, *, workers: int = 1, cache: Path | None = None) -> list[str]:
    """Read the EDA of every recording of `cohort`; what was found, as lines.

    Files that cannot be read go to `cohort.problems`: DataError, or with `skip` counted and listed. cache: a folder.
    """
    trials = _with_eda(cohort)
    if not trials:
        return []
    if cohort.layout == "painmonit":
        named = dict(_painmonit(trials, cohort.rate))
    else:
        named = _files({str(r.files["eda"]): r.files["eda"] for r in trials}, workers, cache)
    good: dict[str, Facts] = {}
    for name, found in named.items():
        if found.error:
            cohort.problems.refuse(found.error)
        else:
            good[name] = found
    return _lines(good, len(named)) if good else []


def sample_of(cohort: Cohort, count: int) -> dict[str, Facts]:
    """The facts of about `count` EDA signals, spread evenly over the data set."""
    trials = _with_eda(cohort)
    trials = trials[:: max(1, len(trials) // count)]
    if cohort.layout == "painmonit":
        return dict(_painmonit(trials, cohort.rate))
    return {r.id: _read(r.files["eda"]) for r in trials}


def _with_eda(cohort: Cohort) -> list[Trial]:
    """Trials with recorded EDA in files of its own."""
    return [r for r in cohort.trials if "eda" in r.files and r.kind not in ("sim", "silver")]


def _painmonit(trials: Iterable[Trial], rate: float) -> Iterator[tuple[str, Facts]]:
    """The windows of X.npy, one at a time."""
    x: NDArray[np.floating] | None = None
    for r in trials:
        x = np.load(r.files["eda"], mmap_mode="r") if x is None else x
        column = int(r.kind.split(":")[1])
        row = x[int(r.id)].reshape(x.shape[1], x.shape[2])
        values = np.asarray(row[:, column] if row.shape[1] == 6 else row[column], np.float64)
        yield f"X.npy row {r.id}", facts(np.arange(len(values)) / rate, values, rate)


def _files(paths: dict[str, Path], workers: int, cache: Path | None) -> dict[str, Facts]:
    store = cache / "biosignals.json" if cache is not None else None
    known: dict[str, Facts] = {}
    if store is not None:
        with suppress(OSError, ValueError, TypeError, AttributeError):  # a cache that cannot be read is built again
            known = {key: Facts(**plain) for key, plain in json.loads(store.read_text()).items()}
    keys = {name: _key(path) for name, path in paths.items()}
    missing = [name for name, key in keys.items() if key not in known]
    if len(missing) > _FEW and workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            fresh = list(pool.map(_read, [paths[name] for name in missing], chunksize=8))
    else:
        fresh = [_read(paths[name]) for name in missing]
    known.update({keys[name]: found for name, found in zip(missing, fresh)})
    if store is not None and missing:
        with suppress(OSError):  # the cache only saves time
            write(store, json.dumps({key: asdict(found) for key, found in known.items()}))
    return {name: known[key] for name, key in keys.items()}


def _key(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return f"{_RULES} {path} absent"
    return f"{_RULES} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _lines(good: dict[str, Facts], total: int) -> list[str]:
    rate = float(np.median([f.rate for f in good.values()]))
    seconds = [f.seconds for f in good.values()]
    low, high = min(f.low for f in good.values()), max(f.high for f in good.values())
    middle = float(np.median([f.middle for f in good.values()]))
    lines = [
        f"biosignals  {len(good)} of {total} EDA signals read: {rate:.4g} Hz, {min(seconds):.2f} to {max(seconds):.2f} "
        f"s, {low:.3g} to {high:.3g} µS (median {middle:.3g})"
    ]
    odd = [name for name, f in good.items() if abs(f.rate - rate) > _ODD_RATE * rate]
    if odd:
        lines.append(f"  rate      {len(odd)} differ from {rate:.4g} Hz: {_some(odd)}")
    reasons = Counter(f.refused.split(":")[0] for f in good.values() if f.refused)
    for reason, n in reasons.most_common():
        lines.append(
            f"  quality   {n} not used: {reason}: {_some([k for k, f in good.items() if f.refused.startswith(reason)])}"
        )
    groups: dict[str, list[str]] = {}
    for name, f in good.items():
        groups.setdefault(f.digest, []).append(name)
    for names in [names for names in groups.values() if len(names) > 1]:
        lines.append(f"  the same  {len(names)} signals hold the same values: {_some(names)}")
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
