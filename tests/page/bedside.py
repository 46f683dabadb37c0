"""A page in a chosen state: the real server and the real page, fed by hand in place of a run.

The tests of layouts and `scripts/screenshots.py` take their pictures of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from page_fixture import empty_bundle

from jmt_edge.capture import open_source
from jmt_edge.capture.base import Chunk, State, Status
from jmt_edge.live import Controls, Quality, Result, RunInfo
from jmt_edge.live.page import PageObserver, start_page
from jmt_edge.preprocessing.face import Face
from jmt_edge.summary import Summary
from jmt_edge.tasks import get_task

TASKS = ("pain", "affect", "trimodal")
SIZES = (
    (1920, 1080), (1440, 900), (1366, 768), (1280, 800), (1280, 720), (1024, 768), (1024, 600), (820, 1180), (390, 844),
)  # fmt: skip
STATES = (
    "start", "steady", "trend", "alarm", "latched", "sensor lost", "nothing usable", "no recorder", "hang",
    "session person", "session signal", "session fault", "session rest", "session begin", "ended", "replay",
)  # fmt: skip

HOP = 0.5
PAST = 320.0  # s of history
DEVICE = "/dev/serial/by-id/usb-PLUX_BITalino_20-17-09-18-03-71-if00"
LOST = {
    "face": "no picture from /dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_6F2B5DBF-video-index0",
    "voice": "no sound from the microphone 'USB PnP Sound Device: Audio (hw:2,0)'",
    "eda": f"{DEVICE} does not answer",
}


class Bedside:
    """One page whose run is this object. `show(state)` brings it there; a run in thread keeps it alive."""

    def __init__(
        self, folder: Path, task: str, *, record: bool = True, replay: str = "", address: str = "127.0.0.1:0",
        **page: Any,
    ) -> None:  # fmt: skip
        self.task = get_task(task, "demo")
        self.controls = Controls()
        self._recorder = _Recorder() if record and not replay else None
        self.controls.recording = self._recorder
        bundle = empty_bundle(self.task, folder / f"{task}-demo.jmt")
        self.page: PageObserver = start_page(address, self.controls, recordings=folder / "runs", **page)
        self._lock = threading.RLock()
        self._t = 0.0
        self._index = 0
        self._warm = False  # all clips are full
        self._lost: set[str] = set()
        self._hangs = self._over = False
        self.pain = 0.2
        self.actions: dict[str, Any] | None = None  # facial actions in each result
        self.poor: dict[str, str] = {}  # modality -> why it cannot be used
        self.rest: dict[str, Any] | None = None  # in each result
        self.dropped = 0
        sources = {name: f"sim:{name}" for name in self.task.names}
        self._sources = {name: open_source(name, "sim:seed=4&fps=4" if name == "face" else "sim:seed=4")
                         for name in self.task.names}  # fmt: skip
        for source in self._sources.values():
            assert source is not None
            source.open(0.0)
        self._image = self._sources["face"].read(1.0).values[-1]  # type: ignore[union-attr]
        # rendering minutes of a voice is most of the work here; of its sound the page shows the level alone
        voice = self._sources.pop("voice", None)
        self._sound = None if voice is None else voice.read(1.0)
        self.page.on_start(
            RunInfo(
                bundle,
                "onnxruntime",
                {"fusion": "fp32"},
                HOP,
                not replay,
                0.0,
                sources,
                replay=replay,
                origin=0.0 if replay else time.monotonic() - PAST,
            )
        )
        self._bundle = bundle
        self._step(1.0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return self.page.url

    @property
    def warm(self) -> bool:
        """Whether minutes have passed: it cannot start any more."""
        return self._warm

    @property
    def over(self) -> bool:
        return self._over

    def close(self) -> None:
        self._over = True
        self._thread.join(10)
        self.page.close()

    def end(self, failed: str = "") -> None:
        """The run comes to its end."""
        self._over = True
        self._thread.join(10)
        self.page.on_end(Summary(self._bundle.id, True, True, failed=failed))

    def hang(self) -> None:
        self._hangs = True

    # --- states ----------------------------------------------------------------------------------------------------
    def warm_up(self) -> None:
        """Minutes of a run at once, with a pause in it."""
        with self._lock:
            self._warm = True
            while self._t < PAST:
                self.pain = 0.25 + 0.2 * np.sin(self._t / 23) + 0.05 * np.sin(self._t / 3.1)
                self._step(HOP)
                if 240.0 <= self._t < 240.0 + HOP:
                    self._t += 13.0
            self.pain = 0.2
            for at, text, rating in ((120.0, "turned to the left side", None), (230.0, "", 3), (300.0, "", 7)):
                self.mark(at, text, rating)

    def single(self, results: int, every: float) -> None:
        """Results `every` seconds after one another, from 40 s on."""
        with self._lock:
            self._warm, self._t = True, 40.0
            for _ in range(results):
                self._t += every
                self._step(HOP)
            self._t += every

    def mark(self, at: float, text: str, rating: int | None) -> None:
        from jmt_edge.live import Mark

        self.page.on_mark(Mark(at, text, rating))

    def show(self, state: str, page: Any, client: Callable[[str, str, Any], Any]) -> None:
        """Bring run and browser page to `state`. client: (method, path, body) -> answer, for a person's actions."""
        with self._lock:
            self._hangs, self._lost, self.poor, self.pain, self.rest = False, set(), {}, 0.2, None
        self.controls.recording = None if state == "no recorder" else self._recorder
        if state == "start":
            page.wait_for_function(has("#clock", "s !== '—'"))
            return
        if not self._warm:
            self.warm_up()
            page.reload()
        if page.is_visible("#session"):
            page.evaluate("() => sessionStorage.clear()")
            page.reload()
        elif state != "trend":
            self._choose(page, "live")
        number = "#pain" if "pain" in self.task.outputs else "#valence"
        page.wait_for_function(has(number, "/[0-9]/.test(s)"))
        if state not in ("latched", "replay"):
            client("POST", "/api/v1/alarms/acknowledge", {})
        if state in ("alarm", "latched") and "pain" in self.task.outputs:
            client("POST", "/api/v1/alarms/settings", {"delay": 0})
            self.pain = 0.95
            page.wait_for_selector(".alarm[data-id=pain][data-state=active]")
            if state == "latched":
                self.pain = 0.25
                page.wait_for_selector(".alarm[data-id=pain][data-state=latched]")
                page.wait_for_function(has("#pain", r"/^25\s?%$/.test(s)"))
        elif state == "alarm":
            self.dropped += 3
            page.wait_for_selector(".alarm[data-id=late]")
        elif state == "latched":
            self.hang()
            page.wait_for_selector(".alarm[data-id=stale][data-state=active]")
            self._hangs = False
            page.wait_for_selector(".alarm[data-id=stale][data-state=latched]")
            page.wait_for_function(has(number, "/[0-9]/.test(s)"))
        elif state in ("sensor lost", "nothing usable"):
            lost = list(self.task.names) if state == "nothing usable" else [self.task.names[-1]]
            self._lost = set(lost)
            for name in lost:
                page.wait_for_selector(f".alarm[data-id=sensor-{name}]")
                page.wait_for_function(has(f"#modality-{name} .verdict", "s.startsWith('—')"))
            if state == "nothing usable":
                page.wait_for_selector(".alarm[data-id=nodata]")
                page.wait_for_function(has(number, "s === '—'"))
        elif state == "hang":
            self.hang()
            page.wait_for_selector(".alarm[data-id=stale]")
            page.wait_for_function(has(number, "s === '—'"))
        elif state == "trend":
            for name in self._choose(page, "all"):
                page.wait_for_function(f"() => document.querySelector('#{name}-trend canvas').clientHeight > 20")
        elif state.startswith("session "):
            self._start_session(state.removeprefix("session "), page)
        elif state == "ended":
            self.end()
            page.wait_for_selector("body[data-link=ended]")
        else:
            why = page.locator("#record-off")
            why.wait_for(state="visible" if state == "no recorder" else "hidden")
            self._calm(page)
        if state != "ended":
            page.wait_for_selector("body[data-link=live]")

    def _choose(self, page: Any, span: str) -> list[str]:
        """What the charts of the outputs show; their names."""
        names = [n for n, output in (("pain", "pain"), ("affect", "valence")) if output in self.task.outputs]
        for name in names:
            page.select_option(f"#{name}-span", span)
        return names

    def _start_session(self, step: str, page: Any) -> None:
        """The start of a session, at one of its steps: the code, a sensor that is good or lost, a rest, the summary."""
        page.click("#session-open")
        if step == "person":
            page.fill("#session-code", "P07 of ward 3")
            page.click("#session-next")
            page.wait_for_function(has("#session-error", "s !== ''"))
            return
        page.fill("#session-code", "ward-3-bed-12_P07-2026-11-27.abc")
        page.click("#session-next")
        if step == "fault":
            self._lost = {self.task.names[0]}
            page.wait_for_function(has("#session-why", "/^(lost|fehlt), /.test(s)"))
            return
        page.wait_for_function(has("#session-advice", "s === 'Good' || s === 'Gut'"))
        if step == "signal":
            return
        for _ in self.task.names:
            page.click("#session-skip")
        if step == "rest":
            self.rest = {"left": 83.5}
            page.click("#session-rest")
            page.wait_for_function(has("#session-left", "s === '1:24'"))
            return
        page.click("#session-skip")
        page.wait_for_function(has("#session-title", "s === 'Begin' || s === 'Beginnen'"))

    def _calm(self, page: Any) -> None:
        page.wait_for_function("() => document.querySelectorAll('#banner .alarm').length === 0")

    # --- the run ---------------------------------------------------------------------------------------------------
    def _live(self) -> None:
        """Real time from where the run is."""
        began, at, due = time.monotonic(), self._t, 0.0
        while not self._over:
            time.sleep(0.05)
            with self._lock:
                now = time.monotonic()
                if self._hangs:
                    began, at, due = now, self._t, 0.0
                    continue
                if self._t > at + 60:  # warmed up meanwhile
                    began, at = now, self._t
                ahead = at + (now - began) - self._t
                if ahead > 0:
                    due += ahead
                    self._samples(ahead)
                    if due >= HOP:
                        due = 0.0
                        self._window()

    def _step(self, seconds: float) -> None:
        self._samples(seconds)
        self._window()

    def _samples(self, seconds: float) -> None:
        start, self._t = self._t, self._t + seconds
        if "face" not in self._lost:
            self.page.on_chunk("face", Chunk(np.array([self._t]), [self._image], 25))
            height, width = self._image.shape[:2]
            box = (0.3 * width, 0.2 * height, 0.7 * width, 0.85 * height)
            self.page.on_face(self._t, Face(box, 0.95, np.zeros((5, 2), np.float32)))
        if self._sound is not None and "voice" not in self._lost:
            rate = self._sound.rate
            at = np.arange(int(start * rate), int(self._t * rate))
            if at.size:
                self.page.on_chunk(
                    "voice", Chunk((at + 1) / rate, self._sound.values[at % len(self._sound.values)], rate)
                )
        if (eda := self._sources.get("eda")) is not None:
            chunk = eda.read(self._t)
            kept = chunk.times > start
            if "eda" not in self._lost and kept.any():
                self.page.on_chunk("eda", Chunk(chunk.times[kept], chunk.values[kept], chunk.rate))

    def _window(self) -> None:
        self._index += 1
        names = self.task.names
        self.page.on_status({
            name: Status(State.LOST, LOST[name]) if name in self._lost
            else Status(State.STREAMING, unit="µS" if name == "eda" else "") for name in names
        })  # fmt: skip
        why = {**self.poor, **{name: f"sensor lost: {LOST[name]}" for name in self._lost}}
        if not self._warm:
            why = dict.fromkeys(names, f"warming up: {min(self._t, 3.5):.1f} of 4.0 s")
        quality = {n: Quality(n not in why, why.get(n, ""), 0.0 if n in why else 0.93) for n in names}
        here = [name for name in names if name not in why]
        values = {"pain": float(self.pain), "valence": 0.31, "arousal": -0.22 + 0.3 * float(np.sin(self._t / 9))}
        reason = ""
        if not here:
            reason = "no usable modality: " + "; ".join(f"{n}: {q.reason}" for n, q in quality.items())
            reason = reason if self._warm else why[names[0]]
        spans = {"pain": ["no", "yes"], "valence": [-0.48, 1.0], "arousal": [-0.94, 0.61]}
        sure = {"coverage": 0.9, **{n: spans[n] for n in self.task.outputs}}
        left = {name: {n: 0.8 * values[n] for n in self.task.outputs} for name in here} if len(here) > 1 else {}
        self.page.on_result(Result(
            self._index, self._t, self.task.name, {n: values[n] for n in self.task.outputs} if here else None, reason,
            quality, {n: 1 / len(here) if n in here else None for n in names}, {"total": 14.2}, self.dropped,
            self._bundle.id, uncertainty=sure if here else None, without=left, rest=self.rest, actions=self.actions,
        ))  # fmt: skip


