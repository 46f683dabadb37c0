"""Beds that a station reads directly, over the WebSocket of each bed's own page, without a broker.

What a page says becomes the messages that `docs/reference/mqtt.md` describes, so that a `Ward` judges these beds by the
rules of all others. One thread holds every connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, short
from ..faults import FAULTS, Steady
from ..live.page.security import is_loopback
from ..plain_files import printable
from .broker import check_bed
from .listener import TURN
from .publisher import ENDED, FAILED, LIVE, LOST
from .ward import MAX_BEDS, Ward

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "JMT_EDGE_BED_TOKEN"
PORTS = {"http": 80, "https": 443}
OPEN = 5.0  # s for a page to answer a new connection
PING = 5.0  # s between two pings, and for the answer to one
PAUSE, LONGEST = 0.5, 2.0  # s between two attempts to connect
MAX_MESSAGE = 1 << 20  # bytes of a page's message
MAX_TOKENS = 1 << 16  # bytes of a file of tokens


class PageLostError(Exception):
    """A bed's page does not answer, refuses, or has gone; the text says why."""


@dataclass(frozen=True)
class BedPage:
    """Where a bed's page is. ca: the certificates that sign the page's; None: the system's."""

    name: str
    scheme: str
    host: str
    port: int
    token: str = field(default="", repr=False)
    ca: Path | None = None

    @property
    def origin(self) -> str:
        """`https://HOST[:PORT]`, as a browser names the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")

    @property
    def socket(self) -> str:
        """The WebSocket's address. hidden: neither pictures nor signals, and results at most twice a second."""
        return f"{self.origin.replace('http', 'ws', 1)}/ws?hidden=1"

    @property
    def warning(self) -> str:
        """What the user should know; empty where there is nothing."""
        if self.scheme == "https" or is_loopback(self.host):
            return ""
        what = "the token and results are" if self.token else "results are"
        return f"bed {self.name}: {what} sent without encryption; write https:// for TLS"

    def context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises ConfigError for certificates that cannot be read."""
        if self.scheme != "https":
            return None
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificates {printable(str(self.ca))} cannot be used ({error.strerror or error}); give a PEM "
                "file with --bed-ca"
            ) from None


def parse_beds(
    beds: Sequence[str], token_file: Path | None = None, ca: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[BedPage]:  # fmt: skip
    """`NAME=http[s]://HOST[:PORT]` of each bed, and the tokens of their pages: in a file, else in the environment.

    Raises ConfigError for a name, an address, a token or certificates that cannot be used.
    """
    found: dict[str, tuple[str, str, int]] = {}
    for bed in beds:
        name, _, url = bed.partition("=")
        if not url:
            raise ConfigError(f"'{_without_token(bed)}' names no bed with its page; write --bed NAME=https://HOST:PORT")
        if check_bed(name) in found:
            raise ConfigError(f"two beds are named '{printable(name)}'; give each a name of its own")
        found[name] = _address(url)
    if len(found) > MAX_BEDS:
        raise ConfigError(f"a station shows at most {MAX_BEDS} beds; start a second one for the others")
    if ca is not None and not any(scheme == "https" for scheme, _, _ in found.values()):
        raise ConfigError("--bed-ca is for encrypted connections; write https:// in --bed, or leave it out")
    tokens = _tokens(_token_text(token_file, environment), list(found), token_file)
    pages = [
        BedPage(name, *address, tokens.get(name, ""), ca if address[0] == "https" else None)
        for name, address in found.items()
    ]
    for page in pages:
        if page.context() is not None:
            break  # all have the same certificates
    return pages


def _address(url: str) -> tuple[str, str, int]:
    example = "write http[s]://HOST[:PORT], such as https://bed-12.ward:8765"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if "token=" in url or parts.username or parts.password:
        raise ConfigError(
            f"a token in an address is seen by every user of this machine; put it into a file (--bed-token-file) or "
            f"into {TOKEN_VARIABLE}"
        )
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"'{_without_token(url)}' is not the address of a page; {example}")
    return parts.scheme, parts.hostname, port or PORTS[parts.scheme]


def _without_token(text: str) -> str:
    return printable(re.sub(r"token=.*", "token=...", re.sub(r"//[^/@]*@", "//...@", text)))


def _token_text(file: Path | None, environment: Mapping[str, str]) -> str:
    if file is None:
        return environment.get(TOKEN_VARIABLE, "")
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_TOKENS + 1).decode()
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"the tokens {printable(file)} cannot be read ({getattr(error, 'strerror', 'not text')}); check "
            "--bed-token-file"
        ) from None
    if not text.strip() or len(text) > MAX_TOKENS:
        raise ConfigError(f"the tokens {printable(file)} are empty or too long; write one token, or lines NAME=TOKEN")
    return text


def _tokens(text: str, names: Sequence[str], file: Path | None) -> dict[str, str]:
    """Bed -> token. One line without a name is the token of all beds; `=` at its end is base64's padding. A name that
    no bed has is refused: with it, the token of one bed would go to all.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and "=" not in lines[0].rstrip("="):
        return dict.fromkeys(names, lines[0])
    found = {}
    for number, line in enumerate(lines, 1):
        name, _, token = line.partition("=")
        if name not in names or not token:
            where = printable(file) if file else TOKEN_VARIABLE
            raise ConfigError(
                f"line {number} of {where} has no NAME=TOKEN of a bed that --bed names; fix the name (a token that has "
                "= in it needs one before it)"
            )
        found[name] = token
    return found


