"""`jmt-edge replay`: run a recording again."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BackendError, BundleError, ConfigError, OutputError
from ..plain_files import printable
from ..tasks import TASK_NAMES
from ._command import subcommand
from ._log import start_log
from ._shared import language_option
from ._signed import check_signed_recording, load_signed, signed_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.bundle import Bundle
    from ..recording.reader import Recording


@subcommand(
    "replay",
    examples=[
        ("jmt-edge replay session1", "compute the results again"),
        ("jmt-edge replay session1 --check", "exit with 1 unless all are equal, bit for bit"),
    ],
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--speed", default="max", show_default=True, metavar="X", help="1 is real time, 2 twice as fast, or max.")
@click.option("--output", type=click.Choice(["tui", "jsonl", "none"]), default="jsonl", show_default=True)
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    help="The run's bundle, unless it is a demo bundle.",
    metavar="PATH",
)
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="auto, onnxruntime, openvino, ...")
@click.option("--as-recorded", is_flag=True, help="Show the recorded results; compute nothing.")
@click.option("--check", is_flag=True, help="Exit with 1 unless every result was computed again, equal bit for bit.")
@signed_option
@language_option
@click.option("--page", is_flag=False, flag_value="127.0.0.1:8765", metavar="[HOST:PORT]", help="Show it on the page.")
def command(
    folder: Path, speed: str, output: str, bundle_path: Path | None, backend: str, as_recorded: bool, check: bool,
    require_signed: bool, language: str | None, page: str | None,
) -> None:  # fmt: skip
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
    if require_signed:
        check_signed_recording(recording)
    bundle = _bundle(recording, bundle_path, load_signed if require_signed else load_bundle)
    engine = None
    if not as_recorded and not recording.replay_blocker:
        try:
            engine = open_engine(bundle, backend, recording.manifest["threads"])
        except BackendError as error:
            raise BackendError(f"{error}; or use --as-recorded") from None
        then = recording.manifest["backend"]
        if engine.name != then:
            click.echo(
                f"the run used the backend {printable(then)}, this replay uses {engine.name}: results may differ in "
                "their last digits; choose with --backend",
                err=True,
            )
    start_log()
    controls = Controls()
    server = open_page(page, controls, folder.resolve().parent) if page is not None else None
    observers = result_output(output, controls, server, language)[0]
    with stop_on_signals(controls):
        outcome = replay(recording, bundle, engine, Pipeline, speed=factor, observers=observers, controls=controls)
    for line in (*outcome.summary.lines(), outcome.line()):
        click.echo(line, err=True)
    for sentence in recording.remarks:
        click.echo(sentence, err=True)
    if controls.failure:
        raise OutputError(controls.failure)
    if check and (outcome.played or outcome.equal != outcome.recomputed or not outcome.recomputed):
        sys.exit(1)


def _bundle(recording: Recording, given: Path | None, load: Callable[[Path], Bundle]) -> Bundle:
    """The bundle of the run: the one given, or the one with its hash among the packaged ones and those of the user's
    store. The recording does not say where it is: an engine plan is code, and a recording may come from anybody.
    """
    from ..engine.store import default_store
    from .live import demo_bundle

    wanted = recording.manifest["bundle"]
    name = printable(wanted["id"])
    if given is not None:
        bundle = load(given)
        if not _same(bundle, wanted):
            raise BundleError(f"the recording was made with {name}, but {given} is {bundle.id}; give its --bundle")
        return bundle
    for path in (*map(demo_bundle, TASK_NAMES), *sorted(default_store().glob("*.jmt"))):
        try:
            digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        except OSError:
            continue
        if wanted["id"].endswith(f"@{digest[:8]}") and _same(bundle := load(path), wanted):
            return bundle
    raise BundleError(
        f"the recording was made with {name}, which is neither a packaged bundle nor in {default_store()}; give it "
        "with --bundle"
    )


def _same(bundle: Bundle, wanted: dict[str, str]) -> bool:
    """Recordings of the first edition have eight digits of the hash, in the id."""
    return bundle.id == wanted["id"] and wanted.get("sha256", bundle.sha256) == bundle.sha256


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
