"""`jmt-edge live` under attack: `python -m tests.chaos --minutes 60 --seed 1 --out FILE.json`.

Three simulated devices, the page, a recording and marks; unplug, stall, garbage, saturation, a jump of the board's
clock or of the wall clock, SIGSTOP, starvation, bad clients; each run ends in another way (signals, kill -9, closed or
failing standard output, a full disk, one that answers EIO) and the next begins. Afterwards each recording is compared
with what was sent (`chaos_verdict`) and replayed bit for bit. Exits 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "capture")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from chaos_devices import Board, Camera, Microphone, Skin  # noqa: E402
from chaos_run import ENDS, Run  # noqa: E402
from chaos_verdict import judge  # noqa: E402

from jmt_edge.machine import describe  # noqa: E402

LENGTH = 60.0  # s of a run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--keep", type=Path, help="keep the recordings in this folder")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        place = args.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        runs = attack(place, Path(temporary), args.seed, 60 * args.minutes)
    wrong = [f"run {i}: {w}" for i, run in enumerate(runs) for w in run["wrong"]]
    recovered = [r["s"] for run in runs for r in run.get("recovery_s", [])]
    lost = [run["lost_at_kill_s"] for run in runs if run.get("lost_at_kill_s") is not None]
    figures = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "seed": args.seed,
        "minutes": round((time.monotonic() - began) / 60, 1), "machine": describe(), "broken_promises": wrong,
        "results": sum(r.get("results", 0) for r in runs), "numbers": sum(r.get("numbers", 0) for r in runs),
        "marks": sum(r.get("marks", 0) for r in runs), "worst_recovery_s": max(recovered, default=None),
        "worst_loss_at_kill_s": max(lost, default=None), "runs": runs,
    }  # fmt: skip
    text = json.dumps(figures, indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    for line in wrong:
        print(line)
    print(f"{len(runs)} runs, {figures['results']} results, {figures['numbers']} with numbers, "
          f"{figures['marks']} marks, worst recovery {figures['worst_recovery_s']} s, "
          f"worst loss at kill -9 {figures['worst_loss_at_kill_s']} s, "
          f"{len(wrong)} broken promises")  # fmt: skip
    return int(bool(wrong))


def attack(
    place: Path, temporary: Path, seed: int, seconds: float, after: Callable[..., object] = lambda *run: None
) -> list[dict[str, Any]]:
    """The verdicts of runs that take `seconds` together. after: called with each recording, run, skin and camera."""
    skin = Skin(seed, seconds + 600)
    (home := temporary / "sound").mkdir()
    devices: dict[str, Any] = {"board": Board(skin, temporary / "board", seed)}
    devices["board"].__enter__()
    devices["camera"] = Camera(temporary / "camera", seed)
    env: dict[str, str] = {}
    if shutil.which("pulseaudio") and shutil.which("paplay"):
        devices["microphone"] = Microphone(home, seed)
        env = devices["microphone"].env
    else:
        print("no PulseAudio: without a microphone")
    ends = list(ENDS)
    random.Random(seed).shuffle(ends)
    verdicts: list[dict[str, Any]] = []
    finish = time.monotonic() + seconds
    try:
        while time.monotonic() < finish:
            number = len(verdicts)
            end = ends[number % len(ends)]
            disk = place / f"disk-{number}"
            if (end == "disk full" and not small_disk(disk)) or (end == "disk EIO" and not can_trace()):
                print(f"{end}: not thrown, sigint instead")
                end = "sigint"
            folder = (disk if end == "disk full" else place) / f"run-{number}"
            run = Run(devices, folder, seed * 1000 + number, min(LENGTH, finish - time.monotonic()), end, env)
            run.play()
            for device in devices.values():
                device.fault("")
            verdict = judge(folder, run.sent, skin, devices["camera"])
            verdict["wrong"] += run.faults_of_process()
            verdict |= {"end": end, "attacks": run.attacks, "replay": replayed(folder, run, verdict)}
            verdicts.append(verdict)
            after(folder, run, skin, devices["camera"])
            print(json.dumps(verdict), flush=True)
            if end == "disk full":
                subprocess.run(["umount", str(disk)], check=False)
    finally:
        for device in devices.values():
            device.close() if hasattr(device, "close") else device.__exit__()
    return verdicts


def small_disk(folder: Path) -> bool:
    """A file system of 60 MB, where we may make one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def can_trace() -> bool:
    """Whether strace is there and may make system calls fail."""
    inject = ["-e", "inject=getppid:error=EIO", "-e", "trace=getppid", "true"]
    return bool(shutil.which("strace")) and subprocess.run(["strace", *inject], capture_output=True).returncode == 0


def replayed(folder: Path, run: Run, verdict: dict[str, Any]) -> str:
    """Computes every result again from the recorded samples; the verdict says where one differs."""
    command = [sys.executable, "-m", "jmt_edge", "replay", str(folder), "--speed", "max", "--output", "none", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    line = done.stderr.strip().splitlines()[-1:] or [""]
    if done.returncode and not run.sent.full:
        verdict["wrong"].append(f"replay: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return line[0]


if __name__ == "__main__":
    sys.exit(main())
