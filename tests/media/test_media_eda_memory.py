"""An hour at 1000 Hz is read in under 200 MB, as /proc counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

N = 3_600_000
READ = r"""
import re, sys
from jmt_edge.capture import open_source
source = open_source("eda", sys.argv[1])
source.open(0.0)
total = last = 0.0
for until in range(0, 3601, 10):
    chunk = source.read(float(until))
    total += float(chunk.values.sum(dtype="f8"))
    last = float(chunk.times[-1])
peak = int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
print(peak / 1024, total, last, source.status().lost)
"""


def peak(spec: object) -> tuple[float, float, float, float]:
    """(MB, sum of the values, time of the last, lost) of a process that does nothing else."""
    done = subprocess.run([sys.executable, "-c", READ, str(spec)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    megabytes, total, last, lost = map(float, done.stdout.split())
    return megabytes, total, last, lost


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_an_hour_at_1000_hz(tmp_path: Path) -> None:
    values = 5 + 0.5 * np.sin(np.arange(N) / 3000) + 0.01 * (np.arange(N) % 7)
    with (tmp_path / "a.csv").open("w") as file:
        file.write("t,uS\n")
        for i in range(0, N, 20_000):
            file.write("".join(f"{k / 1000:.3f},{v:.4f}\n" for k, v in enumerate(values[i : i + 20_000].tolist(), i)))
    megabytes, total, last, lost = peak(tmp_path / "a.csv")
    assert total == pytest.approx(values.sum(), rel=1e-5) and last == pytest.approx(3599.999) and lost == 0
    assert megabytes < 200, f"{megabytes:.0f} MB"
