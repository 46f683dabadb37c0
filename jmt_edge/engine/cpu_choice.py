"""Which CPU engine `auto` takes: timed once on this processor, and remembered by all that the answer depends on.

OpenVINO runs large 3-D convolutions several times faster than onnxruntime. Small networks it runs no faster, and it
takes 100 MB and a second more, so for those it is not even tried (`LARGE`). The two are timed in a process of their
own: neither the loser's memory nor its threads stay in the run.

    python -m jmt_edge.engine.cpu_choice BUNDLE THREADS     time both; one line of JSON
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..faults import one_item
from .backends.base import F32
from .bundle import Bundle, cpu_graph, load_bundle

log = logging.getLogger(__name__)

LARGE = 16 << 20  # bytes of a bundle's graphs; those of the demo bundles have 4 to 5 MB
GAIN = 0.8  # OpenVINO is taken where a hop takes less than this share of onnxruntime's time
TOLERANCE = 1e-3  # of the outputs of two engines that both compute in float32
HOPS = 5  # that are timed, after one that is not
MOST = 60.0  # s for the comparison: a bedside unit waits for it, once
ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Comparison:
    """seconds: engine -> of a hop, the fastest of `HOPS`. precision: engine -> network -> as it ran. difference: the
    largest between the two engines' outputs, on random clips.
    """

    seconds: dict[str, float]
    precision: dict[str, dict[str, str]]
    difference: float

    def choice(self) -> tuple[str, str]:
        """(engine, a clause that says why)."""
        slow, fast = (self.seconds[name] * 1e3 for name in ENGINES)
        times = f"a hop takes {fast:.1f} ms with OpenVINO, {slow:.1f} with onnxruntime"
        same = self.precision["onnxruntime"] == self.precision["openvino"]
        if same and not self.difference <= TOLERANCE:
            return "onnxruntime", f"openvino: its outputs differ by {self.difference:.1g}"
        if fast > GAIN * slow:
            return "onnxruntime", f"openvino gains less than {1 - GAIN:.0%}: {times}"
        return "openvino", times


def choose_cpu(bundle: Bundle, threads: int | None) -> tuple[str, str]:
    """(`onnxruntime` or `openvino`, a clause that says why; empty where there is nothing to choose).

    threads: None for all cores.

    The first time on this processor both are timed, which takes seconds. A comparison that failed is remembered, too: a
    unit that is started again must not wait for it again.
    """
    if find_spec("openvino") is None or size_of(bundle) < LARGE or _has_gpu():
        return "onnxruntime", ""
    threads = threads or len(os.sched_getaffinity(0))
    key = _key(bundle, threads)
    file = _cache() / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    found = _remembered(file, key)
    if found is None:
        log.info("OpenVINO and onnxruntime are timed, once for this bundle on this processor")
        found = _compared(bundle, threads)
        with one_item("the choice of a CPU engine"):  # a cache that cannot be written costs seconds at each start
            _remember(file, key, found)
    return ("onnxruntime", f"openvino: {found}") if isinstance(found, str) else found.choice()


def size_of(bundle: Bundle) -> int:
    """Bytes of the graphs that a CPU runs."""
    names = {cpu_graph(bundle, network)[0] for network in (*bundle.task.names, "fusion")}
    return sum((bundle.path / name).stat().st_size for name in names)


def compare(bundle: Bundle, threads: int) -> Comparison:
    """Both engines on the same random clips, in turns. Raises BackendError where one refuses the bundle."""
    from .backends import onnxruntime, openvino
    from .session import random_feeds

    engines: dict[str, Any] = {
        "onnxruntime": onnxruntime.load(bundle, threads), "openvino": openvino.load(bundle, threads)
    }  # fmt: skip
    task = bundle.task
    clips = {name: random_feeds(task, name)["clip"] for name in task.names}
    fusion = random_feeds(task, "fusion")
    present = fusion.pop("present").astype(bool)
    fresh = {name: [[task.steps - 1]] for name in task.names}
    outputs: dict[str, Any] = {}
    seconds = {name: float("inf") for name in engines}
    for hop in range(HOPS + 1):
        for name, engine in engines.items():
            began = time.perf_counter()
            step = engine.step(clips, fusion, present, fresh)
            taken = time.perf_counter() - began
            if hop:
                seconds[name] = min(seconds[name], taken)
            outputs[name] = step.outputs
    difference = largest_difference(outputs["onnxruntime"], outputs["openvino"])
    for engine in engines.values():
        engine.close()
    return Comparison(seconds, {name: dict(engine.precision) for name, engine in engines.items()}, difference)


def largest_difference(ours: Mapping[str, F32], theirs: Mapping[str, F32]) -> float:
    """Of outputs of equal shapes by name; NaN where one of either has one, which Python's `max` may pass over."""
    return float(np.max([np.abs(ours[name] - theirs[name]).max() for name in ours]))


def _compared(bundle: Bundle, threads: int) -> Comparison | str:
    """The comparison, or why there is none."""
    command = [sys.executable, "-m", __name__, str(bundle.path), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"not compared within {MOST:g} s"
    found = _read(done.stdout)
    return found or f"not compared ({(done.stderr.strip().splitlines() or ['no reason given'])[-1][:200]})"


def _has_gpu() -> bool:
    """Whether onnxruntime would not use the CPU."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _key(bundle: Bundle, threads: int) -> str:
    """What the answer depends on, as canonical JSON."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    cpu = sorted(set(re.findall(r"^(?:model name|flags|CPU part|CPU implementer|Features)\s*:.*$", info, re.M)))
    parts = {
        "bundle": bundle.sha256, "threads": threads, "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)), "versions": {name: version(name) for name in ENGINES},
        "rules": [GAIN, TOLERANCE, HOPS],
    }  # fmt: skip
    return json.dumps(parts, sort_keys=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jmt-edge" / "cpu"


def _remembered(file: Path, key: str) -> Comparison | str | None:
    """What was found before: the comparison, or why there is none."""
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    found = kept.get("found")
    return found if isinstance(found, str) else _read(json.dumps(found))


def _remember(file: Path, key: str, found: Comparison | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"key": key, "found": found if isinstance(found, str) else asdict(found)}))
    part.replace(file)


def _read(text: str) -> Comparison | None:
    """A comparison from its JSON; None for anything else."""
    try:
        found = Comparison(**json.loads(text))
        found.choice()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(compare(load_bundle(Path(sys.argv[1])), int(sys.argv[2])))))
