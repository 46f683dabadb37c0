"""`jmt-edge live --person NAME:camera=SRC,eda=SRC`: several people in one process."""

from __future__ import annotations

import difflib
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, OutputError, UserError
from ..plain_files import printable
from ..tasks import OPTIONS

if TYPE_CHECKING:
    from ..beds.broker import Broker
    from ..engine.bundle import Bundle
    from ..live.people import Person
    from ..observer import Observer

SOURCES = {key: modality for modality, key in OPTIONS.items()}
DELAYS = {"audio-delay": "voice", "eda-delay": "eda"}
KEYS = (*SOURCES, *DELAYS)
MOST = 64
# options of `live` that are about one person
ALONE = (
    "camera", "microphone", "eda", "eda_delay", "audio_delay", "bed", "mark", "session", "page", "page_face",
    "page_ask", "page_cert", "page_key",
)  # fmt: skip
_KEY = re.compile(rf"(?:^|,)({'|'.join(KEYS)})=")
_NAME_OF_KEY = re.compile(r"(?:^|,)\s*([\w-]+)\s*=")

_say = logging.getLogger(__name__).info


class PersonType(click.ParamType):
    """The text of one `--person`; in an environment variable several are divided by semicolons."""

    name = "person"
    envvar_list_splitter = ";"


@dataclass(frozen=True)
class Asked:
    """One `--person`. sources: modality -> specification; delays: modality -> s."""

    name: str
    sources: dict[str, str]
    delays: dict[str, float]


def parse_people(texts: Sequence[str]) -> list[Asked]:
    """The people of all `--person`. Raises ConfigError for what cannot be used, for a name that is there twice, and for
    a device that two people would share."""
    people = [parse_person(text) for text in texts]
    if len(people) > MOST:
        raise ConfigError(f"{len(people)} people are more than one process takes; give at most {MOST}")
    names: dict[str, str] = {}
    for person in people:
        folded = person.name.casefold()
        if folded in names:
            raise ConfigError(f"two people are named '{person.name}'; give each --person a name of its own")
        names[folded] = person.name
    for folded, name in names.items():
        base, dash, number = folded.rpartition("-")
        if dash and number.isdecimal() and base in names:  # later parts of a recording are NAME-2, NAME-3, ...
            raise ConfigError(
                f"'{name}' is what the next recording of '{names[base]}' would be called; choose another name"
            )
    whose: dict[str, str] = {}
    for person in people:
        for modality, spec in person.sources.items():
            device = device_of(modality, spec)
            if device and device in whose:
                raise ConfigError(
                    f"'{whose[device]}' and '{person.name}' have the same device, {printable(spec)}; give each person "
                    "their own"
                )
            whose[device] = person.name
    return people


def parse_person(text: str) -> Asked:
    """`NAME:camera=SRC,eda=SRC`: a source reaches up to the next `,KEY=` of `KEYS`, so it may hold commas and colons.

    Raises ConfigError.
    """
    from ..beds.broker import check_bed

    example = "write NAME:camera=SRC,eda=SRC"
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not colon or not rest.strip():
        raise ConfigError(f"--person '{printable(text)[:60]}' has no source; {example}")
    if not any(c.isalnum() for c in check_bed(name)):
        raise ConfigError(f"'{name}' cannot name a person, whose folder it will name; use letters or digits")
    found = list(_KEY.finditer(rest))
    said = f"--person {name}"
    if not found or found[0].start():
        first = _NAME_OF_KEY.match(rest)
        what = first.group(1) if first else rest[:40]
        raise ConfigError(f"{said} has no '{printable(what)}'{_nearest(what)}; {example}")
    values: dict[str, str] = {}
    for match, after in zip(found, [*found[1:], None]):
        key, value = match.group(1), rest[match.end() : after.start() if after else len(rest)].strip()
        if key in values:
            raise ConfigError(f"{said} has {key} twice; give it once")
        if not value:
            raise ConfigError(f"{said} has nothing after {key}=; {example}")
        for other in _NAME_OF_KEY.findall(value[1:]):
            if difflib.get_close_matches(other, KEYS, 1, 0.75):
                raise ConfigError(f"{said} has no '{other}'{_nearest(other)}; {example}")
        values[key] = value
    sources = {SOURCES[key]: value for key, value in values.items() if key in SOURCES}
    if not any(value != "none" for value in sources.values()):
        raise ConfigError(f"{said} has no source; {example}")
    return Asked(name, sources, {DELAYS[key]: _seconds(said, key, values[key]) for key in DELAYS if key in values})


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, KEYS, 1, 0.5)
    return f", did you mean {near[0]}?" if near else f", known are {', '.join(KEYS)}"


def _seconds(said: str, key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{said}: {key}={printable(text)[:40]} is not a number of seconds; write {key}=0.1") from None


def device_of(modality: str, spec: str) -> str:
    """One text for every way to write a device; empty for simulations, recordings and files, which any number of
    people can read."""
    from ..capture.spec import names_file

    if spec == "none" or spec.startswith(("sim:", "replay:")) or names_file(spec):
        return ""
    if "!" in spec or "://" in spec:
        return spec
    plain = spec.partition("?")[0]
    port = plain[plain.find("/dev/") :] if "/dev/" in plain else ""
    if port:
        return os.path.realpath(port)
    return f"/dev/video{plain}" if modality == "face" and plain.isdecimal() else f"{modality} {plain}"


def check_people(flags: Mapping[str, Any]) -> None:
    """Raises ConfigError for people that cannot be used, and beside them for options that are about one person."""
    parse_people(flags["people"])
    context = click.get_current_context(silent=True)
    for name in ALONE:
        given = flags[name] not in (None, False, 0, 0.0)
        if name == "page_face":
            given = context is not None and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} is for one person; leave it out, or leave --person out{_instead(name)}")
    if flags["output"] == "tui" and sys.stdout.isatty():
        raise ConfigError("the terminal view is for a run without --person; give --output jsonl or none")


