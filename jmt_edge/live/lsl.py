"""Results, quality and marks as streams of the Lab Streaming Layer, for LabRecorder and other programs."""

from __future__ import annotations

import math
import time
from typing import Any

from ..capture.lsl import load_pylsl
from ..engine.bundle import INTENDED_USE
from ..errors import ConfigError
from ..faults import one_item
from ..observer import Mark, Observer, RunInfo
from ..result import Result
from ..summary import Summary


class LslOutlets(Observer):
    """Three outlets: NAME (an estimate a channel), NAME-quality (for each modality 1 where it took part, else 0, and
    its score) and NAME-marks (texts).

    Stamps are those of the window's end and of the mark, on the LSL clock; NaN is no number. Raises SourceError, when
    made, where pylsl or liblsl is missing, and ConfigError for an empty name.
    """

    def __init__(self, name: str) -> None:
        if not name.strip():
            raise ConfigError("--lsl needs a name for the streams; write --lsl ward3, for example")
        self._name = name
        self._pylsl: Any = load_pylsl()
        self._outlets: dict[str, Any] = {}
        self._origin = 0.0  # LSL clock at stream time 0
        self._info: RunInfo | None = None

    def on_start(self, info: RunInfo) -> None:
        self._info = info
        self._origin = info.origin + self._pylsl.local_clock() - time.monotonic()
        rate = 1.0 / info.hop
        task = info.bundle.task
        self._open("", "Estimates", rate, list(task.outputs))
        self._open("-quality", "Quality", rate, [f"{name}_{what}" for name in task.names for what in ("ok", "score")])
        self._open("-marks", "Markers", 0.0, ["mark"])

    def _open(self, suffix: str, kind: str, rate: float, channels: list[str]) -> None:
        pylsl = self._pylsl
        assert self._info is not None
        form = pylsl.cf_double64 if rate else pylsl.cf_string
        name = self._name + suffix
        stream = pylsl.StreamInfo(name, kind, len(channels), rate, form, f"jmt-edge {name}")
        about = stream.desc()
        listed = about.append_child("channels")
        for label in channels:
            channel = listed.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("type", kind)
        bundle = self._info.bundle
        about.append_child_value("bundle", bundle.id)
        about.append_child_value("demo", str(bundle.demo).lower())
        about.append_child_value("intended_use", INTENDED_USE)
        self._outlets[suffix] = pylsl.StreamOutlet(stream)

    def on_result(self, result: Result) -> None:
        with one_item("LSL outlets"):
            self._send(result)

    def _send(self, result: Result) -> None:
        assert self._info is not None
        stamp, task = self._origin + result.t, self._info.bundle.task
        outputs = result.outputs or {}
        self._outlets[""].push_sample([float(outputs.get(name, math.nan)) for name in task.outputs], stamp)
        quality = [result.quality[name] for name in task.names]
        self._outlets["-quality"].push_sample([x for q in quality for x in (float(q.ok), float(q.score))], stamp)

    def on_mark(self, mark: Mark) -> None:
        with one_item("LSL outlets"):
            self._outlets["-marks"].push_sample([mark.label], self._origin + mark.t)

    def on_end(self, summary: Summary) -> None:
        self._outlets.clear()
