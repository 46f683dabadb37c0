"""Several people in one process: a loop and a thread for each, one engine for all.

A person's sources, controls and observers are their own, so that a decoder that blocks or a board that died holds up
one loop. What they share is the engine, whose calls take turns (`engine.shared`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..capture.base import Source
from ..controls import Controls
from ..engine.backends.base import Engine
from ..engine.bundle import Bundle
from ..engine.shared import SharedEngine
from ..errors import UserError, short
from ..faults import FAULTS, Steady
from ..observer import Observer
from ..summary import Summary
from .loop import Loop, Options, warm_up

log = logging.getLogger(__name__)

TURN = 0.25  # s between two looks at the loops
STALLED = 5.0  # s without a turn of a person's loop after which the log says so


@dataclass
class Person:
    """One person of a run, and what came of it: `summary`, and `failed`, why the loop ended early.

    sources: modality -> unopened source.
    """

    name: str
    sources: Mapping[str, Source]
    controls: Controls = field(default_factory=Controls)
    observers: list[Observer] = field(default_factory=list)
    summary: Summary | None = None
    failed: str = ""


class Everyone(Controls):
    """The controls of a whole run: `stop` ends every person's loop."""

    def __init__(self, people: Sequence[Person]) -> None:
        super().__init__()
        self._people = people

    def stop(self, failure: str = "") -> None:
        super().stop(failure)
        for person in self._people:
            person.controls.stop()


class _Pulse(Observer):
    """When a loop last turned."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.said = False

    def on_turn(self) -> None:
        self.at = time.monotonic()


def run_people(
    bundle: Bundle,
    engine: Engine,
    people: Sequence[Person],
    options: Options,
    everyone: Controls,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run every person's loop until all have ended; the sources and the engine are closed.

    A loop that fails ends alone: `Person.failed` says why, and the others continue. In real time the loops begin a part
    of a hop apart, so that their windows do not end, and ask for the engine, at the same moment. on_turn: called four
    times a second as long as one loop or more advances. Returns what failed in the process and continued, by name.
    Raises ConfigError for options that cannot be run with a person's sources.
    """
    for person in people:
        options.check(person.sources)
    before = FAULTS.counts()
    shared = SharedEngine(engine)
    pulses = {person.name: _Pulse() for person in people}
    try:
        warm_up(bundle, shared)
        threads = []
        for i, person in enumerate(people):
            apart = options.hop * i / len(people) if options.realtime else 0.0
            threads.append(_start(bundle, shared, person, options, pulses[person.name], apart))
    except BaseException:
        everyone.stop()
        raise
    while any(thread.is_alive() for thread in threads):
        for person, thread in zip(people, threads):
            thread.join(TURN / len(people))
            if thread.is_alive():
                _watch(person.name, pulses[person.name])
        if any(_advances(pulse) for pulse in pulses.values()):
            on_turn()
    shared.close()
    return {name: str(fault) for name, fault in FAULTS.since(before).items()}


def _start(bundle: Bundle, engine: Engine, person: Person, options: Options, pulse: _Pulse, apart: float) -> Steady:
    """The running thread of a person's loop, which begins `apart` s from now."""

    def work() -> None:
        try:
            person.controls.wait(apart)
            loop = Loop(bundle, engine, person.sources, options, [*person.observers, pulse], person.controls)
            person.summary = loop.summary
            with ExitStack() as stack:
                loop.open(stack)
                loop.run()
        except Exception as error:
            foreseen = isinstance(error, UserError)
            person.failed = str(error) if foreseen else f"{type(error).__name__}: {short(error)}"
            log.error("%s ended early: %s", person.name, person.failed, exc_info=None if foreseen else error)

    thread = Steady(work, f"person {person.name}")
    thread.start()
    return thread


def _advances(pulse: _Pulse) -> bool:
    return pulse.at is not None and time.monotonic() - pulse.at < STALLED


def _watch(name: str, pulse: _Pulse) -> None:
    """Say once that a loop has stalled, and once that it advances again."""
    if pulse.at is None or _advances(pulse) != pulse.said:
        return
    pulse.said = not pulse.said
    if pulse.said:
        log.warning("%s has stalled: no turn of its loop for %.0f s", name, STALLED)
    else:
        log.info("%s advances again", name)
