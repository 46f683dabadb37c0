"""Counts false alarms of `bench --compare`.

    python -m benchmarks.no_false_regression [--tries N] [--busy SHARE] [--json FILE]

Each try compares a run with the previous run of the same build, at 10 %. With `--busy 0.5` another program uses half of
one core, in bursts, during every second run. Then each stage in turn is made a quarter slower (it spins for another
25 % of its time, in every process of the run), which must be detected. Exits 1 after a false alarm or a miss.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, stamp, write

LIMIT = 0.10
SLOWED = {"fusion": 1.25, "backbone face": 1.25, "eda": 1.25}


def slow_down(stage: str, factor: float) -> None:
    """Make one stage of this process slower, as a careless change would."""

    def slower(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = work(*args, **kwargs)
            now = time.perf_counter()
            while time.perf_counter() < now + (factor - 1) * (now - began):
                pass
            return result

        return run

    if stage == "eda":
        from jmt_edge.bench import stages

        stages.resample_eda = slower(stages.resample_eda)
        return
    from jmt_edge.engine.backends.onnxruntime import OnnxRuntimeEngine as Engine

    if stage == "fusion":
        Engine.fusion = slower(Engine.fusion)  # type: ignore[method-assign]
        return
    plain, face = Engine.backbones, slower(Engine.backbones)
    Engine.backbones = lambda self, clips: (face if "face" in clips else plain)(self, clips)  # type: ignore[method-assign]


@contextmanager
def busy(share: float) -> Iterator[None]:
    """Another program that works for `share` of the time, 40 ms in every 40 / share ms."""
    if not share:
        yield
        return
    code = (
        "import time\nwhile True:\n t = time.time()\n while time.time() < t + 0.04: pass\n"
        f" time.sleep({0.04 / share - 0.04})"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.terminate()


def measure(path: Path, duration: float, old: Path | None = None, slowed: str = "") -> int:
    """One run of the command; its exit code. `slowed` affects all of its Python processes, since each imports
    `sitecustomize` at its start."""
    command = [sys.executable, "-m", "jmt_edge", "bench", "--task", "pain", "--duration", str(duration)]
    command += ["--json", str(path)]
    if old is not None:
        command += ["--compare", str(old), "--fail-over", f"{LIMIT:.0%}"]
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        if slowed:
            code = f"from benchmarks.no_false_regression import slow_down\nslow_down({slowed!r}, {SLOWED[slowed]})\n"
            (Path(folder) / "sitecustomize.py").write_text(code)
            environment["PYTHONPATH"] = os.pathsep.join([folder, str(ROOT)])
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 1) or not path.is_file():
        sys.exit(done.stderr)
    return done.returncode


def row(old: Path, new: Path, code: int) -> dict[str, Any]:
    """The comparison of two report files."""
    from jmt_edge.bench.compare import compare, load_report

    a, b = load_report(old), load_report(new)
    found = compare(a, b)
    assert code == any(r.regressed(LIMIT) for r in found)
    return {
        "exit_code": code,
        "regressions": [r.stage for r in found if r.regressed(LIMIT)],
        "others_busy": [a["other_cores_busy"], b["other_cores_busy"]],
        "ratios": {r.stage: [round(v, 3) for v in (r.ratio, r.low, r.high)] for r in found},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--duration", type=float, default=10.0)
    parser.add_argument("--busy", type=float, default=0.0)
    parser.add_argument("--no-slowed", action="store_true", help="leave the slower stages out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {
        **stamp(" ".join(["python -m benchmarks.no_false_regression", *sys.argv[1:]]).split(" --json")[0]),
        "limit": LIMIT, "busy": options.busy, "duration": options.duration,
        "tries": [], "slowed_by_25_percent": {},
    }  # fmt: skip
    began = time.monotonic()
    tries, slowed = report["tries"], report["slowed_by_25_percent"]

    def keep() -> None:
        report["false_alarms"] = sum(bool(t["regressions"]) for t in tries)
        report["seconds"] = round(time.monotonic() - began)
        report["missed"] = [stage for stage, found in slowed.items() if stage not in found["regressions"]]
        if options.json:  # after every run: an interrupted series is still a series
            write(options.json, report)

    with tempfile.TemporaryDirectory() as name:
        old, new = Path(name) / "old.json", Path(name) / "new.json"
        measure(old, options.duration)
        for number in range(options.tries):
            with busy(options.busy if number % 2 == 0 else 0.0):
                code = measure(new, options.duration, old)
            tries.append(row(old, new, code))
            keep()
            new.replace(old)
            print(f"try {number + 1}: {tries[-1]['regressions'] or 'agree'} {tries[-1]['ratios']}", flush=True)
        if options.busy and options.tries % 2:
            measure(old, options.duration)  # the last one was disturbed
        for stage in () if options.no_slowed else SLOWED:
            code = measure(new, options.duration, old, stage)
            slowed[stage] = row(old, new, code)
            keep()
            print(f"{stage} x {SLOWED[stage]}: found {slowed[stage]['regressions']}", flush=True)
    print(f"{report['false_alarms']} false alarms in {len(tries)} tries; {report['missed'] or 'none'} missed")
    sys.exit(1 if report["false_alarms"] or report["missed"] else 0)


if __name__ == "__main__":
    main()
