"""The page while strangers crowd it; `siege.py` measures the same for longer, with the figures demanded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import siege

from jmt_edge.live.page.door import MAX_KNOWN, MAX_STRANGERS, RUSH

pytest.importorskip("websockets")

pytestmark = pytest.mark.alone  # the two phases are compared


def test_a_crowd_of_strangers_keeps_nobody_out(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:  # a browser's test before may have left an event loop running in this thread
        figures = pool.submit(siege.siege, tmp_path, 15, 6).result()
    said = str(figures)
    assert figures["failures"] == [] and figures["logins"] and figures["health_checks"], said
    # a busy machine slows both phases
    assert figures["pictures_per_second"] > 0.4 * figures["pictures_per_second_quiet"] > 0, said
    # each guess got its answer: wrong (by HTTP and on a WebSocket), or, should they bunch up, too many
    answers = figures["wrong_tokens_answered"]
    assert set(answers) <= {"401", "1008", "429", "1013"} and answers["401"] and answers["1008"], said
    most = RUSH * MAX_STRANGERS + MAX_KNOWN + 50
    assert figures["most"]["descriptors"] < most and figures["log_lines"] < 30 and not figures["tracebacks"], said
    assert figures["faults"] == [], said
    assert figures["most"]["memory_mb"] < figures["before"]["memory_mb"] + 50, said
    assert figures["exit_code"] == 0, said
