"""Runs readers on damaged inputs in a process of their own, judges what comes back, and keeps what went wrong.

An input has one of three outcomes: the reader takes it; it refuses it with one sentence (one of `jmt_edge.errors`);
or it is a fault: another exception, a sentence of several lines, a broken promise (`AssertionError` in the reader's
check), an error in a thread or a logged traceback, more than `CPU` seconds, more than `MEMORY`, or the process's death.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import mmap
import os
import resource
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzz_mutations import Mutator
from fuzz_readers import Reader

from jmt_edge.capture.reconnect import DeviceLost
from jmt_edge.errors import UserError

MEMORY = 500 << 20  # bytes above what the process had before
HARD = 1500 << 20  # bytes above that, at which an allocation fails
CPU, WALL = 5.0, 30.0  # s: the processor's time of one input, and the clock's on a busy machine
_UNIT = 1024  # of ru_maxrss
SHOTS = 200_000  # inputs of a process


@dataclass
class Fault:
    reader: str
    name: str  # which kind of input
    kind: str  # what went wrong and where; two faults of a kind are one
    detail: str
    data: bytes = b""
    count: int = 1


@dataclass
class Tally:
    """What came out of one reader. `seconds` is the time spent on inputs and their making."""

    inputs: int = 0
    taken: int = 0
    refused: int = 0
    seconds: float = 0.0
    memory_mb: float = 0.0  # the most above the process's base
    faults: dict[str, Fault] = field(default_factory=dict)

    def add(self, fault: Fault) -> None:
        if fault.kind in self.faults:
            self.faults[fault.kind].count += 1
        else:
            self.faults[fault.kind] = fault


class Heard(logging.Handler):
    """Tracebacks that do not reach the caller: logged, or of a thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[BaseException] = []
        logging.getLogger().addHandler(self)
        threading.excepthook = lambda args: self.errors.append(args.exc_value or args.exc_type())
        sys.unraisablehook = lambda args: self.errors.append(args.exc_value or args.exc_type())

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


def judge(reader: Reader, name: str, data: bytes, heard: Heard) -> Fault | bool:
    """True: taken; False: refused with a sentence."""
    heard.errors.clear()
    taken = True
    try:
        reader.read(name, data)
    except (UserError, DeviceLost) as error:
        taken = False
        if "\n" in str(error).strip() or not str(error).strip():
            return Fault(reader.name, name, f"not one sentence: {_place(error)}", str(error)[:300])
    except BaseException as error:
        return _fault(reader, name, error)
    if heard.errors:
        return _fault(reader, name, heard.errors[0])
    return taken


def _fault(reader: Reader, name: str, error: BaseException) -> Fault:
    text = "".join(traceback.format_exception(error, limit=-4))[-1500:]
    return Fault(reader.name, name, f"{type(error).__name__}: {_place(error)}", text)


