"""Options that `live` and `station` share: the broker, the page's certificate, the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..languages import LANGUAGES
from ._log import LEVELS

_FILE = click.Path(path_type=Path)


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The options as one decorator, in this order in `--help`."""

    def wrap(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return wrap


broker_options = _together(
    click.option(
        "--mqtt-password-file", type=_FILE, metavar="FILE",
        help="Holds the broker's password; else JMT_EDGE_MQTT_PASSWORD.",
    ),
    click.option(
        "--mqtt-ca", type=_FILE, metavar="FILE",
        help="Certificates (PEM) that sign the broker's; default: the system's.",
    ),
)  # fmt: skip
certificate_options = _together(
    click.option("--page-cert", type=_FILE, metavar="FILE", help="TLS certificate of the page (PEM)."),
    click.option("--page-key", type=_FILE, metavar="FILE", help="Key of the certificate."),
)
language_option = click.option(
    "--language", type=click.Choice(LANGUAGES),
    help="Of what is written for people; JSON is English.  [default: of the locale]",
)  # fmt: skip
log_options = _together(
    click.option(
        "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="On standard error."
    ),
    click.option("--log-file", type=_FILE, metavar="FILE", help="Also keep the messages, with dates."),
)
