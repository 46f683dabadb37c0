"""The bedside page: `jmt-edge live --page [HOST:PORT]`. See `docs/reference/page.md`.

The server is loaded when it is asked for: what else needs the page's model or its checks needs no web server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import PageObserver, start_page

__all__ = ["PageObserver", "start_page"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import server

    return getattr(server, name)
