"""`jmt-edge live`: sensors in, results out."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BundleError, ConfigError, OutputError
from ..tasks import OPTIONS, TASK_NAMES, get_task
from ..trace import TRACE, span
from ._command import subcommand
from ._config import config_option
from ._log import start_log
from ._people import PersonType, live_people
from ._shared import broker_options, certificate_options, language_option, log_options
from ._signed import load_signed, signed_option

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..capture.base import Source
    from ..controls import Controls
    from ..engine.bundle import Bundle
    from ..live import Options
    from ..live.judge import Judge
    from ..live.page import PageObserver
    from ..observer import Observer
    from ..summary import Summary


@subcommand(
    "live",
    configurable=True,
    examples=[
        ("jmt-edge live --task pain", "simulated camera and EDA, terminal view"),
        ("jmt-edge live --camera 0 --eda bitalino:/dev/ttyUSB0 --record session1", "real sensors, recorded"),
        ("jmt-edge live --camera talk.mp4 --microphone talk.mp4 --task affect --speed max --output jsonl", "files"),
        ("jmt-edge live --mqtt mqtts://unit@broker.ward/ward-3 --bed 12", "for `jmt-edge station`"),
        ("jmt-edge live --person a:camera=0,eda=/dev/ttyUSB0 --person b:camera=2 --output jsonl", "two people"),
        ("jmt-edge live --config jmt-edge.toml", "all options from a file"),
    ],
)
@click.option("--task", "task_name", default=None, metavar="TASK", help="pain (default), affect or trimodal.")
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    help="NAME.jmt, or current (jmt-edge bundle); default: the demo weights.",
    metavar="PATH",
)
@click.option("--camera", metavar="SRC", help="sim:, a video, a camera's number or path, csi:0, a pipeline, or none.")
@click.option("--microphone", metavar="SRC", help="sim:, a wav or video, a microphone's number or name, or none.")
@click.option("--eda", metavar="SRC", help="sim:, a file, /dev/ttyUSB0, bitalino:/dev/..., lsl:type=EDA, or none.")
@click.option(
    "--person", "people", multiple=True, type=PersonType(), metavar="NAME:KEY=SRC,...",
    help="One of several people; keys: camera, microphone, eda, audio-delay, eda-delay.",
)  # fmt: skip
@click.option("--hop", type=float, default=0.5, show_default=True, metavar="S", help="Seconds between results.")
@click.option("--duration", type=float, metavar="S", help="Stop after S seconds of signal.")
@click.option(
    "--speed", type=click.Choice(["1", "max"]), default="1", show_default=True,
    help="1 is real time, max as fast as possible.",
)  # fmt: skip
@click.option("--output", type=click.Choice(["tui", "jsonl", "none"]), default="tui", show_default=True)
@click.option("--smooth", type=float, default=0.0, show_default=True, metavar="S", help="Trailing mean over S seconds.")
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="auto, onnxruntime, openvino, ...")
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="CPU threads; default: all cores.")
@click.option("--eda-delay", type=float, default=0.0, metavar="S", help="Known latency of the EDA device.")
@click.option("--audio-delay", type=float, default=0.0, metavar="S", help="Known latency of the microphone.")
@click.option("--record", type=click.Path(path_type=Path), metavar="DIR", help="Record results, quality, clocks, EDA.")
@click.option("--record-raw", metavar="LIST", help="Also record raw face,voice,eda (personal data).")
@click.option("--resume", is_flag=True, help="Continue the session in --record DIR, in a linked part DIR-2, DIR-3, ...")
@click.option("--lsl", metavar="NAME", help="Send results, quality and marks as Lab Streaming Layer streams.")
@click.option("--mqtt", metavar="URL", help="Publish to a broker: mqtt[s]://[USER@]HOST[:PORT]/PREFIX; needs --bed.")
@click.option("--bed", metavar="NAME", help="This unit's name below the PREFIX of --mqtt.")
@broker_options
@click.option(
    "--mqtt-discovery",
    is_flag=False,
    flag_value="homeassistant",
    metavar="[PREFIX]",
    help="Announce the bed to Home Assistant.",
)
@click.option("--mark", is_flag=True, help="Read `mark TEXT` and ratings 0-10 from standard input, one per line.")
@click.option(
    "--page", is_flag=False, flag_value="127.0.0.1:8765", metavar="[HOST:PORT]", help="Serve the bedside page."
)
@click.option(
    "--novelty",
    type=click.Choice(["gate", "warn", "off"]),
    default="gate",
    show_default=True,
    help="What to do with signals unlike those the weights were trained on.",
)
@click.option(
    "--follow",
    type=click.Choice(["largest", "central", "first"]),
    default="largest",
    show_default=True,
    help="Whose face to follow; first: nobody but the first person.",
)
@click.option("--rest", type=float, default=0.0, metavar="S", help="The person rests for the first S seconds (120).")
@click.option("--actions", is_flag=True, help="Measure what the face does (geometric, uncalibrated); needs a rest.")
@click.option("--session", is_flag=True, help="The page begins with a session's start; recording waits for it.")
@click.option("--demo-alarms", is_flag=True, help="Physiological alarms although demo weights see a real person.")
@signed_option
@click.option("--page-face", type=click.Choice(["show", "blur", "hide"]), default="show", show_default=True)
@click.option(
    "--page-ask", type=click.IntRange(0, 1440), default=0, metavar="MIN",
    help="The page asks for a pain rating every MIN minutes; default: only after a pain alarm.",
)  # fmt: skip
@certificate_options
@language_option
@click.option(
    "--trace", type=click.Path(path_type=Path), metavar="FILE", help="Write where the time goes, for ui.perfetto.dev."
)
@log_options
@config_option
def command(
    task_name: str | None,
    bundle_path: Path | None,
    camera: str | None,
    microphone: str | None,
    eda: str | None,
    people: tuple[str, ...],
    hop: float,
    duration: float | None,
    speed: str,
    output: str,
    smooth: float,
    backend: str,
    threads: int | None,
    eda_delay: float,
    audio_delay: float,
    record: Path | None,
    record_raw: str | None,
    resume: bool,
    lsl: str | None,
    mqtt: str | None,
    bed: str | None,
    mqtt_password_file: Path | None,
    mqtt_ca: Path | None,
    mqtt_discovery: str | None,
    mark: bool,
    page: str | None,
    novelty: str,
    follow: str,
    rest: float,
    actions: bool,
    session: bool,
    demo_alarms: bool,
    require_signed: bool,
    page_face: str,
    page_ask: int,
    page_cert: Path | None,
    page_key: Path | None,
    language: str | None,
    trace: Path | None,
    log_level: str,
    log_file: Path | None,
) -> None:
    """Estimate pain or affect from a camera, a microphone and an EDA sensor, with one result per hop.

    Without any source, every sensor is simulated; if at least one is given, the others default to `none`.
    A research prototype; not for clinical use.
    """
    start_log(log_level, log_file)
    click.get_current_context().with_resource(TRACE.into(trace))
    bundle = _bundle(task_name, bundle_path, signed=require_signed)
    if people:
        live_people(click.get_current_context().params, bundle)
        return
    raw = raw_of(record_raw)

    from ..engine.backends import choose_engine
    from ..live import Controls, Options, run
    from ..live.interrupt import stop_on_signals
    from ..live.service import open_service

    delays = {"voice": audio_delay, "eda": eda_delay}
    sources = sources_of(bundle, {"face": camera, "voice": microphone, "eda": eda}, delays)
    options = Options(hop, speed == "1", duration, smooth, novelty, demo_alarms, follow, rest, actions)
    options.check(sources)
    with span("open the engine"):
        engine, why = choose_engine(bundle, backend, threads)
    controls = Controls()
    _say(f"{bundle.id}, {engine.name} ({why})")
    for line in said_of_bundle(bundle, options):
        _say(line)
    observers: list[Observer] = []
    if (service := open_service()) is not None:
        observers.append(service)
    since = earlier = None
    subject = ""
    if record is not None:
        from ..recording.recorder import Recorder

        controls.recording = recorder = Recorder(record, bundle, raw, threads=threads, resume=resume, waits=session)
        since, earlier, subject = recorder.session_began, recorder.continues, recorder.subject
        if recorder.continues and rest:
            options = replace(options, rest=0.0)
            _say("the rest is not repeated within a session; begin one on the page when the person rests again")
        if recorder.continues:
            _say(f"the session of {recorder.continues} continues in {recorder.folder}")
        elif session:
            _say("nothing is recorded before a session begins on the page")
    if said := said_of_rest(bundle, sources, options.rest):
        _say(said)
    if lsl is not None:
        from ..live.lsl import LslOutlets

        observers.append(LslOutlets(lsl))
    server = None
    if page is not None:
        folder = record.parent if record is not None else Path("runs")
        options_of_page = {
            "face": page_face,
            "certfile": page_cert,
            "keyfile": page_key,
            "since": since,
            "ask": page_ask,
        }
        asks = session and earlier is None
        server = open_page(page, controls, folder, **options_of_page, earlier=earlier, asks=asks, subject=subject)
    shown, judge = result_output(output, controls, server, language)
    observers += shown
    if record is not None:
        observers.append(recorder)  # after what judges the alarms: the last events are recorded too
    if mqtt is not None:
        from ..beds.broker import parse_broker
        from ..beds.unit import BedUnit

        broker = parse_broker(mqtt, mqtt_password_file, mqtt_ca)
        if broker.warning:
            _say(broker.warning)
        # the last, because at the end it waits for what is still to be sent
        observers.append(BedUnit(broker, bed or "", judge, discovery=mqtt_discovery or ""))
    if mark:
        _read_marks(output, controls)
    with stop_on_signals(controls):
        summary = run(bundle, engine, sources, options, observers, controls)
    for line in summary.lines():
        _say(line)
    if short := said_of_length(bundle, sources, summary):
        _say(short)
    if controls.recording is not None and not recorder.used:
        _say(f"  nothing was recorded{'; no session was begun' if session else ''}")
    elif controls.recording is not None:
        problem = controls.recording.state
        _say(f"  recording {recorder.folder}" + (f": {problem}" if problem != "off" else ""))
        if (recorder.folder / "manifest.json").is_file():
            _say(f"  its report: jmt-edge report {shlex.quote(str(recorder.folder))}")
    if controls.failure:
        raise OutputError(controls.failure)


_log = logging.getLogger(__name__)
_say = _log.info


def result_output(
    output: str, controls: Controls, page: PageObserver | None = None, code: str | None = None
) -> tuple[list[Observer], Judge]:
    """The observers of --output and --page, and what judges the run's alarms: the page's, or one of its own.

    Without a terminal, `tui` becomes `jsonl`, and standard error says so.
    """
    from ..live.judge import Watch

    before: list[Observer] = []
    after: list[Observer] = []
    if page is None:
        watch = Watch(controls)
        judge, before = watch.judge, [watch]
    else:
        judge, after = page.model.judging, [page]  # last: its farewell to the browsers takes a while
    if output == "tui" and not sys.stdout.isatty():
        _say("standard output is not a terminal, so results are written as JSON lines (--output jsonl)")
        output = "jsonl"
    if output == "jsonl":
        from ..live.outputs import JsonLines

        return [*before, JsonLines(sys.stdout, controls), *after], judge
    if output == "tui":
        from ..languages import language as speaking
        from ..languages import of_environment
        from ..live.tui import Terminal

        speech = speaking(code or of_environment())
        shown = Terminal(controls, judge, log=page.log if page is not None else None, speech=speech)
        return [*before, shown, *after], judge
    return [*before, *after], judge


def open_page(address: str, controls: Controls, recordings: Path, **options: Any) -> PageObserver:
    """The running page; standard error says where."""
    from ..live.page import start_page

    server = start_page(address, controls, recordings=recordings, **options)
    for line in server.lines:
        _say(line)
    return server


def _bundle(task_name: str | None, path: Path | None, *, signed: bool) -> Bundle:
    from ..engine.bundle import load_bundle

    load = load_signed if signed else load_bundle

    if task_name is not None:
        get_task(task_name)
    if path is None:
        return load(demo_bundle(task_name or TASK_NAMES[0]))
    if str(path) == "current" and not path.exists():
        from .bundle import open_store

        path = open_store(None).current_path()
    bundle = load(path.resolve() if path.is_symlink() else path)  # a link may lead elsewhere during the run
    if task_name is not None and bundle.task.name != task_name:
        raise ConfigError(f"{path} is a bundle for '{bundle.task.name}', not '{task_name}'; leave --task out")
    return bundle


def demo_bundle(task_name: str) -> Path:
    """The packaged demo bundle of a task. Raises BundleError where the installation lacks it."""
    path = Path(str(resources.files("jmt_edge.engine"))) / "bundles" / f"{task_name}-demo.jmt"
    if not path.is_dir():
        raise BundleError(f"the demo bundle {path} is not installed; reinstall jmt-edge, or give --bundle NAME.jmt")
    return path


def sources_of(bundle: Bundle, given: Mapping[str, str | None], delays: Mapping[str, float]) -> dict[str, Source]:
    """Unopened sources of the task's modalities, without those that are `none`."""
    from ..capture.ahead import ReadAhead
    from ..recording import open_source

    names = bundle.task.names
    for modality, spec in given.items():
        if spec not in (None, "none") and modality not in names:
            raise ConfigError(
                f"task '{bundle.task.name}' has no {modality}, so --{OPTIONS[modality]} has no effect; leave it out"
            )
    default = "sim:" if all(spec is None for spec in given.values()) else "none"
    sources = {}
    for modality in names:
        spec = given[modality] or default
        options = {"delay": delays[modality]} if delays.get(modality) else {}
        source = open_source(modality, spec, **options)
        if source is not None:
            sources[modality] = source if source.realtime else ReadAhead(source)
    return sources


