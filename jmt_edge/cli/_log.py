"""Where the program's own messages go: standard error, and a file if one is asked for."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

import click

from ..errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")
FILE_BYTES, FILES = 10 << 20, 3  # a bedside station runs for years; what is older goes

_ours = logging.getLogger("jmt_edge")


class _StandardError(logging.Handler):
    """The message alone, to what is standard error at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def start_log(level: str = "info", file: Path | None = None) -> None:
    """Send messages of `level` and above to standard error, and with date, level and module to `file`, in which the
    newest 40 MB are kept. Calling it again replaces what was set. Raises ConfigError where the file cannot be written.
    """
    for handler in list(_ours.handlers):
        _ours.removeHandler(handler)
        handler.close()
    _ours.setLevel(level.upper())
    _ours.addHandler(_StandardError())
    if file is None:
        return
    try:
        written = logging.handlers.RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the log {file} cannot be written ({error.strerror}); choose another --log-file") from None
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _ours.addHandler(written)
