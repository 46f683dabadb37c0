"""The page's server: Starlette on uvicorn, in a daemon thread with its own event loop, started again where it fails."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from ...controls import Controls
from ...errors import ConfigError
from ...faults import FAULTS, Steady
from ...languages import LANGUAGES, catalogue_of
from ...observer import RunInfo
from ...summary import Summary
from ..alarms import AlarmSettings
from .api import OPERATIONS, Api
from .audit import AuditLog
from .clients import FAST, Clients
from .door import AT_ONCE, Door, Listener, listen
from .feed import Feed
from .frames import MODES
from .history import recorded
from .model import Model
from .recordings import Recordings
from .security import (
    MAX_MESSAGE,
    MIN_TOKEN,
    Bucket,
    Guard,
    cannot_listen,
    is_loopback,
    parse_address,
    security_headers,
)

_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

TOKEN_VARIABLE = "JMT_EDGE_PAGE_TOKEN"
IDLE_PERIOD = 0.2  # s between two updates while no client is connected
FAREWELL = 1.5  # s for the clients to be told that the run has ended
JUDGE_PERIOD = 0.2  # s between two judgements of the alarms
RETRIES = (5.0, 30.0, 120.0)  # s before what could not be read of the session is tried again
REST = 0.005  # s for others, after each few results read of the session
UNSENT = 1 << 20  # bytes that may wait for one client
LOGGED, LOG_SPAN = 10, 60.0  # log lines of the server in this many seconds
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Server:
    """A server in a thread of its own. `lines` is for the user; it contains the token, so print it once."""

    def __init__(self, url: str, lines: list[str], token: str | None) -> None:
        self.url, self.lines, self.token = url, lines, token
        self._server: uvicorn.Server | None = None
        self._stopping = threading.Event()
        self._thread: Steady | None = None

    def serve(self, config: uvicorn.Config, listener: Listener) -> None:
        """Serve in a thread until `close`."""

        def work() -> None:
            self._server = server = uvicorn.Server(config)
            server.should_exit = self._stopping.is_set()
            asyncio.run(server.serve(sockets=[listener.again()]))
            if not self._stopping.is_set():
                raise RuntimeError("the server stopped by itself")

        self._listener = listener
        self._thread = Steady(work, "page", self._stopping)
        self._thread.start()

    def close(self) -> bool:
        """Stop the server; browsers see that the connection is closed. Whether its thread has ended."""
        if self._thread is not None:
            self._stopping.set()
            if self._server is not None:
                self._server.should_exit = True
            self._thread.join(5.0)
            if self._thread.is_alive():
                return False
            self._thread = None
            self._listener.close()
        return True


class PageObserver(Server, Feed):
    """The running page of a run. model: what it shows."""

    model: Model
    audit: AuditLog

    def __init__(self, url: str, lines: list[str], token: str | None) -> None:
        Server.__init__(self, url, lines, token)
        Feed.__init__(self)
        self.clients: Clients | None = None
        self.earlier: Path | None = None  # the last recorded part of the session that this run continues

    def on_start(self, info: RunInfo) -> None:
        super().on_start(info)
        if self.earlier is not None:
            self.model.reading = True
            Steady(self._read_earlier, "trend", self._stopping).start()

    def on_clock(self, t: float, step: float) -> None:
        session = self.model.session
        if session is not None and session["began"] is not None:
            self.model.session = {**session, "began": round(session["began"] + step, 3)}

    def _read_earlier(self) -> None:
        """Read the session before this run for the trend. Parts that cannot be read are tried again."""
        assert self.earlier is not None and self.info is not None
        for wait in (*RETRIES, None):
            try:
                found = recorded(self.earlier, self.info.bundle.task.outputs, lambda: self._stopping.wait(REST))
                self.model.earlier, unread = found.history, found.unread
            except Exception as error:
                FAULTS.add("trend", error)
                unread = (str(error),)
            if not unread:
                break
            again = "no longer tried" if wait is None else f"tried again in {wait:.0f} s"
            _log.warning("the trend lacks a part of the session (%s); %s", "; ".join(unread), again)
            if wait is None or self._stopping.wait(wait):
                break
        self.model.reading = False

    def log(self, action: str, **details: Any) -> None:
        """Write what a person does at the terminal to the page's audit log. Raises OSError."""
        self.audit.add(action, "terminal", self.model.stream, **details)

    def on_end(self, summary: Summary) -> None:
        super().on_end(summary)
        # each client is told that this is the end, not a lost connection, and disconnects
        until = time.monotonic() + FAREWELL
        while self.clients and time.monotonic() < until:
            time.sleep(0.02)
        if self.close():
            self.model.update(time.monotonic())  # what its thread did not come to