def said_of_length(bundle: Bundle, sources: Collection[str], summary: Summary) -> str:
    """Why a run that was too short has no result; empty where that is not the reason."""
    first = min((m.span - m.end for m in bundle.task.modalities if m.name in sources), default=0.0)
    if summary.with_outputs or summary.stream >= first:
        return ""
    return (
        f"no result: there were {summary.stream:.1f} s of signal, and the first window takes {first:.1f} s; give a "
        "longer recording, or a longer --duration"
    )


def raw_of(listed: str | None) -> tuple[str, ...]:
    """The modalities of --record-raw."""
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())


def said_of_bundle(bundle: Bundle, options: Options) -> list[str]:
    """What the user must know of the weights before the run."""
    said = []
    if options.novelty != "off" and not bundle.has_novelty:
        said.append("novelty not checked: the bundle does not say what its training people look like; export it again")
    if bundle.subject:
        said.append(
            f"personalised to {bundle.subject}: no number for anybody else; --bundle the general one for others"
        )
    elif bundle.uncertainty is None:
        said.append("uncertainty not known: the bundle promises nothing about other people; train with more of them")
    if options.actions and not options.rest:
        said.append("facial actions are compared with the person's rest: give --rest 120, or begin one on the page")
    return said


def said_of_rest(bundle: Bundle, sources: Collection[str], rest: float) -> str:
    """What the user must know of the person's rest before the run; empty where all is as the weights were trained."""
    compared = [name for name in bundle.baseline if name in sources]
    seconds = bundle.baseline_seconds
    if compared and not rest:
        return (
            f"uncalibrated: these weights compare {', '.join(compared)} with the person's rest, and there is none; "
            f"give --rest {seconds:g}, or begin one on the page"
        )
    if compared and rest < seconds:
        return f"a rest of {rest:g} s is shorter than the {seconds:g} s that these weights were trained with"
    if rest and not compared:
        return "the rest is shown beside the numbers, which do not use it: the weights compare nothing here with a rest"
    return ""


def _read_marks(output: str, controls: Controls) -> None:
    from ..live.outputs import read_marks

    if output == "tui" and sys.stdin.isatty():
        raise ConfigError("--mark reads lines from standard input; in the terminal view press m or 0-9 instead")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # a byte that is not UTF-8 costs a character
    read_marks(sys.stdin, controls)
