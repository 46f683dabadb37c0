"""Whatever a screen gives as the reason for a missing number is on the page of rules or on that of symptoms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = "".join(
    " ".join((ROOT / "docs" / name).read_text().split())
    for name in ("reference/signal-quality.md", "howto/troubleshoot.md", "explanation/absent.md")
)
SOURCES = ("preprocessing/quality.py", "preprocessing/face.py", "clips/presence.py", "live/gate.py", "live/pipeline.py")
REFUSALS = {"Verdict", "Quality", "_refused", "_because"}


def texts(node: ast.expr) -> str:
    """The longest constant text of a string, an f-string or a choice between them."""
    parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return max((part.strip(" :()") for part in parts if " " in part.strip()), key=len, default="")


def reasons() -> Iterator[str]:
    """What the code gives as the reason of a refusal: literals in calls, and constants in capitals."""
    for name in SOURCES:
        path = ROOT / "jmt_edge" / name
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in REFUSALS:
                given = [*node.args, *(k.value for k in node.keywords if k.arg == "reason")]
                yield from filter(None, (texts(a) for a in given if isinstance(a, (ast.Constant, ast.JoinedStr))))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "replace":
                yield from filter(None, (texts(k.value) for k in node.keywords if k.arg == "reason"))


def test_every_reason_for_no_number_is_on_a_page() -> None:
    found = set(reasons())
    assert {"microphone dead or muted", "no EDA samples", "no camera frames"} <= found and len(found) > 10
    assert not sorted(reason for reason in found if reason not in PAGES)
