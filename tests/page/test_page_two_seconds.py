"""Nothing old for more than 2 s, measured in the browser: the page notes itself when each value was last to be seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bedside import prepare
from page_fixture import CUT_OFF, Stage
from test_page_browser import serve

LATEST = 2.0  # s after the result that did not come was due
HOP = 0.25  # s, of a `Stage`
ALL = {
    "pain", "valence", "arousal", "EDA", "highest in 5 min", "mean of 5 min", "SCRs", "picture", "box", "live",
    "what-if ticks", "from what", "latency", "dropped", "clock",
    *(f"{kind} of modality-{name}" for name in ("face", "voice", "eda") for kind in ("quality", "attention")),
    "level of modality-voice",
}  # fmt: skip


@contextmanager
def hanging_loop(folder: Path) -> Iterator[tuple[str, Callable[[], None], str]]:
    """(URL, what makes it hang, what the page then says): the engine does not return, the server still answers."""
    stage = Stage(folder, record=False)
    try:
        yield stage.url, stage.engine.gate.clear, "no results for"
    finally:
        stage.close()


@contextmanager
def frozen_server(folder: Path) -> Iterator[tuple[str, Callable[[], None], str]]:
    """The whole process is stopped; its connections stay open."""
    process, url = serve(folder / "one", "127.0.0.1:0", "trimodal")
    try:
        yield url, lambda: os.kill(process.pid, signal.SIGSTOP), "no connection"
    finally:
        process.kill()
        process.wait()


@pytest.mark.alone
@pytest.mark.parametrize("kind", [hanging_loop, frozen_server])
def test_no_value_is_older_than_two_seconds(tmp_path: Path, visit: Callable[..., Any], kind: Any) -> None:
    with kind(tmp_path) as (url, hang, reason):
        page = visit("about:blank", expect=CUT_OFF)
        prepare(page)
        page.add_init_script(path=Path(__file__).parent / "values.js")
        page.goto(url)
        page.wait_for_function(
            "all => { const now = window.shows(); return all.every((name) => now[name]); }", arg=sorted(ALL)
        )
        page.evaluate("() => window.watch()")
        page.wait_for_timeout(1000)
        hang()
        page.wait_for_function("() => Object.values(window.shows()).every((there) => !there)")
        page.wait_for_timeout(1500)  # nothing comes back
        last, seen, why = page.evaluate("() => [window.lastResult, window.lastShown, window.why()]")
        late = {
            name: round((at - last) / 1000 - HOP, 2) for name, at in sorted(seen.items(), key=lambda item: -item[1])
        }
        assert set(late) >= ALL
        assert max(late.values()) <= LATEST, f"seconds after the missing result was due: {late}"
        print(f"{kind.__name__}: the last value went {max(late.values()):.2f} s after the missing result was due")
        assert all(reason in words for words in why), why
