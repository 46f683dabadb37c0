"""`--precision auto`: chooses between several ways to run each network by timing them on this machine.

A way is a precision, or `cubin` for the fused kernel of the fusion. The choice itself does not depend on devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.backends import unavailable
from ..engine.backends.base import Engine
from ..engine.backends.onnxruntime import cpu_threads
from ..engine.bundle import Bundle
from ..engine.session import random_feeds, session
from ..engine.tensorrt_api import Library
from ..errors import BackendError
from ..tasks import Task
from .plan_maker import BuiltPlan

_WORTH = 0.95  # another way must save more than the scatter of a timing, so that `auto` is never slower
_OPTIONAL = ("int8", "cubin")  # left out if they change the scores by more than the limit

Runner = Callable[[], Any]
Times = Mapping[str, Mapping[str, float]]  # network -> way -> milliseconds; the way to keep in doubt first


def fastest(times: Mapping[str, float]) -> str:
    """The first way, unless a later one takes less than 95 % of the best before it."""
    ways = iter(times)
    best = next(ways)
    for way in ways:
        if times[way] < _WORTH * times[best]:
            best = way
    return best


def choose(times: Times, holds: Callable[[Mapping[str, str]], bool]) -> dict[str, str]:
    """Network -> way: the fastest of each; if the scores do not hold, the same without `cubin`, without INT8, or
    without both. `holds(choice)` compares the scores; it is not called for a choice with neither.
    """
    asked: list[dict[str, str]] = []
    for count in range(len(_OPTIONAL) + 1):
        for without in combinations(reversed(_OPTIONAL), count):
            choice = {
                name: fastest({way: ms for way, ms in ways.items() if way not in without})
                for name, ways in times.items()
            }
            if not set(_OPTIONAL) & set(choice.values()):
                return choice
            if choice not in asked and holds(choice):
                return choice
            asked.append(choice)
    raise AssertionError("the choice without both was returned")


def report_of(times: Times, choice: Mapping[str, str]) -> dict[str, Any]:
    """The timings and the choice, for the build report."""
    return {name: {"ms": dict(ways), "chosen": choice[name]} for name, ways in times.items()}


def time_in_turns(runners: Mapping[str, Runner], runs: int = 15, warm: int = 3) -> dict[str, float]:
    """Median milliseconds of each, run in turns so that the machine's drift affects all equally."""
    for run in runners.values():
        for _ in range(warm):
            run()
    spent: dict[str, list[float]] = {way: [] for way in runners}
    for _ in range(runs):
        for way, run in runners.items():
            began = time.perf_counter()
            run()
            spent[way].append((time.perf_counter() - began) * 1e3)
    return {way: float(np.median(times)) for way, times in spent.items()}


def cpu_runtimes() -> dict[str, Callable[[bytes], Callable[[Mapping[str, Any]], Any]]]:
    """The runtimes for a bundle's CPU graphs: onnxruntime, and OpenVINO if it is installed."""

    def with_onnxruntime(model: bytes) -> Callable[[Mapping[str, Any]], Any]:
        opened = session(model)
        return lambda feeds: opened.run(None, dict(feeds))

    def with_openvino(model: bytes) -> Callable[[Mapping[str, Any]], Any]:
        from ..engine.backends.openvino import compile_graph

        compiled = compile_graph(model, cpu_threads())
        return lambda feeds: compiled(dict(feeds))

    found = {"onnxruntime": with_onnxruntime}
    return found | ({"openvino": with_openvino} if unavailable("openvino") is None else {})


@contextmanager
def device_runners(
    bundle: Bundle, library: Library, plans: Mapping[str, Mapping[str, BuiltPlan]], kernel: Any
) -> Iterator[dict[str, dict[str, Runner]]]:
    """Network -> way -> one call on this machine's GPU: upload, replay of the CUDA graph, download.

    plans: precision -> network -> plan. kernel: the fused fusion (`backends.cubin.FusedFusion`), or None.
    """
    from ..engine.backends.tensorrt import TensorRtEngine

    task = bundle.task
    engines: dict[str, TensorRtEngine] = {}
    runners: dict[str, dict[str, Runner]] = {}
    try:
        for precision, made in plans.items():
            loaded = {name: (m.data, m.precision) for name, m in made.items()}
            engines[precision] = TensorRtEngine(bundle, library, loaded)
            for name in made:
                runners.setdefault(name, {})[precision] = _call(engines[precision], task, name)
        if kernel is not None:
            features, present = _window(task)
            runners["fusion"]["cubin"] = lambda: kernel(features, present)
        yield runners
    finally:
        for engine in engines.values():
            engine.close()


def _call(engine: Engine, task: Task, network: str) -> Runner:
    if network != "fusion":
        clips = {network: random_feeds(task, network)["clip"]}
        return lambda: engine.backbones(clips)
    features, present = _window(task)
    return lambda: engine.fusion(features, present)


def _window(task: Task) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
    feeds = random_feeds(task, "fusion")
    present = feeds.pop("present") > 0
    return feeds, present


def open_kernel(bundle: Bundle, sm: str, sms: int) -> tuple[Any, str]:
    """The bundle's fused fusion on this GPU, or None and why not."""
    from ..engine.backends.cubin import FusedFusion
    from ..engine.cubins import read_cubins

    try:
        return FusedFusion(read_cubins(bundle, sm), sms), ""
    except BackendError as error:
        return None, str(error)
