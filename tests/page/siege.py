"""The page under a crowd of strangers: `python tests/page/siege.py --seconds 300 --json FILE`.

Starts `jmt-edge live --page` with a token in a process of its own. A logged-in client counts its pictures for a while,
then the crowd comes, from 127.0.0.1, 127.0.0.2 and 127.0.0.3: 500 sockets that say nothing and 100 half requests, each
opened again when the server closes it, and 1000 wrong tokens a minute. Meanwhile new clients log in and `/healthz` is
asked. Exits 1 where the client gets fewer than 10 pictures a second, a new client needs more than 2 s or is refused,
or `/healthz` takes more than 0.5 s. All traffic stays on the loopback addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jmt_edge.machine import describe

TOKEN = "the-right-token-of-this-siege"
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
IDLE, HALF, TOKENS_PER_MINUTE = 500, 100, 1000
HALVES = (
    b"GET / HTTP/1.1\r\nHost: x\r\n",
    b"POST /api/v1/markers HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
    b"G",
)
SECRETS = ('{"token": "not-this-one-at-all"}', '{"token": "\\ud800"}', "[" * 900, '{"token": 5}', "nonsense")
PICTURES, LOGIN, HEALTH = 10.0, 2.0, 0.5  # a second; s; s
SPAN = 5.0  # s over which the pictures of the worst moment are counted


# --- the crowd --------------------------------------------------------------------------------------------------------
async def hold(port: int, address: str, data: bytes) -> None:
    """Keep one connection open that sends `data` and nothing more; open it again when it is closed."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            try:
                writer.write(data)
                while await reader.read(4096):
                    pass
            finally:
                writer.close()
        await asyncio.sleep(random.uniform(1, 5))


async def guess(port: int, address: str, number: int, answers: dict[str, int]) -> None:
    """One wrong token, by HTTP or on a WebSocket."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake

    said = "nothing"
    try:
        if number % 2:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            head = (
                f"GET /api/v1/state HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Forwarded-For: 127.0.0.{number % 250}\r\n"
            )
            writer.write(f"{head}Authorization: Bearer wrong-{number}\r\nConnection: close\r\n\r\n".encode())
            said = (await asyncio.wait_for(reader.read(), 10)).split()[1].decode()
            writer.close()
        else:
            url, origin = f"ws://127.0.0.1:{port}/ws", f"http://127.0.0.1:{port}"
            async with connect(url, origin=origin, local_addr=(address, 0), close_timeout=1) as connection:
                await connection.send(SECRETS[number // 2 % len(SECRETS)])
                with suppress(ConnectionClosed):
                    said = f"let in: {await asyncio.wait_for(connection.recv(), 10)!r:.40}"
                said = str(connection.close_code)
    except (OSError, IndexError, InvalidHandshake, asyncio.TimeoutError) as error:
        said = type(error).__name__
    answers[said] = answers.get(said, 0) + 1


async def crowd(port: int, seconds: float) -> dict[str, int]:
    """The whole crowd for `seconds`; how its wrong tokens were answered."""
    answers: dict[str, int] = {}
    holding = [asyncio.ensure_future(hold(port, ADDRESSES[i % 3], b"")) for i in range(IDLE)]
    holding += [asyncio.ensure_future(hold(port, ADDRESSES[i % 3], HALVES[i % len(HALVES)])) for i in range(HALF)]
    guesses = []
    began = time.monotonic()
    for number in range(int(seconds * TOKENS_PER_MINUTE / 60)):
        await asyncio.sleep(max(0.0, began + number * 60 / TOKENS_PER_MINUTE - time.monotonic()))
        guesses.append(asyncio.ensure_future(guess(port, ADDRESSES[number % 3], number, answers)))
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, *guesses, return_exceptions=True)
    return answers


# --- those who have the token -----------------------------------------------------------------------------------------
async def look(port: int, at: list[float]) -> None:
    """A logged-in client, as the browser is; `at` gets the time of every picture."""
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/ws", origin=f"http://127.0.0.1:{port}") as connection:
        await connection.send(json.dumps({"type": "token", "token": TOKEN}))
        answered = 0.0
        async for message in connection:
            if isinstance(message, bytes):
                if message[0] == 1:
                    at.append(time.monotonic())
                if time.monotonic() - answered > 0.1:
                    answered = time.monotonic()
                    await connection.send(json.dumps({"type": "ack", "n": int.from_bytes(message[4:8], "little")}))


async def log_in(port: int, address: str) -> float:
    """Seconds until a new client with the right token has its first message."""
    from websockets.asyncio.client import connect

    began = time.monotonic()
    url, origin = f"ws://127.0.0.1:{port}/ws", f"http://127.0.0.1:{port}"
    async with connect(url, origin=origin, local_addr=(address, 0), close_timeout=1) as connection:
        await connection.send(json.dumps({"type": "token", "token": TOKEN}))
        assert json.loads(await asyncio.wait_for(connection.recv(), 20))["type"] == "hello"
        return time.monotonic() - began


async def health(port: int, address: str) -> float:
    """Seconds until `/healthz` has answered a new connection with 200."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert answer.split()[1] == b"200", answer[:80]
    return time.monotonic() - began


