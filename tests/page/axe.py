"""What axe-core finds on a page: accessibility faults that it calls serious or critical."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = Path(__file__).parents[1] / "js" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const { violations, passes } = await axe.run({ resultTypes: ["violations"] });
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return [passes.length, grave.flatMap(({ id, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary.split("\\n")[1]?.trim()}`))];
}"""


def findings(page: Any) -> list[str]:
    """Serious and critical findings on `page` as it stands: `rule: element: what is wrong`.

    None where axe-core is not installed, which `test_page_axe.py` reports.
    """
    if not AXE.exists():
        return []
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text())
    passed, found = page.evaluate(RUN)
    assert passed > 5, "axe has looked at nothing"
    return found  # type: ignore[no-any-return]
