"""The page in headless Chromium, against simulated sensors. `visit` fails a test on any console error or any request
that leaves the machine."""
# ruff: noqa: E501

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from page_fixture import CUT_OFF, Stage, wait_for

from jmt_edge.live.page.audit import verify
from jmt_edge.recording.reader import Recording

Visit = Callable[..., Any]


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).text_content()).strip()


def wait_text(page: Any, selector: str, test: str) -> None:
    """`test` is a JavaScript condition on the element's text `s`."""
    page.wait_for_function(
        f"() => {{ const s = document.querySelector({json.dumps(selector)})?.textContent.trim() ?? ''; return {test}; }}"
    )


def alarm_ids(page: Any) -> list[str]:
    ids: list[str] = page.eval_on_selector_all("#banner-list .alarm", "nodes => nodes.map(n => n.dataset.id)")
    return ids


def test_values_move(stage: Stage, visit: Visit) -> None:
    stage.engine.wobble = True
    page = visit(stage.url)
    wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
    before = text(page, "#pain")
    wait_text(page, "#pain", f"/^[0-9]+%$/.test(s) && s !== {json.dumps(before)}")
    valence = text(page, "#valence")
    wait_text(page, "#valence", f"/^[+−][0-9.]+$/.test(s) && s !== {json.dumps(valence)}")
    wait_text(page, "#eda", "Number(s) > 0")
    eda = text(page, "#eda")
    wait_text(page, "#eda", f"Number(s) > 0 && s !== {json.dumps(eda)}")
    page.wait_for_function("() => Number(document.getElementById('face').dataset.shown) > 5")
    page.wait_for_function("() => document.getElementById('face').dataset.box === 'true'")
    clock = text(page, "#clock")
    wait_text(page, "#clock", f"s !== {json.dumps(clock)}")
    wait_text(page, "#p95", "s.endsWith('ms')")
    for name in ("face", "voice", "eda"):
        wait_text(page, f"#modality-{name} [data-kind=attention] b", "s.endsWith('%')")
        assert text(page, f"#modality-{name} .verdict")
    wait_text(page, "#modality-voice [data-kind=level] b", "s.endsWith('dB')")
    assert "demo weights, trained on synthetic data" in text(page, "#demo")
    assert "not for clinical use" in text(page, "#clinical")
    assert stage.task.name in text(page, "#bundle") and "dial, fp32" in text(page, "#engine")
    assert page.locator("#rec").is_visible() and "REC" in text(page, "#rec")
    stage.engine.wobble = False


def test_nothing_is_encoded_while_nobody_looks(stage: Stage, visit: Visit) -> None:
    http = stage.client
    wait_for(lambda: http.metric("page_clients") == 0, what="everybody to be gone")
    before = http.metric("page_frames_encoded_total")
    seen = wait_for(lambda: http.metric("results_total"))
    wait_for(lambda: (http.metric("results_total") or 0) > seen + 8, what="some results")
    assert http.metric("page_frames_encoded_total") == before
    page = visit(stage.url)
    page.wait_for_function("() => Number(document.getElementById('face').dataset.shown) > 2")
    page.keyboard.press("f")  # blur
    page.wait_for_selector("[data-face=blur][aria-pressed=true]")
    page.keyboard.press("f")  # hide
    wait_text(page, "#face-off", "s === 'hidden'")
    page.wait_for_timeout(700)
    hidden = http.metric("page_frames_encoded_total")
    assert hidden is not None and hidden > (before or 0)
    seen = http.metric("results_total")
    wait_for(lambda: (http.metric("results_total") or 0) > (seen or 0) + 4)
    assert http.metric("page_frames_encoded_total") == hidden
    page.click("[data-face=show]")
    wait_for(lambda: (http.metric("page_frames_encoded_total") or 0) > hidden)


def plug_board(link: Path) -> subprocess.Popen[str]:
    """A simulated BITalino in a process of its own; killing it closes the pseudo-terminal, which is the unplug."""
    board = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge", "sim-board", "bitalino", "--signal", "sim", "--link", str(link)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert board.stdout is not None and board.stdout.readline()
    return board