async def repeat(times: list[float], failures: list[str], period: float, call: Any, port: int) -> None:
    for number in range(1 << 20):
        try:
            times.append(await call(port, ADDRESSES[number % 3]))
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}"[:120])
        await asyncio.sleep(period)


# --- the measurement --------------------------------------------------------------------------------------------------
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process(pid: int) -> dict[str, float]:
    rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    return {"memory_mb": round(rss, 1), "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def rate(at: list[float], begin: float, end: float) -> float:
    return sum(begin <= t < end for t in at) / (end - begin)


async def measure(port: int, pid: int, seconds: float, quiet: float) -> dict[str, Any]:
    pictures: list[float] = []
    viewer = asyncio.ensure_future(look(port, pictures))
    while not pictures:
        assert not viewer.done(), viewer.exception()
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    began = time.monotonic()
    await asyncio.sleep(quiet)
    came = time.monotonic()
    before = process(pid)
    attack = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--crowd", str(port), "--seconds", str(seconds), stdout=subprocess.PIPE
    )
    logins: list[float] = []
    checks: list[float] = []
    failures: list[str] = []
    tasks = [
        asyncio.ensure_future(repeat(logins, failures, 2.0, log_in, port)),
        asyncio.ensure_future(repeat(checks, failures, 0.5, health, port)),
    ]
    usage = []
    try:
        while attack.returncode is None and time.monotonic() - came < seconds + 60:
            await asyncio.sleep(1)
            usage.append(process(pid))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(attack.wait(), 0.01)
        left = time.monotonic()
        failures += [f"the client was cut off: {viewer.exception()}"] if viewer.done() else []
        answers = json.loads((await attack.communicate())[0])
    finally:
        for task in (viewer, *tasks):
            task.cancel()
        if attack.returncode is None:
            attack.kill()
    spans = [rate(pictures, t, t + SPAN) for t in range(int(came) + 1, int(left - SPAN))]
    return {
        "seconds": round(left - came, 1),
        "pictures_per_second_quiet": round(rate(pictures, began, came), 2),
        "pictures_per_second": round(rate(pictures, came, left), 2),
        f"pictures_per_second_worst_{SPAN:g}_s": round(min(spans), 2) if spans else None,
        "logins": len(logins),
        "login_s_worst": round(max(logins, default=99.0), 3),
        "login_s_median": round(sorted(logins)[len(logins) // 2], 3) if logins else None,
        "health_checks": len(checks),
        "health_s_worst": round(max(checks, default=99.0), 3),
        "health_s_median": round(sorted(checks)[len(checks) // 2], 3) if checks else None,
        "failures": failures,
        "wrong_tokens_answered": answers,
        "before": before,
        "most": {key: max(one[key] for one in usage) for key in before},
    }


def siege(folder: Path, seconds: float, quiet: float = 10.0) -> dict[str, Any]:
    """Figures of one siege; the server's log is in `folder`."""
    port = free_port()
    log = folder / "siege.log"
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--task", "trimodal",
        "--camera", "sim:fps=25&seed=3", "--microphone", "sim:seed=3", "--eda", "sim:seed=3", "--threads", "1",
        "--output", "none", "--page", f"127.0.0.1:{port}", "--record", str(folder / "runs" / "siege"),
    ]  # fmt: skip
    environment = {**os.environ, "JMT_EDGE_PAGE_TOKEN": TOKEN}
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
    try:
        for _ in range(600):
            with suppress(OSError, AssertionError):
                asyncio.run(health(port, "127.0.0.1"))
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        figures = asyncio.run(measure(port, server.pid, seconds, quiet))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    said = log.read_text()
    return {**figures, "exit_code": code, "log_lines": len(said.splitlines()), "tracebacks": said.count("Traceback"),
            "faults": [line.strip() for line in said.splitlines() if " and continued (" in line]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--crowd", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.crowd:
        print(json.dumps(asyncio.run(crowd(args.crowd, args.seconds))))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = siege(Path(folder), args.seconds)
    figures = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "machine": describe(),
        "priority": os.nice(0),
        **figures,
    }
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    held = (
        figures["pictures_per_second"] >= PICTURES
        and figures["login_s_worst"] <= LOGIN
        and figures["health_s_worst"] <= HEALTH
        and not figures["failures"]
        and not figures["tracebacks"]
        and not figures["faults"]
    )
    sys.exit(not held)


if __name__ == "__main__":
    main()