def _place(error: BaseException) -> str:
    """The innermost function of the product in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(f"/{room}/" in f.filename for room in ("jmt_edge", "training", "calibration"))]
    frame = (ours or frames or [None])[-1]
    return f"{Path(frame.filename).name}, {frame.name}" if frame else "unknown"


def rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


class Shots:
    """One process's inputs `first`..., in a forked child, until a time is over or an input kills it."""

    def __init__(self, reader: Reader, seed: int, scratch: Path) -> None:
        self.reader, self.seed, self.scratch = reader, seed, scratch
        self._mutator = Mutator([*reader.seeds.values()], reader.tokens)  # the seeds are made before the fork
        self._names = sorted(reader.seeds)

    def input(self, index: int) -> tuple[str, bytes]:
        """Input number `index`, always the same."""
        known = int.from_bytes(hashlib.blake2b(self.reader.name.encode(), digest_size=6).digest(), "big")
        self._mutator.reseed((self.seed << 96) | (known << 40) | index)
        name = self._mutator.choose(self._names)
        return name, self._mutator.one(self.reader.seeds[name])

    def run(self, first: int, seconds: float, tally: Tally, most: int = SHOTS) -> int:
        """Returns the number of the next input."""
        shared = mmap.mmap(-1, 16)
        shared[:8] = struct.pack("<q", first - 1)
        ready, told = os.pipe()
        crash = self.scratch / "crash.txt"
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(ready)
            code = 1
            try:
                self._child(first, seconds, most, shared, told, crash)
                code = 0
            except BaseException:
                crash.write_text(traceback.format_exc())
            finally:
                os._exit(code)
        os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        tally.seconds += time.monotonic() - began
        last = struct.unpack("<q", shared[:8])[0]
        if status == 0:
            found = json.loads(answer)
            for fault in found.pop("faults"):
                tally.add(Fault(**{**fault, "data": bytes.fromhex(fault["data"])}))
            tally.memory_mb = max(tally.memory_mb, found.pop("memory_mb"))
            for key, value in found.items():
                setattr(tally, key, getattr(tally, key) + value)
            return last + 1
        # what was counted in the lost process is counted as read, neither taken nor refused
        tally.inputs += last - first + 1
        name, data = self.input(max(last, first))
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        text = crash.read_text(errors="replace")[-1500:] if crash.exists() else ""
        ours = [line.strip() for line in text.splitlines() if "jmt_edge" in line or "training" in line]
        where = ours[0].rpartition("/")[2] if ours else ""
        what = {signal.SIGPROF: f"more than {CPU:g} s", signal.SIGALRM: f"more than {WALL:g} s"}
        kind = what.get(number, f"killed by {signal.Signals(number).name}" if number else "the process ended")
        tally.add(Fault(self.reader.name, name, f"{kind}: {where}", text, data))
        return max(last, first) + 1

    def _child(
        self, first: int, seconds: float, most: int, shared: mmap.mmap, told: int, crash: Path
    ) -> None:  # fmt: skip
        quiet = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(quiet, fd)
        file = crash.open("w")
        faulthandler.enable(file)
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
            faulthandler.register(number, file, chain=True)
        heard = Heard()
        self.reader.open(self.scratch)
        name, data = self.input(first)
        with suppress(BaseException):  # imports and caches belong to the base
            for good in self._names if self.reader.warms else ():
                self.reader.read(good, self.reader.seeds[good])
        base = rss()
        soft = _mapped() + HARD
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
        tally, peak = Tally(), base
        end = time.monotonic() + seconds
        index = first
        while index < first + most and (index - first < 1 or time.monotonic() < end):
            shared[:8] = struct.pack("<q", index)
            name, data = self.input(index)
            signal.setitimer(signal.ITIMER_PROF, CPU)
            signal.setitimer(signal.ITIMER_REAL, WALL)
            found = judge(self.reader, name, data, heard)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            tally.inputs += 1
            index += 1
            now = rss()
            if now > peak:
                if now - base > MEMORY >= peak - base:
                    where = "at once" if now - peak > MEMORY / 2 else "little by little"
                    found = Fault(self.reader.name, name, f"memory, {where}", f"{(now - base) >> 20} MB above the base")
                peak = now
            if isinstance(found, Fault):
                found.data = data
                tally.add(found)
                if found.kind.startswith("memory"):
                    break
            elif found:
                tally.taken += 1
            else:
                tally.refused += 1
        plain = {"inputs": tally.inputs, "taken": tally.taken, "refused": tally.refused}
        faults = [{**asdict(f), "data": f.data.hex()} for f in tally.faults.values()]
        answer = json.dumps({**plain, "memory_mb": (peak - base) / 1e6, "faults": faults}).encode()
        with os.fdopen(told, "wb") as pipe:
            pipe.write(answer)


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Given(Shots):
    """The inputs of a list instead of damaged ones."""

    def __init__(self, reader: Reader, inputs: Sequence[tuple[str, bytes]], scratch: Path) -> None:
        super().__init__(reader, 0, scratch)
        self._inputs = inputs

    def input(self, index: int) -> tuple[str, bytes]:
        return self._inputs[index]

    def run_all(self) -> Tally:
        tally, first = Tally(), 0
        while first < len(self._inputs):
            first = self.run(first, 1e9, tally, len(self._inputs) - first)
        return tally


def outcome(reader: Reader, name: str, data: bytes, scratch: Path) -> Fault | bool:
    """What comes of one input in a process of its own; True: taken, False: refused."""
    tally = Given(reader, [(name, data)], scratch).run_all()
    return next(iter(tally.faults.values())) if tally.faults else bool(tally.taken)


def minimised(reader: Reader, fault: Fault, scratch: Path, seconds: float = 5.0) -> bytes:
    """A shorter input with the same kind of fault, found by leaving out parts."""
    deadly = fault.kind.startswith(("killed", "more than", "the process", "memory"))
    if deadly:  # a process for every try
        return _shortened(fault, lambda data: outcome(reader, fault.name, data, scratch), 4 * seconds)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        data = fault.data
        with suppress(BaseException):
            quiet = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(quiet, fd)
            heard = Heard()
            reader.open(scratch)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(3 * seconds))
            data = _shortened(fault, lambda data: judge(reader, fault.name, data, heard), seconds)
        with os.fdopen(told, "wb") as pipe:
            pipe.write(data)
        os._exit(0)
    os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    return data if status == 0 else fault.data


def _shortened(fault: Fault, tried: Callable[[bytes], Fault | bool], seconds: float) -> bytes:
    data, end = fault.data, time.monotonic() + seconds
    size = max(1, len(data) // 2)
    while size >= 1 and time.monotonic() < end:
        at, shorter = 0, False
        while at < len(data) and time.monotonic() < end:
            found = tried(candidate := data[:at] + data[at + size :])
            if isinstance(found, Fault) and found.kind == fault.kind:
                data, shorter = candidate, True
            else:
                at += size
        if not shorter:
            size //= 2
    return data


def report(tallies: dict[str, Tally]) -> dict[str, Any]:
    """The figures as plain JSON values."""
    readers = {}
    for name, t in sorted(tallies.items()):
        rate = t.inputs / t.seconds if t.seconds else 0.0
        faults = [{"kind": f.kind, "input": f.name, "count": f.count} for f in t.faults.values()]
        readers[name] = {
            "inputs": t.inputs, "taken": t.taken, "refused": t.refused, "per_second": round(rate, 1),
            "seconds": round(t.seconds, 1), "memory_mb_above_base": round(t.memory_mb, 1), "faults": faults,
        }  # fmt: skip
    return {
        "inputs": sum(t.inputs for t in tallies.values()),
        "faults": sum(len(t.faults) for t in tallies.values()),
        "readers": readers,
    }


def case_name(name: str, data: bytes) -> str:
    """The file of a kept case: the kind of input, then a hash of the bytes."""
    return f"{name}@{hashlib.sha256(data).hexdigest()[:8]}"


__all__ = ["Fault", "Given", "Heard", "Shots", "Tally", "case_name", "judge", "minimised", "outcome", "report"]
