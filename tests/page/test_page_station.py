"""The station's page in headless Chromium: what it says of each bed, on every screen; and who may ask."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe import findings
from beds_fixture import wait_for
from german import GERMAN, left_english
from test_beds_journal import LATER, RUN, envelope, status

from jmt_edge.beds.broker import Broker
from jmt_edge.beds.listener import Listener
from jmt_edge.beds.page import start_station
from jmt_edge.beds.ward import Ward
from jmt_edge.live.page.server import Server

SIZES = ((1920, 1080), (1024, 600), (390, 844))
BEDS = 50
# Everything is inside its tile, tiles are apart and of one size, texts are whole but for those that are allowed an end.
GEOMETRY = """() => {
  const problems = [], tiles = [...document.querySelectorAll(".tile")];
  const boxes = tiles.map((t) => t.getBoundingClientRect());
  const name = (n) => `${n.closest(".tile")?.getAttribute("aria-label") || n.id || n.className}: ${n.className}`;
  if (document.documentElement.scrollWidth > innerWidth) problems.push("the page scrolls sideways");
  boxes.forEach((a, i) => {
    if (Math.abs(a.width - boxes[0].width) > 1 || a.height !== boxes[0].height) problems.push(`size of ${i}`);
    if (a.left < 0 || a.right > innerWidth) problems.push(`tile ${i} leaves the screen`);
    boxes.slice(0, i).forEach((b) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      if (wide > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1) problems.push(`tiles overlap ${i}`);
    });
  });
  for (const n of document.querySelectorAll(".tile *, .bar > *, .banner *, .foot *")) {
    if (!n.checkVisibility({ visibilityProperty: true }) || !n.textContent.trim()) continue;
    const r = n.getBoundingClientRect(), out = n.closest(".tile, .bar, .banner, .foot").getBoundingClientRect();
    if (r.left < out.left - 1 || r.right > out.right + 1 || r.top < out.top - 1 || r.bottom > out.bottom + 1)
      problems.push(`${name(n)} leaves its block`);
    const cut = n.clientWidth && n.scrollWidth > n.clientWidth + 1;
    if (cut && !n.matches(".say, h2, .say *")) problems.push(`${name(n)} is cut: ${n.scrollWidth} of ${n.clientWidth}`);
    const size = parseFloat(getComputedStyle(n).fontSize);
    if (size < (n.matches(".value") ? 21 : 11.5)) problems.push(`${name(n)} has ${size} px`);
  }
  return problems;
}"""


def alarm(priority: str, text: str, state: str = "active") -> dict[str, str]:
    return {"id": "x", "kind": "technical", "priority": priority, "state": state, "text": text, "detail": ""}


class Hand:
    """A station whose ward a test fills by hand; a thread keeps its beds fresh, however long a browser takes."""

    def __init__(self, beds: int, token: str | None = None) -> None:
        self.listener = Listener(Broker("127.0.0.1", 1), Ward("hospital/ward-3"))  # never connected
        self.ward = self.listener.ward
        self.silent = {"bed 7", "bed 10"}
        self.names = [f"bed {i + 1}" for i in range(beds)]
        self.seq = 0
        for name in self.names:
            self._say(name, "config", {
                "hop": 0.5, "task": "pain", "notice": "not for clinical use", "demo": True, "bundle": "b", "limit": 0.7,
                "alarms_off": "", "outputs": ["pain"],
            })  # fmt: skip
            quality = {n: {"ok": n != "voice", "reason": "no speech"} for n in ("face", "voice", "eda")}
            self._say(name, "quality", quality)
            self.take(name, "status", status("live"))
        self._say("bed 3", "alarms", {"alarms": [alarm("high", "Pain probability ≥ 70%")]})
        self._say("bed 4", "alarms", {"alarms": [alarm("medium", "EDA sensor stalled", "acknowledged")]})
        self._say("bed 5", "alarms", {"alarms": [alarm("low", "Engine late")]})
        self.two = ""  # a bed that a second, newer unit is called, too
        self.heard()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()
        self.server: Server = start_station("127.0.0.1:0", self.listener, token=token)

    def _feed(self) -> None:
        while not self._stop.wait(0.5):
            self.heard()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()

    def take(self, bed: str, topic: str, payload: bytes) -> None:
        with self.listener.lock:
            self.ward.take(f"hospital/ward-3/{bed}/{topic}", payload, time.monotonic())

    def _say(self, bed: str, topic: str, body: Any) -> None:
        self.take(bed, topic, json.dumps(body).encode())

    def heard(self) -> None:
        self.seq += 1
        for i, name in enumerate(self.names):
            if name in self.silent and self.seq > 1:
                continue
            outputs = {"valence": -0.31, "arousal": 0.27} if i % 6 == 5 else {"pain": 0.07 * (i % 15)}
            body = {"outputs": None if i == 8 else outputs, "reason": "no modality can be used" if i == 8 else ""}
            self.take(name, "result", envelope("result", body, self.seq))
        if self.two:
            second = {"outputs": {"pain": 1.0}, "reason": ""}
            self.take(self.two, "result", envelope("result", second, self.seq, LATER))
        with self.listener.lock:
            self.ward.judge(time.monotonic())

    def read(self, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.url + path, data, {**kind, **headers})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def hand() -> Iterator[Callable[..., Hand]]:
    made: list[Hand] = []

    def make(beds: int = BEDS, token: str | None = None) -> Hand:
        made.append(Hand(beds, token))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_fifty_beds_fit_every_screen_and_say_what_is_wrong(
    hand: Callable[..., Hand], visit: Callable[..., Any], tmp_path: Path
) -> None:
    station = hand()
    with station.listener.lock:
        station.ward.beds["bed 7"].heard -= 60
        station.ward.beds["bed 7"].began -= 60
    station.take("bed 10", "status", status("ended", last=1))
    station.take("bed 12", "status", status("live", run=LATER))
    station.two = "bed 12"
    page = visit(station.server.url, reduced_motion="reduce")
    problems: dict[str, list[str]] = {}
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(f"() => document.querySelectorAll('.tile').length === {BEDS}")
        page.wait_for_function("() => document.getElementById('veil').hidden && document.querySelector('.chip')")
        page.screenshot(path=str(tmp_path / f"station-{width}x{height}.png"))
        if found := page.evaluate(GEOMETRY):
            problems[f"{width}x{height}"] = found
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        if found := findings(page):
            problems[scheme] = found
    assert problems == {}

    def tile(bed: str) -> dict[str, Any]:
        node = page.locator(f'.tile[aria-label="{bed}"]')
        return {"text": node.inner_text(), "signal": node.get_attribute("data-signal"),
                "priority": node.get_attribute("data-priority"), "state": node.get_attribute("data-state")}  # fmt: skip

    def says(bed: str, *parts: str, **attributes: str) -> None:
        wait_for(
            lambda: (found := tile(bed)) and all(part in found["text"] for part in parts)
            and all(found[name] == value for name, value in attributes.items()), 120, f"{bed}: {parts} {attributes}",
        )  # fmt: skip

    says("bed 5", "28% pain", "DEMO", signal="low")
    says("bed 3", "Pain probability ≥ 70%", signal="high")
    says("bed 4", signal="", priority="medium")
    says("bed 7", "Bed lost", "—", state="lost", signal="medium")
    says("bed 9", "no modality can be used", "—")
    says("bed 10", state="ended")
    says("bed 12", "Two units")
    says("bed 6", "−0.31 valence", "+0.27 arousal")
    assert "not for clinical use" in page.inner_text("#clinical")
    wait_for(lambda: "bed 3" in (banner := page.inner_text("#banner-list")) and "more" in banner, 120)
    page.click("#ack")
    says("bed 7", signal="", priority="medium")
    says("bed 3", signal="high")  # the bed's own is the bed's


def test_a_station_that_does_not_answer_shows_nothing_old(hand: Callable[..., Hand], visit: Callable[..., Any]) -> None:
    station = hand(4)
    page = visit(station.server.url, expect=("ERR_CONNECTION_", "ERR_EMPTY_RESPONSE", "Failed to load"))
    wait_for(lambda: "%" in page.inner_text('.tile[aria-label="bed 2"]'), 120)
    station.close()
    page.wait_for_selector("#veil:not([hidden])")
    assert "%" not in page.inner_text("#beds") and "does not answer" in page.inner_text("#veil")
    assert page.inner_text("#banner-list") == "Alarms unknown: no connection"
    assert findings(page) == []


def test_alarms_are_unknown_while_a_token_is_asked_for(hand: Callable[..., Hand], visit: Callable[..., Any]) -> None:
    station = hand(4, "t" * 20)
    page = visit(station.server.url, expect=("401",))
    page.wait_for_selector("#token-dialog[open]")
    wait_for(lambda: page.inner_text("#banner-list") == "Alarms unknown: token needed", 120)
    boxes = [page.locator(one).bounding_box() for one in ("#banner", "#token-dialog")]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"] and not page.is_visible("#veil")
    assert findings(page) == []
    page.fill("#token", "t" * 20)
    page.press("#token", "Enter")
    wait_for(lambda: "bed 3" in page.inner_text("#banner-list"), 120)
    page.click("#theme")  # nothing is inert any more


def test_a_broker_that_is_away_is_one_alarm_and_no_numbers(
    hand: Callable[..., Hand], visit: Callable[..., Any]
) -> None:
    station = hand(4)
    station._stop.set()
    with station.listener.lock:
        station.ward.broker = "connection refused"
        station.ward.judge(time.monotonic())
    page = visit(station.server.url)
    wait_for(lambda: page.locator(".tile").count() == 4)
    wait_for(lambda: page.inner_text("#link") == "no broker", 120)
    assert "%" not in page.inner_text("#beds")
    wait_for(lambda: page.inner_text("#banner-list").startswith("No connection to the broker"), 120)
    assert station.read("healthz")[0] == 503


def test_names_and_texts_of_strangers_are_texts(hand: Callable[..., Hand], visit: Callable[..., Any]) -> None:
    station = hand(1)
    evil = '<img src=x onerror="document.title=1">'
    station.take(evil, "result", envelope("result", {"outputs": None, "reason": evil * 5}))
    page = visit(station.server.url)
    wait_for(lambda: page.locator(".tile").count() == 2)
    assert page.title() == "jmt-edge station" and evil in page.inner_text("#beds")
    text = station.read("metrics")[1]
    assert r"onerror=\"document" in text


def test_who_may_ask(hand: Callable[..., Hand]) -> None:
    token = "t" * 20
    station = hand(2, token)
    assert station.read("api/v1/beds")[0] == 401
    assert station.read("metrics", Authorization="Bearer wrong")[0] == 401
    right = {"Authorization": f"Bearer {token}"}
    assert station.read("api/v1/beds", **right)[0] == 200
    assert station.read("api/v1/beds", **right, Origin="http://elsewhere")[0] == 403
    assert station.read("api/v1/acknowledge", {"bed": "bed 9"}, **right)[0] == 404
    assert station.read("api/v1/acknowledge", {"beds": 1}, **right)[0] == 400
    assert station.read("api/v1/acknowledge", {"bed": "bed 1"}, **right) == (200, '{"changed":[]}')
    assert station.read("healthz")[0] == 200
    open_station = hand(1)
    assert open_station.read("api/v1/beds", Host="evil.example")[0] == 421
    assert RUN not in open_station.read("api/v1/beds")[1]


def test_the_station_fits_in_german(hand: Callable[..., Hand], visit: Callable[..., Any]) -> None:
    station = hand()
    with station.listener.lock:
        station.ward.beds["bed 7"].heard -= 60
        station.ward.beds["bed 7"].began -= 60
    station.take("bed 10", "status", status("ended", last=1))
    page = visit(station.server.url, locale=GERMAN, reduced_motion="reduce")
    problems: dict[str, list[str]] = {}
    for width, height in (*SIZES, (1366, 768)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("() => document.getElementById('veil').hidden && document.querySelector('.chip')")
        if found := page.evaluate(GEOMETRY) + findings(page) + left_english(page):
            problems[f"{width}x{height}"] = found
    assert problems == {}

    def says(bed: str, *parts: str) -> None:
        tile = page.locator(f'.tile[aria-label="{bed}"]')
        wait_for(lambda: all(part in tile.inner_text() for part in parts), 120, f"{bed}: {parts}")

    says("bed 5", "28\u00a0% Schmerz", "Auswertung verspätet")
    says("bed 3", "Schmerzwahrscheinlichkeit ≥\u00a070\u00a0%")
    says("bed 7", "Bett nicht erreichbar: seit", "—")
    says("bed 10", "Die Messung ist beendet")
    says("bed 6", "−0,31 Valenz", "+0,27 Arousal")
    assert "von 50 Betten live" in page.inner_text("#count")
    page.select_option("#language", "en")
    page.wait_for_selector("html[lang=en]")
    says("bed 6", "−0.31 valence")