def test_unplugged_eda_board(tmp_path: Path, visit: Visit) -> None:
    link = tmp_path / "board"
    board = plug_board(link)
    stage = Stage(tmp_path, record=False, sources={"eda": f"bitalino:{link}?channel=3"})
    try:
        page = visit(stage.url)
        wait_text(page, "#eda", "Number(s) > 0")
        # note when the alarm and the dash are first there
        page.evaluate(
            """() => { window.seen = {}; new MutationObserver(() => {
              if (document.querySelector('.alarm[data-id="sensor-eda"]')) window.seen.alarm ??= Date.now() / 1000;
              if (document.getElementById('eda').textContent === '—') window.seen.dash ??= Date.now() / 1000;
            }).observe(document.body, {subtree: true, childList: true, characterData: true}); }"""
        )
        board.kill()
        board.wait()
        unplugged = time.time()
        page.wait_for_selector('.alarm[data-id="sensor-eda"]')
        assert page.get_attribute('.alarm[data-id="sensor-eda"]', "data-kind") == "technical"
        assert page.get_attribute("#banner", "data-signal") == "medium"
        wait_text(page, "#eda", "s === '—'")
        wait_text(page, "#eda-reason", f"s.includes({json.dumps(str(link))})")
        assert text(page, "#modality-eda .verdict").startswith("—")
        wait_text(page, "#modality-eda [data-kind=attention] b", "s === '—'")
        seen = page.evaluate("() => window.seen")
        assert seen["alarm"] - unplugged <= 2 and seen["dash"] - unplugged <= 2
        # plugged in again: the value and the calm come back
        board = plug_board(link)
        wait_text(page, "#eda", "Number(s) > 0")
        page.wait_for_selector('.alarm[data-id="sensor-eda"]', state="detached")
    finally:
        stage.close()
        board.kill()
        board.wait()


def test_marker_and_rating_land_in_the_recording(tmp_path: Path, visit: Visit) -> None:
    stage = Stage(tmp_path, raw=("eda",))
    try:
        page = visit(stage.url)
        page.wait_for_selector("#rec:not([hidden])")
        page.keyboard.press("7")
        wait_text(page, "#marks", "s.includes('rating 7')")
        page.keyboard.press("m")
        page.keyboard.type("turned, =2+3 <b>left</b>")
        page.keyboard.press("Enter")
        wait_text(page, "#marks", "s.includes('<b>left</b>')")
        page.keyboard.press("Escape")
        page.keyboard.press("t")
        wait_text(page, "#marks", "s.includes('rating 10')")
        page.keyboard.press("r")
        page.wait_for_selector("#rec", state="hidden")
        recording = wait_for(lambda: Recording(stage.recording) if Recording(stage.recording).complete else None)
        marks = [(m.text, m.rating) for m in recording.marks()]
        assert marks == [("", 7), ("turned, =2+3 <b>left</b>", None), ("", 10)]
        ends = [r["t"] for r in recording.results()]
        assert all(0 <= m.t <= ends[-1] + 1 for m in recording.marks())
        page.keyboard.press("r")
        page.wait_for_selector("#rec:not([hidden])")
        page.click("#help")
        page.click("#audit")
        wait_text(page, "#audit-list", "s.includes('rating\":7') && s.includes('recording')")
    finally:
        stage.close()
    log = stage.runs / "page-audit.jsonl"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    assert [a["action"] for a in actions] == ["marker", "marker", "marker", "recording", "recording"]
    assert [a["on"] for a in actions[3:]] == [False, True]
    assert list(verify(log)) == []
    assert (stage.runs / "first-2" / "manifest.json").is_file()


def test_alarm_cycle(stage: Stage, visit: Visit) -> None:
    engine = stage.engine
    engine.pain = 0.2
    page = visit(stage.url)
    wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
    page.keyboard.press("l")
    for name, value in (("limit", 60), ("hysteresis", 10), ("delay", 1)):
        page.fill(f"#{name}", str(value))
    page.click("#settings-form button[type=submit]")
    wait_text(page, "#pain-limit", "s === 'alarm from 60% for 1 s'")

    engine.pain = 0.9
    pain = '.alarm[data-id="pain"]'
    page.wait_for_selector(pain + "[data-state=active]")
    style = "() => { const s = getComputedStyle(document.getElementById('banner')); return [s.animationName, s.animationDuration]; }"
    assert page.evaluate(style) == ["flash-high", "0.5s"]
    assert page.get_attribute(pain, "data-kind") == "physiological"
    assert "over" in str(page.get_attribute("#pain", "class"))
    page.keyboard.press("a")
    page.wait_for_selector(pain + "[data-state=acknowledged]")
    assert page.evaluate(style)[0] == "none"
    engine.pain = 0.55  # within the hysteresis: the condition still holds
    wait_text(page, "#pain", "s === '55%'")
    assert "pain" in alarm_ids(page)
    engine.pain = 0.2
    page.wait_for_selector(pain, state="detached")

    engine.pain = 0.9
    page.wait_for_selector(pain + "[data-state=active]")
    page.keyboard.press("p")
    wait_text(page, "#pause", "/^Paused [12]:[0-9]{2}, resume$/.test(s)")
    assert page.evaluate(style)[0] == "none"
    count = text(page, "#pause")
    wait_text(page, "#pause", f"s !== {json.dumps(count)}")
    page.keyboard.press("p")
    wait_text(page, "#pause", "s === 'Pause alarms'")
    assert page.evaluate(style)[0] == "flash-high"
    engine.pain = 0.2
    page.wait_for_selector(pain + "[data-state=latched]")
    assert "not acknowledged" in text(page, pain)
    page.click("#ack")
    page.wait_for_selector(pain, state="detached")

    page.click("#sound")
    wait_text(page, "#sound", "s === 'Sound on'")