class Visit:
    """One connection to a page: what the page says, as messages of a bed's run. run: the id that the ward orders by."""

    def __init__(self, page: BedPage, ward: Ward, run: str) -> None:
        self.page, self.run = page, run
        self.over = False  # the page has said how its run ended
        self.heard = False  # the page has said how its run is
        self._ward = ward
        self._info: dict[str, Any] | None = None
        self._kept: dict[str, str] = {}
        self._seq = 0

    def take(self, text: str | bytes, now: float) -> None:
        """A message of the page. Call it with the ward's lock held."""
        try:
            message = json.loads(text)
            kind = message["type"]
            if kind == "waiting":
                self.lost("its run has not begun", now)
            elif kind == "hello":
                self._info = dict(message["run"])
            elif kind == "state" and self._info is not None:
                self._state(message, self._info, now)
            elif kind == "result" and self.heard and not self.over:
                self._result(message, now)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # no page of ours
            self._ward.refused += 1

    def lost(self, why: str, now: float) -> None:
        self._keep("status", {"state": LOST, "reason": why, "run": self.run, "at": None}, now)

    def _state(self, state: dict[str, Any], info: dict[str, Any], now: float) -> None:
        shown = {name: info[name] for name in ("hop", "task", "notice", "demo", "bundle", "alarms_off", "outputs")}
        limit = state["alarms"]["settings"]["limit"]
        self._keep("config", {**shown, "limit": limit, "realtime": info["realtime"]}, now)
        alarms = [{key: value for key, value in one.items() if key != "seconds"} for one in state["alarms"]["alarms"]]
        self._keep("alarms", {"alarms": alarms}, now)
        self.over = state["ended"] is True
        how = LIVE if not self.over else FAILED if state["failed"] else ENDED
        reason = state["failed"] if how == FAILED else ""
        body = {"state": how, "reason": reason, "run": self.run, "at": round(time.time(), 3)}
        self._keep("status", body, now, but="at")
        self.heard = True

    def _result(self, result: dict[str, Any], now: float) -> None:
        quality = {name: {"ok": one["ok"], "reason": one["reason"]} for name, one in result["quality"].items()}
        self._keep("quality", quality, now)
        self._seq += 1
        shown = {"outputs": result["outputs"], "reason": result["reason"]}
        numbered = {"run": self.run, "seq": self._seq, "first": self._seq, "late": False, "result": shown}
        self._take("result", numbered, now)

    def _keep(self, topic: str, body: dict[str, Any], now: float, but: str = "") -> None:
        """As a retained topic: what has not changed is not said again. but: a key that does not count."""
        text = json.dumps({key: value for key, value in body.items() if key != but})
        if self._kept.get(topic) != text:
            self._kept[topic] = text
            self._take(topic, body, now)

    def _take(self, topic: str, body: dict[str, Any], now: float) -> None:
        self._ward.take(f"{self._ward.prefix}/{self.page.name}/{topic}", json.dumps(body).encode(), now)


