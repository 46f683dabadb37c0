"""Many beds, one broker, one station; the broker is killed twice.

`python -m benchmarks.beds --beds 50 --minutes 10 --json FILE`

The beds publish made results and alarms through the product's own publisher, several a process; the station is the
product's own, with its page, read once a second as by a browser. What each side sent and heard is compared at the end:
exits 1 unless every result and every alarm edge arrived once, late ones marked, and nothing is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import stamp, write

HOP = 0.5  # s
PER_PROCESS = 25
DOWN = (5.0, 20.0)  # s for which the broker is away, each time
SETTLE = 60.0  # s at the end for what is still missing


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def publish(url: str, first: int, beds: int, seconds: float) -> dict[str, Any]:
    """Some beds: a result every hop and an alarm edge now and then. What each has said."""
    from jmt_edge.beds.broker import parse_broker
    from jmt_edge.beds.publisher import Publisher
    from jmt_edge.result import Quality, Result

    rng = random.Random(first)
    broker = parse_broker(url)
    units = [Publisher(broker, f"bed {first + i}") for i in range(beds)]
    edges, active = [0] * beds, [False] * beds
    for unit in units:
        unit.keep("config", {
            "hop": HOP, "task": "pain", "notice": "made results; not for clinical use", "demo": True, "bundle": "made",
            "alarms_off": "", "limit": 0.7, "outputs": ["pain"],
        })  # fmt: skip
        unit.keep("alarms", {"alarms": [], "signal": ""})
        unit.start()
    began, made = time.monotonic(), 0
    while made * HOP < seconds:
        made += 1
        for i, unit in enumerate(units):
            time.sleep(max(0.0, began + (made + i / beds) * HOP - time.monotonic()))  # spread over the hop
            pain = 0.5 + 0.4 * math.sin(made / 20 + i)
            quality = {name: Quality(True, "", 0.9, novelty=0.4) for name in ("face", "eda")}
            share = dict.fromkeys(quality, 0.5)
            stages = {"preprocess": 12.5, "backbones": 30.1, "fusion": 2.2, "networks": None, "total": 51.3}
            outputs = {"pain": pain}
            result = Result(made, made * HOP, "pain", outputs, "", quality, share, stages, 0, "made@12345678", True)
            unit.add("result", {"index": made, **result.to_dict()})
            if rng.random() < 0.05:
                active[i] = not active[i]
                edges[i] += 1
                alarm = {
                    "id": "pain", "kind": "physiological", "priority": "high", "detail": "", "text": "Pain probability",
                    "state": "active" if active[i] else "normal",
                }  # fmt: skip
                unit.add("alarm", alarm)
                unit.keep("alarms", {"alarms": [alarm] if active[i] else [], "signal": "high" if active[i] else ""})
    unsent = [0] * beds
    threads = [
        threading.Thread(target=lambda i=i, unit=unit: unsent.__setitem__(i, unit.close()))  # type: ignore[misc]
        for i, unit in enumerate(units)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        unit.bed: {"results": made, "edges": edges[i], "unsent": unsent[i], "connections": unit.connections}
        for i, unit in enumerate(units)
    }


def attend(url: str, port: int, stop: Path) -> dict[str, Any]:
    """The station, until `stop` exists and nothing is missing: what it heard of each bed, and how long it took."""
    from jmt_edge.beds.broker import parse_broker
    from jmt_edge.beds.listener import Listener
    from jmt_edge.beds.page import start_station
    from jmt_edge.beds.ward import Bed, Ward

    heard: dict[str, Counter[tuple[str, int]]] = {}
    late: Counter[str] = Counter()
    delays: list[float] = []

    def on_message(bed: Bed, kind: str, message: dict[str, Any], is_late: bool) -> None:
        heard.setdefault(bed.name, Counter())[kind, message["seq"]] += 1
        late[bed.name] += is_late
        if not is_late:
            delays.append(time.time() - message["at"])

    broker = parse_broker(url)
    listener = Listener(broker, Ward(broker.prefix, on_message))
    server = start_station(f"127.0.0.1:{port}", listener)
    listener.start()
    asked_to_stop = None
    while asked_to_stop is None or time.monotonic() - asked_to_stop < SETTLE:
        time.sleep(0.5)
        if asked_to_stop is None and stop.exists():
            asked_to_stop = time.monotonic()
        with listener.lock:
            beds_ = listener.ward.beds.values()
            open_ = [bed for bed in beds_ if not bed.over() or any(track.missing for track in bed.tracks.values())]
        if asked_to_stop is not None and not open_:
            break
    with listener.lock:
        snapshot = listener.ward.snapshot(time.monotonic())
    listener.close()
    server.close()
    delays.sort()
    beds = {}
    for tile in snapshot["beds"]:
        counts = heard.get(tile["name"], Counter())
        seqs = sorted({seq for _, seq in counts})
        beds[tile["name"]] = {
            "results": sum(kind == "result" for kind, _ in counts), "edges": sum(kind == "alarm" for kind, _ in counts),
            "twice": sum(n - 1 for n in counts.values()), "holes": (seqs[-1] - seqs[0] + 1 - len(seqs)) if seqs else 0,
            "late": late[tile["name"]], "repeats_dropped": tile["repeated"], "gone": tile["gone"],
            "missing": tile["missing"], "state": tile["state"],
        }  # fmt: skip

    def percentile(p: float) -> float:
        return round(1e3 * delays[min(len(delays) - 1, int(p * len(delays)))], 1) if delays else math.nan

    delay = {name: percentile(p) for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))}
    refused = snapshot["refused"]
    return {"beds": beds, "connections": listener.connections, "refused": refused, "delay_ms": delay}


class Broker:
    """A Mosquitto, with its own defaults: it keeps nothing on disk."""

    def __init__(self, folder: Path, port: int) -> None:
        found = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if found is None:
            sys.exit("no MQTT broker on this machine; run apt install mosquitto")
        (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        self._command = [found, "-c", str(folder / "mosquitto.conf")]
        self.cpu = 0.0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.cpu += cpu_seconds(self.process.pid)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def measure(beds: int, minutes: float) -> dict[str, Any]:
    report: dict[str, Any] = stamp(f"python -m benchmarks.beds --beds {beds} --minutes {minutes:g}")
    folder = Path(tempfile.mkdtemp(prefix="beds-"))
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        port, page = a.getsockname()[1], b.getsockname()[1]
    url, stop = f"mqtt://127.0.0.1:{port}/ward", folder / "stop"
    broker = Broker(folder, port)
    program = [sys.executable, "-m", "benchmarks.beds"]
    station = subprocess.Popen([*program, "--station", url, "--port", str(page), "--stop", str(stop)],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    until = time.monotonic() + 120
    while _page(page)[0] is None:
        assert time.monotonic() < until and station.poll() is None, "the station does not start"
        time.sleep(0.5)
    began: float | None = None  # when all beds were there
    units = [
        subprocess.Popen(
            [*program, "--units", url, "--first", str(first), "--beds", str(min(PER_PROCESS, beds - first)),
             "--minutes", str(minutes)], stdout=subprocess.PIPE, text=True,
        )
        for first in range(0, beds, PER_PROCESS)
    ]  # fmt: skip
    reads: list[float] = []
    watched: dict[int, tuple[float, float]] = {}
    kills = [(60 * minutes * (i + 1) / (len(DOWN) + 1), down) for i, down in enumerate(DOWN)]
    while any(unit.poll() is None for unit in units):
        time.sleep(1.0)
        for process in (station, *units):
            if process.poll() is None:
                try:
                    watched[process.pid] = (cpu_seconds(process.pid), memory_mb(process.pid))
                except OSError:
                    continue
        ms, shown = _page(page)
        reads.append(math.inf if ms is None else ms)
        if began is None and shown == beds:
            began = time.monotonic()
        if kills and began is not None and time.monotonic() - began > kills[0][0]:
            broker.kill()
            time.sleep(kills.pop(0)[1])
            broker.start()
    wall = time.monotonic() - (began or math.nan)
    stop.touch()
    heard = json.loads(station.communicate(timeout=SETTLE + 60)[0])
    said: dict[str, Any] = {}
    for unit in units:
        said |= json.loads(unit.communicate()[0])
    broker.kill()
    shutil.rmtree(folder)
    reads.sort()
    cpu = {
        "station": watched[station.pid][0], "broker": broker.cpu,
        "beds": sum(watched[unit.pid][0] for unit in units),
    }  # fmt: skip
    wrong = [bed for bed in said if _wrong(said[bed], heard["beds"].get(bed))]
    counted = ("results", "edges", "late", "twice", "holes", "gone", "missing", "repeats_dropped")
    total = {key: sum(bed[key] for bed in heard["beds"].values()) for key in counted}
    report |= {
        "beds": beds, "minutes": minutes, "hop_s": HOP, "broker_away_s": list(DOWN), "seconds": round(wall, 1),
        "niceness": os.nice(0),
        "sent": {key: sum(bed[key] for bed in said.values()) for key in ("results", "edges", "unsent")},
        "heard": total, "delay_ms_of_those_in_time": heard["delay_ms"], "messages_refused": heard["refused"],
        "connections": {"station": heard["connections"], "beds": sorted({bed["connections"] for bed in said.values()})},
        "cpu_share_of_one_core": {name: round(seconds / wall, 3) for name, seconds in cpu.items()},
        "memory_mb": {"station": round(watched[station.pid][1], 1),
                      "25 beds": round(max(watched[unit.pid][1] for unit in units), 1)},
        "page_ms": {"p50": round(reads[len(reads) // 2], 1), "max": round(reads[-1], 1)},
        "beds_wrong": {bed: {"said": said[bed], "heard": heard["beds"].get(bed)} for bed in wrong},
        "passed": not wrong and sum(cpu.values()) / wall < 2.0,
    }  # fmt: skip
    return report


def _page(port: int) -> tuple[float | None, int]:
    """(ms that the station's page takes to answer as it does to a browser, the beds it shows); None: it does not."""
    began = time.perf_counter()
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/beds", timeout=30).read()
    except OSError:
        return None, 0
    return 1e3 * (time.perf_counter() - began), len(json.loads(answer)["beds"])


def _wrong(said: dict[str, Any], heard: dict[str, Any] | None) -> bool:
    """Something is missing, doubled or not delivered."""
    if heard is None or said["unsent"] or heard["state"] != "ended":
        return True
    counts = (heard["results"], heard["edges"]) != (said["results"], said["edges"])
    return counts or any(heard[key] for key in ("twice", "holes", "gone", "missing"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    for name in ("--units", "--station", "--stop"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--first", "--port"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.units:
        print(json.dumps(publish(args.units, args.first, args.beds, 60 * args.minutes)))
        return 0
    if args.station:
        print(json.dumps(attend(args.station, args.port, Path(args.stop))))
        return 0
    report = measure(args.beds, args.minutes)
    print(json.dumps({key: value for key, value in report.items() if key != "machine"}, indent=1))
    if args.json:
        write(args.json, report)
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
