"""Who may talk to the page, and how often."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Mapping

from ...errors import ConfigError

MIN_TOKEN = 16
MAX_FAILURES, FAILURE_SPAN = 20, 60.0  # wrong tokens, from all clients together, in this many seconds
MAX_BODY = 8192  # bytes of a request
MAX_MESSAGE = 1024  # bytes of a message on the WebSocket
MAX_CLIENTS = 12
_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")


def parse_address(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, `HOST` or `:PORT` -> (host, port). Raises ConfigError."""
    host, _, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not (port.isascii() and port.isdigit()):
        host, port = address, "8765"
    host = host.strip("[]") or "127.0.0.1"
    if not int(port) <= 65535 or not re.fullmatch(r"[A-Za-z0-9.:\-]+", host):
        raise ConfigError(f"'{address}' is not an address for the page; write HOST:PORT, such as 127.0.0.1:8765")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Checks requests: host, origin, token. token: None where only this machine can connect."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self._digest = hashlib.sha256(token.encode()).digest() if token else b""
        self._failures: list[float] = []

    def host_allowed(self, headers: Mapping[str, str]) -> bool:
        """Without a token the name must be this machine's own: a foreign name that resolves to it (DNS rebinding)
        would let a web page elsewhere read everything."""
        host = headers.get("host", "")
        if not _HOST.fullmatch(host):
            return False
        return self.token is not None or is_loopback(_name(host))

    @staticmethod
    def origin_allowed(headers: Mapping[str, str], *, required: bool) -> bool:
        """The page that sends the request comes from this server. Programs send no origin."""
        origin = headers.get("origin")
        if origin is None:
            return not required and headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host == headers.get("host", "")

    def token_allowed(self, given: str) -> bool:
        """In constant time. After too many wrong tokens, all are refused for a while."""
        if self.token is None:
            return True
        if self.closed:
            return False
        if hmac.compare_digest(hashlib.sha256(given.encode(errors="surrogatepass")).digest(), self._digest):
            return True
        self._failures.append(time.monotonic())
        return False

    @property
    def closed(self) -> bool:
        """Too many wrong tokens were sent recently."""
        now = time.monotonic()
        self._failures = [t for t in self._failures if now - t < FAILURE_SPAN]
        return len(self._failures) >= MAX_FAILURES

    def bearer_allowed(self, headers: Mapping[str, str]) -> bool:
        """The token in `Authorization: Bearer TOKEN`."""
        if self.token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.token_allowed(given.strip())


def _name(host: str) -> str:
    return host[1 : host.index("]")] if host.startswith("[") else host.rpartition(":")[0] or host


def security_headers(host: str) -> dict[str, str]:
    """Headers of every answer. `host` is the request's; older browsers do not count ws: as 'self'."""
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }


class Bucket:
    """A token bucket: at most `burst` at once and `rate` per second on average."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = float(burst), time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
