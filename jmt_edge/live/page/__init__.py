"""The bedside page: `jmt-edge live --page [HOST:PORT]`. See `docs/reference/page.md`."""

from .server import PageObserver, start_page

__all__ = ["PageObserver", "start_page"]
