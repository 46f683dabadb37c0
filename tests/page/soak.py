"""How the page behaves over time: `python tests/page/soak.py --minutes 30 --clients 5`.

Runs the live loop with the trimodal demo bundle at `--speed 1` on simulated sensors, recording, looks at the page
with one client for a minute and then with several, and prints the CPU share of the page's thread, the memory of the
process over time, and what the clients got.
Exits 1 where memory grows by more than 20 MB (after two minutes of settling, or a third of a shorter run) or the page
takes more than 15 % of a core for one client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from jmt_edge.machine import describe

MAX_GROWTH_MB, MAX_SHARE = 20.0, 0.15


async def look(url: str, counts: dict[str, int]) -> None:
    """One client, as the browser is: it answers every tenth of a second."""
    from websockets.asyncio.client import connect

    origin = url.rstrip("/")
    async with connect(origin.replace("http", "ws", 1) + "/ws", origin=origin) as socket:
        await socket.send(json.dumps({"type": "view", "face": "show", "visible": True}))
        answered = 0.0
        async for message in socket:
            if isinstance(message, str):
                kind = json.loads(message)["type"]
            else:
                kind = "frame" if message[0] == 1 else "traces"
                if time.monotonic() - answered > 0.1:
                    answered = time.monotonic()
                    await socket.send(json.dumps({"type": "ack", "n": int.from_bytes(message[4:8], "little")}))
            counts[kind] = counts.get(kind, 0) + 1


async def clients(url: str, number: int, seconds: float) -> None:
    """`number` clients for `seconds`, then what each got per second."""
    counts: list[dict[str, int]] = [{} for _ in range(number)]
    tasks = [asyncio.ensure_future(look(url, c)) for c in counts]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for c in counts:
        print({kind: round(n / seconds, 1) for kind, n in sorted(c.items())}, flush=True)


def thread_seconds(native_id: int) -> float:
    """CPU time of one thread of this process."""
    fields = Path(f"/proc/self/task/{native_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--single", type=float, default=60, help="seconds with one client")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--look", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.look:
        asyncio.run(clients(args.look[0], int(args.look[1]), float(args.look[2])))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from page_fixture import Stage

    def phase(url: str, number: int, seconds: float) -> tuple[float, list[tuple[float, float]]]:
        """(share of a core that the page's thread took, [(s, MB)])."""
        page = next(t for t in threading.enumerate() if t.name == "page")
        assert page.native_id is not None
        viewer = subprocess.Popen([sys.executable, __file__, "--look", url, str(number), str(seconds)])
        time.sleep(3)
        began, used, memory = time.monotonic(), thread_seconds(page.native_id), []
        while viewer.poll() is None and time.monotonic() - began < seconds - 4:
            time.sleep(min(10.0, seconds / 10))
            memory.append((time.monotonic() - began, memory_mb()))
        share = (thread_seconds(page.native_id) - used) / (time.monotonic() - began)
        viewer.wait()
        return share, memory

    with tempfile.TemporaryDirectory() as folder:
        sources = {"face": "sim:seed=3&fps=25", "voice": "sim:seed=3", "eda": "sim:seed=3"}
        stage = Stage(Path(folder), sources=sources, demo=True, hop=0.5)
        time.sleep(8)
        none, _ = phase(stage.url, 0, 20)
        single, _ = phase(stage.url, 1, args.single)
        many, memory = phase(stage.url, args.clients, args.minutes * 60)
        stage.close()
    settled = [mb for t, mb in memory if t >= min(120.0, args.minutes * 20)]
    growth = max(settled[-3:]) - settled[0]
    print(f"page's thread: {none:.1%} of a core without clients, {single:.1%} with one, {many:.1%} with {args.clients}")
    print(f"memory: {settled[0]:.1f} MB at first, {settled[-1]:.1f} MB at the end, growth {growth:+.1f} MB")
    print("every 10 s:", " ".join(f"{mb:.0f}" for _, mb in memory))
    if args.json:
        figures = {
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "command": " ".join(sys.argv), "machine": describe(),
            "clients": args.clients, "minutes": args.minutes, "share_without": none, "share_with_one": single,
            "share_with_all": many, "growth_mb": growth, "memory_mb": [round(mb, 1) for _, mb in memory],
        }  # fmt: skip
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(growth > MAX_GROWTH_MB or single > MAX_SHARE)


if __name__ == "__main__":
    main()
