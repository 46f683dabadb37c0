"""`jmt-edge replay`: run a recording again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BackendError, BundleError, ConfigError, OutputError

if TYPE_CHECKING:
    from ..observer import Observer


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--speed", default="max", show_default=True, metavar="X", help="1 is real time, 2 twice as fast, or max.")
@click.option("--output", type=click.Choice(["tui", "jsonl", "none"]), default="jsonl", show_default=True)
@click.option("--bundle", "bundle_path", type=click.Path(path_type=Path), help="The run's bundle, if it was moved.")
@click.option("--as-recorded", is_flag=True, help="Show the recorded results; compute nothing.")
@click.option("--check", is_flag=True, help="Exit with 1 unless every result was computed again, equal bit for bit.")
@click.option("--page", is_flag=False, flag_value="127.0.0.1:8765", metavar="[HOST:PORT]", help="Show it on the page.")
def command(
    folder: Path, speed: str, output: str, bundle_path: Path | None, as_recorded: bool, check: bool, page: str | None
) -> None:
    """Replay a run recorded by `jmt-edge live --record DIR`.

    If raw data of every sensor was recorded, the networks run again and give the same results bit for bit; otherwise
    the recorded results are shown, and standard error says so. Results carry the latency measured in the recorded
    run. A research prototype; not for clinical use.
    """
    if check and as_recorded:
        raise ConfigError("--check compares computed results, but --as-recorded computes none; leave one out")
    factor = _speed(speed)

    from ..controls import Controls
    from ..engine.backends import open_engine
    from ..engine.bundle import load_bundle
    from ..live.interrupt import stop_on_signals
    from ..live.pipeline import Pipeline
    from ..recording.reader import Recording
    from ..recording.replay import replay
    from .live import open_page, result_output

    recording = Recording(folder)
    wanted = recording.manifest["bundle"]
    path = bundle_path or Path(wanted["path"])
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        raise BundleError(f"{error} (the recording was made with {wanted['id']}; give it with --bundle)") from None
    if bundle.id != wanted["id"]:
        raise BundleError(f"the recording was made with {wanted['id']}, but {path} is {bundle.id}; give its --bundle")
    engine = None
    if not as_recorded and not recording.replay_blocker:
        backend = recording.manifest["backend"]
        try:
            engine = open_engine(bundle, backend, recording.manifest["threads"])
        except BackendError as error:
            raise BackendError(
                f"the run used the backend {backend}, which does not open here ({error}); use --as-recorded"
            ) from None
    controls = Controls()
    observers: list[Observer] = []
    if page is not None:
        observers.append(open_page(page, controls, folder.resolve().parent))
    observers += result_output(output, controls)
    with stop_on_signals(controls):
        outcome = replay(recording, bundle, engine, Pipeline, speed=factor, observers=observers, controls=controls)
    for line in (*outcome.summary.lines(), outcome.line()):
        click.echo(line, err=True)
    if not recording.complete:
        click.echo("the recording was not closed properly, or samples were dropped because the disk was slow", err=True)
    if controls.failure:
        raise OutputError(controls.failure)
    if check and (outcome.played or outcome.equal != outcome.recomputed or not outcome.recomputed):
        sys.exit(1)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 1000:
        raise ConfigError(f"--speed {text} is invalid; give max, or a number from 0.01 to 1000")
    return value
