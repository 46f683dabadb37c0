"""`jmt-edge station`: many beds on one page."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ._command import subcommand
from ._config import config_option
from ._log import start_log
from ._shared import broker_options, certificate_options, log_options

_say = logging.getLogger(__name__).info


@subcommand(
    "station",
    configurable=True,
    examples=[
        ("jmt-edge station --mqtt mqtt://broker.ward/ward-3", "the beds of a ward, on this machine alone"),
        ("jmt-edge station --mqtt mqtts://station@broker.ward/ward-3 --page 0.0.0.0:8766", "for other machines, too"),
    ],
)
@click.option("--mqtt", "url", metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT]/PREFIX of the broker.")
@click.option(
    "--page", default="127.0.0.1:8766", show_default=True, metavar="HOST:PORT", help="Where the page is served."
)
@broker_options
@certificate_options
@log_options
@config_option
def command(
    url: str,
    page: str,
    mqtt_password_file: Path | None,
    mqtt_ca: Path | None,
    page_cert: Path | None,
    page_key: Path | None,
    log_level: str,
    log_file: Path | None,
) -> None:
    """Show all beds below an MQTT prefix on one page: number, alarm, quality and when each was last heard.

    A bed that is lost is an alarm. The station reads only: alarms of a bed are acknowledged at the bed.
    A research prototype; not for clinical use.
    """
    start_log(log_level, log_file)
    from ..beds.broker import parse_broker
    from ..beds.listener import Listener
    from ..beds.page import start_station
    from ..beds.ward import Ward
    from ..controls import Controls
    from ..live.interrupt import stop_on_signals

    broker = parse_broker(url, mqtt_password_file, mqtt_ca)
    if broker.warning:
        _say(broker.warning)
    listener = Listener(broker, Ward(broker.prefix))
    server = start_station(page, listener, certfile=page_cert, keyfile=page_key)
    for line in server.lines:
        _say(line)
    controls = Controls()
    with stop_on_signals(controls):
        listener.start()
        while not controls.wait(3600):
            pass
    listener.close()
    server.close()
