"""The recorder: an observer that writes a run into a folder, in its own thread.

The format is described in `docs/reference/recordings.md`. Every file is append-only (except the WAV's size field and
the manifest), is flushed every `FLUSH` seconds, and can be read even if the process is killed at any moment. In real
time the loop never waits for the disk: if the disk is too slow, samples are dropped and the recording says so. A run
faster than real time waits instead. A full disk ends the recording and nothing else.
"""

from __future__ import annotations

import base64
import errno
import glob
import json
import logging
import os
import platform
import shutil
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..capture.base import Status
from ..engine.bundle import INTENDED_USE, Bundle
from ..errors import ConfigError
from ..faults import FAULTS, Steady
from ..media.chunk import Chunk
from ..observer import Mark, Observer, RunInfo
from ..plain_files import checksum
from ..result import Result
from ..summary import Summary
from ..tasks import AUDIO_RATE
from ..trace import span
from .chain import ChainWriter, last_head

log = logging.getLogger(__name__)

FORMAT, VERSION = "jmt-edge recording", 1
MANIFEST, CHECKSUM = "manifest.json", "manifest.sha256"  # the second as sha256sum writes it, when all is written
RAW = ("face", "voice", "eda")
FLUSH = 0.25  # s
QUEUE_BYTES = 64 << 20
LOST_AT_MOST = 1.0  # s of a recording whose process was killed: a flush, and half a second of video
RESERVE_BYTES = 8 << 20  # free space at which the recording stops, so that its files can be closed
RESTART, RESTART_MOST = 1.0, 60.0  # s from a fault to the next part: the first time, and at most
CLOCK_STEPS = 100  # of the system's clock, the newest, in the manifest
CLOCK_PERIOD = 1.0  # s between two status lines where nothing changed


