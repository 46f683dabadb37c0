"""Watch a run: an observer that logs when a sensor becomes usable or unusable, and why.

It watches a simulated person whose electrode comes off at 15 s for 5 s:

    python examples/own_observer.py
"""

from __future__ import annotations

from collections import Counter

from jmt_edge.capture import open_source
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.live import Observer, Options, Result, RunInfo, Summary, run


class SensorLog(Observer):
    """Override what you need. The loop calls all methods in its own thread and waits for them: never block here."""

    def on_start(self, info: RunInfo) -> None:
        self._usable = dict.fromkeys(info.bundle.task.names, False)
        self._windows = 0
        self._counts: Counter[str] = Counter()

    def on_result(self, result: Result) -> None:
        self._windows += 1
        for name, quality in result.quality.items():
            self._counts[name] += quality.ok
            if quality.ok != self._usable[name]:
                self._usable[name] = quality.ok
                print(f"{result.t:6.1f} s  {name} {'usable' if quality.ok else f'absent: {quality.reason}'}")

    def on_end(self, summary: Summary) -> None:
        for name, count in self._counts.items():
            print(f"{name} took part in {count} of {self._windows} windows")


if __name__ == "__main__":
    bundle = load_bundle(demo_bundle("pain"))
    sources = {
        "face": open_source("face", "sim:seed=3&fps=8"),
        "eda": open_source("eda", "sim:seed=3&fault=open&fault_at=15&fault_for=5"),
    }
    options = Options(hop=0.5, duration=35, realtime=False)  # as fast as possible; a camera needs realtime=True
    run(bundle, open_engine(bundle), sources, options, [SensorLog()])
