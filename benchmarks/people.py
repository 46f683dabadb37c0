"""Four people in one process, and what the death of one person's sensors costs the others.

    python -m benchmarks.people [--seconds 120] [--task trimodal] [--json FILE]

Three runs of `jmt-edge live` in real time, one after the other: four simulated people; four people of whom the first
has a network camera and an EDA board (both processes of this script); the same, with both killed half-way.
The others' p95 after that moment is compared with their p95 before it, and with the run in which nothing was killed.
Takes three times `--seconds`; run it on a machine that is idle.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, stamp, write
from jmt_edge.bench.people import people_flags
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import Bundle, load_bundle

PEOPLE, HOP = 4, 0.5
SETTLED = 10.0  # s at the beginning that are not compared
MOST_P95 = 120.0  # ms
RATIO = 0.9, 1.1  # of the others' p95, after / before the kill
CAMERA = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np
from jmt_edge.opencv import cv2
def jpeg(n):
    return cv2.imencode(".jpg", np.full((480, 640, 3), 60 + n, np.uint8))[1].tobytes()
frames = [jpeg(n) for n in range(50)]
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while True:
            for data in frames:
                head = f"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n"
                self.wfile.write(head.encode() + data + b"\\r\\n")
                time.sleep(1 / 25)
    def log_message(self, *args): ...
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def percentile(values: list[float], q: float) -> float | None:
    return round(float(np.percentile(values, q)), 1) if values else None


def run(bundle: Bundle, people: list[str], seconds: float, folder: Path, kill: list[Any] | None = None) -> list[Any]:
    """The results of one run. kill: processes that are killed half-way."""
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--bundle", str(bundle.path), "--output", "jsonl", "--hop", str(HOP),
        "--duration", str(seconds), *people,
    ]  # fmt: skip
    with (folder / "out.jsonl").open("wb") as out, (folder / "err.txt").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        end = time.monotonic() + 60
        while not (folder / "out.jsonl").stat().st_size and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if kill:
            time.sleep(max(0.0, seconds / 2 - json.loads((folder / "out.jsonl").read_text().splitlines()[0])["t"]))
            for one in kill:
                one.send_signal(signal.SIGKILL)
        if process.wait():
            raise SystemExit(f"{' '.join(command)}: {(folder / 'err.txt').read_text()}")
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def row(results: list[Any]) -> dict[str, Any]:
    """Counts and latencies (ms) of a whole run."""
    total = [r["latency_ms"]["total"] for r in results]
    by = {name: [r for r in results if r["person"] == name] for name in sorted({r["person"] for r in results})}
    return {
        "results": len(results), "with_outputs": sum(r["outputs"] is not None for r in results),
        "dropped": sum(mine[-1]["dropped"] for mine in by.values()),
        **{f"p{q}": percentile(total, q) for q in (50, 95, 99)},
        "p95_of": {name: percentile([r["latency_ms"]["total"] for r in mine], 95) for name, mine in by.items()},
    }  # fmt: skip


def halves(results: list[Any], seconds: float) -> dict[str, Any]:
    """p95 (ms) of all but the first person before and after the middle, and their ratio."""
    parts: dict[str, list[float]] = {"before": [], "after": []}
    for r in results:
        if r["person"] != "p1" and r["t"] > SETTLED:
            parts["before" if r["t"] <= seconds / 2 else "after"].append(r["latency_ms"]["total"])
    before, after = (percentile(parts[name], 95) for name in ("before", "after"))
    return {"before": before, "after": after, "ratio": round(after / before, 3) if before and after else None}


def with_devices(bundle: Bundle, seconds: float, folder: Path, *, kill: bool) -> tuple[list[Any], bool]:
    """The run with a camera and a board for the first person; whether that person lost both in the end."""
    flags = people_flags(bundle, PEOPLE)
    camera = subprocess.Popen(
        [sys.executable, "-c", CAMERA], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    link = folder / "board"
    board = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge", "sim-board", "csv", "--link", str(link)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert camera.stdout is not None
        url = f"http://127.0.0.1:{camera.stdout.readline().strip()}/x.mjpg"
        while not os.path.lexists(link):
            if board.poll() is not None:
                raise SystemExit(f"the simulated board ended with {board.returncode}")
            time.sleep(0.05)
        sources = {"face": f"camera={url}", "voice": "microphone=sim:seed=1", "eda": f"eda=csv:{link}?unit=uS"}
        flags[1] = "p1:" + ",".join(sources[name] for name in bundle.task.names)
        results = run(bundle, flags, seconds, folder, [camera, board] if kill else None)
    finally:
        for one in (camera, board):
            one.kill()
            one.wait()
        link.unlink(missing_ok=True)
    last = [r for r in results if r["person"] == "p1"][-1]["quality"]
    return results, all(last[name]["reason"].startswith("sensor ") for name in ("face", "eda") if name in last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of signal in each run")
    parser.add_argument("--task", default="trimodal")
    parser.add_argument("--json", type=Path, default=RESULTS / f"{time.strftime('%Y-%m-%d')}-people.json")
    args = parser.parse_args()
    report = stamp("python -m benchmarks.people")
    bundle = load_bundle(demo_bundle(args.task))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {"four simulated": row(run(bundle, people_flags(bundle, PEOPLE), args.seconds, folder))}
        print(json.dumps(cases), flush=True)
        for case, kill in (("nothing killed", False), ("camera and board killed", True)):
            results, lost = with_devices(bundle, args.seconds, folder, kill=kill)
            cases[case] = {**row(results), "first_lost_both": lost, "others_p95": halves(results, args.seconds)}
            print(case, json.dumps(cases[case]), flush=True)
    simulated, killed = cases["four simulated"], cases["camera and board killed"]
    ratio = killed["others_p95"]["ratio"]
    held = {
        "0 dropped": simulated["dropped"] == 0,
        f"p95 <= {MOST_P95:g} ms": simulated["p95"] <= MOST_P95,
        "the others' p95 within 10 % of before": ratio is not None and RATIO[0] <= ratio <= RATIO[1],
    }  # fmt: skip
    print(json.dumps(held))
    write(args.json, {
        **report, "task": args.task, "bundle": bundle.id, "people": PEOPLE, "hop": HOP, "seconds": args.seconds,
        "cases": cases, "held": held,
    })  # fmt: skip


if __name__ == "__main__":
    main()
