"""Accessibility by axe-core, of what the layouts do not show: dialogs, in both colour schemes. See `axe.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe import AXE, findings
from bedside import Bedside, settle
from page_fixture import CUT_OFF, Http, recorded

Visit = Callable[..., Any]
pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed; run `make setup`")


def test_it_finds_what_is_wrong(visit: Visit) -> None:
    page = visit("about:blank")
    page.set_content(
        "<html lang=en><title>t</title><main><h1>t</h1><button></button><p style='color: #aaa'>pale</p>"
        "<label>a <input></label><ul><li>b</li></ul></main></html>"
    )
    assert [line.split(":")[0] for line in findings(page)] == ["button-name", "color-contrast"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_dialogs_are_within_reach(tmp_path: Path, visit: Visit, scheme: str) -> None:
    recorded(tmp_path, "night-3", "trimodal", marks={10.0: "turned to the left side"})
    bed = Bedside(tmp_path, "trimodal")
    try:
        page = visit(bed.url, color_scheme=scheme, expect=CUT_OFF)
        bed.show("steady", page, Http(bed.page).json)
        bed.mark(301.0, "asked for water", None)
        for opener, ready in (
            ("help", "#keys dt"), ("settings", "#limit"), ("audit", "#audit-list li"), ("recordings", ".recording"),
        ):  # fmt: skip
            page.evaluate("(id) => document.getElementById(id).click()", opener)
            page.wait_for_selector(f"dialog[open] {ready}")
            assert findings(page) == [], opener
            if opener == "recordings":
                page.click('.recording[data-id="night-3"]')
                page.wait_for_selector("#viewer:not([hidden])")
                settle(page)
                assert findings(page) == [], "viewer"
            page.keyboard.press("Escape")
    finally:
        bed.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_token_is_asked_for_within_reach(tmp_path: Path, visit: Visit, scheme: str) -> None:
    bed = Bedside(tmp_path, "pain", token="bedside-token-1234")
    try:
        page = visit(bed.url, color_scheme=scheme, expect=CUT_OFF)
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", "not this one")
        page.press("#token", "Enter")
        page.wait_for_function("() => document.getElementById('token-error').textContent")
        page.wait_for_selector("#token-dialog[open]")
        assert findings(page) == []
    finally:
        bed.close()