class Recorder(Observer):
    """Records a run into `folder`: results, quality, clocks, marks and EDA; with `raw`, face and voice too.

    Raises ConfigError where the folder is in use or cannot be made, and where raw video cannot be written because
    PyAV is not installed. `start` and `stop` (from the loop's thread) switch it during a run; later recordings go
    to `folder`-2, -3, ... threads: the engine's setting, for the replay.

    subject (attribute): the code of the person who is recorded; "" where none was given.
    waits: nothing is recorded before `start` or `begin_session`, unless a session continues.
    resume: a session that was recorded into `folder` before continues in the next of these, whose manifest names the
    part before it. Raises ConfigError where that one was recorded with other weights.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        raw: Collection[str] = (),
        *,
        threads: int | None = None,
        resume: bool = False,
        waits: bool = False,
    ) -> None:
        unknown = sorted(set(raw) - set(RAW))
        if unknown:
            raise ConfigError(f"--record-raw has no '{unknown[0]}': choose from {', '.join(RAW)}")
        if "face" in raw:
            try:
                import av  # noqa: F401
            except ImportError:
                raise ConfigError(
                    "recording raw video needs PyAV; run `pip install 'jmt-edge[record]'`, or leave face out of "
                    "--record-raw"
                ) from None
        self.continues = _last_part(folder) if resume else None  # the part before the next one to be started
        self.subject = ""
        self.session_began: str | None = None  # when the session that is continued began
        if self.continues is not None:
            self.session_began = _manifest_of(folder).get("created")
            if (other := _manifest_of(self.continues).get("bundle", {}).get("id")) != bundle.id:
                raise ConfigError(
                    f"{self.continues} was recorded with {other}, not with {bundle.id}; give the same --bundle, or "
                    "begin another session with --record"
                )
            self.subject = str(_manifest_of(self.continues).get("subject", ""))
        self._waits = waits and self.continues is None
        self.folder = _new_folder(folder, 1 if self.continues is None else 2)
        self.raw = frozenset(raw)
        self.problem = ""  # why the recording stopped, if it failed
        self._bundle = bundle
        self._base = folder
        self._threads = threads
        self._info: RunInfo | None = None
        self._whole = True  # the run has been recorded from its start
        self._worker: _Worker | None = None
        self._ending: list[_Worker] = []  # stopped, but still writing
        self._started = 0
        self._pause, self._due = RESTART, 0.0  # before a part that follows a fault
        self._lasting: dict[str, dict[str, Any]] = {}  # lines of alarms.jsonl that every later part begins with
        self._alarms = threading.Lock()

    @property
    def active(self) -> bool:
        return self._worker is not None and not self._worker.problem

    @property
    def state(self) -> str:
        """`recording to DIR (raw face)`, `off`, or why it stopped."""
        if self.active:
            raw = [name for name in RAW if name in self.raw and name != "eda"]
            return f"recording to {self.folder}" + (f" (raw {', '.join(raw)})" if raw else "")
        return self.problem or (self._worker.problem if self._worker else "") or "off"

    def start(self) -> None:
        """Begin a recording; does nothing during a recording, or before the run has begun."""
        if self.active or self._info is None:
            return
        self._let_go()
        try:
            self.folder = self.folder if not self._started else _new_folder(self._base, self._started + 1)
            worker = _Worker(self.folder, self._manifest(self._info), self.raw, wait=not self._info.realtime)
        except (ConfigError, OSError) as error:
            self.problem = f"recording did not start: {error}"
            log.error("%s", self.problem)
            return
        self.problem = ""
        self._started += 1
        with self._alarms:
            self._worker = worker
            for line in self._lasting.values():
                worker.put(_alarm_line(line), 0)
        self.continues = None

    def stop(self) -> None:
        """End the recording without waiting: its thread writes what is queued and closes the files."""
        self._whole = False
        self._let_go()

    def begin_session(self, subject: str, *, record: bool) -> None:
        """Another person's session: a recording of its own begins where `record`, and the one before ends. From the
        loop's thread."""
        self.stop()
        self.subject, self.continues = subject, None
        if record:
            self.start()

    @property
    def used(self) -> bool:
        """Whether anything has been recorded."""
        return bool(self._started)

    def alarm(self, key: str, line: dict[str, Any], *, lasts: bool) -> None:
        """Write a line of `alarms.jsonl`; from any thread, and so also while the loop hangs.

        key: an event's id, or `settings`. lasts: a later part begins with the line, until another one of that key.
        """
        with self._alarms:
            self._lasting.pop(key, None)
            if lasts:
                self._lasting[key] = line
            if (worker := self._worker) is not None:  # the loop's thread may end it meanwhile
                worker.put(_alarm_line(line), 0)

    def close(self) -> None:
        """End the recording; its files are complete when this returns."""
        self.stop()
        for worker in self._ending:
            worker.join()
            self.problem = worker.problem or self.problem
        self._ending.clear()

    def _let_go(self) -> None:
        if self._worker is not None:
            self._worker.finish()
            self.problem = self._worker.problem
            self._ending.append(self._worker)
            self._worker = None

    def _manifest(self, info: RunInfo) -> dict[str, Any]:
        bundle = info.bundle
        return {
            "format": FORMAT,
            "version": VERSION,
            "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "intended_use": INTENDED_USE,
            "subject": self.subject,
            "bundle": {"id": bundle.id, "sha256": bundle.sha256, "demo": bundle.demo, "subject": bundle.subject},
            "task": bundle.task.name,
            "outputs": list(bundle.task.outputs),
            "modalities": list(bundle.task.names),
            "backend": info.backend,
            "precision": info.precision,
            "threads": self._threads,
            "hop": info.hop,
            "first": info.first,
            "smooth": info.smooth,
            "novelty": info.novelty,
            "person": info.follow,
            "actions": info.actions,
            "uncertainty": info.uncertainty,
            "realtime": info.realtime,
            "origin": _origin(info),
            "clock": [],
            "sources": info.sources,
            "raw": sorted(self.raw | {"eda"}),
            "whole": self._whole,
            "host": {"jmt_edge": __version__, "python": platform.python_version(), "machine": platform.machine()},
            "chain": True,
            "continues": _part(self.continues),
            "closed": None,
        }

    def _put(self, write: Callable[[_Files], None], size: int = 0) -> None:
        if self._worker is not None and self._worker.faulty:
            self._restart()
        if self._worker is not None:
            self._worker.put(write, size)

    def _restart(self) -> None:
        """The next part of a recording that stopped at a fault of the program, after a pause that doubles."""
        now = time.monotonic()
        if not self._due:
            self._due = now + self._pause
            self._pause = min(2 * self._pause, RESTART_MOST)
        if now < self._due:
            return
        self._due, self.continues, self._whole = 0.0, self.folder, False
        self.start()

    # --- the run's calls
    def on_start(self, info: RunInfo) -> None:
        self._info = info
        if not self._waits:
            self.start()

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        self._whole &= self.active
        kept = modality == "eda" or modality in self.raw
        size = 12 * len(chunk) if kept else 0
        if modality == "face" and kept and len(chunk):
            size = chunk.values[0].nbytes * len(chunk)  # of one camera
        self._put(lambda files: files.chunk(modality, chunk, kept), size)

    def on_skip(self, index: int) -> None:
        self._put(lambda files: files.line("timeline", {"skip": index}))

    def on_rest(self, seconds: float) -> None:
        self._put(lambda files: files.line("timeline", {"rest": seconds}))

    def on_mark(self, mark: Mark) -> None:
        self._put(lambda files: files.mark(mark))

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        now = {name: status_dict(status) for name, status in statuses.items()}
        self._put(lambda files: files.status(now))

    def on_result(self, result: Result) -> None:
        self._put(lambda files: files.result(result))

    def on_clock(self, t: float, step: float) -> None:
        if self._info is not None:
            origin = _origin(self._info)
            self._put(lambda files: files.clock(t, step, origin))

    def on_end(self, summary: Summary) -> None:
        self.close()