def test_run_that_hangs_shows_no_value(tmp_path: Path, visit: Visit) -> None:
    stage = Stage(tmp_path, task="pain", record=False)
    try:
        page = visit(stage.url)
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        assert page.locator("#affect-card").is_hidden()
        stage.engine.gate.clear()
        page.wait_for_selector('.alarm[data-id="stale"]')
        wait_text(page, "#pain", "s === '—'")
        wait_text(page, "#pain-reason", "s.startsWith('no results for')")
        wait_text(page, "#eda", "s === '—'")
        assert stage.client("GET", "/healthz")[0] == 503
        assert stage.client("GET", "/api/v1/result")[0] == 503
        stage.engine.gate.set()
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
    finally:
        stage.close()


SERVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from page_fixture import Stage
stage = Stage(Path(sys.argv[2]), sys.argv[4], address=sys.argv[3], record=False)
print(stage.url, flush=True)
time.sleep(600)
"""


def serve(folder: Path, address: str, task: str = "pain") -> tuple[subprocess.Popen[str], str]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(folder), address, task],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_reconnects_and_says_that_it_is_stale(tmp_path: Path, visit: Visit) -> None:
    process, url = serve(tmp_path / "one", "127.0.0.1:0")
    try:
        page = visit(url, expect=CUT_OFF)
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        os.kill(process.pid, signal.SIGSTOP)
        page.wait_for_selector("body[data-link=stale]")
        assert float(page.evaluate("() => document.body.dataset.quiet")) <= 2.0
        assert text(page, "#pain") == "—" and page.locator("#veil").is_visible()
        assert "Nothing heard" in text(page, "#veil-text")
        os.kill(process.pid, signal.SIGCONT)
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        process.kill()
        process.wait()
        page.wait_for_selector("body[data-link=lost]")
        assert text(page, "#pain") == "—"
        process, _ = serve(tmp_path / "two", url.partition("://")[2].strip("/"))
        page.wait_for_selector("body[data-link=live]")
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        assert page.locator("#veil").is_hidden()
    finally:
        process.kill()
        process.wait()


def test_dark_and_light(stage: Stage, visit: Visit) -> None:
    brightness = """() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number);
        return (r + g + b) / 3; }"""
    dark = visit(stage.url, color_scheme="dark")
    light = visit(stage.url, color_scheme="light")
    assert dark.evaluate(brightness) < 60 and light.evaluate(brightness) > 200
    dark.keyboard.press("d")
    assert dark.evaluate(brightness) > 200
    dark.reload()
    assert dark.evaluate(brightness) > 200  # the choice is kept
    for page in (dark, light):
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")


def test_contrast_is_readable(stage: Stage, visit: Visit) -> None:
    contrast = """() => {
      const parse = (c) => c.match(/[0-9.]+/g).map(Number).slice(0, 3);
      const luminance = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const card = luminance(getComputedStyle(document.querySelector('.card')).backgroundColor);
      return ['.huge', '.dim', '.verdict', '.reason', '.meter-label'].map((s) => { const l = luminance(getComputedStyle(document.querySelector(s)).color);
        return (Math.max(l, card) + 0.05) / (Math.min(l, card) + 0.05); }); }"""
    for scheme in ("dark", "light"):
        page = visit(stage.url, color_scheme=scheme)
        page.wait_for_selector(".modality .verdict")
        assert min(page.evaluate(contrast)) >= 4.5


def test_phone(stage: Stage, visit: Visit) -> None:
    page = visit(stage.url, width=390, height=844, device_scale_factor=2, has_touch=True)
    wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    box = page.locator("#pain").bounding_box()
    assert box is not None and box["y"] + box["height"] < 844 and box["height"] > 90
    small = page.eval_on_selector_all(
        "button",
        "nodes => nodes.filter(n => n.offsetParent && n.getBoundingClientRect().height < 40).map(n => n.id || n.textContent)",
    )
    assert small == []
    opened = page.locator("#rate-open").is_visible()
    if opened:
        page.locator("#rate-open").tap()
    page.locator("#pad-buttons button" if opened else "#rating button").nth(4).tap()
    wait_text(page, "#pad-now .words" if opened else "#rating-now .words", "s.startsWith('4 noted in ')")
    wait_text(page, "#marks", "s.includes('rating 4')")


def test_names_for_screen_readers(stage: Stage, visit: Visit) -> None:
    page = visit(stage.url)
    page.wait_for_selector(".modality")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, canvas:not([role=img] canvas), [role=meter], [role=img], dialog')]
             .filter((n) => !(n.getAttribute('aria-label') || n.getAttribute('aria-labelledby') || n.textContent.trim()
                              || n.closest('label')?.textContent.trim()))
             .map((n) => n.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.get_attribute("#banner-list", "aria-live") == "assertive"
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("?")
    page.wait_for_selector("#help-dialog[open]")
    assert "clinical" in text(page, "#intended")


def test_token_page(tmp_path: Path, visit: Visit) -> None:
    token = "a-token-of-some-length"
    stage = Stage(tmp_path, "pain", record=False, token=token)
    try:
        page = visit(stage.url)
        page.wait_for_selector("#token-dialog[open]")
        assert text(page, "#pain") == "—"
        page.fill("#token", token)
        page.press("#token", "Enter")
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        page.keyboard.press("5")
        page.click("#pad-show-only")
        wait_text(page, "#marks", "s.includes('rating 5')")
        again = visit(f"{stage.url}#token={token}")
        wait_text(again, "#pain", "/^[0-9]+%$/.test(s)")
        assert token not in again.url
    finally:
        stage.close()


def test_a_damaged_recording_is_listed_with_the_reason_and_not_opened(stage: Stage, visit: Visit) -> None:
    page = visit(stage.url)
    wait_for(lambda: len(Recording(stage.recording).results()) > 2)
    for name, manifest in (("cut", '{"format"'), ("list", "[1]"), ("empty", ""), ("other", '{"format": "x"}')):
        (stage.recording.parent / name).mkdir()
        (stage.recording.parent / name / "manifest.json").write_text(manifest)
    page.click("#recordings")
    page.wait_for_selector('.recording[data-id="other"]')
    for name, why in (
        ("cut", "cannot be read"),
        ("list", "not an object"),
        ("empty", "cannot be read"),
        ("other", "use the version"),
    ):
        row = page.locator(f'.recording[data-id="{name}"]')
        assert why in row.inner_text() and row.evaluate("e => e.tagName") == "DIV"
        assert str(stage.recording.parent) not in row.inner_text()
        row.click()
    assert page.locator("#viewer").is_hidden() and page.locator('button.recording[data-id="first"]').count() == 1


def test_past_recording_is_scrubbed_and_exported(stage: Stage, visit: Visit) -> None:
    page = visit(stage.url)
    wait_for(lambda: len(Recording(stage.recording).results()) > 12)
    page.click("#recordings")
    page.click('.recording[data-id="first"]')
    page.wait_for_selector("#viewer:not([hidden])")
    scrub = page.locator("#viewer-scrub")
    low, high = float(scrub.get_attribute("min")), float(scrub.get_attribute("max"))
    results = Recording(stage.recording).results()
    assert low == results[0]["t"] and high > low
    chosen = next(r for r in results if r["outputs"] and r["t"] <= high)
    scrub.evaluate("(n, t) => { n.value = t; n.dispatchEvent(new Event('input')); }", chosen["t"] + 0.01)
    wait_text(page, "#viewer-value", f"s.startsWith('pain {round(chosen['outputs']['pain'] * 100)}%')")
    first = results[0]
    if first["outputs"] is None:
        scrub.evaluate("(n, t) => { n.value = t; n.dispatchEvent(new Event('input')); }", first["t"])
        wait_text(page, "#viewer-value", "s === '—'")
        assert text(page, "#viewer-reason") == first["reason"]
    with page.expect_download() as download:
        page.click("#viewer-export")
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert {"manifest.json", "results.csv", "eda.csv", "events.csv"} <= set(archive.namelist())
    lines = archive.read("results.csv").decode().splitlines()
    assert lines[0].startswith("t,") and len(lines) > 12
