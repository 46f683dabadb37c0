"""Whether the page stays as small as it was: `python tests/page/heap.py --minutes 60 --json FILE`.

The real page in headless Chromium gets an hour of simulated signal and results as fast as it takes them, trimodal, with
a pain alarm each minute, lost sensors, and a person who acknowledges, rates, and opens events, recordings, dialogs and
trends. Every five minutes of signal the JavaScript heap (after a collection), DOM nodes and listeners are counted.
Exits 1 where, after the first five, the heap grows by more than 2 MB an hour, nodes by more than 50 and 20 a row
that events and notes have gained, listeners by more than 10 and 2 a row, or the page got less than 90 % of the results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jmt_edge.machine import describe

HEAP_MB, NODES, NODES_A_ROW, LISTENERS, LISTENERS_A_ROW, LEAST = 2.0, 50, 20, 10, 2, 0.9
SAMPLE = 300.0  # s of signal
PACE = 0.045  # s between two results
COUNT = """(() => { window.results = 0; const Real = window.WebSocket;
  window.WebSocket = class extends Real { constructor(...given) { super(...given);
    this.addEventListener("message", ({ data }) => { if (typeof data === "string" && data.includes('"type":"result"')) window.results++; }); } };
})();"""  # noqa: E501
ROWS = "() => document.querySelectorAll('#events-list .event, #marks li').length"
Sample = dict[str, float]


def sample(cdp: Any, page: Any, minutes: float) -> Sample:
    """What the page holds now, once what nothing refers to has been collected."""
    for _ in range(2):
        cdp.send("HeapProfiler.collectGarbage")
    dom = cdp.send("Memory.getDOMCounters")
    return {
        "minutes": round(minutes, 2), "heap_mb": round(cdp.send("Runtime.getHeapUsage")["usedSize"] / 1e6, 3),
        "nodes": dom["nodes"], "listeners": dom["jsEventListeners"], "rows": page.evaluate(ROWS),
    }  # fmt: skip


def wait_for(page: Any, selector: str) -> None:
    """Without a handle of the element, as `wait_for_selector` returns: that keeps a chart that is closed in memory."""
    page.locator(selector).first.wait_for()


def person(page: Any) -> None:
    """Opens one view after the other, and leaves each."""
    shut = "() => !document.querySelector('dialog[open], .sheet:not([hidden])')"
    page.keyboard.press("v")
    wait_for(page, "#events-list .event")
    page.click("#events-list .event >> nth=0")
    wait_for(page, "#event canvas")
    page.keyboard.press("Escape")
    page.wait_for_function(shut)
    page.keyboard.press("o")
    page.click("#recordings-list .recording")
    wait_for(page, "#viewer canvas")
    page.keyboard.press("Escape")
    page.wait_for_function(shut)
    for key in ("l", "?"):
        for _ in range(10):  # the limit is not known in the first moment after a reconnection
            page.keyboard.press(key)
            page.wait_for_timeout(300)
            if page.locator("dialog[open]").count():
                break
        page.keyboard.press("Escape")
        page.wait_for_function(shut)
    page.select_option("#pain-span", "3600")
    wait_for(page, "#pain-trend canvas")
    page.select_option("#pain-span", "live")
    page.evaluate("() => document.activeElement.blur()")


def feed(bed: Any, page: Any, cdp: Any, minutes: float, hop: float) -> tuple[list[Sample], int, int]:
    """(samples, results sent, results that the page got)."""
    before = page.evaluate("() => window.results")
    samples, sent = [sample(cdp, page, 0)], 0
    total, each = round(60 * minutes / hop), round(SAMPLE / hop)
    for sent in range(1, total + 1):
        second = sent * hop % 60
        with bed._lock:
            bed.pain = 0.95 if second < 4 else 0.25 + 0.1 * (second % 7) / 7
            bed._lost = {"eda"} if sent * hop % SAMPLE < 10 else set()
            bed._step(hop)
        time.sleep(PACE)
        if second == 10:
            page.keyboard.press("a")
        if sent % round(120 / hop) == 0:
            page.keyboard.press("7")
        if sent % each == 0:
            bed._hangs = False  # in real time
            person(page)
            bed.hang()
            samples.append(sample(cdp, page, sent * hop / 60))
            print(samples[-1], flush=True)
    return samples, sent, page.evaluate("() => window.results") - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of signal; 10 at least")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from bedside import HOP, Bedside
    from conftest import ARGUMENTS, CHROMIUM
    from page_fixture import Http, recorded
    from playwright.sync_api import sync_playwright

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        recorded(Path(folder), "night-3", "trimodal")
        bed = Bedside(Path(folder), "trimodal")
        bed.warm_up()
        bed.hang()  # its own clock; from here on this command is the clock
        Http(bed.page).json("POST", "/api/v1/alarms/settings", {"delay": 0})
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(COUNT)
        page.goto(bed.url)
        page.wait_for_selector("body[data-link=live]")
        cdp = page.context.new_cdp_session(page)
        cdp.send("HeapProfiler.enable")
        samples, sent, got = feed(bed, page, cdp, args.minutes, HOP)
        version = browser.version
        browser.close()
        bed.close()
    first, last = samples[1], samples[-1]
    grown = {name: round(last[name] - first[name], 3) for name in ("heap_mb", "nodes", "listeners", "rows")}
    rows = max(0, grown["rows"])
    share = (last["minutes"] - first["minutes"]) / (60 - first["minutes"])
    most = {
        "heap_mb": round(HEAP_MB * share, 3), "nodes": NODES + NODES_A_ROW * rows,
        "listeners": LISTENERS + LISTENERS_A_ROW * rows,
    }  # fmt: skip
    beyond = {name: grown[name] for name, limit in most.items() if grown[name] > limit}
    enough = got >= LEAST * sent
    print(f"{sent} results, {got} reached the page; growth {grown}, allowed {most}")
    if args.json:
        figures = {
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "command": " ".join(sys.argv[:3]), "machine": describe(),
            "chromium": version, "minutes_of_signal": args.minutes, "results": sent, "results_shown": got,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "growth": grown, "allowed": most, "within": not beyond and enough,
            "samples": samples,
        }  # fmt: skip
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(bool(beyond) or not enough)


if __name__ == "__main__":
    sys.exit(main())
