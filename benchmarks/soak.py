"""Many hours of signal as fast as possible, in flat memory.

`python -m benchmarks.soak --hours 24 --out FILE.json -- --task pain --eda sim:`

Runs `jmt-edge live --speed max --output jsonl` with what follows `--` and samples the process from outside: memory,
descriptors and threads. Exits 1 where, after a tenth of the run, memory grows by more than 20 MB, or descriptors or
threads grow at all. `--minutes` stops a run that would take too long; the figures say how many hours it played.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from jmt_edge.machine import describe

MAX_GROWTH_MB = 20.0
PERIOD = 2.0  # s between two samples


def sample(pid: int) -> tuple[float, int, int]:
    """(resident MB, descriptors, threads) of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return mb, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="of signal")
    parser.add_argument("--minutes", type=float, default=600.0, help="of the clock, at most")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("live", nargs="*", help="arguments of `jmt-edge live`")
    args = parser.parse_args()
    command = [sys.executable, "-m", "jmt_edge", "live", "--speed", "max", "--output", "jsonl", "--threads", "1",
               "--duration", str(3600 * args.hours), *args.live]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    counts = {"windows": 0, "numbers": 0, "seconds": 0.0}

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            counts["windows"] += 1
            counts["numbers"] += result["outputs"] is not None
            counts["seconds"] = result["t"]

    errors: list[str] = []
    threads = [threading.Thread(target=read), threading.Thread(target=lambda: errors.append(process.stderr.read()))]  # type: ignore[union-attr]
    for thread in threads:
        thread.start()
    began, samples = time.monotonic(), []
    while process.poll() is None:
        time.sleep(PERIOD)
        try:
            samples.append((counts["seconds"], *sample(process.pid)))
        except OSError:
            break
        if time.monotonic() - began > 60 * args.minutes:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    for thread in threads:
        thread.join()
    clock = time.monotonic() - began
    settled = [s for s in samples[:-1] if s[0] >= counts["seconds"] / 10] or samples[-1:]
    thin = settled[:: max(1, len(settled) // 100)]
    growth = [max(s[k] for s in settled[-5:]) - settled[0][k] for k in (1, 2, 3)]
    figures = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "live": args.live, "machine": describe(),
        "hours_of_signal": round(counts["seconds"] / 3600, 3), "minutes": round(clock / 60, 1),
        "times_real_time": round(counts["seconds"] / clock, 1), "windows": counts["windows"],
        "numbers": counts["numbers"], "exit_code": process.returncode, "growth_mb": round(growth[0], 2),
        "growth_descriptors": growth[1], "growth_threads": growth[2],
        "samples_hours_mb_descriptors_threads": [[round(t / 3600, 3), round(mb, 1), fd, n] for t, mb, fd, n in thin],
    }  # fmt: skip
    print(json.dumps({k: v for k, v in figures.items() if not k.startswith("samples")}))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    failed = process.returncode not in (0, 130) or "Traceback" in "".join(errors)
    return int(failed or growth[0] > MAX_GROWTH_MB or growth[1] > 0 or growth[2] > 0)


if __name__ == "__main__":
    sys.exit(main())
