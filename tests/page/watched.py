"""A page in a browser that must stay clean."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from page_fixture import CUT_OFF


def listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname or "127.0.0.1", address.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


class Watched:
    """A page, and everything that it must not do: errors on the console, requests to other machines."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        self.expected: tuple[str, ...] = ()
        page.set_default_timeout(40_000)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.on("websocket", lambda socket: self._away(socket.url))

    def _console(self, message: Any) -> None:
        if message.type not in ("error", "warning") or any(part in message.text for part in self.expected):
            return
        # a test may end its run before its page is closed; what fails then is not the page's fault
        if any(part in message.text for part in CUT_OFF) and not listens(message.location["url"]):
            return
        self.problems.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        self._away(request.url)

    def _away(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "blob:http://127.0.0.1:", "data:")):
            self.problems.append(f"request to {url}")
