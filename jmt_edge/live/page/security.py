"""Who may talk to the page, and how often."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping

from ...errors import ConfigError
from .door import Peer, network_of

MIN_TOKEN = 16
GUESSES, GUESS_RATE = 20, 10.0  # wrong tokens of one network: at once, and per second
FILES, FILE_RATE = 100, 20.0  # the page's own files sent to one network: at once, and per second
MAX_NETWORKS = 1024  # whose counts are kept
MAX_BODY = 8192  # bytes of a request
MAX_MESSAGE = 1024  # bytes of a message on the WebSocket
MAX_CLIENTS = 12
_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")


def parse_address(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, `HOST` or `:PORT` -> (host, port). Raises ConfigError."""
    host, _, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not (port.isascii() and port.isdigit() and len(port) < 10):
        host, port = address, "8765"
    host = host.strip("[]") or "127.0.0.1"
    if not int(port) <= 65535 or not re.fullmatch(r"[A-Za-z0-9.:\-]+", host):
        raise ConfigError(f"'{address}' is not an address for the page; write HOST:PORT, such as 127.0.0.1:8765")
    return host, int(port)


def require_free(address: str) -> None:
    """Raises ConfigError where `address` is not one, or another program listens there already."""
    host, port = parse_address(address)
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        raise cannot_listen(host, port, error) from None


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"the page cannot listen on {host}:{port} ({error.strerror or error}); choose another --page HOST:PORT"
    )


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
        self._guesses = PerNetwork(GUESS_RATE, GUESSES)
        self._files = PerNetwork(FILE_RATE, FILES)
        self.wrong = 0  # tokens

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

    def token_allowed(self, given: str, peer: Peer | None) -> bool:
        """In constant time. A wrong token counts against the network of `peer` only."""
        if self.token is None:
            return True
        if self.closed(peer):
            return False
        # a lone surrogate is as wrong as any other text
        if hmac.compare_digest(hashlib.sha256(given.encode(errors="surrogatepass")).digest(), self._digest):
            return True
        self.count_wrong(peer)
        return False

    def count_wrong(self, peer: Peer | None) -> None:
        """A wrong token, or what was sent instead of one."""
        self.wrong += 1
        self._guesses.of(peer).take()

    def closed(self, peer: Peer | None) -> bool:
        """The network of `peer` sent too many wrong tokens, so that its next is not looked at: for 0.1 s at most after
        the last wrong one."""
        return self.token is not None and self._guesses.of(peer).level < 1

    def bearer_allowed(self, headers: Mapping[str, str], peer: Peer | None) -> bool:
        """The token in `Authorization: Bearer TOKEN`. Without one nothing was guessed, and nothing is counted."""
        if self.token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.token_allowed(given.strip(), peer)

    def file_allowed(self, peer: Peer | None) -> bool:
        """One of the page's own files may be sent to `peer`."""
        return self._files.of(peer).take()


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

    @property
    def level(self) -> float:
        """What is left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left

    def take(self) -> bool:
        if self.level < 1:
            return False
        self._left -= 1
        return True


class PerNetwork:
    """A bucket for each network that was seen lately; no header changes whose it is."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, peer: Peer | None) -> Bucket:
        network = network_of(peer[0]) if peer else ""
        bucket = self._buckets.pop(network, None) or Bucket(self._rate, self._burst)
        self._buckets[network] = bucket  # now the newest
        if len(self._buckets) > MAX_NETWORKS:
            self._buckets.popitem(last=False)
        return bucket