def _instead(name: str) -> str:
    if name in ("camera", "microphone", "eda", "eda_delay", "audio_delay"):
        return f", such as --person NAME:{name.replace('_', '-')}=..."
    return ", since each person's bed has their name" if name == "bed" else ""


def live_people(flags: Mapping[str, Any], bundle: Bundle) -> None:
    """Run them until all have ended, and print the summaries. Raises UserError for a person who ended early."""
    from ..engine.backends import choose_engine
    from ..live.interrupt import stop_on_signals
    from ..live.loop import Options
    from ..live.people import Everyone, Person, run_people
    from ..live.service import open_service
    from ..summary import Summary, lines_of_people
    from .live import said_of_bundle, said_of_length, said_of_rest, sources_of

    options = Options(
        flags["hop"], flags["speed"] == "1", flags["duration"], flags["smooth"], flags["novelty"],
        flags["demo_alarms"], flags["follow"], flags["rest"], flags["actions"],
    )  # fmt: skip
    wanted = parse_people(flags["people"])
    if bundle.subject and len(wanted) > 1:
        raise ConfigError(
            f"{bundle.id} is personalised to {bundle.subject}, and there are {len(wanted)} people; give the general one"
        )
    people = []
    for asked in wanted:
        given = {modality: asked.sources.get(modality) for modality in SOURCES.values()}
        try:
            person = Person(asked.name, sources_of(bundle, given, asked.delays))
            options.check(person.sources)
        except UserError as error:
            raise type(error)(f"{asked.name}: {error}") from None
        people.append(person)
    engine, why = choose_engine(bundle, flags["backend"], flags["threads"])
    _say(f"{bundle.id}, {engine.name} ({why}), {len(people)} people")
    for line in said_of_bundle(bundle, options):
        _say(line)
    for line in dict.fromkeys(said_of_rest(bundle, person.sources, options.rest) for person in people):
        if line:
            _say(line)
    everyone = Everyone(people)
    if flags["mqtt"] is None:
        _say("alarms are neither shown nor heard here; give --mqtt, and watch a station (jmt-edge station)")
    elif warning := _broker(flags).warning:
        _say(warning)
    for person in people:
        person.observers += _observers(flags, bundle, person, everyone)
    service = open_service()
    if service is not None:
        service.begin()
    with stop_on_signals(everyone):
        faults = run_people(
            bundle, engine, people, options, everyone, service.on_turn if service is not None else lambda: None
        )
    failed = [person for person in people if person.failed]
    summaries = {person.name: person.summary for person in people if person.summary is not None}
    if service is not None:
        total = Summary(bundle.id, bundle.demo, options.realtime, sum(s.results for s in summaries.values()))
        total.failed = "; ".join(person.failed for person in failed)
        service.on_end(total)
    for line in lines_of_people(summaries, faults):
        _say(line)
    for person in people:
        if person.summary and not person.failed and (short := said_of_length(bundle, person.sources, person.summary)):
            _say(f"{person.name}: {short}")
        _say_of_recording(person)
    if everyone.failure:
        raise OutputError(everyone.failure)
    if failed:
        raise UserError("; ".join(f"{person.name} ended early: {person.failed}" for person in failed))


def _observers(flags: Mapping[str, Any], bundle: Bundle, person: Person, everyone: Any) -> list[Observer]:
    """The person's, in the order of a run of one person."""
    from ..live.judge import Watch
    from ..live.outputs import JsonLines

    observers: list[Observer] = []
    recorder = None
    if flags["record"] is not None:
        from ..recording.recorder import Recorder
        from .live import raw_of

        recorder = Recorder(
            flags["record"] / person.name, bundle, raw_of(flags["record_raw"]), threads=flags["threads"],
            resume=flags["resume"],
        )  # fmt: skip
        person.controls.recording = recorder
        if recorder.continues:
            _say(f"{person.name}: the session of {recorder.continues} continues in {recorder.folder}")
    if flags["lsl"] is not None:
        from ..live.lsl import LslOutlets

        observers.append(LslOutlets(f"{flags['lsl']}-{person.name}"))
    watch = Watch(person.controls)
    observers.append(watch)
    if flags["output"] != "none":
        observers.append(JsonLines(sys.stdout, everyone, person.name))
    if recorder is not None:
        observers.append(recorder)  # after what judges the alarms: the last events are recorded too
    if flags["mqtt"] is not None:
        from ..beds.unit import BedUnit

        observers.append(BedUnit(_broker(flags), person.name, watch.judge, discovery=flags["mqtt_discovery"] or ""))
    return observers


def _broker(flags: Mapping[str, Any]) -> Broker:
    from ..beds.broker import parse_broker

    return parse_broker(flags["mqtt"], flags["mqtt_password_file"], flags["mqtt_ca"])


def _say_of_recording(person: Person) -> None:
    recorder: Any = person.controls.recording
    if recorder is None:
        return
    folder: Path = recorder.folder
    problem = recorder.state
    if not recorder.used:
        _say(f"  {person.name}: nothing was recorded")
    else:
        _say(f"  {person.name}: recording {folder}" + (f": {problem}" if problem != "off" else ""))
        if (folder / "manifest.json").is_file():
            _say(f"  its report: jmt-edge report {shlex.quote(str(folder))}")