class DirectReader:
    """Keeps a `Ward` up to date from the pages of its beds. `lock` guards the ward: hold it to read."""

    def __init__(self, pages: Sequence[BedPage], ward: Ward) -> None:
        self.ward, self.lock = ward, threading.Lock()
        self._pages = list(pages)
        self._began = time.time_ns() // 1_000_000
        self._visits = 0
        self._said: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = Steady(self._work, "station beds", self._stopping)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(10.0)

    def _work(self) -> None:
        asyncio.run(self._round())

    async def _round(self) -> None:
        attending = [asyncio.ensure_future(self._attend(page)) for page in self._pages]
        try:
            while not self._stopping.is_set():
                with self.lock:
                    self.ward.judge(time.monotonic())
                await asyncio.sleep(TURN)
        finally:
            for task in attending:
                task.cancel()
            await asyncio.gather(*attending, return_exceptions=True)

    async def _attend(self, page: BedPage) -> None:
        """Visit a bed again and again."""
        pause, over = PAUSE, False
        while True:
            visit = self._new(page)
            try:
                await self._visit(visit)
            except PageLostError as error:
                why = str(error)
            except Exception as error:
                FAULTS.add("station bed", error)
                why = "reading its page failed inside the program; the station's log says why"
            over = visit.over or (over and not visit.heard)  # a page that ended in order may go
            if not over:
                with self.lock:
                    visit.lost(why, time.monotonic())
            self._say(page, "its run has ended" if over else f"lost: {why}")
            pause = PAUSE if visit.heard else min(LONGEST, 2 * pause)
            await asyncio.sleep(pause)

    def _new(self, page: BedPage) -> Visit:
        self._visits += 1  # runs are ordered by their ids
        return Visit(page, self.ward, f"{self._began + self._visits:x}-{secrets.token_hex(4)}")

    async def _visit(self, visit: Visit) -> None:
        """Read one connection to its end, which is a PageLostError."""
        page = visit.page
        from websockets.exceptions import ConnectionClosed

        socket = await _connected(page)
        try:
            if page.token:
                await socket.send(json.dumps({"type": "token", "token": page.token}))
            while True:
                message = await socket.recv()
                with self.lock:
                    visit.take(message, time.monotonic())
                if visit.heard and not visit.over:
                    self._say(page, f"reads {page.origin}")
        except ConnectionClosed as closed:
            raise PageLostError(_farewell(page, closed)) from None
        finally:
            with suppress(Exception):
                await socket.close()

    def _say(self, page: BedPage, sentence: str) -> None:
        if sentence != self._said.get(page.name):
            self._said[page.name] = sentence
            log.info("bed %s: %s", page.name, sentence)


async def _connected(page: BedPage) -> Any:
    """A connection to the page's WebSocket. Raises PageLostError."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.typing import Origin

    class _Straight(connect):  # type: ignore[misc, valid-type]
        """Follows no redirection: the token is for the named page alone."""

        def process_redirect(self, exc: Exception) -> Exception:
            return exc

    strange = "what answers there is not a page of jmt-edge"
    try:
        return await _Straight(
            page.socket, origin=Origin(page.origin), ssl=page.context(), proxy=None, compression=None,
            max_size=MAX_MESSAGE, open_timeout=OPEN, close_timeout=1.0, ping_interval=PING, ping_timeout=PING,
        )  # fmt: skip
    except ssl.SSLCertVerificationError as error:
        raise PageLostError(
            f"its certificate is not trusted ({error.verify_message}); give what signs it with --bed-ca"
        ) from None
    except ssl.SSLError as error:
        raise PageLostError(f"TLS failed ({(error.reason or '').lower().replace('_', ' ')}); check https://") from None
    except (TimeoutError, asyncio.TimeoutError):
        raise PageLostError("it does not answer") from None
    except InvalidStatus as error:
        status = error.response.status_code
        what = "its page refuses the station" if status in (403, 421) else strange
        raise PageLostError(f"{what} (HTTP {status})") from None
    except (InvalidHandshake, EOFError):
        raise PageLostError(f"{strange}; check the address, and http:// or https://") from None
    except OSError as error:
        raise PageLostError(_refusal(error)) from None


def _refusal(error: OSError) -> str:
    """The system's words; asyncio writes its own, with addresses, and several of a name that has several."""
    numbers = [error.errno] if error.errno else [int(n) for n in re.findall(r"\[Errno (\d+)\]", str(error))]
    if numbers and numbers[0] > 0:  # those of name resolution are negative
        return os.strerror(numbers[0]).lower()
    return (error.strerror or short(error)).lower()


def _farewell(page: BedPage, closed: Any) -> str:
    """Why a page's connection has ended, for people."""
    said = closed.rcvd.reason if closed.rcvd is not None else ""
    if said == "wrong token":
        if page.token:
            return "its page refuses the token; check --bed-token-file"
        return f"its page asks for a token; give it with --bed-token-file or {TOKEN_VARIABLE}"
    if said == "unexpected message" and page.token:
        return "its page asks for no token; leave it out of --bed-token-file"
    if said:
        return f"its page says: {''.join(c if c.isprintable() else ' ' for c in said)[:100]}"
    if closed.sent is not None and closed.rcvd is None:
        return "it does not answer"
    return "its connection was lost"