class _Recorder:
    """What the page asks of a recorder."""

    active, state, problem, folder = True, "recording", "", Path("night-1")

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False

    def begin_session(self, subject: str, *, record: bool) -> None:
        self.active, self.subject = record, subject

    def alarm(self, key: str, line: dict[str, Any], *, lasts: bool) -> None:
        """Nothing is written."""


def has(selector: str, test: str) -> str:
    """JavaScript: `test` holds of the text `s` of the element."""
    return f"() => {{ const s = document.querySelector({selector!r})?.textContent.trim() ?? ''; return {test}; }}"


# everything with a digit in the cards of values and in the foot, other than reasons, names and settings
NUMBERS = """() => [...document.querySelectorAll('.card:not(.actions-card) *, .foot b, .clock')]
  .filter((n) => n.checkVisibility() && [...n.childNodes].some((c) => c.nodeType === 3 && /[0-9]/.test(c.data)))
  .filter((n) => !n.closest('.reason, .verdict, .face-off, dt, #pain-limit'))
  .map((n) => `${n.id || n.className}: ${n.textContent}`)"""

HERE = Path(__file__).parent


def prepare(page: Any) -> str:
    """Let canvases remember their texts from now on; the JavaScript function that finds what is wrong on the page."""
    page.add_init_script(path=HERE / "canvas_text.js")
    return (HERE / "geometry.js").read_text()


def settle(page: Any) -> None:
    """Wait until the page has been laid out and its charts are drawn for the size that it has now."""
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done), 80)))"
    )
