"""Take the screenshots of the README and of docs/reference/page.md: `make screenshots`.

Runs `jmt-edge live --page` on simulated sensors in headless Chromium. With `--states DIR` it takes a screenshot of
every task in every state on every screen size instead, as measured by the layout tests.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "127.0.0.1:8799"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="NAME.jmt; default: the demo bundle of the trimodal task")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--states", type=Path, metavar="DIR", help="write every task, state and screen size to DIR")
    parser.add_argument("--only", default="", metavar="TEXT", help="with --states: only names that contain TEXT")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("screenshots need Chromium; run `apt install chromium`")
    if args.states is not None:
        photograph_states(chromium, args.states, args.only)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    bundle = ["--bundle", args.bundle] if args.bundle else ["--task", "trimodal"]
    with tempfile.TemporaryDirectory() as folder:
        live = subprocess.Popen(
            [
                sys.executable, "-m", "jmt_edge", "live", *bundle, "--output", "none", "--threads", "1",
                "--camera", "sim:fps=12", "--microphone", "sim:", "--eda", "sim:drop_at=110",
                "--page", ADDRESS, "--record", f"{folder}/session",
            ],
            cwd=ROOT,
        )  # fmt: skip
        try:
            photograph(chromium, args.out)
        finally:
            live.terminate()
            live.wait()


def photograph(chromium: str, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        dark, light, phone = (
            open_page(browser, {"width": width, "height": height}, scheme)
            for width, height, scheme in ((1440, 900, "dark"), (1440, 900, "light"), (390, 844, "dark"))
        )
        wait_clock(dark, 40)
        dark.keyboard.press("3")
        dark.keyboard.press("m")
        dark.keyboard.type("turned to the left side")
        dark.keyboard.press("Enter")
        dark.evaluate("() => document.activeElement.blur()")
        wait_clock(dark, 90)
        dark.screenshot(path=out / "page-dark.png")
        light.screenshot(path=out / "page-light.png")
        phone.screenshot(path=out / "page-phone.png")
        dark.wait_for_selector('.alarm[data-id="sensor-eda"]', timeout=120_000)
        dark.wait_for_timeout(1000)
        dark.screenshot(path=out / "page-sensor-lost.png")
        browser.close()


def photograph_states(chromium: str, out: Path, only: str) -> None:
    """TASK-STATE-SCHEME-WIDTHxHEIGHT.png for all of them."""
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests" / "page"))
    from bedside import SIZES, STATES, TASKS, Bedside, settle
    from page_fixture import Http

    out.mkdir(parents=True, exist_ok=True)
    wanted = [
        (task, state, scheme)
        for task in TASKS
        for state in STATES
        for scheme in ("dark", "light")
        if only in f"{task}-{state}-{scheme}".replace(" ", "-")
    ]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for task, state, scheme in wanted:
            with tempfile.TemporaryDirectory() as folder:
                replay = "night-3" if state == "replay" else ""
                bed = Bedside(Path(folder), task, record=state != "no recorder", replay=replay)
                page = browser.new_page(color_scheme=scheme)
                page.goto(bed.url)
                bed.show(state, page, Http(bed.page).json)
                for width, height in SIZES:
                    page.set_viewport_size({"width": width, "height": height})
                    settle(page)
                    name = f"{task}-{state}-{scheme}-{width}x{height}.png".replace(" ", "-")
                    page.screenshot(path=out / name, full_page=width < 600)
                page.close()
                bed.close()
        browser.close()


def open_page(browser: Any, viewport: dict[str, int], scheme: str) -> Any:
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    for _ in range(120):
        try:
            page.goto(f"http://{ADDRESS}/")
            return page
        except Exception:  # the run has not started yet
            time.sleep(0.5)
    sys.exit(f"nothing answers at {ADDRESS}")


def wait_clock(page: Any, seconds: int) -> None:
    page.wait_for_function(
        "(t) => { const [m, s] = document.getElementById('clock').textContent.split(':'); return 60 * m + +s >= t; }",
        arg=seconds,
        timeout=300_000,
    )


if __name__ == "__main__":
    main()