def start_page(
    address: str,
    controls: Controls,
    *,
    recordings: Path,
    face: str = "show",
    token: str | None = None,
    certfile: Path | None = None,
    keyfile: Path | None = None,
    since: str | None = None,
    earlier: Path | None = None,
    asks: bool = False,
    subject: str = "",
    ask: int = 0,
) -> PageObserver:
    """Serve the page at `address` (HOST:PORT; port 0 picks a free one) and return its observer.

    recordings: the folder of past recordings; the audit log `page-audit.jsonl` is kept there too.
    face: how the camera's picture is shown at first: show, blur or hide.
    token: required from every client; generated if none is given and other machines can connect.
    since: when the session began that this run continues (ISO 8601): the alarm settings made on the page since then are
        restored from the audit log.
    earlier: the last recorded part of that session: the trend begins with it.
    asks: whether the page begins with the start of a session. subject: whose session continues.
    ask: minutes after a pain rating at which the page asks for the next one; 0: only after a pain alarm.
    Raises ConfigError for an address, token, certificate or folder that cannot be used.
    """
    host, port = parse_address(address)
    if face not in MODES:
        raise ConfigError(f"the face cannot be shown as '{face}'; choose {', '.join(MODES)}")
    require_usable(host, token := token_of(host, token), certfile, keyfile)
    audit = AuditLog(recordings / "page-audit.jsonl")
    settings = _restore(audit, since) if since else None
    door = Door()
    listener = listen_at(host, port, door)
    observer = PageObserver(*addresses(host, listener, token, certfile))
    application = _application(observer, controls, audit, recordings, Guard(token), door, face, ask)
    application.model.judging.set(settings or AlarmSettings())
    application.model.asks = asks
    if subject:
        began = datetime.fromisoformat(since).timestamp() if since else None
        application.model.session = {"subject": subject, "began": began}
    observer.model, observer.clients, observer.audit = application.model, application.clients, audit
    observer.earlier = earlier
    observer.serve(server_config(application, certfile, keyfile), listener)
    return observer


def token_of(host: str, token: str | None = None) -> str | None:
    """The token that every client must have: the one given, the environment's, a new one, or none on loopback."""
    return token or os.environ.get(TOKEN_VARIABLE) or (None if is_loopback(host) else secrets.token_urlsafe(24))


def require_usable(host: str, token: str | None, certfile: Path | None, keyfile: Path | None) -> None:
    """Raises ConfigError for a short token, half of a certificate, or one that cannot be used."""
    if (certfile is None) != (keyfile is None):
        raise ConfigError("TLS needs both a certificate and its key; give --page-cert FILE and --page-key FILE")
    if token is not None and len(token) < MIN_TOKEN:
        raise ConfigError(f"the page's token has fewer than {MIN_TOKEN} characters; choose a longer {TOKEN_VARIABLE}")
    if certfile is not None and keyfile is not None:
        _check_certificate(certfile, keyfile)


def addresses(
    host: str, listener: Listener, token: str | None, certfile: Path | None
) -> tuple[str, list[str], str | None]:
    """(URL, lines for the user, token)."""
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if certfile else 'http'}://{shown}:{listener.getsockname()[1]}/"
    lines = [f"page: {url}" + (f"#token={token}" if token else "")]
    if not is_loopback(host) and certfile is None:
        lines.append("page: the connection is not encrypted; give --page-cert FILE and --page-key FILE for TLS")
    return url, lines, token


def server_config(application: Any, certfile: Path | None, keyfile: Path | None) -> uvicorn.Config:
    """uvicorn's configuration of every page; its log is kept short."""
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, _Sparing) for one in logger.filters):
        logger.addFilter(_Sparing())
    return uvicorn.Config(
        application,
        http="h11", ws=_Socket, loop="asyncio",  # the same server whatever else is installed
        log_config=None, log_level="error", access_log=False, server_header=False, proxy_headers=False,
        ws_max_size=MAX_MESSAGE, ws_per_message_deflate=False, ws_ping_interval=10.0, ws_ping_timeout=20.0,
        backlog=AT_ONCE, timeout_keep_alive=30, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=16384,
        ssl_certfile=certfile, ssl_keyfile=str(keyfile) if keyfile else None,
    )  # fmt: skip


