"""`jmt-edge station`: many beds on one page, from a broker or from their own pages."""

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
        (
            "jmt-edge station --bed 1=http://127.0.0.1:8765 --bed 2=https://bed-2.ward:8765",
            "no broker",
        ),
    ],
)
@click.option("--mqtt", "url", metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT]/PREFIX of the broker.")
@click.option(
    "--bed",
    "beds",
    multiple=True,
    metavar="NAME=URL",
    help="A bed to read from its own page, http[s]://HOST[:PORT], without a broker; repeat it for each bed.",
)
@click.option(
    "--bed-token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the pages' token, or lines NAME=TOKEN; else JMT_EDGE_BED_TOKEN.",
)
@click.option(
    "--bed-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Certificates (PEM) that sign the pages'; default: the system's.",
)
@click.option(
    "--page", default="127.0.0.1:8766", show_default=True, metavar="HOST:PORT", help="Where the page is served."
)
@broker_options
@certificate_options
@log_options
@config_option
def command(
    url: str | None,
    beds: tuple[str, ...],
    bed_token_file: Path | None,
    bed_ca: Path | None,
    page: str,
    mqtt_password_file: Path | None,
    mqtt_ca: Path | None,
    page_cert: Path | None,
    page_key: Path | None,
    log_level: str,
    log_file: Path | None,
) -> None:
    """Show many beds on one page: number, alarm, quality and when each was last heard.

    The beds are all below an MQTT prefix (--mqtt), or those whose pages are named (--bed).

    A bed that is lost is an alarm. The station reads only: alarms of a bed are acknowledged at the bed.
    A research prototype; not for clinical use.
    """
    start_log(log_level, log_file)
    from ..beds.broker import parse_broker
    from ..beds.direct import DirectReader, parse_beds
    from ..beds.listener import Listener
    from ..beds.page import start_station
    from ..beds.ward import Ward
    from ..controls import Controls
    from ..live.interrupt import stop_on_signals

    listener: Listener | DirectReader
    if url:
        broker = parse_broker(url, mqtt_password_file, mqtt_ca)
        warnings = [broker.warning]
        listener = Listener(broker, Ward(broker.prefix))
    else:
        pages = parse_beds(beds, bed_token_file, bed_ca)
        warnings = [bed.warning for bed in pages]
        listener = DirectReader(pages, Ward(""))
    for warning in filter(None, warnings):
        _say(warning)
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
