"""The cost of capture: camera, microphone and EDA board at full rate, as a share of one core.

    python -m benchmarks.capture_share --seconds 60 --json capture.json

The camera's decoder, which is OpenCV's, is left out: a substitute delivers a new 640x480 image 30 times per second. The
microphone is PortAudio's default device if there is one; with PulseAudio's null sink it runs in real time at 44.1 kHz.
PortAudio's process is counted. The board is a simulated BITalino at 1000 Hz on a pseudo-terminal, in a separate process
that is not. The live loop's reading, 25 times per second, is included; detection and networks are not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import stamp, write
from jmt_edge.capture import open_source
from jmt_edge.capture.base import Source
from jmt_edge.capture.camera import Camera
from jmt_edge.live.loop import PULL

FPS, WIDTH, HEIGHT, EDA_RATE = 30, 640, 480, 1000
LIMIT = 0.25  # of a core


class Frames:
    """A camera without a decoder: each `grab` waits for its time, `retrieve` gives a fresh image."""

    def __init__(self) -> None:
        self._next = time.monotonic()
        self._image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)

    def grab(self) -> bool:
        self._next += 1 / FPS
        time.sleep(max(0.0, self._next - time.monotonic()))
        return True

    def retrieve(self) -> tuple[bool, Any]:
        return True, self._image.copy()

    def get(self, what: int) -> float:
        known = {cv2.CAP_PROP_FRAME_WIDTH: WIDTH, cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT, cv2.CAP_PROP_FPS: FPS}
        return float(known.get(what, 0))

    def release(self) -> None:
        return


@contextmanager
def board() -> Iterator[str]:
    """A simulated BITalino in a separate process; yields its path."""
    command = [sys.executable, "-m", "jmt_edge", "sim-board", "bitalino", "--rate", str(EDA_RATE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().split()[-1]
    finally:
        process.kill()
        process.wait()


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


def cpu_seconds(processes: set[int]) -> float:
    """Of this process and of `processes`."""
    ticks = 0
    for pid in processes:
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measure(sources: dict[str, Source], seconds: float) -> dict[str, Any]:
    """Share of a core and samples per second of each source, after 3 s of settling."""
    origin, others = time.monotonic(), children()
    for source in sources.values():
        source.open(origin)
    counts = dict.fromkeys(sources, 0)
    began = used = 0.0
    while (now := time.monotonic()) < origin + 3 + seconds:
        if not began and now > origin + 3:
            mine = children() - others  # PortAudio's
            began, used = now, cpu_seconds(mine)
            counts = dict.fromkeys(sources, 0)
        for name, source in sources.items():
            counts[name] += len(source.read(now - origin))
        time.sleep(PULL)
    spent, wall = cpu_seconds(mine) - used, time.monotonic() - began
    lost = {name: source.status().lost for name, source in sources.items()}
    for source in sources.values():
        source.close()
    return {
        "share_of_a_core": spent / wall,
        "seconds": wall,
        "rates": {n: c / wall for n, c in counts.items()},
        "lost": lost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--microphone", default="default", help="as for `jmt-edge live`, or none")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with board() as path:
        eda = open_source("eda", f"bitalino:{path}?channel=3&rate={EDA_RATE}")
        voice = open_source("voice", args.microphone)
        assert eda is not None
        sources: dict[str, Source] = {"face": Camera("0", opener=lambda spec: Frames()), "eda": eda}
        if voice is not None:
            sources["voice"] = voice
        result = measure(sources, args.seconds)
    share = result["share_of_a_core"]
    print(f"capture of {', '.join(sources)}: {100 * share:.1f} % of a core (limit {100 * LIMIT:.0f} %)")
    print("per second:", {name: round(rate, 2) for name, rate in result["rates"].items()}, "lost:", result["lost"])
    if args.json:
        write(args.json, {**stamp(f"python -m benchmarks.capture_share --seconds {args.seconds:g}"), **result})
    sys.exit(share >= LIMIT)


if __name__ == "__main__":
    main()