class _Socket(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """A WebSocket that answers no pings whose answers nobody reads."""

    def data_received(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() > UNSENT:
            self.transport.abort()
        else:
            super().data_received(data)


class _Sparing(logging.Filter):
    """Few lines, and none with the traceback that a stranger's bytes caused: endpoints report their own faults."""

    def __init__(self) -> None:
        super().__init__()
        self._bucket = Bucket(LOGGED / LOG_SPAN, LOGGED)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            record.msg, record.args = f"{record.getMessage().strip()}: {record.exc_info[1]!r:.200}", ()
            record.exc_info = None
        return self._bucket.take()


def listen_at(host: str, port: int, door: Door) -> Listener:
    """Raises ConfigError."""
    try:
        return listen(host, port, door)
    except OSError as error:
        raise cannot_listen(host, port, error) from None


def _restore(audit: AuditLog, since: str) -> AlarmSettings | None:
    """The alarm settings that a person made last, since then; None where nobody has. The log says that they apply."""
    entry = audit.newest("alarm settings", since)
    if entry is None:
        return None
    try:
        settings = AlarmSettings(**entry["after"])
        settings.check()
        audit.add("alarm settings restored", "jmt-edge", 0.0, after=asdict(settings))
    except (KeyError, TypeError, ConfigError):
        return None  # not what this program writes
    except OSError as error:
        raise ConfigError(
            f"the page's audit log {audit.path} cannot be written ({error.strerror}); make room"
        ) from None
    return settings


def _check_certificate(certfile: Path, keyfile: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate {certfile} with key {keyfile} cannot be used ({error.strerror or error}); give PEM files"
        ) from None


def _application(
    feed: Feed,
    controls: Controls,
    audit: AuditLog,
    recordings: Path,
    guard: Guard,
    door: Door,
    face: str,
    ask: int,
) -> _Page:
    model = Model(feed, controls, ask)
    clients = Clients(model, guard, face, door)
    api = Api(model, clients, audit, Recordings(recordings), guard, door, face)
    by_path: dict[str, dict[str, Endpoint]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = api.endpoint(operation)
    routes: list[Any] = [Route(path, _by_method(handlers), methods=[*handlers]) for path, handlers in by_path.items()]
    routes.append(WebSocketRoute("/ws", clients.serve))
    routes += [Route(path, static_answer(guard, *file), methods=["GET"]) for path, file in static_files().items()]

    @asynccontextmanager
    async def clock(app: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(count_fault)
        ticking = asyncio.ensure_future(_tick(model, clients, door))
        yield
        ticking.cancel()

    return _Page(Starlette(routes=routes, lifespan=clock), door, model, clients)


def _by_method(handlers: dict[str, Endpoint]) -> Endpoint:
    """One endpoint per path, because Starlette answers 405 at the first route of a path if its method differs."""

    async def answer(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return answer


def static_files() -> dict[str, tuple[bytes, str]]:
    """URL path -> (content, type) of every file of the page, read once, so no request reads a file."""
    here = Path(__file__).parent
    found = [path for path in (here / "static").rglob("*") if path.suffix in TYPES]
    files = {f"/{path.relative_to(here).as_posix()}": (path.read_bytes(), TYPES[path.suffix]) for path in found}
    files["/"] = files.pop("/static/index.html")
    for code in LANGUAGES[1:]:
        files[f"/static/languages/{code}.json"] = (catalogue_of(code), "application/json")
    return files


def static_answer(guard: Guard, content: bytes, kind: str) -> Endpoint:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}

    async def answer(request: Request) -> Response:
        if not guard.host_allowed(request.headers):
            return PlainTextResponse("this host name is not the page's\n", 421)
        if not guard.file_allowed(request.client):
            return PlainTextResponse("too many requests; slow down\n", 429, {"retry-after": "1"})
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return answer


class Outer:
    """Tells the door of every request, and adds the security headers to every response."""

    def __init__(self, app: Starlette, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._door.asked(scope["client"] and tuple(scope["client"]))
        host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
        extra = [(k.encode(), v.encode("latin-1")) for k, v in security_headers(host).items()]

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {key.lower() for key, _ in message["headers"]}
                cache = [] if b"cache-control" in present else [(b"cache-control", b"no-store")]
                message["headers"] = [*message["headers"], *extra, *cache]
            await send(message)

        with suppress(ClientDisconnect):  # it left before its request was whole
            await self._app(scope, receive, with_headers)


class _Page(Outer):
    def __init__(self, app: Starlette, door: Door, model: Model, clients: Clients) -> None:
        super().__init__(app, door)
        self.model, self.clients = model, clients


def count_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception that no task waits for."""
    FAULTS.add("page connection", context.get("exception") or RuntimeError(context["message"]))


async def _tick(model: Model, clients: Clients, door: Door) -> None:
    """The page's clock, while the server runs."""
    judged = 0.0
    while True:
        now = time.monotonic()
        try:
            model.update(now)
            if now - judged >= JUDGE_PERIOD:
                judged = now
                model.judge(now)
                door.sweep(now)
                clients.sweep(now)
        except Exception as error:
            FAULTS.add("page data", error)
        await asyncio.sleep(FAST if len(clients) else IDLE_PERIOD)
