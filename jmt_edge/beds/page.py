"""The station's page: a tile a bed. It reuses the bedside page's server, guard, door and looks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import UserError
from ..faults import FAULTS
from ..languages import LANGUAGES
from ..live.alarms import Priority
from ..live.page.api import Refused, check_body, read_body
from ..live.page.door import Door
from ..live.page.security import Bucket, Guard, parse_address
from ..live.page.server import (
    TYPES,
    Outer,
    Server,
    addresses,
    count_fault,
    listen_at,
    require_usable,
    server_config,
    static_answer,
    static_files,
    token_of,
)
from .ward import Ward

log = logging.getLogger(__name__)

SHARED = (  # of the bedside page
    *(f"/static/{name}" for name in ("style.css", "dom.js", "keys.js", "layers.js", "text.js", "icon.svg")),
    *(f"/static/languages/{code}.json" for code in LANGUAGES[1:]),
)  # fmt: skip
SWEEP = 0.2  # s


class Keeper(Protocol):
    """What keeps a ward up to date: a `Listener` or a `DirectReader`. Hold `lock` to read the ward."""

    ward: Ward
    lock: threading.Lock


def start_station(
    address: str, listener: Keeper, *, token: str | None = None, certfile: Path | None = None,
    keyfile: Path | None = None,
) -> Server:  # fmt: skip
    """Serve the station at `address` (HOST:PORT). Raises ConfigError as `start_page`."""
    host, port = parse_address(address)
    require_usable(host, token := token_of(host, token), certfile, keyfile)
    door = Door()
    socket = listen_at(host, port, door)
    server = Server(*addresses(host, socket, token, certfile))
    server.serve(server_config(application(listener, Guard(token), door), certfile, keyfile), socket)
    return server


def application(listener: Keeper, guard: Guard, door: Door) -> Outer:
    """The station's ASGI application."""
    ward, lock = listener.ward, listener.lock
    readings, actions = Bucket(rate=60, burst=240), Bucket(rate=5, burst=30)

    def admitted(handler: Callable[[Request], Awaitable[Response]], bucket: Bucket) -> Any:
        async def answer(request: Request) -> Response:
            try:
                _admit(request, guard, door, bucket)
                return await handler(request)
            except Refused as error:
                headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(error.status)
                return JSONResponse({"error": str(error)}, error.status, headers)
            except UserError as error:
                return JSONResponse({"error": str(error)}, 400)
            except ClientDisconnect:
                raise
            except Exception as error:
                FAULTS.add("station page", error)
                return JSONResponse({"error": "this request failed inside the program; its log says why"}, 500)

        return answer

    async def beds(request: Request) -> Response:
        with lock:
            return JSONResponse(ward.snapshot(time.monotonic()))

    async def acknowledge(request: Request) -> Response:
        body = check_body(await read_body(request), {"bed": {"type": "string", "maxLength": 60}}, ())
        with lock:
            if body.get("bed") is not None and body["bed"] not in ward.beds:
                raise Refused(404, "there is no such bed")
            changed = ward.acknowledge(time.monotonic(), body.get("bed"))
        log.info("station: acknowledged by %s: %s", request.client and request.client.host, ", ".join(changed) or "-")
        return JSONResponse({"changed": changed})

    async def metrics(request: Request) -> Response:
        with lock:
            text = prometheus(ward.snapshot(time.monotonic()))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def healthz(request: Request) -> Response:
        away = ward.broker
        return JSONResponse({"status": "no broker" if away else "ok"}, 503 if away else 200)

    routes = [
        Route("/api/v1/beds", admitted(beds, readings), methods=["GET"]),
        Route("/api/v1/acknowledge", admitted(acknowledge, actions), methods=["POST"]),
        Route("/metrics", admitted(metrics, readings), methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        *(Route(path, static_answer(guard, *file), methods=["GET"]) for path, file in _files().items()),
    ]

    @asynccontextmanager
    async def clock(app: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(count_fault)
        ticking = asyncio.ensure_future(_tick(door))
        yield
        ticking.cancel()

    return Outer(Starlette(routes=routes, lifespan=clock), door)


async def _tick(door: Door) -> None:
    while True:
        door.sweep(time.monotonic())
        await asyncio.sleep(SWEEP)


def _files() -> dict[str, tuple[bytes, str]]:
    """URL path -> (content, type): the station's own files, and what it shares with the bedside page."""
    here = Path(__file__).parent / "static"
    files = {f"/static/{path.name}": (path.read_bytes(), TYPES[path.suffix]) for path in sorted(here.iterdir())}
    files["/"] = files.pop("/static/station.html")
    shared = static_files()
    return {**files, **{path: shared[path] for path in SHARED}}


def _admit(request: Request, guard: Guard, door: Door, bucket: Bucket) -> None:
    """Raises Refused for a request that may not be answered."""
    headers, peer = request.headers, request.client
    if not guard.host_allowed(headers):
        raise Refused(421, "this host name is not the page's; use the address printed at the start")
    if not guard.origin_allowed(headers, required=False):
        raise Refused(403, "pages of other sites may not use this interface")
    if not guard.bearer_allowed(headers, peer):
        if guard.closed(peer):
            raise Refused(429, "too many wrong tokens; try again in a second")
        raise Refused(401, "the token is missing or wrong; send `Authorization: Bearer TOKEN`")
    door.welcome(peer)
    if not bucket.take():
        raise Refused(429, "too many requests; slow down")


def prometheus(snapshot: dict[str, Any]) -> str:
    """The text format of Prometheus, version 0.0.4. A bed without a number has no line of it."""
    lines: list[str] = []

    def metric(name: str, kind: str, text: str, values: list[tuple[dict[str, str], float]]) -> None:
        lines.extend([f"# HELP jmt_edge_{name} {text}", f"# TYPE jmt_edge_{name} {kind}"])
        for labels, value in values:
            shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            lines.append(f"jmt_edge_{name}{{{shown}}} {value:.10g}" if shown else f"jmt_edge_{name} {value:.10g}")

    beds = snapshot["beds"]
    if snapshot["prefix"]:
        metric("station_broker_up", "gauge", "1 while the broker is there.", [({}, float(not snapshot["broker"]))])
    metric("station_refused_total", "counter", "Messages that were not as they should be.", [({}, snapshot["refused"])])
    up = [({"bed": b["name"]}, float(b["state"] == "live")) for b in beds if b["state"] not in ("ended", "files")]
    metric("bed_up", "gauge", "1 while the bed sends results; without those that have ended or read files.", up)
    metric(
        "bed_output",
        "gauge",
        "The newest outputs.",
        [({"bed": b["name"], "name": name}, value) for b in beds for name, value in (b["outputs"] or {}).items()],
    )
    metric(
        "bed_alarms",
        "gauge",
        "Alarms shown at the bed.",
        [
            ({"bed": b["name"], "priority": p.value}, sum(a["priority"] == p.value for a in b["alarms"]))
            for b in beds
            if b["state"] == "live"
            for p in Priority
        ],
    )
    metric(
        "bed_usable",
        "gauge",
        "1 where the modality took part.",
        [({"bed": b["name"], "modality": name}, float(q["ok"])) for b in beds for name, q in b["quality"].items()],
    )
    for name, text in (
        ("results", "Results received."),
        ("late", "Messages received late."),
        ("gone", "Messages that never came."),
        ("repeated", "Messages received twice."),
    ):
        metric(f"bed_{name}_total", "counter", text, [({"bed": b["name"]}, b[name]) for b in beds])
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
