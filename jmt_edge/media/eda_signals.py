"""EDA in files of many signals: which one is it, in what unit; what the binary formats share."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError, short
from .eda_delimited import microsiemens
from .eda_rows import F64, Asked, Body, EdaRecording
from .tables import column_number
from .units import written_unit

_EDA = re.compile(
    r"(^|[^a-z])(eda(?:bit(?:rev)?)?|gsr|scl|scr|electrodermal|galvanic|skin ?conductance|conductance)([^a-z]|$)"
)


@dataclass(frozen=True)
class Signal:
    """name, unit: as the file has them. rate: nominal Hz, 0 where samples have their own times.

    load: (times in s, or None where they follow from the rate; values), each (n,). kind: a type that the file states.
    """

    name: str
    unit: str
    rate: float
    load: Callable[[], tuple[F64 | None, NDArray[Any]]]
    kind: str = ""

    @property
    def is_eda(self) -> bool:
        return _names_eda(f"{self.name} {self.kind}")


def _names_eda(text: str) -> bool:
    return _EDA.search(text.lower().replace("_", " ")) is not None


def need(module: str, path: Path, what: str) -> Any:
    """An optional library. Raises SourceError, with the remedy, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            raise SourceError(
                f"EDA file {path} is {what}, and {module} cannot be loaded ({short(error)}); install a version of it "
                "that fits the other packages, or export its EDA as CSV"
            ) from None
        raise SourceError(
            f"EDA file {path} is {what}, which needs {module}; run `pip install 'jmt-edge[formats]'`, or export its "
            "EDA as CSV"
        ) from None


def chosen(body: Body, signals: Iterable[Signal], asked: Asked) -> Signal:
    """The EDA signal, or the one that `asked` names. Raises SourceError where there is none, or a choice."""
    found = list(signals)
    names = [signal.name for signal in found]
    if asked.column is not None:
        wanted = asked.column.strip().lower()
        fitting = [s for s in found if s.name.strip().lower() == wanted]
        if not fitting and (at := column_number(wanted, len(found))) is not None:
            fitting = [found[at]]
    else:
        fitting = [s for s in found if s.is_eda]
        for sure in ([s for s in fitting if written_unit(s.unit)], [s for s in fitting if _names_eda(s.kind)]):
            if len(sure) == 1:
                fitting = sure
                break
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"'{name}'" for name in names[:12]) or "none"
    if not fitting:
        what = "EDA signal" if asked.column is None else f"signal '{asked.column}'"
        raise SourceError(f"EDA file {body.path} has no {what}; choose one of {listed} by FILE?column=NAME")
    choice = ", ".join(f"'{s.name}'" for s in fitting)
    raise SourceError(
        f"EDA file {body.path} has {len(fitting)} EDA signals ({choice}); choose one by FILE?column=NAME, or by its "
        f"number among all ({listed})"
    )


def recording(body: Body, signal: Signal, asked: Asked, kind: str) -> EdaRecording:
    """The signal in µS. Raises SourceError for settings of text files, and as `microsiemens` does."""
    for key in ("time", "sep", "decimal"):
        if getattr(asked, key) is not None:
            raise SourceError(f"EDA file {body.path}: {key}= is for text; leave it out")
    times, raw = signal.load()
    if not len(raw):
        raise SourceError(f"EDA file {body.path}: '{signal.name}' holds no samples; choose another by FILE?column=NAME")
    values = np.asarray(raw, np.float64)
    values, shown = microsiemens(body, values, written_unit(signal.unit) or signal.unit.strip(), signal.name, asked)
    rate = asked.rate or signal.rate
    if times is None or asked.rate is not None:
        if not rate > 0:
            raise SourceError(f"EDA file {body.path}: '{signal.name}' has no rate; give it by FILE?rate=HZ")
        times = np.arange(len(values)) / rate
    else:
        rate = 0.0
    body.last = len(values)
    rows = np.arange(1, len(values) + 1, dtype=np.int32)
    return EdaRecording(times, values, rows, rate, kind, 0, shown, signal.name)