def _alarm_line(line: dict[str, Any]) -> Callable[[_Files], None]:
    return lambda files: files.line("alarms", line)


def _manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`; empty where there is none that can be read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else {}


def _last_part(folder: Path) -> Path | None:
    """The newest of `folder`, `folder`-2, `folder`-3, ... that holds a recording."""
    parts = {1: folder}
    for path in folder.parent.glob(f"{glob.escape(folder.name)}-*"):
        suffix = path.name[len(folder.name) + 1 :]
        if suffix.isdecimal() and str(int(suffix)) == suffix and int(suffix) > 1:
            parts[int(suffix)] = path
    return next((parts[number] for number in sorted(parts, reverse=True) if _manifest_of(parts[number])), None)


def _origin(info: RunInfo) -> str | None:
    """When stream time was 0 (ISO 8601); None where it is not the time of a clock."""
    if not info.realtime or not info.origin:
        return None
    return datetime.fromtimestamp(info.clock.at(info.origin), timezone.utc).isoformat(timespec="milliseconds")


def _part(folder: Path | None) -> dict[str, Any] | None:
    """How a manifest names the part before it: its folder's name beside this one, when that was begun, the seconds
    since it was last written to, and the hash at the end of its chain."""
    if folder is None:
        return None
    written = max((path.stat().st_mtime for path in folder.iterdir()), default=time.time())
    gap = max(0.0, time.time() - written)
    created = _manifest_of(folder).get("created")
    return {"recording": folder.name, "created": created, "gap": round(gap, 3), "chain": last_head(folder)}


def _new_folder(folder: Path, first: int = 1) -> Path:
    """Make `folder`, or where `first` > 1 the first free `folder`-N from N = first on."""
    for number in count(first):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            used = any(path.iterdir())
        except OSError as error:
            raise ConfigError(
                f"cannot record to {path} ({error.strerror}); choose another folder with --record"
            ) from None
        if not used:
            break
        if first == 1:
            raise ConfigError(f"{path} is not empty, and recordings are never overwritten; choose another --record")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"cannot record to {path} (permission denied); choose another folder with --record")
    return path


class _Worker:
    """The writing thread and its bounded queue. wait: a full queue blocks `put` instead of dropping samples."""

    def __init__(self, folder: Path, manifest: dict[str, Any], raw: Collection[str], *, wait: bool) -> None:
        self.problem = ""
        self.faulty = False  # it stopped at a fault of the program, so that another part may follow
        self._files = _Files(folder, manifest, raw)
        self._wait = wait
        self._queue: deque[tuple[Callable[[_Files], None], int]] = deque()
        self._bytes = 0
        self._missed = 0
        self._closing = False
        self._ready = threading.Condition()
        self._thread = Steady(self._run, "recorder")
        self._thread.start()

    def put(self, write: Callable[[_Files], None], size: int) -> None:
        with self._ready:
            while self._wait and self._bytes + size > QUEUE_BYTES and self._queue and not self.problem:
                self._ready.wait(0.1)
            if self.problem or self._closing:
                return
            if size and self._queue and self._bytes + size > QUEUE_BYTES:
                self._missed += 1
                if self._missed == 1:
                    log.warning("the disk is too slow for the recording: samples are being dropped")
                    self._queue.append((lambda files: files.line("timeline", {"gap": "the disk was too slow"}), 0))
                return
            self._queue.append((write, size))
            self._bytes += size
            self._ready.notify_all()

    def finish(self) -> None:
        """Accept no more; the thread ends when the queue has been written."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            due = time.monotonic() + FLUSH
            while True:
                with self._ready:
                    if not self._queue and not self._closing:
                        self._ready.wait(FLUSH)
                    item = self._queue.popleft() if self._queue else None
                    if item is None and self._closing:
                        break
                if item is not None:
                    with span("record"):
                        item[0](self._files)
                    with self._ready:
                        self._bytes -= item[1]
                        self._ready.notify_all()
                if time.monotonic() >= due:
                    with span("flush"):
                        self._files.flush()
                    due = time.monotonic() + FLUSH
            self._files.close({"complete": self._missed == 0, "missed_chunks": self._missed})
        except OSError as error:  # PyAV's errors are subclasses of this and of ValueError
            self._fail(error)
        except Exception as error:
            # what was half written would shift all that follows, so this part ends here
            FAULTS.add("recorder", error)
            self.faulty = True
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = "the disk is full"
        with self._ready:
            self.problem = f"recording to {self._files.folder} stopped: {reason}; what was written so far is kept"
            self._queue.clear()
            self._ready.notify_all()
        log.error("%s", self.problem)
        try:
            self._files.close({"complete": False, "missed_chunks": self._missed, "problem": reason})
        except Exception as again:
            log.debug("closing the recording: %s", again)


class _Files:
    """The files of one recording; used by the writing thread only."""

    def __init__(self, folder: Path, manifest: dict[str, Any], raw: Collection[str]) -> None:
        self.folder = folder
        self._manifest = manifest
        self._raw = raw
        self._write_manifest()
        self._chain = ChainWriter(folder)
        self._eda = _Hashed(folder / "eda.csv", self._chain)
        self._eda.write(b"t,uS\n")
        self._lines = {
            name: _Hashed(folder / f"{name}.jsonl", self._chain)
            for name in ("status", "events", "alarms", "results", "timeline")
        }
        self._wav = _Wav(folder / "voice.wav", self._chain) if "voice" in raw else None
        self._video: _Video | None = None
        self._parts = 0
        self._statuses: dict[str, Any] = {}
        self._status_at = -np.inf
        self._status_lines = 0

    def _write_manifest(self) -> None:
        content = (json.dumps(self._manifest, indent=1, ensure_ascii=False) + "\n").encode()
        if self._manifest.get("closed"):  # first: a manifest that says so and has no checksum was altered
            (self.folder / CHECKSUM).write_bytes(checksum(content, MANIFEST))
        new = self.folder / f".{MANIFEST}"
        new.write_bytes(content)
        new.replace(self.folder / MANIFEST)

    def line(self, name: str, entry: dict[str, Any]) -> None:
        self._lines[name].write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def chunk(self, modality: str, chunk: Chunk, kept: bool) -> None:
        """A chunk in the timeline and, if `kept`, its samples."""
        entry: dict[str, Any] = {"chunk": modality, "n": len(chunk), "rate": chunk.rate, "lost": chunk.lost}
        if not kept:
            if len(chunk):
                entry.update(first=float(chunk.times[0]), last=float(chunk.times[-1]))
        elif modality == "face":
            entry["t"] = chunk.times.tolist()
            for t, image in zip(entry["t"], chunk.values):
                self._frame(t, image)
        elif modality == "voice":
            assert self._wav is not None
            self._wav.write(chunk.values)
            entry.update(pack_times(chunk.times, chunk.rate))
        elif modality == "eda":
            values = np.asarray(chunk.values, np.float32)
            rows = [f"{t!r},{'' if v != v else v}\n" for t, v in zip(chunk.times.tolist(), map(str, values))]
            self._eda.write("".join(rows).replace(",nan\n", ",\n").encode())
        else:
            raise ValueError(f"samples of the unknown modality '{modality}' have no file")
        self.line("timeline", entry)

    def _frame(self, t: float, image: NDArray[np.uint8]) -> None:
        if self._video is None or self._video.shape != image.shape:
            if self._video is not None:
                self._video.close()
            self._parts += 1
            self._video = _Video(self.folder / video_name(self._parts), image.shape, self._chain)
        self._video.write(t, image)

    def mark(self, mark: Mark) -> None:
        self.line("events", asdict(mark))
        self.line("timeline", {"mark": True})

    def status(self, statuses: dict[str, Any]) -> None:
        # all that a result depends on
        gate = {name: (s["state"], s["reason"], s["unit"], s["lost"]) for name, s in statuses.items()}
        now = time.monotonic()
        if gate == self._statuses and now - self._status_at < CLOCK_PERIOD:
            return
        self._statuses, self._status_at = gate, now
        self.line("status", statuses)
        self.line("timeline", {"status": self._status_lines})
        self._status_lines += 1

    def clock(self, t: float, step: float, origin: str | None) -> None:
        """The system's clock was set: the manifest says what it makes of stream time 0, and by how much it was set."""
        self._manifest["origin"] = origin
        steps = [*self._manifest["clock"], {"t": round(t, 3), "step": round(step, 3)}]
        self._manifest["clock"] = steps[-CLOCK_STEPS:]
        self._write_manifest()

    def result(self, result: Result) -> None:
        self._lines["results"].write(result.to_json().encode() + b"\n")
        scores = {name: quality.score for name, quality in result.quality.items()}
        self.line("timeline", {"window": result.index, "scores": scores})

    def flush(self) -> None:
        """Hand everything to the kernel, the timeline last: it never lists what is not there. Then the chain."""
        if shutil.disk_usage(self.folder).free < RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._wav is not None:
            self._wav.flush()
        self._eda.flush()
        for file in self._lines.values():
            file.flush()
        self._chain.link()

    def close(self, closed: dict[str, Any]) -> None:
        parts: list[Any] = [self._video, self._wav, self._eda, *self._lines.values()]
        problem: Exception | None = None
        for part in parts:
            try:
                if part is not None:
                    part.close()
            except (OSError, ValueError) as error:
                problem = error
        self._manifest["closed"] = {"at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **closed}
        try:
            if problem is None:
                self._seal()
            else:
                self._chain.abandon()
        except OSError as error:
            problem = error
        self._write_manifest()
        if problem is not None:
            raise problem

    def _seal(self) -> None:
        """Write what every file holds into the manifest. Not after an error: what reached the disk is unknown then."""
        files = self._chain.close()
        if self._wav is not None:
            files["voice.wav"]["header"] = self._wav.header().hex()
        self._manifest["closed"].update(files=files, chain=self._chain.head)


class _Hashed:
    """A file that only grows, whole lines at a time."""

    def __init__(self, path: Path, chain: ChainWriter) -> None:
        self._name, self._chain = path.name, chain
        self._file: IO[bytes] = path.open("ab")
        chain.add(path.name, b"")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._chain.add(self._name, data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Wav:
    """A float32 mono WAV at 44.1 kHz whose header is updated at every flush."""

    def __init__(self, path: Path, chain: ChainWriter) -> None:
        self._file = path.open("wb", buffering=1 << 16)
        self._size = 0
        self._name, self._chain = path.name, chain
        chain.add(path.name, b"")
        self._file.write(self.header())
        self._file.flush()

    def header(self) -> bytes:
        """The first `WAV_HEADER` bytes, which the chain leaves out because they change."""
        size = self._size if self._size < 0xFFFFFFFF - 36 else 0xFFFFFFFF  # "to the end", beyond 4 GiB (6.7 h)
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF", min(36 + size, 0xFFFFFFFF), b"WAVE",
            b"fmt ", 16, 3, 1, AUDIO_RATE, 4 * AUDIO_RATE, 4, 32,
            b"data", size,
        )  # fmt: skip

    def write(self, samples: NDArray[np.float32]) -> None:
        data = np.asarray(samples, "<f4").tobytes()
        self._file.write(data)
        self._size += len(data)
        self._chain.add(self._name, data)

    def flush(self) -> None:
        self._file.flush()
        os.pwrite(self._file.fileno(), self.header(), 0)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


class _Video:
    """Lossless video: FFV1 (RFC 9043), key frames only, in Matroska clusters of at most half a second."""

    def __init__(self, path: Path, shape: tuple[int, ...], chain: ChainWriter) -> None:
        import av

        self.shape = shape
        self._av: Any = av
        self._out = _Unbuffered(path, chain)
        options = {"live": "1", "flush_packets": "1", "cluster_time_limit": "500"}
        self._container: Any = av.open(self._out, "w", format="matroska", options=options)
        self._stream: Any = self._container.add_stream("ffv1", rate=1000)
        self._stream.height, self._stream.width = shape[:2]
        self._stream.pix_fmt = "bgr0"
        self._stream.options = {"level": "3", "g": "1", "coder": "0", "context": "0", "slices": "4"}
        self._stream.codec_context.thread_count = 1
        self._last = -1

    def write(self, t: float, image: NDArray[np.uint8]) -> None:
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        self._last = frame.pts = max(self._last + 1, round(t * 1000))
        self._container.mux(self._stream.encode(frame))
        self._out.check()

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        finally:
            self._out.close()
        self._out.check()


class _Unbuffered:
    """An unbuffered file object for PyAV that keeps the first error, which FFmpeg would reword."""

    def __init__(self, path: Path, chain: ChainWriter) -> None:
        self._name, self._chain = path.name, chain
        chain.add(path.name, b"")
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is not None:
            return len(data)
        left = memoryview(data)
        try:
            while left:
                written = os.write(self._fd, left)
                self._chain.add(self._name, left[:written])
                left = left[written:]
        except OSError as error:
            self._error = error
        return len(data)

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        os.close(self._fd)


def video_name(part: int) -> str:
    """Part `part` of the video: a camera that comes back with another size starts a new one."""
    return "face.mkv" if part == 1 else f"face-{part}.mkv"


def pack_times(times: NDArray[np.float64], rate: float) -> dict[str, Any]:
    """Times as their start and their distance from an even grid, in units in the last place: exact and small."""
    if not len(times):
        return {"t0": 0.0}
    steps = times.view(np.int64) - _grid(float(times[0]), len(times), rate).view(np.int64)
    packed = {"t0": float(times[0])}
    return {**packed, "ulps": base64.b64encode(zlib.compress(steps.astype("<i8").tobytes(), 1)).decode()}


def unpack_times(entry: Mapping[str, Any]) -> NDArray[np.float64]:
    """Inverse of `pack_times`, bit for bit; `entry` also has `n` and `rate`."""
    if not entry["n"]:
        return np.empty(0)
    steps = np.frombuffer(zlib.decompress(base64.b64decode(entry["ulps"])), "<i8")
    return (_grid(entry["t0"], entry["n"], entry["rate"]).view(np.int64) + steps).view(np.float64)


def _grid(start: float, n: int, rate: float) -> NDArray[np.float64]:
    return start + np.arange(n) / (rate or 1.0)


def status_dict(status: Status) -> dict[str, Any]:
    """A status as plain JSON values."""
    plain: dict[str, Any] = _plain({**asdict(status), "state": status.state.value})
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
